"""Ranks that want different things: `mpiexec -n 2 python not_fitting.py WHAT`."""

import sys

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import distributed, nn, optim


def model(names):
    made = nn.Module()
    for k, name in enumerate(names):
        setattr(made, name, nn.Parameter(np.full(2, float(k))))
    return made


def main(what):
    comm = distributed.init(timeout=20.0)
    comm.allreduce_(np.ones(3))  # which all have done before
    made = model("ba" if comm.rank else "ab")
    try:
        if what == "sum":
            comm.allreduce_(np.ones(4, np.float32 if comm.rank else np.float64))
        if what == "gather":
            comm.allgather(np.ones(4 + comm.rank))
        if what == "norm":
            nn.SyncBatchNorm(3 + comm.rank)(tg.ones(2, 3 + comm.rank))
        if what == "model":
            distributed.DataParallel(made, optim.SGD(made.parameters(), lr=0.1))
    except distributed.RankError as error:
        print("refused:", error)


if __name__ == "__main__":
    main(sys.argv[1])
