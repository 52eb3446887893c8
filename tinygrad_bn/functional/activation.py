"""Activations."""

from .. import ops
from .arguments import Array

__all__ = ["log_softmax", "relu", "sigmoid", "softmax", "tanh"]

relu, sigmoid, tanh = ops.relu, ops.sigmoid, ops.tanh


def softmax(input: Array, dim: int) -> Array:
    """exp(input) / Σ exp(input) along `dim`."""
    return ops.softmax(input, axis=dim)


def log_softmax(input: Array, dim: int) -> Array:
    """log(softmax(input)) along `dim`."""
    return ops.log_softmax(input, axis=dim)
