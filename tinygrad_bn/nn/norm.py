"""Norm layers: γ and β, running statistics, training and evaluation."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import functional as F
from .. import recording
from ..backend import on_device_of
from ..creation import ones, tensor, zeros
from ..dtypes import dtype_of
from ..functional.arguments import choice, number, whole
from ..fusion import norm_relu
from ..norm import IMPLEMENTATIONS, running
from ..recording import mark_written
from ..reduction import SUMMED
from .module import Module, Parameter


def _check(eps: float, impl: str, dtype: Any) -> None:
    number("eps", eps, 0)
    choice("impl", impl, *IMPLEMENTATIONS)
    if dtype is not None and (got := dtype_of(dtype)).char in SUMMED:
        stands = f"parameters in float32 stand beside {got} inputs"
        raise ValueError(f"dtype: got {got}, wants float32: leave dtype out, {stands}")


def _register(module: Module, name: str, make: Callable, shape, wanted: bool, **kind: Any) -> None:
    """Give a module its γ of `ones` or its β of `zeros`; or only the name, if it has none."""
    parameter = None
    if wanted:
        parameter = Parameter(make(shape, **kind).data)
        parameter.name = {"weight": "γ", "bias": "β"}[name]  # in pictures
    module.register_parameter(name, parameter)


class _TrackedNorm(Module):
    """Batch and instance norm: channels, and running statistics of them."""

    ranks: tuple[int, ...]  # the numbers of axes that an input may have

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: str | None = None,
        dtype: Any = None,
        *,
        bias: bool = True,
        impl: str = "fused",
    ) -> None:
        """`momentum`: the weight of a new batch in the running statistics; None averages all
        batches evenly (in instance norm, as in PyTorch, it moves nothing). `affine`: learn γ
        (`weight`) and, unless `bias` is False, β (`bias`). `track_running_stats`: keep running
        statistics and use them in evaluation. `device`, `dtype`: of all of them; inputs may be
        float16 or bfloat16 beside float32. `impl`: "fused" or "composed"."""
        super().__init__()
        _check(eps, impl, dtype)
        number("momentum", 0 if momentum is None else momentum, 0, 1)
        self.num_features = whole("num_features", num_features)
        self.eps, self.momentum, self.impl = eps, momentum, impl
        self.affine, self.track_running_stats = affine, track_running_stats
        kind = {"dtype": dtype, "device": device}
        _register(self, "weight", ones, num_features, affine, **kind)
        _register(self, "bias", zeros, num_features, affine and bias, **kind)
        for name, make in (("running_mean", zeros), ("running_var", ones)):
            self.register_buffer(name, make(num_features, **kind) if track_running_stats else None)
        count = tensor(0, np.int64, device) if track_running_stats else None
        self.register_buffer("num_batches_tracked", count)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, bias={self.bias is not None}, "
            f"track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_TrackedNorm):
    def forward(self, input):
        return self._by(IMPLEMENTATIONS[self.impl], input)

    def forward_relu(self, input):
        """relu(self(input)), as one op; see `fusion.takes_relu`."""
        return self._by(norm_relu, input)

    def observe(self, mu, var, m):
        """Move the running statistics towards those of a batch of m values a channel."""
        if self._moves():
            mean, variance = self._buffers["running_mean"], self._buffers["running_var"]
            running.move(mean.data, variance.data, mu, var, m, self._weight_of_batch())
            self._count_batch()

    def _moves(self):
        tracks = self.track_running_stats and self._buffers["running_mean"] is not None
        return tracks and self.training and recording.statistics_move.get()

    def _weight_of_batch(self):
        if self.momentum is None:  # counted on the device: nothing waits for it
            if not self._moves():
                return 0.0
            count = self.num_batches_tracked.data
            with on_device_of(count):
                return 1.0 / (count + 1)
        return number("momentum", self.momentum, 0, 1)

    def _count_batch(self):
        count = self._buffers["num_batches_tracked"].data
        if type(count) is np.ndarray:
            count.fill(count.item() + 1)  # a third of the time of += 1
        else:
            with on_device_of(count):
                count += 1  # nothing waits for it
        mark_written(count)

    def _check_shape(self, input):
        shape = input.shape
        if len(shape) not in self.ranks or shape[1] != self.num_features:
            raise ValueError(
                f"input: got shape {shape}, wants (N, {self.num_features}, …) with "
                f"{' or '.join(map(str, self.ranks))} axes"
            )

    def _by(self, norm, input):
        self._check_shape(input)
        mean, var = self.running_mean, self.running_var
        training = self.training or mean is None
        if self.training and not self.track_running_stats:
            mean = var = None
        given = input, mean, var, self.weight, self.bias
        output = F.norm.batch_norm_by(norm, given, training, self._weight_of_batch(), self.eps)
        if self._moves() and input.size:
            self._count_batch()
        return output


class BatchNorm1d(_BatchNorm):
    """Batch norm of (N, C) or (N, C, L), each channel over all else."""

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch norm of (N, C, H, W), each channel over all else."""

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch norm of (N, C, D, H, W), each channel over all else."""

    ranks = (5,)


class _InstanceNorm(_TrackedNorm):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: str | None = None,
        dtype: Any = None,
        *,
        bias: bool = True,
        impl: str = "fused",
    ) -> None:
        kind = {"device": device, "dtype": dtype, "bias": bias, "impl": impl}
        super().__init__(num_features, eps, momentum, affine, track_running_stats, **kind)

    def forward(self, input):
        unbatched, batched = self.ranks
        if input.ndim not in self.ranks:
            raise ValueError(
                f"input: got shape {input.shape}, wants {batched} axes, or {unbatched} without N"
            )
        channels = input.shape[0 if input.ndim == unbatched else 1]
        if channels != self.num_features:
            message = f"input: got {channels} channels, wants num_features, {self.num_features}"
            if self.affine or self.track_running_stats:
                raise ValueError(message)
            warnings.warn(message + " (which nothing here uses)", stacklevel=3)
        output = F.instance_norm(
            input if input.ndim == batched else input[None],
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
            self.impl,
        )
        return output if input.ndim == batched else output[0]


class InstanceNorm1d(_InstanceNorm):
    """Instance norm of (N, C, L) or (C, L), each channel of each sample over L."""

    ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Instance norm of (N, C, H, W) or (C, H, W), each channel of each sample over H and W."""

    ranks = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """Instance norm of (N, C, D, H, W) or (C, D, H, W), each channel of each sample by itself."""

    ranks = (4, 5)


def _normalized_shape(shape: Any) -> tuple[int, ...]:
    shape = tuple(shape) if isinstance(shape, Sequence) else (shape,)
    if not shape:
        raise ValueError("normalized_shape: got no axes, wants one at least")
    return tuple(whole("normalized_shape", n) for n in shape)


class LayerNorm(Module):
    """Layer norm of (…, *normalized_shape), each sample over its own features."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
        *,
        impl: str = "fused",
    ) -> None:
        super().__init__()
        _check(eps, impl, dtype)
        self.normalized_shape = _normalized_shape(normalized_shape)
        self.eps, self.elementwise_affine, self.impl = eps, elementwise_affine, impl
        shape, kind = self.normalized_shape, {"device": device, "dtype": dtype}
        _register(self, "weight", ones, shape, elementwise_affine, **kind)
        _register(self, "bias", zeros, shape, elementwise_affine and bias, **kind)

    def forward(self, input):
        shape = self.normalized_shape
        return F.layer_norm(input, shape, self.weight, self.bias, self.eps, self.impl)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


class RMSNorm(Module):
    """RMS norm of (…, *normalized_shape), each sample by its root mean square."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: str | None = None,
        dtype: Any = None,
        *,
        impl: str = "fused",
    ) -> None:
        super().__init__()
        _check(0.0 if eps is None else eps, impl, dtype)
        self.normalized_shape = _normalized_shape(normalized_shape)
        self.eps, self.elementwise_affine, self.impl = eps, elementwise_affine, impl
        kind = {"device": device, "dtype": dtype}
        _register(self, "weight", ones, self.normalized_shape, elementwise_affine, **kind)

    def forward(self, input):
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps, self.impl)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )


class GroupNorm(Module):
    """Group norm of (N, C, …), each group of channels of each sample over its places."""

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: str | None = None,
        dtype: Any = None,
        *,
        bias: bool = True,
        impl: str = "fused",
    ) -> None:
        super().__init__()
        _check(eps, impl, dtype)
        self.num_groups = whole("num_groups", num_groups)
        self.num_channels = whole("num_channels", num_channels)
        if not num_groups or num_channels % num_groups:
            raise ValueError(
                f"num_groups: got {num_groups}, wants a divisor of num_channels, {num_channels}"
            )
        self.eps, self.affine, self.impl = eps, affine, impl
        kind = {"device": device, "dtype": dtype}
        _register(self, "weight", ones, num_channels, affine, **kind)
        _register(self, "bias", zeros, num_channels, affine and bias, **kind)

    def forward(self, input):
        groups = self.num_groups
        return F.group_norm(input, groups, self.weight, self.bias, self.eps, self.impl)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )
