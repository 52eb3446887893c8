"""What ranks do together while their time is taken, for `benchmarks.scaling.worker`."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn
from tinygrad_bn.distributed import Communicator, DataParallel
from tinygrad_bn.optim import SGD
from tinygrad_bn.train.models import MODELS, Between

CLASSES = 10


class Watched(Communicator):
    """A communicator that keeps of every collective its seconds, and the bytes that this rank
    handed in."""

    def __init__(self, comm: Communicator) -> None:
        self.comm, self.rank, self.size, self.local_rank = comm, comm.rank, comm.size, 0
        self.seconds: list[float] = []
        self.bytes: list[int] = []

    def forget(self) -> None:
        self.seconds.clear()
        self.bytes.clear()

    def _watch(self, collective: Callable, array: Any) -> Any:
        start = time.perf_counter()
        found = collective(array)
        self.seconds.append(time.perf_counter() - start)
        self.bytes.append(array.nbytes)
        return found

    def allreduce_(self, array: Any) -> Any:
        return self._watch(self.comm.allreduce_, array)

    def allgather(self, array: Any) -> Any:
        return self._watch(self.comm.allgather, array)

    def bcast_(self, array: Any) -> Any:
        return self._watch(self.comm.bcast_, array)

    def found(self, steps: int) -> dict[str, float]:
        """Of a step: collectives, bytes, the seconds spent in them, and how many of those the rank
        spent that came last to each: it did not wait for others. All ranks together."""
        all_ranks = self.comm.allgather(np.array(self.seconds))
        by_step = [found.reshape(steps, -1).sum(axis=1) for found in (*all_ranks, all_ranks.min(0))]
        *seconds, last = [float(np.median(found)) for found in by_step]
        return {
            "collectives": len(self.seconds) // steps,
            "bytes": sum(self.bytes) // steps,
            "seconds": statistics.mean(seconds),
            "last": last,
        }


class Bursts:
    """Steps that all ranks make together, some before the clock runs."""

    steps = 0  # in a burst; 0: not known yet

    def __init__(self, comm: Communicator) -> None:
        self.comm = comm

    def step(self) -> None:
        raise NotImplementedError

    def seconds(self, burst: float) -> list[float]:
        """Of each step of a burst that takes about so long."""
        self.step()
        if not self.steps:
            self.step()
            mean = self.comm.allreduce_(np.array([self._timed()]))[0] / self.comm.size
            self.steps = max(1, round(burst / mean))
        self.begin()
        return [self._timed() for _ in range(self.steps)]

    def begin(self) -> None:
        """Now the clock runs."""

    def _timed(self) -> float:
        start = time.perf_counter()
        self.step()
        return time.perf_counter() - start

    def burst(self, seconds: float) -> dict:
        return {"seconds": statistics.median(self.seconds(seconds))}


class Training(Bursts):
    """Steps of a network with batch norm on its share of a batch of images 1 × 28 × 28, as
    `train.run.Run` makes them."""

    def __init__(
        self, comm: Communicator, model: str, width: int, depth: int, batch: int, sync: bool = True
    ) -> None:
        """sync: whether batch norm is by the statistics of all ranks."""
        super().__init__(comm)
        tg.manual_seed(0)
        self.statistics, self.gradients = Watched(comm), Watched(comm)
        self.model = MODELS[model]((1, 28, 28), CLASSES, Between("batch"), width, depth)
        if sync and comm.size > 1:
            self.model = nn.convert_sync_batchnorm(self.model, self.statistics)
        self.optimizer = SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.parallel = DataParallel(self.model, self.optimizer, self.gradients)
        random, mine, self.batch = np.random.default_rng(0), comm.share(batch), batch
        self.x = random.standard_normal((batch, 1, 28, 28), np.float32)[mine]
        self.labels = random.integers(0, CLASSES, batch)[mine]

    def step(self) -> None:
        self.optimizer.zero_grad()
        outputs = self.model(tg.Tensor(self.x))
        targets = tg.Tensor(self.labels)
        loss = F.cross_entropy(outputs, targets, reduction="sum") / self.batch
        loss.backward()
        self.sum_gradients(loss)
        self.optimizer.step()

    def sum_gradients(self, loss: tg.Tensor) -> None:
        self.parallel.sum_gradients(loss)

    def begin(self) -> None:
        self.statistics.forget()
        self.gradients.forget()

    def burst(self, seconds: float) -> dict:
        found = super().burst(seconds)
        for name, watched in (("statistics", self.statistics), ("gradients", self.gradients)):
            found[name] = watched.found(self.steps)
        return found


class Norm(Bursts):
    """Batch norm alone, forward and backward, on this rank's share of the rows."""

    def __init__(self, comm: Communicator, shape: list[int], impl: str, sync: bool) -> None:
        super().__init__(comm)
        rows = comm.share(shape[0])
        random = np.random.default_rng(comm.rank)
        x, dy = random.standard_normal((2, rows.stop - rows.start, *shape[1:]), np.float32)
        how = {"process_group": comm} if sync else {}
        self.norm = (nn.SyncBatchNorm if sync else nn.BatchNorm2d)(shape[1], impl=impl, **how)
        self.inputs = [tg.tensor(x, requires_grad=True), *self.norm.parameters()]
        self.dy = tg.tensor(dy)

    def step(self) -> None:
        tg.grad(self.norm(self.inputs[0]), self.inputs, self.dy)


class AllReduce:
    """Sums of arrays of float32, by the communicator and by MPI's own function that waits."""

    def __init__(self, comm: Communicator, sizes: list[int]) -> None:
        from mpi4py import MPI

        def by_mpi(array):
            MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, array)

        self.ways = {"ours": comm.allreduce_, "MPI": by_mpi}
        self.arrays = [np.zeros(size // 4, np.float32) for size in sizes]

    def burst(self, seconds: float) -> dict:
        """For each size and way the seconds of one."""
        return {
            name: [self._mean(way, array, seconds) for array in self.arrays]
            for name, way in self.ways.items()
        }

    def _mean(self, way: Callable, array: np.ndarray, seconds: float) -> float:
        calls = max(2, min(200, int(seconds * 1e9) // array.nbytes))
        way(array)
        start = time.perf_counter()
        for _ in range(calls):
            way(array)
        return (time.perf_counter() - start) / calls
