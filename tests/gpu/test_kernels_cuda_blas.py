"""Products of CuPy arrays by cuBLAS, against NumPy's. On the double cuBLAS reads the addresses,
leading dimensions and steps that it is given, column by column."""

import sys
import threading
import types

import ml_dtypes
import numpy as np
import pytest
from double import blas

import tinygrad_bn as tg
from tinygrad_bn.kernels import cuda_blas
from tinygrad_bn.kernels.cuda_blas import library, product

pytestmark = pytest.mark.usefixtures("cupy")

# The dtype, and how far a product of numbers near 1 may be off.
DTYPES = {
    "float16": (np.dtype(np.float16), 2e-3),
    "bfloat16": (np.dtype(ml_dtypes.bfloat16), 2e-2),
    "float32": (np.dtype(np.float32), 1e-6),
    "float64": (np.dtype(np.float64), 1e-14),
}
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
SHAPES = [
    *(((3, 4), (4, 5)), ((1, 4), (4, 1)), ((5, 1), (1, 3)), ((1, 1), (1, 6))),
    *(((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,)), ((2, 3, 4), (4,)), ((4,), (2, 4, 3))),
    *(((2, 3, 4), (2, 4, 5)), ((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)), ((1, 3, 4), (2, 4, 5))),
    *(((2, 1, 3, 4), (3, 4, 5)), ((2, 3, 4, 2), (2, 3, 2, 4)), ((1, 1, 3, 4), (1, 4, 2))),
    *(((0, 4), (4, 5)), ((3, 4), (4, 0)), ((3, 0), (0, 5)), ((0, 3, 4), (0, 4, 5))),
    *(((2, 3, 0), (2, 0, 5)), ((0,), (0,)), ((0,), (0, 3))),
]
# What is seen of an array: how its matrices may lie.
VIEWS = {
    "as it is": lambda x: x,
    "transposed": lambda x: x.swapaxes(-1, -2),
    "rows with gaps": lambda x: x[..., ::2, :],
    "columns with gaps": lambda x: x.swapaxes(-1, -2)[..., ::2],
    "gaps both ways": lambda x: x[..., ::2, ::2],
    "backwards": lambda x: x[..., ::-1, :],
    "one row": lambda x: x[..., :1, :],
    "one column": lambda x: x[..., :1],
    "matrices backwards": lambda x: x[::-1] if x.ndim > 2 else x,
    "every second matrix": lambda x: x[::2] if x.ndim > 2 else x,
    "outer axes exchanged": lambda x: x.swapaxes(0, 1) if x.ndim > 3 else x,
}


@pytest.fixture
def numbers(cupy):
    """Arrays of these shapes: NumPy's in float64, and CuPy's."""
    generator = np.random.default_rng(0)

    def make(*shapes, dtype=np.float32):
        hosts = [generator.standard_normal(shape).astype(dtype) for shape in shapes]
        return [h.astype(np.float64) for h in hosts], [cupy.asarray(h) for h in hosts]

    return make


def assert_is(got, wanted, dtype):
    found, tolerance = DTYPES[dtype]
    assert (got.dtype, got.shape) == (found, np.shape(wanted))
    np.testing.assert_allclose(got.get().astype(float), wanted, rtol=tolerance, atol=3 * tolerance)


@every_dtype
@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_a_product_is_numpys(dtype, left, right, numbers):
    (a, b), (x, y) = numbers(left, right, dtype=DTYPES[dtype][0])
    assert_is(product(x, y), a @ b, dtype)


@pytest.mark.parametrize("stack", [(), (4,), (4, 3)], ids=str)
@pytest.mark.parametrize("right", VIEWS)
@pytest.mark.parametrize("left", VIEWS)
def test_operands_are_read_as_they_lie(left, right, stack, numbers):
    (a, b), (x, y) = numbers((*stack, 6, 6), (*stack, 6, 6))
    a, x, b, y = VIEWS[left](a), VIEWS[left](x), VIEWS[right](b), VIEWS[right](y)
    n = min(a.shape[-1], b.shape[-2])
    a, x, b, y = a[..., :n], x[..., :n], b[..., :n, :], y[..., :n, :]
    try:
        wanted = a @ b
    except ValueError:  # stacks that do not belong together
        with pytest.raises(ValueError, match="broadcast"):
            product(x, y)
        return
    assert_is(product(x, y), wanted, "float32")


@pytest.mark.parametrize(
    "views",
    ["as it is", "transposed", "rows with gaps", "columns with gaps", "every second matrix"],
)
@pytest.mark.parametrize("shape", [(6, 6), (4, 6, 6)], ids=str)
def test_nothing_is_copied_to_be_read(views, shape, numbers, kernels):
    _, (x, y) = numbers(shape, shape)
    x, y = VIEWS[views](x), VIEWS[views](y)
    y = y.swapaxes(-1, -2) if x.shape[-1] != y.shape[-2] else y
    assert kernels(lambda: product(x, y)) == 1


@pytest.fixture
def kernels(cupy):
    """How many kernels a call launches."""
    import double

    def count(call):
        before = double.stats["kernel"]
        call()
        return double.stats["kernel"] - before

    return count


def test_a_stack_of_rows_times_one_matrix_is_one_product(numbers, kernels):
    (a, b), (x, y) = numbers((2, 5, 3, 4), (6, 4))
    assert_is(product(x, y.T), a @ b.T, "float32")
    assert kernels(lambda: product(x, y.T)) == 1


# --- Into an array --------------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("view", ["as it is", "transposed", "rows with gaps", "columns with gaps"])
@pytest.mark.parametrize("stack", [(), (2,)], ids=str)
def test_out_is_written_and_added_to(dtype, view, stack, numbers):
    kind = DTYPES[dtype][0]
    (a, b, c), (x, y, memory) = numbers((*stack, 6, 4), (*stack, 4, 6), (*stack, 6, 6), dtype=kind)
    out, around = VIEWS[view](memory), c.copy()
    rows, columns = out.shape[-2:]
    x, y, wanted = x[..., :rows, :], y[..., :columns], (a[..., :rows, :] @ b[..., :columns])
    before = VIEWS[view](c).copy()
    assert product(x, y, out, accumulate=True) is out
    assert_is(out, before + wanted, dtype)
    product(x, y, out)
    assert_is(out, wanted, dtype)
    VIEWS[view](around)[...] = wanted
    assert_is(memory, around, dtype)  # what lies between the elements of out is as it was


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_short_floats_are_summed_in_float32(dtype, numbers, cupy):
    kind = DTYPES[dtype][0]
    ones = cupy.ones((1, 4096), np.float32).astype(kind)
    assert product(ones, ones.T).get() == 4096  # in their own dtype the sum would stand still
    sums = product(ones, ones.T + ones[:, :1] * 0, cupy.zeros((1, 1), np.float32), accumulate=True)
    assert (sums.dtype, float(sums[0, 0])) == (np.float32, 4096)


def test_what_is_empty_adds_nothing(cupy):
    out = cupy.ones((2, 3), np.float32)
    product(cupy.ones((2, 0), np.float32), cupy.ones((0, 3), np.float32), out, accumulate=True)
    assert (out == 1).all()
    product(cupy.ones((2, 0), np.float32), cupy.ones((0, 3), np.float32), out)
    assert (out == 0).all()


# --- What is not for cuBLAS -----------------------------------------------------------------------


def test_integers_and_two_dtypes(cupy):
    a, b = np.arange(6).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    for left, right in ((a, a.T), (a, b), (b.T, a.T.astype("f4")), (a[0], a[1])):
        got = product(cupy.asarray(left), cupy.asarray(right))
        assert got.dtype == (left @ right).dtype
        assert (got.get() == left @ right).all()


@pytest.mark.parametrize(
    ("shapes", "out", "message"),
    [
        (((3, 4), (5, 4)), None, r"product: got float32\[3, 4\] on cuda:0 and float32\[5, 4\]"),
        (((), (5, 4)), None, r"product: got float32\[\] on cuda:0 and"),
        (((2, 3, 4), (3, 4, 5)), None, "broadcast"),
        (((3, 4), (4, 5)), ((5, 3), "f4"), r"product: got out float32\[5, 3\] on cuda:0, wants"),
        (((3, 4), (4, 5)), ((3, 5), "f8"), r"product: got out float64\[3, 5\] on cuda:0, wants"),
    ],
)
def test_what_does_not_fit_is_told(shapes, out, message, numbers, cupy):
    _, operands = numbers(*shapes)
    with pytest.raises(ValueError, match=message):
        product(*operands, out=None if out is None else cupy.zeros(*out))


def test_an_out_with_gaps_both_ways_or_that_repeats_is_refused(numbers, cupy):
    _, (x, y) = numbers((3, 4), (4, 5))
    repeated = cupy.broadcast_to(cupy.zeros((3, 5), "f4"), (2, 3, 5))
    for left, out in ((x, cupy.zeros((6, 10), "f4")[::2, ::2]), (cupy.stack([x, x]), repeated)):
        with pytest.raises(ValueError, match=r"got out float32.* with strides"):
            product(left, y, out)


@pytest.mark.parametrize(
    ("strides", "allowed"),  # of two matrices of (3, 4): from one to the next, and from row to row
    [((12, 4), True), ((4, 8), True), ((8, 4), False), ((4, 4), False), ((3, 8), False)],
)
def test_matrices_of_the_answer_may_be_interleaved_but_share_no_element(
    strides, allowed, numbers, cupy
):
    """cuBLAS does not notice; the double does."""
    (a, b), (x, y) = numbers((2, 3, 5), (2, 5, 4))
    steps = [4 * step for step in (*strides, 1)]
    out = cupy.lib.stride_tricks.as_strided(cupy.zeros(24, np.float32), (2, 3, 4), steps)
    if allowed:
        assert_is(product(x, y, out), a @ b, "float32")
        return
    with pytest.raises(RuntimeError, match="Invalid: 2 matrices C that share an element"):
        product(x, y, out)


def test_a_failure_of_cublas_is_an_error_that_names_the_function(numbers, monkeypatch):
    _, (x, y) = numbers((3, 4), (4, 5))
    monkeypatch.setitem(cuda_blas._TYPES, "float32", (99, *cuda_blas._TYPES["float32"][1:]))
    with pytest.raises(RuntimeError, match="cuBLAS: cublasGemmEx_64: "):
        product(x, y)


# --- The library ----------------------------------------------------------------------------------


def test_the_ops_go_this_way(cupy, monkeypatch):
    monkeypatch.setattr(cupy, "matmul", None)
    monkeypatch.setattr(cupy, "dot", None)
    x, w = (tg.ones(4, 3, device="cuda", requires_grad=True) for _ in range(2))
    loss = (tg.functional.linear(x, w, tg.ones(4, device="cuda")) @ x).sum()
    loss.backward()
    assert (loss.item(), x.grad.tolist()[0], w.grad.tolist()[0]) == (
        192,
        [28, 28, 28],
        [12, 12, 12],
    )


def test_each_stream_has_its_workspace_and_a_product_runs_on_the_current_one(numbers, cupy):
    (a, b), (x, y) = numbers((3, 4), (4, 5))
    one, two = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    for stream in (one, two, one):
        with stream:
            out = product(x, y)
            stream.synchronize()
        assert cuda_blas._handles[0].stream == stream.ptr
        assert_is(out, a @ b, "float32")
    workspaces = cuda_blas._handles[0].workspaces
    assert workspaces[one.ptr].data.ptr != workspaces[two.ptr].data.ptr
    product(x, y)
    assert cuda_blas._handles[0].stream == cupy.cuda.get_current_stream().ptr


def test_a_stream_that_several_objects_are_keeps_its_workspace(numbers, cupy):
    """As one that another library made, and that is wrapped again for each step."""
    _, (x, y) = numbers((3, 4), (4, 5))
    found = set()
    cupy.cuda.Device().synchronize()
    for _ in range(3):
        wrapper = cupy.cuda.Stream(non_blocking=True)
        wrapper.ptr = 0x7777
        with wrapper:
            product(x, y)
            product(x, y)
        found.add(id(cuda_blas._handles[0].workspaces[0x7777]))
    assert len(found) == 1


def test_float32_is_summed_in_float32_with_the_workspace_that_is_advised(numbers):
    _, (x, y) = numbers((3, 4), (4, 5))
    product(x, y)
    handle = blas._handles[cuda_blas._handles[0].pointer.value]
    assert handle.mode == 16  # CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION, and no TF32
    assert handle.workspace_size == 32 << 20


def test_threads_share_a_handle_and_take_turns(numbers, cupy):
    (a, b), (x, y) = numbers((3, 4), (4, 5))
    product(x, y)
    cupy.cuda.Device().synchronize()
    handle, answers = cuda_blas._handles[0].pointer.value, []

    def multiply():
        with cupy.cuda.Stream(non_blocking=True) as stream:
            answers.append(product(x, y))
            stream.synchronize()

    threads = [threading.Thread(target=multiply) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cuda_blas._handles[0].pointer.value == handle
    for answer in answers:
        assert_is(answer, a @ b, "float32")


def test_a_product_can_be_captured_though_cupys_own_cannot(numbers, cupy):
    (a, b), (x, y) = numbers((3, 4), (4, 5))
    out, stream = cupy.zeros((3, 5), np.float32), cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    with stream:
        product(x, y)
        stream.begin_capture()
        product(x, y, out, accumulate=True)
        with pytest.raises(NotImplementedError, match="cuBLAS API during stream capture"):
            x @ y
        graph = stream.end_capture()
        assert (out == 0).all()
        graph.launch()
        x *= 2
        graph.launch()
        assert_is(out, 3 * (a @ b), "float32")


def test_the_same_bits_come_twice(numbers):
    _, (x, y) = numbers((50, 300), (300, 40))
    assert (product(x, y) == product(x, y)).all()


def test_the_library_is_found_where_cupy_finds_it(monkeypatch):
    asked = []
    found = types.SimpleNamespace(abs_path=None)  # for which ctypes gives this program itself
    loader = types.SimpleNamespace(load_nvidia_dynamic_lib=lambda name: asked.append(name) or found)
    monkeypatch.setitem(sys.modules, "cuda", types.SimpleNamespace(pathfinder=loader))
    assert library.__wrapped__()._name is None
    assert asked == ["cublas"]


def test_without_cublas_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda", None)
    with pytest.raises(RuntimeError, match=r"need cuBLAS, which is missing: pip install"):
        library.__wrapped__()
