"""Batch norm against none: a deep network on the disc of EE-559 for many scales of its initial
weights, and a small one on the digits at two learning rates."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import nn
from ..nn.init import normal
from ..random_numbers import manual_seed
from .data import digits, disc
from .loop import Progress, error_rate, fit

_LEARNS_BELOW = 0.25  # half the error of guessing on the disc: a network below it has learned


@dataclass(frozen=True)
class Plan:
    """How much a tour trains."""

    stds: tuple[float, ...]
    networks: int  # for each setting, from different initial weights
    disc_epochs: int
    digits_epochs: int


FULL = Plan((0.01, 0.03, 0.1, 0.2, 0.5, 1.0, 3.0), networks=3, disc_epochs=30, digits_epochs=15)
QUICK = Plan((0.03, 0.2, 1.0), networks=1, disc_epochs=15, digits_epochs=6)

_DISC = {"hidden_layers": 17, "width": 32, "lr": 0.1, "batch_size": 100}
_DIGITS = {"hidden_layers": 3, "width": 64, "batch_size": 50}
_RATES = (0.2, 2.0)


def network(sizes: Sequence[int], batch_norm: bool) -> nn.Sequential:
    """Linear layers of these sizes; after each but the last batch norm, if wanted, and ReLU."""
    modules = []
    for inputs, outputs in itertools.pairwise(sizes[:-1]):
        modules.append(nn.Linear(inputs, outputs))
        if batch_norm:
            modules.append(nn.BatchNorm1d(outputs))
        modules.append(nn.ReLU())
    return nn.Sequential(*modules, nn.Linear(*sizes[-2:]))


def disc_network(std: float, batch_norm: bool) -> nn.Sequential:
    """EE-559's network, 2 → 17 × 32 → 2. Weights and biases of the linear layers start normal with
    this standard deviation; batch norm keeps γ = 1 and β = 0."""
    model = network([2, *[_DISC["width"]] * _DISC["hidden_layers"], 2], batch_norm)
    for module in model:
        for p in module.parameters() if isinstance(module, nn.Linear) else ():
            p.data = normal(p.shape, std).data
    return model


def train_on_disc(plan: Plan, seed: int) -> dict:
    """The test error for each standard deviation of the initial weights, with and without BN."""
    points = 1000
    x, y = disc(2 * points, seed)
    found = {"without": [], "with": []}
    progress = Progress("disc", 2 * len(plan.stds) * plan.networks)
    for std in plan.stds:
        for side, settings in found.items():
            errors = []
            for k in range(plan.networks):
                manual_seed(seed * plan.networks + k)
                model = disc_network(std, batch_norm=side == "with")
                fit(
                    model,
                    x[:points],
                    y[:points],
                    epochs=plan.disc_epochs,
                    batch_size=_DISC["batch_size"],
                    lr=_DISC["lr"],
                    seed=k,
                )
                errors.append(error_rate(model, x[points:], y[points:]))
                progress.advance(f"{side} BN, std {std:g}: {_one_error(errors[-1])}")
            settings.append({"std": std, **_summarized(errors)})
    n = len(plan.stds)
    with_bn, without = (sum(s["learns"] for s in found[side]) for side in ("with", "without"))
    finding = (
        f"The network learns (test error below {100 * _LEARNS_BELOW:.0f} %) from "
        f"{with_bn} of {n} initial scales with batch norm, and from {without} of {n} without."
    )
    return {
        "title": _disc_title(with_bn, without, n),
        "finding": finding,
        **_DISC,
        "points": points,
        "test_points": points,
        "epochs": plan.disc_epochs,
        "networks": plan.networks,
        "stds": plan.stds,
        **found,
    }


def _disc_title(with_bn: int, without: int, n: int) -> str:
    if with_bn <= without:
        return "Here batch norm did not widen the range of initial scales that learn"
    if with_bn >= 0.8 * n:
        return "With batch norm the initial scale hardly matters"
    return "With batch norm more initial scales learn"


def train_on_digits(plan: Plan, seed: int) -> dict:
    """Loss and test error on the digits at one learning rate and ten times that, with and without
    BN; or, where scikit-learn is missing, why that was left out."""
    try:
        train, test = digits(seed)
    except RuntimeError as error:
        print(f"digits: left out, {error}")
        return {"title": "The digits were left out", "skipped": str(error)}
    settings = []
    progress = Progress("digits", 2 * len(_RATES) * plan.networks)
    sizes = [64, *[_DIGITS["width"]] * _DIGITS["hidden_layers"], 10]
    for lr in _RATES:
        for batch_norm in (False, True):
            errors, histories = [], []
            for k in range(plan.networks):
                manual_seed(seed * plan.networks + k)
                model = network(sizes, batch_norm)
                history = fit(
                    model,
                    *train,
                    epochs=plan.digits_epochs,
                    batch_size=_DIGITS["batch_size"],
                    lr=lr,
                    seed=k,
                )
                histories.append(history)
                errors.append(error_rate(model, *test))
                name = "with BN" if batch_norm else "without BN"
                progress.advance(f"{name}, lr {lr:g}: {_one_error(errors[-1])}")
            curves = zip(*(history.losses for history in histories))
            settings.append(
                {
                    "batch_norm": batch_norm,
                    "lr": lr,
                    "losses": [float(np.mean(epoch)) for epoch in curves],
                    "diverged_in": [h.diverged_in for h in histories if h.diverged_in],
                    **_summarized(errors),
                }
            )
    return {
        "title": _digits_title(*settings[-2:]),
        "skipped": None,
        **_DIGITS,
        "points": len(train[0]),
        "epochs": plan.digits_epochs,
        "networks": plan.networks,
        "rates": _RATES,
        "settings": settings,
    }


def _digits_title(without: dict, with_bn: dict) -> str:
    """The finding at the higher learning rate."""
    if with_bn["learns"] and not without["learns"]:
        return "With batch norm a ten times higher learning rate still learns the digits"
    return (
        f"At the ten times higher learning rate: test error {error_text(with_bn)} with batch norm, "
        f"{error_text(without)} without"
    )


def _summarized(errors: list[float | None]) -> dict:
    """The test errors of some networks (None: diverged), their mean and range, and a verdict."""
    finite = [error for error in errors if error is not None]
    average = float(np.mean(finite)) if finite else None
    return {
        "errors": errors,
        "mean": average,
        "lowest": min(finite, default=None),
        "highest": max(finite, default=None),
        "diverged": len(errors) - len(finite),
        "learns": len(finite) == len(errors) and average < _LEARNS_BELOW,
    }


def _one_error(error: float | None) -> str:
    return "diverged" if error is None else f"test error {100 * error:.1f} %"


def error_text(setting: dict) -> str:
    """The test error of one setting: the mean of its networks, their range, and what diverged."""
    total, diverged = len(setting["errors"]), setting["diverged"]
    if diverged == total:
        return "× diverged"
    text = f"{100 * setting['mean']:.1f} %"
    if total - diverged > 1:
        text += f" ({100 * setting['lowest']:.1f}–{100 * setting['highest']:.1f})"
    return f"{text}, × {diverged} of {total} diverged" if diverged else text
