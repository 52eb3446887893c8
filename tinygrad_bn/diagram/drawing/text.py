"""Names and numbers as text.

Names are data: whatever a user calls a Tensor is shown as text and never read as markup.
"""

import unicodedata
from typing import Any

import numpy as np

LISTED = 8  # elements of an array that are shown one by one
_LONGEST_NAME = 40
_CONTROLS = {"Cc", "Cs", "Zl", "Zp"}  # control characters, lone surrogates, line separators
# Characters that turn the direction of the text after them, beyond the end of the name.
_TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def clean(name: str) -> str:
    """A name as at most 40 characters that are fit for a line of text and for XML.

    >>> clean("a\\x00\\nb")
    'ab'
    """
    kept = printable(name)
    return kept if len(kept) <= _LONGEST_NAME else kept[: _LONGEST_NAME - 1] + "…"


def printable(text: str) -> str:
    """A text without the characters that are not fit for a line of text and for XML."""
    return "".join([c for c in text if _is_text(c)])


def _is_text(character: str) -> bool:
    return (
        unicodedata.category(character) not in _CONTROLS
        and unicodedata.bidirectional(character) not in _TURNING
        and ord(character) & 0xFFFE != 0xFFFE  # no characters, and forbidden in XML
    )


def number(value: Any) -> str:
    """A number with four significant digits.

    >>> number(-0.8), number(1234.56), number(-0.0)
    ('−0.8', '1235', '0')
    """
    return f"{value + 0:.4g}".replace("-", "−")


def summary(value: Any) -> str:
    """Up to 8 elements one by one, more as their mean ± standard deviation.

    >>> summary(np.array([[0.5], [3.5]])), summary(np.arange(100.0))
    ('0.5, 3.5', 'mean 49.5 ± 28.87')
    >>> summary(np.array([0.1, 0.2, -0.3] * 3))
    'mean ≈ 0 ± 0.216'
    >>> summary(np.array([0.1, 0.2 - 0.1, 0.3 - 0.2] * 3))
    'mean 0.1 ± 0'
    """
    array = np.asarray(value)
    if array.size == 0:
        return "empty"
    if array.size <= LISTED:
        return ", ".join(map(number, array.ravel().tolist()))
    with np.errstate(all="ignore"):  # inf and NaN are shown, they are no reason to warn
        wide = array.astype(np.float64)
        mean, deviation = wide.mean(), wide.std()
        exact = array.dtype.kind != "f"
        noise = 0 if exact else 4 * np.finfo(array.dtype).eps * np.abs(wide).max()
    # What is not larger than a few roundings of the largest element has no digits to show; whether
    # such a mean is 0 exactly differs from one processor to another.
    middle = "≈ 0" if abs(mean) < noise else number(mean)
    return f"mean {middle} ± {number(0 if deviation < noise else deviation)}"


def several(count: int, what: str) -> str:
    """A number of things: 1 op, 2,000 ops."""
    return f"{count:,} {what}{'s' * (count != 1)}"
