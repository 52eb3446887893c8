"""Normalization and the ReLU after it, as one op; otherwise as `norm/fused.py`."""

import functools

from ..kernels import accelerated, cpu_norm, cuda_norm
from ..norm import fused
from ..ops import greater, relu
from ..primitive import op


@accelerated(*[functools.partial(k.normalize, relu=True) for k in (cpu_norm, cuda_norm)])
def normalize_forward(x, gamma, beta, **how):
    """max(y, 0), μ, σ² from arrays."""
    y, mu, var = fused.normalize_forward.formula(x, gamma, beta, **how)
    return relu(y), mu, var


@accelerated(*[functools.partial(k.normalize_grads, relu=True) for k in (cpu_norm, cuda_norm)])
def normalize_grads(gs, outs, x, gamma, _beta, *, needs, **how):
    """As `fused.normalize_grads`, with the gradient at y where the ReLU let it through."""
    g, g_mu, g_var = gs
    g = None if g is None else g * greater(outs[0], 0)
    return fused.normalize_grads.formula(
        (g, g_mu, g_var), outs, x, gamma, _beta, needs=needs, **how
    )


@op("normalize, relu", joint=normalize_grads, outputs=("y", "mu", "var"))
def normalize(xp, x, gamma, beta, *, axes, eps, centred=True):
    """`fused.normalize`, and relu of its y. Kept for backward: y, too."""
    return normalize_forward(x, gamma, beta, axes=axes, eps=eps, centred=centred)


def normalize_inference(x, mu, var, gamma, beta, *, eps):
    """relu of `fused.normalize_inference`."""
    return relu(fused.normalize_inference(x, mu, var, gamma, beta, eps=eps))
