"""Losses."""

import math

import numpy as np

from .. import ops
from ..backend import describe, device_of
from ..ops.shape import cast
from ..primitive import op
from ..reduction import accumulator
from .arguments import Array, array_of, as_given, choice, number

__all__ = ["binary_cross_entropy_with_logits", "cross_entropy", "kl_div", "l1_loss", "mse_loss",
           "nll_loss", "smooth_l1_loss"]  # fmt: skip

REDUCTIONS = ("mean", "sum", "none")


def _reduce(losses, reduction, total_weight=None):
    if choice("reduction", reduction, *REDUCTIONS) == "none":
        return losses
    if reduction == "sum":
        return ops.sum(losses)
    return ops.mean(losses) if total_weight is None else ops.sum(losses) / total_weight


# --- Two arrays of one shape ----------------------------------------------------------------------


def _floating(array, dtype):
    """Integers and booleans in floating point, as `dtype`."""
    return array if array.dtype.kind == "f" else cast(array, dtype)


def _pair(input, target):
    """Both as arrays of one shape. Labels that are integers or booleans get the input's dtype."""
    input, target = as_given(input), as_given(target)
    if input.dtype.kind != "f":
        raise TypeError(f"input: got {describe(input)}, wants floating point")
    if input.shape != target.shape:
        raise ValueError(f"target: got shape {target.shape}, wants that of input, {input.shape}")
    return input, _floating(target, input.dtype)


def _of_difference(loss, input, target, reduction):
    """The `loss` of each input − target, reduced."""
    input, target = _pair(input, target)
    dtype = np.result_type(input.dtype, target.dtype)
    difference = cast(input, accumulator(dtype)) - target  # its square may overflow in float16
    return cast(_reduce(loss(difference), reduction), dtype)


def mse_loss(input: Array, target: Array, reduction: str = "mean") -> Array:
    """The squared differences of two arrays of one shape, averaged (or summed, or as they are)."""
    return _of_difference(lambda difference: difference * difference, input, target, reduction)


def l1_loss(input: Array, target: Array, reduction: str = "mean") -> Array:
    """The absolute differences of two arrays of one shape, averaged (or "sum", or "none")."""
    return _of_difference(ops.abs, input, target, reduction)


def smooth_l1_loss(
    input: Array, target: Array, reduction: str = "mean", beta: float = 1.0
) -> Array:
    """For each difference d: d²/(2 beta) where |d| < beta, and |d| − beta/2 beyond (Girshick 2015).

    With beta = 0 it is `l1_loss`.
    """
    beta = number("beta", beta, 0)

    def loss(difference):
        distance = ops.abs(difference)
        near = ops.less(distance, beta)  # nowhere, if beta is 0
        small = ops.where(near, difference, 0.0)  # the square of a large one could overflow
        return ops.where(near, small * small * (0.5 / (beta or 1.0)), distance - 0.5 * beta)

    return _of_difference(loss, input, target, reduction)


def binary_cross_entropy_with_logits(
    input: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    pos_weight: Array | None = None,
) -> Array:
    """−target · log σ(input) − (1 − target) · log(1 − σ(input)), averaged.

    `input`: logits; `target`: probabilities (or labels 0 and 1), of one shape. `weight` multiplies
    the losses and `pos_weight` their first term; both broadcast to the input.
    """
    input, target = _pair(input, target)
    # With s = −log σ(x) = log(1 + exp(−x)) the second logarithm is −x − s.
    losses = ops.softplus(-input)
    if pos_weight is not None:
        losses = losses * ((_floating(as_given(pos_weight), input.dtype) - 1.0) * target + 1.0)
    losses = (1.0 - target) * input + losses
    if weight is not None:
        losses = losses * _floating(as_given(weight), input.dtype)
    if losses.shape != input.shape:
        raise ValueError(f"weight, pos_weight: made of {input.shape} a loss of {losses.shape}")
    return _reduce(losses, reduction)


def kl_div(input: Array, target: Array, reduction: str = "mean", log_target: bool = False) -> Array:
    """target · (log target − input): how far the distribution exp(input) is from `target`.

    `input`: log-probabilities; `target`: probabilities, or with `log_target` their logarithms. A
    target of probability 0 adds 0, and gets no gradient. `reduction`: "batchmean" divides the sum
    by the size of axis 0, as the divergence is defined; "mean" averages over all elements.
    """
    input, target = _pair(input, target)
    if log_target:
        target, log_p = ops.exp(target), ops.where(ops.equal(target, -math.inf), 0.0, target)
    else:
        log_p = ops.log(ops.where(ops.equal(target, 0.0), 1.0, target))
    losses = target * (log_p - ops.where(ops.equal(target, 0.0), 0.0, input))
    if choice("reduction", reduction, "batchmean", *REDUCTIONS) == "batchmean":
        return ops.mean(ops.sum(losses, axis=tuple(range(1, len(losses.shape)))))
    return _reduce(losses, reduction)


# --- Classes --------------------------------------------------------------------------------------


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
    label_smoothing = number("label_smoothing", label_smoothing, 0, 1)
    given = (target, weight, ignore_index, reduction, label_smoothing)
    return _of_classes(lambda scores, axis: -ops.log_softmax(scores, axis=axis), input, *given)


def nll_loss(
    input: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Array:
    """−input at the target class, averaged: `cross_entropy` of logits whose log softmax is taken
    already. The arguments are as there, but the target is class indices."""
    if as_given(target).dtype.kind not in "iu":
        raise TypeError(f"target: got {describe(target)}, wants integers")
    given = (target, weight, ignore_index, reduction, 0.0)
    return _of_classes(lambda scores, axis: -scores, input, *given)


def _of_classes(loss, input, target, weight, ignore_index, reduction, label_smoothing):
    """The `loss` (N, C, …) of each class, at the target's, weighted and reduced."""
    input, target, weight = map(as_given, (input, target, weight))
    if input.dtype.kind != "f" or not input.shape:
        raise TypeError(f"input: got {describe(input)}, wants floating point scores")
    axis = min(1, len(input.shape) - 1)
    classes, places = input.shape[axis], input.shape[:axis] + input.shape[axis + 1 :]
    # float16: a sum of 40,000 losses has no place in it
    losses = loss(cast(input, accumulator(input.dtype)), axis)
    if weight is not None:
        if weight.shape != (classes,):
            raise ValueError(f"weight: got shape {weight.shape}, wants ({classes},)")
        weight = ops.reshape(weight, shape=(classes,) + (1,) * (len(places) - axis))
        losses = losses * weight
    if target.dtype.kind == "f" and target.shape == input.shape:
        smoothed = target * (1 - label_smoothing) + label_smoothing / classes
        total, total_weight = ops.sum(losses * smoothed, axis=axis), None
    elif target.dtype.kind in "iu" and target.shape == places:
        how = {"classes": classes, "axis": axis, "ignore_index": ignore_index}
        hit, counts, outside = _one_hot(array_of(target), **how)
        total = ops.sum(ops.where(hit, losses, 0.0), axis=axis)
        if device_of(outside) != "cpu":
            total = ops.where(outside, math.nan, total)
        if label_smoothing:
            evenly = ops.where(counts, ops.mean(losses, axis=axis), 0.0)
            total = total * (1 - label_smoothing) + evenly * label_smoothing
        total_weight = ops.sum(hit if weight is None else hit * weight)
    else:
        wants = f"integers of shape {places}, or probabilities of shape {input.shape}"
        raise ValueError(f"target: got {describe(target)}, wants {wants}")
    return cast(_reduce(total, reduction, total_weight), input.dtype)


@op("one hot")
def _one_hot(xp, target, *, classes, axis, ignore_index):
    """Masks: (N, C, …) of the target classes; (N, …) of the targets that count; and (N, …) of those
    out of range, which raise on the CPU."""
    counts = target != ignore_index
    outside = counts & ((target < 0) | (target >= classes))
    if xp is np and outside.any():
        wants = f"0 … {classes - 1} (or ignore_index={ignore_index})"
        raise ValueError(f"target: got class {target[outside][0]}, wants {wants}")
    numbers = xp.arange(classes).reshape((-1,) + (1,) * (target.ndim - axis))
    hit = (xp.expand_dims(target, axis) == numbers) & xp.expand_dims(counts, axis)
    return hit, counts, outside
