"""NCCL of the double: what `cupy.cuda.nccl` of CuPy 14.2 offers of collectives, by raw addresses.

The ranks are threads of `tinygrad_bn.distributed.simulate`; who is alone is rank 0 of 1.
"""

import ctypes
import types

import numpy as np

from tinygrad_bn.distributed import communicator

from .graphs import get_current_stream, run
from .memory import block_at
from .names import cupy
from .runtime import runtime

_DTYPES = {1: "uint8", 2: "int32", 4: "int64", 7: "float32", 8: "float64"}  # ncclDataType_t


class NcclError(RuntimeError):
    """What NCCL refuses."""


def get_unique_id():
    return bytes(128)


def get_version():
    return 22703


def _array(address, count, datatype):
    """The values at an address, and the block in which they lie."""
    if datatype not in _DTYPES:
        raise NcclError(f"NCCL_ERROR_INVALID_ARGUMENT: the datatype {datatype}")
    dtype, block = np.dtype(_DTYPES[datatype]), block_at(address)
    size = count * dtype.itemsize
    if block is None or address + size > block.end or block.device != runtime.getDevice():
        raise NcclError(f"NCCL_ERROR_INVALID_ARGUMENT: {size} bytes at {address:#x}")
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype), block


class NcclCommunicator:
    def __init__(self, ndev, commId, rank, config=None):
        if type(commId) is not bytes or len(commId) != 128:
            raise TypeError("Argument 'commId' has incorrect type (expected bytes)")
        devices = self._exchange("an NcclCommunicator", np.array([runtime.getDevice()]))
        if len({int(device[0]) for device in devices}) < ndev:
            raise NcclError("NCCL_ERROR_INVALID_USAGE: Duplicate GPU detected")
        self._rank, self._size = rank, ndev

    def _exchange(self, what, array):
        comm = communicator()
        return [array] if comm.size == 1 else comm._meeting.exchange(comm.rank, what, array)

    def _run(self, name, compute, blocks, written, stream):
        if stream != get_current_stream().ptr:
            raise NcclError(f"the double of NCCL wants the current stream, for {name}")
        run(name, compute, (), blocks, has_result=False, written=written)

    def allReduce(self, sendbuf, recvbuf, count, datatype, op, stream):
        (source, a), (target, b) = (_array(p, count, datatype) for p in (sendbuf, recvbuf))
        if op != 0:
            raise NcclError("the double of NCCL only sums")

        def compute():
            target[:] = sum(self._exchange("ncclAllReduce", source))

        self._run("ncclAllReduce", compute, [a, b], [b], stream)

    def allGather(self, sendbuf, recvbuf, count, datatype, stream):
        source, a = _array(sendbuf, count, datatype)
        target, b = _array(recvbuf, count * self._size, datatype)

        def compute():
            target[:] = np.concatenate(self._exchange("ncclAllGather", source))

        self._run("ncclAllGather", compute, [a, b], [b], stream)

    def bcast(self, buff, count, datatype, root, stream):
        array, block = _array(buff, count, datatype)

        def compute():
            array[:] = self._exchange("ncclBcast", array)[root]

        self._run("ncclBcast", compute, [block], [block], stream)


library = types.SimpleNamespace(
    **{"NCCL_UINT8": 1, "NCCL_INT32": 2, "NCCL_INT64": 4, "NCCL_FLOAT32": 7, "NCCL_FLOAT64": 8},
    NCCL_SUM=0,
    NcclCommunicator=NcclCommunicator,
    NcclError=NcclError,
    available=True,
    get_unique_id=get_unique_id,
    get_version=get_version,
)
cupy.cuda.nccl = library
