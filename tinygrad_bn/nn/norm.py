"""Batch norm layers: γ and β, running statistics, training and evaluation."""

import math
from typing import Any

import numpy as np

from .. import functional as F
from .. import recording
from ..creation import ones, tensor, zeros
from ..graph import Tensor
from ..recording import write
from .module import Module, Parameter


class _BatchNorm(Module):
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
        batches evenly. `affine`: learn γ (`weight`) and, unless `bias` is False, β (`bias`).
        `track_running_stats`: keep running statistics and use them in evaluation. `device`,
        `dtype`: of all of them. `impl`: "fused" or "composed"."""
        super().__init__()
        if not isinstance(num_features, int) or num_features < 0:
            raise ValueError(f"num_features: got {num_features!r}, wants a whole number ≥ 0")
        if not (isinstance(eps, (int, float, np.number)) and 0 <= eps < math.inf):
            raise ValueError(f"eps: got {eps!r}, wants a number ≥ 0")
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"momentum: got {momentum!r}, wants None or a number in [0, 1]")
        if impl not in ("fused", "composed"):
            raise ValueError(f'impl: got {impl!r}, wants "fused" or "composed"')
        self.num_features, self.eps, self.momentum, self.impl = num_features, eps, momentum, impl
        self.affine, self.track_running_stats = affine, track_running_stats

        def filled(make, wanted, kind=Tensor):
            return kind(make(num_features, dtype=dtype, device=device).data) if wanted else None

        self.register_parameter("weight", filled(ones, affine, Parameter))
        self.register_parameter("bias", filled(zeros, affine and bias, Parameter))
        self.register_buffer("running_mean", filled(zeros, track_running_stats))
        self.register_buffer("running_var", filled(ones, track_running_stats))
        count = tensor(0, np.int64, device) if track_running_stats else None
        self.register_buffer("num_batches_tracked", count)

    def forward(self, input):
        if input.ndim not in self.ranks or input.shape[1] != self.num_features:
            raise ValueError(
                f"input: got shape {input.shape}, wants (N, {self.num_features}, …) with "
                f"{' or '.join(map(str, self.ranks))} axes"
            )
        tracks = self.track_running_stats and self.running_mean is not None
        moves = self.training and tracks and recording.statistics_move.get()
        momentum = self.momentum
        if moves and momentum is None:  # counted on the device: nothing waits for it
            momentum = 1.0 / (self.num_batches_tracked.data + 1)
        given = tracks or not self.training
        output = F.batch_norm(
            input,
            self.running_mean if given else None,
            self.running_var if given else None,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            0.0 if momentum is None else momentum,
            self.eps,
            self.impl,
        )
        if moves and input.size:
            count = self.num_batches_tracked.data
            write(count, count + 1)
        return output

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, bias={self.bias is not None}, "
            f"track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    """Batch norm of (N, C) or (N, C, L), each channel over all else."""

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch norm of (N, C, H, W), each channel over all else."""

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch norm of (N, C, D, H, W), each channel over all else."""

    ranks = (5,)
