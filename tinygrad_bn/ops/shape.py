"""Ops that move values and change none: shape, order, joining, splitting."""

import itertools
import math

import numpy as np

from ..engine import astype, broadcast_to, sum_to
from ..graph import op
from .index import getitem

__all__ = [
    "astype",
    "broadcast_to",
    "concatenate",
    "expand_dims",
    "reshape",
    "split",
    "squeeze",
    "stack",
    "sum_to",
    "swapaxes",
    "transpose",
]


def reduced_axes(ndim, axis):
    """The axes that a reduction of an `ndim`-dimensional array removes, none negative.

    A number has no axis, but as in NumPy one may ask for its 0 or -1.
    """
    if axis is None:
        return tuple(range(ndim))
    axes = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    for a in axes:
        if not -(ndim or 1) <= a < (ndim or 1):
            raise np.exceptions.AxisError(a, ndim)
    return tuple([a % ndim for a in axes]) if ndim else ()


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


def _inverse(axes, ndim):
    """The order of axes that undoes `axes`."""
    if axes is None:
        return None
    axes = [a % ndim for a in axes]
    return tuple([axes.index(i) for i in range(ndim)])


@op("ᵀ", lambda g, _out, _x, axes=None: transpose(g, axes=_inverse(axes, len(_x.shape))))
def transpose(xp, x, *, axes=None):
    """x with its axes in the order `axes` (reversed for None)."""
    return xp.transpose(x, axes)


@op("swap axes", lambda g, _out, _x, axis1, axis2: swapaxes(g, axis1=axis1, axis2=axis2))
def swapaxes(xp, x, *, axis1, axis2):
    """x with two axes exchanged."""
    return xp.swapaxes(x, axis1, axis2)


def _concatenate_grads(g, _out, *_arrays, needs, axis=0):
    lengths = [math.prod(a.shape) if axis is None else a.shape[axis] for a in _arrays]
    edges = itertools.accumulate(lengths, initial=0)
    parts = [slice(start, stop) for start, stop in itertools.pairwise(edges)]
    if axis is None:  # the arrays were flattened first
        return [reshape(getitem(g, part), shape=a.shape) for a, part in zip(_arrays, parts)]
    before = (slice(None),) * (axis % len(g.shape))
    return [getitem(g, (*before, part)) if need else None for part, need in zip(parts, needs)]


@op("concatenate", joint=_concatenate_grads, variadic=True)
def concatenate(xp, *arrays, axis=0):
    """The arrays of a list, one after the other along an axis that they have (None: flattened)."""
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
    (axis,) = reduced_axes(len(x.shape), axis)
    length = x.shape[axis]
    if hasattr(sections, "__index__"):
        if sections < 1 or length % sections:
            raise ValueError(f"split: sections: got {sections}, wants a divisor of {length}")
        sections = range(length // sections, length, length // sections)
    edges = [0, *sections, length]
    before = (slice(None),) * (axis % len(x.shape))
    return [getitem(x, (*before, slice(start, stop))) for start, stop in itertools.pairwise(edges)]
