"""The memory of arrays: who owns it, where it lies, and whether anybody else sees it."""

import sys
from typing import Any

import numpy as np

from .backend import copied, is_array


def storage_of(array: Any) -> Any:
    """The array that owns the memory which `array` looks at; views of one memory share it."""
    while (base := getattr(array, "base", None)) is not None and is_array(base):
        array = base
    return array


def extent(array: Any) -> tuple[int, int]:
    """The addresses of the first and the last byte that `array` looks at."""
    first = array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr
    last = first + array.itemsize - 1
    for n, stride in zip(array.shape, array.strides):
        if stride < 0:
            first += (n - 1) * stride
        else:
            last += (n - 1) * stride
    return first, last


def owned(array: Any) -> Any:
    """The array itself if nobody sees it or its memory but one variable of the caller; else a copy.
    (Python counts the references to an object; where it does not, all are copied.)"""
    return array if type(array) is np.ndarray and _counts(array) in _ALONE else copied(array)


def _counts(array: np.ndarray) -> tuple[int, int] | None:
    """How often an array is referred to, and another array of which it is all, in another shape."""
    base = array.base
    if base is None:
        return sys.getrefcount(array), 0
    is_all = type(base) is np.ndarray and base.base is None and base.size == array.size
    return (sys.getrefcount(array), sys.getrefcount(base)) if is_all else None


def _counts_of_unseen() -> set:
    array, view = np.empty(2), np.empty(2).reshape(1, 2)
    called = lambda array: _counts(array)  # noqa: E731 (as `owned` calls it)
    return {called(array), called(view)}


_ALONE = _counts_of_unseen() if hasattr(sys, "getrefcount") else set()
