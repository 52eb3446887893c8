"""Losses."""

import math

import numpy as np

from .. import ops
from ..backend import array_module
from ..graph import Tensor, describe
from .arguments import Array, as_given

__all__ = ["cross_entropy", "mse_loss"]


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
    input, target = as_given(input), as_given(target)
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
    input, target, weight = map(as_given, (input, target, weight))
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
