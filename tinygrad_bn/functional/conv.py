"""Convolutions and pooling. Each is written once, for images of any number of axes.

An input is (N, C, L), (N, C, H, W) or (N, C, D, H, W), or one sample of these without its N. A size
is a whole number, or a tuple with one for each axis of the image.
"""

import functools
from collections.abc import Callable, Sequence

from .. import ops
from ..ops.conv import max_pool as window_maxima
from ..ops.shape import cast
from ..primitive import op
from ..reduction import accumulator
from .arguments import Array, as_given, whole

_KINDS = ("adaptive_avg_pool", "avg_pool", "conv", "max_pool")
__all__ = [f"{kind}{rank}d" for kind in _KINDS for rank in (1, 2, 3)]

Sizes = int | Sequence[int]
OutputSizes = int | Sequence[int | None] | None


def _for_each_rank(function: Callable) -> list[Callable]:
    """`function`, of a batch of images, as three: for images of 1, 2 and 3 axes."""
    return [_for_rank(rank, function) for rank in (1, 2, 3)]


def _for_rank(rank: int, function: Callable) -> Callable:
    """`function`, of a batch of images, for images with `rank` axes, also for one image alone."""

    @functools.wraps(function)
    def of_rank(input, *args, **kwargs):
        input = as_given(input)
        if len(input.shape) not in (rank + 1, rank + 2) or 0 in input.shape[-rank:]:
            wants = f"(N, C, …) or (C, …) before the {rank} axes of an image that is not empty"
            raise ValueError(f"input: got shape {input.shape}, wants {wants}")
        if len(input.shape) == rank + 2:
            return function(input, *args, **kwargs)
        outputs = function(ops.expand_dims(input, axis=0), *args, **kwargs)
        return tuple([o[0] for o in outputs]) if isinstance(outputs, tuple) else outputs[0]

    of_rank.__name__ = of_rank.__qualname__ = f"{function.__name__}{rank}d"
    return of_rank


def per_axis(name: str, value: Sizes, rank: int, least: int = 0) -> tuple[int, ...]:
    """A size given once for all axes, or once for each, as the latter."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if len(values) not in (1, rank):
        raise ValueError(f"{name}: got {value!r}, wants a whole number ≥ {least}, or {rank}")
    return tuple([whole(name, v, least) for v in values * (rank // len(values))])


def padding_pairs(padding: Sizes | str, kernel, stride, dilation) -> tuple:
    """The padding of a convolution as a pair (before, after) for each axis."""
    if padding == "same":
        if max(stride) > 1:
            raise ValueError(f'padding: got "same" with stride {stride}, wants stride 1')
        return tuple([(d * (k - 1) // 2, (d * (k - 1) + 1) // 2) for d, k in zip(dilation, kernel)])
    numbers = per_axis("padding", 0 if padding == "valid" else padding, len(stride))
    return tuple(zip(numbers, numbers))


def conv(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Array:
    """Each window of `input` (N, C, …) times `weight` (O, C/groups, …), plus `bias` (O,).

    `padding`: how many zeros on both sides, or "valid" for none, or "same" for as many as give the
    output the sizes of the input (at stride 1; an odd one goes to the end). `groups`: so many parts
    of the output channels see a part each of the input channels.
    """
    weight, rank = as_given(weight), len(input.shape) - 2
    stride, dilation = per_axis("stride", stride, rank, 1), per_axis("dilation", dilation, rank, 1)
    pairs = padding_pairs(padding, weight.shape[2:], stride, dilation)
    how = {"stride": stride, "padding": pairs, "dilation": dilation, "groups": groups}
    return ops.convolution(input, weight, bias, **how)


def pool_windows(rank: int, kernel_size, stride, padding, dilation=1) -> tuple:
    """The four of them, each with a number for each of the `rank` axes."""
    kernel = per_axis("kernel_size", kernel_size, rank, 1)
    stride = kernel if stride is None else per_axis("stride", stride, rank, 1)
    padding = per_axis("padding", padding, rank)
    return kernel, stride, padding, per_axis("dilation", dilation, rank, 1)


def _layout(sizes, ceil_mode, *windows) -> dict:
    """How the windows of a pool lie, as the options of an op."""
    kernel, stride, padding, dilation = pool_windows(len(sizes), *windows)
    pairs = []
    for n, k, s, p, d in zip(sizes, kernel, stride, padding, dilation):
        if 2 * p > k:
            raise ValueError(f"padding: got {p}, wants at most half of kernel_size, {k}")
        if p and d > n:  # a window could lie in the padding
            raise ValueError(f"dilation: got {d}, wants at most the size of the image, {n}")
        span = (k - 1) * d + 1
        more = -(n + 2 * p - span) % s if ceil_mode else 0  # until the last window ends
        # PyTorch's rule: ceil_mode adds no window that starts after the image.
        pairs.append((p, p + more if p + more < span else p))
    return {"kernel": kernel, "stride": stride, "padding": tuple(pairs), "dilation": dilation}


def max_pool(
    input: Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Array | tuple[Array, Array]:
    """The largest value of each window of `input` (N, C, …); the padding has none.

    `stride`: None is `kernel_size`. `ceil_mode`: the last window may reach beyond the padding. The
    gradient goes to the first of equal values. `return_indices`: also where the values are, counted
    along all axes of the image.
    """
    layout = _layout(input.shape[2:], ceil_mode, kernel_size, stride, padding, dilation)
    output, where = window_maxima(input, **layout)
    return (output, where) if return_indices else output


def avg_pool(
    input: Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """The mean of each window of `input` (N, C, …), padded with zeros.

    `stride`: None is `kernel_size`. `ceil_mode`: the last window may reach beyond the padding. The
    sum is divided by the number of places in the image and in its padding, or in the image alone
    unless `count_include_pad`, or by `divisor_override`.
    """
    if divisor_override == 0:
        raise ValueError("divisor_override: got 0, wants None or another number")
    channels, sizes = input.shape[1], input.shape[2:]
    layout = _layout(sizes, ceil_mode, kernel_size, stride, padding) | {"groups": channels}
    images = cast(input, accumulator(input.dtype))  # in float16 a sum may overflow
    box = _ones(images, shape=(channels, 1, *layout.pop("kernel")))
    total = ops.convolution(images, box, None, **layout)
    count = divisor_override
    if count is None:  # what the sum is over an image of ones
        if count_include_pad:
            pairs = layout["padding"]
            sizes = [n + 2 * p for n, (p, _) in zip(sizes, pairs)]
            layout["padding"] = tuple([(0, after - p) for p, after in pairs])
        count = ops.convolution(_ones(images, shape=(1, channels, *sizes)), box, None, **layout)
    return cast(total / count, input.dtype)


@op("1")
def _ones(xp, like, *, shape):
    """Ones of the dtype of `like`, and where that is; a constant."""
    return xp.ones(shape, like.dtype)


def output_sizes(output_size: OutputSizes, rank: int) -> tuple[int | None, ...]:
    """The number of bins along each axis, or None."""
    sizes = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * rank
    if len(sizes) != rank:
        raise ValueError(f"output_size: got {output_size!r}, wants a number ≥ 1 or {rank} of them")
    return tuple([None if m is None else whole("output_size", m, 1) for m in sizes])


def adaptive_avg_pool(input: Array, output_size: OutputSizes) -> Array:
    """The means of `output_size` bins along each axis of the image; None keeps the axis as it is.

    Of m bins over n places the i-th goes from ⌊i·n/m⌋ to ⌈(i+1)·n/m⌉: they may overlap. An Inf or
    NaN reaches the means of the bins that it is in, and no others.
    """
    bins_along = list(enumerate(output_sizes(output_size, len(input.shape) - 2), start=2))
    if whole := tuple([axis for axis, m in bins_along if m == 1 < input.shape[axis]]):
        input = ops.mean(input, axis=whole, keepdims=True)
    for axis, m in bins_along:
        n, before = input.shape[axis], (slice(None),) * axis
        if m not in (None, n):
            bins = [slice(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]
            means = [ops.mean(input[(*before, b)], axis=axis, keepdims=True) for b in bins]
            input = ops.concatenate(means, axis=axis)
    return input


conv1d, conv2d, conv3d = _for_each_rank(conv)
max_pool1d, max_pool2d, max_pool3d = _for_each_rank(max_pool)
avg_pool1d, avg_pool2d, avg_pool3d = _for_each_rank(avg_pool)
adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = _for_each_rank(adaptive_avg_pool)
