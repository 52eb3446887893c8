"""Ranks with a GPU each, whose arrays go from GPU to GPU: NCCL, through CuPy."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import array_module, describe, device_of, module_on, on_device_of, to_device
from .agreement import bcast_bytes, together
from .communicators import Communicator

_TYPES = {"i": "NCCL_INT32", "l": "NCCL_INT64", "f": "NCCL_FLOAT32", "d": "NCCL_FLOAT64"}


class NCCL(Communicator):
    """The ranks of another communicator, `control`, each with a GPU of its own.

    Arrays of the GPU are sent by NCCL, in the order of the GPU's current stream, for which the host
    does not wait; arrays of the host by `control`.
    """

    def __init__(self, control: Communicator, device: str) -> None:
        self._control, self._read = control, 0
        self.rank, self.size, self.local_rank = control.rank, control.size, control.local_rank
        self._nccl = together(control, lambda: _library(device))
        with module_on(device)[1]:
            identity = self._nccl.get_unique_id() if self.rank == 0 else None
            identity = bcast_bytes(control, identity)
            self._comm = self._nccl.NcclCommunicator(self.size, identity, self.rank)

    def allreduce_(self, array: Any) -> Any:
        if device_of(array) == "cpu":
            return self._control.allreduce_(array)
        if array.dtype.char not in _TYPES:
            raise TypeError(f"array: got {describe(array)}, wants int32, int64, float32 or float64")
        kind = getattr(self._nccl, _TYPES[array.dtype.char])
        with on_device_of(array):
            place, how = _place(array), (array.size, kind, self._nccl.NCCL_SUM, _stream(array))
            self._comm.allReduce(place, place, *how)
        return array

    def allgather(self, array: Any) -> Any:
        if device_of(array) == "cpu":
            return self._control.allgather(array)
        with on_device_of(array):
            xp = array_module([array])
            array = array if array.flags.c_contiguous else array.copy()
            found = xp.empty((self.size, *array.shape), array.dtype)
            how = array.nbytes, self._nccl.NCCL_UINT8, _stream(array)
            self._comm.allGather(_place(array), _place(found), *how)
        return found

    def bcast_(self, array: Any) -> Any:
        if device_of(array) == "cpu":
            return self._control.bcast_(array)
        with on_device_of(array):
            how = array.nbytes, self._nccl.NCCL_UINT8, 0, _stream(array)
            self._comm.bcast(_place(array), *how)
        return array

    def read(self, array: Any) -> np.ndarray:
        """The array on the host. What the GPU has to do before may be to wait for a rank that does
        not come: so the host looks whether it is done as long as `control` would wait."""
        if device_of(array) != "cpu":
            with on_device_of(array):
                done = array_module([array]).cuda.get_current_stream().record()
            self._read += 1
            self.wait(lambda: done.done, lambda: f"what its GPU does for reading {self._read}")
        return to_device(array, "cpu")

    def wait(self, is_done: Callable[[], bool], what: Callable[[], str]) -> None:
        self._control.wait(is_done, what)

    def abort(self) -> None:
        self._control.abort()

    def __repr__(self) -> str:
        return f"{self.size} GPUs by NCCL {self._nccl.get_version()}, and {self._control}"


def has_nccl(device: str) -> bool:
    """Whether the CuPy of this GPU finds NCCL."""
    return getattr(module_on(device)[0].cuda.nccl, "available", False)


def _library(device: str) -> Any:
    if not has_nccl(device):
        packages = "pip install nvidia-nccl-cu12, or nvidia-nccl-cu13, as CuPy is"
        raise RuntimeError(f"device {device!r}: CuPy finds no NCCL: {packages}")
    return module_on(device)[0].cuda.nccl


def _place(array: Any) -> int:
    if not array.flags.c_contiguous:
        raise ValueError(f"array: got {describe(array)} with gaps, wants one without")
    return array.data.ptr


def _stream(array: Any) -> int:
    return array_module([array]).cuda.get_current_stream().ptr
