"""Run a lesson of examples/ once, as `python examples/NN_….py --quick` would, for all its tests."""

import contextlib
import functools
import io
import os
import runpy
import sys
import tempfile
from pathlib import Path
from unittest import mock

import matplotlib
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
LESSONS = sorted(EXAMPLES.glob("[0-9][0-9]_*.py"))


@functools.cache
def run(number):
    """The numbers that the lesson found, what it printed, and the names of its pictures."""
    (path,) = EXAMPLES.glob(f"{number}_*.py")
    here, screen = Path.cwd(), io.StringIO()
    with tempfile.TemporaryDirectory() as folder:  # a lesson may not depend on where it is started
        os.chdir(folder)
        try:
            with mock.patch.object(sys, "argv", [str(path), "--quick"]):
                sys.modules.pop("lesson", None)  # which reads the command line
                sys.path.insert(0, str(EXAMPLES))
                with contextlib.redirect_stdout(screen), matplotlib.rc_context():
                    found = runpy.run_path(str(path), run_name="__main__")["found"]
        finally:
            sys.path.remove(str(EXAMPLES))
            os.chdir(here)
        pictures = sorted(p.name for p in (Path(folder) / "out" / "lessons").glob("*"))
    return found, screen.getvalue(), pictures


@pytest.fixture
def found(request, cpu_only):
    return run(request.param)[0]


def lesson(number):
    """Give a test the numbers that this lesson finds."""
    return pytest.mark.parametrize("found", [number], indirect=True, ids=[f"lesson {number}"])
