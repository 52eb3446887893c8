"""Functions of CuPy that make arrays, and what else no signature tells: cupy.random, erf."""

import math

import numpy as np

from .arrays import function, launch, memory_of, ndarray, wrap
from .events import happens
from .names import SNAPSHOT, cupy, cupyx
from .pinned import Upload, is_pinned
from .runtime import Device, runtime


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    sources = []
    memory = obj if isinstance(obj, np.ndarray) else memory_of(obj, sources)
    here = isinstance(obj, ndarray) and obj._device_id == runtime.getDevice()

    def copied():
        return np.array(memory, dtype, copy=copy if here else True, order=order, ndmin=ndmin)

    result = copied()
    if not sources and result.ndim and is_pinned(obj) and obj.dtype == result.dtype:
        Upload(obj, result, None)
    elif not sources and result.ndim:
        happens("h2d", "array() of host data")
    elif not sources or (here and not np.may_share_memory(result, memory)):
        result = launch("copy", sources, copied)  # a scalar travels with the kernel that fills
    return wrap(result, sources)


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    return array(a, dtype, copy, order)


def empty(shape, dtype=float, order="C"):
    return empty_like(wrap(np.empty(shape, dtype, order)))


def empty_like(prototype, dtype=None, order="K", subok=None, shape=None):
    memory = np.empty_like(prototype._memory, dtype, order, shape=shape)
    poison = np.iinfo(memory.dtype).max if memory.dtype.kind in "iu" else np.nan
    memory.fill(poison)  # so that an element which nobody writes shows
    return wrap(memory)


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    on_device = isinstance(a, ndarray)
    return a.get(stream, order, out, blocking) if on_device else np.asarray(a, order=order)


def get_array_module(*args):
    return cupy if any(isinstance(value, ndarray) for value in args) else np


def from_dlpack(array, *, device=None, copy=None):
    if array.__dlpack_device__()[0] != 2:
        raise TypeError("CPU arrays cannot be directly imported to CuPy.")
    with Device(array.__dlpack_device__()[1]):
        return wrap(array.__dlpack__(stream=1).exported._memory)


class Generator:
    def __init__(self, bit_generator):
        host, parameters = np.random.Generator(bit_generator), "size=(), dtype=..., out=..."
        for name in ("random", "standard_normal"):
            setattr(self, name, function(name, parameters, _drawing(host, getattr(host, name))))


def _drawing(host, draw):
    """The state lies on the device: it moves when the kernel runs, not when that is captured."""

    def drawn(*args, **options):
        before = host.bit_generator.state
        values = draw(*args, **options)
        if runtime.capture:
            host.bit_generator.state = before
        return values

    return drawn


def _erf(x):
    dtype = np.float32 if x.dtype.char in "fE" else np.float64  # that of float16 is float64
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x), dtype)


for _function in (array, asarray, empty, empty_like, asnumpy, get_array_module, from_dlpack):
    setattr(cupy, _function.__name__, _function)
cupy.__version__, cupy.ndarray = SNAPSHOT["cupy_version"], ndarray
cupy.random.default_rng = lambda seed=None: Generator(np.random.Philox(seed))
cupy.random.Generator = Generator
cupy.cuda.Device, cupy.cuda.runtime = Device, runtime
cupy.cuda.is_available = cupy.is_available = lambda: runtime.count > 0
cupyx.scatter_add = lambda a, slices, value: cupy.add.at(a, slices, value)
_of_erf = SNAPSHOT["modules"]["cupyx.scipy.special"]["ufuncs"]["erf"]["parameters"]
cupyx.scipy.special.erf = function("erf", _of_erf, _erf)
