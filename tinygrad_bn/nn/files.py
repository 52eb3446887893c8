"""State dicts in safetensors files, which PyTorch reads and writes too. No code is in such a file.

The package safetensors is needed here, and nowhere else in the library.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..dtypes import dtype_of
from ..files import write_whole
from .module import IncompatibleKeys, Module

# How the format calls the dtypes that arrays here can have.
_DTYPES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8"},
    **{"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool"},
}


def save_safetensors(module: Module, path: str | Path) -> None:
    """Write a module's state dict to a file, wherever the module is.

    A parameter that is tied (two modules share it) is written under each of its names, so that
    `model.load_state_dict(safetensors.torch.load_file(path))` finds them all (and `load_model`,
    which wants one name of it, takes the file with strict=False). `path` never holds half a file;
    for the errors see `write_safetensors`.
    """
    write_safetensors(
        path, {key: value.cpu().numpy() for key, value in module.state_dict().items()}
    )


def load_safetensors(module: Module, path: str | Path, strict: bool = True) -> IncompatibleKeys:
    """Write the arrays of a file into a module, as `load_state_dict` does.

    Of a tied parameter one name is enough: `safetensors.torch.save_model` writes no more. Keys or
    shapes of another model are a RuntimeError that names the file and lists them all, and then
    nothing has been changed; for the errors of the file see `read_safetensors`.
    """
    arrays = read_safetensors(path)
    saved = [*module._saved()]
    given = {id(tensor): arrays[key] for key, tensor in saved if key in arrays}
    for key, tensor in saved:
        if id(tensor) in given:
            arrays.setdefault(key, given[id(tensor)])
    try:
        return module.load_state_dict(arrays, strict)
    except RuntimeError as error:
        raise RuntimeError(f"{path}: {error}") from error


def write_safetensors(
    path: str | Path, arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    """Write NumPy arrays by name, and text by name, in place of the file at `path`.

    Any layout in memory, any shape; a dtype that the format lacks is a TypeError, and a file that
    cannot be written an OSError. Both name the file, which is then as it was.
    """
    laid_out = {}
    for key, value in arrays.items():
        # safetensors.numpy writes the memory of a transposed view as it lies, with its shape.
        array = laid_out[key] = np.asarray(value, order="C")
        if array.dtype.name not in _DTYPES.values():
            wants = f"one of {', '.join(_DTYPES.values())}"
            raise TypeError(f"{path}: got {array.dtype.name} for {key}, wants {wants}")
    if "__metadata__" in laid_out:
        raise ValueError(f"{path}: got an array called __metadata__, wants another name for it")
    more = None if metadata is None else dict(metadata)
    write_whole(Path(path), require_safetensors().numpy.save(laid_out, more))


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name, in the order of the names, each in memory of its own.

    A file that is damaged, or none of safetensors, or has a dtype that NumPy lacks is a ValueError
    that names it; one that cannot be read an OSError. bfloat16 needs ml_dtypes.
    """
    return parse_safetensors(Path(path).read_bytes(), path)


def parse_safetensors(content: bytes, path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file with this content; `path` is how errors call it."""
    library = require_safetensors()
    try:
        entries = library.deserialize(content)
    except library.SafetensorError as error:
        got = f"{len(content)} bytes ({error})"
        raise ValueError(f"{path}: got {got}, wants a safetensors file") from error
    arrays = {}
    for key, entry in sorted(entries, key=lambda pair: pair[0]):
        if entry["dtype"] not in _DTYPES:
            wants = f"one of {', '.join(_DTYPES)}"
            raise ValueError(f"{path}: got {entry['dtype']} for {key}, wants {wants}")
        array = np.frombuffer(entry["data"], dtype_of(_DTYPES[entry["dtype"]]))
        arrays[key] = array.reshape(entry["shape"])
    return arrays


def require_safetensors() -> Any:
    """The package; a RuntimeError that says how to install it, where it is missing."""
    try:
        import safetensors.numpy
    except ImportError as error:
        message = "a safetensors file needs safetensors, which is missing: pip install safetensors"
        raise RuntimeError(message) from error
    return safetensors
