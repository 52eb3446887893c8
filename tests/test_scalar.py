"""Scalar: one float and its local derivatives, and micrograd's programs run on it."""

import math
import random
from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from benchmarks.speed.scalars import MLP, Neuron
from tinygrad_bn import Scalar

numbers = st.floats(-3, 3).filter(lambda x: abs(x) > 0.01)
positive = st.floats(0.1, 3)
small_integers = st.integers(-3, 3)


def slopes(function, *values):
    """The derivatives of `function` by backward."""
    inputs = [Scalar(value) for value in values]
    function(*inputs).backward()
    return [x.grad for x in inputs]


def quotients(function, *values, step=1e-5):
    """The derivatives of a function of floats by central differences (the error is O(step⁴))."""
    found = []
    for k in range(len(values)):

        def at(h, k=k):
            return function(*values[:k], values[k] + h, *values[k + 1 :])

        found.append((8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step))
    return found


UNARY = {
    "-x": (lambda x: -x, lambda x: -x),
    "exp": (lambda x: x.exp(), math.exp),
    "log": (lambda x: (x * x).log(), lambda x: math.log(x * x)),
    "sqrt": (lambda x: (x * x + 1).sqrt(), lambda x: math.sqrt(x * x + 1)),
    "tanh": (lambda x: x.tanh(), math.tanh),
    "sigmoid": (lambda x: x.sigmoid(), lambda x: 1 / (1 + math.exp(-x))),
    "relu": (lambda x: x.relu(), lambda x: max(x, 0)),
    "x + 2": (lambda x: x + 2, lambda x: x + 2),
    "2 + x": (lambda x: 2 + x, lambda x: x + 2),
    "x - 2": (lambda x: x - 2, lambda x: x - 2),
    "2 - x": (lambda x: 2 - x, lambda x: 2 - x),
    "x * 2.5": (lambda x: x * 2.5, lambda x: x * 2.5),
    "2.5 * x": (lambda x: 2.5 * x, lambda x: x * 2.5),
    "x / 4": (lambda x: x / 4, lambda x: x / 4),
    "4 / x": (lambda x: 4 / x, lambda x: 4 / x),
    "x ** 3": (lambda x: x**3, lambda x: x**3),
    "x ** -2": (lambda x: x**-2, lambda x: x**-2),
    "x ** 0": (lambda x: x**0, lambda x: 1.0),
    "x + x": (lambda x: x + x, lambda x: 2 * x),
    "x * x": (lambda x: x * x, lambda x: x * x),
    "x / x": (lambda x: x / x, lambda x: 1.0),
    "np.float64": (lambda x: np.float64(2) * x + np.float64(1), lambda x: 2 * x + 1),
}
BINARY = {
    "x + y": (lambda x, y: x + y, lambda x, y: x + y),
    "x - y": (lambda x, y: x - y, lambda x, y: x - y),
    "x * y": (lambda x, y: x * y, lambda x, y: x * y),
    "x / y": (lambda x, y: x / y, lambda x, y: x / y),
    "sum": (lambda x, y: Scalar.sum([x, y, x]), lambda x, y: x + y + x),
    "dot": (lambda x, y: Scalar.dot([x, y], [y, y]), lambda x, y: x * y + y * y),
}


def assert_right(scalar, plain, *values):
    result = scalar(*map(Scalar, values))
    assert result.data == pytest.approx(plain(*values), rel=1e-15, abs=1e-15)
    wanted = quotients(plain, *values)
    scale = max(map(abs, (*wanted, result.data, 1.0)))
    assert slopes(scalar, *values) == pytest.approx(wanted, rel=1e-8, abs=1e-9 * scale)


@pytest.mark.parametrize("name", UNARY)
@given(x=numbers)
def test_an_op_of_one_scalar_has_the_slope_of_finite_differences(name, x):
    if name in ("x ** -2", "4 / x", "log"):
        assume(abs(x) > 0.1)
    assert_right(*UNARY[name], x)


@pytest.mark.parametrize("name", BINARY)
@given(x=numbers, y=numbers)
def test_an_op_of_two_scalars_has_the_slopes_of_finite_differences(name, x, y):
    assume(abs(y) > 0.1)
    assert_right(*BINARY[name], x, y)


@given(x=positive, y=numbers)
def test_a_power_of_two_scalars(x, y):
    assert_right(lambda x, y: x**y, lambda x, y: x**y, x, y)


# --- At the limits --------------------------------------------------------------------------------


def test_powers_at_0():
    assert slopes(lambda x: x**0, 0.0) == [0.0]
    assert slopes(lambda x: x**1, 0.0) == [1.0]
    assert slopes(lambda x: x**2, 0.0) == [0.0]
    assert slopes(lambda x: x**2.0, -3.0) == [-6.0]


def test_the_square_root_at_0_has_an_infinite_slope_also_as_a_power():
    assert slopes(Scalar.sqrt, 0.0) == [math.inf]
    assert slopes(lambda x: x**0.5, 0.0) == [math.inf]


def test_a_power_of_two_scalars_at_bases_without_a_logarithm():
    assert slopes(lambda x, y: x**y, 0.0, 2.0) == [0.0, 0.0]
    to_base, to_exponent = slopes(lambda x, y: x**y, -2.0, 2.0)
    assert to_base == -4.0
    assert math.isnan(to_exponent)


def test_relu_at_0_and_of_nan():
    assert slopes(Scalar.relu, 0.0) == [0.0]
    assert Scalar(-1.0).relu().data == 0
    assert math.isnan(Scalar(math.nan).relu().data)


def test_sigmoid_and_tanh_do_not_overflow():
    for x in (-1e4, 1e4):
        assert slopes(Scalar.sigmoid, x) == [0.0]
        assert slopes(Scalar.tanh, x) == [0.0]
    assert Scalar(-700.0).sigmoid().data == pytest.approx(math.exp(-700.0), rel=1e-15)


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda: Scalar("1"), TypeError, r"Scalar: got str '1', wants a number"),
        (lambda: Scalar(None), TypeError, r"Scalar: got NoneType"),
        (lambda: Scalar(1j), TypeError, r"Scalar: got complex"),
        (lambda: Scalar(np.complex64(1j)), TypeError, r"Scalar: got complex64"),
        (lambda: Scalar(Scalar(1.0)), TypeError, r"Scalar: got Scalar"),
        (lambda: Scalar(0.0).log(), ValueError, r"log: got 0\.0, wants a positive number"),
        (lambda: Scalar(math.nan).log(), ValueError, r"log: got nan"),
        (lambda: Scalar(-1.0).sqrt(), ValueError, r"sqrt: got -1\.0, wants a number ≥ 0"),
        (lambda: Scalar(1.0) / Scalar(0.0), ZeroDivisionError, "division by zero"),
        (lambda: Scalar(1.0) + "1", TypeError, "unsupported operand"),
        (lambda: "1" * Scalar(1.0), TypeError, r"unsupported operand|can't multiply"),
        (lambda: Scalar.dot([Scalar(1.0)], []), ValueError, r"dot: got 1 and 0 terms"),
    ],
)
def test_errors(call, kind, text):
    with pytest.raises(kind, match=text):
        call()


# --- The graph ------------------------------------------------------------------------------------


def test_a_node_stores_its_parents_and_its_local_derivatives():
    a, b = Scalar(2.0), Scalar(-3.0)
    c = a * b
    assert c.parents == (a, b)
    assert c.local == (-3.0, 2.0)
    assert c.op == "×"
    assert (a.parents, a.local, a.op) == ((), (), "")


def test_the_names_that_micrograds_drawing_code_asks_for():
    a, b = Scalar(2.0), Scalar(-3.0)
    c = a + b
    assert c._prev == {a, b}
    assert (a + a)._prev == {a}
    assert c._op == "+"
    assert Scalar(1.0)._prev == set()
    assert repr(c) == "Scalar(data=-1.0, grad=0.0)"


def test_sums_and_dots_of_many_are_one_node():
    xs = [Scalar(float(k)) for k in range(100)]
    ys = [Scalar(2.0) for _ in xs]
    total, product = Scalar.sum(xs), Scalar.dot(xs, ys)
    assert len(total.parents) == 100
    assert len(product.parents) == 200
    assert all(not p.parents for p in (*total.parents, *product.parents))
    assert (total.data, product.data) == (4950.0, 9900.0)
    product.backward()
    assert [x.grad for x in xs] == [2.0] * 100
    assert [y.grad for y in ys] == [x.data for x in xs]


def test_sums_and_dots_take_numbers_beside_scalars():
    x, y = Scalar(2.0), Scalar(3.0)
    output = Scalar.dot([x, 4.0, 5], [0.5, y, 7.0])
    assert output.data == 48.0
    assert output.parents == (x, y)
    output.backward()
    assert (x.grad, y.grad) == (0.5, 4.0)
    assert Scalar.sum([x, 1, y, np.float64(0.5)]).data == 6.5
    assert Scalar.sum([x, 1]).parents == (x,)
    assert Scalar.dot([1.0], [2.0]).data == 2.0


def test_sums_and_dots_of_none():
    assert Scalar.sum([]).data == 0.0
    assert Scalar.dot([], []).data == 0.0


def test_sums_take_any_iterable_and_are_rounded_once():
    assert Scalar.sum(Scalar(x) for x in (1e100, 1.0, -1e100)).data == 1.0
    assert Scalar.dot(iter([Scalar(0.1)] * 10), iter([Scalar(1.0)] * 10)).data == 1.0


def test_a_scalar_that_is_there_twice_gets_both():
    x, y = Scalar(3.0), Scalar(5.0)
    Scalar.dot([x, x], [y, x]).backward()
    assert (x.grad, y.grad) == (11.0, 3.0)
    x.grad = 0.0
    Scalar.sum([x, x, x]).backward()
    assert x.grad == 3.0


def test_backward_of_a_leaf_is_1():
    x = Scalar(3.0)
    for times in (1.0, 2.0):
        x.backward()
        assert x.grad == times


def test_backward_twice_adds_to_the_leaves_as_on_fresh_graphs():
    def graph(a, b):
        middle = a * b
        return middle, (middle + a).tanh() * middle

    a, b = Scalar(0.5), Scalar(-0.3)
    middle, output = graph(a, b)
    output.backward()
    once = (a.grad, b.grad)
    output.backward()
    assert (a.grad, b.grad) == (2 * once[0], 2 * once[1])
    fresh = [Scalar(0.5), Scalar(-0.3)]
    for _ in range(2):
        fresh_middle, fresh_output = graph(*fresh)
        fresh_output.backward()
    assert [a.grad, b.grad] == [x.grad for x in fresh]
    assert (output.grad, middle.grad) == (1.0, fresh_middle.grad)  # of the last pass alone


@pytest.mark.parametrize("depth", [1, 10, 200])
def test_a_chain_of_diamonds_takes_each_node_once(depth):
    x = Scalar(1.0)
    y = x
    for _ in range(depth):
        y = y + y
    y.backward()
    assert x.grad == 2.0**depth


def test_a_chain_of_a_million_ops_runs_and_frees():
    x = Scalar(1.0)
    y = x
    for _ in range(1_000_000):
        y = y + 1.0
    y.backward()
    assert (y.data, x.grad) == (1_000_001.0, 1.0)
    del y


@pytest.mark.parametrize("op", [Scalar.relu, lambda y: y * y, lambda y: Scalar.sum([y, 1.0])])
def test_a_long_chain_that_was_never_run_backward_frees(op):
    y = Scalar(1.0)
    for _ in range(100_000):
        y = op(y)
    del y


def test_an_op_of_ones_own():
    def sin(x):
        return Scalar(math.sin(x.data), (x,), (math.cos(x.data),), "sin")

    assert slopes(lambda x: sin(x) * sin(x), 0.5) == [pytest.approx(math.sin(1.0), rel=1e-15)]


# --- micrograd ------------------------------------------------------------------------------------

Value = Scalar


def test_micrograds_readme():
    a = Value(-4.0)
    b = Value(2.0)
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + (b + a).relu()
    d += 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    assert f"{g.data:.4f}" == "24.7041"
    g.backward()
    assert f"{a.grad:.4f}" == "138.8338"
    assert f"{b.grad:.4f}" == "645.5773"


def test_micrograds_network_learns_xor():
    random.seed(1337)
    model = MLP(partial(Neuron, Value), 2, [8, 1])
    points = [((-1.0, -1.0), -1), ((-1.0, 1.0), 1), ((1.0, -1.0), 1), ((1.0, 1.0), -1)]

    def loss():
        losses = [(1 + -yi * model(xi)).relu() for xi, yi in points]
        return sum(losses) * (1.0 / len(losses)) + 1e-4 * sum(p * p for p in model.parameters())

    first = loss().data
    for k in range(100):
        total = loss()
        for p in model.parameters():
            p.grad = 0
        total.backward()
        for p in model.parameters():
            p.data -= (0.5 - 0.45 * k / 100) * p.grad
    assert loss().data < 0.05 < first
    assert all((model(xi).data > 0) == (yi > 0) for xi, yi in points)


def test_batch_norm_over_a_list_of_scalars_has_a_gradient_without_mean_and_without_trend():
    xs = [Scalar(x) for x in (0.3, -1.2, 2.0, 0.7)]
    mu = Scalar.sum(xs) / 4
    deviations = [x - mu for x in xs]
    var = Scalar.dot(deviations, deviations) / 4
    ys = [d / (var + 1e-5).sqrt() for d in deviations]
    weights = [Scalar(w) for w in (1.0, -2.0, 0.5, 3.0)]
    Scalar.dot(ys, weights).backward()
    gradients = np.array([x.grad for x in xs])
    x = np.array([x.data for x in xs])
    m, v, g = x.mean(), x.var(), np.array([w.data for w in weights])
    xhat = (x - m) / np.sqrt(v + 1e-5)
    wanted = (g - g.mean() - xhat * (g * xhat).mean()) / np.sqrt(v + 1e-5)
    np.testing.assert_allclose(gradients, wanted, rtol=1e-13)
    assert abs(gradients.sum()) < 1e-14
