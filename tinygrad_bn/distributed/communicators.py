"""Communicators: how several ranks, processes or threads, tell each other arrays.

A rank runs the same program as the others on its own share of the data. What the ranks do together
(a collective) all of them must do, in the same order.
"""

import contextvars
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import random_numbers
from ..backend import copied, to_device

offer_core = getattr(os, "sched_yield", lambda: time.sleep(0))


class RankError(RuntimeError):
    """What went wrong on some rank, or between ranks, and is known to all of them."""


class Communicator:
    """Rank number `rank` of `size`. This one is alone; others override the three collectives.

    Arrays may be NumPy's or, where the communicator says so, CuPy's; those that are written into
    must be contiguous.
    """

    rank, size = 0, 1
    local_rank = 0  # among the ranks on this machine

    def allreduce_(self, array: Any) -> Any:
        """Put the sum of the arrays of all ranks, of one shape and dtype, into each of them."""
        return array

    def allgather(self, array: Any) -> Any:
        """The arrays of all ranks, of one shape and dtype, in the order of ranks: (size, …)."""
        return copied(array)[None]

    def bcast_(self, array: Any) -> Any:
        """Put the array of rank 0 into those of the others."""
        return array

    def read(self, array: Any) -> np.ndarray:
        """The array on the host, when what was asked for before is done."""
        return to_device(array, "cpu")

    def wait(self, is_done: Callable[[], bool], what: Callable[[], str]) -> None:
        """Until `is_done()`; `what()` says for what."""
        while not is_done():
            offer_core()

    def share(self, n: int) -> slice:
        """Which of n rows, a batch of all ranks, are this rank's. Shares differ by one row at most.

        >>> Communicator().share(10)
        slice(0, 10, None)
        """
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def abort(self) -> None:
        """End all ranks at once, wherever they are."""

    def __deepcopy__(self, memo: dict) -> "Communicator":
        return self  # a copy of a model talks with the same ranks

    def __repr__(self) -> str:
        return "one process, alone"


ALONE = Communicator()
_process = ALONE  # what `init` made, for every thread
_here: contextvars.ContextVar[Communicator | None] = contextvars.ContextVar("here", default=None)


def communicator() -> Communicator:
    """The communicator that `init` made, or `simulate` for this thread; else one that is alone."""
    return _here.get() or _process


def in_this_context(comm: Communicator) -> None:
    """Make it the communicator of this thread."""
    _here.set(comm)
    random_numbers.stream.set(comm.rank)


def set_communicator(comm: Communicator) -> None:
    """Make it that of this process. Random bits (dropout) are then others on each rank."""
    global _process
    _process = comm
    random_numbers.process_stream = comm.rank
