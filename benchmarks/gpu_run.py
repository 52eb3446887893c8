"""Check and measure the GPU backend on this machine: `python -m benchmarks.gpu_run`.

One run of at most ten minutes, for a machine with a GPU, CuPy and PyTorch (and pytest, Hypothesis
and ml_dtypes: the cases come from the tests). Its sections stand in the order of their value. Each
is a process of its own with so many seconds: whatever becomes of one, the others run. A row is
written into <device>.json as soon as it is there. In the end <device>.md holds what was reached of
each target, and tables for the README.

`--dry` runs the same code on the test double of CuPy, with tiny arrays: it measures nothing, and
finds mistakes in this program.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tinygrad_bn.backend import module_on

from .gpu import report

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
LIMIT = 570  # seconds
SECTIONS = {  # the module in gpu/, and for how many seconds it may run
    "environment": 30,
    "conformity": 90,
    "kernels": 150,
    "norms": 150,
    "launches": 30,
    "captures": 40,
    "networks": 90,
    "tuning": 60,
    "suite": 290,
    "compiled": 90,
}


def rows_of(command: list, seconds: float) -> Iterator[dict]:
    """The rows that a program prints, each as JSON in a line; and its problem, if it has one.

    After so many seconds the program is ended, and all that it has started.
    """
    late, how = threading.Event(), {"stdout": subprocess.PIPE, "text": True, "encoding": "utf-8"}
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, **how) as process:

        def end():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(seconds, lambda: (late.set(), end()))
        timer.start()
        try:
            for line in process.stdout:
                if line.endswith("\n"):  # or it was ended in the middle of one
                    yield json.loads(line)
            process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:
                end()
    if late.is_set():
        yield {"problem": f"took more than its {seconds:.1f} seconds"}
    elif process.returncode:
        yield {"problem": f"ended with status {process.returncode}"}


def section(name: str, dry: bool) -> list:
    """The program of a section."""
    return [sys.executable, "-m", "benchmarks.gpu.worker", name, *(["--dry"] if dry else [])]


def run(sections: dict[str, tuple[float, list]], limit: float, found: dict) -> Iterator[str]:
    """Run sections, given by their seconds and programs, within a limit in seconds.

    `found` is filled: for each section its seconds, its rows and its problems. Yields lines that
    tell of each row, once it is in there.
    """
    since = time.perf_counter()
    for name, (budget, command) in sections.items():
        start = time.perf_counter()
        left = limit - (start - since)
        rows: Iterable[dict] = [{"problem": "no time was left"}]
        if left > 1:
            rows = rows_of(command, min(budget, left))
        found[name] = entry = {"seconds": 0.0, "rows": [], "problems": []}
        for row in rows:
            entry["seconds"] = round(time.perf_counter() - start, 1)
            if "problem" in row:
                entry["problems"].append(row)
            else:
                entry["rows"].append(row)
            yield f"{start - since + entry['seconds']:6.1f} s  {name}: {report.line(row)}"


def write(path: Path, text: str) -> None:
    """All of it or nothing, whenever this process ends."""
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def device_name() -> str:
    """The first GPU, as the name of a file. If there is none, the program ends and says why."""
    try:
        cupy, _ = module_on("cuda")
    except RuntimeError as error:
        sys.exit(str(error))
    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    return name.lower().replace(" ", "-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--out", type=Path, help="the folder to write into; for a whole run, results"
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="these sections alone")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for the whole run")
    parser.add_argument("--dry", action="store_true", help="on the test double: measures nothing")
    arguments = parser.parse_args()
    chosen, dry, out = arguments.only or list(SECTIONS), arguments.dry, arguments.out
    if not (dry or arguments.only):
        out = out or RESULTS
    elif out is not None and out.resolve() == RESULTS:
        parser.error("this gives a part of the results, or none: give --out another folder")
    device = "dry-run" if dry else device_name()
    mark = "[dry run, nothing was measured] " if dry else ""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict] = {}
    sections = {name: (SECTIONS[name], section(name, dry)) for name in chosen}
    for line in run(sections, arguments.limit, found):
        print(mark + line, flush=True)
        if out is not None:
            write(out / f"{device}.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    for line in [*report.problems(found), *report.told(report.verdicts(found))]:
        print(mark + line)
    if out is not None and not dry:
        write(out / f"{device}.md", report.markdown(found, device))


if __name__ == "__main__":
    main()
