"""Max pooling of images with the channels last in memory, several channels at once.

`met` (windows, places in the kernel) tells which place of the image a place in the kernel meets, in
each window. What would meet the padding is there a repetition of what stands beside it.
"""

from numba import prange

from .compiled import Loop, inner
from .vectors import BYTES, choose, equals, exceeds, load, plus, repeat, store, zeros


def _of_channels(size):
    """The two loops over windows, for some channels, as many at once as such a vector holds."""

    def find(image, met, out, where, first, last):
        channels, like = image.shape[1], zeros(image, size)
        for c in range(first, last, max(1, size // image.itemsize)):
            for i in range(len(met)):
                best = load(image, met[i, 0] * channels + c, like)
                place = repeat(met[i, 0], best)
                for k in range(1, met.shape[1]):
                    value = load(image, met[i, k] * channels + c, like)
                    better = exceeds(value, best)
                    best = choose(better, value, best)
                    place = choose(better, repeat(met[i, k], best), place)
                store(out, i * channels + c, best)
                store(where, i * channels + c, place)

    def spread(g, where, met, out, first, last):
        channels, nothing = g.shape[1], zeros(g, size)
        for c in range(first, last, max(1, size // g.itemsize)):
            for i in range(len(met)):
                value = load(g, i * channels + c, nothing)
                place = load(where, i * channels + c, nothing)
                for k in range(met.shape[1]):
                    m = met[i, k]
                    if k == 0 or m != met[i, k - 1]:
                        share = choose(equals(place, repeat(m, value)), value, nothing)
                        at = m * channels + c
                        store(out, at, plus(load(out, at, nothing), share))

    return inner(find), inner(spread)


_find, _spread = _of_channels(BYTES)
_find_one, _spread_one = _of_channels(0)


@Loop
def maxima(images, met, out, where):
    """The largest value of each window, and its place: of equal ones the first, of NaNs the
    last."""
    channels = images.shape[2]
    whole = channels - channels % (BYTES // images.itemsize)  # what fills vectors
    for n in prange(len(images)):
        _find(images[n], met, out[n], where[n], 0, whole)
        _find_one(images[n], met, out[n], where[n], whole, channels)


@Loop
def spread(g, where, met, out):
    """Each value of g added to zeros, at the place that the maximum of its window had."""
    channels = g.shape[2]
    whole = channels - channels % (BYTES // g.itemsize)
    for n in prange(len(g)):
        out[n] = 0
        _spread(g[n], where[n], met, out[n], 0, whole)
        _spread_one(g[n], where[n], met, out[n], whole, channels)
