"""All that CI checks, one step after the other: `python tests/everything.py`.

Every step runs, also after one that failed; the exit status is 1 if any did.
"""

import subprocess
import sys
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
    "tests on the double of CuPy": [*TESTS, "--device=double"],
    "doctests": [*TESTS, "--doctest-modules", "tinygrad_bn"],
    "installed wheel": [sys.executable, "tests/wheel.py"],
}


def main() -> int:
    failed = []
    for name, command in STEPS.items():
        print(f"\n=== {name}", flush=True)
        start = time.perf_counter()
        status = subprocess.run(list(map(str, command)), cwd=ROOT, check=False).returncode
        print(
            f"=== {name}: {'failed' if status else 'passed'}, {time.perf_counter() - start:.0f} s"
        )
        if status:
            failed.append(name)
    print(f"\n{len(STEPS) - len(failed)} passed, {len(failed)} failed")
    print("failed steps:", ", ".join(failed) or "none")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
