"""Ranks that are processes: the same numbers as one, and what happens when one goes astray."""

import json
import os
import re
import sys
import time

import pytest
from launched import PROGRAMS, needs_mpi, ran
from same_training import SHAPES, cuts_of

from tinygrad_bn.distributed.mpi import MPI

PYTHON = sys.executable
pytestmark = needs_mpi


def test_arrays_of_every_kind_reach_all_ranks():
    status, output = ran(3, PYTHON, PROGRAMS / "collectives.py")
    assert status == 0, output
    assert re.search(r"^3 ranks by MPI \(.+\)$", output, re.MULTILINE)
    each = ", ".join(rf"rank {rank} is process \d+ on \S+" for rank in range(3))
    assert re.search(rf"^{each}$", output, re.MULTILINE)


@pytest.mark.parametrize("ranks", [2, 4])
def test_twenty_steps_in_float64_are_those_of_one_process(ranks):
    """Even, uneven and one empty share; MLP and convnet; fused and composed."""
    status, output = ran(ranks, PYTHON, PROGRAMS / "same_training.py")
    assert status == 0, output
    found = [json.loads(line) for line in output.splitlines() if line.startswith("[")]
    assert len(found) == ranks * len(SHAPES) * 2 * len(cuts_of(ranks))
    for case, losses, parameters in found:
        assert losses < 1e-12, case
        assert parameters < 1e-12, case


ASTRAY = {
    "raises": "rank 1 of 3 raised ValueError: no such row$",
    "is interrupted": "rank 1 of 3 raised KeyboardInterrupt$",
    "dies": "rank 1 ended by signal 9, Killed$",
    "ends without a word": "rank 1 ended with status 0, before the others$",
    "stands still": "rank 1 of 3 does not answer; rank 0 has waited for 1.5 s in collective 21, ",
    "is late and then stands still": "rank 1 of 3 does not answer; rank [02] has waited for 1.5 s",
    "leaves": "the ranks do not do the same: .*rank 1 waits in the end of its program",
    "wants something else": r"the ranks do not do the same: "
    r"rank 0 waits in collective 21, the sum of float64\[3\]; "
    r"rank 1 waits in the first gather of float64\[3\]",
}


@pytest.mark.parametrize("how", ASTRAY)
def test_a_rank_that_goes_astray_ends_all_and_is_named(how):
    since = time.monotonic()
    status, output = ran(3, PYTHON, PROGRAMS / "failing.py", how)
    assert status != 0
    assert time.monotonic() - since < 30
    assert re.search(f"^tinygrad_bn ends all ranks: {ASTRAY[how]}", output, re.MULTILINE), output
    assert output.count("ends all ranks") == 1
    assert "is through" not in output


def test_a_rank_that_is_late_is_waited_for():
    """It does not answer when it is asked, but comes while the others wait for the answer."""
    status, output = ran(3, PYTHON, PROGRAMS / "failing.py", "is late")
    assert status == 0, output
    assert output.count("is through") == 3


@pytest.mark.parametrize("what", ["sum", "gather", "norm", "model"])
def test_what_does_not_fit_together_is_refused_on_all_ranks(what):
    """MPI would mix it, without a word."""
    status, output = ran(2, PYTHON, PROGRAMS / "not_fitting.py", what)
    assert status == 0, output
    assert output.count("refused") == 2


def test_arrays_of_a_gpu_go_through_the_host():
    """On the double of CuPy; MPICH's wheel says that it takes none of a GPU."""
    paths = os.environ | {"PYTHONPATH": str(PROGRAMS.parent)}
    status, output = ran(2, PYTHON, PROGRAMS / "gpu_arrays.py", env=paths)
    assert status == 0, output
    assert output.count("done") == 2


def test_a_wait_is_counted_anew_after_all_were_found_to_be_there():
    comm, asked, end = object.__new__(MPI), [], time.monotonic() + 0.5
    comm.timeout, comm._answer = 0.1, lambda what: None
    comm._find_missing = lambda is_done, what, all_here: asked.append(all_here)
    comm.wait(lambda: time.monotonic() > end, lambda: "this")
    assert 2 <= len(asked) <= 5
    assert asked[:2] == [False, True]  # and the second time it would end
