"""Batch norm on NumPy arrays: a block of channels at a time, each channel a contiguous row.

No temporary is larger than a block, so memory traffic stays in the cache. Rows are summed in twice
the precision of their values.
"""

import math
from collections.abc import Iterator

import numpy as np

from ..ops.reduce import WIDER, count, kept_shape, reduced_axes

_BLOCK = 1 << 17  # elements in a block: half a megabyte of float32


def batch_norm(x, gamma, beta, *, axes, eps):
    """(y, μ, σ²) of `norm.fused.batch_norm_forward`."""
    axes = reduced_axes(x.ndim, axes)
    y, shape = np.empty_like(x), kept_shape(x.shape, axes)
    mu, var = np.empty((2, math.prod(shape), 1), x.dtype)
    gamma, beta, eps = _column(gamma, shape), _column(beta, shape), x.dtype.type(eps)
    from_x, to_y = _channels_first(x, axes), _channels_first(y, axes)
    for block, rows in _blocks(from_x, mu):
        d = _rows(from_x[block], mu[rows])
        mean = _means(d)
        d -= mean
        rounding = _means(d)  # what the mean lost: at 1e4 float32 has three decimals
        d -= rounding
        mu[rows], var[rows] = mean + rounding, _means(d * d)
        scale = 1 / np.sqrt(var[rows] + eps)
        d *= scale if gamma is None else scale * gamma[rows]
        if beta is not None:
            d += beta[rows]
        to_y[block] = d.reshape(to_y[block].shape)
    return y, mu.reshape(shape), var.reshape(shape)


def batch_norm_grads(gs, outs, x, gamma, beta, *, needs, axes, eps):
    """(∂ℓ/∂x, ∂ℓ/∂γ, ∂ℓ/∂β) of `norm.fused.batch_norm_grads`."""
    (g, g_mu, g_var), (_, mu, var) = gs, outs
    axes = reduced_axes(x.ndim, axes)
    dx, shape, eps = np.empty_like(x) if needs[0] else None, mu.shape, x.dtype.type(eps)
    gamma, mu, var, g_mu, g_var = (_column(v, shape) for v in (gamma, mu, var, g_mu, g_var))
    dgamma, dbeta = np.empty((2, len(mu), 1), x.dtype)
    m = count(x.shape, axes)
    from_x = _channels_first(x, axes)
    from_g = None if g is None else _channels_first(g, axes)
    to_dx = None if dx is None else _channels_first(dx, axes)
    for block, rows in _blocks(from_x, mu):
        d = _rows(from_x[block], mu[rows])
        d -= mu[rows]
        d -= _means(d)
        r = 1 / np.sqrt(var[rows] + eps)
        change = np.zeros_like(d) if g is None else _rows(from_g[block], mu[rows])  # becomes ∂ℓ/∂x
        mean_g, mean_gxhat = _means(change), _means(change * d) * r
        dbeta[rows], dgamma[rows] = mean_g * m, mean_gxhat * m
        if dx is None:
            continue
        scale = r if gamma is None else gamma[rows] * r
        change -= mean_g
        change *= scale
        d *= (
            -scale * r * mean_gxhat
            if g_var is None
            else g_var[rows] * 2 / m - scale * r * mean_gxhat
        )
        change += d
        if g_mu is not None:
            change += g_mu[rows] / m
        to_dx[block] = change.reshape(to_dx[block].shape)
    return (dx, None, None) if g is None else (dx, dgamma.reshape(shape), dbeta.reshape(shape))


def _channels_first(array: np.ndarray, axes: tuple) -> np.ndarray:
    """A view whose last axes are `axes`: what stands before them has statistics of its own."""
    kept = [i for i in range(array.ndim) if i not in axes]
    return array.transpose(*kept, *axes) if kept else array[None]


def _blocks(view: np.ndarray, statistics: np.ndarray) -> Iterator[tuple[slice, slice]]:
    """Slices of the first axis of a view, of about `_BLOCK` elements each, and of its rows."""
    step = max(1, _BLOCK * len(view) // max(view.size, 1))
    per_step = len(statistics) // max(len(view), 1)
    for start in range(0, len(view), step):
        stop = min(start + step, len(view))
        yield slice(start, stop), slice(start * per_step, stop * per_step)


def _rows(part: np.ndarray, statistics: np.ndarray) -> np.ndarray:
    """A contiguous copy of a block, one row for each of its statistics."""
    return np.array(part, order="C").reshape(len(statistics), -1)


def _means(rows: np.ndarray) -> np.ndarray:
    """The mean of each row, as a column, summed in twice the precision."""
    sums = np.add.reduce(rows, axis=1, keepdims=True, dtype=WIDER.get(rows.dtype))
    return (sums / rows.shape[1]).astype(rows.dtype, copy=False)


def _column(values, shape: tuple):
    """γ, β or statistics (None: none) as a column beside the rows."""
    if values is None:
        return None
    if np.shape(values) != shape:
        values = np.broadcast_to(values, shape)
    return values.reshape(-1, 1)  # axes of length 1 are all that `shape` can add
