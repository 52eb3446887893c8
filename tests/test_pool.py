"""Pooling: the largest value and the mean of windows, and the means of bins."""

import inspect
from fractions import Fraction

import numpy as np
import pytest
from helpers import assert_close, assert_values, grid, host, leaf, on_device

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn
from tinygrad_bn.check import gradcheck, gradgradcheck, held_bytes
from tinygrad_bn.ops.conv import max_pool

INF, NAN = np.inf, np.nan
KINDS = ("max_pool", "avg_pool", "adaptive_avg_pool")
IMAGES = {1: (5,), 2: (4, 3), 3: (3, 2, 3)}
every_rank = pytest.mark.parametrize("rank", [1, 2, 3])


def pool(kind, rank):
    return getattr(F, f"{kind}{rank}d")


# --- All of them ----------------------------------------------------------------------------------


@every_rank
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("max_pool", {"kernel_size": 2, "stride": 1}),
        ("max_pool", {"kernel_size": 2, "stride": 2, "padding": 1, "ceil_mode": True}),
        ("max_pool", {"kernel_size": 2, "dilation": 2, "padding": 1}),
        ("avg_pool", {"kernel_size": 2, "stride": 1}),
        ("avg_pool", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
        ("avg_pool", {"kernel_size": 2, "padding": 1, "count_include_pad": False}),
        ("adaptive_avg_pool", {"output_size": 1}),
        ("adaptive_avg_pool", {"output_size": 2}),
    ],
    ids=str,
)
def test_first_and_second_derivatives_are_those_of_finite_differences(kind, rank, options):
    x = leaf(grid((2, 1, *IMAGES[rank])))

    def squared(x):
        return pool(kind, rank)(x, **options) ** 2

    assert gradcheck(squared, [x], atol=1e-8, rtol=1e-7)
    assert gradgradcheck(squared, [x], atol=1e-8, rtol=1e-7)


@every_rank
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_images_one_by_one(kind, rank):
    x = tg.tensor(grid((3, 2, *IMAGES[rank])))
    images = [pool(kind, rank)(x[n], 2) for n in range(3)]
    assert_close(pool(kind, rank)(x, 2), tg.stack(images))
    assert pool(kind, rank)(x[:0], 2).shape == (0, *images[0].shape)


@every_rank
@pytest.mark.parametrize("kind", KINDS)
def test_the_channels_last_in_memory_change_nothing(kind, rank):
    shape = (2, 3, *IMAGES[rank])
    x = leaf(grid(shape))
    last = np.ascontiguousarray(np.moveaxis(grid(shape), 1, -1))
    order = (0, rank + 1, *range(1, rank + 1))
    last = tg.Tensor(on_device(last).transpose(order), requires_grad=True)
    outputs = [pool(kind, rank)(y, 2) for y in (x, last)]
    assert_close(*outputs)
    seed = tg.tensor(grid(outputs[0].shape))
    assert_close(*[tg.grad(output, y, seed)[0] for output, y in zip(outputs, (x, last))])


@pytest.mark.parametrize("kind", KINDS)
def test_the_dtype_is_the_inputs_and_arrays_give_arrays(kind):
    x = grid((1, 2, 4, 4))
    for dtype in (np.float16, np.float32, np.float64):
        output = pool(kind, 2)(on_device(x.astype(dtype)), 2)
        assert not isinstance(output, tg.Tensor)
        assert output.dtype == dtype
        wanted = host(pool(kind, 2)(on_device(x.astype(dtype).astype(np.float64)), 2))
        assert_close(output, wanted.astype(dtype))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(4, 4), (1, 1, 1, 4, 4), (1, 1, 0, 4)])
def test_an_input_of_another_rank_or_without_places_is_refused(kind, shape):
    with pytest.raises(ValueError, match="input: got shape"):
        pool(kind, 2)(tg.zeros(*shape), 2)


def test_integers_have_a_largest_value_but_no_mean_in_their_dtype():
    x = tg.tensor([[[4, 7, 1, 2]]])
    output = F.max_pool1d(x, 2)
    assert output.dtype == np.int64
    assert_values(output, 7, 2)
    with pytest.raises(TypeError, match="wants arrays of one floating point dtype"):
        F.avg_pool1d(x, 2)
    assert_values(F.adaptive_avg_pool1d(x, 2), 5.5, 1.5)  # float64, as by `mean`


@pytest.mark.parametrize("kind", ["max_pool", "avg_pool"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"kernel_size": (2, 2, 2)},
            r"kernel_size: got \(2, 2, 2\), wants a whole number ≥ 1, or 2",
        ),
        ({"kernel_size": 2.0}, "kernel_size: got 2.0"),
        ({"kernel_size": True}, "kernel_size: got True"),
        ({"kernel_size": 0}, "kernel_size: got 0, wants a whole number ≥ 1"),
        ({"kernel_size": 5}, r"kernel: got \(5, 5\), .* wants one that fits in images of \(4, 4\)"),
        ({"kernel_size": 2, "stride": 0}, "stride: got 0, wants a whole number ≥ 1"),
        ({"kernel_size": 2, "stride": 0, "ceil_mode": True}, "stride: got"),
        ({"kernel_size": 2, "padding": -1}, "padding: got -1, wants a whole number ≥ 0"),
        ({"kernel_size": (4, 2), "padding": (2, 2)}, "padding: got 2, wants at most half of ker"),
    ],
    ids=str,
)
def test_a_bad_argument_is_named(kind, options, message):
    with pytest.raises(ValueError, match=message):
        pool(kind, 2)(tg.zeros(1, 1, 4, 4), **options)


@every_rank
@pytest.mark.parametrize("kind", ["MaxPool", "AvgPool"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 0}, "kernel_size: got 0, wants a whole number ≥ 1"),
        ({"kernel_size": 2, "stride": 0}, "stride: got 0"),
        ({"kernel_size": 2, "padding": -1}, "padding: got -1, wants a whole number ≥ 0"),
    ],
    ids=str,
)
def test_a_layer_names_the_bad_argument_when_it_is_made(kind, rank, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(nn, f"{kind}{rank}d")(**options)


def test_the_functions_have_the_arguments_of_pytorchs():
    windows = ["input", "kernel_size", "stride", "padding"]
    for rank in (1, 2, 3):
        for kind, arguments in (
            ("max_pool", [*windows, "dilation", "ceil_mode", "return_indices"]),
            ("avg_pool", [*windows, "ceil_mode", "count_include_pad", "divisor_override"]),
            ("adaptive_avg_pool", ["input", "output_size"]),
        ):
            function = pool(kind, rank)
            assert list(inspect.signature(function).parameters) == arguments
            assert function.__name__ == f"{kind}{rank}d"


@every_rank
def test_a_layer_is_its_function(rank):
    x = tg.tensor(grid((2, 1, *IMAGES[rank])))

    def layer(kind):
        return getattr(nn, f"{kind}{rank}d")

    output, indices = layer("MaxPool")(2, 1, 1, 1, True, True)(x)
    wanted = F.__dict__[f"max_pool{rank}d"](x, 2, 1, 1, 1, True, True)
    assert_close(output, wanted[0])
    assert_close(indices, wanted[1])
    assert_close(
        layer("AvgPool")(2, 3, 1, True, False)(x), pool("avg_pool", rank)(x, 2, 3, 1, True, False)
    )
    assert_close(layer("AdaptiveAvgPool")(2)(x), pool("adaptive_avg_pool", rank)(x, 2))


# --- The largest value ----------------------------------------------------------------------------


def test_of_equal_values_the_first_gets_the_gradient():
    x = leaf(np.array([[[2.0, 2.0, 1.0, 2.0]]]))
    output, indices = F.max_pool1d(x, 3, 1, return_indices=True)
    assert_values(output, 2, 2)
    assert_values(indices, 0, 1)
    assert_values(tg.grad(output, x, tg.tensor([[[1.0, 10.0]]]))[0], 1, 10, 0, 0)


def test_gradients_of_overlapping_windows_add_up():
    x = leaf(np.array([[[0.0, 5.0, 1.0]]]))
    output = F.max_pool1d(x, 2, 1)
    assert_values(tg.grad(output, x, tg.tensor([[[1.0, 10.0]]]))[0], 0, 11, 0)


def test_the_padding_is_never_the_largest():
    x = leaf(np.array([[[-3.0, -INF, -INF, -INF]]]))
    output, indices = F.max_pool1d(x, 2, 2, 1, return_indices=True)
    assert_values(output, -3, -INF, -INF)
    assert_values(indices, 0, 1, 3)
    assert_values(tg.grad(output, x, tg.tensor([[[1.0, 2.0, 3.0]]]))[0], 1, 2, 0, 3)


def test_a_nan_is_larger_than_all():
    x = leaf(np.array([[[1.0, NAN, INF, 4.0, 2.0, 3.0, NAN, NAN, 0.0]]]))
    output, indices = F.max_pool1d(x, 3, return_indices=True)
    assert_values(output, NAN, 4, NAN)
    assert_values(indices, 1, 3, 7)  # of several NaNs the last, as in PyTorch


def test_max_pooling_keeps_the_places_of_the_maxima_alone():
    x = leaf(grid((2, 3, 8, 8)).astype(np.float32))
    output = F.max_pool2d(x * 2.0, 2)
    assert held_bytes([output]) == 8 * output.size


def test_a_window_that_lies_in_the_padding_is_refused():
    with pytest.raises(ValueError, match="dilation: got 2, wants at most the size of the image, 1"):
        F.max_pool1d(tg.zeros(1, 1, 1), 2, 1, 1, 2)
    assert F.max_pool1d(tg.zeros(1, 1, 2), 2, 1, 1, 2).shape == (1, 1, 2)


# --- The means ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("padding", [0, 1, (0, 1)])
@pytest.mark.parametrize("stride", [1, 2, (3, 2)])
def test_the_mean_without_the_padding_of_ones_is_1(stride, padding, ceil_mode):
    options = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    output = F.avg_pool2d(tg.ones(1, 1, 7, 6), 3, **options, count_include_pad=False)
    assert (host(output) == 1).all()
    assert F.max_pool2d(tg.ones(1, 1, 7, 6), 3, **options).shape == output.shape


def test_what_the_mean_divides_by():
    x = tg.tensor([[[6.0, 6.0, 6.0]]])
    assert_values(F.avg_pool1d(x, 2, padding=1), 3, 6)
    assert_values(F.avg_pool1d(x, 2, padding=1, count_include_pad=False), 6, 6)
    assert_values(F.avg_pool1d(x, 2, ceil_mode=True), 6, 6)  # beyond the padding nothing counts
    assert_values(F.avg_pool1d(x, 3, 2, 1, ceil_mode=True), 4, 4)
    square = tg.reshape(x, (1, 1, 1, 3))
    assert_values(F.avg_pool2d(square, (1, 2), 1, divisor_override=4), 3, 3)
    with pytest.raises(ValueError, match="divisor_override: got 0"):
        F.avg_pool2d(square, 1, divisor_override=0)


@pytest.mark.parametrize(("n", "m"), [(5, 3), (7, 2), (3, 7), (6, 3), (4, 4), (5, 1)])
def test_the_bins_of_adaptive_pooling(n, m):
    x = grid((1, 1, n))
    bins = [slice(int(Fraction(i * n, m)), -int(-Fraction((i + 1) * n, m) // 1)) for i in range(m)]
    wanted = [x[0, 0, places].mean() for places in bins]
    assert_close(F.adaptive_avg_pool1d(tg.tensor(x), m), np.array([[wanted]]))


def test_adaptive_pooling_of_some_axes():
    x = tg.tensor(grid((2, 3, 4, 5)))
    assert F.adaptive_avg_pool2d(x, (None, 2)).shape == (2, 3, 4, 2)
    assert F.adaptive_avg_pool2d(x, None) is F.adaptive_avg_pool2d(x, (4, None)) is x
    assert_close(F.adaptive_avg_pool2d(x, [1, 1]), tg.mean(x, axis=(2, 3), keepdims=True))


@pytest.mark.parametrize("size", [0, -1, 1.5, (1, 2, 3), (2,), "1"])
def test_a_bad_output_size_is_named(size):
    for make in (nn.AdaptiveAvgPool2d, lambda s: F.adaptive_avg_pool2d(tg.zeros(1, 1, 4, 4), s)):
        with pytest.raises(ValueError, match="output_size: got"):
            make(size)


@pytest.mark.parametrize("value", [INF, NAN])
def test_what_is_not_finite_stays_in_its_windows_and_bins(value):
    x = np.ones((1, 2, 6))
    x[0, 1, 2] = value
    for output in (F.avg_pool1d(tg.tensor(x), 2), F.adaptive_avg_pool1d(tg.tensor(x), 3)):
        assert np.argwhere(~np.isfinite(host(output))).tolist() == [[0, 1, 1]]


def test_float16_is_averaged_in_float32():
    x = tg.full((1, 1, 9), 60_000.0, dtype=np.float16, requires_grad=True)
    for output in (F.avg_pool1d(x, 9), F.adaptive_avg_pool1d(x, 1)):
        assert_values(output, host(x)[0, 0, 0])
        assert tg.grad(tg.sum(output), x)[0].dtype == np.float16


def test_averaging_keeps_no_image():
    x = leaf(grid((4, 3, 8, 8)))
    outputs = [F.avg_pool2d(x * 2.0, 2), F.adaptive_avg_pool2d(x * 2.0, 3)]
    assert held_bytes(outputs) <= 3 * 8 * (2 * 2 + 4 * 4)  # a channel: the kernel, the counts


def test_a_window_without_values_has_no_derivative_of_any_order():
    """It is 0; the functions refuse it, but the op does not."""
    windows = {"kernel": (2,), "stride": (2,), "padding": ((2, 0),), "dilation": (1,)}
    g, x = leaf(np.ones((1, 1, 3))), leaf(np.array([[[1.0, 3.0, 2.0, 5.0]]]))
    y, _ = max_pool(x, **windows)
    (dx,) = tg.grad(y, x, g, create_graph=True)
    (dg,) = tg.grad(dx, g, tg.tensor(np.array([[[1.0, 2.0, 3.0, 4.0]]])))
    assert host(y).ravel().tolist() == [0, 3, 5]
    assert host(dx).ravel().tolist() == [0, 1, 0, 1]
    assert host(dg).ravel().tolist() == [0, 2, 4]
