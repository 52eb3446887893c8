"""Streams, and the graphs that are captured on them, as CUDA and CuPy have them.

While a stream is captured nothing is computed: a kernel becomes a node of the graph, its result is
poisoned, and what it writes into stays as it is.  A launch of the graph runs the nodes on the same
memory.  What CUDA refuses in a capture raises, and invalidates the capture where it does in CUDA.
"""

import itertools
import time
import weakref
from typing import NamedTuple

import numpy as np

from . import races
from .events import happens
from .names import cupy
from .runtime import Device, runtime

_GLOBAL, _THREAD_LOCAL, _RELAXED = range(3)  # cudaStreamCaptureMode


class CUDARuntimeError(RuntimeError):
    """An error of CUDA's."""


# --- Kernels --------------------------------------------------------------------------------------


def run(name, compute, memories, blocks, has_result=True, written=None):
    """`compute()`, which may write into `memories`, as a kernel of the current stream: now, or in
    each launch of the graph.  Gives what it returns, as NumPy arrays (or a tuple of them, or None).
    `blocks`: the memory that it reaches; `written`: that into which it writes, if this does not
    show by the result (it is some of `memories`, or None: then it is the first)."""
    capture, stream = runtime.capture, get_current_stream()
    if capture is not None:
        return capture.add(name, compute, memories, blocks, has_result, written)
    stream._settle()
    if stream.ptr == 0:  # which waits for streams, unless they are non_blocking
        for other in [c for c in _captures if not c.stream.is_non_blocking]:
            other.refuse("cudaErrorStreamCaptureImplicit")
    happens("kernel", name)
    result = _as_arrays(compute())
    written = _written(result, memories, blocks) if written is None else written
    races.touch(stream._clock(), name, blocks, written)
    return result


def _written(result, memories, blocks):
    if result is None:
        return blocks[:1]
    results = result if isinstance(result, tuple) else (result,)
    return [block for block, m in zip(blocks, memories) if any(m is a for a in results)]


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
        self.stream, self.is_valid = stream, True
        self.may_allocate = mode == _RELAXED
        self.nodes, self.held, self.written = [], {}, set()
        _captures.add(self)

    def refuse(self, error):
        """What CUDA prohibits while a stream is captured, which leaves no graph."""
        self.is_valid = False
        raise CUDARuntimeError(f"{error}: operation not permitted when stream is capturing")

    def hold(self, block, is_written=False):
        """Note that the graph reaches this memory."""
        self.held[weakref.ref(block)] = block.pool
        if is_written:
            self.written.add(weakref.ref(block))

    def add(self, name, compute, memories, blocks, has_result, written):
        """A node that does what `run` would do now. If it has a result, that is computed once, to
        see what it is like."""
        if not self.is_valid:
            self.refuse("cudaErrorStreamCaptureInvalidated")
        for block in blocks:
            self.hold(block)
        if not has_result:
            for block in written:
                self.hold(block, is_written=True)
            self.nodes.append(Node(name, compute, memories))
            return None
        before = [(memory, memory.copy()) for memory in memories if memory.flags.writeable]
        result = _as_arrays(compute())
        for block in _written(result, memories, blocks):
            self.hold(block, is_written=True)
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
        graph._written, graph._launched = capture.written, {}
        pools = {pool() for pool in capture.held.values()} - {None}
        graph._allocations = weakref.WeakKeyDictionary({p: p._allocations for p in pools})
        return graph

    def launch(self, stream=None):
        stream = stream or get_current_stream()
        if stream._capture:
            raise NotImplementedError("the double of CuPy lacks graphs in graphs")
        stream._settle()
        for block, pool in self._held.items():
            reused = pool() is None or pool()._allocations != self._allocations[pool()]
            if block() is None and reused:
                raise CUDARuntimeError("the graph reaches memory that others may have by now")
        happens("graph", "a launch")
        clock = stream._clock()
        clock.join(self._launched)  # as CUDA has it
        blocks, written = ([b for r in x if (b := r())] for x in (self._held, self._written))
        races.touch(clock, "a graph", blocks, written)
        self._launched = clock.moment()
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
        races.host.follow(self._clock())
        self._settle()

    def _clock(self, device=None):
        device = runtime.getDevice() if device is None else device
        device = device if self.device_id == -1 else self.device_id
        return races.clock_of(device, self.ptr, not self.is_non_blocking)

    def _read(self, block, blocking):
        """A copy of this memory to the host, for which that may wait."""
        clock = self._clock(block.device)
        races.touch(clock, "a copy to the host", [block])
        self._settle()
        if blocking:
            races.host.follow(clock)

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
        self._clock().join(event._moment)
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
        self._capture, self._later, self._moment = None, [], {}

    def record(self, stream=None):
        stream = get_current_stream() if stream is None else stream
        self._capture, self._later = stream._capture, [*stream._later]
        self._moment = stream._clock().moment()
        self._recorded = time.perf_counter()

    @property
    def done(self):
        is_done = all(upload.is_made for upload in self._later)
        if is_done:
            races.host.join(self._moment)
        return is_done

    def synchronize(self):
        if self._capture:
            self._capture.refuse("cudaErrorCapturedEvent")
        happens("sync", "Event.synchronize")
        races.host.join(self._moment)
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
    races.wait_for([device.id])
    for stream in list(_streams):
        stream._settle()


Device.synchronize = _synchronize
cupy.cuda.Stream, cupy.cuda.Event, cupy.cuda.Graph = Stream, Event, Graph
cupy.cuda.get_current_stream = get_current_stream
cupy.cuda.get_elapsed_time = get_elapsed_time
