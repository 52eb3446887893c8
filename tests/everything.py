"""All that CI checks, one step after the other: `python tests/everything.py`.

Every step runs, also after one that failed; the exit status is 1 if any did.
"""

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
TESTS = [sys.executable, "-m", "pytest"]

IN_BROWSER, ON_THE_DOUBLE = "tests/diagram/browser", "tests/gpu"
# What knows of no device: pages, files, layouts, text, and loops for NumPy arrays.
ANYWHERE = [
    *(IN_BROWSER, "tests/diagram/test_files.py", "tests/diagram/test_layout.py"),
    *("tests/diagram/test_typeset.py", "tests/diagram/test_collapsed_limits.py"),
    *("tests/test_kernels_conv.py", "tests/test_kernels_dense.py", "tests/test_kernels_norm.py"),
    *("tests/test_kernels_numpy.py", "tests/test_threads.py", "tests/test_house.py"),
    "tests/test_benchmarks.py",
]
# Two halves of the work, each on a core of its own; what the second prints is shown at the end.
STEPS = {
    "lint": [BIN / "ruff", "check", "."],
    "format": [BIN / "ruff", "format", "--check", "."],
    "import layers": [BIN / "lint-imports", "--no-logo"],
    "tests": [
        *(*TESTS, "--durations=8"),
        *(f"--ignore={path}" for path in (IN_BROWSER, ON_THE_DOUBLE)),
    ],
    "tests in a browser": [*TESTS, IN_BROWSER],
    "doctests": [*TESTS, "--doctest-modules", "tinygrad_bn"],
    "installed wheel": [sys.executable, "tests/wheel.py"],
}
BESIDE = {
    "tests of what a GPU runs": [*TESTS, "-p", "no:cacheprovider", ON_THE_DOUBLE],
    "all tests on the double of CuPy": [
        *(*TESTS, "-p", "no:cacheprovider", "--device=double"),
        *(f"--ignore={path}" for path in (*ANYWHERE, ON_THE_DOUBLE)),
    ],
}


def main() -> int:
    failed = []

    def run(steps: dict, output: IO[str] | None) -> None:
        for name, command in steps.items():
            print(f"\n=== {name}", file=output, flush=True)
            since, how = time.perf_counter(), {"stdout": output, "stderr": subprocess.STDOUT}
            status = subprocess.run(list(map(str, command)), cwd=ROOT, **how).returncode
            verdict, seconds = "failed" if status else "passed", time.perf_counter() - since
            print(f"=== {name}: {verdict}, {seconds:.0f} s", file=output, flush=True)
            failed.extend([name] if status else [])

    with tempfile.TemporaryFile("w+") as output:
        beside = threading.Thread(target=run, args=(BESIDE, output))
        beside.start()
        run(STEPS, None)
        beside.join()
        output.seek(0)
        print(output.read())
    print(f"\n{len(STEPS) + len(BESIDE) - len(failed)} passed, {len(failed)} failed")
    print("failed steps:", ", ".join(failed) or "none")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
