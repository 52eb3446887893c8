"""Reductions over one axis, several, or all (axis=None), and the softmax family.

A reduction's rule spreads the gradient back over the axes that went (`_spread`).
"""

import math

import numpy as np

from ..engine import accumulator, astype, broadcast_to
from ..graph import op
from .compare import equal, not_equal
from .elementwise import exp, log, where
from .shape import reduced_axes, reshape

__all__ = [
    "amax",
    "amin",
    "log_softmax",
    "logsumexp",
    "max",
    "mean",
    "min",
    "softmax",
    "sum",
    "var",
]


# In which a mean or variance is computed. (What is not here, NumPy chooses.)
WIDER = {np.dtype(np.float16): np.float32, np.dtype(np.float32): np.float64}


def kept_shape(shape, axis):
    """`shape` with 1 for each reduced axis: as with keepdims=True."""
    gone = reduced_axes(len(shape), axis)
    return tuple([1 if i in gone else n for i, n in enumerate(shape)])


def count(shape, axis):
    """How many values go into one."""
    return math.prod([shape[i] for i in reduced_axes(len(shape), axis)])


def _spread(values, shape, axis):
    """A reduction's result, or its gradient, repeated over the axes that went."""
    return broadcast_to(reshape(values, shape=kept_shape(shape, axis)), shape=shape)


@op("Σ", lambda g, _out, _x, axis=None, keepdims=False: _spread(g, _x.shape, axis))
def sum(xp, x, *, axis=None, keepdims=False):
    """The sum. Integers and booleans are summed as int64, float16 in float32."""
    axis = reduced_axes(len(x.shape), axis)
    if x.dtype.kind != "f":
        return xp.sum(x, axis=axis, keepdims=keepdims)
    total = xp.sum(x, axis=axis, keepdims=keepdims, dtype=accumulator(x.dtype))
    return total.astype(x.dtype, copy=False)


@op(
    "mean",
    lambda g, _out, _x, axis=None, keepdims=False: _spread(
        g * (1.0 / (count(_x.shape, axis) or math.nan)), _x.shape, axis
    ),
)
def mean(xp, x, *, axis=None, keepdims=False):
    """The mean, summed in twice the precision of x: statistics of a million values need it."""
    axis = reduced_axes(len(x.shape), axis)
    mean = xp.mean(x, axis=axis, keepdims=keepdims, dtype=WIDER.get(x.dtype))
    return mean.astype(x.dtype, copy=False) if x.dtype.kind == "f" else mean


def _var_grad(g, _out, x, axis=None, correction=0, keepdims=False):
    freedom = count(x.shape, axis) - correction
    deviation = x - mean(x, axis=reduced_axes(len(x.shape), axis), keepdims=True)
    return _spread(g * (2.0 / freedom if freedom > 0 else math.nan), x.shape, axis) * deviation


@op("var", _var_grad)
def var(xp, x, *, axis=None, correction=0, keepdims=False):
    """The variance, Σ(x − mean)² / (n − correction): biased unless correction=1."""
    axis = reduced_axes(len(x.shape), axis)
    options = {"axis": axis, "ddof": correction, "keepdims": keepdims}
    var = xp.var(x, dtype=WIDER.get(x.dtype), **options)
    return var.astype(x.dtype, copy=False) if x.dtype.kind == "f" else var


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


def _largest(xp, x, axis):
    """The maximum with keepdims=True; -inf over no values at all."""
    shape = kept_shape(x.shape, axis)
    return xp.max(x, axis=axis, keepdims=True) if x.size else xp.full(shape, -math.inf, x.dtype)


def _logsumexp_grad(g, out, x, axis=None, keepdims=False):
    # Where every x is -inf, x - out would be NaN: each share is 0 there.
    out = _spread(where(equal(out, -math.inf), 0.0, out), x.shape, axis)
    return _spread(g, x.shape, axis) * exp(x - out)


@op("logsumexp", _logsumexp_grad)
def logsumexp(xp, x, *, axis=None, keepdims=False):
    """log Σ exp(x), without overflow."""
    axis = reduced_axes(len(x.shape), axis)
    top = _largest(xp, x, axis)
    shift = xp.where(xp.isfinite(top), top, 0)
    total = sum(exp(x - shift), axis=axis, keepdims=True)
    with np.errstate(divide="ignore"):  # the log of a sum of nothing is -inf
        out = xp.log(total) + shift
    return out if keepdims else xp.squeeze(out, axis=axis)


def _softmax_grad(g, out, _x, axis=-1):
    return out * (g - sum(g * out, axis=axis, keepdims=True))


@op("softmax", _softmax_grad)
def softmax(xp, x, *, axis=-1):
    """exp(x) / Σ exp(x) along `axis`, without overflow."""
    e = xp.exp(x - _largest(xp, x, axis))
    return e / sum(e, axis=axis, keepdims=True)


def _log_softmax_grad(g, out, _x, axis=-1):
    return g - exp(out) * sum(g, axis=axis, keepdims=True)


@op("log softmax", _log_softmax_grad)
def log_softmax(xp, x, *, axis=-1):
    """log(softmax(x)) along `axis`, accurate where softmax rounds to 0."""
    shifted = x - _largest(xp, x, axis)
    with np.errstate(divide="ignore"):
        return shifted - log(sum(exp(shifted), axis=axis, keepdims=True))
