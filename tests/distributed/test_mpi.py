"""Ranks that are processes: the same numbers as one, and what happens when one goes astray."""

import json
import re
import sys
import time

import pytest
from launched import PROGRAMS, needs_mpi, ran
from same_training import SHAPES, cuts_of

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
    "raises": "ends all ranks: rank 1 of 3 raised ValueError: no such row",
    "is interrupted": "ends all ranks: rank 1 of 3 raised KeyboardInterrupt$",
    "dies": r"BAD TERMINATION|signal 9|killed",  # mpiexec says so, with the number of the process
    "stands still": "ends all ranks: rank 1 of 3 does not answer; rank [02] has waited for 1 s in ",
    "never comes back": "ends all ranks: rank 1 of 3 does not answer; rank [02] has waited for 1 s",
    "leaves": "the ranks do not do the same: .*rank 1 waits in the end of its program",
    "wants something else": r"rank 0 waits in collective 21, the sum of float64\[3\]; "
    r"rank 1 waits in collective 21, the gather of float64\[3\]",
}


@pytest.mark.parametrize("how", ASTRAY)
def test_a_rank_that_goes_astray_ends_all_and_is_named(how):
    since = time.monotonic()
    status, output = ran(3, PYTHON, PROGRAMS / "failing.py", how)
    assert status != 0
    assert time.monotonic() - since < 30
    assert re.search(ASTRAY[how], output, re.MULTILINE | re.IGNORECASE), output
    assert "is through" not in output


def test_a_rank_that_is_late_is_waited_for():
    """It does not answer when it is asked, but comes while the others wait for the answer."""
    status, output = ran(3, PYTHON, PROGRAMS / "failing.py", "is late")
    assert status == 0, output
    assert output.count("is through") == 3
