"""A test double of CuPy, for machines without a GPU and without CuPy.

`double.install()` puts it into sys.modules as `cupy` and `cupyx`; `double.uninstall()` takes it
out.  Its arrays hold NumPy memory, but it behaves as CuPy 14.2 does where an engine can be bitten:
calls are bound to the real signatures (data/cupy_signatures.json), NumPy arrays are refused where
CuPy refuses them and copied where CuPy copies them without a word, reductions give 0-d arrays,
index arrays wrap around, `empty` is poisoned, and a kernel reaches arrays of the current device
only (the devices have no peer access).  `double.stats` counts "h2d" and "d2h" (copies between host
and device), "sync" (the host waits for the device) and "kernel" (an operation on the device; a view
is none).  Inside `with double.forbid("h2d", "d2h", "sync"):` such an event raises
`ForbiddenTransfer`.  What CuPy has and the double lacks raises NotImplementedError when it is
called.  Speed is not modelled.
"""

import collections
import contextlib
import dataclasses
import functools
import inspect
import json
import sys
import threading
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np

_SNAPSHOT = json.loads((Path(__file__).parent / "data/cupy_signatures.json").read_text())
# Functions want a device array as their first argument, but for these: they make one ...
_CREATE = set("arange eye full identity linspace ones random standard_normal tri zeros".split())
# ... or answer on the host, from shapes and dtypes alone.
_ANSWER_ON_HOST = set("can_cast isscalar may_share_memory ndim result_type shape size".split())
# These make the host wait: the shape of their result depends on what is in the arrays.
_SYNCHRONIZE = set("argwhere compress delete extract flatnonzero nonzero repeat unique".split())
# Where CuPy does otherwise than NumPy's function of that name.
_NUMPY = {
    "take": functools.partial(np.take, mode="wrap"),
    "where": lambda *args: np.asarray(np.where(*args), order="C") if args[1:] else np.where(*args),
}

stats = collections.Counter()
_forbidden = set()


class ForbiddenTransfer(RuntimeError):
    """Something happened that `forbid` forbids."""


@contextlib.contextmanager
def forbid(*events):
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


@dataclasses.dataclass
class Device:
    id: int = dataclasses.field(default_factory=_runtime.getDevice)
    _outer: list = dataclasses.field(default_factory=list, compare=False, repr=False)

    def __enter__(self):
        self._outer.append(_runtime.getDevice())
        _runtime.setDevice(self.id)
        return self

    def __exit__(self, *exception):
        _runtime.setDevice(self._outer.pop())

    def synchronize(self):
        _happens("sync", "Device.synchronize()")


def _memory(value, found):
    """The value with NumPy memory for its device arrays, which join `found`; no others pass."""
    if isinstance(value, ndarray):
        found.append(value)
        return value._memory
    if isinstance(value, (list, tuple)):
        return type(value)([_memory(item, found) for item in value])
    is_array = hasattr(type(value), "__array__") or hasattr(type(value), "__array_ufunc__")
    if is_array and not isinstance(value, np.generic):
        raise TypeError(f"Unsupported type {type(value)}")
    return value


def _wrap(result, sources=()):
    """NumPy's result as device arrays: a source itself, a view of a source, or a new array."""
    if isinstance(result, (list, tuple)):
        items = [_wrap(item, sources) for item in result]
        return type(result)(*items) if hasattr(result, "_fields") else type(result)(items)
    array = object.__new__(ndarray)
    array._memory = np.asarray(result)
    array._device_id, array.base = _runtime.getDevice(), None
    for source in sources:
        if source._memory is result:
            return source
        if np.may_share_memory(source._memory, array._memory):
            array._device_id, array.base = source._device_id, source.base or source
    return array


def _launch(name, arrays):
    """A kernel runs on the current device and reaches the arrays of no other."""
    for other in {array._device_id for array in arrays} - {_runtime.getDevice()}:
        raise ValueError(
            f"The device where the array resides ({other}) is different from the current device "
            f"({_runtime.current}). Peer access is unavailable between these devices."
        )
    _happens("kernel", name)


def _function(name, parameters, numpy_function, is_ufunc=False):
    """CuPy's function or method of that name, computed by NumPy's."""
    # The snapshot beside this file holds plain parameter lists: "a, axis=..., *, out=...".
    signature = inspect.signature(eval(f"lambda {parameters}: None"))

    @functools.wraps(numpy_function)
    def call(*args, **kwargs):
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}() {error}") from None
        if isinstance(bound.arguments.get("indices"), (np.ndarray, list)):
            bound.arguments["indices"] = cupy.asarray(bound.arguments["indices"])
            args, kwargs = bound.args, bound.kwargs
        first = next(iter(bound.arguments.values()), None)
        ...
        _memory(first, sources := [])
        needs_array = name not in _CREATE | _ANSWER_ON_HOST and not is_ufunc
        if (needs_array and not sources) or (is_ufunc and any(isinstance(a, (list, tuple)) for a in args)):
            raise TypeError(f"Unsupported type {type(first)}")
        args = _memory(args, sources)
        kwargs = ...
        with np.errstate(all="ignore"):  # a GPU warns neither of overflow nor of division by zero
            result = numpy_function(*args, **kwargs)
        if name in _ANSWER_ON_HOST or result is None: ...
        if name in _SYNCHRONIZE or (name == "where" and len(arguments) == 1):
            _happens("sync", name)
        
        return wrapped

    return call
