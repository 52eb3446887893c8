"""Convolution on CuPy arrays, run on the CPU: against NumPy in float64, and what it takes."""

import double
import ml_dtypes
import numpy as np
import pytest
from helpers import LAYOUTS, grid, laid_out
from test_kernels_conv import CASES, assert_near, how

import tinygrad_bn as tg
from tinygrad_bn.backend import to_device
from tinygrad_bn.check import gradcheck, gradgradcheck
from tinygrad_bn.kernels import array_conv, cuda_conv, cuda_windows

pytestmark = pytest.mark.usefixtures("cupy")

WIDE = {  # so wide that rows overlap
    "wide": ((2, 3, 5, 37), (4, 3, 3, 3), how(padding=1)),
    "wide, stride": ((2, 3, 5, 64), (4, 3, 3, 5), how((1, 2), ((1, 0), (2, 3)), (2, 1))),
    "wide, larger stride": ((1, 3, 33, 34), (5, 3, 2, 3), how((4, 5))),
    "wide, padding before": ((2, 2, 40), (3, 2, 5), how(padding=((6, 0),), rank=1)),
    "wide, padding behind": ((2, 2, 40), (3, 2, 5), how(3, ((0, 6),), rank=1)),
    "wide, many channels": ((2, 37, 3, 24), (34, 37, 1, 3), how(padding=(0, 1))),
    "wide, three axes": ((2, 2, 3, 3, 30), (3, 2, 2, 2, 3), how((2, 1, 2), 1, (1, 2, 1), rank=3)),
    "patches": ((2, 3, 32, 32), (5, 3, 4, 4), how(4)),
    "wide, dilation": ((2, 3, 30), (4, 3, 3), how(padding=2, dilation=2, rank=1)),
}
MORE = {
    "more padding than kernel": ((2, 3, 7, 7), (4, 3, 3, 3), how((1, 2), 4)),
    "1 × 1, stride": ((2, 3, 6, 5), (4, 3, 1, 1), how(2)),
    "1 × 1, groups": ((2, 4, 3, 5), (6, 2, 1, 1), how(groups=2)),
    "two filters a channel": ((2, 3, 9, 8), (6, 1, 3, 3), how(2, 1, (1, 2), groups=3)),
    "a stride that the dilation shares": ((1, 2, 15), (2, 2, 3), how(6, 3, 4, rank=1)),
}
ALL = {name: case for name, case in (CASES | WIDE | MORE).items() if 0 not in case[0]}
every_case = pytest.mark.parametrize(("x", "weight", "how"), ALL.values(), ids=ALL)
DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32}


def arrays(x, weight, how, dtype=np.float64):
    """x, weight, bias and g for these shapes, in this dtype."""
    g = (x[0], weight[0], *array_conv.windows(x[2:], weight[2:], *list(how.values())[:3])[0])
    shapes = (x, weight, weight[:1], g)
    return [grid(shape, seed=seed).astype(dtype) for seed, shape in enumerate(shapes)]


def convolved(module, x, weight, bias, g, how):
    """What a module makes of them: the convolution, and its gradients at x and weight."""
    return [
        module.convolve(x, weight, bias, **how),
        module.convolve_input(g, weight, shape=x.shape, **how),
        module.convolve_weight(x, g, shape=weight.shape, **how),
    ]


def on_gpu(*values):
    with tg.device("cuda"):
        return [None if value is None else to_device(value, "cuda") for value in values]


def assert_convolves(x, weight, how):
    plain = arrays(x, weight, how)
    wanted = convolved(array_conv, *plain, how)
    device = on_gpu(*plain)
    with double.forbid("h2d", "d2h", "sync"):
        got = convolved(cuda_conv, *device, how)
    for one, other in zip(got, wanted):
        assert one.flags.c_contiguous
        assert one.shape == other.shape
        assert_near(one.get(), other, plain[3].size)


@every_case
def test_a_convolution_and_its_gradients_are_numpys(x, weight, how):
    assert_convolves(x, weight, how)


@pytest.mark.parametrize(("scratch", "parts"), [(1, 5), (50_000, 3), (1 << 28, 1)])
def test_some_images_at_a_time_give_the_same(scratch, parts, monkeypatch):
    monkeypatch.setattr(cuda_conv, "SCRATCH", scratch)
    case = (5, 3, 6, 37), (4, 3, 3, 3), how(padding=1)
    x, weight, bias, _ = on_gpu(*arrays(*case))
    double.stats.clear()
    cuda_conv.convolve(x, weight, bias, **case[2])
    assert double.stats["kernel"] == 1 + 3 * parts  # the weight, and for each part
    assert_convolves(*case)


@every_case
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_sums_are_in_float32_and_rounded_once(x, weight, how, dtype):
    plain = arrays(x, weight, how, dtype)
    wanted = convolved(array_conv, *[a.astype(np.float64) for a in plain], how)
    for got, exact in zip(convolved(cuda_conv, *on_gpu(*plain), how), wanted):
        assert got.dtype == dtype
        rounding = float(ml_dtypes.finfo(dtype).eps) / 2
        of_sums = 1e-6 * np.max(np.abs(exact))
        np.testing.assert_allclose(
            got.get().astype(np.float64), exact, rtol=1.01 * rounding, atol=of_sums
        )


@pytest.mark.parametrize("case", [CASES["padding"], WIDE["wide"], CASES["1 × 1"]], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_order_in_memory_changes_nothing(layout, case):
    plain = arrays(*case)
    with tg.device("cuda"):
        device = [laid_out(a, layout) for a in plain]
    for got, wanted in zip(
        convolved(cuda_conv, *device, case[2]), convolved(cuda_conv, *on_gpu(*plain), case[2])
    ):
        np.testing.assert_array_equal(got.get(), wanted.get())


@pytest.mark.parametrize("order", ["reverse", 1, 2])
def test_the_order_of_threads_changes_nothing(order):
    for case in (WIDE["wide, stride"], MORE["two filters a channel"], CASES["groups"]):
        device = on_gpu(*arrays(*case, dtype=np.float32))
        forward = convolved(cuda_conv, *device, case[2])
        with double.order(order):
            again = convolved(cuda_conv, *device, case[2])
        for one, other in zip(forward, again):
            np.testing.assert_array_equal(one.get(), other.get())


# --- What it takes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "launches"),
    [
        (WIDE["wide"], (4, 4, 6)),
        (CASES["as they come"], (4, 4, 4)),
        (CASES["1 × 1"], (2, 1, 4)),
        (CASES["a channel a group"], (1, 1, 1)),
    ],
    ids=["rows that overlap", "rows that do not", "1 × 1", "a channel a group"],
)
def test_launches_are_few(case, launches):
    """Images to rows, the weight beside them, a product, and back; at the weight x and g to rows, a
    product for each of the cells that a row goes over, and one copy."""
    x, weight, bias, g = on_gpu(*arrays(*case))
    calls = (
        lambda: cuda_conv.convolve(x, weight, bias, **case[2]),
        lambda: cuda_conv.convolve_input(g, weight, shape=x.shape, **case[2]),
        lambda: cuda_conv.convolve_weight(x, g, shape=weight.shape, **case[2]),
    )
    counted = []
    for call in calls:
        double.stats.clear()
        call()
        counted.append(double.stats["kernel"])
    assert tuple(counted) == launches


@pytest.fixture
def allocated(cupy, monkeypatch):
    """The bytes of each array that `cupy.empty` made."""
    made, empty = [], cupy.empty

    def recorded(*args, **kwargs):
        array = empty(*args, **kwargs)
        made.append(array.nbytes)
        return array

    monkeypatch.setattr(cupy, "empty", recorded)
    return made


def test_rows_and_products_take_no_more_than_scratch(allocated, monkeypatch):
    monkeypatch.setattr(cuda_conv, "SCRATCH", 40_000)
    for name in ("wide", "wide, stride", "patches"):
        (n, *sizes), weight, options = WIDE[name]
        x, weight, _, g = on_gpu(*arrays((7 * n, *sizes), weight, options))
        allocated.clear()
        out = cuda_conv.convolve(x, weight, None, **options)
        _, *others = allocated  # cells, products, cells, products, …
        assert allocated[0] == out.nbytes
        assert 40_000 / 2 < max(map(sum, zip(others[::2], others[1::2]))) <= 40_000
        allocated.clear()
        cuda_conv.convolve_weight(x, g, shape=weight.shape, **options)
        assert max(map(sum, zip(allocated[1::2], allocated[2::2]))) <= 40_000


def test_rows_that_overlap_hold_the_image_once_for_each_line_of_the_kernel(allocated):
    x, weight, _, _ = on_gpu(*arrays((2, 3, 56, 56), (4, 3, 3, 3), how(padding=1)))
    cuda_conv.convolve(x, weight, None, **how(padding=1))
    assert 3 * x.nbytes < allocated[1] < 3.1 * x.nbytes


@pytest.mark.parametrize(
    ("sizes", "options", "overlap"),
    [
        ((56, 56), how(padding=1), True),
        ((56, 56), how(2, 1), True),
        ((14, 14), how(padding=1), True),
        ((7, 7), how(padding=1), False),  # 9 rows for each 7 windows
        ((56, 56), how(dilation=2), False),
        ((56, 56), how(padding=1, groups=2), False),
    ],
    ids=str,
)
def test_rows_overlap_where_few_are_in_vain(sizes, options, overlap):
    options = options | {"may_overlap": options["groups"] == 1}
    del options["groups"]
    assert (cuda_conv._rows(sizes, (3, 3), **options).span == 3) == overlap


# --- Beside the kernels ---------------------------------------------------------------------------


def test_an_infinity_reaches_the_windows_that_meet_it_and_no_others():
    x, weight, _, _ = arrays(*WIDE["wide"])
    x[1, 2, 0, 36] = x[0, 0, 4, 0] = np.inf
    wanted = array_conv.convolve(x, weight, None, **how(padding=1))
    got = cuda_conv.convolve(*on_gpu(x, weight, None), **how(padding=1)).get()
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(wanted))
    assert np.isfinite(got).sum() == got.size - 2 * 4 * 4


def test_first_and_second_derivatives_through_the_op():
    options = how(2, 1, rank=1)
    with tg.device("cuda"):
        x, weight, _, _ = arrays((1, 2, 5), (2, 2, 3), options)
        args = [tg.tensor(a, requires_grad=True) for a in (x, weight)]

    def squared(x, weight):
        return tg.ops.convolution(x, weight, None, **options) ** 2

    assert gradcheck(squared, args, atol=1e-7, rtol=1e-6)
    assert gradgradcheck(squared, args, atol=1e-6, rtol=1e-6)


def test_the_gradient_at_the_bias_is_a_sum():
    for shape in ((3, 2, 5, 4), (4, 3, 7), (0, 3, 2, 2)):
        (g,) = on_gpu(grid(shape).astype(np.float16))
        got, exact = cuda_conv.channel_sums(g), g.get().astype(np.float64)
        exact = exact.sum(axis=(0, *range(2, exact.ndim)))
        assert got.dtype == np.float16
        np.testing.assert_allclose(got.get(), exact, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("x", "weight", "options"),
    [
        ((0, 2, 4, 4), (3, 2, 2, 2), how()),
        ((1, 2, 2, 3, 2, 2), (2, 2, 1, 2, 1, 1), how(rank=4)),
    ],
    ids=["no image", "four axes"],
)
def test_what_the_kernels_do_not_know_goes_to_the_formula(x, weight, options):
    plain = arrays(x, weight, options)
    x, weight, bias, g = on_gpu(*plain)
    assert cuda_conv.convolve(x, weight, bias, **options) is NotImplemented
    got = [
        tg.ops.convolution(x, weight, bias, **options),
        tg.ops.convolution_input(g, weight, shape=x.shape, **options),
        tg.ops.convolution_weight(x, g, shape=weight.shape, **options),
    ]
    for one, other in zip(got, convolved(array_conv, *plain, options)):
        np.testing.assert_allclose(one.get(), other, rtol=1e-13)


def test_sizes_that_32_bits_do_not_count_are_refused():
    with pytest.raises(ValueError, match=r"windows: got \(2147483647,\), .* less than 2³¹ places"):
        cuda_windows.geometry((2**31 - 1,), (2,), (1,), ((1, 0),), (1,))
    assert cuda_windows.geometry((2**31 - 2,), (2,), (1,), ((0, 0),), (1,))[0] == (2**31 - 3,)
