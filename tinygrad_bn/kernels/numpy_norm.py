"""Normalization on NumPy arrays: a block at a time, in which what shares statistics is contiguous.

Temporaries are as large as a block, or as one group that shares statistics if that is larger, so
most memory traffic stays in the cache. float16 and float32 are summed in twice the precision.

Where the columns of a matrix have statistics (batch norm of samples), BLAS adds them up: some rows
at a time, shifted by the mean of these rows, and what it finds is put together in float64.
"""

import functools
import math
from collections.abc import Iterator

import numpy as np

from ..reduction import WIDER, accumulator, count, kept_shape, reduced_axes

_BLOCK = 1 << 17  # elements in a block: half a megabyte of float32
_PIECE = 1024  # values that are summed in the dtype of x


def normalize(x, gamma, beta, *, axes, eps, centred=True, relu=False):
    """(y, μ, σ²) of `norm.fused.normalize_forward`; with `relu`, y = max(y, 0)."""
    axes, kept = _arrangement(x.shape, axes)
    dtype = np.dtype(accumulator(x.dtype)).newbyteorder("=")
    y, eps = np.empty_like(x), dtype.type(eps)
    mu, var = np.zeros(kept, dtype)
    if centred and _of_columns(x, axes, gamma, beta):
        _normalize_columns(_matrix(x), _matrix(y), gamma, beta, mu.ravel(), var.ravel(), eps)
    else:
        _normalize_blocks(x, y, gamma, beta, mu, var, axes, eps, centred)
    return np.maximum(y, 0, out=y) if relu else y, mu, var


def normalize_grads(gs, outs, x, gamma, beta, *, needs, axes, eps, centred=True, relu=False):
    """(∂ℓ/∂x, ∂ℓ/∂γ, ∂ℓ/∂β) of `norm.fused.normalize_grads`; with `relu`, g counts where y > 0."""
    (g, g_mu, g_var), (y, mu, var) = gs, outs
    (axes, _), eps = _arrangement(x.shape, axes), mu.dtype.type(eps)
    dx = np.empty_like(x) if needs[0] else None
    if relu and g is not None:
        g = np.where(y > 0, g, g.dtype.type(0))
    if centred and g is not None and g_mu is g_var is None and _of_columns(x, axes, gamma, beta):
        to_x = None if dx is None else _matrix(dx)
        dgamma, dbeta = _columns_grads(
            _matrix(x), _matrix(g), to_x, gamma, mu.ravel(), var.ravel(), eps
        )
        dgamma = dgamma.reshape(gamma.shape) if needs[1] else None
        return dx, dgamma, dbeta.reshape(beta.shape) if needs[2] else None
    wide = WIDER.get(mu.dtype, mu.dtype)
    dgamma, dbeta = (
        np.zeros(like.shape, wide) if need and g is not None else None
        for like, need in zip((gamma, beta), needs[1:])
    )
    arrays = (x, dx, mu, var, g, g_mu, g_var, gamma, dgamma, dbeta)
    _blocks_grads(*arrays, axes, eps, centred)
    return dx, dgamma, dbeta


@functools.lru_cache(maxsize=64)
def _arrangement(shape: tuple, axes: tuple) -> tuple:
    """The axes that share statistics, none negative; and the shape of μ and σ² in one array."""
    return reduced_axes(len(shape), axes), (2, *kept_shape(shape, axes))


# --- A block at a time ----------------------------------------------------------------------------


def _normalize_blocks(x, y, gamma, beta, mu, var, axes, eps, centred):
    for parts in _blocks(x.shape, axes, x, y, mu, var, gamma, beta):
        x_part, y_part, mu_part, var_part, gamma_part, beta_part = parts
        d = np.array(x_part, mu.dtype, order="C")
        if centred:
            mean = _means(d, axes)
            d -= mean
            rounding = _means(d, axes)  # what the mean lost: at 1e4 float32 has three decimals
            d -= rounding
            mu_part[...] = mean + rounding
        var_part[...] = _means(d * d, axes)
        d *= 1 / np.sqrt(var_part + eps)
        if gamma is not None:
            d *= gamma_part
        if beta is not None:
            d += beta_part
        y_part[...] = d


def _blocks_grads(x, dx, mu, var, g, g_mu, g_var, gamma, dgamma, dbeta, axes, eps, centred):
    dtype, m = mu.dtype, count(x.shape, axes)
    arrays = (x, dx, mu, var, g, g_mu, g_var, gamma, dgamma, dbeta)
    for parts in _blocks(x.shape, axes, *arrays):
        x_part, dx_part, mu_part, var_part, g_part, g_mu_part, g_var_part, gamma_part = parts[:8]
        dgamma_part, dbeta_part = parts[8:]
        d = np.array(x_part, dtype, order="C")
        if centred:
            d -= mu_part
            d -= _means(d, axes)
        change = np.zeros_like(d) if g is None else np.array(g_part, dtype, order="C")
        if g is not None:
            r = 1 / np.sqrt(var_part + eps)
            xhat = d * r
            product = change * xhat
            if dgamma is not None:
                dgamma_part += _summed(product, dgamma_part.shape)
            if dbeta is not None:
                dbeta_part += _summed(change, dbeta_part.shape)
            if gamma is not None:
                change *= gamma_part
                product *= gamma_part
            xhat *= _means(product, axes)
            if centred:
                change -= _means(change, axes)
            change -= xhat
            change *= r
        if g_mu is not None and centred:
            change += g_mu_part / m
        if g_var is not None:
            d *= g_var_part * dtype.type(2 / m)
            change += d
        if dx is not None:
            dx_part[...] = change


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


def _means(values: np.ndarray, axes: tuple) -> np.ndarray:
    """The mean over the last axes, as many as `axes`, of a contiguous array.

    Pieces are summed in the dtype of the values, and the pieces in float64.
    """
    lead = values.shape[: values.ndim - len(axes)]
    rows, length = math.prod(lead), math.prod(values.shape[len(lead) :])
    with np.errstate(over="ignore"):
        sums = np.add.reduceat(values.ravel(), _starts(rows, length)).reshape(rows, -1)
    means = np.add.reduce(sums, axis=-1, dtype=np.float64) / length
    far = np.isinf(means)  # too large for the dtype, or there is an infinity
    if far.any():
        some = values.reshape(rows, length)[far]
        means[far] = np.add.reduce(some, axis=-1, dtype=np.float64) / length
    return means.astype(values.dtype, copy=False).reshape(lead + (1,) * len(axes))


@functools.lru_cache(maxsize=64)
def _starts(rows: int, length: int) -> np.ndarray:
    """Where the pieces of each of some rows begin, in a flat array."""
    return (np.arange(rows)[:, None] * length + np.arange(0, length, _PIECE)).ravel()


def _summed(values: np.ndarray, shape: tuple) -> np.ndarray:
    """The sum over the axes where `shape` has 1."""
    axes = tuple([i for i, n in enumerate(shape) if n == 1])
    return np.add.reduce(values, axis=axes, keepdims=True, dtype=WIDER.get(values.dtype))


# --- The columns of a matrix ----------------------------------------------------------------------


def _of_columns(x, axes, gamma, beta) -> bool:
    """Whether statistics, γ and β vary along the last axis, and no other."""
    last = x.ndim - 1
    if axes != tuple(range(last)) or not x.size or not x.flags.c_contiguous:
        return False
    vectors = [v.shape for v in (gamma, beta) if v is not None]
    return all([math.prod(shape) == shape[-1] == x.shape[last] for shape in vectors])


def _matrix(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1, array.shape[-1])


@functools.lru_cache(maxsize=64)
def _ones(n: int, dtype: np.dtype) -> np.ndarray:
    return np.ones(n, dtype)


@np.errstate(over="ignore", invalid="ignore")
def _normalize_columns(x, y, gamma, beta, mu, var, eps):
    parts = [slice(start, start + _PIECE) for start in range(0, len(x), _PIECE)]
    found = []
    for part in parts:
        d, *moments = _moments(x[part].astype(mu.dtype, copy=False))
        found.append(moments)
    k, e, v = moments if len(parts) == 1 else _together(found, len(x))
    np.add(k, e, out=mu)
    var[:] = v
    scale = 1 / np.sqrt(v + eps)
    if gamma is not None:
        scale *= gamma.reshape(-1)
    shift = e * -scale
    if beta is not None:
        shift += beta.reshape(-1)
    for part in parts:
        if len(parts) > 1:
            d = x[part] - k
        d *= scale
        np.add(d, shift, out=y[part], casting="same_kind")
    if not np.dot(var, var) < math.inf:
        far = ~(var < math.inf)  # squares were too large for the dtype, or something is not finite
        some, found = x[:, far], np.zeros((2, 1, np.count_nonzero(far)), mu.dtype)
        vectors = [None if v is None else v.reshape(-1)[far] for v in (gamma, beta)]
        normalized = np.empty_like(some)
        _normalize_blocks(some, normalized, *vectors, *found, (0,), eps, True)
        y[:, far], mu[far], var[far] = normalized, *found[:, 0]


def _moments(x: np.ndarray) -> tuple:
    """d = x − k, for a k near the mean; k; and of each column of d the mean and the variance, which
    is not finite where squares are too large for the dtype."""
    ones, share = _ones(len(x), x.dtype), x.dtype.type(1 / len(x))
    k = np.dot(ones * share, x)  # their sum might overflow
    d = x - k
    e = np.dot(ones, d)
    e *= share
    v = np.dot(ones, d * d)
    v *= share
    v -= e * e
    return d, k, e, np.maximum(v, 0, out=v)


def _together(found: list, m: int) -> tuple:
    """k, and mean and variance of x − k, of all rows, from those of each part of `_PIECE`."""
    n = np.full((len(found), 1), _PIECE)
    n[-1] = m - _PIECE * (len(found) - 1)
    k, e, v = (np.array(values, np.float64) for values in zip(*found))
    means = k + e
    mean = np.add.reduce(n * means) / m
    v += (means - mean) ** 2
    var, dtype = np.add.reduce(n * v) / m, found[0][0].dtype
    k = mean.astype(dtype)
    return k, (mean - k).astype(dtype), var.astype(dtype)


def _columns_grads(x, g, dx, gamma, mu, var, eps):
    """∂γ and ∂β; and ∂x, written into `dx` if there is one."""
    parts = [slice(start, start + _PIECE) for start in range(0, len(x), _PIECE)]
    sums = np.empty((len(parts), 3, len(mu)), mu.dtype)
    for part, found in zip(parts, sums):
        slopes = g[part].astype(mu.dtype, copy=False)
        d = x[part] - mu
        ones = _ones(len(d), mu.dtype)
        np.dot(ones, d, out=found[0])
        np.dot(ones, slopes, out=found[1])
        np.dot(ones, slopes * d, out=found[2])
    if len(parts) > 1:
        sums = np.add.reduce(sums, dtype=np.float64)[None].astype(mu.dtype)
    e, dbeta, dgamma = sums[0]
    share = mu.dtype.type(1 / len(x))
    r = 1 / np.sqrt(var + eps)
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
        for part in parts:
            if len(parts) > 1:
                d, slopes = x[part] - mu, g[part].astype(mu.dtype, copy=False)
            d *= c
            d += b
            np.add(d, slopes * a, out=dx[part], casting="same_kind")
    return dgamma, dbeta
