"""The members of the family as functions of (x, weight, bias), and what they are in float64."""

import numpy as np

from tinygrad_bn import functional as F
from tinygrad_bn.norm.axes import FAMILY, arrange

GROUPS = 2
CALLS = {
    "batch_norm": lambda x, w, b, **o: F.batch_norm(x, None, None, w, b, training=True, **o),
    "instance_norm": lambda x, w, b, **o: F.instance_norm(x, None, None, w, b, **o),
    "group_norm": lambda x, w, b, **o: F.group_norm(x, GROUPS, w, b, **o),
    "layer_norm": lambda x, w, b, **o: F.layer_norm(x, x.shape[1:], w, b, **o),
    "rms_norm": lambda x, w, b, **o: F.rms_norm(x, x.shape[1:], w, **o),
}
EPS = 1e-5


def call(name, impl="fused", eps=EPS):
    """The function of x, weight and bias (either may be None; RMS norm has no bias)."""
    return lambda x, w=None, b=None: CALLS[name](x, w, b, eps=eps, impl=impl)


def arranged(name, shape):
    features = len(shape) - 1 if "F" in FAMILY[name].layout else None
    return arrange(FAMILY[name], shape, features, GROUPS)


def parameter_shape(name, shape):
    return shape[1:] if "F" in FAMILY[name].layout else shape[1:2]


def parameters(name, shape, random, dtype=np.float64):
    """x's companions: γ, and β where the member has one."""
    kept = parameter_shape(name, shape)
    return [random.standard_normal(kept).astype(dtype) for _ in range(1 + (name != "rms_norm"))]


def by_hand(name, x, g, weight, eps=EPS):
    """y without β, ∂x and ∂γ in the precision of x, from the formula, with the mean taken twice."""
    seen, axes, affine = arranged(name, x.shape)
    shape, x, g, w = x.shape, x.reshape(seen), g.reshape(seen), weight.reshape(affine)

    def mean(v):
        return v.mean(axis=axes, keepdims=True)

    d = x
    if FAMILY[name].centred:
        d = x - mean(x)
        d = d - mean(d)
    r = 1 / np.sqrt(mean(d * d) + eps)
    xhat, dxhat = d * r, w * g
    dx = r * (dxhat - xhat * mean(dxhat * xhat) - (mean(dxhat) if FAMILY[name].centred else 0))
    summed = tuple(i for i, n in enumerate(affine) if n == 1)
    dw = (g * xhat).sum(axis=summed)
    return (w * xhat).reshape(shape), dx.reshape(shape), dw.reshape(weight.shape)
