"""One section, in a process of its own: `python -m benchmarks.gpu.worker SECTION [--dry]`.

Prints each of its rows as JSON, in a line; in a dry run without what is measured on a GPU. Where
the section raises, the last row tells.
"""

import importlib
import json
import os
import sys
import traceback
from pathlib import Path

from .report import unmeasured

TESTS = Path(__file__).parents[2] / "tests"


def prepare(dry: bool) -> None:
    """Let the tests' tables be imported; in a dry run, let `import cupy` give the double."""
    sys.path[:0] = [str(TESTS), str(TESTS / "gpu")]
    sys.modules["numba"] = None  # the CPU is not timed here: nothing waits for its compiler
    if dry:
        import double

        double.install(devices=1)


def main(section: str, dry: bool) -> None:
    """Rows go to where stdout went; whatever else is printed goes to stderr."""
    rows_to = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        prepare(dry)
        module = importlib.import_module(f"{__package__}.{section}")
        for row in module.rows(dry):
            row = unmeasured(row) if dry else row
            print(json.dumps(row, ensure_ascii=False), file=rows_to, flush=True)
    except BaseException as error:
        problem = f"{type(error).__name__}: {error}"
        where = traceback.format_exc()
        print(json.dumps({"problem": problem, "where": where}), file=rows_to, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], "--dry" in sys.argv)
