"""Training runs beside each other: a table, and a page that draws them together.

Runs that have the same settings but for the seed are drawn as one line: their mean, with its range.
"""

import dataclasses
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from ..diagram.drawing.text import clean, printable, several
from ..files import write_whole
from .config import FIELDS
from .page import document, figure, folded, note, number, paragraph, section, table
from .plot import MISSING, Line, look
from .run_files import RunFiles, curve, measured, read_run
from .run_report import name_of, plot_by_epoch, shown, table_by_epoch
from .summary import percent

_LABEL = {"width": 24, "max_lines": 3, "placeholder": " …"}  # of a line in a plot
_OTHER_DATA = "The runs learned different data, so their numbers do not compare"
_RIGHT = {"test": "of the test set right", "validation": "of the validation data right"}


@dataclass(frozen=True)
class _Setting:
    """Runs that differ in the seed alone. The scores, accuracies, are of those not diverged."""

    name: str
    runs: list[RunFiles]
    scores: list[float]

    @property
    def diverged(self) -> int:
        """How many of the runs did."""
        return sum(run.diverged_in is not None for run in self.runs)

    @property
    def mean(self) -> float:
        """That of the scores; −1 where there is none."""
        return fmean(self.scores) if self.scores else -1.0

    @property
    def score(self) -> str:
        """The mean of the scores, and their range, as text."""
        if not self.scores:
            return "×" if self.diverged else "—"
        return percent(self.scores, 1)


def compare_runs(folders: Sequence[Path], out: Path) -> None:
    """Print a table of the runs in these folders, and write a page that draws them together.

    It takes two runs or more, each with an epoch that is complete, or diverged before; else it
    is a ValueError, as is a damaged file of a run. An OSError names what cannot be written.
    """
    runs = _read(folders)
    differing = [name for name in FIELDS if len({getattr(run.config, name) for run in runs}) > 1]
    settings, score = _settings(runs, differing)
    runs = [run for setting in settings for run in setting.runs]
    header, rows = _header(runs, differing), [_row(run, runs, differing) for run in runs]
    other_data = {"data", "path", "target"} & {*differing}
    finding = _OTHER_DATA if other_data else _finding(settings, score)
    page = _page(finding, settings, score, differing, table(header, rows))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, page.encode())
    _print_table([header, *rows])
    print("", *_notes(settings), finding, out, sep="\n")


def _read(folders: Sequence[Path]) -> list[RunFiles]:
    if len(folders) < 2:
        raise ValueError(f"folders: got {len(folders)}, wants two or more")
    seen = set()
    for folder in folders:
        if folder.resolve() in seen:
            raise ValueError(f"folders: got {folder} twice, wants different runs")
        seen.add(folder.resolve())
    runs = [read_run(folder) for folder in folders]
    for run in runs:
        if not run.epochs and run.diverged_in is None:
            raise ValueError(f"{run.folder}: got no complete epoch, wants one or more")
    return runs


# --- Who does best --------------------------------------------------------------------------------


def _settings(runs: Sequence[RunFiles], differing: Sequence[str]) -> tuple[list[_Setting], str]:
    """The runs by their settings, the best first and those that diverged last; and what they are
    judged by: the test accuracy, if all have it that did not diverge."""
    going = [run for run in runs if run.diverged_in is None]
    tested = all("test_accuracy" in run.summary for run in going)
    score = "test_accuracy" if tested else measured(runs, "accuracy")
    groups = {}
    for run in runs:
        groups.setdefault(dataclasses.replace(run.config, seed=0), []).append(run)
    settings = []
    for config, group in groups.items():
        what = [f"{n} {clean(str(getattr(config, n)))}" for n in differing if n != "seed"]
        name = ", ".join(what) or several(len(group), "run")
        records = [run.summary if tested else run.best(score) for run in group if run in going]
        scores = [record[score] for record in records if record and not math.isnan(record[score])]
        settings.append(_Setting(name, group, scores))
    settings.sort(key=lambda setting: (setting.diverged > 0, -setting.mean))
    return settings, score


def _finding(settings: Sequence[_Setting], score: str) -> str:
    """Which settings did best, and by how much."""
    best, *others = settings
    if not best.scores:
        return "No run came through"
    what = f"{best.score} {_RIGHT.get(score.split('_')[0], 'of the training data right')}"
    if best.diverged:
        what += f" (× {best.diverged} of {len(best.runs)} runs diverged)"
    if not others:
        return f"{best.name}: {what}"
    if not others[0].scores:
        return f"{best.name} alone came through: {what}"
    ahead = 100 * (best.mean - others[0].mean)
    if abs(ahead) < 0.05:
        return f"{best.name} and {others[0].name} do equally well: {what}"
    said = f"{best.name} does best: {what}, {ahead:.1f} points ahead of {others[0].name}"
    overlap = min(best.scores) <= max(others[0].scores)
    return said + ", but their ranges overlap" * overlap


def _notes(settings: Sequence[_Setting]) -> list[str]:
    """What makes the comparison weak."""
    if len(settings) > 1 and all(len(setting.runs) == 1 for setting in settings):
        return ["Each setting ran once: with other seeds the order may be another."]
    return []


# --- The table ------------------------------------------------------------------------------------


def _header(runs: Sequence[RunFiles], differing: Sequence[str]) -> list[str]:
    best = f"best {name_of(measured(runs, 'accuracy'))}"
    return ["run", *differing, best, "in epoch", "test accuracy", "seconds", "end"]


def _row(run: RunFiles, runs: Sequence[RunFiles], differing: Sequence[str]) -> list[str]:
    same_name = [other for other in runs if other.folder.name == run.folder.name]
    name = printable(run.folder.name if len(same_name) == 1 else str(run.folder))
    key, end = measured(runs, "accuracy"), f"epoch {len(run.epochs)}"
    best = run.best(key) or {}
    scores = [shown(key, best), str(best.get("epoch", "—")), shown("test_accuracy", run.summary)]
    if run.diverged_in is not None:  # such a run has no score
        scores, end = ["×", "—", "×"], f"× diverged, epoch {run.diverged_in}"
    elif run.end != "finished":
        end = f"{run.end}, {end}"
    seconds = run.summary.get("seconds", sum(r.get("seconds", 0.0) for r in run.epochs))
    values = [clean(str(getattr(run.config, name))) for name in differing]
    return [name, *values, *scores, number(seconds, ",.1f"), end]


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows)]
    for first, *rest in rows:
        cells = [first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:]))]
        print("  ".join(cells))


# --- The page -------------------------------------------------------------------------------------


def _page(
    finding: str, settings: Sequence[_Setting], score: str, differing: Sequence[str], runs: str
) -> str:
    figures = [_figure(settings, what) for what in ("loss", "accuracy")]
    notes = _notes(settings) + [MISSING] * ("<svg" not in figures[0])
    parts = [*map(note, notes), runs]
    if any(len(setting.runs) > 1 for setting in settings):
        header = ["settings", "runs", "diverged", f"{name_of(score)} of the others"]
        rows = [[s.name, len(s.runs), s.diverged or "", s.score] for s in settings]
        about = "A line is the mean of runs that differ in the seed alone, the band their range."
        parts += [table(header, rows), paragraph(about)]
    config = settings[0].runs[0].config
    common = [(name, getattr(config, name)) for name in FIELDS if name not in differing]
    shared = folded("settings that all runs share", table(["setting", "value"], common))
    return document(finding, "".join([*parts, *figures, shared]))


def _figure(settings: Sequence[_Setting], what: str) -> str:
    """The loss or the accuracy of all settings over the epochs."""
    key = measured([run for setting in settings for run in setting.runs], what)
    lines = []
    for k, setting in enumerate(settings):
        label = textwrap.wrap(setting.name, **_LABEL) + ["× diverged"] * (setting.diverged > 0)
        lines.append(Line("\n".join(label), **curve(setting.runs, key), **look(k)))
    heading = f"{name_of(key).capitalize()} by epoch"
    plot = plot_by_epoch(lines, what, f"{heading}, {several(len(lines), 'line')}.")
    points = [dict(zip(line.x, line.y)) for line in lines]
    rows = [
        [epoch, *(_mean(line, epoch, key) for line in points)]
        for epoch in sorted(set().union(*points))
    ]
    header = ["epoch", *(setting.name for setting in settings)]
    return section(heading, figure(plot, *table_by_epoch(header, rows)))


def _mean(line: dict[int, float | None], epoch: int, key: str) -> str:
    if epoch not in line:
        return ""
    return "×" if line[epoch] is None else shown(key, {key: line[epoch]})
