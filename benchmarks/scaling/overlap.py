"""An experiment of `benchmarks.scaling`: gradients are sent while backward goes on."""

import functools
import itertools
import statistics
from typing import Any

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.distributed import Communicator

from .steps import Training


class Overlapping(Training):
    """The same steps; but the gradients of the last layers, about half of all, are sent as soon as
    backward has them, the others after it.

    A hook on a parameter would be called at the end of backward: a leaf is older than all nodes. So
    layers get their parameters through a node of their own, made when they are called.
    """

    def __init__(self, comm: Communicator, polls: bool, **network: Any) -> None:
        """polls: whether MPI can go on with the message whenever backward has another gradient; or
        only in other collectives, those of batch norm among them."""
        super().__init__(comm, **network)
        from mpi4py import MPI

        self._mpi, self._sums, self._network = MPI, MPI.COMM_WORLD.Dup(), network
        ((_, self._flat),) = self.optimizer.flats()
        parameters, edges = self._flat.parameters, self._flat.edges
        self._first = min(range(len(edges)), key=lambda k: abs(edges[k] - edges[-1] / 2))
        self._edge, self._missing = edges[self._first], 0
        self._late = np.zeros(edges[-1] - self._edge + 1, np.float32)  # and the loss
        place = {id(p): k for k, p in enumerate(parameters)}
        for module in self.model.modules():
            mine = {n: place[id(p)] for n, p in module._parameters.items() if p is not None}
            if mine and (polls or max(mine.values()) >= self._first):
                module.register_forward_pre_hook(functools.partial(self._give, mine))

    def _give(self, mine: dict[str, int], module: nn.Module, _args: tuple) -> None:
        for name, k in mine.items():
            parameter = module._parameters[name]
            passed = parameter.reshape(parameter.shape)
            passed.register_hook(functools.partial(self._arrived, k))
            module.__dict__[name] = passed  # where attributes are looked up first

    def _arrived(self, k: int, gradient: tg.Tensor) -> None:
        if k < self._first:
            self._request.Test()
            return
        i, j = (edge - self._edge for edge in self._flat.edges[k : k + 2])
        self._late[i:j] = gradient.data.ravel()
        self._missing -= 1
        if not self._missing:
            self._request = self._sums.Iallreduce(self._mpi.IN_PLACE, self._late)

    def step(self) -> None:
        self._missing = len(self._flat.parameters) - self._first
        super().step()

    def sum_gradients(self, loss: tg.Tensor) -> None:
        self._flat.gather()
        early = self._flat.grad[: self._edge]
        request = self._sums.Iallreduce(self._mpi.IN_PLACE, early)
        self.comm.wait(self._request.Test, "gradients of the last layers")
        self._flat.grad[self._edge :] = self._late[:-1]
        self.comm.wait(request.Test, "gradients of the first layers")

    def burst(self, seconds: float) -> dict:
        if not self.steps:
            self._check()
        return {"seconds": statistics.median(self.seconds(seconds))}

    def _check(self) -> None:
        """An AssertionError unless it makes the steps of `Training`."""
        plain = Training(self.comm, **self._network)
        for one, _ in itertools.product((self, plain), range(3)):
            one.step()
        for ours, theirs in zip(self.model.parameters(), plain.model.parameters()):
            np.testing.assert_allclose(ours.data, theirs.data, rtol=1e-4, atol=1e-5)
