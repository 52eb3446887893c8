"""CUDA source on the CPU: it computes what CUDA says, and what a GPU would not forgive is noticed.

Each planted kernel holds one mistake, of the kind that a GPU answers with wrong numbers, a crash or
nothing at all, some of the time.
"""

import subprocess

import double
import ml_dtypes
import numpy as np
import pytest
from double import raw

pytestmark = pytest.mark.usefixtures("cupy")

ORDERS = ("forward", "reverse", 1, 2)
RIGHT = r"""
#include <cuda_bf16.h>
#include <cuda_fp16.h>

KERNEL block_sums(const float *x, double *out, int n) {
  __shared__ double of_warps[8];
  double sum = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += x[blockIdx.x * n + i];
  #pragma unroll
  for (int d = 16; d; d >>= 1) sum += __shfl_down_sync(0xffffffff, sum, d);
  if (threadIdx.x % warpSize == 0) of_warps[threadIdx.x / warpSize] = sum;
  __syncthreads();
  if (threadIdx.x) return;
  for (int w = 1; w < blockDim.x / 32; w++) sum += of_warps[w];
  out[blockIdx.x] = sum;
}
KERNEL places(int *out) {
  int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] = 1000 * block + thread;
}
KERNEL shuffles(const int *x, int *out) {
  int lane = threadIdx.x, value = x[lane];
  out[lane] = __shfl_sync(0xffffffff, value, 3, 8);
  out[32 + lane] = __shfl_down_sync(0xffffffff, value, 5, 16);
  out[64 + lane] = __shfl_xor_sync(0xffffffff, value, 9);
  unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
  if (lane < 16) out[96 + lane] = __shfl_xor_sync(half, value, 1);
  else out[96 + lane] = __shfl_xor_sync(half, value, 2);
}
KERNEL through_the_warp(const int *x, int *out) {
  __shared__ int all[32];
  all[threadIdx.x] = x[threadIdx.x];
  __syncwarp();
  out[threadIdx.x] = all[31 - threadIdx.x];
}
KERNEL to_half(const float *x, __half *out, __nv_bfloat16 *brain, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x)
    out[i] = __float2half(x[i]), brain[i] = __float2bfloat16(x[i]);
}
KERNEL from_half(const __half *x, const __nv_bfloat16 *brain, float *out, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x)
    out[i] = __half2float(x[i]), out[n + i] = __bfloat162float(brain[i]);
}
KERNEL numbers(float *out, int n, long long m, float f, double d, bool b, const float *none) {
  out[0] = n, out[1] = m, out[2] = f, out[3] = d, out[4] = b, out[5] = none == nullptr;
}
KERNEL float4s(const float *x, float *out) {
  reinterpret_cast<float4 *>(out)[threadIdx.x] = reinterpret_cast<const float4 *>(x)[threadIdx.x];
}
"""
WRONG = r"""
#define ALL 0xffffffff
KERNEL missing_barrier(const float *x, float *out) {
  __shared__ float all[64];
  all[threadIdx.x] = x[threadIdx.x];
  out[threadIdx.x] = all[63 - threadIdx.x];
}
KERNEL missing_second_barrier(const float *x, float *out) {
  __shared__ float all[64];
  for (int turn = 0; turn < 2; turn++) {
    all[threadIdx.x] = x[threadIdx.x] + turn;
    __syncthreads();
    out[threadIdx.x + 64 * turn] = all[63 - threadIdx.x];
  }
}
KERNEL blocks_share(const float *x, float *out) { out[threadIdx.x] = x[threadIdx.x] + blockIdx.x; }

KERNEL barrier_in_a_branch(const float *x, float *out) { if (threadIdx.x < 40) __syncthreads(); }
KERNEL barrier_after_a_return(const float *x, float *out) {
  if (threadIdx.x == 63) return;
  __syncthreads();
}
KERNEL two_barriers(const float *x, float *out) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}
KERNEL shuffle_in_a_branch(const float *x, float *out) {
  float value = x[threadIdx.x];
  if (threadIdx.x < 20) out[threadIdx.x] = __shfl_xor_sync(ALL, value, 1);
}
KERNEL two_shuffles(const float *x, float *out) {
  float value = x[threadIdx.x];
  if (threadIdx.x % 2) out[threadIdx.x] = __shfl_xor_sync(ALL, value, 1);
  else out[threadIdx.x] = __shfl_xor_sync(ALL, value, 1) + 1;
}
KERNEL lane_outside_the_mask(const float *x, float *out) {
  float value = x[threadIdx.x];
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(0xffff, value, 16);
}
KERNEL caller_outside_the_mask(const float *x, float *out) {
  out[threadIdx.x] = __shfl_xor_sync(0xffff, x[threadIdx.x], 1);
}
KERNEL reads_behind(const float *x, float *out) { out[threadIdx.x] = x[threadIdx.x + 1]; }
KERNEL reads_before(const float *x, float *out) { out[threadIdx.x] = x[(int)threadIdx.x - 1]; }
KERNEL writes_behind(const float *x, float *out) { out[threadIdx.x + 65] = x[threadIdx.x]; }
KERNEL writes_const(const float *x, float *out) { const_cast<float *>(x)[threadIdx.x] = 0; }
KERNEL reads_null(const float *x, float *out) {
  const float *none = nullptr;
  if (threadIdx.x == 64) none = x;
  out[threadIdx.x] = none[threadIdx.x];
}
KERNEL beyond_shared(const float *x, float *out) {
  __shared__ float all[63], beside[64];
  all[threadIdx.x] = beside[threadIdx.x] = 1;
  out[threadIdx.x] = all[threadIdx.x / 2];
}
KERNEL unwritten_shared(const float *x, float *out) {
  __shared__ float all[64];
  if (threadIdx.x < 63) all[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = all[threadIdx.x];
}
KERNEL misaligned(const float *x, float *out) {
  if (threadIdx.x < 8)
    reinterpret_cast<float4 *>(out)[threadIdx.x] =
        *reinterpret_cast<const float4 *>(x + 3 * threadIdx.x);
}
KERNEL overflows(const float *x, float *out) {
  int large = 1 << 30;
  out[threadIdx.x] = x[threadIdx.x] + large * (threadIdx.x < 2 ? 1 : 2);
}
KERNEL divides_by_zero(const float *x, float *out) {
  out[threadIdx.x] = x[100 / (1 - (int)threadIdx.x / 63) % 64];
}
"""


@pytest.fixture(params=ORDERS)
def order(request):
    with double.order(request.param):
        yield request.param


RIGHT, WRONG = (
    code.replace("KERNEL", 'extern "C" __global__ void __launch_bounds__(256)')
    for code in (RIGHT, WRONG)
)


def run(code, kernel, grid, block, *args):
    import cupy

    args = [cupy.asarray(a) if isinstance(a, np.ndarray) else a for a in args]
    cupy.RawModule(code=code).get_function(kernel)(grid, block, tuple(args))
    return [a.get() for a in args if isinstance(a, cupy.ndarray)]


# --- What is right --------------------------------------------------------------------------------


def test_a_block_shares_memory_waits_and_shuffles(order):
    x = np.random.default_rng(0).standard_normal((5, 1001)).astype(np.float32)
    _, sums = run(RIGHT, "block_sums", (5,), (256,), x, np.zeros(5), np.int32(1001))
    np.testing.assert_allclose(sums, x.sum(1, dtype=np.float64), rtol=1e-13)


def test_each_thread_knows_its_place(order):
    (out,) = run(RIGHT, "places", (2, 3, 2), (4, 3, 5), np.zeros((12, 60), np.int32))
    assert np.array_equal(out, 1000 * np.arange(12)[:, None] + np.arange(60))


def test_shuffles_know_widths_and_masks(order):
    x, lane = np.random.default_rng(0).permutation(32).astype(np.int32), np.arange(32)
    _, out = run(RIGHT, "shuffles", (1,), (32,), x, np.zeros((4, 32), np.int32))
    assert np.array_equal(out[0], x[lane // 8 * 8 + 3])
    assert np.array_equal(out[1], x[np.where(lane % 16 < 11, lane + 5, lane)])
    assert np.array_equal(out[2], x[lane ^ 9])
    assert np.array_equal(out[3], x[np.where(lane < 16, lane ^ 1, lane ^ 2)])


def test_a_warp_waits_for_its_lanes(order):
    x = np.arange(32, dtype=np.int32)
    assert np.array_equal(run(RIGHT, "through_the_warp", (1,), (32,), x, 0 * x)[1], x[::-1])


HALVES = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


def test_every_half_becomes_the_same_float():
    bits = np.arange(65536, dtype=np.uint32).astype(np.uint16)
    out, n = np.zeros((2, 65536), np.float32), np.int32(65536)
    *_, out = run(RIGHT, "from_half", (1,), (256,), *map(bits.view, HALVES), out, n)
    np.testing.assert_array_equal(out, [bits.view(half).astype(np.float32) for half in HALVES])


def test_floats_round_to_the_nearest_half_ties_to_even():
    bits = np.random.default_rng(0).integers(0, 1 << 32, 20000, np.uint32)
    halves = np.arange(65536, dtype=np.uint32).astype(np.uint16)
    edges = [halves.view(half).astype(np.float32) for half in HALVES]
    with np.errstate(all="ignore"):
        ties = [(edge[:-1] + edge[1:]) / 2 for edge in edges]
        x = np.concatenate([bits.view(np.float32), *ties, *(np.nextafter(t, 0) for t in ties)])
        wanted = [x.astype(half) for half in HALVES]
    blank = [np.zeros(x.size, half) for half in HALVES]
    _, *got = run(RIGHT, "to_half", (1,), (256,), x, *blank, np.int32(x.size))
    for value, want in zip(got, wanted):
        np.testing.assert_array_equal(value.astype(np.float32), want.astype(np.float32))


def test_numbers_arrive_and_a_zero_of_64_bits_is_null():
    numbers = np.int32(-3), np.int64(1 << 40), np.float32(0.5), 0.25, True, np.int64(0)
    (out,) = run(RIGHT, "numbers", (1,), (1,), np.zeros(6, np.float32), *numbers)
    assert out.tolist() == [-3, 1 << 40, 0.5, 0.25, 1, 1]


# --- What is wrong --------------------------------------------------------------------------------


def run_wrong(kernel, grid=(1,)):
    """The kernel's output, from 64 numbers that lie between others which it must not touch."""
    import cupy

    x, out = cupy.zeros(3 * 64, np.float32), cupy.zeros(5 * 64, np.float32)
    code = cupy.RawModule(code=WRONG)
    x[64:128] = cupy.arange(64, dtype=np.float32)
    code.get_function(kernel)(grid, (64,), (x[64:128], out[64:192]))
    return out.get()


@pytest.mark.parametrize(
    ("kernel", "grid"),
    [("missing_barrier", 1), ("missing_second_barrier", 1), ("blocks_share", 3)],
)
def test_what_depends_on_the_order_shows(kernel, grid):
    results = set()
    for order in ORDERS:
        with double.order(order):
            results.add(run_wrong(kernel, (grid,)).tobytes())
    assert len(results) > 1


WAITS = r"stuck; of its threads "
PROBLEMS = {
    "barrier_in_a_branch": WAITS + r"24 returned, 40 wait at __syncthreads in source:\d+$",
    "barrier_after_a_return": WAITS + r"1 returned, 63 wait at __syncthreads",
    "two_barriers": WAITS + r"32 wait at __syncthreads in source:\d+, 32 wait at __syncthreads in",
    "shuffle_in_a_branch": WAITS + r"\d+ returned, 20 wait for lanes of their warp in source:\d+$",
    "two_shuffles": r"waits for lanes 0xffffffff in source:\d+, and lane \d+ for lanes 0xffffffff",
    "lane_outside_the_mask": r"reads lane \d+ in source:\d+, outside its mask",
    "caller_outside_the_mask": r"is not in the mask 0xffff of source:\d+",
    "reads_behind": r"thread \(63, 0, 0\) reads 4 bytes that lie behind argument 0",
    "reads_before": r"thread \(0, 0, 0\) reads 4 bytes that lie before argument 0",
    "writes_behind": r"thread \(63, 0, 0\) writes 4 bytes that lie behind argument 1",
    "writes_const": r"writes 4 bytes into argument 0, which is const",
    "reads_null": r"reads 4 bytes at the address 0",
    "beyond_shared": r"thread \(63, 0, 0\) uses an index beyond its array in source:\d+",
    "misaligned": r"reads or writes at an address that is not aligned in source:\d+",
    "overflows": r"overflows an integer by multiplying in source:\d+",
    "divides_by_zero": r"thread \(63, 0, 0\) divides an integer by zero in source:\d+",
}


@pytest.mark.parametrize("kernel", PROBLEMS)
def test_a_planted_mistake_is_noticed(kernel, order):
    with pytest.raises(double.KernelError, match=f"^{kernel}: block .*{PROBLEMS[kernel]}"):
        run_wrong(kernel)
    x = np.ones((1, 9), np.float32)  # and the next kernel runs as ever
    assert run(RIGHT, "block_sums", (1,), (64,), x, np.zeros(1), np.int32(9))[1] == 9


def test_shared_memory_begins_as_nan():
    assert np.isnan(run_wrong("unwritten_shared")[64:192]).sum() == 1


# --- How it is called -----------------------------------------------------------------------------

X = np.ones((1, 9), np.float32)
N = np.int32(9)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((X, np.zeros(1)), "2 arguments for 3"),
        ((X, np.zeros(1), N, N), "4 arguments for 3"),
        ((X, np.zeros(1), 9), "got int64 for the parameter 'int32'"),
        ((X, np.zeros(1), 9.0), "got float64 for the parameter 'int32'"),
        ((X, np.zeros(1), np.float32(9)), "got float32 for the parameter 'int32'"),
        ((X, np.zeros(1, np.float32), N), r"got float32\* for the parameter 'float64\*'"),
        (
            (X.astype(np.float16), np.zeros(1), N),
            r"got float16\* for the parameter 'const float32\*'",
        ),
        ((X, None, N), "None is no NULL"),
        ((X, np.int64(4096), N), "got int64 for the parameter"),
        ((X, np.int32(0), N), "got int32 for the parameter"),
        ((X, np.zeros(1), np.zeros(1, np.int32)), r"got int32\* for the parameter 'int32'"),
    ],
)
def test_arguments_that_cuda_would_misread_are_noticed(arguments, problem):
    with pytest.raises(double.KernelError, match=f"^block_sums: {problem}"):
        run(RIGHT, "block_sums", (1,), (32,), *arguments)


@pytest.mark.parametrize(
    ("grid", "block"), [((1,), (257,)), ((1,), (2, 4, 33)), ((1, 65536), (1,)), ((2**31,), (1,))]
)
def test_a_launch_that_the_device_would_refuse_is_refused(grid, block):
    with pytest.raises(double.KernelError, match="CUDA_ERROR_INVALID_VALUE"):
        run(RIGHT, "block_sums", grid, block, X, np.zeros(1), N)


def test_a_grid_of_no_blocks_runs_as_one_of_one():
    assert run(RIGHT, "block_sums", (0,), (32,), X, np.zeros(1), N)[1] == 9


def test_a_launch_is_one_event_and_reaches_the_current_device_only(cupy):
    args = cupy.asarray(X), cupy.zeros(1), N
    kernel = cupy.RawModule(code=RIGHT).get_function("block_sums")
    double.stats.clear()
    with double.forbid("h2d", "d2h", "sync"):
        kernel((1,), (32,), args)
    assert double.stats == {"kernel": 1}
    with (
        pytest.raises(double.ForbiddenTransfer, match="kernel: block_sums"),
        double.forbid("kernel"),
    ):
        kernel((1,), (32,), args)
    with pytest.raises(ValueError, match="on device 0, the current one is 1"), cupy.cuda.Device(1):
        kernel((1,), (32,), args)


def test_what_does_not_compile_says_where(cupy):
    with pytest.raises(double.KernelError, match=r"source:2:.*nothing"):
        cupy.RawModule(code="\nint x = nothing;").get_function("kernel")
    with pytest.raises(RuntimeError, match="CUDA_ERROR_NOT_FOUND"):
        cupy.RawModule(code=RIGHT).get_function("kernel")


def test_a_source_is_compiled_once_for_all_processes(tmp_path, monkeypatch):
    commands, really = [], subprocess.run
    monkeypatch.setattr(raw, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: commands.append(a) or really(*a, **k))
    first = raw._built("int one = 1;", ["-fPIC", "-x", "c++"])
    assert len(commands) == 2  # to compile, and to link
    assert raw._built("int one = 1;", ["-fPIC", "-x", "c++"]) == first
    assert raw._built("int one = 2;", ["-fPIC", "-x", "c++"]) != first
    assert len(commands) == 4
    assert sorted((tmp_path / "cache").iterdir()) == sorted({first, *tmp_path.glob("*/*.so")})


def test_without_a_compiler_the_test_is_skipped_and_says_why(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(raw, "_compiler", raw._compiler.__wrapped__)
    with pytest.raises(pytest.skip.Exception, match=r"it takes g\+\+ on Linux"):
        raw._built("", [])
