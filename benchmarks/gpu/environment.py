"""What the machine is, and what is installed."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cupy

from tinygrad_bn.kernels import cuda_blas

from ..speed.machine import cpu
from .rival import pytorch
from .timing import tried

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
    if not dry:  # the double has neither
        yield tried("libraries", libraries)


def libraries() -> dict:
    """The compiler of CUDA source and cuBLAS, as CuPy and this library have loaded them."""
    major, minor = cupy.cuda.nvrtc.getVersion()
    return {
        "nvrtc": f"{major}.{minor}",
        "nvrtc_path": loaded("libnvrtc.so"),
        "cublas_path": cuda_blas.library()._name,
    }


def loaded(name: str) -> list[str]:
    """The files of this name, whatever follows it, that are mapped into this process."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = {line.split(maxsplit=5)[5] for line in lines if "/" in line}
    return sorted(path for path in paths if path.rpartition("/")[2].startswith(name))


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
