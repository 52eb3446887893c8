"""What layers without statistics compute."""

import math

from .. import ops
from ..backend import describe, device_of
from ..random_numbers import random_bits
from .arguments import Array, array_of, as_given, number, whole

__all__ = ["dropout", "embedding", "linear"]


def linear(input: Array, weight: Array, bias: Array | None = None) -> Array:
    """input @ weight.T + bias, for input (…, n), weight (m, n) and bias (m,)."""
    return ops.linear(input, weight, bias)


def dropout(input: Array, p: float = 0.5, training: bool = True) -> Array:
    """In training each element is 0 with probability p, or else times 1/(1 − p), so that the mean
    stays; in evaluation the input itself (Srivastava et al. 2014).

    Which ones, `manual_seed` decides: a seed drops the same on every device.
    """
    p, input = number("p", p, 0, 1), as_given(input)
    if not training or p == 0:
        return input
    kept = ops.greater_equal(random_bits(array_of(input)), min(int(p * 2**32), 2**32 - 1))
    return ops.where(kept, input, 0.0) * (1 / (1 - p) if p < 1 else 0.0)


def padding_row(padding_idx: int, n: int) -> int:
    """The row of n that `padding_idx` names; −1 is the last."""
    if whole("padding_idx", padding_idx, -n) >= n:
        raise ValueError(f"padding_idx: got {padding_idx}, wants one of {n}")
    return padding_idx % n


def embedding(input: Array, weight: Array, padding_idx: int | None = None) -> Array:
    """The rows of `weight` (n, d) that the integers `input` (…) name: (…, d).

    Row `padding_idx` gets no gradient. A number out of 0 … n − 1 is an IndexError on the CPU; on a
    GPU, where a check would wait, its row is NaN.
    """
    index, weight = array_of(as_given(input)), as_given(weight)
    if index.dtype.kind not in "iu":
        raise TypeError(f"input: got {describe(index)}, wants integers")
    n, on_cpu = len(array_of(weight)), device_of(index) == "cpu"
    outside = ops.bitwise_or(ops.less(index, 0), ops.greater_equal(index, n))
    if on_cpu and outside.any():
        raise IndexError(f"input: got {index[outside][0]}, wants 0 … {n - 1}")
    rows = ops.getitem(weight, index)
    if padding_idx is not None:
        row = padding_row(padding_idx, n)
        padding = ops.expand_dims(ops.equal(index, row), axis=-1)
        rows = ops.where(padding, array_of(weight)[row], rows)
    return rows if on_cpu else ops.where(ops.expand_dims(outside, axis=-1), math.nan, rows)
