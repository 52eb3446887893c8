"""What the functions take."""

import math
from typing import Any

import numpy as np

from ..backend import array_of, as_given

__all__ = ["NUMBERS", "Array", "array_of", "as_given", "choice", "number", "whole"]

Array = Any  # a Tensor, or an array of NumPy or CuPy: the answer is of the same kind
NUMBERS = (int, float, np.number)
LARGEST = float(np.finfo(np.float64).max)  # 10**400 is a number, but no float


def whole(name: str, value: Any, least: int = 0) -> int:
    """`value` as an int, if it is a whole number (Python's or NumPy's) and not below `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name}: got {value!r}, wants a whole number ≥ {least}")
    return int(value)


def number(name: str, value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    """`value` as a float of Python's, if it is finite and from `least` to `most`. (A float64 of
    NumPy's would make float64 of what is computed with it.)"""
    if not (isinstance(value, NUMBERS) and max(least, -LARGEST) <= value <= min(most, LARGEST)):
        above = f" ≥ {least}" if least > -math.inf else ""
        where = f" in [{least}, {most}]" if most < math.inf else above
        raise ValueError(f"{name}: got {value!r:.60}, wants a number{where}")
    return float(value)


def choice(name: str, value: Any, *choices: str) -> str:
    """`value`, if it is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name}: got {value!r}, wants one of {', '.join(choices)}")
    return value
