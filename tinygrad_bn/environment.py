"""What must be in the environment before NumPy is loaded: how the threads of libraries behave.

Whoever imports this sets what the user has not set.
"""

import os

# After a matrix product the threads of NumPy's OpenBLAS wait for the next in a busy loop of 2^26
# cycles, some 25 ms; meanwhile they keep compiled loops from the cores.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "14")

# What launchers of MPI tell a process: how many they have started on this machine.
_ON_THIS_MACHINE = ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE")


def _share_cores() -> None:
    """Processes that are started together on a machine share its cores."""
    told = [os.environ.get(name, "") for name in _ON_THIS_MACHINE]
    found = [int(text) for text in told if text.isdecimal() and int(text)]
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if found and "OMP_NUM_THREADS" not in os.environ:
        for name in ("OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
            os.environ.setdefault(name, str(max(usable // found[0], 1)))


_share_cores()
