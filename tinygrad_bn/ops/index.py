"""Reading x[index], and its reverse: adding up what was read from each place."""

import numpy as np

from ..backend import device_of, is_array, to_device
from ..graph import Tensor, describe, op

__all__ = ["array_index", "getitem", "scatter_add"]


@op("[ ]", lambda g, _out, _x, index: scatter_add(g, index=index, shape=_x.shape))
def getitem(xp, x, *, index):
    """x[index], for slices, integers, None, …, integer arrays and masks."""
    return x[index]


@op("scatter", lambda g, _out, _x, index, shape: getitem(g, index=index))
def scatter_add(xp, x, *, index, shape):
    """Zeros of `shape`, to which x is added at `index`; a place read twice gets both."""
    out = xp.zeros(shape, x.dtype)
    if _may_repeat(index):
        xp.add.at(out, index, x)
    else:
        out[index] = x
    return out


def _may_repeat(index):
    """Whether one place can be meant twice: by an array of integers."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(is_array(part) and part.dtype != bool for part in parts)


def array_index(x, index):
    """An index as NumPy and CuPy take it: Tensors and lists in it become arrays beside `x`."""

    def one(part):
        if isinstance(part, Tensor):
            part = part.data
        if isinstance(part, list):
            part = to_device(np.asarray(part, dtype=None if part else np.int64), device_of(x.data))
        if is_array(part):
            if part.dtype.kind not in "bui":
                raise IndexError(f"index: got {describe(part)}, wants integers or booleans")
            if device_of(part) != device_of(x.data):
                raise ValueError(
                    f"index: got {describe(part)}, but the Tensor is on {device_of(x.data)}"
                )
        return part

    return tuple(map(one, index)) if isinstance(index, tuple) else one(index)
