"""Max pooling of CuPy arrays, by the kernels of pool.cu: one launch each way."""

import numpy as np

from ..backend import array_module
from .cuda_windows import geometry, known, launch_each


def max_pool(x, *, padding, **how):
    """`ops.conv.max_pool`."""
    if not known(x, padding=padding):
        return NotImplemented
    xp = array_module((x,))
    counts, numbers = geometry(x.shape[2:], padding=padding, **how)
    out = xp.empty((*x.shape[:2], *counts), x.dtype)
    where = xp.empty(out.shape, np.int64)
    args = xp.ascontiguousarray(x), out, where, out.size, *numbers
    launch_each("pool", "max_pool", out.size, *args, dtype=x.dtype)
    return out, where


def max_unpool(g, where, *, shape, padding, **how):
    """`ops.conv.max_unpool`."""
    if not known(g, padding=padding):
        return NotImplemented
    xp = array_module((g,))
    _, numbers = geometry(shape[2:], padding=padding, **how)
    out = xp.empty(shape, g.dtype)
    args = xp.ascontiguousarray(g), xp.ascontiguousarray(where), out, out.size, *numbers
    launch_each("pool", "max_unpool", out.size, *args, dtype=g.dtype)
    return out
