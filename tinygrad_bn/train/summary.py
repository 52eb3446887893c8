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


def percent(shares: Sequence[float], decimals: int) -> str:
    """The mean of some shares, and of several the range.

    >>> percent([0.96, 0.98], 1), percent([0.98], 2)
    ('97.0 % (96.0–98.0)', '98.00 %')
    """
    low, mean, high = (
        f"{100 * share:.{decimals}f}" for share in (min(shares), np.mean(shares), max(shares))
    )
    return f"{mean} %" + f" ({low}–{high})" * (len(shares) > 1)


def error_text(setting: dict) -> str:
    """`summarized` in words: the mean, the range, and what diverged.

    >>> error_text(summarized([0.01, 0.02, None], learned_below=0.5))
    '1.5 % (1.0–2.0), × 1 of 3 diverged'
    """
    total, diverged = len(setting["errors"]), setting["diverged"]
    if diverged == total:
        return "× diverged"
    text = percent([error for error in setting["errors"] if error is not None], 1)
    return f"{text}, × {diverged} of {total} diverged" if diverged else text
