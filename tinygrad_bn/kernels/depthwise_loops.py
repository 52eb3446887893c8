"""Convolution of each channel by itself, of images with the channels last in memory, several
channels at once.

`met` (windows, places in the kernel) tells which place of the image a place in the kernel meets, in
each window; -1 is the padding. weight (places in the kernel, channels).
"""

from numba import prange

from .compiled import Loop, inner
from .vectors import BYTES, load, plus_product, store, zeros


def _of_channels(size):
    """The loops over windows, for some channels, as many at once as such a vector holds."""

    def forward(image, met, weight, out, first, last):
        channels, nothing = image.shape[1], zeros(image, size)
        for c in range(first, last, max(1, size // image.itemsize)):
            for i in range(len(met)):
                total = nothing
                for k in range(met.shape[1]):
                    if met[i, k] >= 0:
                        value = load(image, met[i, k] * channels + c, nothing)
                        total = plus_product(total, value, load(weight, k * channels + c, nothing))
                store(out, i * channels + c, total)

    def backward(g, met, weight, out, first, last):
        channels, nothing = g.shape[1], zeros(g, size)
        for c in range(first, last, max(1, size // g.itemsize)):
            for i in range(len(met)):
                value = load(g, i * channels + c, nothing)
                for k in range(met.shape[1]):
                    if met[i, k] >= 0:
                        at, factor = (
                            met[i, k] * channels + c,
                            load(weight, k * channels + c, nothing),
                        )
                        store(out, at, plus_product(load(out, at, nothing), value, factor))

    def backward_weight(image, met, g, out, first, last):
        channels, nothing = g.shape[1], zeros(g, size)
        for c in range(first, last, max(1, size // g.itemsize)):
            for k in range(met.shape[1]):
                total = nothing
                for i in range(len(met)):
                    if met[i, k] >= 0:
                        value = load(image, met[i, k] * channels + c, nothing)
                        total = plus_product(total, value, load(g, i * channels + c, nothing))
                store(out, k * channels + c, total)

    return inner(forward), inner(backward), inner(backward_weight)


_forward, _backward, _backward_weight = _of_channels(BYTES)
_forward_one, _backward_one, _backward_weight_one = _of_channels(0)


@Loop
def forward(images, met, weight, out):
    """out[n, i] = Σₖ images[n, met[i, k]] · weight[k]."""
    channels = images.shape[2]
    whole = channels - channels % (BYTES // images.itemsize)  # what fills vectors
    for n in prange(len(images)):
        _forward(images[n], met, weight, out[n], 0, whole)
        _forward_one(images[n], met, weight, out[n], whole, channels)


@Loop
def backward(g, met, weight, out):
    """out[n, met[i, k]] = Σ g[n, i] · weight[k]: the gradient at the images."""
    channels = g.shape[2]
    whole = channels - channels % (BYTES // g.itemsize)
    for n in prange(len(g)):
        out[n] = 0
        _backward(g[n], met, weight, out[n], 0, whole)
        _backward_one(g[n], met, weight, out[n], whole, channels)


@Loop
def backward_weight(images, g, met, out):
    """out[n, k] = Σᵢ images[n, met[i, k]] · g[n, i]: the gradient at weight, image by image."""
    channels = g.shape[2]
    whole = channels - channels % (BYTES // g.itemsize)
    for n in prange(len(images)):
        _backward_weight(images[n], met, g[n], out[n], 0, whole)
        _backward_weight_one(images[n], met, g[n], out[n], whole, channels)
