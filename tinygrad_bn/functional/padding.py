"""Padding."""

import math
from collections.abc import Sequence

from .. import ops
from .arguments import Array, as_given, choice

__all__ = ["pad"]


def pad(
    input: Array, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Array:
    """`input` with more values before and after it along its last axes.

    `pad` is (before, after) for the last axis, then for the one before it, and so on. `mode`:
    "constant" adds `value` (None: 0), and a negative number takes values away; "reflect" mirrors at
    the outermost value, "replicate" repeats it, "circular" goes round.

    >>> import tinygrad_bn as tg
    >>> from tinygrad_bn import functional as F
    >>> F.pad(tg.tensor([1.0, 2.0, 3.0]), (2, 1), mode="reflect")
    tensor([3., 2., 1., 2., 3., 2.])
    """
    input = as_given(input)
    ndim = len(input.shape)
    if len(pad) % 2 or len(pad) > 2 * ndim:
        raise ValueError(f"pad: got {pad!r}, wants a pair for each of at most {ndim} axes")
    pairs = [(0, 0)] * (ndim - len(pad) // 2) + list(zip(pad[::2], pad[1::2]))[::-1]
    if choice("mode", mode, "constant", "reflect", "replicate", "circular") == "constant":
        kept = [slice(max(-b, 0), n + min(a, 0)) for n, (b, a) in zip(input.shape, pairs)]
        if any(along.start > along.stop for along in kept):
            raise ValueError(f"pad: got {pad!r}, which takes away more than there is")
        added = [(max(b, 0), max(a, 0)) for b, a in pairs]
        return ops.pad(input[tuple(kept)], widths=added, value=0.0 if value is None else value)
    if value is not None:
        raise ValueError(f'value: got {value!r}, which only mode="constant" takes')
    for axis, (n, pair) in enumerate(zip(input.shape, pairs)):
        most = {"reflect": n - 1, "circular": n}.get(mode, math.inf)
        if not 0 <= min(pair) <= max(pair) <= most:
            raise ValueError(f"pad: got {pair} at axis {axis}, wants 0 … {most} for mode={mode!r}")
        if any(pair):
            before, after = _ends(input, axis, mode, *pair)
            input = ops.concatenate([before, input, after], axis=axis)
    return input


def _ends(x, axis, mode, before, after):
    """What stands before the values of x along an axis, and what after them."""
    n, axes = x.shape[axis], (slice(None),) * axis
    if mode == "reflect":
        return x[(*axes, slice(before, 0, -1))], x[(*axes, slice(-2, -2 - after, -1))]
    if mode == "circular":
        return x[(*axes, slice(n - before, n))], x[(*axes, slice(0, after))]
    ends = (x[(*axes, slice(0, 1))], before), (x[(*axes, slice(n - 1, n))], after)
    return [ops.broadcast_to(e, shape=(*e.shape[:axis], m, *e.shape[axis + 1 :])) for e, m in ends]
