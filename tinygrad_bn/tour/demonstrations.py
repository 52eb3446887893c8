"""Two things about batch norm that a few samples show: it couples them, and it needs the gradient
through its mean."""

import numpy as np

from .. import functional as F
from ..creation import tensor
from ..engine import grad
from ..transforms import jacobian

_SAMPLES, _FEATURES = 8, 3
_STEPS, _LR = 40, 0.1


def coupling() -> dict:
    """∂y/∂x of batch norm and of layer norm, (samples · features) squared, and what they couple."""
    x = tensor(np.random.default_rng(0).normal(size=(_SAMPLES, _FEATURES)))
    found = {
        "batch": jacobian(lambda x: F.batch_norm(x, None, None, training=True), x),
        "layer": jacobian(lambda x: F.layer_norm(x, (_FEATURES,)), x),
    }
    side = _SAMPLES * _FEATURES
    found = {name: J.numpy().reshape(side, side) for name, J in found.items()}
    other_sample = np.kron(np.eye(_SAMPLES), np.ones((_FEATURES, _FEATURES))) == 0
    share = {name: float(np.mean(J[other_sample] != 0)) for name, J in found.items()}
    return {
        "title": "Batch norm couples the samples of a batch; layer norm the features of a sample",
        "samples": _SAMPLES,
        "features": _FEATURES,
        "between_samples": share,
        **{name: J.tolist() for name, J in found.items()},
    }


def ignored_mean() -> dict:
    """The example of Ioffe & Szegedy 2015, section 2: x̂ = u + b − E[u + b], trained with and
    without the gradient through E. Lists of b and of the loss, before each step."""
    u = tensor(np.array([0.5, 3.5, 4.5, 7.5]))
    target = tensor(np.array([0.0, 1.0, 3.0, 4.0]))
    found = {}
    for name, ignores in (("whole", False), ("ignored", True)):
        b, biases, losses = tensor(np.array(0.0), requires_grad=True), [], []
        for _ in range(_STEPS):
            x = u + b
            mu = x.mean().detach() if ignores else x.mean()
            loss = ((x - mu - target) ** 2).mean()
            (db,) = grad(loss, b)
            biases.append(b.item())
            losses.append(loss.item())
            b = tensor(b.data - _LR * db.data, requires_grad=True)
        found[name] = {"b": biases, "loss": losses}
    grown = found["ignored"]["b"][-1]
    return {
        "title": f"Who ignores the mean's gradient: b grows to {grown:.0f}, and the loss stays",
        "lr": _LR,
        **found,
    }
