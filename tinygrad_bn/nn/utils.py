"""Clipping of gradients, between backward and the optimizer's step."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..backend import array_module, device_of, on_device_of, to_device
from ..functional.arguments import NUMBERS
from ..graph import Tensor, at_place
from ..ops import stack
from ..reduction import accumulator


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale all gradients by one factor, so that their norm as one vector is at most `max_norm`.

    Returns the norm before, a Tensor on the device of the first gradient; nothing waits for it
    unless `error_if_nonfinite`. `norm_type` may be `math.inf`. As in PyTorch the factor is
    min(1, max_norm / (norm + 1e-6)). Each `.grad` becomes a new Tensor. float16 gradients are
    summed in float32.

    >>> import tinygrad_bn as tg
    >>> w = tg.tensor([0.0, 0.0], requires_grad=True)
    >>> (w * tg.tensor([3.0, 4.0])).sum().backward()
    >>> tg.nn.utils.clip_grad_norm_([w], max_norm=1.0)
    tensor(5.)
    >>> w.grad
    tensor([0.6, 0.8])
    """
    if not (isinstance(max_norm, NUMBERS) and max_norm >= 0):
        raise ValueError(f"max_norm: got {max_norm!r}, wants a number ≥ 0")
    parameters = _with_gradient(parameters)
    if not parameters:
        return at_place(np.zeros((), np.float32))
    gradients = [p.grad.data for p in parameters]
    device = device_of(gradients[0])
    norms = [to_device(_norm(g.ravel(), norm_type), device) for g in gradients]
    with on_device_of(norms[0]):
        total = _norm(stack(norms), norm_type)
        if error_if_nonfinite and not math.isfinite(total):
            raise RuntimeError(f"clip_grad_norm_: the norm of the gradients is {total}")
        factor = (max_norm / (total + 1e-6)).clip(None, 1.0)
    for p, g in zip(parameters, gradients):
        with on_device_of(g):
            p.grad = at_place((g * to_device(factor, p.device)).astype(g.dtype, copy=False))
    return at_place(total)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Move every gradient's elements into [−clip_value, clip_value]. Each becomes a new Tensor."""
    if not (isinstance(clip_value, NUMBERS) and clip_value >= 0):
        raise ValueError(f"clip_value: got {clip_value!r}, wants a number ≥ 0")
    for p in _with_gradient(parameters):
        with on_device_of(p.grad.data):
            p.grad = at_place(p.grad.data.clip(-clip_value, clip_value))


def _with_gradient(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    return [p for p in parameters if p.grad is not None]


def _norm(vector: Any, norm_type: float) -> Any:
    """A norm of a vector, as an array without axes."""
    with on_device_of(vector):
        vector = vector.astype(accumulator(vector.dtype), copy=False)
        xp = array_module([vector])
        return xp.asarray(xp.linalg.norm(vector, norm_type))
