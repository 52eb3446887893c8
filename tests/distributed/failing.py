"""Rank 1 goes astray in its twentieth step: `mpiexec -n 3 python failing.py HOW`."""

import os
import signal
import sys
import time

import numpy as np

from tinygrad_bn import distributed


def late(comm, step):
    """Rank 1 comes when it is asked for, and answers later, when nobody asks any more."""
    if (comm.rank, step) == (1, 20):
        time.sleep(2.0)
    if (comm.rank, step) == (2, 22):
        time.sleep(0.3)
    if (comm.rank, step) == (1, 24):
        os.kill(os.getpid(), signal.SIGSTOP)


def main(how):
    comm = distributed.init(timeout=1.5)
    for step in range(40):
        if (comm.rank, step) == (2, 20) and how == "stands still":
            time.sleep(1.2)  # not yet alarmed when rank 0 is, it answers
        if how == "is late and then stands still":
            late(comm, step)
        if (comm.rank, step) == (1, 20):
            if how == "raises":
                raise ValueError("no such row")
            if how == "is interrupted":
                raise KeyboardInterrupt
            if how == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "stands still":
                os.kill(os.getpid(), signal.SIGSTOP)
            if how == "ends without a word":
                os._exit(0)
            if how == "leaves":
                sys.exit(3)
            if how == "wants something else":
                comm.allgather(np.zeros(3))
            if how == "is late":
                time.sleep(2.0)
        comm.allreduce_(np.zeros(3))
    print(f"rank {comm.rank} is through")


if __name__ == "__main__":
    main(sys.argv[1])
