"""Streams, the graphs that are captured on them, and pools of memory, as CUDA and CuPy have them.

While a stream is captured nothing is computed: a kernel becomes a node of the graph, its result is
poisoned, and what it writes into stays as it is.  A launch of the graph runs the nodes on the same
memory.  What CUDA refuses in a capture raises, and invalidates the capture where it does in CUDA.
"""

import contextlib
import itertools
import time
import weakref
from typing import NamedTuple

import numpy as np

from . import limits
from .events import happens
from .names import cupy
from .runtime import Device, runtime

_GLOBAL, _THREAD_LOCAL, _RELAXED = range(3)  # cudaStreamCaptureMode


class CUDARuntimeError(RuntimeError):
    """An error of CUDA's."""


# --- Memory ---------------------------------------------------------------------------------------

_blocks = weakref.WeakValueDictionary()  # by their first address


class Block:
    """A piece of memory on a device, which goes back to its pool when nobody holds it."""

    __slots__ = ("__weakref__", "begin", "device", "end", "memory", "pool")

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
        capture = runtime.capture
        if pool._used > pool._total:  # by cudaMalloc
            pool._total = pool._used
            if capture and capture.mode != _RELAXED:
                capture.refuse("cudaErrorStreamCaptureUnsupported")
        if capture:
            capture.hold(self)

    def __del__(self, give_back=limits.give_back):  # modules go before objects at the end
        if self.pool is None:  # there was not enough for it
            return
        give_back(self.device, self.memory.nbytes)
        if (pool := self.pool()) is not None:
            pool._used -= self.memory.nbytes


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


# --- Kernels --------------------------------------------------------------------------------------


def run(name, compute, memories, blocks, has_result=True):
    """`compute()`, which may write into `memories`, as a kernel of the current stream: now, or in
    each launch of the graph.  Gives what it returns, as NumPy arrays (or a tuple of them, or None).
    `blocks`: the memory that it reaches."""
    capture = runtime.capture
    if capture is not None:
        return capture.add(name, compute, memories, blocks, has_result)
    get_current_stream()._settle()
    if get_current_stream().ptr == 0:  # which waits for streams, unless they are non_blocking
        for other in [c for c in _captures if not c.stream.is_non_blocking]:
            other.refuse("cudaErrorStreamCaptureImplicit")
    happens("kernel", name)
    return _as_arrays(compute())


def _as_arrays(result):
    if isinstance(result, (list, tuple)):
        return tuple([np.asarray(item) for item in result])
    return None if result is None else np.asarray(result)


def _made(result, memories):
    """The arrays of a result that are no memory of the arguments."""
    items = result if isinstance(result, (list, tuple)) else [] if result is None else [result]
    return [a for a in items if not any(np.may_share_memory(a, memory) for memory in memories)]


class Node(NamedTuple):
    """A kernel in a graph."""

    name: str
    run: object
    memories: list  # which it reads and writes at their addresses


_captures = weakref.WeakSet()  # that are under way


class Capture:
    """What is captured on a stream."""

    def __init__(self, stream, mode):
        self.stream, self.mode, self.is_valid = stream, mode, True
        self.nodes, self.held = [], []
        _captures.add(self)

    def refuse(self, error):
        """What CUDA prohibits while a stream is captured, which leaves no graph."""
        self.is_valid = False
        raise CUDARuntimeError(f"{error}: operation not permitted when stream is capturing")

    def hold(self, block):
        """Note that the graph reaches this memory."""
        self.held.append((weakref.ref(block), block.pool))

    def add(self, name, compute, memories, blocks, has_result):
        """A node that does what `run` would do now. If it has a result, that is computed once, to
        see what it is like."""
        if not self.is_valid:
            self.refuse("cudaErrorStreamCaptureInvalidated")
        for block in blocks:
            self.hold(block)
        if not has_result:
            self.nodes.append(Node(name, compute, memories))
            return None
        before = [(memory, memory.copy()) for memory in memories if memory.flags.writeable]
        result = _as_arrays(compute())
        for memory, content in before:
            memory[...] = content
        made = _made(result, memories)
        for memory in made:
            memory.fill(np.nan if memory.dtype.kind not in "iu" else 0)  # 0: a valid index

        def again():
            for memory, values in zip(made, _made(_as_arrays(compute()), memories)):
                memory[...] = values

        self.nodes.append(Node(name, again, memories))
        return result


class Graph:
    def __init__(self, *args, **kwargs):
        raise NotImplementedError("currently this class cannot be initiated by the user")

    @classmethod
    def _of(cls, capture):
        graph = object.__new__(cls)
        graph._nodes, graph._held = tuple(capture.nodes), capture.held
        pools = {pool() for _, pool in capture.held} - {None}
        graph._allocations = weakref.WeakKeyDictionary({p: p._allocations for p in pools})
        return graph

    def launch(self, stream=None):
        stream = stream or get_current_stream()
        if stream._capture:
            raise NotImplementedError("the double of CuPy lacks graphs in graphs")
        stream._settle()
        for block, pool in self._held:
            reused = pool() is None or pool()._allocations != self._allocations[pool()]
            if block() is None and reused:
                raise CUDARuntimeError("the graph reaches memory that others may have by now")
        happens("graph", "a launch")
        for node in self._nodes:
            node.run()

    def upload(self, stream=None):
        pass

    def debug_dot_str(self, flags=0):
        return "\n".join([f'"graph_1_node_{n}"[{x.name}];' for n, x in enumerate(self._nodes)])


def nodes(graph):
    """The names of the kernels in a graph."""
    return [node.name for node in graph._nodes]


# --- Streams --------------------------------------------------------------------------------------

_pointers = itertools.count(4096, 16)
_streams = weakref.WeakSet()


class Stream:
    null = None

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        self.ptr, self.device_id = (0, -1) if null else (next(_pointers), runtime.getDevice())
        self.is_non_blocking, self._capture, self._outer = non_blocking, None, []
        self._later = []  # copies from pinned memory that have not been made
        _streams.add(self)

    def __eq__(self, other):
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self):
        return self.ptr

    def __enter__(self):
        self._outer.append((runtime.getDevice(), get_current_stream()))
        return self.use()

    def __exit__(self, *exception):
        device, before = self._outer.pop()
        runtime.streams[device] = before

    def use(self):
        if self.device_id not in (-1, runtime.getDevice()):
            raise RuntimeError(
                f"The device that the stream is created on ({self.device_id}) does not match with "
                f"the current device ({runtime.getDevice()})"
            )
        runtime.streams[runtime.getDevice()] = self
        return self

    def synchronize(self):
        if self._capture:
            self._capture.refuse("cudaErrorStreamCaptureUnsupported")
        happens("sync", "Stream.synchronize")
        self._settle()

    def _settle(self):
        """What was asked for on this stream is done; on the default stream, also what was on others
        (unless they are non_blocking)."""
        others = [] if self.ptr else [s for s in list(_streams) if not s.is_non_blocking]
        for upload in [*self._later, *[upload for other in others for upload in other._later]]:
            upload.make()
        self._later.clear()

    def record(self, event=None):
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event):
        self._later += event._later
        if event._capture is self._capture:
            return
        if event._capture:
            raise NotImplementedError("the double of CuPy lacks captures of several streams")
        self._capture.refuse("cudaErrorStreamCaptureIsolation")

    def begin_capture(self, mode=None):
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self._capture:
            raise CUDARuntimeError("cudaErrorIllegalState: it is being captured")
        self._capture = Capture(self, _RELAXED if mode is None else mode)

    def end_capture(self):
        if not self._capture:
            raise CUDARuntimeError("cudaErrorIllegalState: it is not being captured")
        capture, self._capture = self._capture, None
        _captures.discard(capture)
        if not capture.is_valid:
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated: it failed before")
        return Graph._of(capture)

    def is_capturing(self):
        if self._capture and not self._capture.is_valid:
            raise RuntimeError("an error has invalidated the capture sequence")
        return self._capture is not None


Stream.null = Stream(null=True)


def get_current_stream(device_id=-1):
    device = runtime.getDevice() if device_id == -1 else device_id
    return runtime.streams.get(device, Stream.null)


class Event:
    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self._capture, self._later = None, []

    def record(self, stream=None):
        stream = get_current_stream() if stream is None else stream
        self._capture, self._later = stream._capture, [*stream._later]
        self._recorded = time.perf_counter()

    @property
    def done(self):
        return all(upload.is_made for upload in self._later)

    def synchronize(self):
        if self._capture:
            self._capture.refuse("cudaErrorCapturedEvent")
        happens("sync", "Event.synchronize")
        for upload in self._later:
            upload.make()


def get_elapsed_time(start_event, end_event):
    """Milliseconds of the host, which computes."""
    return 1e3 * (end_event._recorded - start_event._recorded)


def _synchronize(device):
    for capture in _captures:
        if capture.stream.device_id == device.id:
            capture.refuse("cudaErrorStreamCaptureUnsupported")
    happens("sync", "Device.synchronize")
    for stream in list(_streams):
        stream._settle()


Device.synchronize = _synchronize
cupy.cuda.Stream, cupy.cuda.Event, cupy.cuda.Graph = Stream, Event, Graph
cupy.cuda.MemoryPool, cupy.cuda.using_allocator = MemoryPool, using_allocator
cupy.cuda.get_current_stream = get_current_stream
cupy.cuda.get_elapsed_time = get_elapsed_time
cupy.get_default_memory_pool = lambda: default_pool
