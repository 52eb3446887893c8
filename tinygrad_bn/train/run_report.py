"""The report of a training run: index.html, loss.svg and accuracy.svg, from what the run left."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from ..diagram.drawing.text import several
from ..files import write_whole
from .config import Config
from .page import document, figure, folded, note, number, paragraph, section, table
from .plot import MISSING, Line, line_plot, look, svg_file
from .run_files import RunFiles, curve, measured, read_run

_PLOTS = ("loss", "accuracy")
_MOST_ROWS = 200  # of a table of epochs


def write_report(folder: Path) -> None:
    """Write the report of the run in `folder` into it, the page last. Each file is there whole or
    not at all: an OSError names the one that cannot be written, a ValueError one that is damaged.
    Without an epoch there are no plots, and without matplotlib, which the page says."""
    run = read_run(folder)
    plots = {what: _plot(run, what) for what in _PLOTS} if run.epochs else {}
    for what, plot in plots.items():
        if plot is not None:
            write_whole(folder / f"{what}.svg", svg_file(plot).encode())
    write_whole(folder / "index.html", _page(run, plots).encode())


def _page(run: RunFiles, plots: dict[str, str | None]) -> str:
    notes = [*_notes(run), *([MISSING] if None in plots.values() else [])]
    figures = [
        section(_heading(run, what), figure(plot, *_numbers(run, what)))
        for what, plot in plots.items()
    ]
    files = ["config.toml", "metrics.jsonl", "summary.json", *(f"{what}.svg" for what in _PLOTS)]
    there = [name for name in files if (run.folder / name).exists()]
    links = ", ".join(f'<a href="{name}">{name}</a>' for name in there)
    footer = f"<footer>What the run left: {links}.</footer>"
    body = [*map(note, notes), _result(run), *figures, _settings(run.config), _work(run), footer]
    return document(_finding(run), "".join(body))


# --- In words -------------------------------------------------------------------------------------


def _finding(run: RunFiles) -> str:
    """What was trained on what, and what came out."""
    norm = {"none": "without norm", "rms": "with RMS norm"}
    norm = norm.get(run.config.norm, f"with {run.config.norm} norm")
    epochs = several(len(run.epochs), "epoch")
    if run.diverged_in is not None:
        outcome = f"diverged in epoch {run.diverged_in}"
    elif "test_accuracy" in run.summary:
        outcome = f"{number(run.summary['test_accuracy'], '.1%')} of the test set right"
        outcome += f", stopped early after {epochs}" * (run.end == "stopped early")
    else:
        outcome = f"{run.end} after {epochs}"
    return f"{run.config.data}, {run.config.model} {norm}: {outcome}"


def _notes(run: RunFiles) -> list[str]:
    """What a reader must know of how the run ended, if it is not done."""
    if run.diverged_in is not None:
        found = run.summary["diverged"]
        said = [str(found[key]) for key in ("what", "where") if found.get(key)]
        return [*said, *["The numbers are those from before it diverged."] * bool(run.epochs)]
    if run.end == "interrupted":
        return ["The run was interrupted; with --resume it goes on."]
    if run.end == "unfinished":
        return ["The run goes on, or it was killed; then it goes on with --resume."]
    return []


def _heading(run: RunFiles, what: str) -> str:
    key = measured([run], what)
    best = run.best(key)
    if best is None:
        return what.capitalize()
    extreme = "lowest" if what == "loss" else "highest"
    return f"{name_of(key).capitalize()} {extreme} in epoch {best['epoch']}: {shown(key, best)}"


def name_of(key: str) -> str:
    """What a loss or an accuracy of a record is called.

    >>> name_of("loss"), name_of("validation_accuracy")
    ('training loss', 'validation accuracy')
    """
    return key.replace("_", " ") if "_" in key else f"training {key}"


def shown(key: str, record: dict) -> str:
    """A loss or an accuracy of a record, as text.

    >>> shown("loss", {"loss": 0.123456}), shown("test_accuracy", {"test_accuracy": 0.98611})
    ('0.1235', '98.61 %')
    """
    return number(record.get(key), ".4g" if key.endswith("loss") else ".2%")


# --- In numbers -----------------------------------------------------------------------------------


def _result(run: RunFiles) -> str:
    """The last epoch beside the best."""
    key = measured([run], "loss")
    if (best := run.best(key)) is None:
        return ""
    last = run.epochs[-1]
    rows = [
        [name_of(key), shown(key, last), shown(key, best)]
        for key in _keys(run, "accuracy") + _keys(run, "loss")
    ]
    if "test_accuracy" in run.summary:
        on_test = (shown(key, run.summary) for key in ("test_accuracy", "best_test_accuracy"))
        rows.insert(0, ["test accuracy", *on_test])
    header = ["", f"last epoch, {last['epoch']}", f"best epoch, {best['epoch']}"]
    about = f"The best epoch is the one with the lowest {name_of(key)}."
    return table(header, rows) + paragraph(about)


def _keys(run: RunFiles, what: str) -> list[str]:
    """Those of the loss, or of the accuracy, that the run has numbers for."""
    return [what, *([key] if run.has(key := f"validation_{what}") else [])]


def _plot(run: RunFiles, what: str) -> str | None:
    """The loss or the accuracy over the epochs."""
    lines = []
    for k, key in enumerate(_keys(run, what)):
        points, label = curve([run], key), name_of(key).split()[0]
        if run.diverged_in is None:
            label += f" {shown(key, run.epochs[-1])}"
        elif k == 0:
            label += "\n× diverged"
        else:  # that is told once
            points["crosses"].remove(run.diverged_in)
        lines.append(Line(label, **points, **look(k)))
    on_test = run.summary.get(f"test_{what}", math.nan)
    if not math.isnan(on_test):
        label = f"test {shown(f'test_{what}', run.summary)}"
        lines.append(Line(label, x=[run.epochs[-1]["epoch"]], y=[on_test], **look(2)))
    return plot_by_epoch(lines, what, f"The {what} by epoch. {_heading(run, what)}")


def plot_by_epoch(lines: Sequence[Line], what: str, alt: str) -> str | None:
    """Lines over epochs; `what` they show is "loss" or "accuracy"."""
    last = max((epoch for line in lines for epoch in (*line.x, *line.crosses)), default=1)
    return line_plot(
        lines,
        name=what,
        alt=alt,
        xlabel="epoch",
        ylabel=what,
        ticks=sorted({1, (1 + last) // 2, last}),
        log_y=what == "loss" and all(y is None or y > 0 for line in lines for y in line.y),
        percent=what == "accuracy",
    )


def _numbers(run: RunFiles, what: str) -> tuple[str, str]:
    keys = _keys(run, what)
    rows = [
        [record["epoch"], number(record.get("lr"), ".4g"), *(shown(key, record) for key in keys)]
        for record in run.epochs
    ]
    return table_by_epoch(["epoch", "learning rate", *map(name_of, keys)], rows)


def table_by_epoch(header: Sequence, rows: Sequence[Sequence]) -> tuple[str, str]:
    """A table with a row an epoch, or for some of many epochs, the last among them; and its
    name."""
    step = max(1, math.ceil(len(rows) / _MOST_ROWS))
    name = "numbers" if step == 1 else f"numbers of one epoch in {step}"
    return table(header, rows[::-step][::-1]), name


def _settings(config: Config) -> str:
    """What was set, and folded out all settings."""
    usual = Config(config.data, model=config.model, optimizer=config.optimizer).filled()
    rows = list(dataclasses.asdict(config).items())
    more = [f"{name} {value}" for name, value in rows if value != getattr(usual, name)]
    chosen = ", ".join([f"data {config.data}", f"model {config.model}", *more])
    every = folded("all settings", table(["setting", "value"], rows))
    return section("Settings", paragraph(f"What was chosen: {chosen}."), every)


def _work(run: RunFiles) -> str:
    """What it took: time, size, machine, versions."""
    summary = run.summary
    versions = summary.get("versions")
    rows = [
        ["parameters", number(summary.get("parameters"), ",.0f")],
        ["seconds", number(summary.get("seconds"), ",.1f")],
        ["machine", summary.get("machine", "—")],
        *(versions.items() if isinstance(versions, dict) else []),
    ]
    return section("What it took", table(["", ""], rows)) if summary else ""
