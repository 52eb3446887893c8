"""The table of Ioffe & Szegedy 2015 (Figure 3) for a small convnet on the digits: how many steps
networks with batch norm need, at several learning rates, to be as good as one without ever is."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..random_numbers import manual_seed
from ..train import Progress, accuracy, digits
from ..train.models import Between, convnet
from ..train.summary import spread
from .steps import steps

BASE_RATE = 0.05
EVERY = 10  # so many steps apart the test images are looked at
_WIDTH, _DEPTH, _BATCH_SIZE = 8, 3, 50
_NEAR = 0.01  # a percentage point below the best accuracy of the baseline


@dataclass(frozen=True)
class Row:
    """A network of the table: what follows each convolution, and its rate as a multiple of the
    baseline's."""

    name: str
    norm: str = "batch"
    activation: str = "relu"
    factor: int = 1


ROWS = (
    Row("baseline", norm="none"),
    Row("baseline ×5", norm="none", factor=5),
    Row("baseline ×30", norm="none", factor=30),
    Row("BN"),
    Row("BN ×5", factor=5),
    Row("BN ×30", factor=30),
    Row("BN ×5 sigmoid", activation="sigmoid", factor=5),
)


def accuracies(row: Row, count: int, seed: int) -> list[float | None]:
    """The accuracy on the held-out fifth after every tenth of `count` steps. None: no longer
    finite. `seed` decides the split, the initial weights and the order of the batches."""
    (x, y), (test_x, test_y) = digits(seed)
    x, test_x = (images.reshape(-1, 1, 8, 8) for images in (x, test_x))
    manual_seed(seed)
    between = Between(row.norm, activation=row.activation)
    model = convnet((1, 8, 8), 10, between, width=_WIDTH, depth=_DEPTH)
    rate, curve = BASE_RATE * row.factor, []
    for done in steps(model, x, y, count, lr=rate, batch_size=_BATCH_SIZE, seed=seed):
        if done % EVERY == 0:
            curve.append(accuracy(model, test_x, test_y))
    return curve


def steps_to(goal: float, curve: Sequence[float | None]) -> int | None:
    """After how many steps a curve of `accuracies` is first that high; None if it never is.

    >>> steps_to(0.9, [0.5, 0.95, 0.8]), steps_to(0.9, [0.5, None])
    (20, None)
    """
    reached = (k for k, value in enumerate(curve, 1) if value is not None and value >= goal)
    return next((EVERY * k for k in reached), None)


def run(networks: int, baseline_steps: int, other_steps: int, seed: int) -> dict:
    """The table, {"rows": [{"name", "steps", "best", …}, …]} in the order of `ROWS`.

    Each row is trained from `networks` seeds, the baseline for more steps than the others. "steps"
    are those to the best accuracy that the baseline of the same seed ever has, "near" those to a
    percentage point less, which depends less on luck; None where they were not enough. "best" is
    the network's own best accuracy, and "curves" all of them, every tenth step.
    """
    seeds = range(seed * networks, (seed + 1) * networks)
    progress, rows, goals = Progress("learning rates", len(ROWS) * networks), [], []
    for row in ROWS:
        count = other_steps if rows else baseline_steps
        curves = []
        for one in seeds:
            curves.append(accuracies(row, count, one))
            progress.advance(f"{row.name}, seed {one}")
        best = [max((v for v in curve if v is not None), default=None) for curve in curves]
        goals = goals or best  # those of the baseline, which comes first
        found = {
            "steps": [steps_to(goal, curve) for goal, curve in zip(goals, curves)],
            "near": [steps_to(goal - _NEAR, curve) for goal, curve in zip(goals, curves)],
            "best": best,
        }
        rows.append(
            {
                "name": row.name,
                "lr": BASE_RATE * row.factor,
                "trained_for": count,
                **{what: {"each": values, **spread(values)} for what, values in found.items()},
                "curves": curves,
            }
        )
    return {
        "title": _title({row["name"]: row for row in rows}),
        "networks": networks,
        "every": EVERY,
        "rows": rows,
    }


def _title(rows: dict) -> str:
    """The finding, from the rows by name."""
    ours = [rows[name]["steps"] for name in ("BN", "BN ×5")]
    if any(None in steps["each"] for steps in ours):
        return "Not every network with batch norm equals the baseline's best"
    same, higher = (f"{steps['mean']:.0f}" for steps in ours)
    return (
        f"The baseline's best of {rows['baseline']['trained_for']:,} steps: batch norm has it "
        f"after {same}, at five times the rate after {higher}"
    )
