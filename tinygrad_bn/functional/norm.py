"""The norms."""

import math

import numpy as np

from .. import ops, recording
from ..backend import array_module, device_of
from ..graph import Tensor, describe
from ..norm import IMPLEMENTATIONS, running
from ..ops.reduce import count
from .arguments import NUMBERS, Array, as_given

__all__ = ["batch_norm"]


def batch_norm(
    input: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    impl: str = "fused",
) -> Array:
    """Batch norm of `input` (N, C, …): each channel by its mean and variance over N and the rest.

    In training the statistics are the batch's, and `running_mean`, `running_var` (each (C,), or
    both None) are moved towards them by `momentum`; else the running ones are used. `weight` and
    `bias` are γ and β, (C,) or None. `impl`: "fused" is one op with the analytic gradient,
    "composed" is made of primitives. A float16 input is normalized in float32.

    >>> import tinygrad_bn as tg
    >>> from tinygrad_bn import functional as F
    >>> x = tg.tensor([[1.0], [2.0], [3.0]])
    >>> F.batch_norm(x, None, None, training=True)
    tensor([[-1.2247],
            [ 0.    ],
            [ 1.2247]])
    """
    input, running_mean, running_var, weight, bias = map(
        as_given, (input, running_mean, running_var, weight, bias)
    )
    norm = IMPLEMENTATIONS.get(impl)
    if norm is None:
        raise ValueError(f'impl: got {impl!r}, wants "fused" or "composed"')
    _check_batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    shape, dtype = input.shape, input.dtype
    axes = (0, *range(2, len(shape)))
    m = count(shape, axes)
    column = (shape[1],) + (1,) * (len(shape) - 2)  # how (C,) stands beside the input
    if dtype == np.float16:
        input = ops.astype(input, dtype=np.float32)
    gamma, beta, mu, var = (
        v if v is None or len(column) == 1 else ops.reshape(v, shape=column)
        for v in (weight, bias, running_mean, running_var)
    )
    if training and m:
        y, mu, var = norm.batch_norm(input, gamma, beta, axes=axes, eps=eps)
        if running_mean is not None and recording.statistics_move.get():
            arrays = [
                v.data if isinstance(v, Tensor) else v for v in (running_mean, running_var, mu, var)
            ]
            running.move(*arrays, m, momentum)
    else:
        if training:  # an empty batch: it has no statistics, and leaves the running ones alone
            xp = array_module([input.data if isinstance(input, Tensor) else input])
            mu, var = xp.zeros(column, input.dtype), xp.ones(column, input.dtype)
        y = norm.batch_norm_inference(input, mu, var, gamma, beta, eps=eps)
    return ops.astype(y, dtype=dtype) if dtype == np.float16 else y


def _check_batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps):
    if not hasattr(input, "dtype") or input.dtype.kind != "f" or len(input.shape) < 2:
        raise TypeError(f"input: got {describe(input)}, wants floating point of shape (N, C, …)")
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean, running_var: got only one of them, wants both or neither")
    if running_mean is None and not training:
        raise ValueError("running_mean: got None, wants the statistics that inference uses")
    channels = input.shape[1]
    wants = np.dtype(np.float32) if input.dtype == np.float16 else input.dtype
    device = device_of(input.data if isinstance(input, Tensor) else input)
    for name, value in (
        ("running_mean", running_mean),
        ("running_var", running_var),
        ("weight", weight),
        ("bias", bias),
    ):
        array = value.data if isinstance(value, Tensor) else value
        if value is not None and (
            (array.shape, array.dtype, device_of(array)) != ((channels,), wants, device)
        ):
            raise ValueError(
                f"{name}: got {describe(array)}, wants {wants}[{channels}] beside an input of "
                f"{describe(input)}"
            )
    if not (isinstance(eps, NUMBERS) and 0 <= eps < math.inf):
        raise ValueError(f"eps: got {eps!r}, wants a number ≥ 0")
    if isinstance(momentum, NUMBERS):
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum: got {momentum!r}, wants a number in [0, 1]")
    elif getattr(momentum, "shape", None) != ():
        raise TypeError(f"momentum: got {momentum!r}, wants a number in [0, 1]")
    if training and input.size == channels > 0:
        raise ValueError(
            f"input: got one value per channel in training (shape {list(input.shape)}), wants "
            "more: one value has no variance"
        )
