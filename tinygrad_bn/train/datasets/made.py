"""Data sets that need no files: points drawn from a seed, and the digits of scikit-learn."""

import math
from types import ModuleType

import numpy as np

from ..streams import DATA, stream
from .dataset import Dataset, split

_POINTS = 1000  # to train on, and as many to test
_TEST_DIGITS = 360  # a fifth of the 1,797
_MOONS_NOISE = 0.1  # the standard deviation in micrograd's demo


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
    return _disc(n, np.random.default_rng(seed))


def digits(seed: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The 1,797 handwritten digits of scikit-learn, shuffled: (x, labels) to train on, and to test.

    x (1437, 64) and (360, 64) float32 in [0, 1], an 8 × 8 image a row; labels int64. Without
    scikit-learn this is a RuntimeError that says how to install it.
    """
    return _digits(np.random.default_rng(seed))


def disc_dataset(seed: int) -> Dataset:
    """1,000 points of the disc to train on, and 1,000 to test."""
    return _cut(*_disc(2 * _POINTS, stream(seed, DATA)), ("outside", "inside"))


def moons_dataset(seed: int) -> Dataset:
    """1,000 points about two interleaving half circles to train on, and 1,000 to test."""
    made = _scikit_learn("moons").make_moons
    state = stream(seed, DATA).integers(2**32)  # scikit-learn takes no more than 32 bits
    x, labels = made(2 * _POINTS, noise=_MOONS_NOISE, random_state=state)
    return _cut(x.astype(np.float32), labels.astype(np.int64), ("upper", "lower"))


def digits_dataset(seed: int) -> Dataset:
    """The digits as images (n, 1, 8, 8)."""
    (x, labels), (test_x, test_labels) = _digits(stream(seed, DATA))
    x, test_x = (images.reshape(-1, 1, 8, 8) for images in (x, test_x))
    return Dataset(x, labels, test_x, test_labels, tuple("0123456789"))


def _disc(n: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = random.uniform(-1, 1, (n, 2))
    labels = ((x * x).sum(1) < 2 / math.pi).astype(np.int64)
    return ((x - x.mean()) / x.std()).astype(np.float32), labels


def _digits(
    random: np.random.Generator,
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    loaded = _scikit_learn("digits").load_digits()
    x, labels = (loaded.data / 16).astype(np.float32), loaded.target.astype(np.int64)
    return split(x, labels, _TEST_DIGITS, random)


def _cut(x: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> Dataset:
    return Dataset(x[:_POINTS], labels[:_POINTS], x[_POINTS:], labels[_POINTS:], classes)


def _scikit_learn(what: str) -> ModuleType:
    try:
        import sklearn.datasets
    except ImportError as error:
        raise RuntimeError(
            f"the {what} need scikit-learn, which is not installed: "
            'pip install "tinygrad_bn[train]"'
        ) from error
    return sklearn.datasets
