"""Batch norm from primitive ops, line by line as in Ioffe & Szegedy (2015), Algorithm 1.

The gradient is the engine's work. Compare `fused.py`: the same two norms, the gradient by hand.
"""

from ..ops import mean, sqrt
from ..tensor import named


def batch_norm(x, gamma, beta, *, axes, eps):
    """Normalize x over `axes` by its own statistics; scale by γ, shift by β (None: not).

    Returns y (shape of x), and μ_B and σ²_B (shape of x with 1 at `axes`; σ² is the biased one).
    γ and β broadcast to the shape of μ.
    """
    mu = named("μ_B", mean(x, axis=axes, keepdims=True))
    d = named("d", x - mu)
    var = named("σ²_B", mean(d * d, axis=axes, keepdims=True))
    xhat = named("x̂", d / sqrt(var + eps))
    return scale_and_shift(xhat, gamma, beta), mu, var


def batch_norm_inference(x, mu, var, gamma, beta, *, eps):
    """Normalize x by given statistics: an affine map of each channel (the paper's Algorithm 2)."""
    xhat = named("x̂", (x - mu) / sqrt(var + eps))
    return scale_and_shift(xhat, gamma, beta)


def scale_and_shift(xhat, gamma, beta):
    """y = γ x̂ + β"""
    y = xhat if gamma is None else gamma * xhat
    return named("y", y if beta is None else y + beta)
