"""Start a program on several ranks with mpiexec, as a user would."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "distributed"
PLACES = [str(Path(sys.executable).parent), os.environ["PATH"]]
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join(PLACES))
LACKS = MPIEXEC is None or importlib.util.find_spec("mpi4py") is None
needs_mpi = pytest.mark.skipif(LACKS, reason='needs mpiexec: pip install "tinygrad_bn[mpi]"')
COMMAND = [sys.executable, "-m", "tinygrad_bn"]


def started(ranks, *words, **how):
    """The process of mpiexec, whose output, also that on stderr, is one text."""
    command = [MPIEXEC, "-n", str(ranks), *map(str, words)]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} | how
    return subprocess.Popen(command, **how)


def ran(ranks, *words, limit=60, **how):
    """(exit status, output) of a program on several ranks, which ends within `limit` seconds."""
    process = started(ranks, *words, **how)
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"after {limit} s it had not ended: {process.communicate()[0]}")
    return process.returncode, output
