"""All that CI checks, one step after the other: `python tests/everything.py`.

Every step runs, also after one that failed; the exit status is 1 if any did.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
TESTS = [sys.executable, "-m", "pytest"]

STEPS = {
    "lint": [BIN / "ruff", "check", "."],
    "format": [BIN / "ruff", "format", "--check", "."],
    "import layers": [BIN / "lint-imports", "--no-logo"],
    "tests": [*TESTS, "--durations=8"],
    "doctests": [*TESTS, "--doctest-modules", "tinygrad_bn"],
    "installed wheel": [sys.executable, "tests/wheel.py"],
}
# Half of the work: it runs beside the other steps, on another core, and is shown at the end.
BESIDE = "tests on the double of CuPy"
# Without what knows of no device: loops for NumPy arrays, pages in the browser.
BESIDE_COMMAND = [
    *(*TESTS, "-p", "no:cacheprovider", "--device=double"),
    *("--ignore-glob=*/test_kernels_*.py", "--ignore=tests/test_threads.py"),
    *("--ignore=tests/diagram/browser", "--ignore=tests/test_house.py"),
]


def main() -> int:
    start, failed = time.perf_counter(), []

    def ended(name: str, status: int, since: float) -> None:
        seconds = time.perf_counter() - since
        print(f"=== {name}: {'failed' if status else 'passed'}, {seconds:.0f} s", flush=True)
        failed.extend([name] if status else [])

    with tempfile.TemporaryFile() as output:
        options = {"cwd": ROOT, "stdout": output, "stderr": subprocess.STDOUT}
        with subprocess.Popen(list(map(str, BESIDE_COMMAND)), **options) as beside:
            for name, command in STEPS.items():
                print(f"\n=== {name}", flush=True)
                since = time.perf_counter()
                ended(name, subprocess.run(list(map(str, command)), cwd=ROOT).returncode, since)
        output.seek(0)
        print(f"\n=== {BESIDE}\n{output.read().decode()}")
        ended(BESIDE, beside.returncode, start)
    print(f"\n{len(STEPS) + 1 - len(failed)} passed, {len(failed)} failed")
    print("failed steps:", ", ".join(failed) or "none")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
