"""Derivatives of derivatives: closed forms to order 4, and random programs."""

import itertools

import numpy as np
import pytest
from helpers import assert_close, assert_values, grid, host, leaf, vector
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_bn as tg
from tinygrad_bn.check import gradcheck, gradgradcheck

POINTS = np.array([-1.5, -0.3, 0.4, 2.0])


def derivatives(function, x, orders):
    """The derivatives of an elementwise function at x, from order 0."""
    found = [function(x)]
    for _ in range(orders):
        found += tg.grad(tg.sum(found[-1]), x, create_graph=True)
    return found


def tanh_forms(x):
    t = np.tanh(x)
    s = 1 - t * t
    return [t, s, -2 * t * s, s * (6 * t**2 - 2), s * (16 * t - 24 * t**3)]


def sigmoid_forms(x):
    s = 1 / (1 + np.exp(-x))
    d = s * (1 - s)
    return [s, d, d * (1 - 2 * s), d * (1 - 6 * d), d * (1 - 2 * s) * (1 - 12 * d)]


CLOSED_FORMS = {
    "x**5": (lambda x: x**5, lambda x: [x**5, 5 * x**4, 20 * x**3, 60 * x**2, 120 * x]),
    "x*x*x*x": (lambda x: x * x * x * x, lambda x: [x**4, 4 * x**3, 12 * x**2, 24 * x, 24 + 0 * x]),
    "exp": (tg.exp, lambda x: [np.exp(x)] * 5),
    "2**x": (lambda x: 2**x, lambda x: [2**x * np.log(2) ** k for k in range(5)]),
    "tanh": (tg.tanh, tanh_forms),
    "sigmoid": (tg.sigmoid, sigmoid_forms),
    "1/x": (lambda x: 1 / x, lambda x: [1 / x, -1 / x**2, 2 / x**3, -6 / x**4, 24 / x**5]),
    "log": (
        lambda x: tg.log(x * x) / 2,
        lambda x: [np.log(np.abs(x)), 1 / x, -1 / x**2, 2 / x**3, -6 / x**4],
    ),
    "sqrt": (
        lambda x: tg.sqrt(tg.abs(x)) * tg.abs(x),  # |x|^(3/2)
        lambda x: [
            *(np.abs(x) ** 1.5, 1.5 * np.sign(x) * np.abs(x) ** 0.5, 0.75 * np.abs(x) ** -0.5),
            *(-0.375 * np.sign(x) * np.abs(x) ** -1.5, 0.5625 * np.abs(x) ** -2.5),
        ],
    ),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_derivatives_to_order_4_are_the_closed_forms(name):
    function, forms = CLOSED_FORMS[name]
    for got, wanted in zip(derivatives(function, leaf(POINTS), 4), forms(POINTS), strict=True):
        assert_close(got, wanted, ulps=16)


def test_a_polynomial_ends_after_its_degree():
    found = derivatives(lambda x: x * x, leaf(POINTS), 2)
    assert_values(found[2], *np.full(4, 2.0))
    assert not found[2].requires_grad


def test_mixed_derivatives_do_not_depend_on_their_order():
    def function(x, y):
        return tg.exp(x * y) * tg.tanh(x + y)

    x, y = vector(0.3, -0.7), vector(1.1, 0.4)
    found = {}
    for order in set(itertools.permutations([0, 0, 1, 1])):
        f = tg.sum(function(x, y))
        for k in order:
            (f,) = tg.grad(f, (x, y)[k], create_graph=True)
            f = tg.sum(f)
        found[order] = f.item()
    assert len(found) == 6
    np.testing.assert_allclose(list(found.values()), found[(0, 0, 1, 1)], rtol=1e-13)


def test_the_gradient_of_a_gradient_norm_reaches_the_weights():
    def penalty(x, w):
        (dx,) = tg.grad(tg.sum(tg.tanh(x @ w)), x, create_graph=True)
        return tg.sum(dx * dx)

    x, w = leaf(grid((2, 3))), leaf(grid((3, 2), seed=1))
    assert gradcheck(penalty, [x, w], atol=1e-8, rtol=1e-7)
    penalty(x, w).backward()
    wanted = tg.grad(penalty(x, w), [x, w])
    for got, want in zip((x.grad, w.grad), wanted):
        np.testing.assert_array_equal(host(got), host(want))


def test_the_gradient_may_be_differentiated_by_the_gradient_at_the_output():
    x, v = vector(1.0, 2.0), vector(3.0, 5.0)
    (dx,) = tg.grad(x * x, x, v, create_graph=True)  # 2 x v
    dx_dx, dx_dv = tg.grad(dx, [x, v], tg.tensor([1.0, 1.0]))
    assert_values(dx_dx, 6.0, 10.0)
    assert_values(dx_dv, 2.0, 4.0)


def test_backward_and_grad_record_nothing_of_themselves():
    x = vector(2.0)
    y = x * x * x
    assert not tg.grad(y, x, retain_graph=True)[0].requires_grad
    y.backward()
    assert not x.grad.requires_grad


def test_create_graph_records_inside_no_grad_too():
    x = vector(2.0)
    y = x * x * x
    with tg.no_grad():
        (dx,) = tg.grad(y, x, create_graph=True)
    assert_values(tg.grad(dx, x)[0], 12.0)


def test_multi_output_ops_have_all_orders():
    @tg.op(
        "sine and cosine",
        joint=lambda gs, outs, _x, needs: [
            (0.0 if gs[0] is None else gs[0] * outs[1])
            - (0.0 if gs[1] is None else gs[1] * outs[0])
        ],
        outputs=("sine", "cosine"),
    )
    def sine_and_cosine(xp, x):
        return xp.sin(x), xp.cos(x)

    sine, cosine = np.sin(POINTS), np.cos(POINTS)
    for got, wanted in zip(
        derivatives(lambda x: sine_and_cosine(x)[0], leaf(POINTS), 5),
        (sine, cosine, -sine, -cosine, sine, cosine),
        strict=True,
    ):
        assert_close(got, wanted, ulps=1)


# --- Random programs ------------------------------------------------------------------------------

SMOOTH = {
    "add": tg.add,
    "sub": tg.sub,
    "mul": lambda x, y: tg.tanh(x * y),
    "div": lambda x, y: x / (y * y + 2.0),
    "pow": lambda x, y: tg.pow(tg.sigmoid(x) + 0.5, tg.tanh(y)),
    "exp": lambda x, _y: tg.exp(tg.tanh(x)),
    "log": lambda x, _y: tg.log(x * x + 1.0),
    "sqrt": lambda x, _y: tg.sqrt(x * x + 1.0),
    "softmax": lambda x, _y: tg.softmax(x),
    "log_softmax": lambda x, _y: tg.log_softmax(x, axis=0),
    "logsumexp": lambda x, y: tg.logsumexp(x, axis=1, keepdims=True) - y,
    "mean": lambda x, y: x - tg.mean(y, axis=0),
    "var": lambda x, y: x * tg.sigmoid(tg.var(y, axis=1, keepdims=True)),
    "matmul": lambda x, y: tg.tanh(tg.matmul(tg.matmul(x, tg.transpose(y)), y)),
    "linear": lambda x, y: tg.tanh(tg.linear(x, tg.concatenate([y, x[:1]]), y[0])),
    "rows": lambda x, y: tg.concatenate([x[[1, 1]], y])[::2],
    "stack": lambda x, y: tg.sum(tg.stack([x, y, x], axis=1), axis=1),
    "split": lambda x, y: tg.concatenate(tg.split(x, [1], axis=1)[::-1], axis=1) - y,
    "reshape": lambda x, y: tg.reshape(tg.transpose(x), (2, 3)) + y,
}
KINKED = {
    "relu": lambda x, _y: tg.relu(x),
    "abs": lambda x, _y: tg.abs(x),
    "maximum": tg.maximum,
    "minimum": tg.minimum,
    "where": lambda x, y: tg.where(tg.greater(x, 0.1), x, y),
    "max": lambda x, y: x + tg.max(y, axis=0),
    "min": lambda x, y: x - tg.min(y, axis=1, keepdims=True),
}
ALL = SMOOTH | KINKED


def programs(ops):
    """Steps: an op, and which earlier results it takes (counted from the last)."""
    step = st.tuples(st.sampled_from(sorted(ops)), st.integers(0, 4), st.integers(0, 4))
    return st.lists(step, min_size=1, max_size=10)


def run(program, x, y):
    """The last result, of shape (2, 3), for x (2, 3) and y (3,)."""
    results = [x, x * y]
    for op, i, j in program:
        results.append(ALL[op](results[-1 - i % len(results)], results[-1 - j % len(results)]))
    return results[-1] + y * 0.5


@given(programs(ALL), st.sampled_from([np.float32, np.float64]))
def test_an_array_pass_and_a_recorded_pass_give_the_same_bits(program, dtype):
    inputs = [leaf(grid(shape, seed=k).astype(dtype)) for k, shape in enumerate([(2, 3), (3,)])]
    seed = tg.tensor(grid((2, 3), seed=2).astype(dtype))
    y = run(program, *inputs)
    recorded = tg.grad(y, inputs, seed, create_graph=True, allow_unused=True)
    plain = tg.grad(y, inputs, seed, retain_graph=True, allow_unused=True)
    for got, wanted in zip(recorded, plain, strict=True):
        assert (got is None) == (wanted is None)
        if got is not None:
            assert got.dtype == wanted.dtype == dtype
            np.testing.assert_array_equal(host(got), host(wanted))
    y.backward(seed)
    for x, wanted in zip(inputs, plain, strict=True):
        if wanted is not None:
            np.testing.assert_array_equal(host(x.grad), host(wanted))


@given(programs(SMOOTH))
def test_the_first_two_derivatives_of_a_program_are_those_of_finite_differences(program):
    inputs = [leaf(grid((2, 3), -1, 1)), leaf(grid((3,), -1, 1, seed=1))]
    weights = tg.tensor(grid((2, 3), seed=2))

    def total(x, y):
        return tg.sum(run(program, x, y) * weights)

    assert gradcheck(total, inputs, atol=1e-7, rtol=1e-6)
    assert gradgradcheck(total, inputs, atol=1e-7, rtol=1e-6)
