"""Operators and methods of Tensor: what it is, its graph, its arithmetic, its device.

`engine.py` knows a bare Tensor; the rest is added here, and in `interop.py` what leaves the graph.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from . import backend, ops
from .engine import backward
from .graph import Tensor, at_place, describe, new_leaf, op
from .recording import recording, write

__all__ = ["named"]


def method(function: Callable) -> Callable:
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
    return self.node is None or not self.node.parents


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
        if self.grad is not None:
            self.node.grads[self.index] = None
    elif not isinstance(value, Tensor) or self.node is None or self.node.parents:
        raise TypeError(
            f"grad: got {type(value).__name__}, wants None, or a Tensor at a leaf that requires "
            "a gradient"
        )
    elif (value.shape, value.dtype, value.device) != (self.shape, self.dtype, self.device):
        raise ValueError(f"grad: got {describe(value.data)}, wants {describe(self.data)}")
    else:
        self.node.grads[0] = value.detach()


Tensor.grad = grad


@method
def requires_grad_(self, wanted: bool = True) -> Tensor:
    """Set `requires_grad` and return the Tensor."""
    self.requires_grad = wanted
    return self


# --- The graph ----------------------------------------------------------------------------------

Tensor.backward = backward


@method
def detach(self) -> Tensor:
    """The same array as a constant, outside the graph."""
    return at_place(self.data)


@method
def retain_grad(self) -> None:
    """Keep `.grad` here in later backward passes, though this is an intermediate result."""
    if self.node is None:
        raise RuntimeError("retain_grad: this Tensor does not require a gradient")
    if self.node.grads is None:
        self.node.grads = {}
    if self.node.parents:
        self.node.grads.setdefault(self.index, None)


class HookHandle:
    """What `register_hook` returns: `remove()` takes the hook away."""

    def __init__(self, hooks: list, hook: Callable) -> None:
        self._hooks, self._hook = hooks, hook

    def remove(self) -> None:
        if self._hook in self._hooks:
            self._hooks.remove(self._hook)
        self._hooks = []  # the same function may be registered twice


@method
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
    """`value`, a Tensor or Scalar that is called `name` in pictures. An array passes untouched."""
    if not isinstance(name, str):
        raise TypeError(f"named: got {describe(name)} as the name, wants text: named(name, value)")
    if hasattr(value, "name"):
        value.name = name
    trace = getattr(getattr(value, "node", None), "trace", None)
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
Tensor.__and__ = Tensor.__rand__ = lambda self, other: ops.bitwise_and(self, other)
Tensor.__or__ = Tensor.__ror__ = lambda self, other: ops.bitwise_or(self, other)
Tensor.__invert__ = lambda self: ops.invert(self)
Tensor.__hash__ = object.__hash__  # by identity, though == compares elementwise


@method
def __getitem__(self, index: Any) -> Tensor:
    return ops.getitem(self, index)


@method
def __setitem__(self, index: Any, value: Any) -> None:
    raise TypeError(
        "a Tensor's elements cannot be assigned, for the graph would not know; make a new Tensor "
        "with where(mask, value, t), or change t.data before it is used"
    )


@method
def __len__(self) -> int:
    if not self.shape:
        raise TypeError("len() of a 0-d Tensor")
    return self.shape[0]


@method
def __iter__(self) -> Iterator[Tensor]:
    return (self[i] for i in range(len(self)))


# --- Methods that are ops -----------------------------------------------------------------------

for _function in (
    *(ops.exp, ops.log, ops.sqrt, ops.sin, ops.cos, ops.tanh, ops.sigmoid, ops.erf),
    *(ops.relu, ops.abs, ops.clip),
    *(ops.sum, ops.prod, ops.cumsum, ops.mean, ops.var, ops.max, ops.min, ops.amax, ops.amin),
    *(ops.argmax, ops.argmin, ops.argsort, ops.logsumexp, ops.softmax, ops.log_softmax),
    *(ops.squeeze, ops.expand_dims, ops.swapaxes, ops.flip, ops.astype, ops.split, ops.sort),
):

    def _call(self, *args, _function=_function, **kwargs):
        return _function(self, *args, **kwargs)

    _call.__name__, _call.__doc__ = _function.__name__, _function.__doc__
    setattr(Tensor, _function.__name__, _call)


def integers(arguments: tuple) -> tuple[int, ...]:
    """`f(2, 3)` and `f((2, 3))` alike."""
    if len(arguments) == 1 and isinstance(arguments[0], Sequence):
        return tuple(arguments[0])
    return arguments


@method
def reshape(self, *shape: int | Sequence[int]) -> Tensor:
    """The Tensor with another shape; one entry may be -1."""
    return ops.reshape(self, shape=integers(shape))


@method
def broadcast_to(self, *shape: int | Sequence[int]) -> Tensor:
    """The Tensor repeated to `shape`."""
    return ops.broadcast_to(self, shape=integers(shape))


@method
def transpose(self, *axes: int | Sequence[int]) -> Tensor:
    """The Tensor with its axes in the order `axes` (reversed without)."""
    return ops.transpose(self, axes=integers(axes) if axes else None)


@method
def norm(self, ord: float = 2, axis: Any = None, keepdims: bool = False) -> Tensor:
    """(Σ |x| ** ord) ** (1 / ord): `vector_norm`."""
    return ops.vector_norm(self, ord, axis, keepdims)


@method
def flatten(self) -> Tensor:
    """The Tensor as a vector."""
    return ops.reshape(self, shape=(-1,))


Tensor.T = property(ops.transpose, doc="The Tensor with its axes reversed.")


# --- Devices ------------------------------------------------------------------------------------


@op("to", lambda g, _out, _x, device, source: _transfer(g, device=source, source=device))
def _transfer(xp, x, *, device, source):
    """x copied from the device `source` to `device`."""
    return backend.to_device(x, device)


@method
def to(self, device: str) -> Tensor:
    """The Tensor on "cpu", "cuda" or "cuda:N"; itself if it is there. Differentiable."""
    device = backend.canonical_device(device)
    if device == self.device:
        return self
    return _transfer(self, device=device, source=self.device)


@method
def cpu(self) -> Tensor:
    return self.to("cpu")


@method
def cuda(self) -> Tensor:
    return self.to("cuda")
