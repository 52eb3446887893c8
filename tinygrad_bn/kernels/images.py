"""Images of NumPy as the compiled loops want them, with the channels last in memory; and some at a
time."""

import functools
import math
from collections.abc import Iterator

import numpy as np

from ..reduction import accumulator
from .array_conv import windows

_COLUMNS = 1 << 18  # numbers that NumPy works on at a time


def as_pixels(images: np.ndarray) -> np.ndarray:
    """Images as (N, places, channels), contiguous, in the dtype in which they are summed."""
    last = images.transpose(0, *range(2, images.ndim), 1)
    last = np.ascontiguousarray(last, accumulator(images.dtype))
    return last.reshape(len(last), math.prod(images.shape[2:]), images.shape[1])


def images_of(pixels: np.ndarray, sizes: tuple) -> np.ndarray:
    """The way back: a view of shape (N, channels, *sizes)."""
    images = pixels.reshape(len(pixels), *sizes, pixels.shape[-1])
    return images.transpose(0, -1, *range(1, images.ndim - 1))


def blocks(images: np.ndarray, numbers: int) -> Iterator[slice]:
    """Some images at a time, each of which needs so many numbers a channel: as many as fit in the
    cache."""
    step = max(1, _COLUMNS // max(images.shape[1] * numbers, 1))
    for start in range(0, len(images), step):
        yield slice(start, start + step)


@functools.lru_cache(maxsize=256)
def places_met(sizes, kernel, stride, padding, dilation) -> np.ndarray:
    """Which place of an image each place in the kernel meets, in each window: (windows, places in
    the kernel), -1 for the padding."""
    _, indices = windows(sizes, kernel, stride, padding, dilation)
    numbers = np.pad(np.arange(math.prod(sizes)).reshape(sizes), padding, constant_values=-1)
    return np.stack([numbers[met].reshape(-1) for met in indices], axis=1)
