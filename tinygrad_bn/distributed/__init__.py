"""Several processes train one model: on MPI (mpi4py) or NCCL (CuPy).

    mpiexec -n 4 python program.py

The program is the same on every rank, and begins with `comm = distributed.init()`. Then each rank
works on its share of a batch (`comm.share`), `nn.SyncBatchNorm` normalizes by the statistics of the
whole batch, and `DataParallel` adds up the gradients. So the ranks make the steps that one process
would make, whatever the shares are.
"""

from .agreement import processes
from .communicators import ALONE, Communicator, RankError, communicator
from .parallel import DataParallel
from .start import init
from .threads import simulate

__all__ = [
    "ALONE",
    "Communicator",
    "DataParallel",
    "RankError",
    "communicator",
    "init",
    "processes",
    "simulate",
]
