"""Devices, of which each thread has a current one, and its current streams on each."""

import dataclasses
import threading

MULTIPROCESSORS = 4  # few, as each block takes its time


class Runtime(threading.local):  # for in CUDA too, the current device belongs to the thread
    count, current = 2, 0
    pool = None  # from which memory comes: one that using_allocator names, or the default

    def __init__(self):
        self.streams = {}  # by device; where there is none, the default stream

    @property
    def capture(self):
        """What is being captured on the current stream, if anything."""
        return getattr(self.streams.get(self.current), "_capture", None)

    def getDeviceCount(self):
        if self.count == 0:
            raise RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
        return self.count

    def getDevice(self):
        return self.getDeviceCount() and self.current

    def getDeviceProperties(self, device):
        """Of about thirty those that are asked for."""
        numbers = {"major": 9, "minor": 0, "multiProcessorCount": MULTIPROCESSORS}
        return {"name": b"a test double", "l2CacheSize": 0, "totalGlobalMem": 0, **numbers}

    def driverGetVersion(self):
        return 13000

    runtimeGetVersion = driverGetVersion


runtime = Runtime()


@dataclasses.dataclass
class Device:
    id: int = dataclasses.field(default_factory=runtime.getDevice)
    _outer: list = dataclasses.field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def attributes(self):
        return {"MultiProcessorCount": MULTIPROCESSORS}

    def __enter__(self):
        self._outer.append(runtime.getDevice())
        runtime.current = self.id
        return self

    def __exit__(self, *exception):
        runtime.current = self._outer.pop()
