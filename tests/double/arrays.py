"""Arrays of the double: NumPy memory, and calls bound to CuPy's signatures."""

import collections
import inspect
import operator
from types import SimpleNamespace

import numpy as np

from .events import happens
from .graphs import get_current_stream, run
from .memory import Block
from .names import MODULES, SNAPSHOT, cupy
from .pinned import copy_from_host
from .runtime import Device, runtime

_TRAITS = SNAPSHOT["traits"]
_SCALARS = (bool, int, float, complex, np.generic)


def _no_bfloat16(value):
    """Some functions of CuPy's have no kernel for it, and take that for float32."""
    code = getattr(getattr(value, "dtype", None), "char", None)
    return value.astype(np.float32) if code == "E" else value


def _where(*args):
    found = np.where(*map(_no_bfloat16, args))
    return np.asarray(found, order="C") if args[1:] else found


def _sorting(function):
    def sort(a, *args, **options):
        if a.dtype.char == "E":
            raise NotImplementedError(f"Sorting arrays with dtype '{a.dtype}' is not supported")
        return function(a, *args, **options)

    return sort


# CuPy does otherwise than NumPy: it refuses `casting`, wraps indices, gives C order, plain tuples.
_OTHERWISE = {
    "astype": lambda a, dtype, order="K", *, copy=True: a.astype(dtype, order, copy=copy),
    "clip": lambda *args: np.clip(*map(_no_bfloat16, args)),
    "eigh": lambda *args, **options: tuple(np.linalg.eigh(*args, **options)),
    "sort": _sorting(np.sort),
    "argsort": _sorting(np.argsort),
    "take": lambda *args, **options: np.take(*args, mode="wrap", **options),
    "where": _where,
}
_Flags = collections.namedtuple("Flags", "c_contiguous f_contiguous owndata")


def memory_of(value, found):
    """The value with NumPy memory for its device arrays, which join `found`; no others pass."""
    if isinstance(value, ndarray):
        found.append(value)
        return value._memory
    if isinstance(value, (list, tuple)):
        return type(value)([memory_of(item, found) for item in value])
    is_array = hasattr(type(value), "__array__") or hasattr(type(value), "__array_ufunc__")
    if is_array and not isinstance(value, np.generic):
        raise TypeError(f"Unsupported type {type(value)}")
    return value


def wrap(result, sources=()):
    """NumPy's result as device arrays: a source itself, a view of a source, or a new array."""
    if isinstance(result, (list, tuple)):
        return type(result)([wrap(item, sources) for item in result])
    array = object.__new__(ndarray)
    array._memory, array._device_id, array.base = np.asarray(result), runtime.getDevice(), None
    for source in sources:
        if source._memory is result:
            return source
        if np.may_share_memory(source._memory, array._memory):
            array._device_id = source._device_id
            array.base = source if source.base is None else source.base
    array._block = Block(array._memory) if array.base is None else array.base._block
    return array


def launch(name, arrays, compute, has_result=True, written=None):
    """A kernel runs on the current device and reaches the arrays of no other."""
    for other in {array._device_id for array in arrays} - {runtime.getDevice()}:
        raise ValueError(f"The array is on device {other}, the current one is {runtime.current}")
    memories, blocks = [a._memory for a in arrays], [a._block for a in arrays]
    written = None if written is None else [array._block for array in written]
    return run(name, compute, memories, blocks, has_result, written)


def _is_view(result, sources):
    """Whether there is nothing to compute: it is memory of a source, seen in another way."""
    items = result if isinstance(result, (list, tuple)) else [result]
    seen = [any(np.may_share_memory(a, source._memory) for source in sources) for a in items]
    return all(a_seen or not a.size for a, a_seen in zip(items, seen))


def function(name, parameters, compute):
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
        memory_of(list(arguments.values())[:1], in_first := [])
        lists = name.startswith("cupy_") and any(isinstance(x, (list, tuple)) for x in args)
        if lists or not (in_first or takes_any):
            raise TypeError(f"Unsupported type among {[type(value) for value in args]}")
        memory_args = memory_of(args, sources := [])
        memory_kwargs = {key: memory_of(value, sources) for key, value in kwargs.items()}
        if name in _TRAITS["reduce"] and not sources[0].ndim and arguments.get("axis") in (0, -1):
            raise np.exceptions.AxisError(arguments["axis"], 0)
        if name in _TRAITS["synchronize"] or (name == "where" and len(args) == 1):
            happens("sync", name)
        if on_host:
            return compute(*memory_args, **memory_kwargs)

        def computed():
            with np.errstate(all="ignore"):  # a GPU tells of no overflow or division by zero
                return compute(*memory_args, **memory_kwargs)

        if name in _TRAITS["view"] or name == "astype":
            result = computed()
            if _is_view(result, sources):
                return wrap(result, sources)
        many_small = len(sources) > 8 and sum(a.nbytes for a in sources) < len(sources) << 21
        if name in _TRAITS["join"] and many_small and len({a.dtype for a in sources}) == 1:
            happens("h2d", "the addresses of the arrays")
        if runtime.capture and name in _TRAITS["cublas"]:
            _refuse_cublas(computed())
        result = launch(name, sources, computed)
        return None if result is None else wrap(result, sources)

    return call


def _refuse_cublas(result):
    """Integers, and a product that is one number, CuPy multiplies and sums by itself."""
    items = result if isinstance(result, (list, tuple)) else [result]
    if any(np.asarray(a).dtype.kind in "fc" and np.size(a) > 1 for a in items):
        raise NotImplementedError("calling cuBLAS API during stream capture is unsupported")


def ufunc(numpy_ufunc, name, parameters, has_at):
    def at(a, indices, b=None):
        if not has_at:
            raise NotImplementedError(f"`{name}.at` is not supported yet")
        _scatter(a, indices, b, numpy_ufunc)

    def reduce(array, axis=0, dtype=None, out=None, keepdims=False):
        if name not in ("cupy_add", "cupy_multiply"):
            raise NotImplementedError(f"`{name}.reduce` is not supported yet")
        return getattr(array, "sum" if name == "cupy_add" else "prod")(axis, dtype, out, keepdims)

    call = function(name, parameters, lambda *x, **options: numpy_ufunc(*x, order="C", **options))
    call.at, call.reduce = at, reduce
    return call


def _memory_index(array, index):
    """NumPy's form of an index, as a function, and the arrays in it: then it gathers elements
    instead of giving a view."""
    parts = list(index) if isinstance(index, tuple) else [index]
    for position, part in enumerate(parts):
        if isinstance(part, (list, tuple, np.ndarray)):  # which CuPy copies without a word
            parts[position] = cupy.asarray(part, None if np.size(part) else int)
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)  # which keeps a single element a 0-d array
    masks = [part for part in parts if isinstance(part, ndarray) and part.dtype == bool]
    if masks:
        happens("sync", "a boolean mask, whose true elements have to be counted")
    sources = [part for part in parts if isinstance(part, ndarray)]

    def found():
        """The index as it is when the kernel runs."""
        axis, skipped = 0, array.ndim + 1 - sum(part is not None for part in parts)
        index = []
        for part in parts:
            if isinstance(part, ndarray):  # of integers none is found out of range: they wrap
                memory = part._memory
                index.append(memory if masks else memory % max(array.shape[axis], 1))
            else:
                index.append(part)
            axis += skipped if part is Ellipsis else part is not None
        return tuple(index)

    return found, sources


def _scatter(array, index, value, ufunc=None):
    """`array[index] = value`, or `ufunc.at(array, index, value)`."""
    places, gathers = _memory_index(array, index)
    if gathers and not isinstance(value, ndarray):
        value = cupy.asarray(value, array.dtype)  # CuPy copies a host array here without a word
    elif ufunc is None and not isinstance(value, ndarray) and np.ndim(value):
        raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
    memory = memory_of(value, found := [array])
    change = operator.setitem if ufunc is None else ufunc.at
    launch("scatter", [*found, *gathers], lambda: change(array._memory, places(), memory))


class ndarray:
    __slots__ = ("__weakref__", "_block", "_device_id", "_memory", "base")
    __array_priority__ = 100
    __hash__ = None

    device = property(lambda self: Device(self._device_id))
    data = property(lambda s: SimpleNamespace(ptr=s._memory.ctypes.data, device_id=s._device_id))
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
        module = MODULES.get(numpy_function.__module__.replace("numpy", "cupy"))
        function = getattr(module, numpy_function.__name__, None)
        known = all(issubclass(kind, (ndarray, np.ndarray)) for kind in classes)
        return function(*args, **kwargs) if function and known else NotImplemented

    def __len__(self):
        return len(self._memory)

    def __getitem__(self, index):
        places, gathers = _memory_index(self, index)
        if not gathers:
            return wrap(self._memory[places()], [self])
        return wrap(launch("gather", [self, *gathers], lambda: self._memory[places()]))

    __setitem__ = _scatter

    def get(self, stream=None, order="C", out=None, blocking=True):
        happens("d2h", "a copy to the host")
        if blocking:
            happens("sync", "a copy to the host")
        (get_current_stream() if stream is None else stream)._read(self._block, blocking)
        out = np.empty(self.shape, self.dtype, order) if out is None else out
        np.copyto(out, self._memory, casting="no")
        return out

    def set(self, arr, stream=None):
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if self.dtype != arr.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if self.shape != arr.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        copy_from_host(arr, self._memory, stream)

    def __deepcopy__(self, memo):
        with self.device:
            return self.copy()

    def __dlpack_device__(self):
        return 2, self._device_id

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        return SimpleNamespace(exported=self)  # which only the double's from_dlpack takes


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
for _name, _description in SNAPSHOT["ndarray"]["operators"].items():
    setattr(ndarray, _name, _operator(*_description))
for _name, _parameters in SNAPSHOT["ndarray"]["methods"].items():
    if _name not in vars(ndarray) and hasattr(np.ndarray, _name):
        setattr(ndarray, _name, function(_name, _parameters, getattr(np.ndarray, _name)))
ndarray.__copy__ = ndarray.copy
