"""MNIST and Fashion-MNIST from IDX files: what is read, and what damaged files say."""

import gzip
import re
import struct
import tracemalloc

import numpy as np
import pytest

from tinygrad_bn.train.datasets import load

NAMES = (
    *("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    *("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = NAMES
RANDOM = np.random.default_rng(0)
ARRAYS = {
    TRAIN_IMAGES: RANDOM.integers(0, 256, (12, 28, 28), np.uint8),
    TRAIN_LABELS: (np.arange(12) % 10).astype(np.uint8),
    TEST_IMAGES: RANDOM.integers(0, 256, (3, 28, 28), np.uint8),
    TEST_LABELS: np.array([9, 0, 4], np.uint8),
}


def header(*sizes):
    return struct.pack(f">{1 + len(sizes)}I", 0x800 + len(sizes), *sizes)


CONTENTS = {name: header(*array.shape) + array.tobytes() for name, array in ARRAYS.items()}


def written(folder, changes=None, end=""):
    """A folder with the four files, of which some have another content."""
    for name, content in {**CONTENTS, **(changes or {})}.items():
        (folder / (name + end)).write_bytes(gzip.compress(content) if end else content)
    return folder


def peak(function):
    """The most bytes that a call held at once."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize(("name", "third"), [("mnist", "3"), ("fashion-mnist", "Dress")])
def test_what_was_written_is_read(name, third, mark, end, tmp_path):
    for file in written(tmp_path, end=end).iterdir():
        file.rename(file.with_name(file.name.replace("-idx", f"{mark}idx")))
    data = load(name, tmp_path, 0, None)
    np.testing.assert_array_equal(data.x, ARRAYS[TRAIN_IMAGES][:, None])
    np.testing.assert_array_equal(data.labels, ARRAYS[TRAIN_LABELS])
    np.testing.assert_array_equal(data.test_x, ARRAYS[TEST_IMAGES][:, None])
    np.testing.assert_array_equal(data.test_labels, ARRAYS[TEST_LABELS])
    assert (data.x.dtype, data.labels.dtype) == (np.uint8, np.int64)
    assert (len(data.classes), data.classes[3]) == (10, third)


@pytest.mark.parametrize("name", NAMES)
def test_each_file_must_be_there(name, tmp_path):
    (written(tmp_path) / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"wants {name} or {name}.gz, from the MNIST page"):
        load("mnist", tmp_path, 0, None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (TRAIN_IMAGES, b"", "got 0 bytes, wants a header of 16"),
        (TEST_LABELS, b"\0\0\x08\x01\0", "got 5 bytes, wants a header of 8"),
        (
            TRAIN_IMAGES,
            CONTENTS[TRAIN_LABELS] * 2,
            "got the magic number 0x00000801, wants 0x00000803",
        ),
        (TRAIN_IMAGES, b"\x1f\x8b\x08\x08" + bytes(12), "got the magic number 0x1f8b0808, wants"),
        (
            TEST_LABELS,
            b"\0\0\x0d\x01" + bytes(8),
            "got the magic number 0x00000d01, wants 0x00000801",
        ),
        (
            TEST_IMAGES,
            CONTENTS[TEST_IMAGES][:-1],
            "got 2,351 bytes after the header, wants the 2,352",
        ),
        (TEST_IMAGES, header(3, 28, 28), "got 0 bytes after the header, wants the 2,352"),
        (
            TEST_IMAGES,
            CONTENTS[TEST_IMAGES] + b"!",
            "got more bytes after the header, wants the 2,352",
        ),
        (
            TRAIN_LABELS,
            CONTENTS[TRAIN_LABELS] + b"!",
            "got more bytes after the header, wants the 12",
        ),
        (TRAIN_IMAGES, header(0, 28, 28), "got 0 × 28 × 28, wants n × 28 × 28"),
        (TRAIN_IMAGES, header(12, 28, 27) + bytes(12 * 28 * 27), "got 12 × 28 × 27, wants n × 28"),
        (
            TRAIN_IMAGES,
            header(2**32 - 1, 28, 28),
            "got 4294967295 × 28 × 28, .* 1 … 2,147,483,648 by",
        ),
        (
            TRAIN_IMAGES,
            header(2**20, 2**20, 2**20),
            "got 1048576 × 1048576 × 1048576, wants n × 28",
        ),
        (TRAIN_LABELS, header(2**32 - 1), "got 4294967295, wants n, 1 … 2,147,483,648 bytes"),
        (TRAIN_LABELS, header(0), "got 0, wants n"),
        (TRAIN_LABELS, header(11) + bytes(11), "got 11 labels, wants 12, one for each image"),
        (TEST_LABELS, header(3) + b"\x09\x0a\x00", "got label 10 of image 1, wants 0 … 9"),
    ],
)
@pytest.mark.parametrize("end", ["", ".gz"])
def test_a_damaged_file_is_named_with_what_it_has(name, content, message, end, tmp_path):
    written(tmp_path, {name: content}, end)
    with pytest.raises(ValueError, match=f"^{re.escape(str(tmp_path / name))}{end}: {message}"):
        load("mnist", tmp_path, 0, None)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: CONTENTS[TRAIN_IMAGES], "Not a gzipped file"),
        (lambda content: content[:-100], "ended before the end-of-stream marker"),
        (lambda content: content[:-8] + b"\0" + content[-7:], "CRC check failed"),
        (lambda content: content[:200] + b"\xff" * 20 + content[220:], "Error -3|CRC check failed"),
    ],
)
def test_a_damaged_gzip_file_is_named(damage, message, tmp_path):
    path = written(tmp_path, end=".gz") / f"{TRAIN_IMAGES}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"^{path}: got a damaged file \(.*({message})"):
        load("mnist", tmp_path, 0, None)


def test_no_more_is_held_than_a_file_has(tmp_path):
    largest = 2**31 // 28**2
    written(tmp_path, {TRAIN_IMAGES: header(largest, 28, 28) + bytes(1000)}, ".gz")

    def read():
        with pytest.raises(ValueError, match="got 1,000 bytes after the header, wants the 2,147"):
            load("mnist", tmp_path, 0, None)

    assert peak(read) < 3e6


def test_no_more_is_held_than_a_header_promises(tmp_path):
    bomb = header(12, 28, 28) + bytes(50_000_000)
    path = written(tmp_path, {TRAIN_IMAGES: bomb}, ".gz") / f"{TRAIN_IMAGES}.gz"
    assert path.stat().st_size < 60_000

    def read():
        with pytest.raises(ValueError, match="got more bytes after the header, wants the 9,408"):
            load("mnist", tmp_path, 0, None)

    assert peak(read) < 3e6
