"""What several ranks gain on this machine: `python -m benchmarks.scaling`, or `… 1 2 4`.

For each number of ranks, 1 and 2 unless others are given, it starts `mpiexec` of
`benchmarks.scaling.worker`; and one rank with a thread on every core, which is what ranks are to be
held against. The jobs take turns, in bursts, so that what else the machine does hits all alike;
ranks that wait for each other suffer from it more than one alone, so of a job's bursts that half
counts during which other programs took the least time of the cores. The batch is the same for all,
and split among the ranks. Needs mpi4py and an MPI library (pip install ".[mpi]"). Takes less than
three minutes; results/scaling.md keeps the tables, and the README, if it has a place for them.
"""

import argparse
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..speed import machine
from . import report

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "scaling.md"
MARK, END = "<!-- benchmarks/results/scaling.md -->\n\n", "<!-- the end of scaling.md -->"
ROUNDS, BURST, MOST = 24, 0.2, 150.0  # of a burst and, but for the last round, of all: seconds

NETWORKS = {
    "MLP, 3 layers of 256, batch 512": {"model": "mlp", "width": 256, "depth": 3, "batch": 512},
    "MLP, 3 layers of 1024, batch 512": {"model": "mlp", "width": 1024, "depth": 3, "batch": 512},
    "convnet, 16, 32, 64 channels, batch 128": {
        "model": "convnet",
        "width": 16,
        "depth": 3,
        "batch": 128,
    },
}
# In all jobs alike: threads that wait leave the cores to others, and memory that is freed is kept
# (else pages that are given back, and asked for again, take up to half of a step, or nothing).
ENVIRONMENT = {
    "OPENBLAS_THREAD_TIMEOUT": "14",
    "OMP_WAIT_POLICY": "passive",
    "MALLOC_TRIM_THRESHOLD_": "268435456",
    "MALLOC_MMAP_THRESHOLD_": "268435456",
}
OVERLAPPED = list(NETWORKS)[1:]
SIZES = [8, *(2**k for k in (12, 15, 18, 21, 23, 25))]  # bytes of an all-reduce
SHAPE = [64, 64, 28, 28]  # of what is normalized


class Work(NamedTuple):
    """What is measured: the table, the row and column where it belongs, and how a job is asked."""

    table: str
    row: str
    column: str
    kind: str
    how: dict[str, Any]


class Job:
    """Ranks with so many threads each, which wait until they are asked to measure something."""

    def __init__(self, ranks: int, threads: int) -> None:
        self.ranks, self.threads = ranks, threads
        beside = Path(sys.executable).with_name("mpiexec")
        mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
        if mpiexec is None:
            sys.exit('mpiexec is not installed: pip install ".[mpi]"')
        command = [mpiexec, "-n", str(ranks), sys.executable, "-m", "benchmarks.scaling.worker"]
        names = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"
        environment = os.environ | ENVIRONMENT | dict.fromkeys(names, str(threads))
        how = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, **how)

    @property
    def name(self) -> str:
        return f"{self.ranks} × {self.threads}"

    def ask(self, kind: str, seconds: float, **how: Any) -> dict:
        """What the ranks find in a burst of about so many seconds; and `others`, how many cores
        other programs kept busy meanwhile."""
        start, busy = time.perf_counter(), busy_seconds()
        print(json.dumps({"kind": kind, "seconds": seconds, **how}), file=self._process.stdin)
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"{self.ranks} ranks ended when asked for {kind} {how}")
        answer = json.loads(line)
        others = busy_seconds() - busy - answer.pop("busy")
        return answer | {"others": max(others, 0.0) / (time.perf_counter() - start)}

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *error: Any) -> None:
        self._process.stdin.close()  # which tells the ranks to end
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


def busy_seconds() -> float:
    """For how long all cores together have not been idle (where Linux tells; else 0)."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _idle, _wait, *others = map(int, stat.read_text().split()[1:9])
    return sum((user, nice, system, *others)) / os.sysconf("SC_CLK_TCK")


def works(job: Job) -> Iterator[Work]:
    """What a job measures."""
    several = job.ranks > 1
    for row, network in NETWORKS.items():
        yield Work("training", row, job.name, "training", network)
        if several:
            own = network | {"sync": False}
            yield Work("training", row, f"{job.name}, {report.OWN}", "training", own)
    for row, polls in itertools.product(OVERLAPPED if several else (), (False, True)):
        column = report.POLLED if polls else report.DURING
        network = NETWORKS[row] | {"polls": polls}
        yield Work(f"overlapping {job.name}", row, column, "overlapping", network)
    for impl, sync in itertools.product(("fused", "composed"), (False, True) if several else (0,)):
        row = f"`{'SyncBatchNorm' if sync else 'BatchNorm2d'}`, {impl}"
        how = {"shape": SHAPE, "impl": impl, "sync": bool(sync)}
        yield Work("norm", row, job.name, "norm", how)
    if several:
        yield Work("all-reduce", "", job.name, "all-reduce", {"sizes": SIZES})


def measured(jobs: list[Job], rounds: int, burst: float) -> dict[str, dict]:
    """{table: {row: {column: what was found in each round}}}. In a round what stands in rows of one
    name is measured one after the other, by whatever job."""
    asked = [(job, work) for job in jobs for work in works(job)]
    rows = list(dict.fromkeys(work.row for _, work in asked))
    asked.sort(key=lambda pair: rows.index(pair[1].row))
    found: dict[str, dict] = {}
    end = time.monotonic() + MOST
    for k in range(rounds):
        if time.monotonic() > end:
            break
        print(f"round {k + 1} of {rounds}", file=sys.stderr, flush=True)
        for job, (table, row, column, kind, how) in reversed(asked) if k % 2 else asked:
            answers = found.setdefault(table, {}).setdefault(row, {}).setdefault(column, [])
            answers.append(job.ask(kind, burst, **how))
    return found


def started(counts: list[int], stack: contextlib.ExitStack) -> list[Job]:
    """A job for each number of ranks, and one rank with a thread on every core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kinds = [(1, 1), (1, cores), *((n, max(1, cores // n)) for n in counts if n > 1)]
    return [stack.enter_context(Job(*kind)) for kind in dict.fromkeys(kinds)]


def into_readme(readme: Path, tables: str) -> None:
    """Write the tables into the README, if it has their marks."""
    if MARK in (text := readme.read_text()):
        before, rest = text.split(MARK)
        _, after = rest.split(END)
        readme.write_text(f"{before}{MARK}{tables}\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("ranks", nargs="*", type=int, default=[1, 2], help="numbers of ranks")
    counts, load = sorted({*parser.parse_args().ranks}), os.getloadavg()[0]
    about = machine.described(quick=True)
    with contextlib.ExitStack() as stack:
        jobs = started(counts, stack)
        about |= jobs[-1].ask("about", 0.0)
        found = measured(jobs, ROUNDS, BURST)
    about |= {"load": load, "shape": SHAPE, "sizes": SIZES, "environment": ENVIRONMENT}
    tables = report.markdown(found, about)
    RESULTS.write_text(tables)
    into_readme(ROOT / "README.md", tables)
    print(tables)


if __name__ == "__main__":
    main()
