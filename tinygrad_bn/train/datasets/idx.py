"""MNIST and Fashion-MNIST: four files in the IDX format, as they are, or by gzip.

IDX (LeCun, the MNIST page), all numbers big-endian: two bytes 0, the type of an element (8 for
unsigned bytes), how many dimensions, the size of each in 32 bits, then the elements.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from .dataset import MOST_BYTES, Dataset, checked_labels, missing

_SIDE = 28
_PIECE = 2**20  # bytes read at once
_CLOTHES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def mnist(folder: Path) -> Dataset:
    """The handwritten digits in a folder, images (n, 1, 28, 28) uint8."""
    return _read(folder, "the MNIST page (yann.lecun.com/exdb/mnist)", tuple("0123456789"))


def fashion_mnist(folder: Path) -> Dataset:
    """The clothes in a folder, images (n, 1, 28, 28) uint8."""
    source = "the Fashion-MNIST page (github.com/zalandoresearch/fashion-mnist)"
    return _read(folder, source, _CLOTHES)


def _read(folder: Path, source: str, classes: tuple[str, ...]) -> Dataset:
    arrays = []
    for part in ("train", "t10k"):
        images = _idx(_found(folder, f"{part}-images", 3, source), (_SIDE, _SIDE))
        path = _found(folder, f"{part}-labels", 1, source)
        labels = checked_labels(path, _idx(path, ()), len(images), len(classes))
        arrays += [images[:, None], labels]
    return Dataset(*arrays, classes)


def _found(folder: Path, name: str, dimensions: int, source: str) -> Path:
    """The file, under the first of its names that is there."""
    names = [f"{name}{mark}idx{dimensions}-ubyte" for mark in "-."]
    for candidate in (*names, *(f"{name}.gz" for name in names)):
        if (folder / candidate).is_file():
            return folder / candidate
    raise missing(folder, f"{names[0]} or {names[0]}.gz", source)


def _idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The unsigned bytes (n, *shape) of an IDX file. Never is more held than the file has, nor more
    than it promises."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            layout = f">{2 + len(shape)}I"
            header = file.read(struct.calcsize(layout))
            if len(header) < struct.calcsize(layout):
                wants = f"a header of {struct.calcsize(layout)}"
                raise ValueError(f"{path}: got {len(header)} bytes, wants {wants}")
            magic, *sizes = struct.unpack(layout, header)
            promised = _promised(path, magic, sizes, shape)
            content = bytearray()
            while piece := file.read(min(_PIECE, promised + 1 - len(content))):
                content += piece
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path}: got a damaged file ({error}), wants a whole one by gzip"
        ) from error
    if len(content) != promised:
        got = f"{len(content):,}" if len(content) < promised else "more"
        raise ValueError(f"{path}: got {got} bytes after the header, wants the {promised:,} of it")
    return np.frombuffer(content, np.uint8).reshape(sizes)


def _promised(path: Path, magic: int, sizes: list[int], shape: tuple[int, ...]) -> int:
    """How many bytes come after a header, if it is one that is wanted."""
    wanted = 0x801 + len(shape)
    if magic != wanted:
        raise ValueError(f"{path}: got the magic number 0x{magic:08x}, wants 0x{wanted:08x}")
    promised = math.prod(sizes)
    if sizes[0] < 1 or tuple(sizes[1:]) != shape or promised > MOST_BYTES:
        got, wants = (" × ".join(map(str, s)) for s in (sizes, ("n", *shape)))
        raise ValueError(f"{path}: got {got}, wants {wants}, 1 … {MOST_BYTES:,} bytes")
    return promised
