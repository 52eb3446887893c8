"""Batches on their way from the host to a GPU, while it computes with those before."""

import collections
import itertools
from collections.abc import Iterable, Iterator
from types import ModuleType

import numpy as np

from ..backend import module_on


def uploaded(batches: Iterable[tuple], device: str) -> Iterator[tuple]:
    """The same batches, tuples of NumPy arrays, on `device`; on "cpu" as they are.

    A batch is copied into pinned memory, and from there the GPU fetches it, on a stream of its own,
    while it computes with the batch before. The host waits for neither. A batch that is kept stays
    as it is. Batches are for the stream that is current when they are asked for: as with any array,
    one that goes on to another stream has to be waited for there, and before it is dropped.

    >>> x = np.arange(6)
    >>> [a.tolist() for (a,) in uploaded([(x[:3],), (x[3:],)], "cpu")]
    [[0, 1, 2], [3, 4, 5]]
    """
    xp, here = module_on(device)
    if xp is np:
        yield from batches
        return
    with here:
        copying = xp.cuda.Stream(non_blocking=True)
    travelling = collections.deque()  # (event, pinned memory) of copies that may not be made yet

    def upload(batch):
        while travelling and travelling[0][0].done:
            travelling.popleft()
        pinned = [_pinned(xp, array) for array in batch]
        # The memory belongs to the current stream, which may still use what lay there before.
        arrays = tuple([xp.empty(array.shape, array.dtype) for array in pinned])
        copying.wait_event(xp.cuda.get_current_stream().record())
        for array, source in zip(arrays, pinned):
            array.set(source, stream=copying)
        travelling.append((copying.record(), pinned))
        return arrays, travelling[-1][0]

    this_one = None
    try:
        for batch in itertools.chain(batches, [None]):
            with here:
                next_one = None if batch is None else upload(batch)
                if this_one is not None:
                    xp.cuda.get_current_stream().wait_event(this_one[1])
            if this_one is not None:
                yield this_one[0]
            this_one = next_one
    finally:  # a batch that nobody gets gives its memory back, and what is pinned too
        if travelling and not travelling[-1][0].done:
            travelling[-1][0].synchronize()


def _pinned(xp: ModuleType, array: np.ndarray) -> np.ndarray:
    """A copy in memory that the GPU can read by itself."""
    memory = xp.cuda.alloc_pinned_memory(array.nbytes)
    copy = np.frombuffer(memory, array.dtype, array.size).reshape(array.shape)
    copy[...] = array
    return copy
