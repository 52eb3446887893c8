"""More ops at their limits: activations, clip, products, norms, sorting, padding."""

import functools
import math

import numpy as np
import pytest
from helpers import assert_close, assert_values, host, leaf, on_device, share_memory, vector
from test_ops_limits import INF, NAN, assert_gradients, gradients

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn
from tinygrad_bn.check import graph_nodes

every_dtype = pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])


def derivatives(function, x, order):
    """Those of orders 1 … `order` of a function of one array: each is the gradient of the last,
    weighted so that no two of its elements count alike."""
    g, found = function(x), []
    for _ in range(order):
        weights = np.cos(np.arange(g.size) + 1.0).reshape(g.shape)
        total = tg.sum(g * tg.tensor(weights)) + tg.sum(x * 0.0)  # where it is constant: 0
        (g,) = tg.grad(total, x, create_graph=True)
        found.append(host(g))
    return found


# --- Activations ---------------------------------------------------------------------------------


def test_erf_is_the_integral_of_the_bell():
    known = {0.5: 0.5204998778130465, 1.0: 0.8427007929497149, 3.0: 0.9999779095030014}  # DLMF 7.23
    x = np.array([*known, *(-x for x in known), 0.0, INF, -INF])
    wanted = [*known.values(), *(-y for y in known.values()), 0.0, 1.0, -1.0]
    assert_close(tg.erf(leaf(x)), np.array(wanted), ulps=1)
    assert np.isnan(host(tg.erf(vector(NAN))))
    assert_close(tg.erf(tg.tensor([0, 1])), np.array([0.0, math.erf(1)]))  # of integers: float64
    assert float(tg.erf(0.5)) == known[0.5]


def test_derivatives_of_erf_and_gelu_at_four_orders_are_hermites():
    x = np.array([-3.0, -1.2, 0.0, 0.4, 2.0])
    bell = np.exp(-x * x) * 2 / math.sqrt(math.pi)
    hermite = [1, -2 * x, 4 * x**2 - 2, -8 * x**3 + 12 * x]
    phi = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    cdf = np.array([(1 + math.erf(v / math.sqrt(2))) / 2 for v in x])
    gelus = [cdf + x * phi, (2 - x**2) * phi, (x**3 - 4 * x) * phi, (-(x**4) + 7 * x**2 - 4) * phi]
    for function, wanted in ((tg.erf, [h * bell for h in hermite]), (tg.gelu, gelus)):
        weights = np.cos(np.arange(5) + 1.0)
        for order, found in enumerate(derivatives(function, leaf(x), 4), start=1):
            assert_close(found / weights**order, wanted[order - 1], ulps=16)


ACTIVATIONS = {  # and the slope far below 0; far above it is 1
    "leaky_relu": (tg.leaky_relu, 0.01),
    "softplus": (tg.softplus, 0.0),
    "F.softplus": (functools.partial(F.softplus, beta=2.0), 0.0),
    "gelu": (tg.gelu, 0.0),
    "tanh gelu": (functools.partial(F.gelu, approximate="tanh"), 0.0),
}


@every_dtype
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("far", [1000.0, 2e4, INF])
def test_activations_far_from_0_are_straight_lines(name, far, dtype):
    function, slope = ACTIVATIONS[name]
    x = leaf(np.array([-far, far], dtype))
    y = function(x)
    assert_close(y, np.array([slope and -slope * far, far], dtype))
    (g,) = tg.grad(y, x, tg.ones_like(y), create_graph=True)
    assert_close(g, np.array([slope, 1.0], dtype))
    if g.requires_grad:
        assert_values(tg.grad(tg.sum(g), x)[0], 0.0, 0.0)


@pytest.mark.parametrize("name", [*ACTIVATIONS, "erf", "sin", "cos"])
def test_a_nan_passes_through_activations(name):
    function = ACTIVATIONS[name][0] if name in ACTIVATIONS else getattr(tg, name)
    assert np.isnan(host(function(vector(NAN, 1.0)))).tolist() == [True, False]


def test_the_gradient_of_leaky_relu_at_0_is_the_slope():
    assert_gradients(lambda x: tg.leaky_relu(x, 0.25), [[-1.0, 0.0, 1.0]], [[0.25, 0.25, 1.0]])


def test_softplus_keeps_small_results_accurate():
    x = np.array([-700.0, -40.0, -1e-3])
    assert_close(tg.softplus(leaf(x))[:2], np.exp(x[:2]), ulps=2)


def test_softplus_of_pytorch_is_a_straight_line_above_its_threshold():
    x = vector(9.0, 11.0)
    assert_values(F.softplus(x, beta=2.0), 9.0 + math.log1p(math.exp(-18)) / 2, 11.0)


# --- Clip ----------------------------------------------------------------------------------------


def test_the_gradient_of_clip_passes_within_and_at_the_bounds():
    x = [-2.0, -1.0, 0.0, 1.0, 2.0, NAN]
    assert_gradients(lambda x: tg.clip(x, -1.0, 1.0), [x], [[0, 1, 1, 1, 0, 0]])
    assert_gradients(lambda x: tg.clip(x, -1.0), [x], [[0, 1, 1, 1, 1, 0]])
    assert_gradients(lambda x: tg.clip(x, high=1.0), [x], [[1, 1, 1, 1, 0, 0]])


def test_a_bound_that_took_the_place_of_x_has_its_gradient():
    x = [[-2.0, 0.0, 2.0], [0.0, 3.0, 0.0]]
    wanted = [[[0, 1, 0], [1, 0, 1]], [[1], [0]], [0, 1, 1]]
    assert_gradients(tg.clip, [x, [[-1.0], [-2.0]], [1.0, 2.0, 1.0]], wanted)


def test_clip_of_nan_infinity_and_integers():
    assert_values(tg.clip(vector(NAN, -INF, INF), -1.0, 1.0), NAN, -1.0, 1.0)
    assert_close(tg.clip(tg.tensor([1, 5, 9]), 2, 6), np.array([2, 5, 6]))
    assert_values(tg.clip(vector(0.0, 5.0), 3.0, 2.0), 2.0, 2.0)  # as NumPy and PyTorch


def test_clip_wants_a_bound():
    with pytest.raises(ValueError, match=r"clip\(float64\[1\].*low, high: got None for both"):
        tg.clip(vector(1.0))


# --- Products and sums ---------------------------------------------------------------------------


@pytest.mark.parametrize("values", [(2, 3, 5, 7, 11), (2, 0, 5, 7, 11), (0, 3, 0, 7, 0), (4,)])
def test_derivatives_of_prod_at_four_orders_are_those_of_multiplication(values):
    x = leaf(np.array(values, float))
    multiplied = functools.partial(functools.reduce, tg.mul)
    for got, wanted in zip(derivatives(tg.prod, x, 4), derivatives(multiplied, x, 4)):
        assert_close(got, wanted, ulps=16)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 8, 1000])
def test_the_gradient_of_prod_is_the_product_of_the_others(n):
    x = 1 + np.random.default_rng(n).random((3, n)) / 100
    x[1, : n // 3] = 0
    wanted = [[np.prod(np.delete(row, k)) for k in range(n)] for row in x]
    (g,) = gradients(lambda x: tg.prod(x, axis=1), x)
    np.testing.assert_allclose(g, np.reshape(wanted, (3, n)), rtol=1e-13)


def test_a_product_of_many_values_takes_few_ops_to_differentiate():
    x = leaf(np.ones(2**16))
    (g,) = tg.grad(tg.prod(x), x, create_graph=True)
    assert host(g).all()
    assert len(graph_nodes([g])) < 16 * 20


def test_the_gradient_of_prod_with_infinities_is_infinite_or_nan():
    with np.errstate(invalid="ignore"):
        assert_gradients(tg.prod, [[INF, 2.0]], [[2.0, INF]])
        assert_gradients(tg.prod, [[INF, 0.0, 2.0]], [[0.0, INF, NAN]])


def test_prod_and_cumsum_of_float16_go_through_float32():
    x = np.array([300.0, 300.0, 0.01, 0.01], np.float16)  # 300 · 300 is above the largest float16
    product = np.prod(x.astype(np.float64))
    leaf_x = leaf(x)
    assert_close(tg.prod(leaf_x), product.astype(np.float16), ulps=1)
    (g,) = tg.grad(tg.prod(leaf_x), leaf_x)
    assert_close(g, (product / x.astype(np.float64)).astype(np.float16), ulps=1)
    ones = leaf(np.ones(5000, np.float16))
    assert host(tg.cumsum(ones))[-1] == 5000
    tenth = tg.tensor(np.full(5000, 0.1, np.float16))
    assert host(tg.grad(tg.cumsum(ones), ones, tenth)[0])[0] == np.float16(5000 * host(tenth)[0])


def test_prod_and_cumsum_of_integers_and_booleans_have_numpys_values():
    for x in (np.array([2, 3, 4], np.int8), np.array([True, False])):
        assert_close(tg.prod(tg.tensor(x)), np.prod(x))
        assert_close(tg.cumsum(tg.tensor(x)), np.cumsum(x))


# --- Norms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ord", [1, 1.5, 2, 3, 4, INF, 0.5])
def test_the_gradient_of_the_norm_of_zeros_is_0_at_every_order(ord):
    x = leaf(np.zeros(3))
    for g in derivatives(lambda x: tg.vector_norm(x * 2.0, ord=ord), x, 3):
        assert_values(g, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("ord", [2, 4, 6.0])
def test_derivatives_of_an_even_norm_at_four_orders_are_those_of_its_formula(ord):
    x = leaf(np.array([3.0, 0.0, -4.0, 0.5]))
    formula = derivatives(lambda x: tg.sum(x**ord) ** (1 / ord), x, 4)
    for got, wanted in zip(derivatives(lambda x: tg.vector_norm(x, ord), x, 4), formula):
        assert_close(got, wanted, ulps=64, scale=1.0)


@pytest.mark.parametrize("ord", [-1, -2])
def test_a_norm_of_negative_order_is_0_with_gradient_0_where_a_value_is_0(ord):
    with np.errstate(divide="ignore"):
        assert host(tg.vector_norm(vector(0.0, 2.0), ord)) == 0
        assert_gradients(lambda x: tg.vector_norm(x, ord), [[0.0, 2.0]], [[0.0, 0.0]])


def test_norms_of_small_and_large_values_neither_vanish_nor_overflow():
    for dtype, value in (
        (np.float16, 3e4),
        (np.float16, 1e-4),
        (np.float32, 1e30),
        (np.float32, 1e-30),
    ):
        x = leaf(np.array([3 * value / 4, value], dtype))
        assert_close(tg.vector_norm(x), np.array(5 * value / 4, dtype))
        assert_close(tg.grad(tg.vector_norm(x), x)[0], np.array([0.6, 0.8], dtype))
    ones = tg.tensor(np.ones(70_000, np.float16))
    assert_close(tg.vector_norm(ones), np.sqrt(70_000).astype(np.float16))


def test_the_norm_of_order_0_counts_and_is_a_constant():
    x = leaf(np.array([[0.0, -2.0, NAN], [0.0, 0.0, 0.0]], np.float32))
    assert_close(tg.vector_norm(x, ord=0, axis=1), np.array([2, 0], np.float32))
    assert not tg.vector_norm(x, ord=0).requires_grad


def test_norms_of_no_values_and_of_integers():
    assert tg.vector_norm(leaf(np.zeros(0))).item() == 0
    with pytest.raises(ValueError, match=r"max\(float64\[0\]"):
        tg.vector_norm(leaf(np.zeros(0)), ord=INF)
    assert_close(tg.vector_norm(tg.tensor([3, 4])), np.array(5.0))
    assert float(tg.vector_norm([3.0, 4.0])) == 5


# --- Order and places ----------------------------------------------------------------------------


def test_equal_values_are_sorted_in_their_order_and_so_are_their_gradients():
    x = vector(2.0, 1.0, 2.0, 1.0, 0.0)
    assert_values(tg.argsort(x), 4, 1, 3, 0, 2)
    assert_values(tg.sort(x), 0.0, 1.0, 1.0, 2.0, 2.0)
    (g,) = tg.grad(tg.sort(x), x, tg.tensor([10.0, 20.0, 30.0, 40.0, 50.0]))
    assert_values(g, 40.0, 20.0, 50.0, 30.0, 10.0)
    assert_values(tg.argsort(leaf(np.arange(700.0) % 7)), *np.arange(700).reshape(100, 7).T.ravel())


def test_nan_is_sorted_last():
    assert_values(tg.sort(vector(NAN, 1.0, -INF, INF)), -INF, 1.0, INF, NAN)


def test_a_value_that_is_taken_twice_gets_both_gradients():
    x = leaf(np.arange(6.0).reshape(2, 3))
    taken = tg.take_along_axis(x, [[0, 0, 2, 0], [1, 1, 1, -1]], axis=1)
    np.testing.assert_array_equal(host(taken), [[0, 0, 2, 0], [4, 4, 4, 5]])
    assert_values(tg.grad(tg.sum(taken), x)[0], 3, 0, 1, 0, 3, 1)


@pytest.mark.parametrize("shape", [(2, 2), (2,)])
def test_flip_and_pad_leave_their_argument_alone(shape):
    x = leaf(np.ones(shape))
    padded = tg.pad(x, 0)
    assert not share_memory(padded, x)
    assert_values(tg.flip(tg.flip(x)), *np.ones(shape).ravel())


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda x: tg.cumsum(x, axis=2), IndexError, r"cumsum\(float32\[2, 3\].*axis 2"),
        (lambda x: tg.prod(x, axis=(0, 0)), ValueError, "duplicate value in .axis"),
        (lambda x: tg.vector_norm(x, "fro"), ValueError, "string to float: 'fro'"),
        (lambda x: tg.vector_norm(x, axis=2), IndexError, "axis 2"),
        (lambda x: tg.argsort(x, axis=2), IndexError, r"argsort\(float32\[2, 3\].*axis 2"),
        (lambda x: tg.sort(x, axis=2), IndexError, r"argsort\(float32\[2, 3\].*axis 2"),
        (lambda x: tg.flip(x, 2), IndexError, r"flip\(float32\[2, 3\].*axis 2"),
        (lambda x: tg.pad(x, -1), ValueError, r"pad\(float32\[2, 3\].*negative"),
        (lambda x: tg.pad(x, 1.5), TypeError, r"pad\(float32\[2, 3\].*integral"),
        (lambda x: tg.pad(x, [(1, 1)] * 3), ValueError, r"pad\(float32\[2, 3\]"),
        (lambda x: tg.take_along_axis(x, [0]), ValueError, r"take_along_axis\(.*dimensions"),
        (lambda x: tg.take_along_axis(x, [[0.5]]), IndexError, r"take_along_axis\(.*integer"),
        (lambda x: tg.take_along_axis(x, [[3]], axis=1), IndexError, "index 3 is out of bounds"),
        (lambda x: tg.clip(x, "a"), TypeError, "clip: data: got .*'a'"),
        (lambda x: F.gelu(x, "sigmoid"), ValueError, r"approximate: got .*wants one of none, tanh"),
        (lambda x: nn.GELU("foo"), ValueError, "approximate: got 'foo', wants one of none, tanh"),
        (lambda x: F.softplus(x, beta="1"), ValueError, "beta: got '1', wants a number"),
        (lambda x: nn.LeakyReLU(None), ValueError, "negative_slope: got None, wants a number"),
        (lambda x: F.pad(x, (1,)), ValueError, r"pad: got \(1,\), wants a pair for each"),
        (lambda x: F.pad(x, (1,) * 6), ValueError, "pad: got .* a pair for each of at most 2 axes"),
        (lambda x: F.pad(x, (1, 1), "mirror"), ValueError, "mode: got 'mirror', wants"),
        (lambda x: F.pad(x, (1, 1), "reflect", 1.0), ValueError, "value: got 1.0, which only"),
        (lambda x: F.pad(x, (3, 0), "reflect"), ValueError, r"\(3, 0\) at axis 1, wants 0 … 2 for"),
        (lambda x: F.pad(x, (0, 4), "circular"), ValueError, "wants 0 … 3 for"),
        (lambda x: F.pad(x, (-1, 0), "replicate"), ValueError, "wants 0 … inf for"),
        (lambda x: F.pad(x, (-2, -2)), ValueError, "takes away more than there is"),
        (lambda x: F.pad(x, (-4, 9)), ValueError, "takes away more than there is"),
    ],
)
def test_errors_name_the_op_or_the_argument(call, kind, text, cpu_only):
    with pytest.raises(kind, match=text):
        call(leaf(np.ones((2, 3), np.float32)))


# --- Padding of PyTorch --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("constant", [[0, 0, 1, 2, 0], [0, 0, 3, 4, 0], [0, 0, 0, 0, 0]]),
        ("replicate", [[1, 1, 1, 2, 2], [3, 3, 3, 4, 4], [3, 3, 3, 4, 4]]),
        ("circular", [[1, 2, 1, 2, 1], [3, 4, 3, 4, 3], [1, 2, 1, 2, 1]]),
    ],
)
def test_the_first_pair_of_pads_is_for_the_last_axis(mode, wanted):
    x = np.array([[1, 2], [3, 4]])
    assert_close(F.pad(tg.tensor(x), (2, 1, 0, 1), mode), np.array(wanted))
    assert_close(F.pad(on_device(x), (2, 1, 0, 1), mode), np.array(wanted))


def test_pads_may_take_values_away_or_be_none():
    x = vector(1.0, 2.0, 3.0)
    assert_values(F.pad(x, (-1, 2), value=9.0), 2.0, 3.0, 9.0, 9.0)
    assert_values(F.pad(x, (-3, 1)), 0.0)
    assert_values(F.pad(x, ()), 1.0, 2.0, 3.0)
    assert_values(F.pad(x, (0, 0), "reflect"), 1.0, 2.0, 3.0)


# --- Layers and methods --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (nn.LeakyReLU(), F.leaky_relu),
        (nn.LeakyReLU(0.2), lambda x: F.leaky_relu(x, 0.2)),
        (nn.GELU(), F.gelu),
        (nn.GELU("tanh"), lambda x: F.gelu(x, approximate="tanh")),
        (nn.Softplus(2, 5), lambda x: F.softplus(x, 2, 5)),
        (nn.Softmax(dim=0), lambda x: F.softmax(x, 0)),
        (nn.LogSoftmax(dim=-1), lambda x: F.log_softmax(x, -1)),
    ],
    ids=str,
)
def test_a_layer_is_its_function(layer, function):
    x = tg.tensor(np.linspace(-3, 8, 6).reshape(2, 3))
    np.testing.assert_array_equal(host(layer(x)), host(function(x)))


@pytest.mark.parametrize(
    "text",
    [
        "LeakyReLU(negative_slope=0.01)",
        "GELU(approximate='none')",
        "GELU(approximate='tanh')",
        "Softplus(beta=1.0, threshold=20.0)",
        "Softplus(beta=2, threshold=5)",
        "Softmax(dim=1)",
        "LogSoftmax(dim=-1)",
    ],
)
def test_the_repr_of_a_layer_is_pytorchs_and_makes_it_again(text):
    assert repr(eval(text, vars(nn))) == text


@pytest.mark.parametrize(
    "call",
    [
        *("sin()", "cos()", "erf()", "clip(-1.0, 1.0)", "clip(high=1.0)", "prod()", "prod(1)"),
        *("cumsum()", "cumsum(axis=1)", "argsort(0)", "sort(0)", "flip()", "flip((0, 1))"),
    ],
)
def test_a_method_is_its_op(call):
    x = vector(3.0, -1.0, 0.5, 2.0).reshape(2, 2)
    name, arguments = call.split("(", 1)
    wanted = eval(f"{name}(x, {arguments}", {**vars(tg), "x": x})
    np.testing.assert_array_equal(host(eval(f"x.{call}", {"x": x})), host(wanted))


def test_the_method_norm_is_vector_norm():
    x = vector(3.0, 0.0, -4.0)
    assert [x.norm().item(), x.norm(1).item(), x.norm(ord=INF).item()] == [5, 7, 4]
    assert x[None].norm(axis=1, keepdims=True).shape == (1, 1)
