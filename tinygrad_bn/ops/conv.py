"""Convolution in any number of dimensions, and the places of the maxima in windows.

T(x, w, g) = Σ g · convolution(x, w) is linear in x, in w and in g. The three ops below are its
derivatives with respect to g, x and w, and the gradient rules of each are the other two. So every
order of derivative is right, and a node keeps two of x, w and g. What computes them is in kernels/.

Of the options `stride` and `dilation` have a number for each axis of an image, and `padding` a pair
(before, after).
"""

import math

import numpy as np

from ..backend import describe, is_floating
from ..kernels import accelerated, conv, cpu_conv, cuda_conv
from ..kernels.array_conv import windows
from ..primitive import op
from .compare import greater_equal
from .elementwise import where
from .reduce import sum
from .shape import reshape, take_along_axis

__all__ = ["convolution", "convolution_input", "convolution_weight"]


def _check(x, weight, g, stride, padding, dilation, groups):
    """Refuse shapes that do not belong together; g: that of the output, if known."""
    if not isinstance(groups, (int, np.integer)) or groups < 1:
        raise ValueError(f"groups: got {groups!r}, wants a whole number ≥ 1")
    if not 2 < len(x) == len(weight) or weight[0] % groups or weight[1] * groups != x[1]:
        wants = f"(O, C / groups, …), O a multiple of groups={groups}, for x (N, C, …) of shape {x}"
        raise ValueError(f"weight: got shape {weight}, wants {wants}")
    counts, _ = windows(x[2:], weight[2:], stride, padding, dilation)
    if g not in (None, (x[0], weight[0], *counts)):
        raise ValueError(f"g: got shape {g}, wants {(x[0], weight[0], *counts)}")


@accelerated(cpu_conv.channel_sums, cuda_conv.channel_sums)
def _channel_sums(g):
    return sum(g, axis=(0, *range(2, len(g.shape))))


@op(
    "conv",
    lambda g, _out, _x, weight, _bias, **how: convolution_input(g, weight, shape=_x.shape, **how),
    lambda g, _out, x, _weight, _bias, **how: convolution_weight(x, g, shape=_weight.shape, **how),
    lambda g, _out, _x, _weight, _bias, **_how: _channel_sums(g),
)
def convolution(xp, x, weight, bias, *, stride, padding, dilation, groups):
    """Each window of x (N, C, …) times weight (O, C/groups, …), plus bias (O,) or None.

    out[n, o, p] = Σ x[n, c, p · stride + k · dilation − before] · weight[o, c, k] + bias[o], over
    the places k in the kernel and the channels c of o's group, with zeros around x. float16 is
    summed in float32.
    """
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    _check(x.shape, weight.shape, None, **how)
    if bias is not None and np.shape(bias) != weight.shape[:1]:
        raise ValueError(f"bias: got {describe(bias)}, wants shape {weight.shape[:1]}")
    if not is_floating(x.dtype) or any(a.dtype != x.dtype for a in (weight, bias) if a is not None):
        raise TypeError("wants arrays of one floating point dtype")
    return conv.convolve(x, weight, bias, **how)


@op(
    "conv ∂x",
    lambda h, _out, _g, weight, shape, **how: convolution(h, weight, None, **how),
    lambda h, _out, g, _weight, shape, **how: convolution_weight(h, g, shape=_weight.shape, **how),
)
def convolution_input(xp, g, weight, *, shape, **how):
    """The gradient at x, of this `shape`, for the gradient g at `convolution(x, weight)`; known as
    the transposed convolution of g."""
    _check(shape, weight.shape, g.shape, **how)
    return conv.convolve_input(g, weight, shape=shape, **how)


@op(
    "conv ∂w",
    lambda h, _out, _x, g, shape, **how: convolution_input(g, h, shape=_x.shape, **how),
    lambda h, _out, x, _g, shape, **how: convolution(x, h, None, **how),
)
def convolution_weight(xp, x, g, *, shape, **how):
    """The gradient at weight, of this `shape`, for the gradient g at `convolution(x, weight)`."""
    _check(x.shape, shape, g.shape, **how)
    return conv.convolve_weight(x, g, shape=shape, **how)


def _max_pool_grad(gs, outs, _x, *, needs, **how):
    return (None if gs[0] is None else max_unpool(gs[0], outs[1], shape=_x.shape, **how),)


@op("max pool", joint=_max_pool_grad, outputs=("_out", "where"))
def max_pool(xp, x, **windows):
    """The largest value of each window of x (N, C, …), and where it is: counted along all axes from
    the third. `windows`: kernel, stride, padding and dilation.

    As in PyTorch: the first of equal values, and the last of NaNs. The padding has no values; a
    window that lies in it gets 0 from place -1.
    """
    return conv.max_pool(x, **windows)


@op("max pool ∂x", lambda h, _out, _g, where, shape, **_windows: _picked(h, where), None)
def max_unpool(xp, g, where, *, shape, **windows):
    """The gradient at x, of this `shape`, for the gradient g at what `max_pool` found there."""
    return conv.max_unpool(g, where, shape=shape, **windows)


def _picked(h, places):
    """What is at these places; 0 at place -1."""
    batch, channels, *sizes = places.shape
    rows = reshape(h, shape=(batch, channels, math.prod(h.shape[2:])))
    index = reshape(places, shape=(batch, channels, math.prod(sizes)))
    picked = reshape(take_along_axis(rows, index, axis=2), shape=places.shape)
    return where(greater_equal(places, 0), picked, 0.0)
