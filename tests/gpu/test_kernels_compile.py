"""The CUDA source compiles for every GPU from Turing to Blackwell, as NVIDIA's compiler says.

It needs no GPU, only the wheels nvidia-cuda-nvrtc and nvidia-cuda-runtime (for its headers). What
decides about the speed and can be read without running: a thread keeps what it works on in its
registers, and 16 bytes travel at once.
"""

import ctypes
import importlib.metadata
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tinygrad_bn.kernels import cuda, cuda_norm

DTYPES = {name: np.dtype(name) for name in ("float32", "float16", "float64")}
DTYPES["bfloat16"] = np.dtype(ml_dtypes.bfloat16)
WIDTHS = {name: 16 // dtype.itemsize for name, dtype in DTYPES.items()}
# Bytes. Where a window lies is reckoned with many integers, and the compiler prefers to spill a few
# of them to using more than 48 registers.
SPILLED_AT_MOST = {"conv": 80, "depthwise": 80, "pool": 80}


def macros(source, dtype, width):
    """With which cuda_*.py launches a source whose T is read `width` at once."""
    if source == "norm_rows":  # with the rows that take most registers
        return {"WIDTH": width, "ROW": cuda_norm.most_packs(width, dtype)}
    return {"WIDTH": width} if source in ("norm_columns", "norm_parts") else {}


SOURCES = sorted(path.stem for path in Path(cuda.__file__).parent.glob("*.cu"))
# Every architecture and every dtype; all pairs of them would take a minute.
PAIRS = [
    *(("sm_75", "float64"), ("sm_80", "float16"), ("sm_90", "float32"), ("sm_100", "bfloat16")),
    ("sm_120", "float32"),
]
CASES = [(source, *pair, WIDTHS[pair[1]]) for source in SOURCES for pair in PAIRS]
CASES.append(("norm_rows", "sm_90", "float32", 1))


class Compiler:
    """NVRTC, and the headers of CUDA."""

    def __init__(self):
        try:
            files = [
                Path(file.locate())
                for wheel in ("nvidia-cuda-nvrtc", "nvidia-cuda-runtime")
                for file in importlib.metadata.files(wheel)
            ]
        except importlib.metadata.PackageNotFoundError as error:
            pytest.skip(f"the wheel {error.name} is not installed, which has NVIDIA's compiler")
        libraries = {file.name.split(".")[0]: str(file) for file in files}
        # It looks for its library where the system's lie, unless that is there already.
        ctypes.CDLL(libraries["libnvrtc-builtins"], mode=ctypes.RTLD_GLOBAL)
        self.library = ctypes.CDLL(libraries["libnvrtc"])
        (header,) = (file for file in files if file.name == "cuda_fp16.h")
        self.options = *cuda.OPTIONS, f"-I{header.parent}", "--ptxas-options=-v"

    def __call__(self, text, architecture):
        """What the compiler says, and the PTX."""
        options = [option.encode() for option in (*self.options, f"-arch={architecture}")]
        program = ctypes.c_void_p()
        self.library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), *[None] * 4)
        listed = (ctypes.c_char_p * len(options))(*options)
        failed = self.library.nvrtcCompileProgram(program, len(options), listed)
        log, ptx = self.read(program, "ProgramLog"), "" if failed else self.read(program, "PTX")
        self.library.nvrtcDestroyProgram(ctypes.byref(program))
        assert not failed, log
        return log, ptx

    def read(self, program, what):
        size = ctypes.c_size_t()
        getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(self.library, f"nvrtcGet{what}")(program, text)
        return text.value.decode()


@pytest.fixture(scope="module")
def compiled():
    return Compiler()


@pytest.mark.parametrize(("source", "architecture", "dtype", "width"), CASES)
def test_it_compiles_and_keeps_its_registers(source, architecture, dtype, width, compiled):
    defines = macros(source, DTYPES[dtype], width)
    text = cuda.program(source, DTYPES[dtype], defines)
    log, ptx = compiled(text, architecture)
    spilled = r"properties for (\w+)\n.* (\d+) bytes spill stores, (\d+) bytes spill loads"
    found = re.findall(spilled, log)
    kernels = cuda.declarations(text)
    assert {name for name, *_ in found} == set(kernels), log
    most = SPILLED_AT_MOST.get(source, 0)
    assert [spill for spill in found if max(map(int, spill[1:])) > most] == []
    if defines.get("WIDTH", 1) == 1:
        return
    entries = dict(re.findall(r"\.entry (\w+)\(([\s\S]*?)\n}", ptx))  # the kernels
    for name, (_, parameters) in kernels.items():
        for declared, access in ((r"const T ?\*", "ld"), (r"T ?\*", "st")):
            if any(re.match(declared, parameter) for parameter in parameters):
                wide = rf"{access}\.global[.\w]*\.(v4\.\w32|v2\.\w64|b128)"
                assert re.search(wide, entries[name]), (name, access)
