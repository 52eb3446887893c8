"""PyTorch's functions, by PyTorch's names and defaults, over `ops` and `norm`."""

import math
from typing import Any

import numpy as np

from . import ops, recording
from .backend import array_module, as_array, device_of
from .graph import Tensor, describe
from .norm import IMPLEMENTATIONS, running
from .ops.reduce import count

__all__ = [
    "batch_norm",
    "cross_entropy",
    "linear",
    "log_softmax",
    "mse_loss",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
]

Array = Any  # a Tensor, or an array of NumPy or CuPy: the answer is of the same kind
_NUMBERS = (int, float, np.number)

relu, sigmoid, tanh = ops.relu, ops.sigmoid, ops.tanh


def linear(input: Array, weight: Array, bias: Array | None = None) -> Array:
    """input @ weight.T + bias, for input (…, n), weight (m, n) and bias (m,)."""
    return ops.linear(input, weight, bias)


def softmax(input: Array, dim: int) -> Array:
    """exp(input) / Σ exp(input) along `dim`."""
    return ops.softmax(input, axis=dim)


def log_softmax(input: Array, dim: int) -> Array:
    """log(softmax(input)) along `dim`."""
    return ops.log_softmax(input, axis=dim)


# --- Batch norm ---------------------------------------------------------------------------------


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
        _array, (input, running_mean, running_var, weight, bias)
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


def _array(value):
    """A list as an array; Tensors, arrays and None as they are."""
    return as_array(value) if isinstance(value, (list, tuple)) else value


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
    if not (isinstance(eps, _NUMBERS) and 0 <= eps < math.inf):
        raise ValueError(f"eps: got {eps!r}, wants a number ≥ 0")
    if isinstance(momentum, _NUMBERS):
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum: got {momentum!r}, wants a number in [0, 1]")
    elif getattr(momentum, "shape", None) != ():
        raise TypeError(f"momentum: got {momentum!r}, wants a number in [0, 1]")
    if training and input.size == channels > 0:
        raise ValueError(
            f"input: got one value per channel in training (shape {list(input.shape)}), wants "
            "more: one value has no variance"
        )


# --- Losses -------------------------------------------------------------------------------------


def _reduce(losses, reduction, total_weight=None):
    if reduction == "none":
        return losses
    if reduction == "sum":
        return ops.sum(losses)
    if reduction == "mean":
        return ops.mean(losses) if total_weight is None else ops.sum(losses) / total_weight
    raise ValueError(f'reduction: got {reduction!r}, wants "mean", "sum" or "none"')


def mse_loss(input: Array, target: Array, reduction: str = "mean") -> Array:
    """The squared differences of two arrays of one shape, averaged (or summed, or as they are)."""
    input, target = _array(input), _array(target)
    if input.shape != target.shape:
        raise ValueError(f"target: got shape {target.shape}, wants that of input, {input.shape}")
    difference = input - target
    return _reduce(difference * difference, reduction)


def cross_entropy(
    input: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """−log softmax(input) at the target class, averaged.

    `input`: logits (C,), (N, C) or (N, C, d1, …). `target`: class indices, input's shape without C,
    or class probabilities, input's shape. `weight` (C,) multiplies each class's loss; the mean
    divides by the sum of the weights of the targets. Targets equal to `ignore_index` count nothing.
    `label_smoothing` in [0, 1] moves that share of the target to all classes evenly. An index out
    of range is a ValueError on the CPU; on a GPU, where a check would wait, the loss is NaN.
    """
    input, target, weight = map(_array, (input, target, weight))
    if input.dtype.kind != "f" or not input.shape:
        raise TypeError(f"input: got {input.dtype}{list(input.shape)}, wants floating point logits")
    if not (isinstance(label_smoothing, (int, float)) and 0 <= label_smoothing <= 1):
        raise ValueError(f"label_smoothing: got {label_smoothing!r}, wants a number in [0, 1]")
    axis = 0 if len(input.shape) == 1 else 1
    classes = input.shape[axis]
    beside = (classes,) + (1,) * (len(input.shape) - axis - 1)  # (C,) beside the input
    if weight is not None and weight.shape != (classes,):
        raise ValueError(f"weight: got shape {weight.shape}, wants ({classes},)")
    weights = None if weight is None else ops.reshape(weight, shape=beside)
    dtype = input.dtype
    if dtype == np.float16:  # a sum of 40,000 losses has no place in it
        input = ops.astype(input, dtype=np.float32)
    losses = -ops.log_softmax(input, axis=axis)
    if weights is not None:
        losses = losses * weights
    if target.dtype.kind == "f":
        if target.shape != input.shape:
            raise ValueError(f"target: got shape {target.shape}, wants {input.shape} of input")
        smoothed = target * (1 - label_smoothing) + label_smoothing / classes
        total = ops.sum(losses * smoothed, axis=axis)
        loss = _reduce(total, reduction)
        return loss if loss.dtype == dtype else ops.astype(loss, dtype=dtype)
    hit, counts, outside = _one_hot(input, target, axis, ignore_index)
    total = ops.sum(ops.where(hit, losses, 0.0), axis=axis)
    if label_smoothing:
        evenly = ops.where(counts, ops.mean(losses, axis=axis), 0.0)
        total = total * (1 - label_smoothing) + evenly * label_smoothing
    if outside is not None:
        total = ops.where(outside, math.nan, total)
    total_weight = ops.sum(hit if weights is None else hit * weights)
    loss = _reduce(total, reduction, ops.astype(total_weight, dtype=input.dtype))
    return loss if loss.dtype == dtype else ops.astype(loss, dtype=dtype)


def _one_hot(input, target, axis, ignore_index):
    """Masks: (N, C, …) of the target classes; (N, …) of the targets that count; and (N, …) of those
    out of range, which raise on the CPU (then the third is None)."""
    target = target.data if isinstance(target, Tensor) else target
    shape = input.shape[:axis] + input.shape[axis + 1 :]
    if target.dtype.kind not in "iu" or target.shape != shape:
        raise ValueError(
            f"target: got {describe(target)}, wants integers of shape {shape}, or probabilities "
            f"of shape {input.shape}"
        )
    xp, classes = array_module((target,)), input.shape[axis]
    counts = target != ignore_index
    outside = counts & ((target < 0) | (target >= classes))
    if xp is np and outside.any():
        raise ValueError(
            f"target: got class {target[outside][0]}, wants 0 … {classes - 1} "
            f"(or ignore_index={ignore_index})"
        )
    classes = xp.arange(classes).reshape((-1,) + (1,) * (target.ndim - axis))
    hit = (xp.expand_dims(target, axis) == classes) & xp.expand_dims(counts, axis)
    return hit, counts, None if xp is np else outside
