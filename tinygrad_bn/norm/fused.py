"""Normalization as one op with the analytic gradient. Compare `composed.py`, and its two functions.

With d = x − μ, r = 1/√(σ²+ε), x̂ = d·r, and means over the entries that share statistics, the chain
rule of the paper (Ioffe & Szegedy 2015, section 3) collapses to

    ∂ℓ/∂x = r (∂ℓ/∂x̂ − mean(∂ℓ/∂x̂) − x̂ mean(∂ℓ/∂x̂ x̂)),   ∂ℓ/∂x̂ = γ ∂ℓ/∂y

without its second term if the norm is not centred; and a gradient that arrives at μ or σ² itself
adds ∂ℓ/∂μ / m and ∂ℓ/∂σ² · 2d/m.

Where μ and σ² are saved as constants for this formula, it goes wrong when it is differentiated
again. Here they are outputs of the op, with a place in the graph: so every order is right.

On arrays `kernels/cpu_norm.py` and `kernels/cuda_norm.py` compute what the two formulas say; the
formulas themselves run on Tensors, to record, and where no kernel knows the layout.
"""

import functools

from ..kernels import accelerated, cpu_norm, cuda_norm
from ..ops import add, broadcast_to, mean, sqrt
from ..primitive import op
from ..reduction import count
from ..tensor import named
from .composed import scale_and_shift, widened, zeros_like


@accelerated(cpu_norm.normalize, cuda_norm.normalize)
def normalize_forward(x, gamma, beta, *, axes, eps, centred=True):
    """y, μ, σ² from arrays. The second centring takes away what μ lost by rounding."""
    d = widened(x)
    if centred:
        mu = mean(d, axis=axes, keepdims=True)
        d = d - mu
        rounding = mean(d, axis=axes, keepdims=True)
        d = d - rounding
        mu = mu + rounding
    var = mean(d * d, axis=axes, keepdims=True)
    y = scale_and_shift(d / sqrt(var + eps), gamma, beta, x.dtype)
    return y, mu if centred else zeros_like(var), var


@accelerated(cpu_norm.normalize_grads, cuda_norm.normalize_grads)
def normalize_grads(gs, outs, x, gamma, _beta, *, needs, axes, eps, centred=True):
    """∂ℓ/∂x, ∂ℓ/∂γ, ∂ℓ/∂β from the gradients `gs` at y, μ and σ² (None where none arrives)."""
    (g, g_mu, g_var), (_, mu, var) = gs, outs
    m = count(x.shape, axes)
    d = widened(x)
    if centred:
        d = d - mu
        d = named("d", d - mean(d, axis=axes, keepdims=True))  # 0 on paper: μ's rounding again
    dgamma = dbeta = None
    terms = []
    if g is not None:
        g, r = widened(g), named("r", 1.0 / sqrt(var + eps))
        xhat = named("x̂", d * r)
        dgamma = _summed(g * xhat, gamma) if needs[1] else None
        dbeta = _summed(g, _beta) if needs[2] else None
        dxhat = g if gamma is None else gamma * g
        change = dxhat - xhat * mean(dxhat * xhat, axis=axes, keepdims=True)
        if centred:
            change = change - mean(dxhat, axis=axes, keepdims=True)
        terms.append(r * change)
    if g_mu is not None and centred:
        terms.append(broadcast_to(g_mu / m, shape=x.shape))
    if g_var is not None:
        terms.append(d * (g_var * (2.0 / m)))
    return functools.reduce(add, terms) if terms else None, dgamma, dbeta


def _summed(values, like):
    """Σ over the axes along which `like` was broadcast, with the digits that a mean keeps."""
    lead = len(values.shape) - len(like.shape)
    axes = tuple(i for i in range(len(values.shape)) if i < lead or like.shape[i - lead] == 1)
    return mean(values, axis=axes, keepdims=True) * count(values.shape, axes)


@op("normalize", joint=normalize_grads, outputs=("_y", "mu", "var"))
def normalize(xp, x, gamma, beta, *, axes, eps, centred=True):
    """What `composed.normalize` computes, in one op. Kept for backward: x, γ, μ and σ²."""
    return normalize_forward(x, gamma, beta, axes=axes, eps=eps, centred=centred)


def normalize_inference_grads(g, _out, x, mu, var, gamma, _beta, *, needs, eps):
    """The gradients of an affine map; the engine sums each to the shape of its argument."""
    g, r = widened(g), named("r", 1.0 / sqrt(var + eps))
    scale = r if gamma is None else gamma * r
    xhat = named("x̂", (widened(x) - mu) * r)
    return (
        g * scale if needs[0] else None,
        -(g * scale) if needs[1] else None,
        g * xhat * (scale * r * -0.5) if needs[2] else None,
        g * xhat if needs[3] else None,
        g,
    )


@op("normalize (inference)", joint=normalize_inference_grads)
def normalize_inference(xp, x, mu, var, gamma, beta, *, eps):
    """What `composed.normalize_inference` computes, in one op."""
    return scale_and_shift((widened(x) - mu) * (1.0 / xp.sqrt(var + eps)), gamma, beta, x.dtype)
