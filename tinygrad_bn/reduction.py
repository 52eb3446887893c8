"""What a reduction needs to know: its axes, the shape it leaves, the dtype in which it adds up."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple


def reduced_axes(ndim: int, axis: int | Sequence[int] | None) -> tuple[int, ...]:
    """The axes that a reduction of an `ndim`-dimensional array removes, none negative.

    A number has no axis, but as in NumPy one may ask for its 0 or -1.
    """
    if axis is None:
        return tuple(range(ndim))
    if type(axis) is int and -ndim <= axis < ndim:
        return (axis % ndim,)  # as below, sooner
    axes = normalize_axis_tuple(axis, ndim or 1, allow_duplicate=True)
    return axes if ndim else ()


def kept_shape(shape: Sequence[int], axis: int | Sequence[int] | None) -> tuple[int, ...]:
    """`shape` with 1 for each reduced axis: as with keepdims=True."""
    gone = reduced_axes(len(shape), axis)
    return tuple([1 if i in gone else n for i, n in enumerate(shape)])


def count(shape: Sequence[int], axis: int | Sequence[int] | None) -> int:
    """How many values go into one."""
    return math.prod([shape[i] for i in reduced_axes(len(shape), axis)])


# In which a sum is computed; and a mean or variance: statistics of a million values need it.
# By the code of a dtype: those of float16, bfloat16 (which NumPy does not have) and float32.
SUMMED = {"e": np.float32, "E": np.float32}
WIDER = {**SUMMED, "f": np.float64}


def accumulator(dtype: Any) -> Any:
    """The dtype in which values of `dtype` are summed: float16 and bfloat16 would round."""
    return SUMMED.get(dtype.char, dtype)
