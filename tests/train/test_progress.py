"""What a training run shows of itself: a bar on a terminal, else lines."""

import re
import sys
from types import SimpleNamespace

import pytest
from small_runs import metrics, small

from tinygrad_bn.train import progress, training
from tinygrad_bn.train.progress import TrainingProgress

RECORD = {"epoch": 5, "loss": 0.25, "accuracy": 0.9, "seconds": 2.0, "samples_per_second": 12345.6}
VALIDATION = {"validation_loss": 0.5, "validation_accuracy": 0.8125}


@pytest.fixture
def on_a_terminal(monkeypatch):
    """Makes the progress of a run whose stdout is a terminal."""

    def made(*of):
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        return TrainingProgress(*of)

    return made


@pytest.fixture
def clock(monkeypatch):
    """The seconds that the lines go by, which the test sets."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def bars(capsys):
    """(samples done, of how many) in each state of the bar that was drawn."""
    drawn = re.findall(r"run: +\d+%\|[^|]*\| ([\d.]+)/([\d.]+) ", capsys.readouterr().out)
    return [tuple(map(float, pair)) for pair in drawn]


# --- Lines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("validation", "words"), [({}, ""), (VALIDATION, ", validation 0.5000 and 81.2 %")]
)
def test_an_epoch_leaves_a_line(capsys, clock, validation, words):
    shown = TrainingProgress("run", 8, 5000, 4 * 5000)
    clock.now += RECORD["seconds"]
    shown.epoch(RECORD | validation)
    assert capsys.readouterr().out == (
        f"epoch 5/8, loss 0.2500, accuracy 90.0 %{words}, 12,346 samples/s, 6 s left\n"
    )


def test_the_seconds_left_are_judged_from_the_epochs_since_this_start(capsys, clock):
    """Four epochs were made before, perhaps on another machine; the mean of those since counts."""
    shown = TrainingProgress("run", 8, 5000, 4 * 5000)
    for epoch, seconds in ((5, 2.0), (6, 6.0), (7, 4.0), (8, 2.0)):
        clock.now += seconds
        shown.epoch(RECORD | {"epoch": epoch, "seconds": seconds})
    left = re.findall(r"(\d+) s left\n", capsys.readouterr().out)
    assert left == ["6", "8", "4", "0"]  # 3 × 2, 2 × 8/2, 1 × 12/3


def test_an_epoch_that_was_begun_before_counts_for_what_was_left_of_it(capsys, clock):
    shown = TrainingProgress("run", 8, 5000, 4 * 5000 + 4000)
    clock.now += 1.0
    shown.epoch(RECORD)
    assert capsys.readouterr().out.endswith(", 15 s left\n")  # three epochs of five


def test_a_long_epoch_leaves_lines_on_its_way(capsys, clock):
    """Ten seconds after the last line, whatever that said, and not at each step."""
    shown = TrainingProgress("run", 8, 5000, 0)
    for seconds in (4, 9, 11, 12, 20, 22):
        clock.now = 1000.0 + seconds
        shown.step(100, 2, 100 * seconds, 0.5, 0.75)
    clock.now += 9
    shown.epoch(RECORD)
    clock.now += 9
    shown.step(100, 6, 100, 0.5, 0.75)
    on_the_way, second, epoch = capsys.readouterr().out.splitlines()
    assert on_the_way == "epoch 2/8, loss 0.5000, accuracy 75.0 % after 1,100 of 5,000 samples"
    assert "after 2,200 of 5,000" in second
    assert epoch.startswith("epoch 5/8, ")


def test_the_lines_of_a_run_are_its_metrics(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(TrainingProgress, "seconds_between_lines", 0.0)
    training.start(small(epochs=2, batch_size=300), tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()[:8]  # three steps, and the epoch
    for epoch, record in enumerate(metrics(tmp_path / "run"), start=1):
        *on_the_way, line = lines[4 * epoch - 4 : 4 * epoch]
        shown = (
            f"epoch {epoch}/2, loss {record['loss']:.4f}, accuracy {100 * record['accuracy']:.1f} %"
        )
        assert [line.partition(" after ")[2] for line in on_the_way] == [
            f"{n} of 900 samples" for n in (300, 600, 900)
        ]
        assert on_the_way[-1].startswith(f"{shown} after ")
        assert line.startswith(f"{shown}, validation {record['validation_loss']:.4f} and ")


# --- On a terminal --------------------------------------------------------------------------------


def test_on_a_terminal_a_bar_advances_by_samples(capsys, on_a_terminal):
    shown = on_a_terminal("run", 2, 300, 0)
    for n in (64, 64, 72):
        shown.step(n, 1, 0, 0.5, 0.75)
    shown.close()
    states = bars(capsys)
    assert (states[0], states[-1]) == ((0, 600), (200, 600))


def test_the_bar_starts_at_what_was_done_before(capsys, on_a_terminal):
    shown = on_a_terminal("run", 2, 300, 350)
    shown.step(50, 2, 100, 0.5, 0.75)
    shown.close()
    states = bars(capsys)
    assert (states[0], states[-1]) == ((350, 600), (400, 600))


def test_the_bar_says_how_it_goes_below_the_lines_of_the_epochs(capsys, on_a_terminal, clock):
    shown = on_a_terminal("run", 8, 300, 4 * 300)
    clock.now += 100  # a bar needs no lines on the way
    shown.step(300, 5, 300, 0.5, 0.75)
    shown.epoch(RECORD)
    shown.close()
    out = capsys.readouterr().out
    assert " of 300 samples" not in out
    line = "epoch 5/8, loss 0.2500, accuracy 90.0 %, 12,346 samples/s, 300 s left\n"
    assert f"\r{line}" in out  # the bar was wiped away before
    assert "epoch 5/8, loss 0.5000, accuracy 75.0 %]" in out.partition(line)[2]


def test_without_tqdm_a_terminal_gets_lines(capsys, on_a_terminal, clock, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    shown = on_a_terminal("run", 8, 300, 0)
    clock.now += 10
    shown.step(64, 1, 64, 0.5, 0.75)
    shown.epoch(RECORD)
    shown.close()
    out = capsys.readouterr().out
    assert "\r" not in out
    assert [line.partition(",")[0] for line in out.splitlines()] == ["epoch 1/8", "epoch 5/8"]
