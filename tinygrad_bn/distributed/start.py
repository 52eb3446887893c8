"""How a program learns which rank it is, and of how many."""

from ..backend import canonical_device
from ..functional.arguments import choice, number
from .communicators import ALONE, Communicator, communicator, set_communicator
from .mpi import MPI, launched
from .nccl import NCCL, has_nccl


def init(backend: str = "auto", device: str = "cpu", timeout: float = 300.0) -> Communicator:
    """Find the other ranks. All of them call it, together and once.

    `backend`: "mpi"; or "nccl", by which arrays go from GPU to GPU, and those of the host by MPI;
    or "auto": "mpi" under mpiexec (and "nccl" too, if `device` is a GPU and CuPy finds NCCL), else
    a communicator that is alone. The answer, printed, says which it is. `device`: where this rank
    computes, as in `device_of_rank`. `timeout`: so many seconds one waits for another, before all
    end with a message that says for whom.

    >>> init()
    one process, alone
    """
    choice("backend", backend, "auto", "mpi", "nccl")
    if not number("timeout", timeout) > 0:
        raise ValueError(f"timeout: got {timeout!r}, wants a number of seconds above 0")
    if communicator() is not ALONE:
        raise RuntimeError(f"init was called before: communicator() gives {communicator()}")
    comm = MPI(timeout) if launched() or backend == "mpi" else ALONE
    device = device_of_rank(device, comm)
    if backend == "nccl":
        comm = NCCL(comm, device)
    set_communicator(on_device(comm, device) if backend == "auto" else comm)
    return communicator()


def on_device(comm: Communicator, device: str) -> Communicator:
    """A communicator of the same ranks for arrays of this device: one by NCCL, if there are several
    ranks, it is a GPU, and CuPy finds NCCL; else the one that is given."""
    if device == "cpu" or comm.size == 1 or isinstance(comm, NCCL) or not has_nccl(device):
        return comm
    return NCCL(comm, device)


def device_of_rank(device: str, comm: Communicator) -> str:
    """The device itself; but "cuda" is, on each rank, the GPU with its number on its machine.

    >>> device_of_rank("cpu", ALONE), device_of_rank("cuda", ALONE)
    ('cpu', 'cuda:0')
    """
    return f"cuda:{comm.local_rank}" if device == "cuda" else canonical_device(device)
