"""Normalization from primitive ops, line by line as in Ioffe & Szegedy (2015), Algorithm 1.

The gradient is the engine's work. Compare `fused.py`: the same two functions, the gradient by hand.
Batch norm is `normalize` over the samples (and places) of each channel; `axes.py` lists the family.
"""

from ..ops import mean, sqrt
from ..ops.shape import cast
from ..primitive import op
from ..reduction import accumulator
from ..tensor import named


def normalize(x, gamma, beta, *, axes, eps, centred=True, mean=mean):
    """Normalize x over `axes` by its own statistics; scale by γ, shift by β (None: not).

    Returns y (shape and dtype of x), and μ and σ² (shape of x with 1 at `axes`, float32 for a
    float16 x; σ² is the biased one). γ and β broadcast to x. If not `centred`, as in RMS norm, μ is
    0 and σ² the mean square. `mean`: another one, that over several processes for instance.
    """
    values = widened(x)
    mu, d = None, values
    if centred:
        mu = named("μ_B", mean(values, axis=axes, keepdims=True))
        d = values - mu
    var = named("σ²_B", mean(d * d, axis=axes, keepdims=True))
    xhat = named("x̂", d / sqrt(var + eps))
    return scale_and_shift(xhat, gamma, beta, x.dtype), mu if centred else zeros_like(var), var


def normalize_inference(x, mu, var, gamma, beta, *, eps):
    """Normalize x by given statistics: an affine map of each channel (the paper's Algorithm 2)."""
    xhat = named("x̂", (widened(x) - mu) / sqrt(var + eps))
    return scale_and_shift(xhat, gamma, beta, x.dtype)


def scale_and_shift(xhat, gamma, beta, dtype):
    """y = γ x̂ + β, in the input's dtype."""
    y = xhat if gamma is None else gamma * xhat
    y = y if beta is None else y + beta
    return named("y", cast(y, dtype))


def widened(x):
    """A float16 x in float32: its squares would overflow, its statistics need more digits."""
    return cast(x, accumulator(x.dtype))


@op("0")
def zeros_like(xp, x):
    """Zeros of the shape, dtype and device of x; a constant."""
    return xp.zeros_like(x)
