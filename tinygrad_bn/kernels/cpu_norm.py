"""Batch norm on NumPy arrays: a block of channels at a time, each channel a contiguous row.

A row is summed pairwise (NumPy does so along the last axis), which keeps seven digits in float32
however long it is; and no temporary is larger than a block, so memory traffic stays in the cache.
"""

import math
from collections.abc import Iterator

import numpy as np

_BLOCK = 1 << 17  # elements in a block: half a megabyte of float32


def batch_norm(x, gamma, beta, *, axes, eps):
    """(y, μ, σ²) of `norm.fused.batch_norm`; μ and σ² have the shape of x with 1 at `axes`."""
    y, mu, var = np.empty_like(x), _statistics(x, axes), _statistics(x, axes)
    for block in _blocks(x, axes):
        d = _rows(x, axes, block)
        mean = d.mean(axis=1)
        d -= mean[:, None]
        rounding = d.mean(axis=1)  # what is left of the mean: at 1e4, float32 has four digits
        d -= rounding[:, None]
        variance = np.mean(d * d, axis=1)
        _put(mu, axes, block, mean + rounding)
        _put(var, axes, block, variance)
        d *= _column(gamma, mu, axes, block, 1) / np.sqrt(variance + d.dtype.type(eps))[:, None]
        if beta is not None:
            d += _column(beta, mu, axes, block, 0)
        _put(y, axes, block, d)
    return y, mu, var


def batch_norm_grads(gs, outs, x, gamma, beta, *, needs, axes, eps):
    """(∂ℓ/∂x, ∂ℓ/∂γ, ∂ℓ/∂β) of `norm.fused.batch_norm_grads`; the last two as μ in shape."""
    (g, g_mu, g_var), (_, mu, var) = gs, outs
    dx = np.empty_like(x) if needs[0] else None
    dgamma, dbeta = _statistics(x, axes), _statistics(x, axes)
    m = math.prod([x.shape[i] for i in axes])
    for block in _blocks(x, axes):
        d = _rows(x, axes, block)
        d -= _column(mu, mu, axes, block)
        d -= d.mean(axis=1)[:, None]
        r = 1 / np.sqrt(_column(var, mu, axes, block) + d.dtype.type(eps))
        change = np.zeros_like(d) if g is None else _rows(g, axes, block)  # becomes ∂ℓ/∂x
        mean_g = change.mean(axis=1)[:, None]
        mean_gxhat = np.mean(change * d, axis=1)[:, None] * r
        _put(dbeta, axes, block, mean_g * m)
        _put(dgamma, axes, block, mean_gxhat * m)
        if dx is None:
            continue
        scale = _column(gamma, mu, axes, block, 1) * r
        change -= mean_g
        change *= scale
        of_d = -scale * r * mean_gxhat
        if g_var is not None:
            of_d += _column(g_var, mu, axes, block) * d.dtype.type(2 / m)
        d *= of_d
        change += d
        if g_mu is not None:
            change += _column(g_mu, mu, axes, block) * d.dtype.type(1 / m)
        _put(dx, axes, block, change)
    return (dx, None, None) if g is None else (dx, dgamma, dbeta)


def _channels_first(array: np.ndarray, axes: tuple) -> np.ndarray:
    """A view whose last axes are `axes`: what stands before them has statistics of its own."""
    kept = [i for i in range(array.ndim) if i not in axes]
    return array.transpose(*kept, *axes) if kept else array[None]


def _blocks(x: np.ndarray, axes: tuple) -> Iterator[slice]:
    """Slices of the first axis of the view, of about `_BLOCK` elements of x each."""
    channels = _channels_first(x, axes).shape[0]
    step = max(1, _BLOCK * channels // max(x.size, 1))
    return (slice(start, start + step) for start in range(0, channels, step))


def _rows(array: np.ndarray, axes: tuple, block: slice) -> np.ndarray:
    """A copy of a block, a row for each set of values that share statistics."""
    part = _channels_first(array, axes)[block]
    m = math.prod([array.shape[i] for i in axes])
    return np.array(part, order="C").reshape(-1, m)


def _statistics(x: np.ndarray, axes: tuple) -> np.ndarray:
    """An empty array for one number a row."""
    return np.empty([1 if i in axes else n for i, n in enumerate(x.shape)], x.dtype)


def _column(values, like: np.ndarray, axes: tuple, block: slice, default=None):
    """The numbers of a block as a column beside its rows; `default` without values."""
    if values is None:
        return like.dtype.type(default)
    return _rows(np.broadcast_to(values, like.shape), axes, block)


def _put(array: np.ndarray, axes: tuple, block: slice, rows: np.ndarray) -> None:
    """Write the rows of a block back to where `_rows` took them."""
    part = _channels_first(array, axes)[block]
    part[...] = rows.reshape(part.shape)
