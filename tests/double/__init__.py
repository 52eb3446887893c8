"""A test double of CuPy, for machines without a GPU and without CuPy.

`double.install()` puts it into sys.modules as `cupy` and `cupyx`; `double.uninstall()` takes it
out.  Its arrays hold NumPy memory, but it behaves as CuPy 14.2 does where an engine can be bitten:
calls are bound to the real signatures (data/cupy_signatures.json), NumPy arrays are refused where
CuPy refuses them and copied where CuPy copies them silently, reductions give 0-d arrays, `empty`
is poisoned, a kernel reaches arrays of the current device only.  `double.stats` counts "h2d" and
"d2h" (copies between host and device), "sync" (the host waits for the device) and "kernel" (a call
computes on the device); inside `with double.forbid("h2d", "d2h", "sync"):` they raise.  CUDA source
runs on the CPU (raw.py); `with double.order("reverse"):` changes the order of its threads.  Streams
are captured in graphs (graphs.py; `double.nodes(graph)` lists the kernels).  cuBLAS is a library
that reads raw addresses (blas.py).  Streams that reach the same memory in no order are an error
(races.py).
"""

import sys

from . import blas, creation, nccl, races
from .arrays import ndarray
from .events import ForbiddenTransfer, forbid, stats
from .graphs import CUDARuntimeError, nodes
from .limits import memory
from .names import MODULES, cupy, cupyx
from .races import Race
from .raw import KernelError, order
from .runtime import Runtime, runtime

_replaced = {}


def install(devices=2):
    """Puts the double into sys.modules, as the CuPy of a machine with so many GPUs."""
    uninstall()
    for name in [name for name in sys.modules if name.split(".")[0] in ("cupy", "cupyx")]:
        _replaced[name] = sys.modules.pop(name)
    sys.modules.update(MODULES)
    Runtime.count, runtime.current = devices, 0
    runtime.streams.clear()
    stats.clear()
    races.wait_for(range(devices))  # what was asked for before is done
    _exchange_cublas(blas.library)
    return cupy


def _exchange_cublas(library):
    from tinygrad_bn.kernels import cuda_blas

    cuda_blas.library, _replaced["cublas"] = library, cuda_blas.library


def uninstall():
    """Restores what `install` found."""
    if sys.modules.get("cupy") is cupy:
        for name in MODULES:
            del sys.modules[name]
        _exchange_cublas(_replaced.pop("cublas"))
        del _replaced["cublas"]
        sys.modules.update(_replaced)
        _replaced.clear()
