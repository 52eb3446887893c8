"""Layers without statistics."""

import math
from collections.abc import Iterator
from typing import Any

from .. import functional as F
from ..ops.shape import reduced_axes
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
        for name, value in (("in_features", in_features), ("out_features", out_features)):
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"{name}: got {value!r}, wants a whole number ≥ 0")
        self.in_features, self.out_features = in_features, out_features
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


class Sequential(Module):
    """Modules that run one after the other, given one by one or as a dict of names.

    >>> from tinygrad_bn import nn
    >>> nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    Sequential(
      (0): Linear(in_features=2, out_features=3, bias=True)
      (1): ReLU()
    )
    """

    def __init__(self, *modules: Module | dict[str, Module]) -> None:
        super().__init__()
        named = modules[0].items() if len(modules) == 1 and isinstance(modules[0], dict) else None
        for name, module in named or enumerate(modules):
            self._append(str(name), module)

    def _append(self, name: str, module: Module) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"module {name}: got {type(module).__name__}, wants a Module")
        self.add_module(name, module)

    def append(self, module: Module) -> "Sequential":
        """Add a module at the end; returns the Sequential."""
        self._append(str(len(self)), module)
        return self

    def forward(self, input):
        for module in self._modules.values():
            input = module(input)
        return input

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def __getitem__(self, index: int | slice):
        items = list(self._modules.items())
        if isinstance(index, slice):
            return Sequential(dict(items[index]))
        return items[index][1]
