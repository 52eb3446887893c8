"""Convolution and the places of maxima on arrays of NumPy or CuPy, by whole-array operations.

A convolution, and each of its gradients, is one matrix product, with all windows of x as columns.
"""

import functools
import math

import numpy as np

from ..backend import array_module
from ..reduction import accumulator


@functools.lru_cache(maxsize=256)
def windows(sizes, kernel, stride, padding, dilation) -> tuple:
    """How many windows there are along each axis of an image of these sizes; and for each place in
    the kernel the index of what it meets in the padded image, in one window after the other."""
    axes = zip(sizes, kernel, padding, dilation, strict=True)
    spare = [before + n + after - (k - 1) * d - 1 for n, k, (before, after), d in axes]
    if min(kernel) < 1 or min(spare) < 0:
        raise ValueError(
            f"kernel: got {kernel}, dilation {dilation}, wants one that fits in images of {sizes} "
            f"with padding {padding}"
        )
    counts = tuple([n // s + 1 for n, s in zip(spare, stride, strict=True)])
    indices = []
    for place in np.ndindex(*kernel):
        along = zip([k * d for k, d in zip(place, dilation)], stride, counts)
        indices.append((..., *[slice(i, i + s * (m - 1) + 1, s) for i, s, m in along]))
    return counts, indices


def convolve(x, weight, bias, *, stride, padding, dilation, groups):
    """`ops.convolution`."""
    xp = array_module((x,))
    counts, indices = windows(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    out = xp.matmul(_matrices(weight, groups), _columns(xp, x, padding, indices, groups))
    out = out.reshape(len(weight), len(x), *counts)
    if bias is not None:
        out += bias.reshape(len(weight), *[1] * (x.ndim - 1))
    return xp.swapaxes(out, 0, 1).astype(x.dtype, order="C")


def convolve_input(g, weight, *, shape, stride, padding, dilation, groups):
    """`ops.convolution_input`."""
    xp = array_module((g,))
    counts, indices = windows(shape[2:], weight.shape[2:], stride, padding, dilation)
    filters = xp.swapaxes(_matrices(weight, groups), 1, 2)
    columns = xp.matmul(filters, _matrices(xp.swapaxes(g, 0, 1), groups))
    columns = columns.reshape(shape[1], len(indices), len(g), *counts)
    padded = [before + n + after for n, (before, after) in zip(shape[2:], padding)]
    images = xp.zeros((shape[1], len(g), *padded), columns.dtype)
    for k, met in enumerate(indices):
        images[met] += columns[:, k]
    inside = [slice(before, before + n) for n, (before, _) in zip(shape[2:], padding)]
    return xp.swapaxes(images[(..., *inside)], 0, 1).astype(g.dtype, order="C")


def convolve_weight(x, g, *, shape, stride, padding, dilation, groups):
    """`ops.convolution_weight`."""
    xp = array_module((x,))
    _, indices = windows(x.shape[2:], shape[2:], stride, padding, dilation)
    columns = xp.swapaxes(_columns(xp, x, padding, indices, groups), 1, 2)
    product = xp.matmul(_matrices(xp.swapaxes(g, 0, 1), groups), columns)
    return product.reshape(shape).astype(x.dtype, copy=False)


def _matrices(array, groups, rows=1):
    """An array as matrices (groups, n, m), its first `rows` axes as their rows, in the dtype in
    which products are summed."""
    n, m = math.prod(array.shape[:rows]) // groups, math.prod(array.shape[rows:])
    return array.reshape(groups, n, m).astype(accumulator(array.dtype), copy=False)


def _columns(xp, x, padding, indices, groups):
    """All windows of x: matrices (groups, C/groups · kernel, N · counts)."""
    images = xp.pad(xp.swapaxes(x, 0, 1), ((0, 0), (0, 0), *padding))
    return _matrices(xp.stack([images[met] for met in indices], axis=1), groups, rows=2)


def max_pool(x, *, kernel, stride, padding, dilation):
    """`ops.conv.max_pool`."""
    xp = array_module((x,))
    counts, indices = windows(x.shape[2:], kernel, stride, padding, dilation)
    values = xp.pad(x, ((0, 0), (0, 0), *padding))
    numbers = _numbered(xp, x.shape[2:], padding)
    best = xp.zeros((*x.shape[:2], *counts), x.dtype)
    where = xp.full(best.shape, -1, numbers.dtype)
    for met in indices:
        value, place = values[met], numbers[met]
        better = (place >= 0) & ((where < 0) | (value > best) | (value != value))
        best, where = xp.where(better, value, best), xp.where(better, place, where)
    return best, where


def max_unpool(g, where, *, shape, kernel, stride, padding, dilation):
    """`ops.conv.max_unpool`."""
    xp = array_module((g,))
    _, indices = windows(shape[2:], kernel, stride, padding, dilation)
    numbers = _numbered(xp, shape[2:], padding)
    images = xp.zeros((*shape[:2], *numbers.shape), g.dtype)
    for met in indices:
        images[met] += xp.where(where == numbers[met], g, 0)
    inside = [slice(before, before + n) for n, (before, _) in zip(shape[2:], padding)]
    return images[(..., *inside)]


def _numbered(xp, sizes, padding):
    """The places of an image, numbered along all its axes, and -1 around."""
    return xp.pad(xp.arange(math.prod(sizes)).reshape(sizes), padding, constant_values=-1)
