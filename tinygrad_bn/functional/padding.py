"""Padding."""

import math
from collections.abc import Sequence

import numpy as np

from .. import ops
from .arguments import Array, as_given, choice

__all__ = ["pad"]

_NUMPYS = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


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
    if choice("mode", mode, "constant", *_NUMPYS) == "constant":
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
            index = np.pad(np.arange(n), pair, mode=_NUMPYS[mode]).tolist()
            input = ops.getitem(input, (slice(None),) * axis + (index,))
    return input
