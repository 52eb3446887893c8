"""Initial values, drawn on the host: a seed gives the same network on every device."""

import math
from typing import Any

from ..backend import is_floating
from ..creation import rand, randn
from ..dtypes import dtype_of
from ..graph import Tensor


def uniform(shape: tuple[int, ...], bound: float, dtype: Any = None, device=None) -> Tensor:
    """Uniform in [−bound, bound)."""
    if dtype is not None and not is_floating(dtype_of(dtype)):
        raise TypeError(f"dtype: got {dtype_of(dtype)}, wants floating point")
    return rand(shape, dtype=dtype, device=device) * (2 * bound) - bound


def normal(shape: tuple[int, ...], std: float) -> Tensor:
    """Normal with mean 0 and standard deviation `std`."""
    return randn(shape) * std


def fan_in_bound(fan_in: int) -> float:
    """1/√fan_in, PyTorch's default for the weights and biases of Linear and convolutions."""
    return 1 / math.sqrt(fan_in) if fan_in else 0.0
