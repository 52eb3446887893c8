"""What the CUDA kernels that work on windows of images have in common."""

import functools
import math
from typing import Any

import numpy as np

from .array_conv import windows
from .cuda import STORED, launch

_THREADS, _MOST_BLOCKS = 256, 2**31 - 1


def known(*arrays: Any, padding: tuple) -> bool:
    """Whether the kernels know such arrays (None: one that is missing) and such windows."""
    arrays = [array for array in arrays if array is not None]
    return (
        all([a.dtype == arrays[0].dtype and a.size > 0 for a in arrays])
        and arrays[0].dtype.name in STORED
        and len(padding) <= 3
        and min(map(min, padding)) >= 0
    )


@functools.lru_cache(maxsize=256)
def geometry(sizes, kernel, stride, padding, dilation) -> tuple:
    """How many windows there are along each axis; and the 18 numbers of windows.cuh."""
    counts, _ = windows(sizes, kernel, stride, padding, dilation)
    reach = max([n + sum(pair) + s for n, pair, s in zip(sizes, padding, stride)])
    if max(reach, math.prod(kernel)) >= 2**31:
        got = f"{sizes}, padding {padding}, stride {stride}, kernel {kernel}"
        raise ValueError(f"windows: got {got}, wants less than 2³¹ places along an axis")
    before, missing = [b for b, _ in padding], 3 - len(sizes)
    numbers = []
    for along, of_one in zip((sizes, counts, kernel, stride, before, dilation), (1, 1, 1, 1, 0, 1)):
        numbers += [of_one] * missing + list(along)
    return counts, tuple(numbers)


def launch_each(source: str, kernel: str, number: int, *args: Any, dtype: np.dtype) -> None:
    """Run a kernel whose threads share so many numbers."""
    blocks = min(math.ceil(number / _THREADS), _MOST_BLOCKS)
    launch(source, kernel, blocks, _THREADS, *args, dtype=dtype)
