"""Where a Tensor meets the rest of Python: numbers, NumPy, other libraries, printing, copies.

Nothing leaves the graph silently: what would lose a gradient raises, and names the way to do it.
"""

from typing import Any

import numpy as np

from . import backend, ops
from .backend import describe
from .graph import Tensor, at_place, new_leaf
from .reduction import accumulator
from .tensor import on_tensor

# NumPy's names where ours are others, and its functions that operators call.
_OURS = {
    **{"subtract": "sub", "multiply": "mul", "divide": "div", "power": "pow"},
    **{"absolute": "abs", "negative": "neg", "array": "tensor", "asarray": "tensor"},
}
_OPERATORS = (
    *("add", "subtract", "multiply", "divide", "power", "matmul", "bitwise_and", "bitwise_or"),
    *("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"),
)


@on_tensor
class _Methods:
    """How a Tensor leaves the graph, or does not."""

    def numpy(self) -> np.ndarray:
        """The array, shared and not copied, of a Tensor on the CPU that requires no gradient."""
        if self.requires_grad:
            raise RuntimeError("this Tensor requires a gradient: call detach() first, then numpy()")
        if self.device != "cpu":
            raise RuntimeError(f"a Tensor on {self.device}: call cpu() first, then numpy()")
        return self.data

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        # An operator with a NumPy array on the left arrives here, and is ours.
        name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        if name in _OPERATORS and not options:
            # NumPy has made a 0-d array of a number on the left, which belongs to no device.
            numbers = [x[()] if isinstance(x, np.ndarray) and x.ndim == 0 else x for x in inputs]
            return getattr(ops, _OURS.get(name, name))(*numbers)
        return _refuse(f"numpy.{name}", name)

    def __array_function__(self, function, types, args, options):
        return _refuse(f"{function.__module__}.{function.__name__}", function.__name__)

    def item(self) -> float | int | bool:
        """The only element, as a Python number. On a GPU this waits for it."""
        if self.size != 1:
            raise ValueError(f"item: wants one element, got {describe(self.data)}")
        return self.data.item()

    def tolist(self) -> Any:
        """The elements as nested Python lists."""
        return self.data.tolist()

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise TypeError(f"an index must be an integer, got {describe(self.data)}")
        return self.item()

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else repr(self)

    def __repr__(self) -> str:
        host = backend.to_device(self.data, "cpu").astype(accumulator(self.dtype), copy=False)
        parts = [np.array2string(host, precision=4, separator=", ", prefix="tensor(")]
        if self.dtype not in (backend.default_dtype, np.int64, np.bool_):
            parts.append(f"dtype={self.dtype}")
        if self.device != "cpu":
            parts.append(f"device={self.device!r}")
        if self.node is not None:
            parts.append("requires_grad=True" if self.is_leaf else f"op={self.node.op.name}")
        return f"tensor({', '.join(parts)})"

    def __dlpack__(self, **options: Any) -> Any:
        if self.requires_grad:
            raise BufferError("a Tensor that requires a gradient: export its detach()")
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.data.__dlpack_device__()

    def __copy__(self) -> Tensor:
        return _copy(self, self.data)

    def __deepcopy__(self, memo: dict) -> Tensor:
        copy = _copy(self, backend.copied(self.data))
        copy.grad = None if self.grad is None else at_place(backend.copied(self.grad.data))
        return copy

    def __reduce_ex__(self, protocol: int) -> Any:
        raise TypeError(
            "a Tensor is not pickled, for a pickle can run code when it is read; save a module's "
            "state_dict(), or tensor.numpy(), in a format for arrays (numpy.savez, safetensors)"
        )


for _kind in (float, int, bool):
    setattr(Tensor, f"__{_kind.__name__}__", lambda self, kind=_kind: kind(self.item()))


def _refuse(theirs: str, name: str) -> None:
    name = _OURS.get(name, name)
    known = name in (*ops.__all__, "tensor", "zeros_like", "ones_like")
    ours = f"use tinygrad_bn.{name}, or " if known else ""
    what = f"{theirs} was called on a Tensor, which would leave the graph"
    raise TypeError(f"{what}: {ours}call detach().numpy() first")


def _copy(self: Tensor, array: Any) -> Tensor:
    if not self.is_leaf:
        raise RuntimeError("only a leaf can be copied, not the result of an op; copy its detach()")
    copy = type(self).__new__(type(self))
    copy.data, copy.index, copy.name = array, 0, self.name
    copy.node = new_leaf(array) if self.requires_grad else None
    return copy
