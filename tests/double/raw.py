"""cupy.RawModule and cupy.RawKernel of the double: CUDA source, compiled for the CPU by g++.

The source stays as it is: `fibers.h` is included before it, and `fibers.cpp` runs its threads.
What a GPU would not forgive, or would do silently, is a `KernelError`: threads that wait for each
other for ever, accesses outside the arrays, arguments that do not fit the parameters.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from .arrays import launch, ndarray
from .names import cupy

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tinygrad_bn/double"
_CHECKED = "kernel-address,alignment,bounds,signed-integer-overflow,integer-divide-by-zero"
_KERNEL_OPTIONS = (
    "-Og -fPIC -x c++ -fvisibility=hidden -w -U_FORTIFY_SOURCE -ffp-contract=off "
    f"-fsanitize={_CHECKED} --param asan-instrumentation-with-call-threshold=0 "
    f"--param asan-stack=0 --param asan-globals=0 -I{HERE / 'include'} -include {HERE / 'fibers.h'}"
).split()
_DECLARATION = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\((\d+)\)\s*)?(\w+)\s*\(")
_order = 0


class KernelError(RuntimeError):
    """A kernel did what a GPU would not forgive."""


class _Array(ctypes.Structure):
    _fields_ = (
        ("begin", ctypes.c_void_p),
        ("end", ctypes.c_void_p),
        ("writable", ctypes.c_int),
    )


class _Launch(ctypes.Structure):
    _fields_ = (
        ("call", ctypes.c_void_p),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("arrays", ctypes.POINTER(_Array)),
        ("count", ctypes.c_int),
        ("order", ctypes.c_int),
        ("image", ctypes.c_void_p * 3),
    )


@contextlib.contextmanager
def order(chosen):
    """In which order blocks, warps and lanes run: "forward", "reverse", or random by a seed ≥ 1."""
    global _order
    before, _order = _order, {"forward": 0, "reverse": -1}.get(chosen, chosen)
    try:
        yield
    finally:
        _order = before


# --- Compiling ------------------------------------------------------------------------------------


@functools.cache
def _compiler():
    found = shutil.which("g++")
    if found is None or sys.platform != "linux":
        pytest.skip("it takes g++ on Linux to run CUDA kernels on the CPU")
    return found


def _built(source, options):
    """The library that g++ makes of this; from the folder CACHE if it was made before."""
    headers = [path.read_text() for path in sorted(HERE.rglob("*.h"))]
    everything = "\0".join([_compiler(), *options, *headers, source])
    path = CACHE / f"{hashlib.sha256(everything.encode()).hexdigest()[:32]}.so"
    if path.exists():
        return path
    CACHE.mkdir(parents=True, exist_ok=True)
    # Beside its place and then renamed, for another process may want it at this moment.
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        made, linked = Path(folder, "made.o"), Path(folder, "linked.so")
        for command in (
            [_compiler(), *options, "-c", "-", "-o", made],
            [_compiler(), "-shared", made, "-o", linked],  # no library of -fsanitize is wanted
        ):
            done = subprocess.run(command, input=source, capture_output=True, text=True)
            if done.returncode:
                raise KernelError(done.stderr)
        linked.replace(path)
    return path


@functools.cache
def _fibers():
    source = (HERE / "fibers.cpp").read_text()
    options = ["-std=c++17", "-O2", "-fPIC", "-x", "c++", "-U_FORTIFY_SOURCE"]
    # (PyDLL keeps the lock of the interpreter: one kernel runs at a time.)
    library = ctypes.PyDLL(str(_built(source, options)), mode=ctypes.RTLD_GLOBAL)
    library.fibers_run.restype = ctypes.c_char_p
    return library


@functools.cache
def _kernels(code, options):
    """For each kernel of the source: how it is called, its parameters, the most threads, and where
    its library and its shared memory lie."""
    _fibers()
    plain = re.sub(r"//.*|/\*[\s\S]*?\*/", "", code)
    bounds = {name: int(bound or 1024) for bound, name in _DECLARATION.findall(plain)}
    exported = "\n".join(f"FIBERS_KERNEL({name})" for name in bounds)
    source = f'#line 1 "source"\n{code}\n#line 1 "exports"\n{exported}\n'
    library = ctypes.PyDLL(str(_built(source, [*_KERNEL_OPTIONS, *options])))
    image, found = (ctypes.c_void_p * 3)(), {}
    places = [ctypes.byref(image, 8 * i) for i in range(3)]
    library.fibers_image(*places)
    for name, bound in bounds.items():
        getattr(library, f"fibers_parameters_{name}")(
            parameters := ctypes.create_string_buffer(4096)
        )
        call = ctypes.cast(getattr(library, f"fibers_call_{name}"), ctypes.c_void_p)
        found[name] = call, parameters.value.decode().split(", "), bound, image
    return found


# --- Launching ------------------------------------------------------------------------------------


class RawModule:
    def __init__(
        self,
        code=None,
        *,
        path=None,
        options=(),
        backend="nvrtc",
        translate_cucomplex=False,
        enable_cooperative_groups=False,
        name_expressions=None,
        jitify=None,
    ):
        if (code is None) == (path is None) or type(options) is not tuple:
            raise TypeError("Exactly one of code and path, and a tuple of options, are wanted")
        self.code, self.options = code, options

    def get_function(self, name):
        found = _kernels(self.code, self.options)
        if name not in found:
            raise RuntimeError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name}")
        return RawKernel(self.code, name, self.options)


class RawKernel:
    def __init__(
        self,
        code,
        name,
        options=(),
        backend="nvrtc",
        translate_cucomplex=False,
        *,
        enable_cooperative_groups=False,
        jitify=None,
    ):
        self.code, self.name, self.options = code, name, options

    def __call__(self, grid, block, args, *, shared_mem=0):
        if not type(grid) is type(block) is tuple:
            raise TypeError(f"Expected tuples, got {grid} and {block}")
        if shared_mem:
            raise NotImplementedError("the double of CuPy lacks dynamic shared memory")
        call, parameters, most_threads, image = _kernels(self.code, self.options)[self.name]
        # CuPy makes a 1 of a 0, and what is too large fails on the device.
        grid, block = ([max(1, n) for n in (*sizes, 1, 1)[:3]] for sizes in (grid, block))
        if np.prod(block) > most_threads or grid[0] >= 2**31 or max(grid[1:]) > 65535:
            raise KernelError(f"CUDA_ERROR_INVALID_VALUE: {self.name} of {grid} times {block}")
        if len(args) != len(parameters):
            raise KernelError(f"{self.name}: {len(args)} arguments for {len(parameters)}")
        values = [_value(self.name, *pair) for pair in zip(parameters, args)]
        arrays = _many(_Array, len(args))(*map(_array, parameters, args))
        pointers = _many(ctypes.c_void_p, len(args))(*[value.ctypes.data for value in values])
        sizes = _many(ctypes.c_uint, 3)(*grid), _many(ctypes.c_uint, 3)(*block)
        what = _Launch(call, pointers, *sizes, arrays, len(args), _order, image)
        what.values = values  # as `pointers` holds addresses only

        def run():
            problem = _fibers().fibers_run(ctypes.byref(what))
            if problem:
                raise KernelError(f"{self.name}: {problem.decode()}")

        given = [(p, value) for p, value in zip(parameters, args) if isinstance(value, ndarray)]
        written = [value for parameter, value in given if not parameter.startswith("const")]
        launch(self.name, [value for _, value in given], run, has_result=False, written=written)


@functools.cache  # for a new class is a cycle, which would be taken for the library's
def _many(kind, count):
    return kind * count


def _array(parameter, value):
    """Where an argument lies that is an array, and whether the kernel may write into it."""
    if not isinstance(value, ndarray) or not value.size:
        return _Array()
    begin, end = np.lib.array_utils.byte_bounds(value._memory)
    return _Array(begin, end, not parameter.startswith("const"))


def _value(kernel, parameter, value):
    """What CuPy hands over for an argument, in memory, if the kernel reads there what was meant."""
    if isinstance(value, ndarray):
        given, value = f"{value.dtype.name}*", np.array(value.data.ptr, np.uint64)
    elif value is None:  # which CuPy passes as 0xffffffff (its issue 9046)
        raise KernelError(f"{kernel}: None is no NULL for {parameter!r}")
    elif isinstance(value, (bool, int, float, np.generic)):
        value = np.asarray(value)  # int64 and float64 for Python's numbers
        given = value.dtype.name
        if given == "int64" and value == 0 and parameter.endswith("*"):
            return value
    else:
        raise TypeError(f"Unsupported type {type(value)}")
    if given != parameter.removeprefix("const "):
        raise KernelError(f"{kernel}: got {given} for the parameter {parameter!r}")
    return value


cupy.RawModule, cupy.RawKernel = RawModule, RawKernel
