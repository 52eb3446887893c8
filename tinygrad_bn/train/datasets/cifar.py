"""CIFAR-10: six files, in the binary version or in the one for Python."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from .dataset import Dataset, checked_labels, content_of, missing
from .pickled import plain_value

_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_TRAINING = tuple(f"data_batch_{k}" for k in range(1, 6))
_TEST = "test_batch"
_PIXELS = 3 * 32 * 32
_SOURCE = "the CIFAR-10 page (www.cs.toronto.edu/~kriz/cifar.html)"


def cifar10(folder: Path) -> Dataset:
    """The photographs in a folder, or one folder below it, images (n, 3, 32, 32) uint8.

    Either version will do; files may have fewer images than the original 10,000. The files for
    Python are pickled, and read without unpickling: they are looked at and never run.
    """
    inner, suffix, read = _version(folder)
    paths = {name: inner / f"{name}{suffix}" for name in (*_TRAINING, _TEST)}
    for path in paths.values():
        if not path.is_file():
            raise missing(inner, path.name, _SOURCE)
    training = _joined([read(paths[name]) for name in _TRAINING])
    return Dataset(*training, *_joined([read(paths[_TEST])]), _CLASSES)


_Batch = tuple[np.ndarray, np.ndarray]


def _version(folder: Path) -> tuple[Path, str, Callable[[Path], _Batch]]:
    """(where the files are, how their names end, what reads one): of the version that is there."""
    for inner, suffix, read in (
        (folder, ".bin", _binary_batch),
        (folder / "cifar-10-batches-bin", ".bin", _binary_batch),
        (folder, "", _python_batch),
        (folder / "cifar-10-batches-py", "", _python_batch),
    ):
        if any((inner / f"{name}{suffix}").is_file() for name in (*_TRAINING, _TEST)):
            return inner, suffix, read
    raise missing(folder, f"{_TRAINING[0]}.bin (binary) or {_TRAINING[0]} (for Python)", _SOURCE)


def _binary_batch(path: Path) -> _Batch:
    """(n, 3072) pixels and n labels of a file of records: a byte for the class, then the pixels."""
    content = content_of(path)
    if not content or len(content) % (1 + _PIXELS):
        wants = f"records of {1 + _PIXELS:,}"
        raise ValueError(f"{path}: got {len(content):,} bytes, wants {wants}")
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + _PIXELS)
    return records[:, 1:], checked_labels(path, records[:, 0], len(records), len(_CLASSES))


def _python_batch(path: Path) -> _Batch:
    """(n, 3072) pixels and n labels of a pickled dict with the keys data and labels."""
    content = content_of(path)
    try:
        batch = plain_value(content)
    except ValueError as error:
        raise ValueError(f"{path}: damaged, or no CIFAR-10 file for Python: {error}") from error
    batch = batch if isinstance(batch, dict) else {}
    pixels, labels = batch.get("data"), batch.get("labels")
    if not isinstance(pixels, np.ndarray) or len(pixels) < 1 or pixels.shape[1] != _PIXELS:
        got = pixels.shape if isinstance(pixels, np.ndarray) else "none"
        raise ValueError(f"{path}: got data {got}, wants uint8 of shape (n, {_PIXELS})")
    if not isinstance(labels, list) or any(type(label) is not int for label in labels):
        raise ValueError(f"{path}: got labels of another kind, wants a list of whole numbers")
    return pixels, checked_labels(path, np.array(labels), len(pixels), len(_CLASSES))


def _joined(batches: list[_Batch]) -> _Batch:
    pixels, labels = zip(*batches)
    return np.concatenate(pixels).reshape(-1, 3, 32, 32), np.concatenate(labels)
