"""cuBLAS of the double: a library of C functions, by addresses, that NumPy computes.

It reads matrices as cuBLAS does, column by column with a leading dimension, at the addresses that
it is given; what does not fit (an address outside all arrays, a leading dimension that is too
small, matrices of the answer that share an element, another stream than the current one, a capture
without a workspace) is a status.
"""

import ctypes
import functools
import itertools
import typing

import numpy as np

from .graphs import get_current_stream, run
from .memory import block_at
from .runtime import runtime

_DTYPES = {0: "float32", 1: "float64", 2: "float16", 14: "bfloat16"}  # the cudaDataType
_COMPUTED = {68: np.float32, 70: np.float64}  # the cublasComputeType: CUBLAS_COMPUTE_32F, _64F
_FACTOR = {np.float32: ctypes.c_float, np.float64: ctypes.c_double}


class Invalid(Exception):
    """What is no value for an argument."""


class _Handle:
    def __init__(self):
        self.device, self.stream, self.mode = runtime.getDevice(), 0, 0
        self.workspace, self.workspace_size = None, 0


_handles, _numbers = {}, itertools.count(0x1000, 0x100)


def _create(handle: ctypes.POINTER(ctypes.c_void_p)):  # cublasCreate_v2, and so on
    handle[0] = number = next(_numbers)
    _handles[number] = _Handle()


def _set_math_mode(handle: ctypes.c_void_p, mode: ctypes.c_int):
    _handles[handle].mode = mode


def _set_stream(handle: ctypes.c_void_p, stream: ctypes.c_void_p):
    _handles[handle].stream, _handles[handle].workspace = stream or 0, None


def _set_workspace(handle: ctypes.c_void_p, workspace: ctypes.c_void_p, size: ctypes.c_size_t):
    block = block_at(workspace)
    if block is None or workspace + size > block.end:
        raise Invalid("the workspace")
    _handles[handle].workspace, _handles[handle].workspace_size = workspace, size


@functools.cache  # for a new class is a cycle, which would be taken for the library's
def _bytes(size):
    return ctypes.c_char * size


def _matrices(address, kind, leading, shape, count, step, transposed):
    """`count` matrices of this shape, as NumPy sees them, and the block in which they lie."""
    rows, columns = shape[::-1] if transposed else shape
    if leading < max(rows, 1) or step < 0:
        raise Invalid(f"a leading dimension of {leading} for {rows} rows, or a step of {step}")
    dtype = np.dtype(_DTYPES[kind])  # (that of bfloat16 is known once it has been imported)
    block = block_at(address)
    size = dtype.itemsize * (step * (count - 1) + leading * (columns - 1) + rows)
    if block is None or address % dtype.itemsize or address + size > block.end:
        raise Invalid(f"{size} bytes at {address:#x}")
    flat = np.frombuffer(_bytes(size).from_address(address), dtype)
    strides = [dtype.itemsize * n for n in (step, 1, leading)]
    found = np.lib.stride_tricks.as_strided(flat, (count, rows, columns), strides)
    return (found.swapaxes(1, 2) if transposed else found), block


def _overlap(matrices):
    """Whether two of these matrices share an element; they may lie between each other's columns."""
    steps = [stride // matrices.itemsize for stride in matrices.strides]
    last = sum((n - 1) * step for n, step in zip(matrices.shape, steps))
    marks = np.zeros(last + 1 if matrices.size else 0, np.int8)
    np.lib.stride_tricks.as_strided(marks, matrices.shape, steps)[...] = 1
    return np.count_nonzero(marks) < matrices.size


def _gemm(handle, operations, sizes, alpha, a, b, beta, c, count, sums):
    state, (m, n, k) = _handles[handle], sizes
    if state.stream != get_current_stream().ptr or state.device != runtime.getDevice():
        raise Invalid("a handle that is set to another stream or device")
    if runtime.capture and state.workspace is None:
        raise Invalid("a capture without a workspace")
    if not all(operation in (0, 1) for operation in operations) or min(m, n, k, count) < 0:
        raise Invalid(f"{operations}, {sizes}, {count}")
    computed = _COMPUTED[sums]
    alpha, beta = (_FACTOR[computed].from_address(x).value for x in (alpha, beta))
    shapes = ((m, k), (k, n), (m, n))
    found = [
        _matrices(*operand[:3], shape, count, operand[3], operation)
        for operand, shape, operation in zip((a, b, c), shapes, (*operations, 0))
    ]
    (left, right, out), blocks = zip(*found)
    if count > 1 and _overlap(out):
        raise Invalid(f"{count} matrices C that share an element")

    def multiply():
        with np.errstate(all="ignore"):
            answer = alpha * (left.astype(computed) @ right.astype(computed))
            if beta:  # or else cuBLAS does not read what is there
                answer += beta * out.astype(computed)
            out[...] = answer

    memories = [block.memory for block in blocks]
    run("gemm", multiply, memories, blocks, has_result=False, written=blocks[2:])


def _gemm_ex(
    handle: ctypes.c_void_p,
    transa: ctypes.c_int,
    transb: ctypes.c_int,
    m: ctypes.c_int64,
    n: ctypes.c_int64,
    k: ctypes.c_int64,
    alpha: ctypes.c_void_p,
    a: ctypes.c_void_p,
    a_type: ctypes.c_int,
    lda: ctypes.c_int64,
    b: ctypes.c_void_p,
    b_type: ctypes.c_int,
    ldb: ctypes.c_int64,
    beta: ctypes.c_void_p,
    c: ctypes.c_void_p,
    c_type: ctypes.c_int,
    ldc: ctypes.c_int64,
    sums: ctypes.c_int,
    algorithm: ctypes.c_int,
):
    operands = [(a, a_type, lda, 0), (b, b_type, ldb, 0), (c, c_type, ldc, 0)]
    _gemm(handle, (transa, transb), (m, n, k), alpha, *operands[:2], beta, operands[2], 1, sums)


def _gemm_strided_batched_ex(
    handle: ctypes.c_void_p,
    transa: ctypes.c_int,
    transb: ctypes.c_int,
    m: ctypes.c_int64,
    n: ctypes.c_int64,
    k: ctypes.c_int64,
    alpha: ctypes.c_void_p,
    a: ctypes.c_void_p,
    a_type: ctypes.c_int,
    lda: ctypes.c_int64,
    stride_a: ctypes.c_longlong,
    b: ctypes.c_void_p,
    b_type: ctypes.c_int,
    ldb: ctypes.c_int64,
    stride_b: ctypes.c_longlong,
    beta: ctypes.c_void_p,
    c: ctypes.c_void_p,
    c_type: ctypes.c_int,
    ldc: ctypes.c_int64,
    stride_c: ctypes.c_longlong,
    count: ctypes.c_int64,
    sums: ctypes.c_int,
    algorithm: ctypes.c_int,
):
    operands = [(a, a_type, lda, stride_a), (b, b_type, ldb, stride_b), (c, c_type, ldc, stride_c)]
    _gemm(handle, (transa, transb), (m, n, k), alpha, *operands[:2], beta, operands[2], count, sums)


# --- As a library ---------------------------------------------------------------------------------

_FUNCTIONS = {
    "cublasCreate_v2": _create,
    "cublasSetMathMode": _set_math_mode,
    "cublasSetStream_v2": _set_stream,
    "cublasSetWorkspace_v2": _set_workspace,
    "cublasGemmEx_64": _gemm_ex,
    "cublasGemmStridedBatchedEx_64": _gemm_strided_batched_ex,
}
_problem = ctypes.create_string_buffer(1000)


def _with_status(function):
    def call(*args):
        try:
            function(*args)
        except Exception as error:
            _problem.value = f"{type(error).__name__}: {error}".encode()[:999]
            return 7 if isinstance(error, Invalid) else 13  # INVALID_VALUE, EXECUTION_FAILED
        return 0

    return call


class _Library:
    """What ctypes.CDLL gives: functions of which it knows the addresses and nothing else."""

    def __init__(self):
        of_c = ctypes.CDLL(None)._FuncPtr
        self._kept = []  # for ctypes, which keeps no function
        for name, function in _FUNCTIONS.items():
            types = typing.get_type_hints(function).values()
            self._kept.append(ctypes.CFUNCTYPE(ctypes.c_int, *types)(_with_status(function)))
            setattr(self, name, of_c(ctypes.cast(self._kept[-1], ctypes.c_void_p).value))
        address = ctypes.addressof(_problem)
        words = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int)(lambda status: address)
        self._kept.append(words)
        self.cublasGetStatusString = of_c(ctypes.cast(words, ctypes.c_void_p).value)


library = functools.cache(_Library)
