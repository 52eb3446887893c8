"""Figure 1 of Ioffe & Szegedy 2015 on the digits: three hidden layers of 100 sigmoids."""

import numpy as np

from .. import nn
from ..nn.init import normal
from ..random_numbers import manual_seed
from ..train import Progress, accuracy, digits
from ..train.models import Between, mlp
from .steps import inputs_of, steps

PERCENTILES = (15, 50, 85)  # those of the paper
_SATURATED = 4.0  # beyond, the slope of a sigmoid is below 0.018; at 0 it is 0.25
_HIDDEN_LAYERS, _WIDTH, _BATCH_SIZE = 3, 100, 60  # the paper's
_STD = 0.1  # of the initial weights: "small random Gaussian values"
_LR = 2.0  # without batch norm the network learns at 4, too, and no longer at 8
_LAST_SIGMOIDS = -2  # their place in the network; the linear layer of the outputs follows


def network(norm: str) -> nn.Sequential:
    """64 → 3 × 100 sigmoids → 10, with this norm before each layer of sigmoids."""
    between = Between(norm, activation="sigmoid")
    model = mlp((64,), 10, between, width=_WIDTH, depth=_HIDDEN_LAYERS)
    for module in model:
        if isinstance(module, nn.Linear):
            module.weight.data = normal(module.weight.shape, _STD).data
    return model


def watch(norm: str, count: int, every: int, seed: int) -> dict:
    """Train one network and measure before the first step and after every so many.

    Lists over these moments: "accuracy" on the test images; and of the inputs to the last hidden
    sigmoids, over all training images: "percentiles", (3, units); "saturated", the share of them
    beyond ±4.
    """
    train, test = digits(seed)
    manual_seed(seed)
    model = network(norm)
    found = {"accuracy": [], "percentiles": [], "saturated": []}

    def measure():
        inputs = inputs_of(model, _LAST_SIGMOIDS, train[0])
        found["accuracy"].append(accuracy(model, *test))
        found["percentiles"].append(np.percentile(inputs, PERCENTILES, axis=0))
        found["saturated"].append(float((np.abs(inputs) > _SATURATED).mean()))

    measure()
    for done in steps(model, *train, count, lr=_LR, batch_size=_BATCH_SIZE, seed=seed):
        if done % every == 0:
            measure()
    return found


def run(networks: int, count: int, every: int, seed: int) -> dict:
    """What `watch` saw of so many networks without and with batch norm.

    {"title", "networks", "steps": [0, every, …], "without": {…}, "with": {…}}, and for both sides,
    with a list for each network: "accuracy"; "unit", the three percentiles of the first unit's
    inputs; "width", from the 15th to the 85th, and "moved", how far the median has come since the
    start, both the means over the units; "saturated".
    """
    result = {"steps": list(range(0, count + 1, every))}
    progress = Progress("sigmoids", 2 * networks)
    for side, norm in (("without", "none"), ("with", "batch")):
        found = {"accuracy": [], "unit": [], "width": [], "moved": [], "saturated": []}
        for k in range(seed * networks, (seed + 1) * networks):
            seen = watch(norm, count, every, k)
            low, median, high = np.moveaxis(np.array(seen["percentiles"]), 1, 0)
            found["accuracy"].append(seen["accuracy"])
            found["saturated"].append(seen["saturated"])
            found["unit"].append(np.array(seen["percentiles"])[:, :, 0].tolist())
            found["width"].append((high - low).mean(axis=1).tolist())
            found["moved"].append(np.abs(median - median[0]).mean(axis=1).tolist())
            progress.advance(f"{side} BN, seed {k}")
        result[side] = found
    return {"title": _title(result), "networks": networks, **result}


def _title(found: dict) -> str:
    without, with_bn = (
        100 * np.mean([accuracy[-1] for accuracy in found[side]["accuracy"]])
        for side in ("without", "with")
    )
    return (
        f"Three layers of sigmoids: {with_bn:.0f} % right with batch norm, {without:.0f} % without"
    )
