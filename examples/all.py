"""Run all lessons in order: `python examples/all.py [--quick | --full]`.

Each runs in a process of its own, and leaves its picture in out/lessons. Of what it prints the
closing lines are shown: the numbers that it found. After a lesson that fails the others run all the
same; the exit status is 1 if any did.
"""

import subprocess
import sys
import time
from pathlib import Path

import lesson

LESSONS = sorted(Path(__file__).parent.glob("[0-9][0-9]_*.py"))


def run(path: Path) -> bool:
    """Run a lesson, show its name, how long it took and its last lines; whether it succeeded."""
    print(f"=== {path.stem}", flush=True)
    options = lesson.pace(["--quick"], [], ["--full"])
    command, since = [sys.executable, "-X", "utf8", str(path), *options], time.perf_counter()
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"}
    process = subprocess.run(command, **both)
    closing = process.stdout.strip().split("\n\n")[-1]
    verdict = f"failed with exit status {process.returncode}" if process.returncode else "done"
    print(closing, f"=== {verdict}, {time.perf_counter() - since:.1f} s\n", sep="\n", flush=True)
    return process.returncode == 0


def main() -> int:
    since = time.perf_counter()
    failed = [path.stem for path in LESSONS if not run(path)]
    print(f"{len(LESSONS)} lessons in {time.perf_counter() - since:.0f} s, {len(failed)} failed")
    print("failed:", ", ".join(failed) or "none")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
