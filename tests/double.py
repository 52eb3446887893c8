"""A test double of CuPy, for machines without a GPU and without CuPy.

`double.install()` puts it into sys.modules as `cupy` and `cupyx`; `double.uninstall()` takes it
out again.  Its arrays hold NumPy memory, but it behaves as CuPy 14.2 does where an engine can be
bitten: calls are bound to the real signatures (data/cupy_signatures.json), NumPy arrays are refused
where CuPy refuses them and copied where CuPy copies them without a word, reductions give 0-d
arrays, index arrays wrap around, `empty` is poisoned, and an operation reaches arrays of the
current device only (the devices have no peer access).  `double.stats` counts what happens: "h2d"
and "d2h" (array contents are copied between host and device), "sync" (the host waits for the
device), "kernel" (an operation runs on the device; a view is none).  Inside
`with double.forbid("h2d", "d2h", "sync"):` such an event raises `ForbiddenTransfer`.  What CuPy
has and the double lacks raises NotImplementedError when it is called.  Speed is not modelled.
"""

import collections
import contextlib
import ctypes
import inspect
import json
import sys
import threading
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np

_SNAPSHOT = json.loads((Path(__file__).parent / "data/cupy_signatures.json").read_text())

# Most functions want a device array as their first argument.  These make one from nothing ...
_CREATE = set("arange eye full identity indices linspace logspace ones tri zeros".split())
# ... and these answer on the host, from shapes and dtypes alone.
_ANSWER_ON_HOST = set("can_cast isscalar may_share_memory ndim result_type shape size".split())
# These make the host wait, because the shape of their result depends on what is in the arrays.
_SYNCHRONIZE = set("argwhere compress delete extract flatnonzero intersect1d nonzero repeat".split())
_SYNCHRONIZE |= set("setdiff1d unique unique_all unique_counts unique_inverse unique_values".split())
# The dtypes that `ufunc.at` has atomic operations for.
_ATOMIC_DTYPES = dict.fromkeys(("bitwise_and", "bitwise_or", "bitwise_xor"), "i4 i8 u4 u8")
_ATOMIC_DTYPES |= dict.fromkeys(("maximum", "minimum"), "i4 i8 u4 u8 f4 f8")
_ATOMIC_DTYPES |= {"add": "i4 i8 u4 u8 f2 f4 f8", "subtract": "i4 u4"}

stats = collections.Counter()
_forbidden = set()


class ForbiddenTransfer(RuntimeError):
    """Something happened that `forbid` forbids."""


@contextlib.contextmanager
def forbid(*events):
    if not set(events) <= {"h2d", "d2h", "sync", "kernel"}:
        raise ValueError(f"one of these is no event: {events}")
    added = set(events) - _forbidden
    _forbidden.update(added)
    try:
        yield
    finally:
        _forbidden.difference_update(added)


def _happens(event, what):
    if event in _forbidden:
        raise ForbiddenTransfer(f"{event}: {what}")
    stats[event] += 1


class _Runtime(threading.local):
    """`cupy.cuda.runtime`; in CUDA too, the current device belongs to the thread."""

    CUDARuntimeError = type("CUDARuntimeError", (RuntimeError,), {})
    count, current = 2, 0

    def getDeviceCount(self):
        if self.count == 0:
            raise self.CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
        return self.count

    def getDevice(self):
        return self.getDeviceCount() and self.current

    def setDevice(self, device):
        if not 0 <= device < self.getDeviceCount():
            raise self.CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self.current = device


_runtime = _Runtime()


class Device:
    def __init__(self, device=None):
        self.id = _runtime.getDevice() if device is None else device
        self._outer = []

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    def __repr__(self):
        return f"<CUDA Device {self.id}>"

    def __enter__(self):
        self._outer.append(_runtime.getDevice())
        _runtime.setDevice(self.id)
        return self

    def __exit__(self, *exception):
        _runtime.setDevice(self._outer.pop())

    def synchronize(self):
        _happens("sync", "Device.synchronize()")


def _memory(value, found):
    """The value with NumPy memory for device arrays, which join `found`; no other array is let in."""
    if isinstance(value, ndarray):
        found.append(value)
        return value._memory
    if isinstance(value, (list, tuple)):
        items = [_memory(item, found) for item in value]
        return items if isinstance(value, list) else tuple(items)
    is_array = hasattr(type(value), "__array__") or hasattr(type(value), "__array_ufunc__")
    if is_array and not isinstance(value, np.generic):
        raise TypeError(f"Unsupported type {type(value)}")
    return value


def _wrap(result, sources=()):
    """NumPy's result as device arrays: a source itself, a view of a source, or a new array."""
    if isinstance(result, (list, tuple)):
        items = [_wrap(item, sources) for item in result]
        return type(result)(*items) if hasattr(result, "_fields") else type(result)(items)
    if result is None:
        return None
    memory = np.asarray(result)
    owner = next((s for s in sources if np.may_share_memory(s._memory, memory)), None)
    if owner is not None and owner._memory is memory:
        return owner
    array = object.__new__(ndarray)
    array._memory = memory
    array._device_id = _runtime.getDevice() if owner is None else owner._device_id
    array.base = owner if owner is None or owner.base is None else owner.base
    return array


def _launch(name, arrays):
    """A kernel runs on the current device and reaches the arrays of no other."""
    for other in {array._device_id for array in arrays} - {_runtime.getDevice()}:
        raise ValueError(
            f"The device where the array resides ({other}) is different from the current device "
            f"({_runtime.current}). Peer access is unavailable between these devices."
        )
    _happens("kernel", name)


def _run(name, function, args, kwargs):
    sources = []
    memory_args = _memory(args, sources)
    memory_kwargs = {key: _memory(value, sources) for key, value in kwargs.items()}
    with np.errstate(all="ignore"):  # a GPU warns neither of overflow nor of division by zero
        result = function(*memory_args, **memory_kwargs)
    if name in _ANSWER_ON_HOST:
        return result
    wrapped = _wrap(result, sources)
    arrays = wrapped if isinstance(wrapped, (list, tuple)) else [wrapped]
    old = {id(source) for source in sources}
    is_view = all(id(array) in old or getattr(array, "base", None) is not None for array in arrays)
    if not is_view or kwargs.get("out") is not None:
        _launch(name, sources)
    return wrapped


def _function(name, parameters, numpy_function):
    """CuPy's function or method of that name, computed by NumPy's."""
    # The snapshot beside this file holds plain parameter lists: "a, axis=..., *, out=...".
    signature = inspect.signature(eval(f"lambda {parameters}: None"))

    def call(*args, **kwargs):
        try:
            arguments = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{name}() {error}") from None
        first = next(iter(arguments.values()), None)
        if name not in _CREATE | _ANSWER_ON_HOST:
            _memory(first, found := [])
            if not found:
                raise TypeError(f"Unsupported type {type(first)}")
        if name in _SYNCHRONIZE or (name == "where" and len(arguments) == 1):
            _happens("sync", name)
        return _run(name, numpy_function, args, kwargs)

    return call


def _index_part(part):
    if isinstance(part, ndarray):
        part = part._memory
    elif isinstance(part, (np.ndarray, list, tuple, bool, np.bool_)):
        part = np.asarray(part) if np.size(part) else np.asarray(part, np.int32)
        if part.ndim:
            _happens("h2d", "an index array from the host")
    else:
        return part
    if part.dtype.kind not in "biu":
        raise IndexError("arrays used as indices must be of integer or boolean type")
    if part.dtype == bool:
        _happens("sync", "a boolean mask, whose true elements have to be counted")
    return part


def _memory_index(array, index):
    """NumPy's form of an index, and whether it gathers elements instead of giving a view."""
    parts = [_index_part(part) for part in (index if isinstance(index, tuple) else (index,))]
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)  # which keeps a single element a 0-d array
    gathers = [isinstance(part, np.ndarray) for part in parts]
    axes = [part.ndim if is_array and part.dtype == bool else int(part is not None and part is not Ellipsis) for is_array, part in zip(gathers, parts)]
    axis = 0
    for position, part in enumerate(parts):
        if gathers[position] and part.dtype != bool:
            # CuPy finds no index out of range: they wrap around.
            parts[position] = part % max(array.shape[axis], 1)
        axis += array.ndim - sum(axes) if part is Ellipsis else axes[position]
    return tuple(parts), any(gathers)


def _scatter(array, index, value, function=None):
    """`array[index] = value`, or `function.at(array, index, value)`."""
    parts, gathers = _memory_index(array, index)
    if gathers and not isinstance(value, ndarray):
        value = cupy.asarray(value, array.dtype)  # CuPy copies a host array here without a word
    elif function is None and not isinstance(value, ndarray):
        value = np.asarray(value, dtype=array.dtype)[()]
        if np.ndim(value):
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
    memory = _memory([array, index if ...
