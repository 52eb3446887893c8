"""Arrays of every kind by MPI: `mpiexec -n 3 python collectives.py`."""

from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest

from tinygrad_bn import distributed, random_numbers


def main():
    comm = distributed.init("mpi")
    rank, size = comm.rank, comm.size
    assert distributed.communicator() is comm
    for dtype in (np.float32, np.float64, np.int32, np.int64):
        for shape in ((), (1,), (0,), (3, 4), (70_000,)):
            summed = comm.allreduce_(np.full(shape, rank + 1, dtype))
            assert summed.shape == shape
            assert summed.dtype == dtype
            assert (summed == size * (size + 1) / 2).all()
    for dtype in (np.float16, np.uint8, bool, np.int64, ml_dtypes.bfloat16):
        for shape in ((), (0, 2), (2, 3)):
            mine = np.full(shape, rank % 2, dtype)
            gathered = comm.allgather(mine)
            assert gathered.shape == (size, *shape)
            assert gathered.dtype == dtype
            for k in range(size):
                assert (gathered[k] == k % 2).all()
            assert (comm.bcast_(np.full(shape, rank, dtype)) == 0).all()
    columns = np.arange(6).reshape(2, 3)[:, 1] + rank
    assert comm.allgather(columns).tolist() == [[1 + k, 4 + k] for k in range(size)]
    with pytest.raises(ValueError, match="with gaps, wants one without"):
        comm.allreduce_(np.arange(6.0).reshape(2, 3)[:, 1])
    with pytest.raises(RuntimeError, match="init was called before"):
        distributed.init()
    random_numbers.manual_seed(0)
    drawn = comm.allgather(random_numbers.random_bits(np.zeros(8)))
    with ThreadPoolExecutor(1) as pool:  # and in a thread of the rank
        in_thread = pool.submit(random_numbers.random_bits, np.zeros(8)).result()
    drawn = [*drawn.ravel().tolist(), *comm.allgather(in_thread).ravel().tolist()]
    assert len({*drawn}) == len(drawn)
    told = distributed.processes(comm)
    if rank == 0:
        print(comm, told, sep="\n")


if __name__ == "__main__":
    main()
