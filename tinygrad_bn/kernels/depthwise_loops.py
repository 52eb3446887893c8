"""Convolution of each channel by itself, of images with the channels last in memory, several
channels at once.

`met` (windows, places in the kernel) tells which place of the image a place in the kernel meets, in
each window; -1 is the padding. weight (places in the kernel, channels).
"""

from numba import prange

from .compiled import Loop, inner
from .vectors import BYTES, load, plus_product, store, zeros


def _of_channels(size):
    """The loops over windows, for the channels from the c-th on that such a vector holds."""

    def forward(image, met, weight, c, out):
        channels, nothing = image.shape[1], zeros(image, size)
        for i in range(len(met)):
            total = nothing
            for k in range(met.shape[1]):
                if met[i, k] >= 0:
                    value = load(image, met[i, k] * channels + c, nothing)
                    total = plus_product(total, value, load(weight, k * channels + c, nothing))
            store(out, i * channels + c, total)

    def backward(g, met, weight, c, out):
        channels, nothing = g.shape[1], zeros(g, size)
        for i in range(len(met)):
            value = load(g, i * channels + c, nothing)
            for k in range(met.shape[1]):
                if met[i, k] >= 0:
                    at, factor = met[i, k] * channels + c, load(weight, k * channels + c, nothing)
                    store(out, at, plus_product(load(out, at, nothing), value, factor))

    def backward_weight(image, g, met, c, out):
        channels, nothing = g.shape[1], zeros(g, size)
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
    for n in prange(len(images)):
        lanes = BYTES // images.itemsize
        whole = images.shape[2] // lanes * lanes
        for c in range(0, whole, lanes):
            _forward(images[n], met, weight, c, out[n])
        for c in range(whole, images.shape[2]):
            _forward_one(images[n], met, weight, c, out[n])


@Loop
def backward(g, met, weight, out):
    """out[n, met[i, k]] = Σ g[n, i] · weight[k]: the gradient at the images."""
    for n in prange(len(g)):
        lanes = BYTES // g.itemsize
        whole = g.shape[2] // lanes * lanes
        out[n] = 0
        for c in range(0, whole, lanes):
            _backward(g[n], met, weight, c, out[n])
        for c in range(whole, g.shape[2]):
            _backward_one(g[n], met, weight, c, out[n])


@Loop
def backward_weight(images, g, met, out):
    """out[n, k] = Σᵢ images[n, met[i, k]] · g[n, i]: the gradient at weight, image by image."""
    for n in prange(len(images)):
        lanes = BYTES // images.itemsize
        whole = images.shape[2] // lanes * lanes
        for c in range(0, whole, lanes):
            _backward_weight(images[n], g[n], met, c, out[n])
        for c in range(whole, images.shape[2]):
            _backward_weight_one(images[n], g[n], met, c, out[n])
