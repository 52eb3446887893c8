"""What ranks tell each other besides arrays: texts, files, errors, and whether they agree."""

import contextlib
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import numpy as np

from .communicators import Communicator, RankError

T = TypeVar("T")


def gather_texts(comm: Communicator, text: str) -> list[str]:
    """The texts of all ranks, on all of them."""
    content = np.frombuffer(text.encode(), np.uint8)
    sizes = comm.allgather(np.array([len(content)]))[:, 0].tolist()
    padded = np.zeros(max(sizes), np.uint8)
    padded[: len(content)] = content
    return [row[:n].tobytes().decode() for row, n in zip(comm.allgather(padded), sizes)]


def bcast_bytes(comm: Communicator, content: bytes) -> bytes:
    """What rank 0 gives, on all ranks; what others give is not looked at."""
    mine = np.frombuffer(content if comm.rank == 0 else b"", np.uint8)
    size = comm.bcast_(np.array([len(mine)]))
    return comm.bcast_(mine.copy() if comm.rank == 0 else np.empty(size[0], np.uint8)).tobytes()


def together(comm: Communicator, function: Callable[[], T]) -> T:
    """function(), which does nothing together, on each rank; if it raises on any of them, a
    RankError says on all of them what, and where. (On one that is alone, it is only called.)"""
    if comm.size == 1:
        return function()
    answer = error = None
    try:
        answer = function()
    except Exception as raised:
        error = raised
    told = gather_texts(comm, "" if error is None else _words(error))
    if not any(told):
        return answer
    first = next(text for text in told if text)
    if all(text == first for text in told):
        raise RankError(first) from error
    where = [rank for rank, text in enumerate(told) if text == first]
    raise RankError(f"{named_ranks(where)} of {comm.size}: {first}") from error


def from_rank_0(comm: Communicator, function: Callable[[], bytes | None]) -> bytes:
    """function() of rank 0 (no bytes, if it returns None), on all ranks; if it raises there, a
    RankError on all. (In one process it is only called.)"""
    if comm.size == 1:
        return function() or b""
    content, problem, error = b"", b"", None
    try:
        content = function() if comm.rank == 0 else None
    except Exception as raised:
        error = raised
        problem = _words(error).encode()
    if problem := bcast_bytes(comm, problem):
        raise RankError(problem.decode()) from error
    return bcast_bytes(comm, content or b"")


@contextlib.contextmanager
def all_or_none(comm: Communicator) -> Iterator[None]:
    """In the block an error on one rank, of which the others do not know, ends all of them, with a
    message: they would wait for it."""
    try:
        yield
    except RankError:
        raise
    except BaseException as error:
        if comm.size > 1:
            text = f"rank {comm.rank} of {comm.size}: {type(error).__name__}: {error}"
            print(text, file=sys.stderr, flush=True)
            comm.abort()
        raise


def processes(comm: Communicator) -> str:
    """Which process is which rank, for whoever is told that one of them died. All ranks together.

    >>> from tinygrad_bn.distributed import communicator
    >>> processes(communicator()).split(" ")[:4]
    ['rank', '0', 'is', 'process']
    """
    told = gather_texts(comm, f"{os.getpid()} on {platform.node()}")
    return ", ".join(f"rank {rank} is process {text}" for rank, text in enumerate(told))


def check_same(comm: Communicator, described: Mapping[str, str]) -> None:
    """A RankError unless all ranks have the same names, with the same text for each."""
    tables = [json.loads(text) for text in gather_texts(comm, json.dumps(dict(described)))]
    for name in dict.fromkeys(name for table in tables for name in table):
        found = [table.get(name) for table in tables]
        if len({*found}) > 1:
            others = [rank for rank, text in enumerate(found) if text != found[0]]
            raise RankError(
                f"{name} differs between ranks: on {named_ranks(others)} of {comm.size} it is not "
                "what rank 0 has"
            )


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def named_ranks(ranks: list[int]) -> str:
    """In words: rank 1, or ranks 0, 2; of many the first."""
    shown = ", ".join(map(str, ranks[:8])) + ", …" * (len(ranks) > 8)
    return f"rank{'s' * (len(ranks) > 1)} {shown}"
