"""What all readers answer with, and what several of them need."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

MOST_BYTES = 2**31  # of a file, and of pixels that a file promises


@dataclass(frozen=True)
class Dataset:
    """Rows to train on and to test on, and the names of their classes.

    x: images (n, C, H, W) or features (n, F), in the dtype in which they are stored: images from
    files uint8, all else float32. labels (n,) int64, each the index of a name in `classes`.
    """

    x: np.ndarray
    labels: np.ndarray
    test_x: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]


def split(
    x: np.ndarray, labels: np.ndarray, held_out: int, random: np.random.Generator
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The rows, shuffled: (x, labels) to train on, and as many as `held_out` to test.

    >>> (x, _), (test_x, _) = split(np.arange(5), np.arange(5), 1, np.random.default_rng(0))
    >>> x, test_x
    (array([2, 4, 3, 0]), array([1]))
    """
    order = random.permutation(len(x))
    train, test = order[: len(x) - held_out], order[len(x) - held_out :]
    return (x[train], labels[train]), (x[test], labels[test])


def content_of(path: Path) -> bytes:
    """All bytes of a file that is not too large to be held."""
    if not path.is_file():  # a device or a pipe may have no end
        got = "no plain file" if path.exists() else "no file"
        raise FileNotFoundError(f"{path}: got {got}, wants one")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"{path}: got {size:,} bytes, wants at most {MOST_BYTES:,}")
    return path.read_bytes()


def missing(folder: Path, wanted: str, source: str) -> FileNotFoundError:
    """The error of a folder that lacks a file, which says where it can be had."""
    got = "a folder without it" if folder.is_dir() else "no folder"
    return FileNotFoundError(f"{folder}: got {got}, wants {wanted}, from {source}")


def checked_labels(path: Path, labels: np.ndarray, rows: int, classes: int) -> np.ndarray:
    """The labels as int64, if there are `rows` of them and each is one of the classes."""
    if len(labels) != rows:
        raise ValueError(f"{path}: got {len(labels):,} labels, wants {rows:,}, one for each image")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        k = wrong[0]
        raise ValueError(f"{path}: got label {labels[k]} of image {k}, wants 0 … {classes - 1}")
    return labels.astype(np.int64)
