"""Arrays of a GPU by MPI, on the double of CuPy: `mpiexec -n 2 python gpu_arrays.py`."""

import double
import numpy as np

from tinygrad_bn import distributed
from tinygrad_bn.backend import device_of, to_device


def main():
    double.install()
    comm = distributed.init("mpi", "cuda")
    mine = to_device(np.array([comm.rank, 5.0]), "cuda:0")
    for collective, wanted in (
        (comm.allgather, [[0, 5], [1, 5]]),
        (comm.allreduce_, [1, 10]),
        (comm.bcast_, [0, 5]),
    ):
        array = mine.copy()
        found = collective(array)
        assert device_of(found) == "cuda:0"
        assert to_device(found, "cpu").tolist() == wanted
        if collective != comm.allgather:
            assert found is array
    print("done")


if __name__ == "__main__":
    main()
