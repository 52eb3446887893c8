"""Convolution of each channel by itself, by the loops of `depthwise_loops`."""

import math

import numpy as np

from .array_conv import windows
from .compiled import loops
from .images import as_pixels, images_of, places_met

_SMALL = 1 << 16  # products, for which a second thread is not worth its start


def convolve(x, weight, bias, *, groups, **how):
    """`ops.convolution`."""
    sizes, kernel = x.shape[2:], weight.shape[2:]
    counts, _ = windows(sizes, kernel, **how)
    pixels, met = as_pixels(x), places_met(sizes, kernel, **how)
    out = np.empty((len(x), len(met), groups), pixels.dtype)
    _run("forward", len(x) * met.size * groups, pixels, met, _by_place(weight, pixels), out)
    if bias is not None:
        out += bias
    return images_of(out, counts).astype(x.dtype, copy=False)


def convolve_input(g, weight, *, shape, groups, **how):
    """`ops.convolution_input`."""
    pixels, met = as_pixels(g), places_met(shape[2:], weight.shape[2:], **how)
    out = np.empty((len(g), math.prod(shape[2:]), groups), pixels.dtype)
    _run("backward", len(g) * met.size * groups, pixels, met, _by_place(weight, pixels), out)
    return images_of(out, shape[2:]).astype(g.dtype, copy=False)


def convolve_weight(x, g, *, shape, groups, **how):
    """`ops.convolution_weight`."""
    pixels, met = as_pixels(x), places_met(x.shape[2:], shape[2:], **how)
    out = np.empty((len(x), met.shape[1], groups), pixels.dtype)
    _run("backward_weight", len(x) * met.size * groups, pixels, as_pixels(g), met, out)
    return out.sum(axis=0, dtype=np.float64).T.reshape(shape).astype(x.dtype)


def _run(name: str, products: int, *arrays: np.ndarray) -> None:
    loop = getattr(loops("depthwise"), name)
    (loop.alone if products < _SMALL else loop)(*arrays)


def _by_place(weight: np.ndarray, like: np.ndarray) -> np.ndarray:
    """A weight (channels, 1, …) as (places in the kernel, channels), in the dtype of `like`."""
    return np.ascontiguousarray(weight.reshape(len(weight), -1).T, like.dtype)
