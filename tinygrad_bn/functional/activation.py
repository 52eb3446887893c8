"""Activations."""

import math

from .. import ops
from .arguments import Array, choice, number

__all__ = ["gelu", "leaky_relu", "log_softmax", "relu", "sigmoid", "softmax", "softplus", "tanh"]

relu, sigmoid, tanh = ops.relu, ops.sigmoid, ops.tanh


def leaky_relu(input: Array, negative_slope: float = 0.01) -> Array:
    """input, and negative_slope · input below 0."""
    return ops.leaky_relu(input, slope=number("negative_slope", negative_slope))


def gelu(input: Array, approximate: str = "none") -> Array:
    """input · Φ(input), where Φ is the normal distribution's; "tanh" approximates Φ by
    (1 + tanh(√(2/π) · (x + 0.044715 x³))) / 2 (Hendrycks & Gimpel 2016, section 2)."""
    if choice("approximate", approximate, "none", "tanh") == "none":
        return ops.gelu(input)
    x = ops.clip(input, -10.0, 10.0)  # beyond, tanh is ±1 in every precision; x³ might overflow
    cdf = 0.5 * (1.0 + ops.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    return ops.where(ops.greater(input, 10.0), input, x * cdf)


def softplus(input: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """log(1 + exp(beta · input)) / beta, and input itself where beta · input is above `threshold`,
    as in PyTorch (ops.softplus needs none)."""
    scaled = ops.mul(input, number("beta", beta))
    return ops.where(ops.greater(scaled, threshold), input, ops.softplus(scaled) / float(beta))


def softmax(input: Array, dim: int) -> Array:
    """exp(input) / Σ exp(input) along `dim`."""
    return ops.softmax(input, axis=dim)


def log_softmax(input: Array, dim: int) -> Array:
    """log(softmax(input)) along `dim`."""
    return ops.log_softmax(input, axis=dim)
