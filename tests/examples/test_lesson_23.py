"""What lesson 23 claims of synchronized batch norm; also as a program of four processes."""

import subprocess
import sys

import pytest
from launched import needs_mpi, ran
from lessons import EXAMPLES, lesson, run


@lesson("23")
def test_statistics_are_merged_also_at_a_large_mean(found):
    assert found["σ² merged: relative error"] <= 1e-7
    assert found["σ² by Σx²: relative error"] >= 0.5


@lesson("23")
def test_fused_takes_one_collective_each_way_and_backward_two_numbers_a_channel(found):
    assert found["fused, forward: collectives"] == found["fused, backward: collectives"] == 1
    assert found["fused, forward: numbers sent"] == 1 + 2 * 100
    assert found["fused, backward: numbers sent"] == 2 * 100
    assert found["composed, forward: collectives"] > 1
    assert found["composed, backward: collectives"] == 2


@lesson("23")
def test_the_gradient_is_that_of_one_process_only_if_synchronized(found):
    apart = [found[f"{rows} rows a rank, not synchronized: gradient off by"] for rows in (2, 8, 64)]
    assert apart == sorted(apart, reverse=True)
    assert apart[0] >= 1
    assert 0.05 <= apart[-1] <= 0.3
    assert apart[1] <= found["8 rows a rank, another batch"]
    for rows in (2, 8, 64):
        assert found[f"{rows} rows a rank, synchronized: gradient off by"] <= 1e-14


@lesson("23")
@pytest.mark.parametrize("shares", ["even", "uneven"])
def test_synchronized_ranks_make_the_steps_of_one_process(found, shares):
    assert found[f"20 steps, synchronized, {shares} shares: network off by"] <= 1e-14
    assert found[f"20 steps, synchronized, {shares} shares: losses off by"] <= 1e-14
    assert found[f"20 steps, synchronized, {shares} shares: ranks differ"] == 0


@lesson("23")
def test_others_train_another_network_and_have_statistics_of_their_own(found):
    assert found["20 steps, not synchronized: network off by"] >= 0.01
    assert found["20 steps, not synchronized: losses off by"] >= 0.05
    assert found["20 steps, not synchronized: ranks differ"] == 1
    assert "RankError: 1.running_mean differs between ranks" in run("23")[1]


@lesson("23")
def test_two_rows_a_rank_hardly_learn_unless_synchronized(found):
    assert found["2 rows a rank, synchronized: losses off by"] <= 1e-13
    assert found["2 rows a rank, synchronized: accuracy"] == pytest.approx(
        found["2 rows a rank, one process: accuracy"], abs=1e-12
    )
    assert found["2 rows a rank, one process: accuracy"] >= 0.75
    assert found["2 rows a rank, not synchronized: costs at least, points"] >= 15
    assert (
        found["2 rows a rank, not synchronized: loss at last"]
        >= 1.5 * found["2 rows a rank, one process: loss at last"]
    )


@lesson("23")
def test_eight_rows_a_rank_cost_little(found):
    assert found["8 rows a rank, not synchronized: costs at most, points"] <= 8


# --- The same by MPI --------------------------------------------------------------------------


@needs_mpi
def test_four_processes_find_what_four_threads_find(tmp_path, cpu_only):
    (path,) = EXAMPLES.glob("23_*.py")
    words = [sys.executable, "-X", "utf8", path, "--quick"]
    status, output = ran(4, *words, limit=300, cwd=tmp_path, stderr=subprocess.PIPE)
    assert status == 0
    assert output.startswith("The ranks: 4 ranks by MPI")
    assert [p.name for p in (tmp_path / "out" / "lessons").glob("*")] == ["23_sync_batch_norm.svg"]
    found, _, _ = run("23")
    closing = [line.rsplit(": ", 1) for line in output.splitlines()[-len(found) :]]
    assert [name for name, _ in closing] == [*found]  # once: the other ranks are silent
    by_processes = {name: float(value) for name, value in closing}
    for name, value in by_processes.items():
        if name.startswith("2 rows a rank, not"):
            continue  # its steep gradients make rounding grow
        assert value == pytest.approx(found[name], rel=1e-4, abs=1e-13), name
    assert by_processes["2 rows a rank, not synchronized: costs at least, points"] >= 15
