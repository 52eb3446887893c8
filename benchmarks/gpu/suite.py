"""Some of the tests on this device, and compute-sanitizer over every kernel.

For all of them, which may take longer than this run: `python -m pytest --device=cuda`.
"""

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
EVERY_KERNEL = [sys.executable, "-m", "benchmarks.gpu.every_kernel"]
TOOLS = ("memcheck", "racecheck")
# Memory, streams, graphs, short dtypes, steps of training, one rank of NCCL. (The kernels are held
# in their section.)
TESTS = [
    f"tests/test_{name}.py"
    for name in (
        *("device", "capture", "capture_calls", "bfloat16", "ops_half"),
        *("nn_norm", "fusion", "loss", "optim", "train", "checkpoint_again"),
    )
] + ["tests/gpu/test_device_ranks.py::test_one_rank_by_nccl"]
WORKERS = 4  # of pytest, if it can have several
ENDING = 4  # seconds for pytest to tell what it has found so far
TOLD = 40  # lines of the output, at most


def rows(dry: bool) -> Iterator[dict]:
    for name, command, seconds in programs(dry):
        if command[0] is None:
            yield {"name": name, "not_run": "compute-sanitizer is not on the PATH"}
            continue
        yield {"name": name, **ended(command, seconds)}


def programs(dry: bool) -> list[tuple[str, list, float]]:
    """What is run, and for how many seconds; together, and with ENDING, less than the section."""
    kernels = [*EVERY_KERNEL, *(["--dry"] if dry else [])]
    told = ["-rfE", "--tb=line", "-p", "no:cacheprovider"]
    workers = [f"--numprocesses={WORKERS}"] if find_spec("xdist") else []
    tests = [*workers, "--device=cuda", *TESTS]
    if dry:  # without a GPU it can only be seen that pytest begins
        tests = ["-qq", "--noconftest", "--collect-only", "tests/test_threads.py"]
    check = [shutil.which("compute-sanitizer"), "--error-exitcode", "9", "--tool"]
    return [
        ("every kernel", kernels, 40 if dry else 12),
        ("pytest", [sys.executable, "-m", "pytest", *told, *tests], 45),
        *((tool, [*check, tool, *kernels], 17) for tool in TOOLS),
    ]


def ended(command: list, seconds: float) -> dict:
    """The status of a program, which tests failed, and the end of what it printed. After so many
    seconds it is asked to end, as by Ctrl-C, and tells what it has found so far."""
    with tempfile.TemporaryFile("w+") as output:
        how = {"stdout": output, "stderr": subprocess.STDOUT, "text": True}
        process = subprocess.Popen(list(map(str, command)), cwd=ROOT, **how)
        late = False
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        if process.poll() is None:
            late = True
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(ENDING)
            process.kill()
        status = process.wait()
        output.seek(0)
        lines = [line for line in output.read().splitlines() if line.strip()]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))][: 4 * TOLD]
    told = {"last": lines[-1] if lines else "", "failed": failed, "output": lines[-TOLD:]}
    return {"status": status, "late": late, **told}
