"""Max pooling on CuPy arrays, run on the CPU: against NumPy; and what it takes."""

import double
import ml_dtypes
import numpy as np
import pytest
from helpers import LAYOUTS, grid, laid_out, leaf
from test_kernels_conv import POOLS, some_with_nan

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn.backend import to_device
from tinygrad_bn.check import gradcheck, gradgradcheck
from tinygrad_bn.kernels import array_conv, cuda_pool

pytestmark = pytest.mark.usefixtures("cupy")

DTYPES = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
    "float64": np.float64,
}
ONE_AXIS = {"kernel": (3,), "stride": (2,), "padding": ((2, 0),), "dilation": (1,)}
THREE_AXES = {
    "kernel": (2, 1, 3),
    "stride": (1, 2, 2),
    "padding": ((1, 0), (0, 0), (1, 1)),
    "dilation": (2, 1, 1),
}
LAYERS = {
    **{name: ((3, 5, 6, 7), how) for name, how in POOLS.items()},
    "one axis": ((3, 5, 42), ONE_AXIS),
    "three axes": ((3, 5, 3, 2, 7), THREE_AXES),
    "windows in the padding": ((3, 5, 42), ONE_AXIS | {"padding": ((7, 8),)}),
    "one value": ((630, 1, 1), ONE_AXIS | {"kernel": (1,), "padding": ((0, 0),)}),
}
every_layer = pytest.mark.parametrize(("shape", "how"), LAYERS.values(), ids=LAYERS)


def on_gpu(array):
    return to_device(array, "cuda")


def images(shape, dtype=np.float32):
    """Numbers of which some are equal, some infinite, some NaN."""
    return some_with_nan(5).reshape(shape).astype(dtype)


def gradient(shape, dtype=np.float32):
    """Whole numbers, whose sums are exact in every dtype."""
    return np.random.default_rng(1).integers(-9, 10, shape).astype(dtype)


@every_layer
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_maxima_and_their_gradient_are_numpys(shape, how, dtype):
    x = images(shape, dtype)
    wanted, places = array_conv.max_pool(x.astype(np.float64), **how)
    g = gradient(wanted.shape, dtype)
    wanted_gradient = array_conv.max_unpool(g.astype(np.float64), places, shape=shape, **how)
    x, g = on_gpu(x), on_gpu(g)
    with double.forbid("h2d", "d2h", "sync"):
        double.stats.clear()
        values, where = cuda_pool.max_pool(x, **how)
        assert double.stats["kernel"] == 1
        at_x = cuda_pool.max_unpool(g, where, shape=shape, **how)
        assert double.stats["kernel"] == 2
    assert values.dtype == at_x.dtype == dtype
    np.testing.assert_array_equal(where.get(), places, strict=True)
    np.testing.assert_array_equal(values.get().astype(np.float64), wanted)
    np.testing.assert_array_equal(at_x.get().astype(np.float64), wanted_gradient)


@pytest.mark.parametrize("order", ["reverse", 1, 2])
@pytest.mark.parametrize("name", ["overlapping", "three axes"])
def test_the_order_of_threads_changes_nothing(name, order):
    shape, how = LAYERS[name]
    x = on_gpu(images(shape))
    values, where = cuda_pool.max_pool(x, **how)
    g = on_gpu(np.random.default_rng(2).standard_normal(values.shape).astype(np.float32))
    answers = [values, where, cuda_pool.max_unpool(g, where, shape=shape, **how)]
    with double.order(order):
        again = [*cuda_pool.max_pool(x, **how), cuda_pool.max_unpool(g, where, shape=shape, **how)]
    for one, other in zip(answers, again):
        np.testing.assert_array_equal(one.get(), other.get())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_order_in_memory_changes_nothing(layout):
    how = POOLS["overlapping"]
    x = images((3, 5, 6, 7))
    wanted, places = array_conv.max_pool(x, **how)
    g = gradient(wanted.shape)
    with tg.device("cuda"):
        values, where = cuda_pool.max_pool(laid_out(x, layout), **how)
        at_x = cuda_pool.max_unpool(laid_out(g, layout), where, shape=x.shape, **how)
    np.testing.assert_array_equal(values.get(), wanted)
    np.testing.assert_array_equal(
        at_x.get(), array_conv.max_unpool(g, places, shape=x.shape, **how)
    )


def test_more_windows_than_threads_in_a_block():
    x = np.random.default_rng(3).standard_normal((2, 1, 40, 41)).astype(np.float32)
    values, where = cuda_pool.max_pool(on_gpu(x), **POOLS["overlapping"])
    wanted, places = array_conv.max_pool(x, **POOLS["overlapping"])
    assert wanted.size > 10 * 256
    np.testing.assert_array_equal(values.get(), wanted)
    np.testing.assert_array_equal(where.get(), places)


def test_first_and_second_derivatives_through_the_op():
    with tg.device("cuda"):
        x = leaf(grid((1, 2, 6)))

    def squared(x):
        return F.max_pool1d(x, 3, 2, 1) ** 2

    assert gradcheck(squared, [x], atol=1e-7, rtol=1e-6)
    assert gradgradcheck(squared, [x], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("x", "how"),
    [
        (np.arange(12).reshape(1, 2, 6), ONE_AXIS),
        (np.ones((0, 2, 6)), ONE_AXIS),
        (np.ones((1, 1, 2, 2, 2, 2)), {name: value * 4 for name, value in ONE_AXIS.items()}),
    ],
    ids=["integers", "no image", "four axes"],
)
def test_what_the_kernels_do_not_know_goes_to_the_formula(x, how):
    assert cuda_pool.max_pool(on_gpu(x), **how) is NotImplemented
    got, wanted = tg.ops.conv.max_pool(on_gpu(x), **how), array_conv.max_pool(x, **how)
    for one, other in zip(got, wanted):
        np.testing.assert_array_equal(one.get(), other, strict=True)


def test_the_mean_of_windows_is_one_convolution_of_each_channel():
    x = on_gpu(np.random.default_rng(5).standard_normal((2, 3, 6, 7)).astype(np.float32))
    F.avg_pool2d(x, 2)
    with double.forbid("h2d", "d2h", "sync"):
        double.stats.clear()
        got = F.avg_pool2d(x, (2, 3), 1)
        # The kernel and an image of ones, the sums of x and of ones, and the ratio.
        assert double.stats["kernel"] == 5
    wanted = F.avg_pool2d(x.get().astype(np.float64), (2, 3), 1)
    np.testing.assert_allclose(got.get(), wanted, rtol=0, atol=1e-6)
