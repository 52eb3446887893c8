"""Pooling of NumPy arrays: compiled where numba is installed, else some images at a time.

As in `cpu_conv` the compiled loops want the channels last in memory, and leave them so.
"""

import functools
import math

import numpy as np

from . import array_conv
from .compiled import loops
from .images import as_pixels, blocks, images_of, places_met

_SMALL = 1 << 14  # values, for which a second thread is not worth its start


def max_pool(x, **how):
    """`ops.conv.max_pool`."""
    counts, _ = array_conv.windows(x.shape[2:], **how)
    compiled, met = _loops(x.dtype, x.shape[2:], how)
    if compiled is None:
        out = np.empty((*x.shape[:2], *counts), x.dtype)
        where = np.empty(out.shape, np.int64)
        for block in blocks(x, math.prod(x.shape[2:])):
            out[block], where[block] = array_conv.max_pool(x[block], **how)
        return out, where
    out = np.empty((len(x), math.prod(counts), x.shape[1]), x.dtype)
    where = np.empty(out.shape, np.int64)
    loop = compiled.maxima if x.size > _SMALL else compiled.maxima.alone
    loop(as_pixels(x), met, out, where)
    return images_of(out, counts), images_of(where, counts)


def max_unpool(g, where, *, shape, **how):
    """`ops.conv.max_unpool`."""
    compiled, met = _loops(g.dtype, shape[2:], how)
    if compiled is None:
        out = np.empty(shape, g.dtype)
        for block in blocks(out, math.prod(shape[2:])):
            part = out[block]
            part[...] = array_conv.max_unpool(g[block], where[block], shape=part.shape, **how)
        return out
    out = np.empty((shape[0], math.prod(shape[2:]), shape[1]), g.dtype)
    loop = compiled.spread if out.size > _SMALL else compiled.spread.alone
    loop(as_pixels(g), as_pixels(where), met, out)
    return images_of(out, shape[2:])


def _loops(dtype, sizes, how) -> tuple:
    """The loops and their table `met`, or None and None: they know no window in the padding."""
    compiled = loops("pool") if dtype in (np.float32, np.float64) else None
    met = None if compiled is None else _met(sizes, **how)
    return (None, None) if met is None else (compiled, met)


@functools.lru_cache(maxsize=256)
def _met(sizes, kernel, stride, padding, dilation) -> np.ndarray | None:
    """The table `met` of `pool_loops`; None if a window does not meet the image."""
    met = places_met(sizes, kernel, stride, padding, dilation).copy()
    for k in range(1, met.shape[1]):
        met[:, k] = np.where(met[:, k] < 0, met[:, k - 1], met[:, k])
    for k in reversed(range(met.shape[1] - 1)):
        met[:, k] = np.where(met[:, k] < 0, met[:, k + 1], met[:, k])
    return None if (met < 0).any() else met
