"""A deep network on the disc of EE-559, for many standard deviations of its initial weights."""

from collections.abc import Sequence

import numpy as np

from .. import nn
from ..nn.init import normal
from ..random_numbers import manual_seed
from ..train import Progress, disc, error_rate, fit
from ..train.models import Between, mlp
from ..train.summary import summarized

HIDDEN_LAYERS, WIDTH = 17, 32
_LR, _BATCH_SIZE, _POINTS = 0.1, 100, 1000
_LEARNED_BELOW = 0.25  # half the error of guessing

# Each start: the norm after every hidden layer, and the modules whose parameters are drawn anew.
STARTS = {
    "without": ("none", nn.Linear),
    "with": ("batch", nn.Linear),  # γ = 1 and β = 0
    "overwritten": ("batch", nn.Module),  # as the lecture's loop does it: γ and β, too
}


def points(seed: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """(x, labels) to train on, and to test: 1,000 points each."""
    x, labels = disc(2 * _POINTS, seed)
    return (x[:_POINTS], labels[:_POINTS]), (x[_POINTS:], labels[_POINTS:])


def network(start: str, std: float) -> nn.Sequential:
    """The lecture's network, 2 → 17 × 32 → 2 by ReLU, from one of the `STARTS`: parameters normal
    with mean 0 and this standard deviation. Before batch norm, where a bias does nothing, there is
    none."""
    norm, drawn = STARTS[start]
    model = mlp((2,), 2, Between(norm), width=WIDTH, depth=HIDDEN_LAYERS)
    for module in model:
        for parameter in module.parameters() if isinstance(module, drawn) else ():
            parameter.data = normal(parameter.shape, std).data
    return model


def train(
    stds: Sequence[float],
    networks: int,
    epochs: int,
    seed: int,
    starts: Sequence[str] = tuple(STARTS),
) -> dict:
    """Trained networks, {start: {std: [network, …]}}: so many from different initial weights, for
    each of the `starts`."""
    (x, y), _ = points(seed)
    trained = {start: {std: [] for std in stds} for start in starts}
    progress = Progress("disc", len(starts) * len(stds) * networks)
    for start, by_std in trained.items():
        for std, models in by_std.items():
            for k in range(networks):
                manual_seed(seed * networks + k)
                model = network(start, std)
                history = fit(model, x, y, epochs=epochs, batch_size=_BATCH_SIZE, lr=_LR, seed=k)
                models.append(model)
                end = "diverged" if history.diverged_in else f"loss {history.losses[-1]:.4f}"
                progress.advance(f"{start}, std {std:g}: {end}")
    return trained


def errors(trained: dict, seed: int) -> dict:
    """The test errors of what `train` gave, {start: [{"std": …, "errors": …, "mean": …}, …]}."""
    _, test = points(seed)
    return {
        start: [
            {"std": std, **summarized([error_rate(m, *test) for m in models], _LEARNED_BELOW)}
            for std, models in by_std.items()
        ]
        for start, by_std in trained.items()
    }


def run(stds: Sequence[float], networks: int, epochs: int, seed: int) -> dict:
    """The test error for each standard deviation, "without" batch norm and "with" it, and the
    finding in words."""
    found = errors(train(stds, networks, epochs, seed, ("without", "with")), seed)
    learns = {start: sum(s["learns"] for s in settings) for start, settings in found.items()}
    finding = (
        f"The network learns (test error below {100 * _LEARNED_BELOW:.0f} %) from "
        f"{learns['with']} of {len(stds)} initial scales with batch norm, and from "
        f"{learns['without']} of {len(stds)} without."
    )
    return {
        "title": _title(learns["with"], learns["without"], len(stds)),
        "finding": finding,
        "hidden_layers": HIDDEN_LAYERS,
        "width": WIDTH,
        "lr": _LR,
        "batch_size": _BATCH_SIZE,
        "points": _POINTS,
        "test_points": _POINTS,
        "epochs": epochs,
        "networks": networks,
        "stds": list(stds),
        **found,
    }


def _title(with_bn: int, without: int, n: int) -> str:
    if with_bn <= without:
        return "Here batch norm did not widen the range of initial scales that learn"
    if with_bn >= 0.8 * n:
        return "With batch norm the initial scale hardly matters"
    return "With batch norm more initial scales learn"
