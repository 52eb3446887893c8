"""Convolution of each channel of CuPy arrays by itself, by the kernels of depthwise.cu: one launch
each. Products of matrices would have one column each."""

import math

from ..backend import array_module
from .cuda import launch
from .cuda_windows import geometry, launch_each


def convolve(x, weight, bias, *, groups, **how):
    """`ops.convolution`."""
    xp = array_module((x,))
    counts, numbers = geometry(x.shape[2:], weight.shape[2:], **how)
    out = xp.empty((len(x), len(weight), *counts), x.dtype)
    inputs = [None if a is None else xp.ascontiguousarray(a) for a in (x, weight, bias)]
    args = *inputs, out, out.size, groups, len(weight) // groups, *numbers
    launch_each("depthwise", "forward", out.size, *args, dtype=x.dtype)
    return out


def convolve_input(g, weight, *, shape, groups, **how):
    """`ops.convolution_input`."""
    xp = array_module((g,))
    _, numbers = geometry(shape[2:], weight.shape[2:], **how)
    out = xp.empty(shape, g.dtype)
    inputs = [xp.ascontiguousarray(a) for a in (g, weight)]
    args = *inputs, out, out.size, groups, len(weight) // groups, *numbers
    launch_each("depthwise", "input_gradient", out.size, *args, dtype=g.dtype)
    return out


def convolve_weight(x, g, *, shape, groups, **how):
    """`ops.convolution_weight`."""
    xp = array_module((x,))
    _, numbers = geometry(x.shape[2:], shape[2:], **how)
    out = xp.empty(shape, x.dtype)
    inputs = [xp.ascontiguousarray(a) for a in (x, g)]
    args = *inputs, out, len(x), groups, shape[0] // groups, *numbers
    launch("depthwise", "weight_gradient", math.prod(shape), 256, *args, dtype=x.dtype)
    return out
