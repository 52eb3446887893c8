"""Layers without statistics."""

import math
from typing import Any

from .. import functional as F
from ..creation import randn
from ..functional.arguments import number, whole
from ..functional.layers import padding_row
from ..recording import write
from ..reduction import reduced_axes
from .init import fan_in_bound, uniform
from .module import Module, Parameter


class Linear(Module):
    """x @ weight.T + bias, for x (…, in_features). Both start uniform in ±1/√in_features."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.in_features = whole("in_features", in_features)
        self.out_features = whole("out_features", out_features)
        bound = fan_in_bound(in_features)
        kind = {"dtype": dtype, "device": device}
        self.weight = Parameter(uniform((out_features, in_features), bound, **kind))
        offset = Parameter(uniform((out_features,), bound, **kind)) if bias else None
        self.register_parameter("bias", offset)

    def forward(self, input):
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class Flatten(Module):
    """The axes from `start_dim` to `end_dim` as one: (N, C, H, W) becomes (N, C·H·W)."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input):
        axes = reduced_axes(input.ndim, (self.start_dim, self.end_dim))
        if len(axes) < 2 or axes[0] > axes[1]:
            raise ValueError(
                f"input: got shape {input.shape}, wants axes {self.start_dim} to {self.end_dim}"
            )
        start, stop = axes[0], axes[1] + 1
        middle = math.prod(input.shape[start:stop])
        return input.reshape(*input.shape[:start], middle, *input.shape[stop:])

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Identity(Module):
    """Hands its input on. It ignores all arguments, so that it can stand in any module's place."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input):
        return input


class Dropout(Module):
    """In training each element becomes 0 with probability p, or else times 1/(1 − p)."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        number("p", p, 0, 1)
        self.p = p

    def forward(self, input):
        return F.dropout(input, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Embedding(Module):
    """Row i of a learned `weight` (num_embeddings, embedding_dim) for each integer i: (…) → (…, d).

    The weight starts normal with mean 0 and variance 1; row `padding_idx` starts at 0 and gets no
    gradient.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.num_embeddings = whole("num_embeddings", num_embeddings)
        self.embedding_dim = whole("embedding_dim", embedding_dim)
        self.padding_idx = None if padding_idx is None else padding_row(padding_idx, num_embeddings)
        weight = randn(num_embeddings, embedding_dim, dtype=dtype, device=device)
        if padding_idx is not None:
            write(weight.data[self.padding_idx], 0)
        self.weight = Parameter(weight)

    def forward(self, input):
        return F.embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
