"""Data sets that a CPU trains on in seconds, and batches of them."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend import device_of, on_device_of, to_device

_TEST_DIGITS = 360  # a fifth of the 1,797


def disc(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`n` points of the square [−1, 1]², and which of them lie in the disc of half its area.

    Returns x (n, 2) float32 and labels (n,) int64: 1 where x² + y² < 2/π. As in EE-559 the
    coordinates are then standardized by one mean and one standard deviation, those of the call:
    draw training and test points together, and cut.

    >>> x, labels = disc(4, seed=0)
    >>> x.shape, labels.tolist()
    ((4, 2), [1, 0, 0, 1])
    """
    if n < 1:
        raise ValueError(f"n: got {n!r}, wants at least one point")
    x = np.random.default_rng(seed).uniform(-1, 1, (n, 2))
    labels = ((x * x).sum(1) < 2 / math.pi).astype(np.int64)
    return ((x - x.mean()) / x.std()).astype(np.float32), labels


def digits(seed: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The 1,797 handwritten digits of scikit-learn, shuffled: (x, labels) to train on, and to test.

    x (1437, 64) and (360, 64) float32 in [0, 1], an 8 × 8 image a row; labels int64. Without
    scikit-learn this is a RuntimeError that says how to install it.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise RuntimeError(
            'the digits need scikit-learn, which is not installed: pip install "tinygrad_bn[train]"'
        ) from error
    loaded = load_digits()
    order = np.random.default_rng(seed).permutation(len(loaded.target))
    x = (loaded.data[order] / 16).astype(np.float32)
    labels = loaded.target[order].astype(np.int64)
    cut = len(x) - _TEST_DIGITS
    return (x[:cut], labels[:cut]), (x[cut:], labels[cut:])


def batches(x: Any, y: Any, size: int, generator: np.random.Generator) -> Iterator[tuple[Any, Any]]:
    """One epoch: x and y, shuffled, in batches of at most `size` rows.

    The batches differ by at most one row, so that no last one is too small for batch norm. Call
    again for another epoch: the generator goes on.

    >>> x = np.arange(10)
    >>> [len(a) for a, b in batches(x, x, 4, np.random.default_rng(0))]
    [3, 3, 4]
    """
    if len(x) != len(y):
        raise ValueError(f"y: got {len(y)} rows, wants {len(x)}, one for each of x")
    if size < 1:
        raise ValueError(f"size: got {size!r}, wants at least one row")
    count = math.ceil(len(x) / size)
    order = to_device(generator.permutation(len(x)), device_of(x))
    for k in range(count):
        rows = order[k * len(x) // count : (k + 1) * len(x) // count]
        with on_device_of(x):
            batch = x[rows], y[rows]
        yield batch
