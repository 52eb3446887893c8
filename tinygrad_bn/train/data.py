"""Batches of data, in an order that a generator draws."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend import device_of, on_device_of, to_device


def batches(x: Any, y: Any, size: int, generator: np.random.Generator) -> Iterator[tuple[Any, Any]]:
    """One epoch: x and y, shuffled, in batches of at most `size` rows.

    The batches differ by at most one row: no last one is a small rest. Call again for another
    epoch: the generator goes on.

    >>> x = np.arange(10)
    >>> [len(a) for a, b in batches(x, x, 4, np.random.default_rng(0))]
    [3, 3, 4]
    """
    if len(x) != len(y):
        raise ValueError(f"y: got {len(y)} rows, wants {len(x)}, one for each of x")
    if size < 1:
        raise ValueError(f"size: got {size!r}, wants at least one row")
    order = to_device(generator.permutation(len(x)), device_of(x))
    for rows in split(order, math.ceil(len(x) / size)):
        with on_device_of(x):
            batch = x[rows], y[rows]
        yield batch


def split(rows: Any, parts: int) -> Iterator[Any]:
    """An array in so many parts, that differ by at most one row.

    >>> [part.tolist() for part in split(np.arange(5), 3)]
    [[0], [1, 2], [3, 4]]
    """
    for k in range(parts):
        yield rows[k * len(rows) // parts : (k + 1) * len(rows) // parts]
