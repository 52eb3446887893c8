"""A test double of CuPy, for machines without a GPU and without CuPy.

`double.install()` puts it into sys.modules as `cupy` and `cupyx`; `double.uninstall()` takes it
out.  Its arrays hold NumPy memory, but it behaves as CuPy 14.2 does where an engine can be bitten:
calls are bound to the real signatures (data/cupy_signatures.json), NumPy arrays are refused where
CuPy refuses them and copied where CuPy copies them silently, reductions give 0-d arrays, `empty`
is poisoned, a kernel reaches arrays of the current device only.  `double.stats` counts "h2d" and
"d2h" (copies between host and device), "sync" (the host waits for the device) and "kernel" (a call
computes on the device); inside `with double.forbid("h2d", "d2h", "sync"):` they raise.
"""

import collections
import contextlib
import dataclasses
import inspect
import json
import math
import operator
import sys
import threading
import types
from pathlib import Path

import numpy as np

_SNAPSHOT = json.loads((Path(__file__).parent / "data/cupy_signatures.json").read_text())
_TRAITS = _SNAPSHOT["traits"]
_SCALARS = (bool, int, float, complex, np.generic)
# CuPy does otherwise than NumPy: it refuses `casting`, wraps indices, gives C order, plain tuples.
_OTHERWISE = {
    "astype": lambda a, dtype, order="K", *, copy=True: a.astype(dtype, order, copy=copy),
    "eigh": lambda *args, **options: tuple(np.linalg.eigh(*args, **options)),
    "take": lambda *args, **options: np.take(*args, mode="wrap", **options),
    "where": lambda *args: np.asarray(np.where(*args), order="C") if args[1:] else np.where(*args),
}
_Flags = collections.namedtuple("Flags", "c_contiguous f_contiguous owndata")
stats = collections.Counter()
_forbidden = collections.Counter()


class ForbiddenTransfer(RuntimeError):
    """Something happened that `forbid` forbids."""


@contextlib.contextmanager
def forbid(*events):
    assert set(events) <= {"h2d", "d2h", "sync", "kernel"}, events
    _forbidden.update(events)
    try:
        yield
    finally:
        _forbidden.subtract(events)


def _happens(event, what):
    if _forbidden[event] > 0:
        raise ForbiddenTransfer(f"{event}: {what}")
    stats[event] += 1


class _Runtime(threading.local):  # for in CUDA too, the current device belongs to the thread
    count, current = 2, 0

    def getDeviceCount(self):
        if self.count == 0:
            raise RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
        return self.count

    def getDevice(self):
        return self.getDeviceCount() and self.current


_runtime = _Runtime()


@dataclasses.dataclass
class Device:
    id: int = dataclasses.field(default_factory=_runtime.getDevice)
    _outer: list = dataclasses.field(default_factory=list, init=False, repr=False, compare=False)

    def __enter__(self):
        self._outer.append(_runtime.getDevice())
        _runtime.current = self.id
        return self

    def __exit__(self, *exception):
        _runtime.current = self._outer.pop()


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
        return type(result)([_wrap(item, sources) for item in result])
    array = object.__new__(ndarray)
    array._memory, array._device_id, array.base = np.asarray(result), _runtime.getDevice(), None
    for source in sources:
        if source._memory is result:
            return source
        if np.may_share_memory(source._memory, array._memory):
            array._device_id = source._device_id
            array.base = source if source.base is None else source.base
    return array


def _launch(name, arrays):
    """A kernel runs on the current device and reaches the arrays of no other."""
    for other in {array._device_id for array in arrays} - {_runtime.getDevice()}:
        raise ValueError(f"The array is on device {other}, the current one is {_runtime.current}")
    _happens("kernel", name)


def _function(name, parameters, compute):
    """CuPy's function, method or ufunc of that name, computed by NumPy's."""
    # The snapshot holds plain parameter lists, such as "a, axis=..., *, out=...".
    signature = inspect.signature(eval(f"lambda {parameters}: None"))
    on_host, compute = name in _TRAITS["answer_on_host"], _OTHERWISE.get(name, compute)
    takes_any = on_host or name in _TRAITS["create"] or name.startswith("cupy_")

    def call(*args, **kwargs):
        try:
            arguments = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{name}() {error}") from None
        if name.startswith("take") and args[1:] and isinstance(args[1], (list, np.ndarray)):
            args = (args[0], cupy.asarray(args[1]), *args[2:])  # CuPy copies it without a word
        _memory(list(arguments.values())[:1], in_first := [])
        lists = name.startswith("cupy_") and any(isinstance(x, (list, tuple)) for x in args)
        if lists or not (in_first or takes_any):
            raise TypeError(f"Unsupported type among {[type(value) for value in args]}")
        memory_args = _memory(args, sources := [])
        memory_kwargs = {key: _memory(value, sources) for key, value in kwargs.items()}
        if name in _TRAITS["reduce"] and not sources[0].ndim and arguments.get("axis") in (0, -1):
            raise np.exceptions.AxisError(arguments["axis"], 0)
        if name in _TRAITS["synchronize"] or (name == "where" and len(args) == 1):
            _happens("sync", name)
        if not on_host and name not in _TRAITS["view"]:
            _launch(name, sources)
        with np.errstate(all="ignore"):  # a GPU warns neither of overflow nor of division by zero
            result = compute(*memory_args, **memory_kwargs)
        return result if on_host or result is None else _wrap(result, sources)

    return call


def _ufunc(numpy_ufunc, name, parameters, has_at):
    def at(a, indices, b=None):
        if not has_at:
            raise NotImplementedError(f"`{name}.at` is not supported yet")
        _scatter(a, indices, b, numpy_ufunc)

    def reduce(array, axis=0, dtype=None, out=None, keepdims=False):
        if name not in ("cupy_add", "cupy_multiply"):
            raise NotImplementedError(f"`{name}.reduce` is not supported yet")
        return getattr(array, "sum" if name == "cupy_add" else "prod")(axis, dtype, out, keepdims)

    call = _function(name, parameters, lambda *x, **options: numpy_ufunc(*x, order="C", **options))
    call.at, call.reduce = at, reduce
    return call


def _memory_index(array, index):
    """NumPy's form of an index, and whether it gathers elements instead of giving a view."""
    parts = list(index) if isinstance(index, tuple) else [index]
    for position, part in enumerate(parts):
        if isinstance(part, (list, tuple, np.ndarray)):  # which CuPy copies without a word
            parts[position] = cupy.asarray(part, None if np.size(part) else int)
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)  # which keeps a single element a 0-d array
    masks = [part for part in parts if isinstance(part, ndarray) and part.dtype == bool]
    if masks:
        _happens("sync", "a boolean mask, whose true elements have to be counted")
    axis, skipped = 0, array.ndim + 1 - sum(part is not None for part in parts)
    for position, part in enumerate(parts):
        if isinstance(part, ndarray):  # of integers none is found out of range: they wrap around
            parts[position] = part._memory if masks else part._memory % max(array.shape[axis], 1)
        axis += skipped if part is Ellipsis else part is not None
    return tuple(parts), any(isinstance(part, np.ndarray) for part in parts)


def _scatter(array, index, value, ufunc=None):
    """`array[index] = value`, or `ufunc.at(array, index, value)`."""
    parts, gathers = _memory_index(array, index)
    if gathers and not isinstance(value, ndarray):
        value = cupy.asarray(value, array.dtype)  # CuPy copies a host array here without a word
    elif ufunc is None and not isinstance(value, ndarray) and np.ndim(value):
        raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
    memory = _memory(value, found := [array])
    _launch("scatter", found)
    (operator.setitem if ufunc is None else ufunc.at)(array._memory, parts, memory)


class ndarray:
    __slots__ = ("__weakref__", "_device_id", "_memory", "base")
    __array_priority__ = 100
    __hash__ = None

    device = property(lambda self: Device(self._device_id))
    data = property(lambda self: types.SimpleNamespace(ptr=self._memory.ctypes.data))
    T = property(lambda self: self if self.ndim < 2 else self.transpose())
    flags = property(lambda s: _Flags(s._memory.flags["C"], s._memory.flags["F"], s.base is None))

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

    def __getitem__(self, index):
        parts, gathers = _memory_index(self, index)
        if gathers:
            _launch("gather", [self])
        return _wrap(self._memory[parts], [self])

    __setitem__ = _scatter

    def get(self, stream=None, order="C", out=None, blocking=True):
        _happens("d2h", "a copy to the host")
        if blocking:
            _happens("sync", "a copy to the host")
        out = np.empty(self.shape, self.dtype, order) if out is None else out
        np.copyto(out, self._memory, casting="no")
        return out

    def __dlpack_device__(self):
        return 2, self._device_id

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        return types.SimpleNamespace(exported=self)  # which only the double's from_dlpack takes


def _operator(name, side):
    def operate(self, *other):
        if side == "left" and not isinstance(other[0], ndarray):
            # NEP 13, and __array_priority__ for a class that knows nothing of it.
            defers = getattr(other[0], "__array_priority__", 0) > self.__array_priority__
            if getattr(other[0], "__array_ufunc__", None if defers else ...) is None:
                return NotImplemented
            return getattr(np, name)(self, *other)
        operands = (*other, self) if side == "right" else (self, *other)
        return getattr(cupy, name)(*operands, **({"out": self} if side == "in_place" else {}))

    return operate


for _type in (bool, int, float, complex, repr, str, format):
    setattr(ndarray, f"__{_type.__name__}__", lambda self, *a, _type=_type: _type(self.get(), *a))
for _name in ("item", "tolist", "tobytes", "tofile", "dump", "dumps"):
    setattr(ndarray, _name, lambda self, *a, _name=_name: getattr(self.get(), _name)(*a))
for _name in ("shape", "dtype", "ndim", "size", "itemsize", "nbytes", "strides"):
    setattr(ndarray, _name, property(lambda self, _name=_name: getattr(self._memory, _name)))
for _name, _description in _SNAPSHOT["ndarray"]["operators"].items():
    setattr(ndarray, _name, _operator(*_description))
for _name, _parameters in _SNAPSHOT["ndarray"]["methods"].items():
    if _name not in vars(ndarray) and hasattr(np.ndarray, _name):
        setattr(ndarray, _name, _function(_name, _parameters, getattr(np.ndarray, _name)))
ndarray.__copy__ = ndarray.copy


class _Module(types.ModuleType):
    """A module of CuPy: what is set on it, and the names in the snapshot."""

    def __getattr__(self, name):
        groups = _SNAPSHOT["modules"].get(self.__name__, {})
        if not any(name in group for group in groups.values()):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        numpys = getattr({"cupy": np, "cupy.linalg": np.linalg}.get(self.__name__), name, None)
        if name in groups["from_numpy"]:
            value = numpys
        elif name in groups["ufuncs"] and isinstance(numpys, np.ufunc):
            value = _ufunc(numpys, **groups["ufuncs"][name])
        elif name in groups["functions"] and numpys is not None:
            value = _function(name, groups["functions"][name], numpys)
        else:
            raise NotImplementedError(f"the double of CuPy lacks {self.__name__}.{name}")
        setattr(self, name, value)
        return value


class _CuPy(_Module):
    def array(self, obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
        sources = []
        memory = obj if isinstance(obj, np.ndarray) else _memory(obj, sources)
        here = isinstance(obj, ndarray) and obj._device_id == _runtime.getDevice()
        memory = np.array(memory, dtype, copy=copy if here else True, order=order, ndmin=ndmin)
        if not sources and memory.ndim:  # a scalar travels with the kernel that fills the array
            _happens("h2d", "array() of host data")
        return _wrap(memory, sources)

    def asarray(self, a, dtype=None, order=None, *, copy=None, blocking=False):
        return self.array(a, dtype, copy, order)

    def empty(self, shape, dtype=float, order="C"):
        return self.empty_like(_wrap(np.empty(shape, dtype, order)))

    def empty_like(self, prototype, dtype=None, order="K", subok=None, shape=None):
        memory = np.empty_like(prototype._memory, dtype, order, shape=shape)
        poison = np.iinfo(memory.dtype).max if memory.dtype.kind in "iu" else np.nan
        memory.fill(poison)  # so that an element which nobody writes shows
        return _wrap(memory)

    def asnumpy(self, a, stream=None, order="C", out=None, *, blocking=True):
        on_device = isinstance(a, ndarray)
        return a.get(stream, order, out, blocking) if on_device else np.asarray(a, order=order)

    def get_array_module(self, *args):
        return self if any(isinstance(value, ndarray) for value in args) else np

    def from_dlpack(self, array, *, device=None, copy=None):
        if array.__dlpack_device__()[0] != 2:
            raise TypeError("CPU arrays cannot be directly imported to CuPy.")
        with Device(array.__dlpack_device__()[1]):
            return _wrap(array.__dlpack__(stream=1).exported._memory)


class Generator:
    def __init__(self, bit_generator):
        host, parameters = np.random.Generator(bit_generator), "size=(), dtype=..., out=..."
        self.random = _function("random", parameters, host.random)
        self.standard_normal = _function("standard_normal", parameters, host.standard_normal)


cupy, cupyx = _CuPy("cupy"), _Module("cupyx")
cupy.linalg, cupy.random, cupy.cuda = map(_Module, ("cupy.linalg", "cupy.random", "cupy.cuda"))
cupy.__version__, cupy.ndarray = _SNAPSHOT["cupy_version"], ndarray
cupy.random.default_rng = lambda seed=None: Generator(np.random.Philox(seed))
cupy.cuda.Device, cupy.cuda.runtime, cupy.random.Generator = Device, _runtime, Generator
cupy.cuda.is_available = cupy.is_available = lambda: _runtime.count > 0
cupyx.scatter_add = lambda a, slices, value: cupy.add.at(a, slices, value)
cupyx.scipy, cupyx.scipy.special = _Module("cupyx.scipy"), _Module("cupyx.scipy.special")
cupyx.scipy.special.erf = _function(
    "erf",
    _SNAPSHOT["modules"]["cupyx.scipy.special"]["ufuncs"]["erf"]["parameters"],
    lambda x: np.asarray(  # that of float16 is float64
        np.frompyfunc(math.erf, 1, 1)(x), np.float32 if x.dtype == np.float32 else np.float64
    ),
)
_MODULES = {m.__name__: m for m in (cupy, cupy.linalg, cupy.random, cupy.cuda, cupyx)}
_MODULES |= {m.__name__: m for m in (cupyx.scipy, cupyx.scipy.special)}
_replaced = {}


def install(devices=2):
    """Puts the double into sys.modules, as the CuPy of a machine with so many GPUs."""
    uninstall()
    for name in [name for name in sys.modules if name.split(".")[0] in ("cupy", "cupyx")]:
        _replaced[name] = sys.modules.pop(name)
    sys.modules.update(_MODULES)
    _Runtime.count, _runtime.current = devices, 0
    stats.clear()
    return cupy


def uninstall():
    """Restores what `install` found."""
    if sys.modules.get("cupy") is cupy:
        for name in _MODULES:
            del sys.modules[name]
        sys.modules.update(_replaced)
        _replaced.clear()
