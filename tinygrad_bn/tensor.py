"""Operators and methods of Tensor: what it is, its graph, its arithmetic, its device.

`graph.py` knows a bare Tensor; the rest is added here, and in `interop.py` what leaves the graph.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from . import backend, ops
from .backend import describe
from .engine import backward
from .graph import Tensor, at_place, new_leaf
from .primitive import op
from .recording import recording, write

__all__ = ["named"]


class _Empty:
    """What every class has."""


def on_tensor(body: type) -> type:
    """Give Tensor all that a class body defines."""
    for name in vars(body).keys() - vars(_Empty).keys():
        setattr(Tensor, name, vars(body)[name])
    return body


class HookHandle:
    """What `register_hook` returns: `remove()` takes the hook away."""

    def __init__(self, hooks: list, hook: Callable) -> None:
        self._hooks, self._hook = hooks, hook

    def remove(self) -> None:
        if self._hook in self._hooks:
            self._hooks.remove(self._hook)
        self._hooks = []  # the same function may be registered twice


def integers(arguments: tuple) -> tuple[int, ...]:
    """`f(2, 3)` and `f((2, 3))` alike."""
    if len(arguments) == 1 and isinstance(arguments[0], Sequence):
        return tuple(arguments[0])
    return arguments


@op("to", lambda g, _out, _x, device, source: _transfer(g, device=source, source=device))
def _transfer(xp, x, *, device, source):
    """x copied from the device `source` to `device`."""
    return backend.to_device(x, device)


@on_tensor
class _Methods:
    """What a Tensor is and does, but for its arithmetic."""

    shape = property(operator.attrgetter("data.shape"), doc="The lengths of the axes.")
    dtype = property(operator.attrgetter("data.dtype"), doc="The type of the elements.")
    ndim = property(operator.attrgetter("data.ndim"), doc="The number of axes.")
    size = property(operator.attrgetter("data.size"), doc="The number of elements.")

    @property
    def device(self) -> str:
        """Where the array lives: "cpu", "cuda:0", …"""
        return backend.device_of(self.data)

    @property
    def is_leaf(self) -> bool:
        """Whether the user made it: it is not the result of a recorded op."""
        return self.node is None or not self.node.parents

    @property
    def requires_grad(self) -> bool:
        """Whether a gradient can arrive here: the Tensor has a place in the graph."""
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if not self.is_leaf:
            raise RuntimeError("requires_grad: wants a leaf, got the result of an op; use detach()")
        if bool(wanted) != self.requires_grad:
            self.node = new_leaf(self.data) if wanted else None

    @property
    def grad(self) -> Tensor | None:
        """What backward added up here: for leaves, and where `retain_grad` was called."""
        return None if self.node is None else self.node.grad(self.index)

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor) or self.node is None or self.node.parents:
                wants = "None, or a Tensor at a leaf that requires a gradient"
                raise TypeError(f"grad: got {type(value).__name__}, wants {wants}")
            if (value.shape, value.dtype, value.device) != (self.shape, self.dtype, self.device):
                raise ValueError(f"grad: got {describe(value.data)}, wants {describe(self.data)}")
            value = value.detach()
        if self.node is not None:
            self.node.set_grad(self.index, value)

    def requires_grad_(self, wanted: bool = True) -> Tensor:
        """Set `requires_grad` and return the Tensor."""
        self.requires_grad = wanted
        return self

    # --- The graph

    backward = backward

    def detach(self) -> Tensor:
        """The same array as a constant, outside the graph."""
        return at_place(self.data)

    def retain_grad(self) -> None:
        """Keep `.grad` here in later backward passes, though this is an intermediate result."""
        if self.node is None:
            raise RuntimeError("retain_grad: this Tensor does not require a gradient")
        if self.node.parents:  # at a leaf it is kept as it is
            self.node.grads = {self.index: None, **(self.node.grads or {})}

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> HookHandle:
        """Call `hook` with the finished gradient at this place in every backward pass; a Tensor
        that it returns takes the gradient's place."""
        if self.node is None:
            raise RuntimeError("register_hook: this Tensor does not require a gradient")
        self.node.hooks = self.node.hooks or {}
        hooks = self.node.hooks.setdefault(self.index, [])
        hooks.append(hook)
        return HookHandle(hooks, hook)

    # --- Elements and shapes

    __getitem__ = ops.getitem

    def __setitem__(self, index: Any, value: Any) -> None:
        wants = "a new Tensor, as of where(mask, value, t), or t.data changed before it is used"
        raise TypeError(f"elements cannot be assigned, for the graph would not know; wants {wants}")

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d Tensor")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """The Tensor with another shape; one entry may be -1."""
        return ops.reshape(self, shape=integers(shape))

    def broadcast_to(self, *shape: int | Sequence[int]) -> Tensor:
        """The Tensor repeated to `shape`."""
        return ops.broadcast_to(self, shape=integers(shape))

    def transpose(self, *axes: int | Sequence[int]) -> Tensor:
        """The Tensor with its axes in the order `axes` (reversed without)."""
        return ops.transpose(self, axes=integers(axes) if axes else None)

    def flatten(self) -> Tensor:
        """The Tensor as a vector."""
        return ops.reshape(self, shape=(-1,))

    norm = ops.vector_norm
    T = property(ops.transpose, doc="The Tensor with its axes reversed.")

    # --- Devices

    def to(self, device: str) -> Tensor:
        """The Tensor on "cpu", "cuda" or "cuda:N"; itself if it is there. Differentiable."""
        device = backend.canonical_device(device)
        here = self.device
        return self if device == here else _transfer(self, device=device, source=here)

    def cpu(self) -> Tensor:
        return self.to("cpu")

    def cuda(self) -> Tensor:
        return self.to("cuda")


def named(name: str, value: Any) -> Any:
    """`value`, a Tensor or Scalar that is called `name` in pictures. An array passes untouched."""
    if not isinstance(name, str):
        raise TypeError(f"named: got {describe(name)} as the name, wants text: named(name, value)")
    if hasattr(value, "name"):
        value.name = name
        if isinstance(value, Tensor) and value.node is not None and value.node.trace is not None:
            value.node.trace.names[value.index] = name
    return value


# --- Operators ----------------------------------------------------------------------------------

_OPERATORS = dict(
    add=ops.add, sub=ops.sub, mul=ops.mul, truediv=ops.div, pow=ops.pow, matmul=ops.matmul
)


def _in_place(operator: str, function: Callable) -> Callable:
    def change(self, other):
        if not self.is_leaf or not self.requires_grad:
            return function(self, other)  # as for any Python object: the name is bound anew
        if recording.get():
            raise RuntimeError(f"{operator}: a leaf with a gradient changes only inside no_grad()")
        write(self.data, function(self, other).data)
        return self

    return change


for _name, _function in _OPERATORS.items():
    setattr(Tensor, f"__{_name}__", lambda self, other, f=_function.__call__: f(self, other))
    setattr(Tensor, f"__r{_name}__", lambda self, other, f=_function.__call__: f(other, self))
    setattr(Tensor, f"__i{_name}__", _in_place(f"i{_name}", _function))
_COMPARISONS = dict(eq=ops.equal, ne=ops.not_equal, lt=ops.less, le=ops.less_equal)
for _name, _function in dict(**_COMPARISONS, gt=ops.greater, ge=ops.greater_equal).items():
    setattr(Tensor, f"__{_name}__", lambda self, other, f=_function: f(self, other))
Tensor.__neg__ = lambda self: ops.neg(self)
Tensor.__pos__ = lambda self: self
Tensor.__abs__ = lambda self: ops.abs(self)
Tensor.__and__ = Tensor.__rand__ = lambda self, other: ops.bitwise_and(self, other)
Tensor.__or__ = Tensor.__ror__ = lambda self, other: ops.bitwise_or(self, other)
Tensor.__invert__ = lambda self: ops.invert(self)
Tensor.__hash__ = object.__hash__  # by identity, though == compares elementwise


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
