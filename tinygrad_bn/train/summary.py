"""The test errors of several networks that differ in their seed, in numbers and in words."""

from collections.abc import Sequence

import numpy as np


def spread(values: Sequence[float | None]) -> dict[str, float | None]:
    """Mean, lowest and highest of the values that are not None; all None where there are none.

    >>> spread([1.0, None, 2.0])
    {'mean': 1.5, 'lowest': 1.0, 'highest': 2.0}
    """
    there = [value for value in values if value is not None]
    return {
        "mean": float(np.mean(there)) if there else None,
        "lowest": min(there, default=None),
        "highest": max(there, default=None),
    }


def summarized(errors: Sequence[float | None], learned_below: float) -> dict:
    """The test errors of some networks (None: diverged), their mean and range, and whether the
    networks learned: none diverged, and the mean is below `learned_below`."""
    found = {"errors": list(errors), **spread(errors), "diverged": list(errors).count(None)}
    return {**found, "learns": not found["diverged"] and found["mean"] < learned_below}


def error_text(setting: dict) -> str:
    """`summarized` in words: the mean, the range, and what diverged.

    >>> error_text(summarized([0.01, 0.02, None], learned_below=0.5))
    '1.5 % (1.0–2.0), × 1 of 3 diverged'
    """
    total, diverged = len(setting["errors"]), setting["diverged"]
    if diverged == total:
        return "× diverged"
    text = f"{100 * setting['mean']:.1f} %"
    if total - diverged > 1:
        text += f" ({100 * setting['lowest']:.1f}–{100 * setting['highest']:.1f})"
    return f"{text}, × {diverged} of {total} diverged" if diverged else text
