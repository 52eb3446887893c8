"""Operators and methods of Tensor, creation, and exchange with NumPy, CuPy and other libraries."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from . import backend, ops
from .engine import backward
from .graph import Tensor, at_place, describe, new_leaf, op
from .recording import recording, write

__all__ = [
    "arange",
    "from_dlpack",
    "full",
    "named",
    "ones",
    "ones_like",
    "rand",
    "randn",
    "tensor",
    "zeros",
    "zeros_like",
]


def _method(function: Callable) -> Callable:
    """Add a function of this file to Tensor, as the method of its name."""
    setattr(Tensor, function.__name__, function)
    return function


def _property(function: Callable) -> property:
    setattr(Tensor, function.__name__, property(function))
    return getattr(Tensor, function.__name__)


# --- What a Tensor is ---------------------------------------------------------------------------


@_property
def shape(self) -> tuple[int, ...]:
    return self.data.shape


@_property
def dtype(self) -> np.dtype:
    return self.data.dtype


@_property
def ndim(self) -> int:
    return self.data.ndim


@_property
def size(self) -> int:
    """The number of elements."""
    return self.data.size


@_property
def device(self) -> str:
    """Where the array lives: "cpu", "cuda:0", …"""
    return backend.device_of(self.data)


@_property
def is_leaf(self) -> bool:
    """Whether the user made it: it is not the result of a recorded op."""
    return self.node is None or not self.node.owners


@_property
def requires_grad(self) -> bool:
    """Whether a gradient can arrive here: the Tensor has a place in the graph."""
    return self.node is not None


@requires_grad.setter
def requires_grad(self, wanted: bool) -> None:
    if not self.is_leaf:
        raise RuntimeError("requires_grad: wants a leaf, got the result of an op; use detach()")
    if bool(wanted) != self.requires_grad:
        self.node = new_leaf(self.data) if wanted else None


Tensor.requires_grad = requires_grad


@_property
def grad(self) -> Tensor | None:
    """What backward added up here: for leaves, and where `retain_grad` was called."""
    return None if self.node is None or self.node.grads is None else self.node.grads.get(self.index)


@grad.setter
def grad(self, value: Tensor | None) -> None:
    if value is None:
        if self.node is not None and self.node.grads is not None:
            self.node.grads.pop(self.index, None)
    elif not isinstance(value, Tensor) or self.node is None or self.node.owners:
        raise TypeError(
            f"grad: got {type(value).__name__}, wants None, or a Tensor at a leaf that requires "
            "a gradient"
        )
    elif (value.shape, value.dtype, value.device) != (self.shape, self.dtype, self.device):
        raise ValueError(f"grad: got {describe(value.data)}, wants {describe(self.data)}")
    else:
        self.node.grads[0] = value.detach()


Tensor.grad = grad


@_method
def requires_grad_(self, wanted: bool = True) -> Tensor:
    """Set `requires_grad` and return the Tensor."""
    self.requires_grad = wanted
    return self


# --- The graph ----------------------------------------------------------------------------------

Tensor.backward = backward


@_method
def detach(self) -> Tensor:
    """The same array as a constant, outside the graph."""
    return at_place(self.data)


@_method
def retain_grad(self) -> None:
    """Keep `.grad` here in later backward passes, though this is an intermediate result."""
    if self.node is None:
        raise RuntimeError("retain_grad: this Tensor does not require a gradient")
    if self.node.grads is None:
        self.node.grads = {}
    if self.node.owners:
        self.node.grads.setdefault(self.index, None)


class HookHandle:
    """What `register_hook` returns: `remove()` takes the hook away."""

    def __init__(self, hooks: list, hook: Callable) -> None:
        self._hooks, self._hook = hooks, hook

    def remove(self) -> None:
        if self._hook in self._hooks:
            self._hooks.remove(self._hook)


@_method
def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> HookHandle:
    """Call `hook` with the finished gradient at this place in every backward pass; a Tensor that it
    returns takes the gradient's place."""
    if self.node is None:
        raise RuntimeError("register_hook: this Tensor does not require a gradient")
    if self.node.hooks is None:
        self.node.hooks = {}
    hooks = self.node.hooks.setdefault(self.index, [])
    hooks.append(hook)
    return HookHandle(hooks, hook)


def named(name: str, value: Any) -> Any:
    """`value`, which is called `name` in pictures. An array is handed through untouched."""
    if isinstance(value, Tensor):
        value.name = name
        trace = getattr(value.node, "trace", None)
        if trace is not None:
            trace.names[value.index] = name
    return value


# --- Operators ----------------------------------------------------------------------------------

_OPERATORS = {
    "add": ops.add,
    "sub": ops.sub,
    "mul": ops.mul,
    "truediv": ops.div,
    "pow": ops.pow,
    "matmul": ops.matmul,
}
_COMPARISONS = {
    "eq": ops.equal,
    "ne": ops.not_equal,
    "lt": ops.less,
    "le": ops.less_equal,
    "gt": ops.greater,
    "ge": ops.greater_equal,
}


def _in_place(operator: str, function: Callable) -> Callable:
    def change(self, other):
        if not self.is_leaf or not self.requires_grad:
            return function(self, other)  # as for any Python object: the name is bound anew
        if recording.get():
            raise RuntimeError(
                f"{operator}: a leaf that requires a gradient can be changed in place only "
                "inside no_grad()"
            )
        write(self.data, function(self, other).data)
        return self

    return change


for _name, _function in _OPERATORS.items():
    setattr(Tensor, f"__{_name}__", lambda self, other, f=_function: f(self, other))
    setattr(Tensor, f"__r{_name}__", lambda self, other, f=_function: f(other, self))
    setattr(Tensor, f"__i{_name}__", _in_place(f"i{_name}", _function))
for _name, _function in _COMPARISONS.items():
    setattr(Tensor, f"__{_name}__", lambda self, other, f=_function: f(self, other))
Tensor.__neg__ = lambda self: ops.neg(self)
Tensor.__pos__ = lambda self: self
Tensor.__abs__ = lambda self: ops.abs(self)
Tensor.__hash__ = object.__hash__  # by identity, though == compares elementwise


@_method
def __getitem__(self, index: Any) -> Tensor:
    return ops.getitem(self, index=ops.array_index(self, index))


@_method
def __setitem__(self, index: Any, value: Any) -> None:
    raise TypeError(
        "a Tensor's elements cannot be assigned, for the graph would not know; make a new Tensor "
        "with where(mask, value, t), or change t.data before it is used"
    )


@_method
def __len__(self) -> int:
    if not self.shape:
        raise TypeError("len() of a 0-d Tensor")
    return self.shape[0]


@_method
def __iter__(self) -> Iterator[Tensor]:
    return (self[i] for i in range(len(self)))


# --- Methods that are ops -----------------------------------------------------------------------

for _function in (
    *(ops.exp, ops.log, ops.sqrt, ops.tanh, ops.sigmoid, ops.relu, ops.abs),
    *(ops.sum, ops.mean, ops.var, ops.max, ops.min, ops.amax, ops.amin),
    *(ops.argmax, ops.argmin, ops.logsumexp, ops.softmax, ops.log_softmax),
    *(ops.squeeze, ops.expand_dims, ops.swapaxes, ops.astype, ops.split),
):

    def _call(self, *args, _function=_function, **kwargs):
        return _function(self, *args, **kwargs)

    _call.__name__, _call.__doc__ = _function.__name__, _function.__doc__
    setattr(Tensor, _function.__name__, _call)


def _integers(arguments: tuple) -> tuple[int, ...]:
    """`f(2, 3)` and `f((2, 3))` alike."""
    if len(arguments) == 1 and isinstance(arguments[0], Sequence):
        return tuple(arguments[0])
    return arguments


@_method
def reshape(self, *shape: int | Sequence[int]) -> Tensor:
    """The Tensor with another shape; one entry may be -1."""
    return ops.reshape(self, shape=_integers(shape))


@_method
def broadcast_to(self, *shape: int | Sequence[int]) -> Tensor:
    """The Tensor repeated to `shape`."""
    return ops.broadcast_to(self, shape=_integers(shape))


@_method
def transpose(self, *axes: int | Sequence[int]) -> Tensor:
    """The Tensor with its axes in the order `axes` (reversed without)."""
    return ops.transpose(self, axes=_integers(axes) if axes else None)


@_method
def flatten(self) -> Tensor:
    """The Tensor as a vector."""
    return ops.reshape(self, shape=(-1,))


Tensor.T = property(ops.transpose, doc="The Tensor with its axes reversed.")


# --- Devices ------------------------------------------------------------------------------------


@op("to", lambda g, _out, _x, device, source: _transfer(g, device=source, source=device))
def _transfer(xp, x, *, device, source):
    """x copied from the device `source` to `device`."""
    return backend.to_device(x, device)


@_method
def to(self, device: str) -> Tensor:
    """The Tensor on "cpu", "cuda" or "cuda:N"; itself if it is there. Differentiable."""
    device = backend.canonical_device(device)
    if device == self.device:
        return self
    return _transfer(self, device=device, source=self.device)


@_method
def cpu(self) -> Tensor:
    return self.to("cpu")


@_method
def cuda(self) -> Tensor:
    return self.to("cuda")


# --- Leaving the graph --------------------------------------------------------------------------


@_method
def numpy(self) -> np.ndarray:
    """The array, shared and not copied, of a Tensor on the CPU that requires no gradient."""
    if self.requires_grad:
        raise RuntimeError("a Tensor that requires a gradient: call detach() first, then numpy()")
    if self.device != "cpu":
        raise RuntimeError(f"a Tensor on {self.device}: call cpu() first, then numpy()")
    return self.data


@_method
def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    array = self.numpy()
    return np.array(array, dtype=dtype, copy=copy)


@_method
def __array_ufunc__(self, ufunc, method, *inputs, **options):
    # An operator with a NumPy array on the left arrives here, and is ours.
    ours = _UFUNCS.get(ufunc)
    if ours is not None and method == "__call__" and not options:
        return ours(*inputs)
    return _refuse(f"numpy.{ufunc.__name__}", ufunc.__name__)


@_method
def __array_function__(self, function, types, args, options):
    return _refuse(f"{function.__module__}.{function.__name__}", function.__name__)


_UFUNCS = {
    np.add: ops.add,
    np.subtract: ops.sub,
    np.multiply: ops.mul,
    np.true_divide: ops.div,
    np.power: ops.pow,
    np.matmul: ops.matmul,
    np.equal: ops.equal,
    np.not_equal: ops.not_equal,
    np.less: ops.less,
    np.less_equal: ops.less_equal,
    np.greater: ops.greater,
    np.greater_equal: ops.greater_equal,
}
_OURS = {"absolute": "abs", "negative": "neg", "array": "tensor", "asarray": "tensor"}


def _refuse(theirs: str, name: str) -> None:
    name = _OURS.get(name, name)
    advice = f"use tinygrad_bn.{name}" if name in ops.__all__ or name in __all__ else ""
    raise TypeError(
        f"{theirs} was called on a Tensor, which would leave the graph: "
        f"{advice + ', or ' if advice else ''}call detach().numpy() first"
    )


@_method
def item(self) -> float | int | bool:
    """The only element, as a Python number. On a GPU this waits for it."""
    if self.size != 1:
        raise ValueError(f"item: wants one element, got {describe(self.data)}")
    return self.data.item()


@_method
def tolist(self) -> Any:
    """The elements as nested Python lists."""
    return self.data.tolist()


for _kind in (float, int, bool):
    setattr(Tensor, f"__{_kind.__name__}__", lambda self, kind=_kind: kind(self.item()))


@_method
def __index__(self) -> int:
    if self.dtype.kind not in "iu":
        raise TypeError(f"an index must be an integer, got {describe(self.data)}")
    return self.item()


@_method
def __format__(self, spec: str) -> str:
    return format(self.item(), spec) if spec else repr(self)


@_method
def __repr__(self) -> str:
    host = backend.to_device(self.data, "cpu")
    parts = [np.array2string(host, precision=4, separator=", ", prefix="tensor(")]
    if self.dtype not in (backend.default_dtype, np.int64, np.bool_):
        parts.append(f"dtype={self.dtype}")
    if self.device != "cpu":
        parts.append(f"device={self.device!r}")
    if self.node is not None:
        parts.append("requires_grad=True" if self.is_leaf else f"op={self.node.op.name}")
    return f"tensor({', '.join(parts)})"


@_method
def __dlpack__(self, **options: Any) -> Any:
    if self.requires_grad:
        raise BufferError("a Tensor that requires a gradient: export its detach()")
    return self.data.__dlpack__(**options)


@_method
def __dlpack_device__(self) -> tuple[int, int]:
    return self.data.__dlpack_device__()


# --- Copies -------------------------------------------------------------------------------------


def _copy(self: Tensor, array: Any) -> Tensor:
    if not self.is_leaf:
        raise RuntimeError("only a leaf can be copied, not the result of an op; copy its detach()")
    copy = type(self).__new__(type(self))
    copy.data, copy.index, copy.name = array, 0, self.name
    copy.node = new_leaf(array) if self.requires_grad else None
    return copy


@_method
def __copy__(self) -> Tensor:
    return _copy(self, self.data)


@_method
def __deepcopy__(self, memo: dict) -> Tensor:
    copy = _copy(self, self.data.copy())
    if self.grad is not None:
        copy.grad = at_place(self.grad.data.copy())
    memo[id(self)] = copy
    return copy


@_method
def __reduce_ex__(self, protocol: int) -> Any:
    raise TypeError(
        "a Tensor is not pickled, for a pickle can run code when it is read; save a module's "
        "state_dict(), or tensor.numpy(), in a format for arrays (numpy.savez, safetensors)"
    )


# --- Creation -----------------------------------------------------------------------------------


def tensor(
    data: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """A Tensor with a copy of `data`: a number, nested lists, an array, a Tensor.

    Python floats become float32, integers int64; arrays keep their dtype. It is made on `device`;
    without one, a CuPy array stays where it is, and all else goes to the default device.
    """
    if isinstance(data, Tensor):
        data = data.data
    if device is None and (not backend.is_array(data) or isinstance(data, np.ndarray)):
        device = backend.get_default_device()
    array = backend.as_array(data, dtype, device)
    if array is data or backend.storage(array) is backend.storage(data):
        array = array.copy()
    return Tensor(array, requires_grad)


def _fill(value: float, shape: Any, dtype: Any, device: str | None, requires_grad: bool) -> Tensor:
    host = np.full(shape, value, backend.default_dtype if dtype is None else dtype)
    return Tensor(
        backend.as_array(host, device=device or backend.get_default_device()), requires_grad
    )


def zeros(shape, dtype=None, device=None, requires_grad=False) -> Tensor:
    """Zeros of a shape (float32 unless `dtype` says otherwise)."""
    return _fill(0, shape, dtype, device, requires_grad)


def ones(shape, dtype=None, device=None, requires_grad=False) -> Tensor:
    """Ones of a shape."""
    return _fill(1, shape, dtype, device, requires_grad)


def full(shape, value, dtype=None, device=None, requires_grad=False) -> Tensor:
    """A shape filled with `value`."""
    return _fill(value, shape, dtype, device, requires_grad)


def zeros_like(t: Tensor) -> Tensor:
    """Zeros with the shape, dtype and device of `t`."""
    return zeros(t.shape, t.dtype, t.device)


def ones_like(t: Tensor) -> Tensor:
    """Ones with the shape, dtype and device of `t`."""
    return ones(t.shape, t.dtype, t.device)


def arange(start, stop=None, step=1, dtype=None, device=None) -> Tensor:
    """start, start + step, … below stop; arange(n) counts from 0. Integers give int64."""
    values = np.arange(start, step=step) if stop is None else np.arange(start, stop, step)
    if dtype is None and values.dtype.kind == "f":
        dtype = backend.default_dtype
    return tensor(values, dtype, device)


def randn(*shape: int, dtype=None, device=None, requires_grad=False) -> Tensor:
    """Normal random numbers from the generator that `manual_seed` seeds."""
    values = backend.generator().standard_normal(_integers(shape))
    return tensor(values, dtype or backend.default_dtype, device, requires_grad)


def rand(*shape: int, dtype=None, device=None, requires_grad=False) -> Tensor:
    """Uniform random numbers in [0, 1) from the generator that `manual_seed` seeds."""
    values = backend.generator().random(_integers(shape))
    return tensor(values, dtype or backend.default_dtype, device, requires_grad)


def from_dlpack(source: Any) -> Tensor:
    """A Tensor that shares the memory of another library's array, on the device where it is."""
    kind, _ = source.__dlpack_device__()
    module = np if kind == 1 else backend.require_cupy("cuda")
    return Tensor(module.from_dlpack(source))
