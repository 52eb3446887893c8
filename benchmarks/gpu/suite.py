"""The tests on this device, and compute-sanitizer over every kernel."""

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
WORKERS = 4  # of pytest, if it can have several
TOLD = 40  # lines of the output, at most


def rows(dry: bool) -> Iterator[dict]:
    flags = ["--dry"] if dry else []
    yield {"name": "every kernel", **ended([*EVERY_KERNEL, *flags], 40)}
    sanitizer = shutil.which("compute-sanitizer")
    for tool in TOOLS:
        if sanitizer is None:
            yield {"name": tool, "not_run": "compute-sanitizer is not on the PATH"}
            continue
        command = [sanitizer, "--tool", tool, "--error-exitcode", "9", *EVERY_KERNEL, *flags]
        yield {"name": tool, **ended(command, 45)}
    for name, arguments, seconds in tests(dry):
        yield {"name": name, **ended([sys.executable, "-m", "pytest", *arguments], seconds)}


def tests(dry: bool) -> list[tuple[str, list[str], float]]:
    """What pytest is told, and for how long."""
    quiet = ["-rfE", "--tb=line", "-p", "no:cacheprovider"]
    if dry:
        return [("pytest", [*quiet, "--noconftest", "--collect-only", "tests/test_threads.py"], 30)]
    from everything import ANYWHERE, ON_THE_DOUBLE

    workers = [f"--numprocesses={WORKERS}"] if find_spec("xdist") else []
    elsewhere = [f"--ignore={path}" for path in (*ANYWHERE, ON_THE_DOUBLE)]
    return [("pytest --device=cuda", [*quiet, *workers, "--device=cuda", *elsewhere], 150)]


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
                process.wait(10)
            process.kill()
        status = process.wait()
        output.seek(0)
        lines = [line for line in output.read().splitlines() if line.strip()]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))][: 4 * TOLD]
    told = {"last": lines[-1] if lines else "", "failed": failed, "output": lines[-TOLD:]}
    return {"status": status, "late": late, **told}
