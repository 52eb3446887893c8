"""Reductions over one axis, several, or all (axis=None), and the softmax family.

A reduction's rule spreads the gradient back over the axes that went (`_spread`).
"""

import math

import numpy as np

from ..backend import as_given, is_floating
from ..engine import astype, broadcast_to
from ..primitive import op
from ..reduction import SUMMED, WIDER, accumulator, count, kept_shape, reduced_axes
from .compare import equal, not_equal
from .elementwise import abs, exp, pow, real, where
from .shape import cast, concatenate, flip, pad, reshape, split, squeeze

__all__ = ["amax", "amin", "cumsum", "log_softmax", "logsumexp", "max", "mean", "min", "prod",
           "softmax", "sum", "var", "vector_norm"]  # fmt: skip


def _spread(values, shape, axis):
    """A reduction's result, or its gradient, repeated over the axes that went."""
    kept = kept_shape(shape, axis)
    if values.shape != kept:
        values = reshape(values, shape=kept)
    return broadcast_to(values, shape=shape)


def _reduced(reduction, x, wider, **options):
    """A reduction, a method of x, within which x has the dtype that `wider` has for its own
    (NumPy's choice, if none). What is floating point comes back in the dtype of x."""
    out = reduction(dtype=wider.get(x.dtype.char), **options)
    return out.astype(x.dtype, copy=False) if is_floating(x.dtype) else out


@op("Σ", lambda g, _out, _x, axis=None, keepdims=False: _spread(g, _x.shape, axis))
def sum(xp, x, *, axis=None, keepdims=False):
    """The sum. Integers and booleans are summed as int64, float16 in float32."""
    return _reduced(x.sum, x, SUMMED, axis=reduced_axes(len(x.shape), axis), keepdims=keepdims)


def _mean_grad(g, _out, _x, axis=None, keepdims=False):
    return _spread(g * (1.0 / (count(_x.shape, axis) or math.nan)), _x.shape, axis)


@op("mean", _mean_grad)
def mean(xp, x, *, axis=None, keepdims=False):
    """The mean, summed in twice the precision of x."""
    return _reduced(x.mean, x, WIDER, axis=reduced_axes(len(x.shape), axis), keepdims=keepdims)


def _var_grad(g, _out, x, axis=None, correction=0, keepdims=False):
    freedom = count(x.shape, axis) - correction
    deviation = x - mean(x, axis=reduced_axes(len(x.shape), axis), keepdims=True)
    return _spread(g * (2.0 / freedom if freedom > 0 else math.nan), x.shape, axis) * deviation


@op("var", _var_grad)
def var(xp, x, *, axis=None, correction=0, keepdims=False):
    """The variance, Σ(x − mean)² / (n − correction): biased unless correction=1."""
    axis = reduced_axes(len(x.shape), axis)
    return _reduced(x.var, x, WIDER, axis=axis, ddof=correction, keepdims=keepdims)


def _cumsum_grad(g, _out, _x, axis=None):
    return reshape(flip(cumsum(flip(g, axis=axis), axis=axis), axis=axis), shape=_x.shape)


@op("Σ…", _cumsum_grad)
def cumsum(xp, x, *, axis=None):
    """The sums of the values up to each along `axis` (of the flattened x for None)."""
    return _reduced(x.cumsum, x, SUMMED, axis=axis)


def prod(x, axis=None, keepdims=False):
    """The product: of pairs, then of pairs of these, … float16 is multiplied in float32.

    A division by each value would give the gradient, too, but not where it is 0.
    """
    x = as_given(x)
    gone, dtype = reduced_axes(len(x.shape), axis), np.prod(np.ones(0, x.dtype)).dtype
    product = cast(x, accumulator(dtype))
    if gone:  # with a 1 at the end: the product of no values at all
        ones = [(0, int(i in gone)) for i in range(len(x.shape))]
        product = pad(product, widths=ones, value=1)
    for i in gone:
        while product.shape[i] > 1:
            half = product.shape[i] // 2
            low, high, last = split(product, [half, 2 * half], axis=i)
            product = concatenate([low * high, last], axis=i)
    return cast(product if keepdims else squeeze(product, axis=gone), dtype)


def _extreme_grad(g, out, x, axis=None, keepdims=False):
    out = _spread(out, x.shape, axis)
    hit = where(equal(out, out), equal(x, out), not_equal(x, x))  # a NaN was the extreme, if any
    ties = sum(hit, axis=reduced_axes(len(x.shape), axis), keepdims=True)
    return where(hit, _spread(g, x.shape, axis) / astype(ties, dtype=g.dtype), 0.0)


@op("max", _extreme_grad)
def max(xp, x, *, axis=None, keepdims=False):
    """The largest value; equal ones share the gradient evenly."""
    return xp.max(x, axis=reduced_axes(len(x.shape), axis), keepdims=keepdims)


@op("min", _extreme_grad)
def min(xp, x, *, axis=None, keepdims=False):
    """The smallest value; equal ones share the gradient evenly."""
    return xp.min(x, axis=reduced_axes(len(x.shape), axis), keepdims=keepdims)


amax, amin = max, min  # NumPy's other names


def _power(x, p):
    """x ** p for x ≥ 0. The gradient at 0 counts as 0, at every order."""
    zero = equal(x, 0)
    return where(zero, math.inf if p < 0 else 0.0, pow(where(zero, 1.0, x), p))


def vector_norm(x, ord=2, axis=None, keepdims=False):
    """(Σ |x| ** ord) ** (1 / ord), summed in twice the precision of x; for ±∞ the largest or
    smallest |x|, for 0 how many are not 0 (a constant). The gradient of a vector of zeros is 0.

    >>> import tinygrad_bn as tg
    >>> x = tg.tensor([3.0, 0.0, -4.0], requires_grad=True)
    >>> tg.grad(tg.vector_norm(x), x)
    (tensor([ 0.6,  0. , -0.8]),)
    """
    x, ord = as_given(x), float(ord)
    over, dtype = {"axis": axis, "keepdims": keepdims}, np.mean(np.ones(1, x.dtype)).dtype
    if ord in (math.inf, -math.inf):
        return max(abs(x), **over) if ord > 0 else min(abs(x), **over)
    if ord == 0:
        return sum(astype(not_equal(x, 0), dtype=dtype), **over)
    wide = cast(x, WIDER.get(x.dtype.char, np.float64))
    even = ord > 0 and ord % 2 == 0  # then the curvature at 0 is not 0
    powers = pow(wide, ord) if even else _power(abs(wide), ord)
    return cast(_power(sum(powers, **over), 1 / ord), dtype)


def _largest(xp, x, axis):
    """The maximum with keepdims=True; -inf over no values at all."""
    if x.size:
        return x.max(axis=axis, keepdims=True)
    return xp.full(kept_shape(x.shape, axis), -math.inf, x.dtype)


def _logsumexp_grad(g, out, x, axis=None, keepdims=False):
    # exp(x - out) is the share of x on paper; `out` is rounded, so the shares are made to add to 1.
    # Where every x is -inf, x - out would be NaN: each share is 0 there.
    out = _spread(where(equal(out, -math.inf), 0.0, out), x.shape, axis)
    e = exp(cast(x, accumulator(x.dtype)) - out)
    total = sum(e, axis=reduced_axes(len(x.shape), axis), keepdims=True)
    return _spread(g, x.shape, axis) * (e / where(equal(total, 0), 1.0, total))


@op("logsumexp", _logsumexp_grad)
def logsumexp(xp, x, *, axis=None, keepdims=False):
    """log Σ exp(x), without overflow."""
    axis, x = reduced_axes(len(x.shape), axis), real(x)
    values = cast(x, accumulator(x.dtype))
    top = _largest(xp, values, axis)
    shift = xp.where(xp.isfinite(top), top, 0)
    total = sum(exp(values - shift), axis=axis, keepdims=keepdims)
    with np.errstate(divide="ignore"):  # the log of a sum of nothing is -inf
        return cast(xp.log(total) + shift.reshape(total.shape), x.dtype)


def _shifted(xp, x, axis):
    """x less its largest value along `axis`, in the dtype in which it is summed."""
    values = cast(x, accumulator(x.dtype))
    return values - _largest(xp, values, axis)


@op("softmax", lambda g, out, _x, axis=-1: out * (g - sum(g * out, axis=axis, keepdims=True)))
def softmax(xp, x, *, axis=-1):
    """exp(x) / Σ exp(x) along `axis`, without overflow."""
    x = real(x)
    e = xp.exp(_shifted(xp, x, axis))
    return cast(e / sum(e, axis=axis, keepdims=True), x.dtype)


@op("log softmax", lambda g, out, _x, axis=-1: g - exp(out) * sum(g, axis=axis, keepdims=True))
def log_softmax(xp, x, *, axis=-1):
    """log(softmax(x)) along `axis`, accurate where softmax rounds to 0."""
    x = real(x)
    shifted = _shifted(xp, x, axis)
    if shifted.size:  # else it is the answer
        shifted = shifted - xp.log(xp.exp(shifted).sum(axis=axis, keepdims=True))
    return cast(shifted, x.dtype)
