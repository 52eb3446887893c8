"""Convolution of NumPy arrays: compiled where numba is installed, else some images at a time.

The compiled loops want the channels last in memory, and leave them so: an answer is seen as
(N, C, …) and lies as (N, …, C). So the first convolution of a network copies its images, and those
after it do not.
"""

import math
from types import ModuleType

import numpy as np

from ..reduction import WIDER, accumulator
from . import array_conv, compiled_conv, compiled_depthwise
from .compiled import loops
from .images import as_pixels, blocks


def convolve(x, weight, bias, *, groups, **how):
    """`ops.convolution`."""
    if (module := _compiled(x, weight.shape, groups)) is not None:
        return module.convolve(x, weight, bias, groups=groups, **how)
    counts, _ = array_conv.windows(x.shape[2:], weight.shape[2:], **how)
    out = np.empty((len(x), len(weight), *counts), x.dtype)
    for block in blocks(x, math.prod((*weight.shape[2:], *counts))):
        out[block] = array_conv.convolve(x[block], weight, bias, groups=groups, **how)
    return out


def convolve_input(g, weight, *, shape, groups, **how):
    """`ops.convolution_input`."""
    if (module := _compiled(g, weight.shape, groups)) is not None:
        return module.convolve_input(g, weight, shape=shape, groups=groups, **how)
    out, how = np.empty(shape, g.dtype), how | {"groups": groups}
    for block in blocks(out, math.prod((*weight.shape[2:], *g.shape[2:]))):
        part = out[block]
        part[...] = array_conv.convolve_input(g[block], weight, shape=part.shape, **how)
    return out


def convolve_weight(x, g, *, shape, groups, **how):
    """`ops.convolution_weight`."""
    if (module := _compiled(x, shape, groups)) is not None:
        return module.convolve_weight(x, g, shape=shape, groups=groups, **how)
    total, how = np.zeros(shape, accumulator(x.dtype)), how | {"shape": shape, "groups": groups}
    for block in blocks(x, math.prod((*shape[2:], *g.shape[2:]))):
        total += array_conv.convolve_weight(x[block], g[block], **how)
    return total.astype(x.dtype, copy=False)


def channel_sums(g):
    """Σ g over all but the channels, the gradient at the bias: of an image by the product with
    ones, which is BLAS's, and from one image to the next in twice the precision."""
    values = g.astype(accumulator(g.dtype), copy=False)
    batch, channels, *sizes = g.shape
    ones = np.ones(math.prod(sizes), values.dtype)
    if values.flags.c_contiguous:
        sums = np.matmul(values.reshape(batch, channels, len(ones)), ones)
    else:
        sums = np.matmul(ones, as_pixels(values))
    return sums.sum(axis=0, dtype=WIDER.get(values.dtype.char)).astype(g.dtype)


def _compiled(array: np.ndarray, weight: tuple, groups: int) -> ModuleType | None:
    """What convolves such arrays by compiled loops with a weight of this shape, if anything."""
    if accumulator(array.dtype) not in (np.float32, np.float64) or loops("conv") is None:
        return None
    return compiled_depthwise if weight[:2] == (groups, 1) else compiled_conv
