"""How much memory a device has: no more can be taken, and CuPy's error says so."""

import collections
import contextlib

from .names import cupy
from .runtime import Device, Runtime, runtime

_in_use = collections.Counter()  # bytes by device


class OutOfMemoryError(MemoryError):
    def __init__(self, size, total, limit=0):
        super().__init__(
            f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes)."
        )


@contextlib.contextmanager
def memory(size):
    """Inside, each device has so many bytes, of which what lives already takes a part."""
    before, Runtime.memory = Runtime.memory, size
    try:
        yield
    finally:
        Runtime.memory = before


def take(device, size):
    if _in_use[device] + size > Runtime.memory:
        raise OutOfMemoryError(size, _in_use[device])
    _in_use[device] += size


def give_back(device, size, _in_use=_in_use):  # at the end, modules go before objects
    _in_use[device] -= size


def _free_and_total(device):
    return Runtime.memory - _in_use[device], Runtime.memory


Runtime.memory = 1 << 37
runtime.memGetInfo = lambda: _free_and_total(runtime.getDevice())
Device.mem_info = property(lambda device: _free_and_total(device.id))
cupy.cuda.memory.OutOfMemoryError = OutOfMemoryError
