"""Ops at their limits: kinks, ties, NaN and infinity, large values, few bits, no gradient."""

import numpy as np
import pytest
from helpers import assert_close, host, leaf, on_device, vector

import tinygrad_bn as tg

INF, NAN = np.inf, np.nan


def gradients(function, *arrays):
    """NumPy arrays: the gradients at float64 inputs, for gradients of 1 at the output."""
    inputs = [leaf(np.asarray(x, np.float64)) for x in arrays]
    output = function(*inputs)
    return [host(g) for g in tg.grad(output, inputs, tg.ones_like(output))]


def assert_gradients(function, inputs, wanted):
    for got, want in zip(gradients(function, *inputs), wanted, strict=True):
        np.testing.assert_array_equal(got, want)


# --- Where the derivative jumps -------------------------------------------------------------------


@pytest.mark.parametrize("op", [tg.relu, tg.abs])
def test_the_gradient_at_a_kink_is_0(op):
    assert_gradients(op, [[-1.0, 0.0, 1.0]], [[-1.0 * (op is tg.abs), 0.0, 1.0]])


@pytest.mark.parametrize("op", [tg.maximum, tg.minimum])
def test_equal_arguments_get_half_of_the_gradient_each(op):
    assert_gradients(op, [[1.0, 2.0], [1.0, 2.0]], [[0.5, 0.5], [0.5, 0.5]])


@pytest.mark.parametrize("op", [tg.max, tg.min])
def test_equal_extremes_share_the_gradient_evenly(op):
    tied = [[3.0, 3.0, 3.0, 3.0], [1.0, 1.0, 1.0, 1.0]]
    assert_gradients(op, [tied[0]], [[0.25] * 4])
    assert_gradients(lambda x: op(x, axis=1), [tied], [np.full((2, 4), 0.25)])
    assert_gradients(lambda x: op(x, axis=0), [[[5.0, 1.0], [5.0, 1.0]]], [np.full((2, 2), 0.5)])


def test_the_gradient_of_max_goes_to_the_largest_and_of_min_to_the_smallest():
    x = [[1.0, 3.0, 2.0], [6.0, 4.0, 5.0]]
    assert_gradients(lambda x: tg.max(x, axis=1), [x], [[[0, 1, 0], [1, 0, 0]]])
    assert_gradients(lambda x: tg.min(x, axis=1), [x], [[[1, 0, 0], [0, 1, 0]]])


@pytest.mark.parametrize("op", [tg.sum, tg.max, tg.min])
@pytest.mark.parametrize("axis", [0, -1])
def test_the_axis_that_numpy_lets_a_number_have(op, axis, cpu_only):
    assert op(vector(3.0)[0], axis=axis).item() == 3.0
    assert_gradients(lambda x: op(x, axis=axis), [3.0], [1.0])


def test_powers_at_0():
    assert_gradients(lambda x: x**0, [[0.0, 2.0]], [[0.0, 0.0]])
    assert_gradients(lambda x: x**1, [[0.0, 2.0]], [[1.0, 1.0]])
    assert_gradients(lambda x: x**2, [[0.0, -3.0]], [[0.0, -6.0]])
    assert_gradients(lambda x: x**3.0, [[0.0, -3.0]], [[0.0, 27.0]])
    assert_gradients(tg.pow, [[0.0], [2.0]], [[0.0], [0.0]])  # to the exponent: 0 by definition


def test_the_second_derivative_of_a_square_at_0_is_2():
    x = leaf(np.array([0.0, -3.0]))
    (dx,) = tg.grad(tg.sum(x**2), x, create_graph=True)
    (ddx,) = tg.grad(tg.sum(dx), x)
    np.testing.assert_array_equal(host(ddx), [2.0, 2.0])


def test_the_exponent_of_a_negative_number_has_a_nan_gradient():
    with np.errstate(invalid="ignore"):
        _, to_exponent = gradients(tg.pow, [-2.0], [2.0])
    assert np.isnan(to_exponent).all()


def test_a_number_to_the_power_of_a_tensor():
    (g,) = gradients(lambda x: 2**x, [0.0, 3.0])
    np.testing.assert_allclose(g, np.log(2) * np.array([1.0, 8.0]), rtol=4e-16)


def test_the_gradient_of_sqrt_at_0_is_infinite():
    with np.errstate(divide="ignore"):
        assert_gradients(tg.sqrt, [[0.0, 4.0]], [[INF, 0.25]])


# --- NaN and infinity; a warning of NumPy's would be an error here -------------------------------


def test_relu_of_infinity_and_nan():
    x = np.array([-INF, INF, NAN])
    np.testing.assert_array_equal(host(tg.relu(leaf(x))), [0.0, INF, NAN])
    assert_gradients(tg.relu, [[-INF, INF]], [[0.0, 1.0]])


def test_maximum_and_minimum_with_infinity():
    x, y = [-INF, INF, -INF], [0.0, 0.0, -INF]
    assert_gradients(tg.maximum, [x, y], [[0.0, 1.0, 0.5], [1.0, 0.0, 0.5]])
    assert_gradients(tg.minimum, [x, y], [[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]])


@pytest.mark.parametrize("op", [tg.maximum, tg.minimum])
def test_a_nan_passes_through_maximum_and_minimum(op):
    got = host(op(leaf(np.array([NAN, 0.0])), np.float64(1.0)))
    np.testing.assert_array_equal(np.isnan(got), [True, False])


@pytest.mark.parametrize("op", [tg.max, tg.min])
def test_max_and_min_of_infinite_rows(op):
    x = [[-INF, -INF], [INF, INF]]
    np.testing.assert_array_equal(host(op(leaf(np.array(x)), axis=1)), [-INF, INF])
    assert_gradients(lambda x: op(x, axis=1), [x], [np.full((2, 2), 0.5)])


@pytest.mark.parametrize("op", [tg.max, tg.min])
def test_the_gradient_of_an_extreme_that_is_nan_goes_to_the_nans(op):
    assert_gradients(lambda x: op(x, axis=1), [[[1.0, NAN], [2.0, 2.0]]], [[[0, 1], [0.5, 0.5]]])


def test_logsumexp_passes_over_minus_infinity():
    x = np.array([[-INF, 1.0], [2.0, -INF]])
    np.testing.assert_array_equal(host(tg.logsumexp(leaf(x), axis=1)), [1.0, 2.0])
    assert_gradients(lambda x: tg.logsumexp(x, axis=1), [x], [[[0.0, 1.0], [1.0, 0.0]]])


def test_logsumexp_of_minus_infinities_is_minus_infinity_with_gradient_0():
    x = np.full((1, 2), -INF)
    np.testing.assert_array_equal(host(tg.logsumexp(leaf(x), axis=1)), [-INF])
    assert_gradients(lambda x: tg.logsumexp(x, axis=1), [x], [[[0.0, 0.0]]])


def test_logsumexp_of_plus_infinity_is_plus_infinity():
    x = np.array([[INF, 1.0], [INF, -INF]])
    np.testing.assert_array_equal(host(tg.logsumexp(leaf(x), axis=1)), [INF, INF])


def test_softmax_gives_minus_infinity_no_weight():
    x = np.array([[-INF, 1.0, 1.0], [2.0, -INF, -INF]])
    np.testing.assert_array_equal(host(tg.softmax(leaf(x))), [[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    assert_gradients(lambda x: tg.softmax(x)[:, 0], [x], [np.zeros((2, 3))])


def test_log_softmax_of_minus_infinity():
    x = np.array([[-INF, 1.0], [2.0, -INF]])
    np.testing.assert_array_equal(host(tg.log_softmax(leaf(x))), [[-INF, 0.0], [0.0, -INF]])
    assert_gradients(lambda x: tg.log_softmax(x)[:, 1], [x[:1]], [[[0.0, 0.0]]])


# --- Large values, few bits ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_large_values_do_not_overflow(dtype):
    x = leaf(np.array([-2e4, 0.0, 2e4], dtype))
    half = np.array([0.0, 0.5, 1.0], dtype)
    assert_close(tg.sigmoid(x), half)
    assert_close(tg.softmax(x), np.array([0, 0, 1], dtype))
    assert_close(tg.log_softmax(x), np.array([-4e4, -2e4, 0], dtype))
    assert_close(tg.logsumexp(x), np.array(2e4, dtype))
    assert_close(tg.tanh(x), np.array([-1, 0, 1], dtype))
    for op in (tg.sigmoid, tg.softmax, tg.log_softmax, tg.tanh):
        assert np.isfinite(host(tg.grad(tg.sum(op(x)), x)[0])).all()


def test_sigmoid_and_log_softmax_keep_small_results_accurate():
    assert_close(tg.sigmoid(leaf(np.array([-700.0, -40.0]))), np.exp([-700.0, -40.0]), ulps=2)
    x = np.array([0.0, 50.0])
    assert_close(tg.log_softmax(leaf(x)), np.array([-50.0, -np.exp(-50.0)]), ulps=2)


def test_float16_is_summed_in_float32():
    ones = leaf(np.ones(5000, np.float16))
    assert tg.sum(ones).item() == 5000.0
    assert tg.mean(leaf(np.ones(100_000, np.float16))).item() == 1.0  # the sum is above the largest
    assert tg.mean(leaf(np.full(4096, 0.1, np.float16))).item() == np.float16(0.1)
    columns, row = leaf(np.ones((5000, 2), np.float16)), leaf(np.ones(2, np.float16))
    assert tg.sum(columns, axis=0).tolist() == [5000.0] * 2
    assert tg.grad(tg.sum(columns + row), row)[0].tolist() == [5000.0] * 2  # in the engine, too


def test_a_float32_mean_is_summed_in_float64():
    x = np.full(2**20, 0.1, np.float32)
    x[0] = 1e6
    assert tg.mean(leaf(x)).item() == np.float32(np.mean(x.astype(np.float64)))


def test_a_variance_far_from_0_is_that_of_the_deviations():
    x = 1e8 + np.array([1.0, 2.0, 3.0, 4.0])
    assert tg.var(leaf(x)).item() == 1.25
    np.testing.assert_array_equal(gradients(tg.var, x)[0], [-0.75, -0.25, 0.25, 0.75])


# --- Without a gradient --------------------------------------------------------------------------


@pytest.mark.parametrize("values", [np.array([1, 2]), np.array([True, False])])
def test_integers_and_booleans_flow_through_and_require_no_gradient(values):
    x, y = tg.tensor(values), leaf(np.array([3.0, 4.0]))
    with pytest.raises(TypeError, match=f"requires_grad: got a Tensor of {values.dtype}"):
        tg.tensor(values, requires_grad=True)
    with pytest.raises(TypeError, match=f"requires_grad: got a Tensor of {values.dtype}"):
        x.requires_grad = True
    assert not (x + x).requires_grad
    assert not tg.sum(x).requires_grad
    assert_gradients(lambda y: y * tg.tensor(values), [[3.0, 4.0]], [values])
    assert (x * y).dtype == np.float64


@pytest.mark.parametrize("op", [tg.sum, tg.max, tg.exp, tg.mean, tg.relu, tg.transpose])
@pytest.mark.parametrize("values", [np.array([1, 2, 4]), np.array([True, False])])
def test_ops_of_integers_and_booleans_have_numpys_values(op, values):
    numpys = {"relu": lambda x: np.maximum(x, 0)}.get(op.name) or getattr(np, op.name)
    assert_close(op(tg.tensor(values)), numpys(values))


def test_gradients_end_at_a_cast_to_integers():
    x = leaf(np.array([1.5, 2.5]))
    y = x.astype(np.int64)
    np.testing.assert_array_equal(host(y), [1, 2])
    assert not y.requires_grad
    (g,) = tg.grad(tg.sum(x * y), x)
    np.testing.assert_array_equal(host(g), [1.0, 2.0])


@pytest.mark.parametrize("narrow", [np.float16, np.float32])
def test_a_cast_is_undone_for_the_gradient(narrow):
    x = leaf(np.array([1.0, 2.0], narrow))
    y = tg.astype(x, dtype=np.float64)
    assert y.dtype == np.float64
    (g,) = tg.grad(tg.sum(y * y), x)
    assert_close(g, np.array([2.0, 4.0], narrow))


@pytest.mark.parametrize("wide", [np.float32, np.float64])
def test_each_gradient_has_the_dtype_of_its_own_argument(wide):
    x, y = leaf(np.ones((2, 3), np.float16)), leaf(np.ones(3, wide))
    for op in (tg.mul, tg.add, tg.div, tg.maximum, lambda x, y: tg.concatenate([x, y[None]])):
        gx, gy = tg.grad(tg.sum(op(x, y)), [x, y])
        assert (gx.dtype, gy.dtype) == (np.float16, wide)


def test_unsigned_exponents_do_not_wrap():
    x = leaf(np.array([2.0, 0.0]))
    (dx,) = tg.grad((x ** tg.tensor(np.array([0, 1], np.uint8))).sum(), x)
    assert host(dx).tolist() == [0, 1]


def test_softmax_over_no_values_is_empty_and_logsumexp_is_minus_infinity():
    x = leaf(np.zeros((2, 0)))
    assert tg.softmax(x).shape == tg.log_softmax(x).shape == (2, 0)
    assert host(tg.logsumexp(x, axis=1)).tolist() == [-np.inf, -np.inf]


def test_masks_are_combined_by_and_or_not():
    x = leaf(np.array([0.0, 1.0, 2.0, 3.0]))
    assert host((x > 0.5) & (x < 2.5)).tolist() == [False, True, True, False]
    assert host((x < 0.5) | (x > 2.5)).tolist() == [True, False, False, True]
    assert host(~(x > 0.5)).tolist() == [True, False, False, False]
    with pytest.raises(TypeError, match="bitwise_and"):
        x & x


def test_signs_and_isfinite():
    x = np.array([-2.0, 0.0, INF, NAN])
    np.testing.assert_array_equal(host(tg.sign(leaf(x))), np.sign(x))
    np.testing.assert_array_equal(host(tg.isfinite(leaf(x))), np.isfinite(x))
    assert not tg.sign(leaf(x)).requires_grad


# --- Errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda x: tg.mul(x, np.ones(4)), ValueError, r"mul\(float32\[2, 3\], float64\[4\]"),
        (lambda x: tg.matmul(x, x), ValueError, r"matmul\(float32\[2, 3\], float32\[2, 3\]"),
        (lambda x: tg.sum(x, axis=2), IndexError, r"sum\(float32\[2, 3\].*axis 2"),
        (lambda x: tg.sum(x, 0, False, 1), TypeError, r"sum: too many"),
        (lambda x: tg.exp(), TypeError, r"exp: missing .*'x'"),
        (lambda x: tg.exp(x, axis=0), TypeError, r"exp\(float32\[2, 3\]"),
        (lambda x: tg.reshape(x, (4, 2)), ValueError, r"reshape\(float32\[2, 3\].*\(4,2\)"),
        (lambda x: tg.concatenate([x, x[0]]), ValueError, r"concatenate\(float32.*float32\[3\]"),
        (lambda x: tg.concatenate([]), ValueError, r"concatenate\(\)"),
        (lambda x: tg.split(x, 2, axis=1), ValueError, "split: sections: got 2, .* divisor of 3"),
        (lambda x: tg.split(x[0, 0], 1), ValueError, r"split: x: got shape \(\), wants an axis"),
        (lambda x: tg.sort(x[0, 0]), ValueError, r"sort: x: got shape \(\), wants an axis"),
        (lambda x: tg.linear(x, x[:, :2]), ValueError, r"linear\(float32\[2, 3\], .*\[2, 2\]"),
        (lambda x: tg.linear(x, x, x), ValueError, r"linear\(.*and bias \(m,\) or None"),
        (lambda x: x[5], IndexError, r"getitem\(float32\[2, 3\].*index 5"),
        (lambda x: tg.max(x[:, :0]), ValueError, r"max\(float32\[2, 0\]"),
        (lambda x: x + "one", TypeError, "add: data: got .*'one'"),
    ],
)
def test_errors_name_the_op_the_shapes_and_the_dtypes(call, kind, text):
    x = leaf(np.ones((2, 3), np.float32))
    if x.device != "cpu":
        text = text.replace(r"\]", r"\].*")  # where " on cuda:0" stands
    with pytest.raises(kind, match=text):
        call(x)


def test_an_error_on_another_device_names_it(double_only):
    x = leaf(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"mul\(float32\[2, 3\] on cuda:0, float32\[4\] on cuda:0"):
        x * on_device(np.ones(4, np.float32))
    with pytest.raises(ValueError, match=r"mul\(.*different devices, cuda:0 and cpu"):
        x * np.ones(3, np.float32)
