"""A rank of `benchmarks.scaling`: `mpiexec -n 2 python -m benchmarks.scaling.worker`.

Rank 0 reads from its input what to measure, one JSON object a line, {"kind": …, "seconds": …, and
what `KINDS` wants}, and prints what was found, and the seconds for which all ranks kept cores busy.
Meanwhile the others sleep, so that jobs with different numbers of ranks and threads can take turns
on one machine.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

from tinygrad_bn import distributed
from tinygrad_bn.distributed import Communicator

from .overlap import Overlapping
from .steps import AllReduce, Norm, Training

LINE = 500  # bytes that tell what to measure


class About:
    """The library by which the ranks talk."""

    def __init__(self, comm: Communicator) -> None:
        from mpi4py import MPI

        library = MPI.Get_library_version().splitlines()[0].rstrip("\0").replace("Version:", "")
        self.said = {"MPI": " ".join(library.split()), "mpi4py": version("mpi4py")}

    def burst(self, seconds: float) -> dict:
        return self.said


KINDS: dict[str, Callable] = {
    "about": About,
    "all-reduce": AllReduce,
    "norm": Norm,
    "overlapping": Overlapping,
    "training": Training,
}


def told() -> dict | None:
    """What rank 0 reads next, on all ranks; None at the end."""
    from mpi4py import MPI

    world, line = MPI.COMM_WORLD, np.zeros(LINE, np.uint8)
    if world.rank == 0:
        content = sys.stdin.readline().encode()
        line[: len(content)] = np.frombuffer(content, np.uint8)
    request = world.Ibcast(line)
    while not request.Test():
        time.sleep(0.005)
    return json.loads(line.tobytes().rstrip(b"\0") or b"null")


def main() -> None:
    comm = distributed.init("mpi")
    made: dict[str, Any] = {}
    while command := told():
        seconds, name = command.pop("seconds"), json.dumps(command)
        if name not in made:
            made[name] = KINDS[command.pop("kind")](comm, **command)
        start = time.process_time()
        found = made[name].burst(seconds)
        busy = comm.allreduce_(np.array([time.process_time() - start]))[0]
        if comm.rank == 0:
            print(json.dumps({**found, "busy": busy}), flush=True)


if __name__ == "__main__":
    main()
