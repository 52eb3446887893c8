"""The benchmark of speed runs, writes every row, and does not time what computes something else."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import digits
from benchmarks.speed import measure, report
from benchmarks.speed.measure import OURS, Contender, Target, Work
from benchmarks.speed.worker import KINDS

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder into which a quick run has written."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("results")
    command = [sys.executable, "-m", "benchmarks.speed", "--quick", "--results", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_quick_run_measures_every_kind_of_work(written, cpu_only):
    found = json.loads((written / "speed.json").read_text())
    assert list(found) == list(KINDS)
    assert [len(found[kind]) for kind in report.TITLES] == [5, 2, 2, 2, 1]
    for row in (row for kind in report.TITLES for row in found[kind]):
        assert min(row["seconds"][OURS]) > 0


def test_every_row_is_in_the_tables_and_in_the_plot(written, cpu_only):
    found = json.loads((written / "speed.json").read_text())
    tables, svg = (written / "speed.md").read_text(), (written / "speed.svg").read_text()
    for row in (row for kind in report.TITLES for row in found[kind]):
        assert f"| {row['work']} | " in tables
        assert f"<!-- {row['work']} -->" in svg
    for row in found["memory"]:
        assert f"| {row['work']} | " in tables
    for name in found["machine"]["missing"]:
        assert name in tables


def test_tables_and_plot_are_the_same_each_time(written, tmp_path, cpu_only):
    found = json.loads((written / "speed.json").read_text())
    assert report.markdown(found) == (written / "speed.md").read_text()
    report.plot(found, tmp_path / "speed.svg")
    assert (tmp_path / "speed.svg").read_bytes() == (written / "speed.svg").read_bytes()


def test_the_readme_shows_the_newest_tables(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n\n{report.MARK}{report.END}\n\nafter\n")
    for tables in ("| old |\n", "| new |\n"):
        report.into_readme(readme, tables)
        wanted = f"before\n\n{report.MARK}{tables}\n{report.END}\n\nafter\n"
        assert readme.read_text() == wanted


def work(*answers, **options):
    """A work whose contenders give these numbers, ours first."""
    names = [OURS, "theirs"][: len(answers)]
    made = {n: Contender(lambda: None, lambda a=a: [np.array(a)]) for n, a in zip(names, answers)}
    return Work("adding", lambda: made, **options)


@pytest.mark.parametrize("theirs", [[1.0, 2.1], [np.nan, 2.0]])
def test_who_computes_something_else_is_not_timed(theirs):
    different = work([1.0, 2.0], theirs)
    with pytest.raises(AssertionError, match="adding: result 0 of theirs is off by"):
        measure.measured(different)


def test_a_row_has_quartiles_of_every_contender_for_each_part():
    row = measure.measured(work([1.0], [1.0 + 1e-6], parts=10, rounds=3, burst=0.0))
    assert list(row["seconds"]) == [OURS, "theirs"]
    for first, median, third in row["seconds"].values():
        assert first <= median <= third
    assert measure.quartiles([1.0, 2.0, 3.0, 4.0, 5.0], parts=2) == [1.0, 1.5, 2.0]


def test_a_target_is_held_against_the_fastest_of_its_rivals():
    times = {OURS: [1, 2, 3], "slow": [7, 8, 9], "fast": [5, 5, 6]}
    reached = measure.reached(Target(2.0, ("slow", "fast", "absent")), times)
    assert (reached["rival"], reached["reached"], reached["met"]) == ("fast", 2.5, True)
    assert not measure.reached(Target(2.6, ("fast",)), times)["met"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        ([8.42e-3, 8.51e-3, 8.63e-3], "8.51 ms (8.42–8.63)"),
        ([0.9e-6, 1.2e-6, 2e-6], "1.20 µs (0.900–2.00)"),
        ([1.0, 123.4, 200.0], "123 s (1.00–200)"),
    ],
)
def test_durations(seconds, text):
    assert report.duration(seconds) == text


def test_the_digits_are_trained_once_for_each_seed(cpu_only):
    tiny = {"width": 2, "depth": 1, "epochs": 1}
    mean, low, high = r"(\d+\.\d\d)", r"(\d+\.\d\d)", r"(\d+\.\d\d)"
    found = re.fullmatch(rf"{mean} % \({low}–{high}\)", digits.accuracy("group", lr=0.1, **tiny))
    mean, low, high = map(float, found.groups())
    assert low < mean < high  # other seeds, other digits
    assert digits.accuracy("none", lr=1e30, **tiny) == "× all diverged"
