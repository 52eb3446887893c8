"""What callers give, checked: an error says which argument, what it got, and what it wants."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def one_of(argument: str, value: Any, known: Iterable[str]) -> str:
    """`value`, if it is one of the known words.

    >>> one_of("theme", ["dark"], ("light", "dark"))
    Traceback (most recent call last):
    ...
    ValueError: theme: got ['dark'], wants one of 'light', 'dark'
    """
    if not (isinstance(value, str) and value in known):
        words = ", ".join(map(repr, known))
        raise ValueError(f"{argument}: got {value!r:.40}, wants one of {words}")
    return value


def file_path(path: str | os.PathLike, endings: Iterable[str]) -> Path:
    """Where a file with one of the endings is to be written."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path: got {type(path).__name__}, wants a str or a Path")
    path = Path(path)
    if "\0" in str(path):
        raise ValueError(f"path: got {str(path)!r:.60}, wants one without a null character")
    if path.suffix.lower() not in endings:
        known = ", ".join(endings)
        raise ValueError(f"path: got {path.name!r:.60}, wants a name and an ending: {known}")
    return path
