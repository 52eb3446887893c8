"""Ranks that are processes, started by mpiexec, on one machine or many: MPI, through mpi4py."""

import atexit
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import assign, describe, device_of, on_device_of, to_device
from .agreement import named_ranks
from .communicators import Communicator, RankError, offer_core
from .keeper import keep

# What launchers tell their processes: which rank they are, and of how many.
_RANK = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")
_SIZE = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
_SHORT = 0.05  # seconds of waiting in which none is lost by sleeping
_GRACE = 1.0  # seconds that a rank has to answer
_MESSAGE = 300  # bytes
_ASK, _ANSWER = 1, 2


def launched() -> bool:
    """Whether a launcher of MPI (mpiexec, srun) has started this process, and others with it."""
    told = os.environ
    return any(name in told for name in _RANK) and all(told.get(name) != "1" for name in _SIZE)


def told_rank() -> int:
    """The rank of this process, as far as a launcher has told it; else 0."""
    found = [os.environ[name] for name in _RANK if name in os.environ]
    return int(found[0]) if found and found[0].isdecimal() else 0


def require_mpi4py() -> None:
    """A RuntimeError that says how to install it, where it is missing. Does not start MPI."""
    try:
        import mpi4py  # noqa: F401
    except ImportError as error:
        pip = 'pip install "tinygrad_bn[mpi]" (mpi4py, and MPICH)'
        raise RuntimeError(f"MPI needs mpi4py, which is missing: {pip}") from error


class MPI(Communicator):
    """All processes of one mpiexec.

    NumPy's arrays are sent as they lie; those of a GPU by way of the host, unless the MPI library
    says that it takes them (its `mpi_memory_alloc_kinds`, of MPI 4.1, has "cuda").

    A collective waits for `timeout` seconds. If a rank does not come then, the others say which,
    and end the job. So it ends, too, if a rank raises what it does not catch, dies, or leaves
    before the others; in that case, and when it dies, its keeper says so.
    """

    def __init__(self, timeout: float = 300.0) -> None:
        require_mpi4py()
        # MPI that runs already cannot go on in a child.
        unkept = not launched() or "mpi4py.MPI" in sys.modules
        self._tell_keeper = (lambda: None) if unkept else keep(f"rank {told_rank()}")
        from mpi4py import MPI as mpi  # which starts it

        self._mpi, self.timeout = mpi, timeout
        world = mpi.COMM_WORLD
        self.rank, self.size = world.rank, world.size
        self.local_rank = world.Split_type(mpi.COMM_TYPE_SHARED).rank
        # One for each kind: if ranks want different kinds, they wait, and it is found.
        self._sums, self._rows, self._copies, self._talk = [world.Dup() for _ in range(4)]
        kinds = world.Get_info().Get("mpi_memory_alloc_kinds") or ""
        self._takes_gpu_arrays = "cuda" in kinds
        self._begun, self._known = 0, set()  # collectives, and which there were before
        self._sent: list = []  # messages on their way, with their memory
        if self.size > 1:
            _end_all_if_this_raises(self)
        atexit.register(self._leave)

    def allreduce_(self, array: Any) -> Any:
        buffer, done = self._buffer(array)
        self._run("sum", array, self._sums.Iallreduce, self._mpi.IN_PLACE, buffer)
        return done()

    def allgather(self, array: Any) -> Any:
        host = np.asarray(to_device(array, "cpu"), order="C")
        found = np.empty((self.size, *host.shape), host.dtype)
        self._run("gather", array, self._rows.Iallgather, _bytes(host), _bytes(found))
        return to_device(found, device_of(array))

    def bcast_(self, array: Any) -> Any:
        buffer, done = self._buffer(array)
        self._run("broadcast", array, self._copies.Ibcast, _bytes(buffer))
        return done()

    def _buffer(self, array: Any) -> tuple[Any, Callable]:
        """What MPI may read and write for `array`, and a function that brings it back there."""
        if not array.flags.c_contiguous:
            raise ValueError(f"array: got {describe(array)} with gaps, wants one without")
        if device_of(array) == "cpu":
            return array, lambda: array
        if self._takes_gpu_arrays:
            with on_device_of(array):
                array.device.synchronize()  # MPI knows no streams
            return array, lambda: array
        host = to_device(array, "cpu")

        def bring_back():
            assign(array, to_device(host, device_of(array)))
            return array

        return host, bring_back

    def _run(self, kind: str, array: Any, start: Callable, *buffers: Any) -> None:
        if (kind, array.dtype, array.shape) not in self._known:
            self._compare(kind, array)
        self._begun += 1
        is_done = start(*buffers).Test
        self.wait(is_done, lambda: f"collective {self._begun}, the {kind} of {describe(array)}")

    def _compare(self, kind: str, array: Any) -> None:
        """A RankError unless all ranks want the same; asked when one wants it for the first time.
        MPI would mix what does not fit together."""
        text = f"{kind} of {array.dtype}{list(array.shape)}"
        mine, all_of_them = np.zeros(_MESSAGE, np.uint8), np.zeros((self.size, _MESSAGE), np.uint8)
        _write(text, mine)
        is_done = self._talk.Iallgather(mine, all_of_them).Test
        self.wait(is_done, lambda: f"the first {text}")
        told = [_read(row) for row in all_of_them]
        if len({*told}) > 1:
            each = "; ".join(f"rank {rank} the {what}" for rank, what in enumerate(told[:8]))
            raise RankError(f"ranks want different things: {each}")
        self._known.add((kind, array.dtype, array.shape))

    # --- Waiting, and for whom ----------------------------------------------------------------

    def wait(self, is_done: Callable[[], bool], what: Callable[[], str]) -> None:
        """Until `is_done()`; `what()` says for what. The core is offered to others meanwhile: there
        may be more ranks than cores."""
        if is_done():
            return
        since = looked = time.monotonic()
        all_here = False
        while not is_done():
            offer_core()
            now = time.monotonic()
            if now - looked > 0.05:
                looked = now
                self._answer(what())
            if now - since > _SHORT:
                time.sleep(0.001)
            if now - since > self.timeout:
                self._find_missing(is_done, what(), all_here)
                since, all_here = time.monotonic(), True

    def _send(self, text: str, rank: int, tag: int) -> None:
        self._sent = [pair for pair in self._sent if not pair[0].Test()]
        message = np.zeros(_MESSAGE, np.uint8)
        _write(text, message)
        self._sent.append((self._talk.Isend(message, rank, tag), message))

    def _received(self, tag: int) -> list[tuple[int, str]]:
        """Rank and text of the messages that have come."""
        found, status = [], self._mpi.Status()
        while self._talk.Iprobe(self._mpi.ANY_SOURCE, tag, status):
            message = np.zeros(_MESSAGE, np.uint8)
            self._talk.Recv(message, status.source, tag)
            found.append((status.source, _read(message)))
        return found

    def _answer(self, what: str) -> None:
        for rank, _ in self._received(_ASK):
            self._send(what, rank, _ANSWER)

    def _find_missing(self, is_done: Callable[[], bool], what: str, all_here: bool) -> None:
        """Ask the others where they are; end the job unless all are here, as they were not before
        (`all_here`)."""
        self._received(_ANSWER)  # of a question of before
        for rank in set(range(self.size)) - {self.rank}:
            self._send("", rank, _ASK)
        where, end = {self.rank: what}, time.monotonic() + _GRACE
        while time.monotonic() < end:
            if is_done():
                return
            self._answer(what)
            where |= dict(self._received(_ANSWER))
            time.sleep(0.01)
        silent = sorted(set(range(self.size)) - where.keys())
        if not silent and len({*where.values()}) == 1 and not all_here:
            return  # it only takes long
        # One speaks; if it is ended before it did, the next.
        time.sleep(0.5 * sorted(where).index(self.rank))
        if silent:
            verb = "does" if len(silent) == 1 else "do"
            problem = f"{named_ranks(silent)} of {self.size} {verb} not answer"
        elif len({*where.values()}) == 1:
            problem = "all ranks are there, and it does not end"
        else:
            each = "; ".join(f"rank {rank} waits in {where[rank]}" for rank in sorted(where)[:8])
            problem = f"the ranks do not do the same: {each}"
        waited = f"rank {self.rank} has waited for {self.timeout:g} s in {what}"
        self._end(f"{problem}; {waited}")

    def _leave(self) -> None:
        """Be the last to go: a rank that ends while others still wait for it is told of."""
        self.wait(self._talk.Ibarrier().Test, lambda: "the end of its program")
        self._tell_keeper()

    def _end(self, message: str) -> None:
        sys.stdout.flush()
        print(f"tinygrad_bn ends all ranks: {message}", file=sys.stderr, flush=True)
        self.abort()

    def abort(self) -> None:
        self._tell_keeper()
        self._talk.Abort(1)

    def __repr__(self) -> str:
        library = self._mpi.Get_library_version().split("\n")[0].rstrip("\0")
        return f"{self.size} ranks by MPI ({' '.join(library.split())})"


def _write(text: str, message: np.ndarray) -> None:
    content = text.encode()[: len(message)]
    message[: len(content)] = np.frombuffer(content, np.uint8)


def _read(message: np.ndarray) -> str:
    return message.tobytes().rstrip(b"\0").decode(errors="ignore")


def _bytes(array: Any) -> Any:
    """The memory of an array, of whatever dtype."""
    return array.reshape(-1).view(np.uint8)


def _end_all_if_this_raises(comm: MPI) -> None:
    """Have an error that nobody catches end all ranks: they would wait for this one."""
    show = sys.excepthook

    def end(kind, error, traceback):
        show(kind, error, traceback)
        text = f"{kind.__name__}: {error}".rstrip(": ")
        comm._end(f"rank {comm.rank} of {comm.size} raised {text}")

    sys.excepthook = end
