"""Measure all, side by side: `make bench`, or `python -m benchmarks.speed`.

Writes speed.json, the tables speed.md and the plot speed.svg into benchmarks/results/, and the
tables into the README. `--quick` only tries the program, on tiny works in one round.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from . import machine, memory, report
from .worker import KINDS

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
ENVIRONMENT = {"machine": machine.ENVIRONMENT, "memory": memory.ENVIRONMENT}


def measured(kind: str, quick: bool) -> object:
    """What the worker of a kind prints."""
    print(kind, file=sys.stderr, flush=True)
    command = [sys.executable, "-m", f"{__package__}.worker", kind, *(["--quick"] if quick else [])]
    environment = os.environ | ENVIRONMENT.get(kind, {})
    run = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(run.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny works, one round")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write into")
    arguments = parser.parse_args()
    if arguments.quick and arguments.results.resolve() == RESULTS:
        parser.error("--quick measures nothing worth keeping: give --results another folder")
    found = {kind: measured(kind, arguments.quick) for kind in KINDS}
    report.hold_against_bandwidth(found)
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / "speed.json").write_text(json.dumps(found, indent=1) + "\n")
    tables = report.markdown(found)
    (arguments.results / "speed.md").write_text(tables)
    report.plot(found, arguments.results / "speed.svg")
    if arguments.results.resolve() == RESULTS:
        report.into_readme(ROOT / "README.md", tables)
    print(tables)


if __name__ == "__main__":
    main()
