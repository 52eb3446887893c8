"""Normalization on NumPy arrays: in few calls where they are small, in the cache where large.

Some groups that share statistics at a time are copied into scratch where each is contiguous, and
worked on there in place. So memory is read once and written once, and most temporaries are as large
as a block. float32 is summed by pieces, which are put together in float64, and float16 in float32.

Where the columns of a matrix have statistics (batch norm of samples), BLAS adds them up: some rows
at a time, by the product with ones.
"""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..reduction import WIDER, accumulator, count, kept_shape, reduced_axes

_BLOCK = 1 << 17  # elements in a block: half a megabyte of float32
_PIECE = 1024  # values that are summed in the dtype of x


class _Plan(NamedTuple):
    """What is the same for all arrays of these shapes."""

    axes: tuple[int, ...]  # that share statistics, none negative
    kept: tuple[int, ...]  # the shape of μ and σ²
    dtype: np.dtype  # in which is computed
    parts: list[tuple] | None  # of the rows, if the columns of a matrix have statistics: which, as
    # many times 1, and as many times the share of one row


def normalize(x, gamma, beta, *, axes, eps, centred=True, relu=False):
    """(y, μ, σ²) of `norm.fused.normalize_forward`; with `relu`, y = max(y, 0)."""
    plan = _plan(x.shape, x.dtype, axes, _shape(gamma), _shape(beta))
    y, eps = np.empty_like(x), plan.dtype.type(eps)
    if plan.parts and centred and x.flags.c_contiguous:
        mu, var = _normalize_columns(_matrix(x), _matrix(y), gamma, beta, eps, plan)
        mu, var = mu.reshape(plan.kept), var.reshape(plan.kept)
    else:
        mu, var = np.zeros((2, *plan.kept), plan.dtype)
        _normalize_blocks(x, y, gamma, beta, mu, var, plan.axes, eps, centred)
    return np.maximum(y, 0, out=y) if relu else y, mu, var


def normalize_grads(gs, outs, x, gamma, beta, *, needs, axes, eps, centred=True, relu=False):
    """(∂ℓ/∂x, ∂ℓ/∂γ, ∂ℓ/∂β) of `norm.fused.normalize_grads`; with `relu`, g counts where y > 0."""
    (g, g_mu, g_var), (y, mu, var) = gs, outs
    plan = _plan(x.shape, x.dtype, axes, _shape(gamma), _shape(beta))
    dx, eps = np.empty_like(x) if needs[0] else None, plan.dtype.type(eps)
    y = y if relu and g is not None else None
    alone = g is not None and g_mu is g_var is None
    if plan.parts and alone and centred and x.flags.c_contiguous:
        matrices = [None if v is None else _matrix(v) for v in (x, g, y, dx)]
        dgamma, dbeta = _columns_grads(*matrices, gamma, mu.ravel(), var.ravel(), eps, plan)
        dgamma = dgamma.reshape(gamma.shape) if needs[1] else None
        return dx, dgamma, dbeta.reshape(beta.shape) if needs[2] else None
    wide = WIDER.get(plan.dtype.char, plan.dtype)
    dgamma, dbeta = (
        np.zeros(like.shape, wide) if need and g is not None else None
        for like, need in zip((gamma, beta), needs[1:])
    )
    _blocks_grads(gs, x, y, dx, mu, var, gamma, dgamma, dbeta, plan.axes, eps, centred)
    return dx, dgamma, dbeta


@functools.lru_cache(maxsize=256)
def _plan(shape: tuple, dtype: np.dtype, axes: tuple, *affine: tuple | None) -> _Plan:
    axes, parts = reduced_axes(len(shape), axes), None
    dtype = np.dtype(accumulator(dtype)).newbyteorder("=")
    vectors = [v for v in affine if v is not None]
    last = shape[-1:]  # empty for a single number, as γ's may be
    alike = all([v[-1:] == last and math.prod(v) == math.prod(last) for v in vectors])
    if alike and axes == tuple(range(len(shape) - 1)) and 0 not in shape:
        rows = math.prod(shape[:-1])
        starts = range(0, rows, _PIECE)
        parts = [_part(start, min(start + _PIECE, rows), dtype) for start in starts]
    return _Plan(axes, kept_shape(shape, axes), dtype, parts)


def _part(start: int, stop: int, dtype: np.dtype) -> tuple:
    n = stop - start
    return slice(start, stop), np.ones(n, dtype), np.full(n, 1 / n, dtype)


def _shape(array: np.ndarray | None) -> tuple | None:
    return None if array is None else array.shape


@functools.lru_cache(maxsize=64)
def _ones(n: int, dtype: np.dtype) -> np.ndarray:
    return np.ones(n, dtype)


# --- A block at a time ----------------------------------------------------------------------------


def _normalize_blocks(x, y, gamma, beta, mu, var, axes, eps, centred):
    for parts in _blocks(x.shape, axes, x, y, mu, var, gamma, beta):
        x_part, y_part, mu_part, var_part, gamma_part, beta_part = parts
        d, pieces = _scratch(x_part.shape, len(axes), mu.dtype)
        d[...] = x_part
        if centred:
            mean = _means(d, pieces)
            d -= mean
            rounding = _means(d, pieces)  # what the mean lost: at 1e4 float32 has three decimals
            d -= rounding
            np.add(mean, rounding, out=mu_part)
        var_part[...] = _means(d, pieces, pieces)
        scale = 1 / np.sqrt(var_part + eps)
        d *= scale if gamma is None else scale * gamma_part
        np.add(d, d.dtype.type(0) if beta is None else beta_part, out=y_part)


def _blocks_grads(gs, x, y, dx, mu, var, gamma, dgamma, dbeta, axes, eps, centred):
    """`y` is None where no ReLU followed."""
    m, (g, g_mu, g_var) = count(x.shape, axes), gs
    for parts in _blocks(x.shape, axes, *gs, x, y, dx, mu, var, gamma, dgamma, dbeta):
        g_part, g_mu_part, g_var_part, x_part, y_part, dx_part, mu_part, var_part = parts[:8]
        gamma_part, dgamma_part, dbeta_part = parts[8:]
        d, d_pieces = _scratch(x_part.shape, len(axes), mu.dtype)
        np.subtract(x_part, mu_part, out=d)
        if centred:
            d -= _means(d, d_pieces)
        change = slope = shift = mu.dtype.type(0)  # ∂x = change + slope · d + shift
        if g is not None:
            change, pieces = _scratch(x_part.shape, len(axes), mu.dtype)
            change[...] = g_part
            if y is not None:
                change *= y_part > 0
            r = scale = 1 / np.sqrt(var_part + eps)
            within = _vary_within(len(axes), gamma_part, dbeta_part)
            if within:
                if dgamma is not None:
                    dgamma_part += _summed(change * d * r, dgamma_part.shape)
                if dbeta is not None:
                    dbeta_part += _summed(change, dbeta_part.shape)
                if gamma is not None:
                    change *= gamma_part
            mean, product = _means(d, pieces), _means(d, pieces, d_pieces)
            if not within:
                if dgamma is not None:
                    dgamma_part += _summed(product * r * m, dgamma_part.shape)
                if dbeta is not None:
                    dbeta_part += _summed(mean * m, dbeta_part.shape)
                if gamma is not None:
                    scale = r * gamma_part
            change *= scale
            slope = -scale * (r * product) * r  # r² may be beyond the dtype
            if centred:
                shift = -scale * mean
        if g_mu is not None and centred:
            shift = shift + g_mu_part / m
        if g_var is not None:
            slope = slope + g_var_part * mu.dtype.type(2 / m)
        if dx is not None:
            d *= slope
            d += shift
            np.add(d, change, out=dx_part)


def _scratch(shape: tuple, n: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """An array of this shape, in which groups of the last n axes are contiguous; and the groups in
    pieces (…, pieces, values), which 0 fills up to the same length."""
    lead, length = shape[: len(shape) - n], math.prod(shape[len(shape) - n :])
    pieces = max(1, -(-length // _PIECE))
    values = -(-length // pieces)
    memory = np.empty((*lead, pieces * values), dtype)
    memory[..., length:] = 0
    return memory[..., :length].reshape(shape), memory.reshape(*lead, pieces, values)


def _means(like: np.ndarray, a: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """The mean of each group of a, or of the products a·b, in pieces; `like` says the shape."""
    lead = a.shape[:-2]
    shape, length = lead + (1,) * (like.ndim - len(lead)), math.prod(like.shape[len(lead) :])
    b = _ones(a.shape[-1], a.dtype) if b is None else b
    with np.errstate(over="ignore"):
        means = np.add.reduce(np.vecdot(a, b), axis=-1, dtype=np.float64) / length
    if np.isinf(means).any():  # too large for the dtype, or there is an infinity
        far = np.isinf(means)
        some = a[far].astype(np.float64)
        some *= b if b.ndim == 1 else b[far]
        means[far] = np.add.reduce(some, axis=(-2, -1)) / length
    return means.astype(a.dtype).reshape(shape)


def _vary_within(n: int, *arrays: np.ndarray | None) -> bool:
    """Whether γ or β vary along the last n axes, those that share statistics."""
    return any([v is not None and math.prod(v.shape[v.ndim - n :]) > 1 for v in arrays])


def _blocks(shape: tuple, axes: tuple, *arrays: np.ndarray | None) -> Iterator[list]:
    """Parts of about `_BLOCK` elements of the arrays, which broadcast to `shape`; None stays None.

    The arrays are seen with `axes` last, so that what stands before them has statistics of its own,
    and are cut along the first axis.
    """
    order = [i for i in range(len(shape)) if i not in axes] + list(axes)
    views = [None if a is None else _aligned(a, shape).transpose(order) for a in arrays]
    if len(axes) == len(shape):
        views = [None if v is None else v[None] for v in views]
    length = 1 if len(axes) == len(shape) else shape[order[0]]
    step = max(1, _BLOCK * length // max(math.prod(shape), 1))
    for start in range(0, length, step):
        block = slice(start, start + step)
        yield [v if v is None or len(v) == 1 else v[block] for v in views]


def _aligned(array: np.ndarray, shape: tuple) -> np.ndarray:
    """A view with as many axes as `shape`, to which the array must broadcast."""
    lead = len(shape) - array.ndim
    if lead < 0 or any([n not in (1, m) for n, m in zip(array.shape, shape[lead:])]):
        raise ValueError(f"got shape {array.shape}, wants one that can be broadcast to {shape}")
    return array.reshape((1,) * lead + array.shape)


def _summed(values: np.ndarray, shape: tuple) -> np.ndarray:
    """The sum over the axes where `shape` has 1."""
    axes = tuple([i for i, n in enumerate(shape) if n == 1])
    return np.add.reduce(values, axis=axes, keepdims=True, dtype=WIDER.get(values.dtype.char))


# --- The columns of a matrix ----------------------------------------------------------------------


def _matrix(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1, array.shape[-1])


@np.errstate(over="ignore", invalid="ignore")
def _normalize_columns(x, y, gamma, beta, eps, plan):
    """y; and μ and σ²."""
    found = []
    for part, _, share in plan.parts:
        values = x[part]
        k = np.dot(share, values)
        d = values - k
        e = np.dot(share, d)  # what k lost by rounding
        d -= e
        found.append((k, e, np.dot(share, d * d)))
    k, e, var = found[0] if len(found) == 1 else _together(found, plan.parts)
    scale = (1 if gamma is None else gamma.reshape(-1)) / np.sqrt(var + eps)
    for part, _, _ in plan.parts:
        if len(found) > 1:
            d = x[part] - k
            d -= e
        d *= scale
        np.add(d, 0 if beta is None else beta.reshape(-1), out=y[part])
    mu = k + e
    if not np.dot(var, var) < math.inf:
        far = ~(var < math.inf)  # squares were too large for the dtype, or something is not finite
        some, stats = x[:, far], np.zeros((2, 1, np.count_nonzero(far)), plan.dtype)
        vectors = [None if v is None else v.reshape(-1)[far] for v in (gamma, beta)]
        normalized = np.empty_like(some)
        _normalize_blocks(some, normalized, *vectors, *stats, (0,), eps, True)
        y[:, far], mu[far], var[far] = normalized, *stats[:, 0]
    return mu, var


def _together(found: list, parts: list) -> list:
    """k, e and σ² of all rows, where k + e is their mean, from those of each part."""
    n = np.array([[len(ones)] for _, ones, _ in parts])
    k, e, var = (np.array(values, np.float64) for values in zip(*found))
    means, m = k + e, np.add.reduce(n)
    mean = np.add.reduce(n * means) / m
    var += (means - mean) ** 2
    k = mean.astype(found[0][0].dtype)
    return [v.astype(k.dtype) for v in (k, mean - k, np.add.reduce(n * var) / m)]


def _columns_grads(x, g, y, dx, gamma, mu, var, eps, plan):
    """∂γ and ∂β; and ∂x, written into `dx` if there is one."""
    found = []
    for part, ones, _ in plan.parts:
        d, change = x[part] - mu, _slopes(g, y, part)
        found.append((np.dot(ones, d), np.dot(ones, change), np.dot(ones, change * d)))
    e, dbeta, dgamma = found[0]
    if len(found) > 1:
        e, dbeta, dgamma = np.add.reduce(found, dtype=np.float64).astype(mu.dtype)
    share, r = mu.dtype.type(1 / len(x)), 1 / np.sqrt(var + eps)
    e *= share
    dgamma -= e * dbeta
    dgamma *= r
    if dx is not None:
        a = r if gamma is None else gamma.reshape(-1) * r
        b = a * -share
        c = b * r
        c *= dgamma
        b *= dbeta
        b -= c * e
        for part, _, _ in plan.parts:
            if len(found) > 1:
                d, change = x[part] - mu, _slopes(g, y, part)
            d *= c
            d += b
            np.add(d, change * a, out=dx[part])
    return dgamma, dbeta


def _slopes(g, y, part):
    """The gradient in some rows, where a ReLU let it through."""
    return g[part] if y is None else g[part] * (y[part] > 0)
