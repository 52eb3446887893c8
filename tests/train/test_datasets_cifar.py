"""CIFAR-10: both versions from folders; pickled files are looked at, and never run."""

import contextlib
import os
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_bn.train.datasets import load
from tinygrad_bn.train.datasets.pickled import plain_value

TRAINING, TEST = [f"data_batch_{k}" for k in range(1, 6)], "test_batch"
BATCHES = {  # (pixels (2, 3072), labels) by the name of the file
    name: (np.random.default_rng(k).integers(0, 256, (2, 3072), np.uint8), [k, 9 - k])
    for k, name in enumerate((*TRAINING, TEST))
}


# --- How files are written ------------------------------------------------------------------------


def binary(pixels, labels):
    return b"".join(bytes([label]) + row.tobytes() for row, label in zip(pixels, labels))


def short(text):
    return b"U" + bytes([len(text)]) + text


# What stands between the shape and the values: the dtype, its state, and that the order is C
UINT8 = (
    b"cnumpy\ndtype\nq\x0aU\x02u1K\x00K\x01\x87Rq\x0b"
    b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
)
RECONSTRUCT = (
    b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87R"
)


def python2(pixels, labels):
    """What Python 2 and its NumPy write by cPickle, protocol 2, as in the original files."""
    content = pixels.tobytes()
    shape = b"".join(b"M" + struct.pack("<H", size) for size in pixels.shape)
    parts = [
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03",
        b"U\x06labelsq\x04]q\x05(",
        b"".join(b"K" + bytes([label]) for label in labels),
        b"eU\x04dataq\x06" + RECONSTRUCT + b"q\x09(K\x01" + shape + b"\x86" + UINT8,
        b"T" + struct.pack("<i", len(content)) + content + b"tbU\x09filenamesq\x0c]q\x0d(",
        b"".join(
            short(b"frog_s_%06d.png" % k) + b"r" + struct.pack("<i", 14 + k)
            for k in range(len(labels))
        ),
        b"eu.",
    ]
    return b"".join(parts)


def python3(protocol, order="C", text=str):
    def write(pixels, labels):
        batch = {text("labels"): labels, text("data"): np.array(pixels, order=order)}
        return pickle.dumps(batch, protocol)

    return write


PYTHON = {
    "Python 2": python2,
    **{f"Python 3, protocol {protocol}": python3(protocol) for protocol in (3, 4, 5)},
    **{f"columns first, protocol {protocol}": python3(protocol, "F") for protocol in (3, 4, 5)},
    "keys in bytes": python3(4, text=str.encode),
}


def written(folder, write=python2, end="", changes=None):
    """A folder with the six files, of which some have another content."""
    folder.mkdir(exist_ok=True)
    contents = {name: write(*batch) for name, batch in BATCHES.items()}
    for name, content in {**contents, **(changes or {})}.items():
        (folder / (name + end)).write_bytes(content)
    return folder


def assert_is_what_was_written(data):
    pixels = np.concatenate([BATCHES[name][0] for name in TRAINING])
    np.testing.assert_array_equal(data.x, pixels.reshape(10, 3, 32, 32))
    np.testing.assert_array_equal(data.labels, [0, 9, 1, 8, 2, 7, 3, 6, 4, 5])
    np.testing.assert_array_equal(data.test_x, BATCHES[TEST][0].reshape(2, 3, 32, 32))
    np.testing.assert_array_equal(data.test_labels, [5, 4])
    assert (data.x.dtype, data.labels.dtype) == (np.uint8, np.int64)
    assert (len(data.classes), data.classes[6]) == (10, "frog")


# --- What is read ---------------------------------------------------------------------------------


def test_the_bytes_of_python_2_are_a_pickled_batch():
    pixels, labels = BATCHES[TEST]
    batch = pickle.loads(python2(pixels, labels), encoding="bytes")
    np.testing.assert_array_equal(batch[b"data"], pixels)
    assert batch[b"labels"] == labels
    assert batch[b"filenames"][1] == b"frog_s_000001.png"
    ours = plain_value(python2(pixels, labels))
    assert {key.encode() for key in ours} == set(batch)
    assert [ours[key] for key in ("labels", "filenames")] == [labels, batch[b"filenames"]]


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-bin"])
def test_the_binary_version_is_read(inner, tmp_path):
    written(tmp_path / inner, binary, ".bin")
    assert_is_what_was_written(load("cifar10", tmp_path, 0, None))


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-py"])
@pytest.mark.parametrize("write", PYTHON.values(), ids=PYTHON)
def test_the_version_for_python_is_read(write, inner, tmp_path):
    written(tmp_path / inner, write)
    assert_is_what_was_written(load("cifar10", tmp_path, 0, None))


@pytest.mark.parametrize(("write", "end"), [(binary, ".bin"), (python2, "")])
@pytest.mark.parametrize("name", ["data_batch_1", "data_batch_4", "test_batch"])
def test_all_files_of_a_version_must_be_there(name, write, end, tmp_path):
    (written(tmp_path, write, end) / (name + end)).unlink()
    message = f"{tmp_path}: got a folder without it, wants {name}{end}, from the CIFAR-10 page"
    with pytest.raises(FileNotFoundError, match=message):
        load("cifar10", tmp_path, 0, None)


# --- Damaged files --------------------------------------------------------------------------------

PIXELS = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got 0 bytes, wants records of 3,073"),
        (bytes(3072), "got 3,072 bytes, wants records of 3,073"),
        (bytes(3073) + b"\x0a" + bytes(3072), "got label 10 of image 1, wants 0 … 9"),
    ],
)
def test_a_damaged_binary_file_is_named(content, message, tmp_path):
    written(tmp_path, binary, ".bin", {"data_batch_3": content})
    with pytest.raises(ValueError, match=f"^{tmp_path}/data_batch_3.bin: {message}"):
        load("cifar10", tmp_path, 0, None)


def pickled(value):
    return pickle.dumps(value, 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged, or no CIFAR-10 file for Python: pickle exhausted before seeing STOP"),
        (python2(PIXELS, [1, 2])[:-1], "damaged, .*: pickle exhausted before seeing STOP"),
        (python2(PIXELS, [1, 2])[:900], "damaged, .*: expected 6144 bytes in a string4, but only"),
        (python2(PIXELS, [1, 2]) + b"!", "damaged, .*: got 1 values and 1 bytes after them"),
        (python2(PIXELS, [1, 2]).replace(b"u1", b"f4"), "damaged, .*: got the dtype b'f4', wants"),
        (pickled([1]), r"got data none, wants uint8 of shape \(n, 3072\)"),
        (pickled({"labels": [1]}), "got data none, wants uint8"),
        (pickled({"labels": [1, 2], "data": "x"}), "got data none, wants uint8"),
        (python2(PIXELS[:0], []), r"got data \(0, 3072\), wants uint8 of shape \(n, 3072\)"),
        (python2(PIXELS[:, :3071], [1, 2]), r"got data \(2, 3071\), wants uint8 of shape \(n, 307"),
        (python3(4)(PIXELS[0], [1]), "damaged, .*: got an array of another shape, wants rows"),
        (python3(4)(PIXELS.astype(np.int8), [1, 2]), "damaged, .*: got the dtype 'i1', wants 'u1'"),
        (python3(4)(PIXELS, [1]), "got 1 labels, wants 2, one for each image"),
        (python3(4)(PIXELS, [1, 10]), "got label 10 of image 1, wants 0 … 9"),
        (python3(4)(PIXELS, [-1, 1]), "got label -1 of image 0, wants 0 … 9"),
        (python3(4)(PIXELS, [2**600, 1]), r"got label 4149\d+ of image 0, wants 0 … 9"),
        (
            python3(4)(PIXELS, [True, 1]),
            "got labels of another kind, wants a list of whole numbers",
        ),
        (python3(4)(PIXELS, "12"), "got labels of another kind, wants a list of whole numbers"),
    ],
)
def test_a_damaged_file_for_python_is_named(content, message, tmp_path):
    written(tmp_path, changes={"test_batch": content})
    with pytest.raises(ValueError, match=f"^{tmp_path}/test_batch: {message}"):
        load("cifar10", tmp_path, 0, None)


# --- Hostile files --------------------------------------------------------------------------------


class Runs:
    """What is run by whoever unpickles it."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("function", [os.mkdir, eval])
def test_a_file_that_would_run_something_runs_nothing(function, protocol, tmp_path):
    path = tmp_path / "was run"
    argument = str(path) if function is os.mkdir else f"__import__('os').mkdir({str(path)!r})"
    content = pickle.dumps({"labels": Runs(function, argument)}, protocol)
    with pytest.raises(ValueError, match=r"got the (name|opcode)"):
        plain_value(content)
    assert not path.exists()
    pickle.loads(content)
    assert path.exists()  # so it would have


# A tuple of the one before, twice, fifty times over: to hash, to print or to copy it takes for ever
BOMB = b")" + b"".join(b"q%ch%c\x86" % (k, k) for k in range(50))

HOSTILE = {
    "os.system": (b"cos\nsystem\nU\x02ls\x85R.", "byte 2: got the name 'os system'"),
    "by text": (
        b"\x8c\x02os\x8c\x06system\x93.",
        "byte 14: got the name 'os system', wants those of a NumPy array",
    ),
    "another of NumPy": (b"cnumpy\nsave\n.", "byte 2: got the name 'numpy save'"),
    "a name in two": (b"cnumpy ndarray\nx\n.", "got the name 'numpy ndarray x'"),
    "a name of numbers": (b"K\x01K\x02\x93.", "byte 6: got a name that is no text"),
    "an old class": (b"(ios\nsystem\n.", "byte 3: got the opcode INST"),
    "an object": (b"cnumpy\nndarray\n)\x81.", "got the opcode NEWOBJ"),
    "by an extension's code": (b"\x82\x01.", "got the opcode EXT1"),
    "from outside": (b"Pname\n.", "got the opcode PERSID"),
    "a dict to build": (b"}}U\x01aK\x01sb.", "got a state to set, wants that of a NumPy array"),
    "a list to build": (b"]}b.", "got a state to set"),
    "fields in a dtype": (
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|N(U\x01atN}tb.",
        "got a state to set",
    ),
    "an array of lists": (
        RECONSTRUCT + b"(K\x01K\x01K\x01\x86" + UINT8 + b"](K\x01etb.",
        "got an array of list, wants bytes",
    ),
    "another class of array": (
        RECONSTRUCT.replace(b"cnumpy\nndarray\n", b"cnumpy\ndtype\n") + b".",
        "got a call, wants one that makes a NumPy array",
    ),
    "a call of text": (b"U\x02lsU\x02ls\x85R.", "got a call"),
    "2 GiB that are not there": (
        b"T\xff\xff\xff\x7fabc.",
        "expected 2147483647 bytes in a string4",
    ),
    "less than no bytes": (b"T\xff\xff\xff\xffabc.", "string4 byte count < 0: -1"),
    "2⁶³ bytes": (b"\x96" + b"\xff" * 7 + b"\x7fabc.", "expected 9223372036854775807 bytes"),
    "2⁴⁰ values": (
        RECONSTRUCT + b"(K\x01J\x00\x00\x10\x00J\x00\x00\x10\x00\x86" + UINT8 + b"U\x03abctb.",
        "got 3 bytes for 1048576 × 1048576 values",
    ),
    "less than no rows": (
        RECONSTRUCT + b"(K\x01J\xff\xff\xff\xffJ\xfd\xff\xff\xff\x86" + UINT8 + b"U\x03abctb.",
        "got an array of another shape, wants rows and columns",
    ),
    "what was never kept": (b"h\x05.", "got a reference to 5, wants one to what came before"),
    "nothing to keep": (b"q\x05.", "got nothing on the stack, wants object"),
    "nothing to take": (b"\x86.", "got 0 values on the stack, wants 2"),
    "no mark": (b"K\x01e.", "got no mark on the stack"),
    "items for no list": (b"}(K\x01e.", "got dict on the stack, wants list"),
    "a key without a value": (b"}(U\x01au.", "shorter"),
    "a list for a key": (b"}]K\x01s.", "got a key of list, wants text"),
    "two values": (b"K\x01K\x02.", "got 2 values and 0 bytes after them, wants one value"),
    "no value": (b".", "got 0 values"),
    "no opcode": (b"\xfe.", "opcode b'\\\\xfe' unknown"),
    "opcodes without end": (b"K\x01" + b"q\x00" * 200_000 + b".", "got more than 200,000 opcodes"),
    "a key that takes for ever": (b"}" + BOMB + b"K\x01s.", "got a key of tuple, wants text"),
}


@pytest.mark.parametrize(("content", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        plain_value(b"\x80\x02" + content)


def test_labels_that_take_for_ever_are_refused_at_once(tmp_path):
    content = python2(PIXELS, []).replace(b"]q\x05(e", b"]" + BOMB + b"a")
    written(tmp_path, changes={"test_batch": content})
    with pytest.raises(ValueError, match="test_batch: got labels of another kind, wants a list"):
        load("cifar10", tmp_path, 0, None)


WHOLE = python2(PIXELS[:1], [3])
BESIDE_PIXELS = [k for k in range(len(WHOLE)) if not 260 < k < 3300]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pickletools', of a \ in a name
@given(st.lists(st.tuples(st.sampled_from(BESIDE_PIXELS), st.integers(0, 255)), max_size=4))
def test_any_bytes_are_a_value_or_a_value_error(changes):
    content = bytearray(WHOLE)
    for place, byte in changes:
        content[place] = byte
    with contextlib.suppress(ValueError):
        plain_value(bytes(content))
