"""All that CI checks: `python tests/everything.py`.

Every step runs, also after one that failed; the exit status is 1 if any did.
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
TESTS = [sys.executable, "-m", "pytest"]

IN_BROWSER, WHAT_A_GPU_RUNS = "tests/diagram/browser", "tests/gpu"
LESSONS, TRAINING = "tests/examples", "tests/train"
# What knows of no device: pages, files, layouts, text, and loops for NumPy arrays.
ANYWHERE = [
    *(IN_BROWSER, LESSONS, "tests/diagram/test_files.py", "tests/diagram/test_layout.py"),
    *("tests/diagram/test_typeset.py", "tests/diagram/test_collapsed_limits.py"),
    *("tests/test_kernels_conv.py", "tests/test_kernels_dense.py", "tests/test_kernels_norm.py"),
    *("tests/test_kernels_numpy.py", "tests/test_threads.py", "tests/test_house.py"),
    *("tests/test_benchmarks.py", "tests/test_safetensors.py", "tests/distributed/test_mpi.py"),
    *("tests/test_kernels_sync_norm.py", "tests/test_benchmarks_scaling.py"),
    *(
        f"{TRAINING}/{path.name}"  # a run is told its device
        for path in sorted((ROOT / TRAINING).glob("test_*.py"))
        if path.name not in ("test_checkpoint_folders.py", "test_models.py")
    ),
]
ON_THE_DOUBLE = [*TESTS, "-p", "no:cacheprovider", "--device=double"]


def without(folders: list[str]) -> list[str]:
    return [f"--ignore={folder}" for folder in folders]


# Two at a time, one a core; who takes long begins.
ENVIRONMENT = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
STEPS = {
    "all tests on the double of CuPy": [*ON_THE_DOUBLE, *without([*ANYWHERE, WHAT_A_GPU_RUNS])],
    "tests": [
        *(*TESTS, "--durations=8"),
        *without([IN_BROWSER, LESSONS, TRAINING, WHAT_A_GPU_RUNS]),
    ],
    "lessons and training": [*TESTS, "--durations=8", LESSONS, TRAINING],
    "tests of what a GPU runs": [*TESTS, "-p", "no:cacheprovider", WHAT_A_GPU_RUNS],
    "tests in a browser": [*TESTS, IN_BROWSER],
    "installed wheel": [sys.executable, "tests/wheel.py"],
    "doctests": [*TESTS, "--doctest-modules", "tinygrad_bn"],
    "import layers": [BIN / "lint-imports", "--no-logo"],
    "lint": [BIN / "ruff", "check", "."],
    "format": [BIN / "ruff", "format", "--check", "."],
}


def main() -> int:
    failed, steps, showing = [], list(STEPS.items()), threading.Lock()

    def work() -> None:
        while steps:
            name, command = steps.pop(0)
            print(f"{name} …", flush=True)
            since, how = time.perf_counter(), {"stdout": subprocess.PIPE, "encoding": "utf-8"}
            how |= {"stderr": subprocess.STDOUT, "cwd": ROOT, "env": ENVIRONMENT}
            done = subprocess.run([*map(str, command)], **how)
            verdict = "failed" if done.returncode else "passed"
            seconds = time.perf_counter() - since
            failed.extend([name] if done.returncode else [])
            with showing:
                print(
                    f"\n=== {name}\n{done.stdout}=== {name}: {verdict}, {seconds:.0f} s\n",
                    flush=True,
                )

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(f"\n{len(STEPS) - len(failed)} passed, {len(failed)} failed")
    print("failed steps:", ", ".join(failed) or "none")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
