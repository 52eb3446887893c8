"""`launch`: a CUDA kernel gets the arguments that it is declared with, or the caller an error."""

import double
import ml_dtypes
import numpy as np
import pytest

from tinygrad_bn.kernels import cuda

SOURCE = """
#include <cuda_bf16.h>
#include <cuda_fp16.h>

struct alignas(WIDTH * sizeof(T)) Pack { T value[WIDTH]; }; /* a comment, */ // and another

// A comment: extern "C" __global__ void unknown(short s)
extern "C" __global__ void __launch_bounds__(64) repeat(
    const T *x, // what is repeated
    A* out, const unsigned char * __restrict__ skipped, int n, long long offset, A factor) {
  const Pack *packs = reinterpret_cast<const Pack *>(x);
  for (int i = threadIdx.x; i < n / WIDTH; i += blockDim.x)
    for (int j = 0; j < WIDTH; j++) {
      long long place = blockIdx.x * (long long)n + i * WIDTH + j;
      bool skip = skipped && skipped[i * WIDTH + j];
      out[offset + place] = skip ? A(0) : A(factor * A(NUMBER(packs[i].value[j])));
    }
}

extern "C" __global__ void odd(short s) {}
"""
NUMBERS = {"float16": "__half2float", "bfloat16": "__bfloat162float"}
FLOAT32 = np.dtype(np.float32)
DTYPES = [FLOAT32, *map(np.dtype, (np.float64, np.float16, ml_dtypes.bfloat16))]


@pytest.fixture(autouse=True)
def source(monkeypatch, cupy):
    monkeypatch.setattr(cuda, "source_text", lambda source: SOURCE)
    monkeypatch.setattr(cuda, "_kernels", {})


def repeat(*args, grid=1, threads=64, dtype=FLOAT32, width=4):
    defines = {"WIDTH": width, "NUMBER": NUMBERS.get(dtype.name, "A")}
    cuda.launch("some", "repeat", grid, threads, *args, dtype=dtype, **defines)


@pytest.fixture
def x(cupy):
    return cupy.arange(8, dtype=np.float32)


@pytest.fixture
def out(cupy):
    return cupy.zeros(32, np.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [1, 2])
def test_a_kernel_is_compiled_for_each_dtype_and_width(dtype, width, cupy):
    beside = np.float64 if dtype == np.float64 else np.float32
    x, out = cupy.asarray(np.arange(8).astype(dtype)), cupy.zeros(32, beside)
    skipped = cupy.asarray(np.arange(8) == 3).view(np.uint8)
    repeat(x, out, skipped, 8, 5, 0.5, grid=(3,), threads=(4, 1), dtype=dtype, width=width)
    once = [0, 0.5, 1, 0, 2, 2.5, 3, 3.5]
    assert out.tolist() == [0] * 5 + once * 3 + [0] * 3


def test_a_launch_neither_copies_nor_waits_and_none_is_null(x, out):
    double.stats.clear()
    repeat(x, out, None, np.int64(8), 0, np.float32(2))
    assert double.stats == {"kernel": 1}
    assert out[:8].tolist() == [0, 2, 4, 6, 8, 10, 12, 14]


def test_the_kernel_and_its_declaration_are_looked_up_once(x, out, monkeypatch):
    repeat(x, out, None, 8, 0, 1.0)
    monkeypatch.setattr(cuda, "source_text", None)
    repeat(x, out, None, 8, 0, 2.0)
    assert out[7].item() == 14


REFUSED = [  # in the place of an argument that fits
    (0, "x.astype('f8')", TypeError, r"x: got float64\[8\] on cuda:0, wants .* float32"),
    (1, "out.astype('f2')", TypeError, r"out: got float16\[32\] on cuda:0, wants .* float32"),
    (0, "x.get()", TypeError, r"x: got float32\[8\], wants a CuPy array of float32"),
    (0, "3.5", TypeError, "x: got 3.5, wants a CuPy array of float32"),
    (0, "out[::2]", ValueError, r"x: got .* with strides \(8,\), wants it C-contiguous"),
    (1, "out.reshape(4, 8).T", ValueError, "out: got .* wants it C-contiguous"),
    (0, "cupy.broadcast_to(x[:1], (8,))", ValueError, "x: got .* wants it C-contiguous"),
    (0, "out[1:9]", ValueError, "x: got .* at 0x.*, wants an address divisible by 16"),
    (0, "far", ValueError, "x: got .* on cuda:1, wants an array on the current device, cuda:0"),
    (3, "2**31", ValueError, "n: got 2147483648, which is too large for int32"),
    (3, "np.int64(-(2**31) - 1)", ValueError, "n: got -2147483649, which is too large for int32"),
    (4, "2**63", ValueError, "offset: got 9223372036854775808, which is too large for int64"),
    (3, "8.0", TypeError, "n: got 8.0, wants a number for int32"),
    (3, "None", TypeError, "n: got None, wants a number for int32"),
    (3, "cupy.asarray(8)", TypeError, r"n: got int64\[\] on cuda:0, wants a number for int32"),
    (5, "x[0]", TypeError, r"factor: got float32\[\] on cuda:0, wants a number for float32"),
    (5, "'1'", TypeError, "factor: got '1', wants a number for float32"),
]


@pytest.mark.parametrize(("place", "expression", "kind", "message"), REFUSED)
def test_an_argument_that_does_not_fit_is_refused(place, expression, kind, message, cupy, x, out):
    with cupy.cuda.Device(1):
        far = cupy.zeros(8, np.float32)
    args = [x, out, None, 8, 0, 1.0]
    args[place] = eval(expression, {"cupy": cupy, "np": np, "x": x, "out": out, "far": far})
    with double.forbid("h2d", "d2h", "sync", "kernel"), pytest.raises(kind, match=message):
        repeat(*args)


@pytest.mark.parametrize(
    ("args", "how", "message"),
    [
        (5, {}, "repeat: got 5 arguments, wants 6"),
        (7, {}, "repeat: got 7 arguments, wants 6"),
        (6, {"threads": 65}, r"got \(65,\) threads, wants 1 to 64"),
        (6, {"threads": (2, 33)}, r"got \(2, 33\) threads, wants 1 to 64"),
        (6, {"threads": 0}, r"got \(0,\) threads"),
        (6, {"grid": 0}, r"got a grid of \(0,\)"),
        (6, {"grid": (1, 65536)}, r"got a grid of \(1, 65536\)"),
        (6, {"grid": 2**31}, r"got a grid of \(2147483648,\)"),
    ],
)
def test_a_launch_of_the_wrong_size_is_refused(args, how, message, x, out):
    given = [x, out, None, 8, 0, 1.0, 1.0][:args]
    with double.forbid("kernel"), pytest.raises((TypeError, ValueError), match=message):
        repeat(*given, **how)


def test_what_no_kernel_can_be_made_of_is_refused(x, out):
    def launch(kernel, *args, dtype):
        cuda.launch("some", kernel, 1, 1, *args, dtype=dtype, WIDTH=1, NUMBER="A")

    with pytest.raises(
        ValueError, match=r"some.cu: got the kernel unknown, wants one of \['repeat'"
    ):
        launch("unknown", x, dtype=x.dtype)
    with pytest.raises(TypeError, match="odd: the parameter 'short s' has none of the types"):
        launch("odd", x, dtype=x.dtype)
    with pytest.raises(TypeError, match=r"dtype: got int64, wants one of float16, bfloat16"):
        launch("repeat", x, dtype=np.dtype(np.int64))
    double.uninstall()
    with pytest.raises(TypeError, match="repeat: got no CuPy array among its arguments"):
        launch("repeat", np.zeros(3, np.float32), dtype=np.dtype(np.float32))


def test_the_text_of_a_source_holds_what_it_includes(monkeypatch, tmp_path):
    (tmp_path / "some.cu").write_text('first\n#include "part.cuh"\n#include <math.h>\n')
    (tmp_path / "part.cuh").write_text("inside\n")
    monkeypatch.undo()
    monkeypatch.setattr(cuda, "__file__", str(tmp_path / "cuda.py"))
    assert cuda.source_text("some").split("\n") == [
        *('#line 1 "some.cu"', "first", '#line 1 "part.cuh"', "inside"),
        *('#line 3 "some.cu"', "#include <math.h>"),
    ]


def test_multiprocessors_are_asked_for_once_for_each_device(cupy, monkeypatch):
    assert cuda.multiprocessors(cupy) == 4
    monkeypatch.setattr(cupy.cuda, "Device", None)
    assert cuda.multiprocessors(cupy) == 4
