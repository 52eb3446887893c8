"""Reading x[index], and its reverse: adding up what was read from each place."""

import numpy as np

from ..backend import array_of, copied, describe, device_of, is_array, to_device
from ..primitive import op
from ..reduction import accumulator

__all__ = ["getitem", "scatter_add"]


def getitem(x, index):
    """x[index], for slices, integers, None, … and lists, arrays or Tensors of integers or bools.

    On a GPU an array may hold integers out of range: where a check would wait, CuPy wraps them.
    """
    return _getitem(x, index=_plain(x, index, x.shape))


def scatter_add(x, index, shape):
    """Zeros of `shape`, to which x is added at `index`; a place that is named twice gets both."""
    return _scatter_add(x, index=_plain(x, index, shape), shape=shape)


@op("[ ]", lambda g, _out, _x, index: _scatter_add(g, index=index, shape=_x.shape))
def _getitem(xp, x, *, index):
    return x[index]


@op("scatter", lambda g, _out, _x, index, shape: _getitem(g, index=index))
def _scatter_add(xp, x, *, index, shape):
    out = xp.zeros(shape, accumulator(x.dtype))
    parts = index if isinstance(index, tuple) else (index,)
    if any(is_array(part) and part.dtype != bool for part in parts):  # a place can come twice
        xp.add.at(out, index, x)
    else:
        out[index] = x
    return out.astype(x.dtype, copy=False)


@op("places")
def places(xp, like, *, shape):
    """The number of each place along each axis of `shape`, on the device of `like`: indices that
    together name every place."""
    return tuple(xp.ix_(*map(xp.arange, shape)))


def _plain(x, index, shape):
    """An index into an array of this shape, as NumPy and CuPy take it, checked: arrays must be on
    the device of x."""
    device, parts = device_of(array_of(x)), index if isinstance(index, tuple) else (index,)
    if device != "cpu" and not any(is_array(array_of(part)) for part in parts):
        try:
            np.broadcast_to(False, shape)[index]  # finds what is out of range, as CuPy does not
        except IndexError as error:
            raise IndexError(f"getitem({describe(x)}): {error}") from None
    plain = tuple([_plain_part(device, part) for part in parts])
    return plain if isinstance(index, tuple) else plain[0]


def _plain_part(device, part):
    part = array_of(part)
    if isinstance(part, (list, tuple)):
        part = to_device(np.asarray(part, dtype=None if part else np.int64), device)
    if is_array(part):
        if device_of(part) != device:
            raise ValueError(f"index: got {describe(part)}, wants it on {device} as the Tensor is")
        part = copied(part)  # the gradient will read it again
    return part
