"""`tinygrad-bn train` as a program: stopped by a key, killed at any moment, told nonsense."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_runs import SMALL, bits, flags, metrics, small, summary

from tinygrad_bn import cli
from tinygrad_bn.train import training
from tinygrad_bn.train.checkpoint import checkpoints
from tinygrad_bn.train.run import Run

ROOT = Path(__file__).resolve().parent.parent.parent


def program(*arguments):
    command = [sys.executable, "-m", "tinygrad_bn", "train", *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def wait_for(happened, process):
    for _ in range(2000):
        if happened() or process.poll() is not None:
            return
        time.sleep(0.01)


# --- Stopped and killed ---------------------------------------------------------------------------


def test_whoever_kills_it_at_any_moment_loses_no_checkpoint(tmp_path, cpu_only):
    """kill -9 at moments between checkpoints, and the run ends with the bits of one at peace."""
    settings, chance = SMALL | {"epochs": 24}, random.Random(7)
    training.start(small(epochs=24), tmp_path / "through")
    folder, kills = tmp_path / "run", 0
    process = program(*flags(settings), "--out", folder)
    for epochs in itertools.count(3, 6):
        wait_for(lambda: len(metrics_of(folder)) >= epochs, process)  # noqa: B023
        time.sleep(0.01 * chance.random())
        if process.poll() is not None:
            break
        process.kill()
        process.communicate()
        kills += 1
        assert checkpoints(folder / "checkpoints")
        process = program("--resume", folder)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "test accuracy" in out
    assert kills >= 3
    assert bits(folder) == bits(tmp_path / "through")
    assert len(metrics(folder)) == 24


def metrics_of(folder):
    try:
        return metrics(folder)
    except FileNotFoundError:
        return []


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_after_the_step_and_saves(tmp_path, cpu_only, by):
    folder = tmp_path / "run"
    process = program(*flags(SMALL | {"epochs": 5000, "batch_size": 10}), "--out", folder)
    wait_for(lambda: len(metrics_of(folder)) >= 2, process)
    process.send_signal(by)
    out, err = process.communicate()
    assert process.returncode == 130
    assert "stopping after this step" in err
    assert f"to go on: tinygrad-bn train --resume {folder}" in out
    assert summary(folder)["state"] == "interrupted"
    assert (folder / "index.html").exists()


@pytest.mark.parametrize("end", ["> /dev/full", "| head -n 1", "2>&-"])
def test_a_run_that_nobody_can_read_goes_on(tmp_path, cpu_only, end):
    words = map(str, [sys.executable, "-m", "tinygrad_bn", "train", *flags(SMALL), "--out", "run"])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(f"{' '.join(words)} {end}", shell=True, cwd=tmp_path, env=environment)
    assert summary(tmp_path / "run")["state"] == "finished"


# --- Told by flags and files ----------------------------------------------------------------------


def run_command(*arguments):
    return cli.main(["train", *map(str, arguments)])


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        run_command(*arguments)
    captured = capsys.readouterr()
    assert (end.value.code, captured.out) == (2, "")
    return captured.err


def test_a_file_says_what_to_do_and_flags_win(tmp_path, capsys):
    run_command(*flags(SMALL | {"epochs": 1}), "--out", tmp_path / "a")
    config = tmp_path / "a" / "config.toml"
    assert run_command("--config", config, "--out", tmp_path / "b") == 0
    assert bits(tmp_path / "a") == bits(tmp_path / "b")
    assert run_command("--config", config, "--seed", 1, "--out", tmp_path / "c") == 0
    assert "seed = 1\n" in (tmp_path / "c" / "config.toml").read_text()


def test_a_run_without_a_name_gets_one_that_is_free(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(3):
        run_command(*flags(SMALL | {"epochs": 1}))
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == ["disc-mlp-batch", "disc-mlp-batch-2", "disc-mlp-batch-3"]


def test_two_runs_without_a_name_at_the_same_time_get_two(tmp_path, monkeypatch):
    """The first is still reading its data when the second begins, and ends."""
    monkeypatch.chdir(tmp_path)

    def reads_slowly(config, comm):
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        run_command(*flags(SMALL | {"epochs": 1, "seed": 2}))
        return Run(config, comm=comm)

    monkeypatch.setattr(training, "Run", reads_slowly)
    assert run_command(*flags(SMALL | {"epochs": 1, "seed": 1})) == 0
    for name, seed in (("disc-mlp-batch", 2), ("disc-mlp-batch-2", 1)):
        assert f"seed = {seed}\n" in (tmp_path / "runs" / name / "config.toml").read_text()


def test_a_run_that_cannot_begin_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    refused(capsys, "--data", "mnist", "--path", "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_what_fails_is_one_sentence_but_for_a_reader_that_has_enough(monkeypatch, capsys):
    def fail(*_):
        raise problem

    monkeypatch.setattr(training, "start", fail)
    problem = MemoryError("no room for 9 GB")
    assert "not enough memory: no room for 9 GB" in refused(capsys, *flags(SMALL), "--out", "x")
    problem = BrokenPipeError(32, "Broken pipe")
    with pytest.raises(BrokenPipeError):
        cli._train(cli._parser().parse_args(["train", *flags(SMALL), "--out", "x"]))


def test_a_run_can_be_resumed_from_another_folder(tmp_path, monkeypatch):
    rows = [f"{k % 7},{k % 5},{'ab'[k % 7 > 3]}" for k in range(200)]
    (tmp_path / "table.csv").write_text("\n".join(["u,v,class", *rows]))
    monkeypatch.chdir(tmp_path)
    more = ["--data", "csv", "--path", "table.csv", "--epochs", "2"]
    assert run_command(*more, "--width", "4", "--out", "run") == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run_command("--resume", tmp_path / "run", "--epochs", 3) == 0
    assert len(metrics(tmp_path / "run")) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "data: got None, wants one of disc, moons, digits"),
        (["--data", "dics"], "argument --data: invalid choice: 'dics'"),
        (["--data", "disc", "--epochs", "0"], "epochs: got 0, wants a whole number ≥ 1"),
        (["--data", "disc", "--epochs", "many"], "argument --epochs: invalid int value"),
        (["--data", "disc", "--epoch-s", "3"], "unrecognized arguments: --epoch-s"),
        (["--data", "disc", "--capture"], "capture: wants a GPU"),
        (["--data", "disc", "--device", "tpu"], "device"),
        (["--data", "disc", "--config", "nowhere.toml"], "nowhere.toml: No such file"),
        (["--data", "mnist"], "path: got none, wants the folder"),
        (["--data", "mnist", "--path", "nowhere"], "nowhere: got no folder"),
        (["--data", "disc", "--out", "/dev/null"], "/dev/null: Not a directory"),
        (["--data", "disc", "--out", "/proc/new"], "/proc/new"),
        (["--resume", "nowhere"], "nowhere holds no config.toml, so no run"),
        (["--resume", "nowhere", "--lr", "1"], "--resume: takes --epochs, and else"),
    ],
)
def test_nonsense_is_one_sentence(capsys, cpu_only, arguments, message):
    said = refused(capsys, *arguments)
    assert said.startswith("tinygrad-bn")
    assert message in said
    assert said.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys, monkeypatch):
    def read_only(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", read_only)
    said = refused(capsys, *flags(SMALL), "--out", tmp_path / "run")
    assert said == f"tinygrad-bn train: {tmp_path / 'run'}: Permission denied\n"
