"""The machine: what it is, what is installed, and how fast it copies."""

import os
import platform
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np

from .measure import seconds
from .rivals import LIBRARIES, installed

# From here on glibc copies past the caches, as a kernel that streams would.
ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.cpu.x86_non_temporal_threshold=0x100000"}
THREADS = 2
VARIABLES = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def described(quick: bool) -> dict:
    others = {name: installed(module) for module, name in LIBRARIES.items()}
    names = ["numpy", *(["numba"] if installed("numba") else [])]
    names += [name for name, there in others.items() if there]
    return {
        "date": date.today().isoformat(),
        "cpu": cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
        "missing": [name for name, there in others.items() if not there],
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "copied_bytes_a_second": copy_speed(1 if quick else 256),
        "torch_cpu_seconds_a_second": {} if quick else busy_by_threads(),
    }


def cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ")[1] for line in lines if "model name" in line), platform.machine())


def copy_speed(mebibytes: int) -> float:
    """Bytes read and written in a second by a copy of a large array, in two threads."""
    source = np.ones(mebibytes << 18, np.float32)
    target = np.ones_like(source)
    parts = list(zip(np.array_split(target, THREADS), np.array_split(source, THREADS)))
    with ThreadPoolExecutor(THREADS) as pool:

        def copy():
            list(pool.map(lambda part: np.copyto(*part), parts))

        copy()
        return 2 * source.nbytes / statistics.median(seconds(copy, 1) for _ in range(15))


def busy_by_threads() -> dict[int, float]:
    """Seconds of CPU in a second of PyTorch, by what torch.set_num_threads was told in turn."""
    if not installed("torch"):
        return {}
    import torch

    matrix, found = torch.ones(1000, 1000), {}
    for threads in (2, 1, 2, 1):
        torch.set_num_threads(threads)
        matrix @ matrix
        wall, busy = time.perf_counter(), time.process_time()
        for _ in range(30):
            matrix @ matrix
        found[threads] = (time.process_time() - busy) / (time.perf_counter() - wall)
    return found
