"""Convolution in any number of dimensions, and the places of the maxima in windows.

T(x, w, g) = Σ g · convolution(x, w) is linear in x, in w and in g. The three ops below are its
derivatives with respect to g, x and w, and the gradient rules of each are the other two. So every
order of derivative is right, and a node keeps two of x, w and g. Each is one matrix product, with
the windows of x as columns; the columns are not kept.

Of the options `stride` and `dilation` have a number for each axis of an image, and `padding` a pair
(before, after).
"""

import math

import numpy as np

from ..backend import describe
from ..engine import accumulator
from ..graph import op
from .reduce import sum

__all__ = ["convolution", "convolution_input", "convolution_weight"]


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


def _windows(x, weight, g, stride, padding, dilation, groups):
    """`windows` of a convolution with these shapes, checked; g: that of the output, if known."""
    if not isinstance(groups, (int, np.integer)) or groups < 1:
        raise ValueError(f"groups: got {groups!r}, wants a whole number ≥ 1")
    alike = 2 < len(x) == len(weight)
    if not alike or weight[0] % groups or weight[1] * groups != x[1]:
        raise ValueError(
            f"weight: got shape {weight}, wants (O, C / groups, …) for x of shape {x} (N, C, …), "
            f"with O a multiple of groups={groups}"
        )
    counts, indices = windows(x[2:], weight[2:], stride, padding, dilation)
    if g not in (None, (x[0], weight[0], *counts)):
        raise ValueError(f"g: got shape {g}, wants {(x[0], weight[0], *counts)}")
    return counts, indices


def _padded(xp, images, padding, fill=0):
    return xp.pad(images, ((0, 0), (0, 0), *padding), constant_values=fill)


def _matrices(array, groups, rows=1):
    """An array as matrices (groups, n, m), its first `rows` axes as their rows, in the dtype in
    which products are summed."""
    n, m = math.prod(array.shape[:rows]) // groups, math.prod(array.shape[rows:])
    return array.reshape(groups, n, m).astype(accumulator(array.dtype), copy=False)


def _columns(xp, x, padding, indices, groups):
    """All windows of x: matrices (groups, C/groups · kernel, N · counts)."""
    images = _padded(xp, xp.swapaxes(x, 0, 1), padding)
    return _matrices(xp.stack([images[met] for met in indices], axis=1), groups, rows=2)


@op(
    "conv",
    lambda g, _out, _x, weight, _bias, **how: convolution_input(g, weight, shape=_x.shape, **how),
    lambda g, _out, x, _weight, _bias, **how: convolution_weight(x, g, shape=_weight.shape, **how),
    lambda g, _out, _x, _weight, _bias, **how: sum(g, axis=(0, *range(2, len(g.shape)))),
)
def convolution(xp, x, weight, bias, *, stride, padding, dilation, groups):
    """Each window of x (N, C, …) times weight (O, C/groups, …), plus bias (O,) or None.

    out[n, o, p] = Σ x[n, c, p · stride + k · dilation − before] · weight[o, c, k] + bias[o], over
    the places k in the kernel and the channels c of o's group, with zeros around x. float16 is
    summed in float32.
    """
    counts, indices = _windows(x.shape, weight.shape, None, stride, padding, dilation, groups)
    if bias is not None and np.shape(bias) != weight.shape[:1]:
        raise ValueError(f"bias: got {describe(bias)}, wants shape {weight.shape[:1]}")
    if x.dtype.kind != "f" or any(a.dtype != x.dtype for a in (weight, bias) if a is not None):
        raise TypeError("wants arrays of one floating point dtype")
    out = xp.matmul(_matrices(weight, groups), _columns(xp, x, padding, indices, groups))
    out = out.reshape(len(weight), len(x), *counts)
    if bias is not None:
        out += bias.reshape(len(weight), *[1] * (x.ndim - 1))
    return xp.swapaxes(out, 0, 1).astype(x.dtype, order="C")


@op(
    "conv ∂x",
    lambda h, _out, _g, weight, shape, **how: convolution(h, weight, None, **how),
    lambda h, _out, g, _weight, shape, **how: convolution_weight(h, g, shape=_weight.shape, **how),
)
def convolution_input(xp, g, weight, *, shape, stride, padding, dilation, groups):
    """The gradient at x, of this `shape`, for the gradient g at `convolution(x, weight)`; known as
    the transposed convolution of g."""
    counts, indices = _windows(shape, weight.shape, g.shape, stride, padding, dilation, groups)
    filters = xp.swapaxes(_matrices(weight, groups), 1, 2)
    columns = xp.matmul(filters, _matrices(xp.swapaxes(g, 0, 1), groups))
    columns = columns.reshape(shape[1], len(indices), shape[0], *counts)
    padded = [before + n + after for n, (before, after) in zip(shape[2:], padding)]
    images = xp.zeros((shape[1], shape[0], *padded), columns.dtype)
    for k, met in enumerate(indices):
        images[met] += columns[:, k]
    inside = [slice(before, before + n) for n, (before, _) in zip(shape[2:], padding)]
    return xp.swapaxes(images[(..., *inside)], 0, 1).astype(g.dtype, order="C")


@op(
    "conv ∂w",
    lambda h, _out, _x, g, shape, **how: convolution_input(g, h, shape=_x.shape, **how),
    lambda h, _out, x, _g, shape, **how: convolution(x, h, None, **how),
)
def convolution_weight(xp, x, g, *, shape, stride, padding, dilation, groups):
    """The gradient at weight, of this `shape`, for the gradient g at `convolution(x, weight)`."""
    _, indices = _windows(x.shape, shape, g.shape, stride, padding, dilation, groups)
    columns = xp.swapaxes(_columns(xp, x, padding, indices, groups), 1, 2)
    product = xp.matmul(_matrices(xp.swapaxes(g, 0, 1), groups), columns)
    return product.reshape(shape).astype(x.dtype, copy=False)


@op("argmax")
def window_argmax(xp, x, *, kernel, stride, padding, dilation):
    """Where in x (N, C, …), counted along all axes from the third, each window has its maximum.

    As in PyTorch: the first of equal values, and the last of NaNs. The padding has no values; a
    window that lies in it gets -1.
    """
    counts, indices = windows(x.shape[2:], kernel, stride, padding, dilation)
    numbers = xp.arange(math.prod(x.shape[2:])).reshape(1, 1, *x.shape[2:])
    values, places = _padded(xp, x, padding), _padded(xp, numbers, padding, fill=-1)
    best = xp.zeros((*x.shape[:2], *counts), x.dtype)
    where = xp.full(best.shape, -1, places.dtype)
    for met in indices:
        value, place = values[met], places[met]
        better = (place >= 0) & ((where < 0) | (value > best) | (value != value))
        best, where = xp.where(better, value, best), xp.where(better, place, where)
    return where
