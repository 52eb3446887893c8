"""Matrix products on CuPy arrays, by cuBLAS through a handle of our own.

CuPy 14 refuses each call of cuBLAS while a stream is captured. cuBLAS itself can be captured, if
its scratch memory stays where it is: so here each stream has a workspace for as long as it lives.
Products go this way outside a capture too, so that a replay runs the very GEMM of an eager step.

cuBLAS knows matrices column by column. In a row-major matrix it sees the transpose; so to get
a @ b row by row it is asked for bᵀ aᵀ.
"""

import ctypes
import functools
import math
import threading
from types import ModuleType
from typing import Any

import numpy as np

from ..backend import array_module, describe
from ..reduction import accumulator

_WORKSPACE = 32 << 20  # bytes: what NVIDIA advises for Hopper, and more than for all before it
_FULL_SUMS = 16  # CUBLAS_DEFAULT_MATH (no TF32), and no part of a sum is rounded to 16 bits
_DEFAULT_ALGORITHM = -1
# Of a dtype: its cudaDataType, the cublasComputeType in which it is summed, C's type of that.
_TYPES = {
    "float16": (2, 68, ctypes.c_float),
    "bfloat16": (14, 68, ctypes.c_float),
    "float32": (0, 68, ctypes.c_float),
    "float64": (1, 70, ctypes.c_double),
}
_FACTORS = {kind: (kind(0), kind(1)) for kind in (ctypes.c_float, ctypes.c_double)}

_INT, _LONG, _POINTER = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
_START = [_POINTER, _INT, _INT, _LONG, _LONG, _LONG, _POINTER]  # handle, operations, sizes, α
_MATRIX = [_POINTER, _INT, _LONG]  # where it is, its type, its leading dimension
_STACK = [*_MATRIX, _LONG]  # and the step from matrix to matrix
_FUNCTIONS = {
    "cublasCreate_v2": [_POINTER],
    "cublasSetMathMode": [_POINTER, _INT],
    "cublasSetStream_v2": [_POINTER, _POINTER],
    "cublasSetWorkspace_v2": [_POINTER, _POINTER, ctypes.c_size_t],
    "cublasGemmEx_64": [*_START, *_MATRIX, *_MATRIX, _POINTER, *_MATRIX, _INT, _INT],
    "cublasGemmStridedBatchedEx_64": [
        *(*_START, *_STACK, *_STACK, _POINTER, *_STACK, _LONG, _INT, _INT)
    ],
}


def product(a: Any, b: Any, out: Any = None, accumulate: bool = False) -> Any:
    """a @ b as by `numpy.matmul`, for CuPy arrays on the current device: matrices, stacks of them
    whose leading axes broadcast, vectors.

    float16 and bfloat16 are summed in float32. A transposed operand is read as it lies; one with
    gaps along both of its last axes is copied. `out`, of the shape and dtype of the answer (or of
    the dtype in which it is summed) and with a last axis (or last but one) without gaps, is
    written; with `accumulate` it is added to. Integers go to CuPy's matmul.
    """
    xp = array_module((a, b, out))
    dtype = a.dtype if a.dtype == b.dtype else np.promote_types(a.dtype, b.dtype)
    if dtype.name not in _TYPES and out is None:
        return xp.matmul(a, b)
    if out is None and (a.ndim == 1 or b.ndim == 1):  # a row on the left, a column on the right
        row, column = a.ndim == 1, b.ndim == 1
        answer = product(a[None] if row else a, b[:, None] if column else b)
        return answer.squeeze((-2,) * row + (-1,) * column)
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(
            f"product: got {describe(a)} and {describe(b)}, wants (…, m, k), (…, k, n)"
        )
    if a.dtype != b.dtype:
        a, b = a.astype(dtype, copy=False), b.astype(dtype, copy=False)
    if out is None and b.ndim == 2 < a.ndim:  # one large product instead of many small
        rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
        return product(rows, b).reshape(*a.shape[:-1], b.shape[1])
    stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2]) if a.ndim + b.ndim > 4 else ()
    shape = (*stack, a.shape[-2], b.shape[-1])
    if out is None:
        out = xp.empty(shape, dtype)
    elif (
        out.shape != shape
        or out.dtype not in (dtype, accumulator(dtype))
        or dtype.name not in _TYPES
    ):
        raise ValueError(f"product: got out {describe(out)}, wants {dtype}{list(shape)}")
    if out.size and a.shape[-1]:
        _multiply(xp, a, b, out, stack, accumulate)
    elif not accumulate:
        out.fill(0)
    return out


def _multiply(xp, a, b, out, stack, accumulate):
    """out = a @ b, or out += a @ b."""
    count, found = math.prod(stack), _layout(out)
    if found is None or (count > 1 and found[2] == 0):
        raise ValueError(f"product: got out {describe(out)} with strides {out.strides}")
    by_columns, *of_out = found
    if by_columns:  # as cuBLAS has it: then it is the transpose that is asked for
        a, b = b.swapaxes(-1, -2), a.swapaxes(-1, -2)
    right, right_by_columns, *of_right = _readable(xp, a, stack)
    left, left_by_columns, *of_left = _readable(xp, b, stack)
    (kind, *_), (out_kind, sums, number) = _TYPES[a.dtype.name], _TYPES[out.dtype.name]
    zero, one = _FACTORS[number]
    parts = 1 if count == 1 else 2  # of a layout: without the step from matrix to matrix, or with
    with _taking_turns:
        _call(
            "cublasGemmEx_64" if count == 1 else "cublasGemmStridedBatchedEx_64",
            *(_on_current_stream(xp), left_by_columns, right_by_columns),
            *(left.shape[-1], right.shape[-2], a.shape[-1], ctypes.byref(one)),
            *(left.data.ptr, kind, *of_left[:parts]),
            *(right.data.ptr, kind, *of_right[:parts]),
            ctypes.byref(one if accumulate else zero),
            *(out.data.ptr, out_kind, *of_out[:parts]),
            *([] if count == 1 else [count]),
            *(sums, _DEFAULT_ALGORITHM),
        )


def _readable(xp, x, stack):
    """An operand, copied if cuBLAS cannot read it as it lies, and its layout."""
    if x.shape[:-2] != stack:
        x = xp.broadcast_to(x, (*stack, *x.shape[-2:]))
    layout = _layout(x)
    if layout is None:
        x = xp.ascontiguousarray(x)
        layout = _layout(x)
    return x, *layout


def _layout(x) -> tuple[bool, int, int] | None:
    """How the matrices of a stack lie: whether column by column, the step from row to row (or from
    column to column), and from matrix to matrix, in elements. None if not so simply."""
    rows, columns = x.shape[-2:]
    *outer, down, across = [stride // x.itemsize for stride in x.strides]
    step = _even_step(x.shape[:-2], outer) if outer else 0
    if step is None or step < 0:
        return None
    if (across == 1 or columns == 1) and (down >= columns or rows == 1):
        return False, columns if rows == 1 else down, step
    if (down == 1 or rows == 1) and (across >= rows or columns == 1):
        return True, rows if columns == 1 else across, step
    return None


def _even_step(shape, steps):
    """The step from matrix to matrix, last axis first; None if it is not always the same."""
    found = next_one = None
    for n, step in zip(reversed(shape), reversed(steps)):
        if n == 1:
            continue
        if found is None:
            found = step
        elif step != next_one:
            return None
        next_one = n * step
    return found or 0


# --- The library ----------------------------------------------------------------------------------


@functools.cache
def library() -> ctypes.CDLL:
    """libcublas, found as CuPy 14 finds it; a RuntimeError of one sentence if it is missing."""
    try:
        from cuda import pathfinder

        return ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)
    except Exception as error:  # pathfinder raises classes of its own
        pip = 'pip install "cupy-cuda13x[ctk]" (or "cupy-cuda12x[ctk]")'
        raise RuntimeError(
            f"matrix products on a GPU need cuBLAS, which is missing: {pip}"
        ) from error


@functools.cache
def _function(name):
    function = getattr(library(), name)
    function.argtypes, function.restype = _FUNCTIONS[name], _INT
    return function


def _call(name, *args):
    status = _function(name)(*args)
    if status:
        in_words = library().cublasGetStatusString
        in_words.argtypes, in_words.restype = [_INT], ctypes.c_char_p
        raise RuntimeError(f"cuBLAS: {name}: {in_words(status).decode()}")


class _Handle:
    """cuBLAS on one device."""

    def __init__(self) -> None:
        self.pointer, self.stream = _POINTER(), None
        # By the address of a stream, as several objects of CuPy may be one stream. They stay: a
        # graph that was captured may use one at any time.
        self.workspaces: dict[int, Any] = {}
        _call("cublasCreate_v2", ctypes.byref(self.pointer))
        _call("cublasSetMathMode", self.pointer, _FULL_SUMS)


_handles: dict[int, _Handle] = {}  # by device
_taking_turns = threading.Lock()  # for one thread at a time sets the stream of a handle and uses it


def _on_current_stream(xp: ModuleType) -> ctypes.c_void_p:
    """The handle for the current device, set to its current stream."""
    device, stream = xp.cuda.runtime.getDevice(), xp.cuda.get_current_stream().ptr
    handle = _handles.get(device)
    if handle is None:
        handle = _handles[device] = _Handle()
    if stream != handle.stream:
        if stream not in handle.workspaces:
            handle.workspaces[stream] = xp.empty(_WORKSPACE, np.uint8)
        workspace = handle.workspaces[stream].data.ptr
        _call("cublasSetStream_v2", handle.pointer, stream)  # which forgets the workspace
        _call("cublasSetWorkspace_v2", handle.pointer, workspace, _WORKSPACE)
        handle.stream = stream
    return handle.pointer
