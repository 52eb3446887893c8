"""Batch norm as one op with the analytic gradient. Compare `composed.py`, and its two norms.

With d = x − μ, r = 1/√(σ²+ε), x̂ = d·r and means over the batch, the chain rule of the paper
(Ioffe & Szegedy 2015, section 3) collapses to

    ∂ℓ/∂x = γ r (∂ℓ/∂y − mean(∂ℓ/∂y) − x̂ mean(∂ℓ/∂y x̂))

and a gradient that arrives at μ or σ² itself adds ∂ℓ/∂μ / m and ∂ℓ/∂σ² · 2d/m.

Other libraries save μ and σ² as constants for this formula, and go wrong when it is differentiated
again. Here they are outputs of the op, with a place in the graph: so every order is right.

On NumPy arrays `kernels/cpu_norm.py` computes what the two formulas say; the formulas themselves
run on CuPy arrays and, to record, on Tensors.
"""

import functools

from ..graph import op
from ..kernels import accelerated, cpu_norm
from ..ops import add, broadcast_to, mean, sqrt
from ..ops.reduce import count
from .composed import scale_and_shift


@accelerated(cpu_norm.batch_norm)
def batch_norm_forward(x, gamma, beta, *, axes, eps):
    """y, μ, σ² from arrays. The second centring takes away what μ lost by rounding."""
    mu = mean(x, axis=axes, keepdims=True)
    d = x - mu
    rounding = mean(d, axis=axes, keepdims=True)
    d = d - rounding
    var = mean(d * d, axis=axes, keepdims=True)
    return scale_and_shift(d / sqrt(var + eps), gamma, beta), mu + rounding, var


@accelerated(cpu_norm.batch_norm_grads)
def batch_norm_grads(gs, outs, x, gamma, _beta, *, needs, axes, eps):
    """∂ℓ/∂x, ∂ℓ/∂γ, ∂ℓ/∂β from the gradients `gs` at y, μ and σ² (None where none arrives)."""
    (g, g_mu, g_var), (_, mu, var) = gs, outs
    m = count(x.shape, axes)
    d = x - mu
    d = d - mean(d, axis=axes, keepdims=True)  # 0 on paper: the rounding of μ again
    dgamma = dbeta = None
    terms = []
    if g is not None:
        r = 1.0 / sqrt(var + eps)
        xhat = d * r
        mean_g = mean(g, axis=axes, keepdims=True)
        mean_gxhat = mean(g * xhat, axis=axes, keepdims=True)
        dgamma, dbeta = mean_gxhat * m, mean_g * m
        terms.append((r if gamma is None else gamma * r) * (g - mean_g - xhat * mean_gxhat))
    if g_mu is not None:
        terms.append(broadcast_to(g_mu / m, shape=x.shape))
    if g_var is not None:
        terms.append(d * (g_var * (2.0 / m)))
    return functools.reduce(add, terms), dgamma, dbeta


@op("batch norm", joint=batch_norm_grads, outputs=("_y", "mu", "var"))
def batch_norm(xp, x, gamma, beta, *, axes, eps):
    """What `composed.batch_norm` computes, in one op. Kept for backward: x, γ, μ and σ²."""
    return batch_norm_forward(x, gamma, beta, axes=axes, eps=eps)


def batch_norm_inference_grads(g, _out, x, mu, var, gamma, _beta, *, needs, eps):
    """The gradients of an affine map; the engine sums each to the shape of its argument."""
    r = 1.0 / sqrt(var + eps)
    scale = r if gamma is None else gamma * r
    d = x - mu
    return (
        g * scale if needs[0] else None,
        -(g * scale) if needs[1] else None,
        g * d * (scale * r * r * -0.5) if needs[2] else None,
        g * (d * r) if needs[3] else None,
        g,
    )


@op("batch norm (inference)", joint=batch_norm_inference_grads)
def batch_norm_inference(xp, x, mu, var, gamma, beta, *, eps):
    """What `composed.batch_norm_inference` computes, in one op."""
    return scale_and_shift((x - mu) * (1.0 / xp.sqrt(var + eps)), gamma, beta)
