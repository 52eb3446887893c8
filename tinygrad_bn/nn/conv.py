"""Convolutions and pooling as layers."""

import math
from collections.abc import Callable
from typing import Any

from .. import functional as F
from ..functional.arguments import choice, whole
from ..functional.conv import (
    OutputSizes,
    Sizes,
    output_sizes,
    padding_pairs,
    per_axis,
    pool_windows,
)
from .init import fan_in_bound, uniform
from .module import Module, Parameter

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _Conv(Module):
    rank: int
    function: Callable

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.in_channels = whole("in_channels", in_channels)
        self.out_channels = whole("out_channels", out_channels)
        self.groups = whole("groups", groups, 1)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups: got {groups!r}, wants a divisor of in_channels={in_channels} and "
                f"out_channels={out_channels}"
            )
        self.kernel_size = per_axis("kernel_size", kernel_size, self.rank, 1)
        self.stride = per_axis("stride", stride, self.rank, 1)
        self.dilation = per_axis("dilation", dilation, self.rank, 1)
        pairs = padding_pairs(padding, self.kernel_size, self.stride, self.dilation)
        self.padding = padding if isinstance(padding, str) else tuple([n for n, _ in pairs])
        self.padding_mode = choice("padding_mode", padding_mode, *_PADDING_MODES)
        self._around = [n for pair in reversed(pairs) for n in pair]  # as F.pad wants it
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        bound, kind = fan_in_bound(math.prod(shape[1:])), {"dtype": dtype, "device": device}
        self.weight = Parameter(uniform(shape, bound, **kind))
        offset = Parameter(uniform(shape[:1], bound, **kind)) if bias else None
        self.register_parameter("bias", offset)

    def forward(self, input):
        padding = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._around, mode=self.padding_mode), 0
        options = (self.stride, padding, self.dilation, self.groups)
        return self.function(input, self.weight, self.bias, *options)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
        text += f"stride={self.stride}"
        if self.padding != (0,) * self.rank:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self.rank:
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        return text if self.padding_mode == "zeros" else f"{text}, padding_mode={self.padding_mode}"


class Conv1d(_Conv):
    """Convolution of (N, C, L). Weight and bias start uniform in ±1/√(C/groups · kernel)."""

    rank, function = 1, staticmethod(F.conv1d)


class Conv2d(_Conv):
    """Convolution of (N, C, H, W). Weight and bias start uniform in ±1/√(C/groups · kernel)."""

    rank, function = 2, staticmethod(F.conv2d)


class Conv3d(_Conv):
    """Convolution of (N, C, D, H, W). Weight and bias start uniform in ±1/√(C/groups · kernel)."""

    rank, function = 3, staticmethod(F.conv3d)


class _Pool(Module):
    """A pool: its function takes the arguments of the layer, which are attributes, by name."""

    rank: int
    function: Callable
    shown: tuple[str, ...]  # which of them stand in the repr

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self._names = tuple(arguments)
        for name, value in arguments.items():
            setattr(self, name, value)

    def forward(self, input):
        return self.function(input, **{name: getattr(self, name) for name in self._names})

    def extra_repr(self) -> str:
        return ", ".join([f"{name}={getattr(self, name)}" for name in self.shown])


class _MaxPool(_Pool):
    shown = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        pool_windows(self.rank, kernel_size, stride, padding, dilation)
        super().__init__(
            kernel_size=kernel_size,
            stride=kernel_size if stride is None else stride,
            padding=padding,
            dilation=dilation,
            return_indices=return_indices,
            ceil_mode=ceil_mode,
        )


class MaxPool1d(_MaxPool):
    """The largest value of each window of (N, C, L)."""

    rank, function = 1, staticmethod(F.max_pool1d)


class MaxPool2d(_MaxPool):
    """The largest value of each window of (N, C, H, W)."""

    rank, function = 2, staticmethod(F.max_pool2d)


class MaxPool3d(_MaxPool):
    """The largest value of each window of (N, C, D, H, W)."""

    rank, function = 3, staticmethod(F.max_pool3d)


class _AvgPool(_Pool):
    shown = ("kernel_size", "stride", "padding")

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        pool_windows(self.rank, kernel_size, stride, padding)
        super().__init__(
            kernel_size=kernel_size,
            stride=kernel_size if stride is None else stride,
            padding=padding,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
            divisor_override=divisor_override,
        )


class AvgPool1d(_AvgPool):
    """The mean of each window of (N, C, L)."""

    rank, function = 1, staticmethod(F.avg_pool1d)

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        sizes = pool_windows(self.rank, kernel_size, stride, padding)[:3]  # PyTorch keeps tuples
        super().__init__(*sizes, ceil_mode, count_include_pad)


class AvgPool2d(_AvgPool):
    """The mean of each window of (N, C, H, W)."""

    rank, function = 2, staticmethod(F.avg_pool2d)


class AvgPool3d(_AvgPool):
    """The mean of each window of (N, C, D, H, W)."""

    rank, function = 3, staticmethod(F.avg_pool3d)


class _AdaptiveAvgPool(_Pool):
    shown = ("output_size",)

    def __init__(self, output_size: OutputSizes) -> None:
        output_sizes(output_size, self.rank)
        super().__init__(output_size=output_size)


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """The means of `output_size` bins over (N, C, L)."""

    rank, function = 1, staticmethod(F.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """The means of `output_size` bins along each axis of the images (N, C, H, W)."""

    rank, function = 2, staticmethod(F.adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """The means of `output_size` bins along each axis of the images (N, C, D, H, W)."""

    rank, function = 3, staticmethod(F.adaptive_avg_pool3d)
