"""What layers without statistics compute."""

from .. import ops
from .arguments import Array

__all__ = ["linear"]


def linear(input: Array, weight: Array, bias: Array | None = None) -> Array:
    """input @ weight.T + bias, for input (…, n), weight (m, n) and bias (m,)."""
    return ops.linear(input, weight, bias)
