"""What the machine is, and what is installed."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from datetime import date
from importlib.metadata import PackageNotFoundError, version

import cupy

from ..speed.machine import cpu
from .rival import pytorch

PACKAGES = ("numpy", "ml_dtypes", "torch", "triton", "pytest")


def rows(dry: bool) -> Iterator[dict]:
    runtime, rival = cupy.cuda.runtime, pytorch(dry)
    gpu = runtime.getDeviceProperties(0)
    yield {
        "name": "machine",
        "date": date.today().isoformat(),
        "device": gpu["name"].decode(),
        "compute_capability": f"{gpu['major']}.{gpu['minor']}",
        "multiprocessors": gpu["multiProcessorCount"],
        "memory_bytes": gpu["totalGlobalMem"],
        "cache_bytes": gpu["l2CacheSize"],
        "driver": driver(),
        "driver_cuda": cuda(runtime.driverGetVersion()),
        "runtime_cuda": cuda(runtime.runtimeGetVersion()),
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {"cupy": cupy.__version__} | versions(),
        "compared_with_pytorch": rival is not None,
        "pytorch_cuda": rival and rival.torch.version.cuda,
        "compute_sanitizer": shutil.which("compute-sanitizer") is not None,
    }


def cuda(number: int) -> str:
    """13000 is 13.0."""
    return f"{number // 1000}.{number % 1000 // 10}"


def driver() -> str | None:
    """As nvidia-smi tells it."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True).stdout.partition("\n")[0]


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
