"""Losses."""

import math

import numpy as np

from .. import ops
from ..backend import describe, is_floating
from ..ops.shape import cast
from ..primitive import op
from ..reduction import accumulator
from .arguments import Array, array_of, as_given, choice, number

__all__ = ["binary_cross_entropy_with_logits", "cross_entropy", "kl_div", "l1_loss", "mse_loss",
           "nll_loss", "smooth_l1_loss"]  # fmt: skip

REDUCTIONS = ("mean", "sum", "none")


def _reduce(losses, reduction):
    if choice("reduction", reduction, *REDUCTIONS) == "none":
        return losses
    return ops.sum(losses) if reduction == "sum" else ops.mean(losses)


# --- Two arrays of one shape ----------------------------------------------------------------------


def _floating(array, dtype):
    """Integers and booleans in floating point, as `dtype`."""
    return array if is_floating(array.dtype) else cast(array, dtype)


def _pair(input, target):
    """Both as arrays of one shape. Labels that are integers or booleans get the input's dtype."""
    input, target = as_given(input, "input"), as_given(target, "target")
    if not is_floating(input.dtype):
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
    smoothing = number("label_smoothing", label_smoothing, 0, 1)
    return _of_classes(ops.log_softmax, input, target, weight, ignore_index, reduction, smoothing)


def nll_loss(
    input: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Array:
    """−input at the target class, averaged: `cross_entropy` of logits whose log softmax is taken
    already. The arguments are as there, but the target is class indices."""
    if as_given(target, "target").dtype.kind not in "iu":
        raise TypeError(f"target: got {describe(target)}, wants integers")
    return _of_classes(lambda x, axis: x, input, target, weight, ignore_index, reduction, 0.0)


def _of_classes(log, input, target, weight, ignore_index, reduction, label_smoothing):
    """−log p, where log p = `log(input)` (N, C, …), at the target's class, weighted and reduced."""
    input, target, weight = as_given(input, "input"), as_given(target, "target"), as_given(weight)
    if not is_floating(input.dtype) or not input.shape:
        raise TypeError(f"input: got {describe(input)}, wants floating point scores")
    axis, shape = min(1, len(input.shape) - 1), input.shape
    classes, places = shape[axis], shape[:axis] + shape[axis + 1 :]
    # float16: a sum of 40,000 losses has no place in it
    log_p = log(cast(input, accumulator(input.dtype)), axis=axis)
    if weight is not None:
        if weight.shape != (classes,):
            raise ValueError(f"weight: got shape {weight.shape}, wants ({classes},)")
        weight = ops.reshape(weight, shape=(classes,) + (1,) * (len(places) - axis))
        log_p = log_p * weight
    over = axis if choice("reduction", reduction, *REDUCTIONS) == "none" else None
    if is_floating(target.dtype) and target.shape == shape:
        smoothed = target * (1 - label_smoothing) + label_smoothing / classes
        total, total_weight = ops.sum(log_p * smoothed, axis=over), math.prod(places)
    elif target.dtype.kind in "iu" and target.shape == places:
        how = {"shape": shape, "axis": axis, "ignore_index": ignore_index}
        hit, counts, outside, total_weight = _one_hot(array_of(target), **how)
        chosen = ops.where(hit, log_p, 0.0)
        if isinstance(outside, np.ndarray):
            wants = f"0 … {classes - 1} (or ignore_index={ignore_index})"
            wrong = array_of(target).reshape(outside.shape)[outside][0]
            raise ValueError(f"target: got class {wrong}, wants {wants}")
        if outside is not None:
            chosen = ops.where(outside, math.nan, chosen)
        total = ops.sum(chosen, axis=over)
        if label_smoothing:
            evenly = ops.sum(ops.where(counts, log_p, 0.0), axis=over) / classes
            total = total * (1 - label_smoothing) + evenly * label_smoothing
        if weight is not None:
            total_weight = ops.sum(hit * weight)
    else:
        wants = f"integers of shape {places}, or probabilities of shape {shape}"
        raise ValueError(f"target: got {describe(target)}, wants {wants}")
    return cast(total / ops.neg(total_weight) if reduction == "mean" else -total, input.dtype)


@op("one hot")
def _one_hot(xp, target, *, shape, axis, ignore_index):
    """Masks beside an input of this `shape`: of the target classes; of the targets that count; and
    of those out of range (None if on the CPU there is none). And how many count."""
    target = target.reshape((*shape[:axis], 1, *shape[axis + 1 :]))
    numbers = xp.arange(shape[axis]).reshape((-1,) + (1,) * (len(shape) - axis - 1))
    counts = target != ignore_index
    hit, total = (target == numbers) & counts, xp.count_nonzero(counts)
    if xp is np and np.count_nonzero(hit) == total:
        return hit, counts, None, int(total)
    return hit, counts, counts & ~hit.any(axis=axis, keepdims=True), total
