"""Pinned memory of the host, from which a GPU copies by itself: later, when its stream comes to it.

Until somebody waits for the stream, or a kernel on it (or on one that waits for its event) needs to
run, nothing has been copied: the array on the device is poisoned, and what is written into the
pinned memory meanwhile is what arrives.
"""

import ctypes
import weakref

import numpy as np

from . import races
from .events import happens
from .graphs import get_current_stream
from .memory import block_at
from .names import cupy, cupyx
from .runtime import runtime

_buffers = weakref.WeakValueDictionary()  # by their first address


def alloc_pinned_memory(size):
    """Memory that exports Python's buffer; CuPy's pool, too, gives more than was asked for."""
    buffer = (ctypes.c_ubyte * (-(-size // 512) * 512 or 512))()
    ctypes.memset(buffer, 0xFF, len(buffer))  # NaN, until it is written
    _buffers[ctypes.addressof(buffer)] = buffer
    return buffer


def empty_pinned(shape, dtype=float, order="C"):
    size = np.empty(shape, dtype).nbytes
    return np.ndarray(shape, dtype, alloc_pinned_memory(size), order=order)


def is_pinned(array):
    if not isinstance(array, np.ndarray):
        return False
    first, end = np.lib.array_utils.byte_bounds(array)
    return any(a <= first and end <= a + len(buffer) for a, buffer in list(_buffers.items()))


class Upload:
    """A copy from pinned memory, made once, in the order of its stream.  It does not hold the
    memory: what was given back before the copy is made does not arrive."""

    def __init__(self, source, target, stream):
        if runtime.capture:
            raise NotImplementedError("the double of CuPy lacks copies from the host in a graph")
        happens("upload", "a copy from pinned memory")
        address = source.ctypes.data
        first = max(first for first in _buffers if first <= address)
        self.buffer, self.target, self.is_made = weakref.ref(_buffers[first]), target, False
        self.layout = source.shape, source.dtype, address - first, source.strides
        target.fill(np.iinfo(target.dtype).max if target.dtype.kind in "iu" else np.nan)
        (get_current_stream() if stream is None else stream)._later.append(self)
        _write(target, stream)

    def make(self):
        buffer = self.buffer()
        if not self.is_made and buffer is not None:
            shape, dtype, offset, strides = self.layout
            self.target[...] = np.ndarray(shape, dtype, buffer, offset, strides)
        self.is_made = True


def copy_from_host(source, target, stream=None):
    """NumPy's `source` into the memory of a device array, as by cudaMemcpyAsync."""
    if is_pinned(source):
        Upload(source, target, stream)
    else:  # the driver copies it to memory of its own, for which it may have to wait
        happens("h2d", "a copy from pageable memory")
        happens("sync", "a copy from pageable memory")
        _write(target, stream)
        target[...] = source


def _write(target, stream):
    """Note a copy into memory; if it is new, it will be noted when it gets its block."""
    if target.size and (block := block_at(target.ctypes.data)) is not None:
        stream = get_current_stream() if stream is None else stream
        races.touch(stream._clock(block.device), "a copy from the host", [block], [block])


cupy.cuda.alloc_pinned_memory = alloc_pinned_memory
cupyx.empty_pinned = empty_pinned
