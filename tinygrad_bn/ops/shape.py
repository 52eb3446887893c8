"""Ops that move values and change none: shape, order, joining, splitting, padding."""

import itertools
import math

import numpy as np

from ..engine import astype, broadcast_to, sum_to
from ..primitive import op
from ..reduction import reduced_axes
from .compare import argsort
from .index import getitem, places, scatter_add

__all__ = ["astype", "broadcast_to", "concatenate", "expand_dims", "flip", "pad", "reshape", "sort",
           "split", "squeeze", "stack", "sum_to", "swapaxes", "take_along_axis",
           "transpose"]  # fmt: skip


def cast(x, dtype):
    """x converted to `dtype`; itself, if that is its own."""
    return x if x.dtype == dtype else astype(x, dtype=dtype)


@op("reshape", lambda g, _out, _x, shape: reshape(g, shape=_x.shape))
def reshape(xp, x, *, shape):
    """x with another shape; one entry may be -1."""
    return xp.reshape(x, shape)


@op("squeeze", lambda g, _out, _x, axis=None: reshape(g, shape=_x.shape))
def squeeze(xp, x, *, axis=None):
    """x without axes of length 1: those in `axis`, or all."""
    return xp.squeeze(x, axis=axis)


@op("expand", lambda g, _out, _x, axis: reshape(g, shape=_x.shape))
def expand_dims(xp, x, *, axis):
    """x with an axis of length 1 put in at `axis`, or at several."""
    return xp.expand_dims(x, axis)


def _inverse(axes):
    """The order of axes that undoes `axes`."""
    return None if axes is None else np.argsort([a % len(axes) for a in axes]).tolist()


@op("ᵀ", lambda g, _out, _x, axes=None: transpose(g, axes=_inverse(axes)))
def transpose(xp, x, *, axes=None):
    """x with its axes in the order `axes` (reversed for None)."""
    return xp.transpose(x, axes)


@op("swap axes", lambda g, _out, _x, axis1, axis2: swapaxes(g, axis1=axis1, axis2=axis2))
def swapaxes(xp, x, *, axis1, axis2):
    """x with two axes exchanged."""
    return xp.swapaxes(x, axis1, axis2)


@op("flip", lambda g, _out, _x, axis=None: flip(g, axis=axis))
def flip(xp, x, *, axis=None):
    """x backwards along `axis`: one, several, or all (None)."""
    return xp.flip(x, axis=axis)


def _take_along_axis_grad(g, _out, _x, indices, axis=-1):
    shape = (math.prod(_x.shape),) if axis is None else _x.shape
    index = list(places(indices, shape=shape))
    index[axis or 0] = indices
    return reshape(scatter_add(g, tuple(index), shape), shape=_x.shape)


@op("take", _take_along_axis_grad, None)
def take_along_axis(xp, x, indices, *, axis=-1):
    """The values of x at `indices` along `axis` (of the flattened x for None), as argsort gives
    them. Along the other axes `indices` is as long as x, or both broadcast."""
    return xp.take_along_axis(x, indices, axis)


def sort(x, axis=-1):
    """x from the smallest to the largest along `axis` (flattened for None). Equal values stay in
    order, and so do their gradients; NaN comes last."""
    if axis is not None and not x.shape:
        raise ValueError("sort: x: got shape (), wants an axis to sort along")
    return take_along_axis(x, argsort(x, axis=axis), axis=axis)


def _pad_grad(g, _out, _x, widths, value=0.0):
    before = np.broadcast_to(widths, (len(_x.shape), 2))[:, 0].tolist()
    return getitem(g, tuple([slice(b, b + n) for b, n in zip(before, _x.shape)]))


@op("pad", _pad_grad)
def pad(xp, x, *, widths, value=0.0):
    """x with `value` before and after it: `widths` is a pair (before, after) for each axis, or one
    pair or number for all, as NumPy's."""
    return xp.pad(x, widths, constant_values=value)


def _concatenate_grads(g, _out, *_arrays, needs, axis=0):
    lengths = [math.prod(a.shape) if axis is None else a.shape[axis] for a in _arrays]
    parts = split(g, list(itertools.accumulate(lengths))[:-1], axis=axis or 0)
    return [reshape(part, shape=a.shape) for part, a in zip(parts, _arrays)]


@op("concatenate", joint=_concatenate_grads, variadic=True)
def concatenate(xp, *arrays, axis=0):
    """The arrays of a list, one after the other along an axis that they have (None: flattened)."""
    while xp is not np and len(arrays) > 8:  # for so many, CuPy copies their addresses to the GPU
        arrays = [xp.concatenate(arrays[k : k + 8], axis=axis) for k in range(0, len(arrays), 8)]
    return xp.concatenate(arrays, axis=axis)


def stack(arrays, axis=0):
    """The arrays of a list, all of one shape, along a new axis."""
    return concatenate([expand_dims(array, axis=axis) for array in arrays], axis=axis)


def split(x, sections, axis=0):
    """x cut along `axis`: into `sections` equal parts, or before each index of a list.

    >>> import tinygrad_bn as tg
    >>> tg.split(tg.tensor([1.0, 2.0, 3.0, 4.0]), 2)
    [tensor([1., 2.]), tensor([3., 4.])]
    """
    if not x.shape:
        raise ValueError("split: x: got shape (), wants an axis to cut along")
    (axis,) = reduced_axes(len(x.shape), axis)
    length = x.shape[axis]
    if hasattr(sections, "__index__"):
        if sections < 1 or length % sections:
            raise ValueError(f"split: sections: got {sections}, wants a divisor of {length}")
        sections = range(length // sections, length, length // sections)
    edges = [0, *sections, length]
    before = (slice(None),) * axis
    return [getitem(x, (*before, slice(start, stop))) for start, stop in itertools.pairwise(edges)]
