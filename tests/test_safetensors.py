"""Files of arrays: what goes in comes out, half a file is never there, and bad ones are named."""

import contextlib
import json
import os
import resource
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import host

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.nn.files import read_safetensors, write_safetensors

FLOATS = np.arange(24.0).reshape(2, 3, 4) - 7.5
DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8")
UNSIGNED = ("uint64", "uint32", "uint16", "uint8", "bool")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "arrays.safetensors"


def same(got, wanted):
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("dtype", DTYPES + UNSIGNED)
def test_an_array_of_every_dtype_comes_back(dtype, path):
    array = np.abs(FLOATS).astype(tg.bfloat16 if dtype == "bfloat16" else dtype)
    write_safetensors(path, {"array": array})
    same(read_safetensors(path)["array"], array)


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(FLOATS.T, id="transposed"),
        pytest.param(FLOATS[::-1, :, ::2], id="strided"),
        pytest.param(np.asfortranarray(FLOATS), id="Fortran's order"),
        pytest.param(np.broadcast_to(FLOATS[0, 0], (3, 4)), id="broadcast"),
        pytest.param(FLOATS.astype(">f8"), id="big-endian"),
        pytest.param(np.array(3), id="no axes"),
        pytest.param(np.zeros((0, 3)), id="empty"),
    ],
)
def test_an_array_in_any_layout_comes_back_and_can_be_written(array, path):
    write_safetensors(path, {"array": array})
    again = read_safetensors(path)["array"]
    np.testing.assert_array_equal(again, array)
    assert again.shape == array.shape
    again[...] = 1


def test_names_come_sorted_and_text_is_kept_beside(path):
    write_safetensors(path, {name: np.ones(1) for name in ("γ", "b.1", "a", "")}, {"epoch": "3"})
    assert list(read_safetensors(path)) == ["", "a", "b.1", "γ"]
    length = struct.unpack("<Q", path.read_bytes()[:8])[0]
    assert json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"] == {"epoch": "3"}


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        ({"a": np.ones(2, complex)}, TypeError, "got complex128 for a, wants one of float64, "),
        ({"a": np.array([None])}, TypeError, "got object for a"),
        ({"a": np.ones(2, tg.bfloat16).view("V2")}, TypeError, "got void16 for a"),
        ({"__metadata__": np.ones(2)}, ValueError, "got an array called __metadata__"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(array, error, message, path):
    write_safetensors(path, {"b": np.ones(3)})
    with pytest.raises(error, match=f"^{path}: {message}"):
        write_safetensors(path, array)
    assert list(read_safetensors(path)) == ["b"]


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def content(header, data=b"1234"):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


WHOLE = content({"a": entry()})
DAMAGED = {
    "empty": b"",
    "too short": b"1234567",
    "truncated": WHOLE[:-1],
    "with more behind": WHOLE + b"5",
    "a header of 2⁶⁰ bytes": struct.pack("<Q", 2**60) + WHOLE[8:],
    "an array of 2⁶⁰ bytes": content({"a": entry(shape=(2**58,), offsets=(0, 2**60))}),
    "an array of 2⁶⁶ numbers": content({"a": entry(shape=(2**33, 2**33))}),
    "a negative length": content({"a": entry(shape=(-1,))}),
    "arrays that overlap": content({"a": entry(), "b": entry()}),
    "bytes of no array": content({"a": entry(offsets=(4, 8))}, b"12345678"),
    "an array of objects": content({"a": entry("OBJECT")}),
    "a header that is no JSON": content(b"hello"),
    "a header that is a list": content([]),
    "a header of many brackets": content(b"[" * 100_000),
    "a ZIP archive": b"PK\x03\x04" + bytes(100),
    "a pickle": b"\x80\x04\x95" + bytes(100),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_named(damage, path):
    path.write_bytes(DAMAGED[damage])
    size = len(DAMAGED[damage])
    with pytest.raises(ValueError, match=f"^{path}: got {size} bytes .*wants a safetensors file$"):
        read_safetensors(path)


def test_a_dtype_that_numpy_lacks_is_named(path):
    path.write_bytes(content({"a": entry("F8_E4M3", shape=(4,))}))
    with pytest.raises(ValueError, match=f"^{path}: got F8_E4M3 for a, wants one of F64, "):
        read_safetensors(path)


def test_a_file_that_is_not_there_and_a_folder_are_errors_of_the_system(path):
    for function in (read_safetensors, lambda path: nn.load_safetensors(nn.Linear(1, 1), path)):
        with pytest.raises(FileNotFoundError, match=str(path)):
            function(path)
        with pytest.raises(IsADirectoryError, match=str(path.parent)):
            function(path.parent)


def test_a_file_that_cannot_be_written_is_named(path):
    with pytest.raises(FileNotFoundError, match=f"'{path.parent}/none/a'$"):
        write_safetensors(path.parent / "none" / "a", {})
    path.write_bytes(b"")
    with pytest.raises(NotADirectoryError, match=f"'{path}/a'$"):
        write_safetensors(path / "a", {})
    os.mkfifo(path.parent / "pipe")
    for other in (path.parent / "pipe", path.parent):
        with pytest.raises(FileExistsError, match=f"no regular file: '{other}'$"):
            write_safetensors(other, {})
    assert sorted(os.listdir(path.parent)) == [path.name, "pipe"]


@contextlib.contextmanager
def files_of_at_most(size):
    """As on a disk that is full: no file grows beyond `size` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_when_the_disk_is_full_the_old_file_stays_and_nothing_else(path):
    write_safetensors(path, {"a": np.ones(10)})
    with files_of_at_most(1000), pytest.raises(OSError, match=f"File too large: '{path}'$"):
        write_safetensors(path, {"a": np.zeros(1000)})
    same(read_safetensors(path)["a"], np.ones(10))
    assert os.listdir(path.parent) == [path.name]


def test_the_file_is_the_old_or_the_new_at_every_call_to_the_system(path, monkeypatch):
    """As a process that is killed before any of them would leave it."""
    seen = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)

        def looking(*arguments, call=call):
            written = {file.read_bytes() for file in path.parent.rglob("*") if file.is_file()}
            seen.append((path.read_bytes(), written))
            call(*arguments)

        monkeypatch.setattr(os, name, looking)
    path.write_bytes(b"old")
    write_safetensors(path, {"a": np.ones(1)})
    new = path.read_bytes()
    assert seen == [(b"old", {b"old", new})] * 2  # the new one is whole before it is called so
    assert os.listdir(path.parent) == [path.name]


def test_a_new_file_has_the_permissions_of_any_new_file(path):
    write_safetensors(path, {})
    (path.parent / "other").touch()
    assert path.stat().st_mode == (path.parent / "other").stat().st_mode


@pytest.mark.parametrize("source", ["cpu", "cuda:1"])
@pytest.mark.parametrize("target", ["cpu", "cuda:0"])
def test_a_module_is_saved_from_and_loaded_to_where_it_is(source, target, path, cupy):
    modules = []
    for device in (source, target):
        modules.append(nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3)).to(device))
    first, second = modules
    first(tg.randn(4, 2, 3, 3, device=source))
    nn.save_safetensors(first, path)
    nn.load_safetensors(second, path)
    for key, value in second.state_dict().items():
        assert value.device == target
        same(host(value), host(first.state_dict()[key]))


def test_a_path_may_be_text_and_what_is_missing_is_named(path, monkeypatch):
    layer = nn.Linear(2, 2)
    nn.save_safetensors(layer, str(path))
    nn.load_safetensors(layer, str(path))
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for function in (nn.save_safetensors, nn.load_safetensors):
        with pytest.raises(RuntimeError, match=r"missing: pip install safetensors$"):
            function(layer, Path(path))
