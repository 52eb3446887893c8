"""Normalization on NumPy arrays: a block at a time, in which what shares statistics is contiguous.

Temporaries are as large as a block, or as one group that shares statistics if that is larger, so
most memory traffic stays in the cache. float16 and float32 are summed in twice the precision.
"""

import math
from collections.abc import Iterator

import numpy as np

from ..engine import accumulator
from ..ops.reduce import WIDER, count, kept_shape, reduced_axes

_BLOCK = 1 << 17  # elements in a block: half a megabyte of float32


def normalize(x, gamma, beta, *, axes, eps, centred=True):
    """(y, μ, σ²) of `norm.fused.normalize_forward`."""
    axes = reduced_axes(x.ndim, axes)
    dtype = np.dtype(accumulator(x.dtype))
    y, eps = np.empty_like(x), dtype.type(eps)
    mu, var = np.zeros((2, *kept_shape(x.shape, axes)), dtype)
    for parts in _blocks(x.shape, axes, x, y, mu, var, gamma, beta):
        x_part, y_part, mu_part, var_part, gamma_part, beta_part = parts
        d = np.array(x_part, dtype, order="C")
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
    return y, mu, var


def normalize_grads(gs, outs, x, gamma, beta, *, needs, axes, eps, centred=True):
    """(∂ℓ/∂x, ∂ℓ/∂γ, ∂ℓ/∂β) of `norm.fused.normalize_grads`."""
    (g, g_mu, g_var), (_, mu, var) = gs, outs
    axes = reduced_axes(x.ndim, axes)
    dtype, m = mu.dtype, count(x.shape, axes)
    eps, dx = dtype.type(eps), np.empty_like(x) if needs[0] else None
    dgamma, dbeta = (
        np.zeros(like.shape, WIDER.get(dtype, dtype)) if need and g is not None else None
        for like, need in zip((gamma, beta), needs[1:])
    )
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
    return dx, dgamma, dbeta


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
    """The mean over the last axes, as many as `axes`, of a contiguous array."""
    lead = values.shape[: values.ndim - len(axes)]
    rows = values.reshape(*lead, -1)
    sums = np.add.reduce(rows, axis=-1, dtype=WIDER.get(values.dtype))
    means = (sums / rows.shape[-1]).astype(values.dtype, copy=False)
    return means.reshape(lead + (1,) * len(axes))


def _summed(values: np.ndarray, shape: tuple) -> np.ndarray:
    """The sum over the axes where `shape` has 1."""
    axes = tuple([i for i, n in enumerate(shape) if n == 1])
    return np.add.reduce(values, axis=axes, keepdims=True, dtype=WIDER.get(values.dtype))
