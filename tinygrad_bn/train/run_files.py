"""Read what a training run left in its folder: its settings, its epochs, and how it ended.

The files may be anybody's. What is wrong with one is a ValueError that names it, and the line.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ..functional.arguments import choice, whole
from .config import Config, read_config

_NUMBERS = (
    *("step", "lr", "loss", "accuracy", "validation_loss", "validation_accuracy", "seconds"),
    *("samples_per_second", "epochs", "best_epoch", "test_loss", "test_accuracy"),
    *("best_test_accuracy", "parameters"),
)
_STATES = ("finished", "stopped early", "interrupted", "diverged")
_MEBIBYTE = 1 << 20
_FINITE = 1e38  # what is larger is on its way to be no float32
_MOST_EPOCHS = 10**6

Record = dict[str, Any]  # numbers by their names, floats; one that is not finite is NaN


@dataclass(frozen=True)
class RunFiles:
    """What a run left. `epochs` has a record for each epoch that was completed; `summary` is empty
    as long as the run goes on, and after it was killed."""

    folder: Path
    config: Config
    epochs: list[Record]
    summary: Record

    @property
    def diverged_in(self) -> int | None:
        """The epoch in which the run diverged, if it did."""
        return self.summary["diverged"]["epoch"] if self.end == "diverged" else None

    @property
    def end(self) -> str:
        """How it ended: "finished", "stopped early", "interrupted", "diverged", or "unfinished"."""
        return self.summary.get("state", "unfinished")

    def has(self, name: str) -> bool:
        """Whether any epoch has a number of this name."""
        return any(name in record for record in self.epochs)

    def best(self, name: str) -> Record | None:
        """The first epoch with the lowest loss, or the highest accuracy; None if none has one."""
        found = [r for r in self.epochs if not math.isnan(r.get(name, math.nan))]
        choose = min if name.endswith("loss") else max
        return choose(found, key=lambda record: record[name], default=None)


def read_run(folder: Path) -> RunFiles:
    """The run in this folder. A last line of metrics.jsonl that a killed run left unfinished counts
    for nothing."""
    path = folder / "config.toml"
    if not path.exists():
        raise ValueError(f"{folder}: got no config.toml, wants the folder of a run")
    _content(path, _MEBIBYTE)
    settings = read_config(path)  # which names the file
    try:
        config = Config(**settings).filled()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return RunFiles(
        folder, config, _epochs(folder / "metrics.jsonl"), _summary(folder / "summary.json")
    )


def _content(path: Path, most: int) -> bytes:
    if not path.is_file():
        raise ValueError(f"{path}: got no file, wants one")
    with open(path, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{path}: got more than {most:,} bytes, wants a run's file")
    return content


def _epochs(path: Path) -> list[Record]:
    if not path.exists():
        return []
    lines = _content(path, 64 * _MEBIBYTE).split(b"\n")
    records, before = [], 0
    for number, line in enumerate(lines, start=1):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):  # "" after a newline, or what a killed run left
                break
            shown = line.decode(errors="replace")
            raise ValueError(f"{path}, line {number}: got {shown!r:.40}, wants JSON") from error
        try:
            record = _record(found)
            before = record["epoch"] = _epoch("epoch", record.get("epoch"), before + 1)
            for name in ("loss", "accuracy"):
                if name not in record:
                    raise ValueError(f"{name}: got none, wants a number")
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        records.append(record)
    return records


def _summary(path: Path) -> Record:
    if not path.exists():
        return {}
    content = _content(path, _MEBIBYTE)
    try:
        summary = _record(json.loads(content))
        choice("state", summary.get("state"), *_STATES)
        if summary["state"] == "diverged":
            if not isinstance(where := summary.get("diverged"), dict):
                raise ValueError(f"diverged: got {where!r:.40}, wants where")
            _epoch("diverged: epoch", where.get("epoch"), 1)
    except RecursionError as error:
        raise ValueError(f"{path}: got lists in lists, wants names and values") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return summary


def _epoch(name: str, value: Any, least: int) -> int:
    if (epoch := whole(name, value, least)) > _MOST_EPOCHS:
        raise ValueError(f"{name}: got {epoch!r:.40}, wants at most {_MOST_EPOCHS:,}")
    return epoch


def _record(found: Any) -> Record:
    """A JSON object, of which the numbers that we know are numbers; null is as if it were not."""
    if not isinstance(found, dict):
        raise ValueError(f"got {found!r:.40}, wants names and values")
    known = {name: found.pop(name) for name in _NUMBERS if name in found}
    return found | {n: _number(n, value) for n, value in known.items() if value is not None}


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name}: got {value!r:.40}, wants a number")
    number = float(value) if abs(value) < _FINITE else math.nan
    if name.endswith("accuracy") and not (0 <= number <= 1 or math.isnan(number)):
        raise ValueError(f"{name}: got {value!r:.40}, wants a share from 0 to 1")
    return number


def measured(runs: Sequence[RunFiles], what: str) -> str:
    """The loss or accuracy, by its name, that tells how well the runs do: the one on validation
    data, if all of them have it."""
    held_out, begun = f"validation_{what}", [run for run in runs if run.epochs]
    return held_out if begun and all(run.has(held_out) for run in begun) else what


def curve(runs: Sequence[RunFiles], name: str) -> dict[str, list]:
    """What the line of some runs is drawn from: the mean of a number, epoch by epoch, its range,
    and × where a run diverged or the number is not finite.

    The mean is that of the runs that did not diverge, if there are any, up to the last epoch that
    all of them have.
    """
    going = [run for run in runs if run.diverged_in is None] or runs
    found = [{r["epoch"]: r[name] for r in run.epochs if name in r} for run in going]
    epochs = sorted(set.intersection(*map(set, found)))
    values = [[numbers[epoch] for numbers in found] for epoch in epochs]
    y = [None if any(map(math.isnan, several)) else fmean(several) for several in values]
    crosses = {run.diverged_in for run in runs} - {None}
    crosses |= {epoch for epoch, mean in zip(epochs, y) if mean is None}
    edges = {}
    if len(going) > 1:
        edges = {
            edge: [None if mean is None else of(several) for several, mean in zip(values, y)]
            for edge, of in (("low", min), ("high", max))
        }
    return {"x": epochs, "y": y, "crosses": sorted(crosses), **edges}
