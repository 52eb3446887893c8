"""`mpiexec -n N tinygrad-bn train`: what a user sees, and what is left when a rank is lost."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from launched import COMMAND, needs_mpi, ran, started
from small_runs import SMALL, flags, summary

from tinygrad_bn.train import checkpoint, training
from tinygrad_bn.train.config import Config

pytestmark = needs_mpi
SETTINGS = SMALL | {"dropout": 0.0}
LONG = SETTINGS | {"epochs": 4000}


def parameters(folder):
    (newest, *_) = checkpoint.checkpoints(folder / "checkpoints")
    return checkpoint.read_checkpoint(newest)[0]["model"]


def test_four_processes_train_what_one_does_and_two_go_on_with_it(tmp_path):
    four, one = tmp_path / "four", tmp_path / "one"
    status, output = ran(4, *COMMAND, "train", *flags(SETTINGS | {"epochs": 2}), "--out", four)
    assert status == 0, output
    assert re.match(r"4 ranks by MPI \(.*\): rank 0 is process \d+ on ", output)
    assert output.count("epoch 2/2") == output.count("index.html") == 1
    assert "4 ranks by MPI" in summary(four)["machine"]
    status, output = ran(2, *COMMAND, "train", "--resume", four, "--epochs", 3)
    assert status == 0, output
    assert "going on after epoch 2" in output
    training.start(Config(**SETTINGS | {"epochs": 2}), one)
    training.resume(one, 3)
    for name, wanted in parameters(one).items():
        assert abs(parameters(four)[name] - wanted).max() < 1e-3, name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "disc", "--lr", "-1"], "lr: got -1.0, wants a number above 0"),
        (["--data", "disc", "--lr", "low"], "invalid float value: 'low'"),
        (["--data", "csv", "--path", "nowhere.csv"], "nowhere.csv"),
        (["--resume", "nowhere"], "nowhere holds no config.toml, so no run"),
    ],
)
def test_bad_settings_are_one_sentence_of_one_rank(words, message, tmp_path):
    status, output = ran(3, *COMMAND, "train", *words, cwd=tmp_path)
    assert status == 2
    assert output.count(message) == 1
    assert "Traceback" not in output


def at_work(ranks, folder, *words):
    """A long run of so many ranks, once it has a checkpoint; and the process of each rank."""
    process = started(ranks, *COMMAND, "train", *flags(LONG), "--out", folder, *words)
    first = process.stdout.readline()
    while not checkpoint.checkpoints(folder / "checkpoints"):
        assert process.poll() is None, first + process.stdout.read()
        time.sleep(0.02)
    return process, [int(number) for number in re.findall(r"is process (\d+)", first)]


def ended(process, limit=20):
    try:
        return process.communicate(timeout=limit)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"after {limit} s it had not ended")


def assert_goes_on(folder):
    """The last checkpoint is whole, and a single process goes on with it."""
    epochs = int(checkpoint.checkpoints(folder / "checkpoints")[0].name[5:]) // 15 + 1
    assert training.resume(folder, epochs + 1) == 0
    assert summary(folder)["state"] == "finished"


def test_a_rank_that_is_killed_ends_the_job_and_leaves_whole_checkpoints(tmp_path, capsys):
    process, ranks = at_work(3, tmp_path / "run")
    os.kill(ranks[1], signal.SIGKILL)
    output = ended(process)
    assert process.returncode != 0
    assert "tinygrad_bn ends all ranks: rank 1 ended by signal 9, Killed" in output
    assert_goes_on(tmp_path / "run")
    assert "is damaged" not in capsys.readouterr().out


def test_a_rank_that_hangs_ends_the_job_and_is_named(tmp_path, capsys):
    process, ranks = at_work(3, tmp_path / "run", "--timeout", 1)
    os.kill(ranks[2], signal.SIGSTOP)
    output = ended(process)
    assert process.returncode != 0
    assert "tinygrad_bn ends all ranks: rank 2 of 3 does not answer" in output
    assert_goes_on(tmp_path / "run")
    assert "is damaged" not in capsys.readouterr().out


def test_a_rank_that_raises_ends_the_job_and_is_named(tmp_path):
    """Rank 1 runs out of memory in its fifth step."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from tinygrad_bn import cli\n"
        "from tinygrad_bn.train import run\n"
        "make_step, steps = run.Run.make_step, []\n"
        "def failing(self, *batch):\n"
        "    steps.append(0)\n"
        "    if self.comm.rank == 1 and len(steps) == 20:\n"
        "        raise MemoryError('8 GiB are asked for')\n"
        "    return make_step(self, *batch)\n"
        "run.Run.make_step = failing\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    status, output = ran(
        3, sys.executable, program, "train", *flags(SETTINGS), "--out", tmp_path / "run"
    )
    assert status != 0
    assert "rank 1 of 3: MemoryError: 8 GiB are asked for" in output
    assert_goes_on(tmp_path / "run")


def test_who_asks_mpiexec_to_stop_gets_a_checkpoint_of_the_last_step(tmp_path):
    process, _ = at_work(2, tmp_path / "run")
    process.send_signal(signal.SIGINT)
    output = ended(process)
    assert "stopped after step" in output
    assert output.count("to go on: tinygrad-bn train --resume") == 1
    assert summary(tmp_path / "run")["state"] == "interrupted"
    assert_goes_on(tmp_path / "run")
