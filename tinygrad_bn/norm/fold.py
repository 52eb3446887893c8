"""Inference as an affine map, folded into the linear map before it."""

import numpy as np

from ..backend import array_module


def fold(weight, bias, running_mean, running_var, gamma, beta, eps):
    """The arrays (weight, bias) of the map x ↦ BN(weight ∗ x + bias), with given statistics.

    For a linear layer or a convolution whose outputs, C of them, are the first axis of `weight`.
    Inference is y ↦ s (y − μ) + β with s = γ/√(σ²+ε) a channel (Ioffe & Szegedy 2015, section 3.1),
    so weight becomes s · weight, and bias s (bias − μ) + β. Computed in float64; `bias`, γ and β
    may be None.

    >>> one = np.ones(1, np.float32)
    >>> fold(np.array([[4.0]], np.float32), None, one, 3 * one, one, None, eps=1.0)
    (array([[2.]], dtype=float32), array([-0.5], dtype=float32))
    """
    scale = 1 / array_module((weight,)).sqrt(running_var.astype(np.float64) + eps)
    if gamma is not None:
        scale = scale * gamma
    offset = scale * (-running_mean if bias is None else bias.astype(np.float64) - running_mean)
    if beta is not None:
        offset = offset + beta
    scaled = scale.reshape(-1, *[1] * (weight.ndim - 1)) * weight
    return scaled.astype(weight.dtype), offset.astype(weight.dtype)
