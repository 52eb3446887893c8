"""Check and measure the GPU backend on this machine: `python -m benchmarks.gpu_run`.

One run of at most ten minutes, for a machine with a GPU, CuPy and PyTorch (and pytest, Hypothesis
and ml_dtypes: the cases come from the tests). Its sections stand in the order of their value. Each
is a process of its own with so many seconds: whatever becomes of one, the others run.

A whole run writes each row into benchmarks/results/<device>.json as soon as it is there, and in the
end <device>.md: what was reached of each target, and tables. Open a pull request with them. A part
of a run (--only) and a dry run store nothing, unless --out names another folder.

A dry run is the same code on the test double of CuPy, with tiny arrays and without a GPU: it
measures nothing, and finds mistakes in this program.

The exit status is 1 if a section had a problem, a result was wrong or a test failed. A target of
speed that is missed is no problem: a line tells which constant to try.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from tinygrad_bn.backend import module_on

from .gpu import report

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
LIMIT = 570  # seconds
NEEDED = ("pytest", "hypothesis", "ml_dtypes")


class Section(NamedTuple):
    """A module in gpu/."""

    seconds: float  # it is ended after so many
    what: str


SECTIONS = {  # all but the last fit into LIMIT together
    "environment": Section(20, "what the machine is, and what is installed"),
    "conformity": Section(60, "the test double of CuPy against CuPy"),
    "kernels": Section(
        100, "every kernel against float64 and the CPU, and twice for the same bits"
    ),
    "norms": Section(120, "norms beside a copy of as many bytes, and beside PyTorch"),
    "launches": Section(20, "what a launch costs the host"),
    "captures": Section(40, "what tg.capture refuses, and the nodes of a graph"),
    "networks": Section(60, "training steps, eager and captured, beside PyTorch"),
    "suite": Section(110, "some tests with --device=cuda; compute-sanitizer if there is one"),
    "tuning": Section(40, "norms with other constants, other ways to convolve"),
    "compiled": Section(90, "a training step beside torch.compile, if there is time left"),
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


def run(
    sections: dict[str, tuple[float, list]], limit: float, found: dict
) -> Iterator[tuple[float, str]]:
    """Run sections, given by their seconds and programs, within a limit in seconds.

    `found` is filled: for each section its seconds, its rows and its problems; and if it says so
    before it begins, the names of the rows to expect. Yields for each row, once it is in there, the
    seconds so far, and a line that tells of it.
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
            if "expected" in row:
                entry["expected"] = row["expected"]
                continue
            if "problem" in row:
                entry["problems"].append(row)
            else:
                entry["rows"].append(row)
            yield start - since + entry["seconds"], f"{name}: {report.line(row)}"


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
        sys.exit(f"{error}; without a GPU, --dry runs this on a test double of CuPy")
    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    return name.lower().replace(" ", "-")


def check_installed(dry: bool) -> None:
    """If something is missing, the program ends and says how to get it."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.exit(f'missing: {", ".join(missing)}; install with: pip install -e ".[dev]"')
    if dry and (sys.platform != "linux" or shutil.which("g++") is None):
        sys.exit("missing: g++ on Linux, which compiles the CUDA kernels for the CPU in a dry run")


def seconds(text: str) -> float:
    """The value of --limit."""
    with contextlib.suppress(ValueError):
        if float(text) > 0:  # NaN is not
            return float(text)
    raise argparse.ArgumentTypeError(f"got {text}, wants seconds, more than 0")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_run",
        description=__doc__,
        epilog="sections, with the most seconds of each:\n"
        + "\n".join(
            f"  {name:12} {each.seconds:4}  {each.what}" for name, each in SECTIONS.items()
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="write into this folder (default: benchmarks/results for a whole run, else nowhere)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=SECTIONS,
        metavar="SECTION",
        help="these sections alone (default: all); without --out nothing is stored",
    )
    parser.add_argument(
        "--limit",
        type=seconds,
        metavar="SECONDS",
        default=LIMIT,
        help="for the whole run (default: %(default)s)",
    )
    parser.add_argument(
        "--dry", action="store_true", help="on the test double, without a GPU: measures nothing"
    )
    return parser


def main() -> int:
    parser = make_parser()
    arguments = parser.parse_args()
    chosen, dry, out = arguments.only or list(SECTIONS), arguments.dry, arguments.out
    whole = not (dry or arguments.only)
    if whole:
        out = out or RESULTS
    elif out is not None and out.resolve() == RESULTS:
        parser.error("this gives a part of the results, or none: give --out another folder")
    device = "dry-run" if dry else device_name()
    check_installed(dry)
    found: dict[str, dict] = {}

    def store() -> None:
        if out is not None:
            write(out / f"{device}.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")

    try:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
        store()
    except OSError as error:
        parser.error(f"--out: got {out}, wants a folder to write into ({error.strerror})")
    mark = "[dry run, nothing was measured] " if dry else ""
    if out is None:
        print(f"{mark}nothing is stored: no --out was given", flush=True)
    sections = {name: (SECTIONS[name].seconds, section(name, dry)) for name in chosen}
    for since, line in run(sections, arguments.limit, found):
        print(mark or f"{since:6.1f} s  ", line, sep="", flush=True)
        store()
    problems = report.problems(found)
    targets = report.not_measured() if dry else report.reached_of_targets(found)
    for line in [*problems, *targets]:
        print(mark + line)
    if out is not None and not dry:
        write(out / f"{device}.md", report.markdown(found, device))
    if whole:
        print(f"{out}/{device}.json and .md: open a pull request with them")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
