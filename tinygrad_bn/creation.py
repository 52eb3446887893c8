"""Making Tensors. They are made on the default device unless `device` says otherwise."""

from typing import Any

import numpy as np

from .backend import as_array, copied, default_dtype, dtype_of, get_default_device, module_on
from .graph import Tensor
from .random_numbers import generator
from .tensor import integers

__all__ = ["arange", "from_dlpack", "full", "ones", "ones_like", "rand", "randn", "tensor", "zeros",
           "zeros_like"]  # fmt: skip


def tensor(
    data: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """A Tensor with a copy of `data`: a number, nested lists, an array, a Tensor.

    Python floats become float32, integers int64; arrays keep their dtype. It is made on `device`;
    without one, a CuPy array stays where it is, and all else goes to the default device.
    """
    if isinstance(data, Tensor):
        if data.requires_grad:
            raise RuntimeError("data: got a Tensor that requires a gradient; copy its detach()")
        data = data.data
    if device is None and isinstance(data, np.ndarray):
        device = get_default_device()
    return Tensor(copied(as_array(data, dtype, device)), requires_grad)


def full(shape, value, dtype=None, device=None, requires_grad=False) -> Tensor:
    """A shape filled with `value` (float32 unless `dtype` says otherwise)."""
    xp, here = module_on(device or get_default_device())
    with here:
        return Tensor(xp.full(shape, value, dtype_of(dtype or default_dtype)), requires_grad)


def zeros(*shape, dtype=None, device=None, requires_grad=False) -> Tensor:
    """Zeros: `zeros(2, 3)` or `zeros((2, 3))`; float32 unless `dtype` says otherwise."""
    return full(integers(shape), 0, dtype, device, requires_grad)


def ones(*shape, dtype=None, device=None, requires_grad=False) -> Tensor:
    """Ones: `ones(2, 3)` or `ones((2, 3))`; float32 unless `dtype` says otherwise."""
    return full(integers(shape), 1, dtype, device, requires_grad)


def zeros_like(t: Tensor) -> Tensor:
    """Zeros with the shape, dtype and device of `t`."""
    return zeros(t.shape, dtype=t.dtype, device=t.device)


def ones_like(t: Tensor) -> Tensor:
    """Ones with the shape, dtype and device of `t`."""
    return ones(t.shape, dtype=t.dtype, device=t.device)


def arange(start, stop=None, step=1, dtype=None, device=None) -> Tensor:
    """start, start + step, … below stop; arange(n) counts from 0. Integers give int64."""
    start, stop = (0, start) if stop is None else (start, stop)
    plain = default_dtype if isinstance(start + stop + step, float) else None
    xp, here = module_on(device or get_default_device())
    with here:
        return Tensor(as_array(xp.arange(start, stop, step), dtype or plain))


def randn(*shape: int, dtype=None, device=None, requires_grad=False) -> Tensor:
    """Normal random numbers from the generator that `manual_seed` seeds."""
    values = generator().standard_normal(integers(shape))
    return tensor(values, dtype or default_dtype, device, requires_grad)


def rand(*shape: int, dtype=None, device=None, requires_grad=False) -> Tensor:
    """Uniform random numbers in [0, 1) from the generator that `manual_seed` seeds."""
    values = generator().random(integers(shape))
    return tensor(values, dtype or default_dtype, device, requires_grad)


def from_dlpack(source: Any) -> Tensor:
    """A Tensor that shares the memory of another library's array, on the device where it is."""
    kind, number = source.__dlpack_device__()
    xp, _ = module_on("cpu" if kind == 1 else f"cuda:{number}")
    return Tensor(xp.from_dlpack(source))
