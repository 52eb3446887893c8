"""Memory of a device, and pools of it: it goes back to where it came from in a stream's order."""

import contextlib
import weakref

import numpy as np

from . import limits, races
from .names import cupy
from .runtime import runtime

_blocks = weakref.WeakValueDictionary()  # by their first address


def _current_clock():
    stream = runtime.streams.get(device := runtime.getDevice())
    return stream._clock() if stream else races.clock_of(device, 0, is_blocking=True)


class Block:
    """A piece of memory on a device, which goes back to its pool when nobody holds it."""

    __slots__ = ("__weakref__", "begin", "device", "end", "home", "memory", "pool")
    __slots__ += ("reads", "written")  # by which works, see races.py

    def __new__(cls, memory):
        block = object.__new__(cls)
        block.device, block.pool = runtime.getDevice(), None
        limits.take(block.device, memory.nbytes)
        return block

    def __init__(self, memory):
        pool = runtime.pool or default_pool
        self.memory, self.pool = memory, weakref.ref(pool)
        self.begin, self.end = np.lib.array_utils.byte_bounds(memory) if memory.size else (0, 0)
        _blocks.setdefault(self.begin, self)
        pool._used += memory.nbytes
        pool._allocations += 1
        self.home, self.reads = _current_clock(), {}
        # In a capture nothing happens now: what was done before may still reach the memory.
        self.written = self.home.last if runtime.capture else self.home.stamp("an allocation")
        races.check_free(self.written, pool._freed.get(self.home))
        capture = runtime.capture
        if pool._used > pool._total:  # by cudaMalloc
            pool._total = pool._used
            if capture and not capture.may_allocate:
                capture.refuse("cudaErrorStreamCaptureUnsupported")
        if capture:
            capture.hold(self, is_written=True)

    def __del__(self, give_back=limits.give_back, note=races.give_back):  # which go at the end
        if self.pool is None:  # there was not enough for it
            return
        give_back(self.device, self.memory.nbytes)
        if (pool := self.pool()) is not None:
            pool._used -= self.memory.nbytes
            note(self, pool._freed.setdefault(self.home, []))


def block_at(address):
    """The memory in which an address lies; None if in none that a live array has."""
    found = _blocks.get(address)
    if found is None:
        within = [b for b in list(_blocks.values()) if b.begin <= address < b.end]
        found = within[0] if within else None
    return found


class MemoryPool:
    def __init__(self, allocator=None):
        self._used = self._total = self._allocations = 0
        self._freed = {}  # by stream: what others may still do with memory that is free

    def malloc(self, size):
        with using_allocator(self.malloc):
            return Block(np.empty(size, np.uint8))

    def used_bytes(self):
        return self._used

    def total_bytes(self):
        return self._total

    def free_bytes(self):
        return self._total - self._used

    def free_all_blocks(self, stream=None):
        self._total = self._used
        self._freed.clear()  # as cudaFree waits


default_pool = MemoryPool()


@contextlib.contextmanager
def using_allocator(allocator=None):
    pool = default_pool if allocator is None else getattr(allocator, "__self__", None)
    if not isinstance(pool, MemoryPool):
        raise NotImplementedError(f"the double of CuPy lacks the allocator {allocator}")
    before, runtime.pool = runtime.pool, pool
    try:
        yield
    finally:
        runtime.pool = before


cupy.cuda.MemoryPool, cupy.cuda.using_allocator = MemoryPool, using_allocator
cupy.get_default_memory_pool = lambda: default_pool
