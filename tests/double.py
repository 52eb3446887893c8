"""A test double of CuPy, for machines without a GPU and without CuPy.

`double.install()` puts it into sys.modules as `cupy` and `cupyx`; `double.uninstall()` takes it
out.  Its arrays hold NumPy memory, but it behaves as CuPy 14.2 does where an engine can be bitten:
calls are bound to the real signatures (data/cupy_signatures.json), NumPy arrays are refused where
CuPy refuses them and copied where CuPy copies them without a word, reductions give 0-d arrays,
index arrays wrap around, `empty` is poisoned, and a kernel reaches arrays of the current device
only (the devices have no peer access).  `double.stats` counts "h2d" and "d2h" (copies between host
and device), "sync" (the host waits for the device) and "kernel" (an operation on the device; a view
is none).  Inside `with double.forbid("h2d", "d2h", "sync"):` such an event raises
`ForbiddenTransfer`.  What CuPy has and the double lacks raises NotImplementedError when called.
"""

import collections
import contextlib
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
_SCALARS = (bool, int, float, complex, np.generic)

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
    if result is None:
        return None
    array = object.__new__(ndarray)
    array._memory = np.asarray(result)
    array._device_id, array.base = _runtime.getDevice(), None
    for source in sources:
        if source._memory is result:
            return source
        if np.may_share_memory(source._memory, array._memory):
            root = source if source.base is None else source.base
            array._device_id, array.base = source._device_id, root
    return array


def _launch(name, arrays):
    """A kernel runs on the current device and reaches the arrays of no other."""
    for other in {array._device_id for array in arrays} - {_runtime.getDevice()}:
        raise ValueError(
            f"The device where the array resides ({other}) is different from the current device "
            f"({_runtime.current}). Peer access is unavailable between these devices."
        )
    _happens("kernel", name)


def _function(name, parameters, compute):
    """CuPy's function, method or ufunc of that name, computed by NumPy's."""
    # The snapshot holds plain parameter lists, such as "a, axis=..., *, out=...".
    signature = inspect.signature(eval(f"lambda {parameters}: None"))
    is_ufunc = "casting" in signature.parameters and "x1" in signature.parameters

    def check(args, arguments):
        first = next(iter(arguments.values()), None)
        _memory(first, in_first := [])
        if is_ufunc:
            for operand in args:
                if not isinstance(operand, (ndarray, *_SCALARS)):
                    raise TypeError(f"Unsupported type {type(operand)}")
        elif not in_first and name not in _CREATE | _ANSWER_ON_HOST:
            raise TypeError(f"Unsupported type {type(first)}")

    def call(*args, **kwargs):
        try:
            arguments = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{name}() {error}") from None
        check(args, arguments)
        sources = []
        memory_args = _memory(args, sources)
        memory_kwargs = {key: _memory(value, sources) for key, value in kwargs.items()}
        if name in _SYNCHRONIZE or (name == "where" and len(arguments) == 1):
            _happens("sync", name)
        with np.errstate(all="ignore"):  # a GPU warns neither of overflow nor of division by zero
            result = compute(*memory_args, **memory_kwargs)
        if name in _ANSWER_ON_HOST:
            return result
        wrapped = _wrap(result, sources)
        one = wrapped[0] if isinstance(wrapped, (list, tuple)) and wrapped else wrapped
        is_view = any(one is array for array in sources) or getattr(one, "base", None) is not None
        if is_ufunc or kwargs.get("out") is not None or not is_view:
            _launch(name, sources)
        return wrapped

    return call


def _memory_index(array, index):
    """NumPy's form of an index, and whether it gathers elements instead of giving a view."""
    parts = list(index) if isinstance(index, tuple) else [index]
    for position, part in enumerate(parts):
        if isinstance(part, (np.ndarray, list)):
            _happens("h2d", "an index array from the host")
            part = np.asarray(part, None if np.size(part) else np.int32)
        parts[position] = part._memory if isinstance(part, ndarray) else part
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)  # which keeps a single element a 0-d array
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if any(part.dtype == bool for part in arrays):
        _happens("sync", "a boolean mask, whose true elements have to be counted")
        return tuple(parts), True
    # Integer arrays wrap around: CuPy finds no index out of range.
    axis = 0
    for position, part in enumerate(parts):
        if isinstance(part, np.ndarray):
            parts[position] = part % max(array.shape[axis], 1)
        missing = sum(other is None for other in parts) + array.ndim + 1 - len(parts)
        axis += missing if part is Ellipsis else part is not None
    return tuple(parts), bool(arrays)


def _scatter(array, index, value, ufunc=None):
    """`array[index] = value`, or `ufunc.at(array, index, value)`."""
    parts, gathers = _memory_index(array, index)
    if gathers and not isinstance(value, ndarray):
        value = cupy.asarray(value, array.dtype)  # CuPy copies a host array here without a word
    elif ufunc is None and not isinstance(value, ndarray):
        value = np.asarray(value, dtype=array.dtype)[()]
        if np.ndim(value):
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
    memory = _memory(value, found := [array])
    _launch("scatter", found)
    if ufunc is None:
        array._memory[parts] = memory
    else:
        ufunc.at(array._memory, parts, memory)


class ndarray:
    __slots__ = ("_memory", "_device_id", "base", "__weakref__")
    __array_priority__ = 100
    __hash__ = None

    def __init__(self, shape, dtype=float, *, order="C"):
        self._memory = np.empty(shape, dtype, order)
        self._device_id, self.base = _runtime.getDevice(), None
        largest = np.iinfo(dtype).max if self.dtype.kind in "iu" else np.nan
        self._memory.fill(largest)  # poison: an element that nobody writes shows

    device = property(lambda self: Device(self._device_id))
    data = property(lambda self: types.SimpleNamespace(ptr=self._memory.ctypes.data))
    T = property(lambda self: self if self.ndim < 2 else self.transpose())

    @property
    def flags(self):  # there is no `writeable`
        flags = {key: getattr(self._memory.flags, key) for key in ("c_contiguous", "f_contiguous")}
        return types.SimpleNamespace(**flags, owndata=self.base is None)

    def __getattr__(self, name):
        if name in _SNAPSHOT["ndarray"]["methods"]:
            raise NotImplementedError(f"the double of CuPy lacks ndarray.{name}")
        raise AttributeError(f"'ndarray' object has no attribute {name!r}")

    def __array__(self, dtype=None):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, numpy_ufunc, method, *inputs, **kwargs):
        if "out" in kwargs:
            (kwargs["out"],) = kwargs["out"]
        function = getattr(cupy, numpy_ufunc.__name__, None)
        function = function if method == "__call__" else getattr(function, method, None)
        operands = (*inputs, kwargs.get("out", self))
        known = all(isinstance(x, (ndarray, np.ndarray, *_SCALARS)) for x in operands)
        # The function refuses NumPy arrays; an unknown class may handle this array itself.
        return function(*inputs, **kwargs) if function and known else NotImplemented

    def __array_function__(self, numpy_function, classes, args, kwargs):
        module = _MODULES.get(numpy_function.__module__.replace("numpy", "cupy"))
        function = getattr(module, numpy_function.__name__, None)
        known = all(issubclass(kind, (ndarray, np.ndarray)) for kind in classes)
        return function(*args, **kwargs) if function and known else NotImplemented

    def __len__(self):
        return len(self._memory)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index):
        parts, gathers = _memory_index(self, index)
        if gathers:
            _launch("gather", [self])
        return _wrap(self._memory[parts], [self])

    __setitem__ = _scatter

    def fill(self, value):
        _scatter(self, ..., value)

    def get(self, stream=None, order="C", out=None, blocking=True):
        _happens("d2h", "a copy to the host")
        if blocking:
            _happens("sync", "a copy to the host")
        out = np.empty(self.shape, self.dtype, order) if out is None else out
        np.copyto(out, self._memory, casting="no")
        return out

    def set(self, arr, stream=None):
        _happens("h2d", "set()")
        np.copyto(self._memory, arr, casting="no")

    def copy(self, order="C"):  # also from another device to the current one
        _happens("kernel", "copy")
        return _wrap(self._memory.copy(order))

    __copy__ = copy

    def __dlpack_device__(self):
        return 2, self._device_id

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        if dl_device == (1, 0):
            return self.get().__dlpack__()
        return types.SimpleNamespace(exported=self)  # which only the double's from_dlpack takes


def _add_operators(symbol, name):
    def call(*operands):
        return getattr(cupy, name)(*operands)

    def operate(left, right):
        if isinstance(right, ndarray):
            return call(left, right)
        # NEP 13, and __array_priority__ for a class that knows nothing of it.
        ours = getattr(left, "__array_priority__", 0)
        theirs = getattr(right, "__array_priority__", 0)
        if getattr(right, "__array_ufunc__", None if ours < theirs else ...) is None:
            return NotImplemented
        return getattr(np, name)(left, right)

    setattr(ndarray, f"__{symbol}__", operate)
    if symbol not in "lt le gt ge eq ne".split():
        setattr(ndarray, f"__r{symbol}__", lambda right, left: operate(left, right))
        setattr(ndarray, f"__i{symbol}__", lambda left, right: call(left, right, left))


for _name in "shape dtype ndim size itemsize nbytes strides".split():
    setattr(ndarray, _name, property(lambda self, _name=_name: getattr(self._memory, _name)))
for _pair in """lt:less le:less_equal gt:greater ge:greater_equal eq:equal ne:not_equal add:add
    sub:subtract mul:multiply truediv:true_divide floordiv:floor_divide mod:remainder pow:power
    matmul:matmul and:bitwise_and or:bitwise_or xor:bitwise_xor""".split():
    _add_operators(*_pair.split(":"))
del ndarray.__imatmul__  # CuPy has none: `x @= y` makes a new array
for _pair in "neg:negative pos:positive abs:absolute invert:invert".split():
    _symbol, _name = _pair.split(":")
    setattr(ndarray, f"__{_symbol}__", lambda self, _name=_name: getattr(cupy, _name)(self))
for _name, _convert in {
    **{f"__{kind.__name__}__": kind for kind in (bool, int, float, complex)},
    **{"__repr__": repr, "__str__": str, "__format__": format},
    **{"item": np.ndarray.item, "tolist": np.ndarray.tolist, "tobytes": np.ndarray.tobytes},
}.items():
    setattr(ndarray, _name, lambda self, *args, _to=_convert: _to(self.get(), *args))
for _name in """all any argmax argmin argsort astype clip conj cumprod cumsum diagonal dot flatten max mean
    min nonzero prod ravel repeat reshape round searchsorted sort squeeze std sum swapaxes take
    trace transpose var view""".split():
    _parameters = _SNAPSHOT["ndarray"]["methods"][_name]
    setattr(ndarray, _name, _function(_name, _parameters, getattr(np.ndarray, _name)))


def _ufunc(name, parameters, has_at, numpy_ufunc):
    ...
