"""Ranks that are threads of one process: for lessons and tests."""

import contextvars
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ..backend import assign, device_of, to_device
from .communicators import Communicator, RankError, in_this_context

T = TypeVar("T")


class _Meeting:
    """Where threads meet. They take turns in the order of ranks, each until it waits for others: so
    nothing that they share (a generator of random numbers, say) is used by two at once, and every
    run is alike."""

    def __init__(self, size: int) -> None:
        self.size, self.turn, self.whose = size, threading.Condition(), 0
        self.brought: dict[int, tuple[str, Any]] = {}  # by rank: to which collective, and what
        self.ended: dict[int, BaseException | None] = {}  # by rank: how

    def exchange(self, rank: int, what: str, array: np.ndarray) -> list[np.ndarray]:
        """The arrays that all ranks bring to a collective, in the order of ranks."""
        brought = self.brought
        brought[rank] = f"{what} of {array.dtype}{list(array.shape)}", array.copy()
        if len(brought) == self.size:
            self.brought = {}
        self.pass_on(rank)
        self.wait(rank)
        if self.brought is brought:  # all others have ended, or wait in vain too
            other, error = next(iter(self.ended.items()))
            how = "ended" if error is None else f"raised {type(error).__name__}: {error},"
            raise RankError(f"rank {other} {how} while rank {rank} waits in {brought[rank][0]}")
        told = [what for _, (what, _) in sorted(brought.items())]
        if len({*told}) > 1:
            each = "; ".join(f"rank {k} {text}" for k, text in enumerate(told))
            raise RankError(f"ranks want different things: {each}")
        return [array for _, (_, array) in sorted(brought.items())]

    def wait(self, rank: int) -> None:
        self.turn.wait_for(lambda: self.whose == rank)

    def pass_on(self, rank: int) -> None:
        """Give the turn to the next rank that can go on; if there is none, to one that waits."""
        order = [k % self.size for k in range(rank + 1, rank + 1 + self.size)]
        alive = [k for k in order if k not in self.ended]
        self.whose = next((k for k in alive if k not in self.brought), alive[0] if alive else 0)
        self.turn.notify_all()


class Threads(Communicator):
    """A rank that is a thread; `simulate` makes them."""

    def __init__(self, meeting: _Meeting, rank: int) -> None:
        self._meeting, self.rank, self.size = meeting, rank, meeting.size
        self.local_rank = rank

    def allreduce_(self, array: Any) -> Any:
        first, *others = self._exchange("allreduce_", array)
        total = first.copy()
        for other in others:
            total += other
        assign(array, to_device(total, device_of(array)))
        return array

    def allgather(self, array: Any) -> Any:
        return to_device(np.stack(self._exchange("allgather", array)), device_of(array))

    def bcast_(self, array: Any) -> Any:
        first = self._exchange("bcast_", array)[0]
        if self.rank:
            assign(array, to_device(first, device_of(array)))
        return array

    def _exchange(self, what: str, array: Any) -> list[np.ndarray]:
        return self._meeting.exchange(self.rank, what, to_device(array, "cpu"))

    def __repr__(self) -> str:
        return f"{self.size} threads that take turns"


def simulate(size: int, function: Callable[[Communicator], T]) -> list[T]:
    """function(communicator) on each of `size` ranks, which are threads of this process that take
    turns; returns their answers. For lessons and tests: nothing is gained in time.

    What a rank raises is raised here. If the ranks do not do the same things together, a RankError
    says what each does.

    >>> simulate(3, lambda comm: comm.allgather(np.array(comm.rank)).tolist())
    [[0, 1, 2], [0, 1, 2], [0, 1, 2]]
    """
    meeting, answers = _Meeting(size), [None] * size

    def run(rank: int) -> None:
        comm, error = Threads(meeting, rank), None
        in_this_context(comm)
        with meeting.turn:
            meeting.wait(rank)
            try:
                answers[rank] = function(comm)
            except BaseException as raised:
                error = raised
            meeting.ended[rank] = error
            meeting.pass_on(rank)

    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(run, rank), daemon=True)
        for rank in range(size)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [error for error in meeting.ended.values() if error is not None]
    if errors:
        raise next((e for e in errors if not isinstance(e, RankError)), errors[0])
    return answers
