"""CUDA kernels on CuPy arrays: their sources are compiled and their arguments checked here alone.

CuPy hands a kernel's arguments on as they are. It checks neither their number nor their dtypes,
passes a Python int as 64 bits and None as no NULL, and ignores strides. `launch` reads the
declaration of the kernel, and refuses what does not fit it.
"""

import functools
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ..backend import describe, imported_cupy

# The C types of T, in which arrays are stored, and of A, in which is computed.
STORED = {
    "float16": "__half",
    "bfloat16": "__nv_bfloat16",
    "float32": "float",
    "float64": "double",
}
_DTYPES = {
    "bool": np.bool_,
    "unsigned char": np.uint8,
    "int": np.int32,
    "long long": np.int64,
    "float": np.float32,
    "double": np.float64,
}
_INTEGERS, _NUMBERS = (int, np.integer), (int, float, np.integer, np.floating)
OPTIONS = ("-std=c++17",)
_NULL = np.int64(0)
_MOST_BLOCKS = (2**31 - 1, 65535, 65535)
_DECLARATION = re.compile(
    r'extern "C" __global__ void(?: __launch_bounds__\((\d+)\))? (\w+)\(([^)]*)\)'
)
_PARAMETER = re.compile(r"(const )?([\w ]+?)(?: ?(\*) ?| )(?:__restrict__ )?(\w+)")


class Parameter(NamedTuple):
    """What a kernel wants at one place."""

    name: str
    dtype: np.dtype
    alignment: int  # of the address of an array, in bytes; 0: a number is wanted
    bound: int | None  # an integer n has to be in -bound ≤ n < bound


class Kernel(NamedTuple):
    run: Callable  # CuPy's RawKernel
    parameters: tuple[Parameter, ...]
    number: Callable  # of the place of a parameter, and a value: the number that is passed
    most_threads: int  # in a block
    xp: ModuleType


_kernels: dict[tuple, Kernel] = {}


def launch(
    source: str,
    kernel: str,
    grid: int | tuple[int, ...],
    threads: int | tuple[int, ...],
    *args: Any,
    dtype: np.dtype,
    **defines: int,
) -> None:
    """Run a kernel of `<source>.cu` on the current device: `grid` blocks of so many `threads`.

    The source is compiled once for each dtype and set of defines, with T the C type of `dtype`,
    A that in which is computed, and each of `defines` as a macro. An argument is a C-contiguous
    array on the current device or None (NULL) where the kernel is declared with a pointer, else a
    number. Where WIDTH is defined, the kernel may read so many elements of T at once, and an array
    of T has to begin at an address that allows it. Nothing waits for the device.
    """
    key = source, kernel, dtype, *defines.items()
    found = _kernels.get(key)
    if found is None:
        found = _kernels[key] = _compiled(source, kernel, dtype, defines)
    run, parameters, number, most_threads, xp = found
    grid = grid if isinstance(grid, tuple) else (grid,)
    threads = threads if isinstance(threads, tuple) else (threads,)
    if not all([1 <= n <= most for n, most in zip(grid, _MOST_BLOCKS)]):
        # (CuPy would run a grid of 0 blocks as one of 1.)
        raise ValueError(f"{kernel}: got a grid of {grid}, wants 1 to {_MOST_BLOCKS}")
    if not 1 <= math.prod(threads) <= most_threads:
        raise ValueError(f"{kernel}: got {threads} threads, wants 1 to {most_threads}")
    if len(args) != len(parameters):
        raise TypeError(f"{kernel}: got {len(args)} arguments, wants {len(parameters)}")
    here, array, values = xp.cuda.runtime.getDevice(), xp.ndarray, []
    for place, value in enumerate(args):
        _, wanted, alignment, _ = parameter = parameters[place]
        if not alignment:
            try:
                value = number(place, value)
            except TypeError:  # of a value that cannot be remembered: an array
                value = _number(kernel, parameter, value)
        elif value is None:
            value = _NULL
        elif (
            type(value) is not array
            or value.dtype != wanted
            or (memory := value.data).device_id != here
            or memory.ptr % alignment
            or not value.flags.c_contiguous
        ):
            raise _refusal(kernel, parameter, value, xp, here)
        values.append(value)
    run(grid, threads, tuple(values))


def multiprocessors(xp: ModuleType) -> int:
    """How many multiprocessors the current device has."""
    return _multiprocessors(xp, xp.cuda.runtime.getDevice())


@functools.cache
def _multiprocessors(xp: ModuleType, device: int) -> int:
    return xp.cuda.Device(device).attributes["MultiProcessorCount"]


# --- Arguments ------------------------------------------------------------------------------------


def _number(kernel: str, parameter: Parameter, value: Any) -> np.generic:
    name, dtype, _, bound = parameter
    if not isinstance(value, _INTEGERS if bound else _NUMBERS):
        raise TypeError(f"{kernel}: {name}: got {describe(value)}, wants a number for {dtype}")
    if bound and not -bound <= value < bound:
        raise ValueError(f"{kernel}: {name}: got {value}, which is too large for {dtype}")
    return dtype.type(value)


def _refusal(kernel: str, parameter: Parameter, value: Any, xp: ModuleType, here: int) -> Exception:
    """What is wrong with this value for an array."""
    name, dtype, alignment, _ = parameter
    got = f"{kernel}: {name}: got {describe(value)}"
    if type(value) is not xp.ndarray or value.dtype != dtype:
        return TypeError(f"{got}, wants a CuPy array of {dtype}")
    if value.data.device_id != here:
        return ValueError(f"{got}, wants an array on the current device, cuda:{here}")
    if not value.flags.c_contiguous:
        return ValueError(f"{got} with strides {value.strides}, wants it C-contiguous")
    return ValueError(f"{got} at {value.data.ptr:#x}, wants an address divisible by {alignment}")


# --- Sources --------------------------------------------------------------------------------------


def source_text(source: str) -> str:
    """What stands in `<source>.cu`, and in the files of this folder that it includes.

    (A path to them would do, but CuPy keeps on disk what it has compiled, and would not see an
    included file change.)
    """
    return _text(f"{source}.cu")


def _text(file: str) -> str:
    lines = [f'#line 1 "{file}"']
    text = Path(__file__).with_name(file).read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        included = re.fullmatch(r'#include "(.+)"', line)
        lines += [_text(included[1]), f'#line {number + 1} "{file}"'] if included else [line]
    return "\n".join(lines)


def program(source: str, dtype: np.dtype, defines: dict[str, int]) -> str:
    """What is compiled. T and A are types, as macros would change what the headers say of a T."""
    stored = STORED.get(dtype.name)
    if stored is None:
        raise TypeError(f"dtype: got {dtype}, wants one of {', '.join(STORED)}")
    computed = "double" if stored == "double" else "float"
    return "\n".join(
        [
            "#include <cuda_bf16.h>",
            "#include <cuda_fp16.h>",
            f"typedef {stored} T;",
            f"typedef {computed} A;",
            *[f"#define {name} {value}" for name, value in defines.items()],
            source_text(source),
        ]
    )


@functools.lru_cache(maxsize=64)
def _module(xp: ModuleType, text: str) -> Any:
    return xp.RawModule(code=text, options=OPTIONS)


def _compiled(source: str, kernel: str, dtype: np.dtype, defines: dict[str, int]) -> Kernel:
    if (xp := imported_cupy()) is None:
        raise TypeError(f"{kernel}: got no CuPy array among its arguments")
    text = program(source, dtype, defines)
    declared = declarations(text)
    if kernel not in declared:
        raise ValueError(f"{source}.cu: got the kernel {kernel}, wants one of {list(declared)}")
    most_threads, parameters = declared[kernel]
    dtypes = {**_DTYPES, "T": dtype, "A": np.float64 if dtype == np.float64 else np.float32}
    width = defines.get("WIDTH", 1)
    parameters = tuple([_parameter(kernel, written, dtypes, width) for written in parameters])
    # Most numbers are sizes, the same at each launch.
    number = functools.lru_cache(maxsize=1024, typed=True)(
        lambda place, value: _number(kernel, parameters[place], value)
    )
    run = _module(xp, text).get_function(kernel)
    return Kernel(run, parameters, number, most_threads, xp)


def declarations(text: str) -> dict[str, tuple[int, list[str]]]:
    """For each kernel in a source: the most threads in a block, and the parameters as written."""
    text = re.sub(r"//.*|/\*[\s\S]*?\*/", "", text)
    found = _DECLARATION.findall(" ".join(text.split()).replace("( ", "(").replace(" )", ")"))
    return {name: (int(most or 1024), written.split(", ")) for most, name, written in found}


def _parameter(kernel: str, written: str, dtypes: dict[str, Any], width: int) -> Parameter:
    match = _PARAMETER.fullmatch(written)
    if match is None or match[2] not in dtypes:
        raise TypeError(f"{kernel}: the parameter {written!r} has none of the types {list(dtypes)}")
    _, kind, star, name = match.groups()
    dtype = np.dtype(dtypes[kind])
    if star:
        return Parameter(name, dtype, dtype.itemsize * (width if kind == "T" else 1), None)
    return Parameter(name, dtype, 0, 1 << 8 * dtype.itemsize - 1 if dtype.kind == "i" else None)
