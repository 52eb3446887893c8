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
import dataclasses
import functools
import inspect
import json
import sys
import threading
import types
import warnings
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np

_SNAPSHOT = json.loads((Path(__file__).parent / "data/cupy_signatures.json").read_text())
# Functions want a device array as their first argument, but for these: they make one ...
_CREATE = {"arange", "eye", "full", "identity", "linspace", "ones", "tri", "zeros"}
_CREATE |= {"random", "standard_normal"}
# ... or answer on the host, from shapes and dtypes alone.
_ANSWER_ON_HOST = {
    "can_cast",
    "isscalar",
    "may_share_memory",
    "ndim",
    "result_type",
    "shape",
    "size",
}
# These make the host wait: the shape of their result depends on what is in the arrays.
_SYNCHRONIZE = {"argwhere", "compress", "delete", "extract", "flatnonzero", "nonzero", "repeat"}
_SYNCHRONIZE |= {"unique", "unique_all", "unique_counts", "unique_inverse", "unique_values"}
# What CuPy does otherwise than NumPy: `casting` is refused, indices wrap around, C order comes out.
_OTHERWISE = {
    "astype": lambda a, dtype, order="K", *, copy=True: a.astype(dtype, order, copy=copy),
    "take": functools.partial(np.take, mode="wrap"),
    "where": lambda *args: np.asarray(np.where(*args), order="C") if args[1:] else np.where(*args),
}
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


@dataclasses.dataclass
class Device:
    id: int = dataclasses.field(default_factory=_runtime.getDevice)
    _outer: list = dataclasses.field(default_factory=list, repr=False, compare=False)

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
            array._device_id = source._device_id
            array.base = source if source.base is None else source.base
    return array


def _launch(name, arrays):
    """A kernel runs on the current device and reaches the arrays of no other."""
    for other in {array._device_id for array in arrays} - {_runtime.getDevice()}:
        raise ValueError(
            f"The device where the array resides ({other}) is different from the current device "
            f"({_runtime.current}). Peer access is unavailable between these devices."
        )
    _happens("kernel", name)


def _function(name, parameters, compute, is_ufunc=False):
    """CuPy's function, method or ufunc of that name, computed by NumPy's."""
    # The snapshot holds plain parameter lists, such as "a, axis=..., *, out=...".
    signature = inspect.signature(eval(f"lambda {parameters}: None"))
    compute = _OTHERWISE.get(name, compute)

    def bind(args, kwargs):
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}() {error}") from None
        indices = bound.arguments.get("indices")
        if isinstance(indices, (list, np.ndarray)):  # which CuPy copies without a word
            bound.arguments["indices"] = cupy.asarray(indices, int)
            args, kwargs = bound.args, bound.kwargs
        first = next(iter(bound.arguments.values()), None)
        _memory(first, in_first := [])
        operands = args if is_ufunc else ()
        misfits = [x for x in operands if not isinstance(x, (ndarray, *_SCALARS))]
        if misfits or not (is_ufunc or in_first or name in _CREATE | _ANSWER_ON_HOST):
            raise TypeError(f"Unsupported type {type((misfits or [first])[0])}")
        if name in _SYNCHRONIZE or (name == "where" and len(bound.arguments) == 1):
            _happens("sync", name)
        return args, kwargs

    def call(*args, **kwargs):
        args, kwargs = bind(args, kwargs)
        memory_args = _memory(args, sources := [])
        memory_kwargs = {key: _memory(value, sources) for key, value in kwargs.items()}
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
        if isinstance(part, (list, np.ndarray)):
            _happens("h2d", "an index array from the host")
            part = np.asarray(part, None if np.size(part) else np.int32)
        parts[position] = part._memory if isinstance(part, ndarray) else part
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)  # which keeps a single element a 0-d array
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if any(part.dtype == bool for part in arrays):
        _happens("sync", "a boolean mask, whose true elements have to be counted")
        return tuple(parts), True
    # CuPy finds no index in an array out of range: they wrap around.
    axis, skipped = 0, array.ndim + 1 - sum(part is not None for part in parts)
    for position, part in enumerate(parts):
        if isinstance(part, np.ndarray):
            parts[position] = part % max(array.shape[axis], 1)
        axis += skipped if part is Ellipsis else part is not None
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


def _poisoned(memory):
    """So that an element which nobody writes shows."""
    poison = np.iinfo(memory.dtype).max if memory.dtype.kind in "iu" else np.nan
    memory.fill(poison)
    return memory


class ndarray:
    __slots__ = ("_memory", "_device_id", "base", "__weakref__")
    __array_priority__ = 100
    __hash__ = None

    def __init__(self, shape, dtype=float, *, order="C"):
        self._memory = _poisoned(np.empty(shape, dtype, order))
        self._device_id, self.base = _runtime.getDevice(), None

    device = property(lambda self: Device(self._device_id))
    data = property(lambda self: types.SimpleNamespace(ptr=self._memory.ctypes.data))
    T = property(lambda self: self if self.ndim < 2 else self.transpose())
    mT = property(lambda self: self.swapaxes(-1, -2))
    real = property(lambda self: _wrap(self._memory.real, [self]))
    imag = property(lambda self: _wrap(self._memory.imag, [self]))

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
    if symbol not in _COMPARISONS:
        setattr(ndarray, f"__r{symbol}__", lambda right, left: operate(left, right))
    if symbol not in {*_COMPARISONS, "matmul"}:
        setattr(ndarray, f"__i{symbol}__", lambda left, right: call(left, right, left))


_COMPARISONS = {"lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}
_COMPARISONS |= {"eq": "equal", "ne": "not_equal"}
_ARITHMETIC = {"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide"}
_ARITHMETIC |= {"floordiv": "floor_divide", "mod": "remainder", "pow": "power", "matmul": "matmul"}
_ARITHMETIC |= {"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor"}
for _symbol, _name in (_COMPARISONS | _ARITHMETIC).items():
    _add_operators(_symbol, _name)
for _symbol, _name in {
    "neg": "negative",
    "pos": "positive",
    "abs": "abs",
    "invert": "invert",
}.items():
    setattr(ndarray, f"__{_symbol}__", lambda self, _name=_name: getattr(cupy, _name)(self))
for _name in ("shape", "dtype", "ndim", "size", "itemsize", "nbytes", "strides"):
    setattr(ndarray, _name, property(lambda self, _name=_name: getattr(self._memory, _name)))
for _convert in (bool, int, float, complex, repr, str, format):
    _name = f"__{_convert.__name__}__"
    setattr(ndarray, _name, lambda self, *args, _to=_convert: _to(self.get(), *args))
for _name in ("item", "tolist", "tobytes", "tofile", "dump", "dumps"):
    _convert = getattr(np.ndarray, _name)
    setattr(ndarray, _name, lambda self, *args, _to=_convert: _to(self.get(), *args))
for _name, _parameters in _SNAPSHOT["ndarray"]["methods"].items():
    if hasattr(np.ndarray, _name) and _name not in vars(ndarray):
        setattr(ndarray, _name, _function(_name, _parameters, getattr(np.ndarray, _name)))


def _ufunc(numpy_ufunc, name, parameters, has_at):
    def at(a, indices, b=None):
        if not has_at:
            raise NotImplementedError(f"`{name}.at` is not supported yet")
        _scatter(a, indices, b, numpy_ufunc)

    def reduce(array, axis=0, dtype=None, out=None, keepdims=False):
        method = {"cupy_add": "sum", "cupy_multiply": "prod"}.get(name)
        if method is None:
            raise NotImplementedError(f"`{name}.reduce` is not supported yet")
        return getattr(array, method)(axis, dtype, out, keepdims)

    # Whatever the order of the operands, CuPy's result is in C order.
    call = _function(name, parameters, functools.partial(numpy_ufunc, order="C"), is_ufunc=True)
    call.at, call.reduce = at, reduce
    return call


class _Module(types.ModuleType):
    """A module of CuPy: what it is given, and the names in the snapshot."""

    def __init__(self, name, **members):
        super().__init__(name)
        self.__spec__, self.__path__ = ModuleSpec(name, None), []
        vars(self).update(members)

    def __getattr__(self, name):
        groups = _SNAPSHOT["modules"].get(self.__name__, {})
        if not any(name in group for group in groups.values()):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        numpys = getattr({"cupy": np, "cupy.linalg": np.linalg}.get(self.__name__), name, None)
        if name in groups["from_numpy"]:
            value = numpys
        elif name in groups["ufuncs"] and numpys is not None:
            value = _ufunc(numpys, **groups["ufuncs"][name])
        elif name in groups["functions"] and numpys is not None:
            value = _function(name, groups["functions"][name], numpys)
        else:

            def value(*args, **kwargs):
                raise NotImplementedError(f"the double of CuPy lacks {self.__name__}.{name}")

        setattr(self, name, value)
        return value


class _CuPy(_Module):
    def array(self, obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
        sources, order = [], order or "K"
        if isinstance(obj, np.ndarray):
            memory = np.array(obj, dtype, order="A" if order == "K" else order, ndmin=ndmin)
        else:
            memory = _memory(obj, sources)
            here = isinstance(obj, ndarray) and obj._device_id == _runtime.getDevice()
            memory = np.array(memory, dtype, copy=copy if here else True, order=order, ndmin=ndmin)
        array = _wrap(memory, sources)
        if not sources and array.ndim:
            _happens("h2d", "array() of host data")
        elif array is not obj:
            _happens("kernel", "array()")
        return array

    def asarray(self, a, dtype=None, order=None, *, copy=None, blocking=False):
        return self.array(a, dtype, copy, order, blocking=blocking)

    def empty(self, shape, dtype=float, order="C"):
        return ndarray(shape, dtype, order=order)

    def empty_like(self, prototype, dtype=None, order="K", subok=None, shape=None):
        return _wrap(_poisoned(np.empty_like(prototype._memory, dtype, order, shape=shape)))

    def asnumpy(self, a, stream=None, order="C", out=None, *, blocking=True):
        on_device = isinstance(a, ndarray)
        return a.get(stream, order, out, blocking) if on_device else np.asarray(a, order=order)

    def get_array_module(self, *args):
        return self if any(isinstance(value, ndarray) for value in args) else np

    def from_dlpack(self, array, *, device=None, copy=None):
        kind, device_id = array.__dlpack_device__()
        if kind != 2:
            raise TypeError("CPU arrays cannot be directly imported to CuPy.")
        with Device(device_id):
            return _wrap(array.__dlpack__(stream=1).exported._memory)


class Generator:
    def __init__(self, bit_generator):
        host, parameters = np.random.Generator(bit_generator), "size=..., dtype=..., out=..."
        self.random = _function("random", parameters, host.random)
        self.standard_normal = _function("standard_normal", parameters, host.standard_normal)


def _scatter_add(a, slices, value):
    warnings.warn("`ndarray.scatter_add` is deprecated", DeprecationWarning, stacklevel=2)
    cupy.add.at(a, slices, value)


cupy = _CuPy("cupy", __version__=_SNAPSHOT["cupy_version"], ndarray=ndarray)
cupy.linalg = _Module("cupy.linalg")
cupy.random = _Module("cupy.random", Generator=Generator)
cupy.random.default_rng = lambda seed=None: Generator(np.random.Philox(seed))
cupy.cuda = _Module("cupy.cuda", Device=Device, runtime=_runtime)
cupy.cuda.is_available = cupy.is_available = lambda: _runtime.count > 0
_MODULES = {module.__name__: module for module in (cupy, cupy.linalg, cupy.random, cupy.cuda)}
_MODULES["cupyx"] = _Module("cupyx", scatter_add=_scatter_add)
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
