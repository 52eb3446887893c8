"""Rank 1 goes astray in its twentieth step: `mpiexec -n 3 python failing.py HOW`."""

import os
import signal
import sys
import time

import numpy as np

from tinygrad_bn import distributed


def main(how):
    comm = distributed.init(timeout=1.0)
    for step in range(40):
        if (comm.rank, step) == (1, 20):
            if how == "raises":
                raise ValueError("no such row")
            if how == "is interrupted":
                raise KeyboardInterrupt
            if how == "dies":
                print(distributed.communicator(), flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "stands still":
                os.kill(os.getpid(), signal.SIGSTOP)
            if how == "never comes back":
                while True:
                    pass
            if how == "leaves":
                sys.exit(3)
            if how == "wants something else":
                comm.allgather(np.zeros(3))
            if how == "is late":
                time.sleep(1.5)
        comm.allreduce_(np.zeros(3))
    print(f"rank {comm.rank} is through")


if __name__ == "__main__":
    main(sys.argv[1])
