"""The array module of an array, devices, and copies between them.

Moving the work to the GPU is moving the data: an op asks its arrays which module they belong to,
NumPy or CuPy. This is the only file that imports CuPy, and it does so when a device is asked for.
"""

import contextlib
import math
import os
import re
import sys
from collections.abc import Sequence
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import numpy as np

from .dtypes import dtype_of

default_dtype = np.float32  # of new Tensors made from Python floats; arrays keep their own
_default_device: ContextVar[str | None] = ContextVar("device", default=None)
_process_device: str | None = None  # what set_default_device chose, for every thread


_AS_IT_IS = contextlib.nullcontext()
_FLOATING = set("efdgE")  # the codes of NumPy's dtypes of floating point, and of bfloat16


def imported_cupy() -> ModuleType | None:
    """CuPy if something has imported it; an array of CuPy's cannot exist otherwise."""
    return sys.modules.get("cupy")


def is_array(value: Any) -> bool:
    """Whether `value` is an array of NumPy or CuPy (a NumPy scalar is not)."""
    cupy = imported_cupy()
    return isinstance(value, np.ndarray if cupy is None else (np.ndarray, cupy.ndarray))


def is_floating(dtype: Any) -> bool:
    """Whether it is a dtype of floating point: NumPy's, or bfloat16, which is that of ml_dtypes."""
    return getattr(dtype, "char", None) in _FLOATING


def array_module(arrays: Sequence[Any]) -> ModuleType:
    """The module, `numpy` or `cupy`, that computes with these arrays.

    Python and NumPy scalars belong to either. Arrays on two devices are a ValueError that names
    both: copies between devices are made by `Tensor.to` and never silently.
    """
    if (cupy := sys.modules.get("cupy")) is None:  # the usual case, so not by a call
        return np
    found = None
    for array in arrays:
        if isinstance(array, (np.ndarray, cupy.ndarray)):
            device = device_of(array)
            if found is not None and device != found:
                where = f"on different devices, {found} and {device}"
                raise ValueError(f"the arguments are {where}; move one of them with .to({found!r})")
            found = device
    return np if found in (None, "cpu") else cupy


def device_of(array: Any) -> str:
    """Where an array lives: "cpu", "cuda:0", "cuda:1", …"""
    if type(array) is np.ndarray or isinstance(array, (np.ndarray, np.generic)):
        return "cpu"
    return f"cuda:{array.device.id}"


def on_device_of(array: Any) -> contextlib.AbstractContextManager:
    """A context in which the GPU of `array` is the current one, as CuPy wants it to compute there.
    On the CPU it does nothing."""
    return _AS_IT_IS if device_of(array) == "cpu" else _OnGpu(array.device)


class _OnGpu:
    """A GPU as the current one. If its memory does not do, the error says what is left of it."""

    def __init__(self, gpu: Any) -> None:
        self.gpu = gpu

    def __enter__(self) -> None:
        self.gpu.__enter__()

    def __exit__(self, kind: type | None, error: Any, traceback: Any) -> None:
        self.gpu.__exit__(kind, error, traceback)
        if getattr(kind, "__name__", "") == "OutOfMemoryError":  # CuPy's: it says what is asked
            free, total = self.gpu.mem_info
            raise MemoryError(f"{error} {free:,} of {total:,} bytes are free.") from error


def assign(array: Any, value: Any) -> None:
    """`array[...] = value`, wherever the array lives."""
    if type(array) is np.ndarray:  # the usual case, so without a context
        array[...] = value
        return
    with on_device_of(array):
        array[...] = value


def as_array(value: Any, dtype: Any = None, device: str | None = None, name: str = "data") -> Any:
    """`value` as an array on `device` (None: where an array already is, else the default device).

    Python floats, and nested lists of them, become the default dtype (float32); integers int64;
    arrays and NumPy scalars keep their dtype unless `dtype` is given. Copies only if it must.
    What is no real number is a TypeError that calls it `name`.
    """
    if not is_array(value):
        device = device or get_default_device()
        plain = isinstance(value, (float, list, tuple)) and not isinstance(value, np.generic)
        value = np.asarray(value)
        if dtype is None and plain and value.dtype == np.float64:
            dtype = default_dtype
    if value.dtype.kind not in "biu" and not is_floating(value.dtype):
        raise TypeError(f"{name}: got {value.dtype} {value!r:.60}, wants real numbers")
    if dtype is not None and value.dtype != (dtype := dtype_of(dtype)):
        with on_device_of(value):
            value = value.astype(dtype)
    return value if device is None else to_device(value, device)


def as_given(value: Any, name: str = "") -> Any:
    """A number or list as an array; Tensors and arrays as they are. None, too, unless it stands for
    an argument with a `name`: then it is a TypeError."""
    stays = hasattr(value, "shape") or (value is None and not name)
    return value if stays else as_array(value, name=name or "data")


def array_of(value: Any) -> Any:
    """The array of a Tensor; all else as it is."""
    return value.data if hasattr(value, "node") else value


def to_device(array: Any, device: str) -> Any:
    """`array` on `device`; the array itself if it is there already."""
    device = canonical_device(device)
    if device_of(array) == device:
        return array
    if device == "cpu":
        return array.get()
    xp, here = module_on(device)
    with here:
        return xp.asarray(array)


def copied(array: Any) -> Any:
    """A copy in memory of its own, on the same device."""
    if type(array) is np.ndarray:
        return array.copy()
    with on_device_of(array):
        return array_module((array,)).array(array)


def erf(array: Any) -> Any:
    """The error function of each element. NumPy has none: there it is Python's, one by one."""
    dtype = array.dtype if is_floating(array.dtype) else np.float64
    if isinstance(array, np.ndarray):
        return np.asarray(np.frompyfunc(math.erf, 1, 1)(array), dtype=dtype)
    from cupyx.scipy.special import erf as cupy_erf

    return cupy_erf(array).astype(dtype, copy=False)  # that of float16 is float64


def canonical_device(device: str, name: str = "device") -> str:
    """`"cpu"`, or `"cuda:N"` for `"cuda"` (N = 0) and `"cuda:N"`; anything else is a ValueError, in
    which it has this name."""
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device) if isinstance(device, str) else None
    if match is None:
        kind = ValueError if isinstance(device, str) else TypeError
        raise kind(f'{name}: got {device!r}, wants "cpu", "cuda" or "cuda:N"')
    return "cpu" if device == "cpu" else f"cuda:{int(match[1] or 0)}"


def module_on(device: str) -> tuple[ModuleType, contextlib.AbstractContextManager]:
    """The module that makes arrays on `device`, and the context in which it does; a RuntimeError of
    one sentence if there is no such device."""
    if (device := canonical_device(device)) == "cpu":
        return np, _AS_IT_IS
    number = int(device.removeprefix("cuda:"))
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
    except ModuleNotFoundError as error:
        pip = 'pip install "cupy-cuda12x[ctk]" (or "cupy-cuda13x[ctk]")'
        raise RuntimeError(f"device {device!r} needs CuPy, which is missing: {pip}") from error
    except Exception as error:  # CuPy raises a class of its own, which exists only with CuPy
        needs = "needs an NVIDIA GPU with a working driver"
        raise RuntimeError(f"device {device!r} {needs}: CuPy reports {error}") from error
    if number >= count:
        raise RuntimeError(f"device {device!r} does not exist: CuPy finds {count} GPU(s)")
    return cupy, _OnGpu(cupy.cuda.Device(number))


def get_default_device() -> str:
    """Where new Tensors are made: `with device(…)`, else `set_default_device`, else
    the environment variable TINYGRAD_BN_DEVICE, else "cpu"."""
    chosen, variable = _default_device.get() or _process_device, "TINYGRAD_BN_DEVICE"
    return chosen or canonical_device(os.environ.get(variable) or "cpu", variable)


def set_default_device(device: str) -> None:
    """Make new Tensors on `device` from now on; nothing that exists is moved."""
    global _process_device
    module_on(device)  # which raises if it cannot be used
    _process_device = canonical_device(device)


class Setting(contextlib.ContextDecorator):
    """A context variable set inside a `with` block, or a decorated function; usable again."""

    def __init__(self, variable: ContextVar, value: Any) -> None:
        self._variable, self._value, self._tokens = variable, value, []

    def __enter__(self) -> None:
        self._tokens.append(self._variable.set(self._value))

    def __exit__(self, *exception: object) -> None:
        self._variable.reset(self._tokens.pop())

    def _recreate_cm(self) -> "Setting":  # for each call of what is decorated, whatever the thread
        return Setting(self._variable, self._value)


def device(name: str) -> Setting:
    """Make new Tensors on this device inside the `with` block (in this thread)."""
    module_on(name)  # which raises if it cannot be used
    return Setting(_default_device, canonical_device(name))


def describe(value: Any) -> str:
    """A Tensor or array in an error message: its dtype, shape and device. Else its repr."""
    array = array_of(value)
    if not hasattr(array, "shape"):
        return f"{value!r:.40}"
    where = f" on {device_of(array)}" if is_array(array) and device_of(array) != "cpu" else ""
    return f"{array.dtype}{list(array.shape)}{where}"
