"""An op that a user writes: what its rules are given, and what the engine checks."""

import numpy as np
import pytest
from helpers import assert_values, grid, host, leaf, share_memory, vector

import tinygrad_bn as tg
from tinygrad_bn.check import gradcheck, gradgradcheck, held_bytes


@tg.op("hypot", lambda g, out, x, _y: g * x / out, lambda g, out, _x, y: g * y / out)
def hypot(xp, x, y):
    """√(x² + y²)"""
    return xp.hypot(x, y)


def test_a_users_op_is_like_ours():
    x, y = leaf(grid((2, 3))), leaf(grid((3,), seed=1))
    assert gradcheck(hypot, [x, y], atol=1e-8, rtol=1e-7)
    assert gradgradcheck(hypot, [x, y], atol=1e-8, rtol=1e-7)
    assert not isinstance(hypot(x.data, y.data), tg.Tensor)
    assert hypot.__doc__ == "√(x² + y²)"
    assert repr(hypot) == "<op hypot (x, y)>"
    assert hypot.label == "hypot"


@pytest.mark.parametrize(
    ("rule", "got"),
    [
        (lambda g, _out, _x: tg.sum(g), "float64[]"),
        (lambda g, _out, _x: g[:2], "float64[2]"),
        (lambda g, _out, _x: g[:, None], "float64[3, 1]"),
        (lambda g, _out, _x: 2.0, "2.0"),
    ],
)
@pytest.mark.parametrize("create_graph", [False, True])
def test_a_rule_of_the_wrong_shape_raises_and_names_the_op(rule, got, create_graph):
    @tg.op("wrong", rule)
    def wrong(xp, x):
        return x * 2.0

    x = vector(1.0, 2.0, 3.0)
    with pytest.raises(RuntimeError, match="wrong: the gradient rule for argument 0") as caught:
        tg.grad(wrong(x), x, tg.ones_like(x), create_graph=create_graph)
    text = str(caught.value)
    device = "" if x.device == "cpu" or got == "2.0" else " on cuda:0"
    assert text.endswith(f"returned {got}{device}, wants float64[3]")


def test_the_engine_sums_over_what_was_broadcast_and_casts():
    @tg.op("plus", lambda g, _out, _x, _y: g, lambda g, _out, _x, _y: g)
    def plus(xp, x, y):
        return x + y

    x, y = leaf(np.ones((2, 1), np.float16)), leaf(np.ones((4, 1, 3), np.float32))
    gx, gy = tg.grad(tg.sum(plus(x, y)), [x, y])
    assert (gx.dtype, gy.dtype) == (np.float16, np.float32)
    np.testing.assert_array_equal(host(gx), np.full((2, 1), 12))
    np.testing.assert_array_equal(host(gy), np.full((4, 1, 3), 2))


def test_options_reach_the_forward_and_the_rule_by_position_and_by_name():
    @tg.op("power", lambda g, _out, x, n=2, scale=1.0: g * (scale * n) * x ** (n - 1))
    def power(xp, x, *, n=2, scale=1.0):
        return scale * x**n

    x = vector(3.0)
    for call, wanted in (
        (lambda: power(x), 6.0),
        (lambda: power(x, n=3), 27.0),
        (lambda: power(x, 3, 2.0), 54.0),
        (lambda: power(x=x, scale=2.0), 12.0),
    ):
        assert_values(tg.grad(call(), x)[0], wanted)
    with pytest.raises(TypeError, match="power: got an unexpected keyword argument 'm'"):
        power(x=x, m=1)


def test_an_argument_without_a_rule_gets_no_gradient():
    @tg.op("left", lambda g, _out, _x, y: g * y, None)
    def left(xp, x, y):
        return x * y

    x, y = vector(3.0), vector(5.0)
    dx, dy = tg.grad(left(x, y), [x, y], allow_unused=True)
    assert_values(dx, 5.0)
    assert dy is None


@pytest.mark.parametrize("wanted", [[0], [1], [0, 1]])
def test_a_joint_rule_is_told_which_gradients_are_needed(wanted):
    told = []

    def rule(g, _out, x, y, *, needs):
        told.append(tuple(needs))
        return g * y if needs[0] else None, g * x if needs[1] else None

    @tg.op("times", joint=rule)
    def times(xp, x, y):
        return x * y

    arrays = [np.array([3.0]), np.array([5.0])]
    inputs = [(leaf if k in wanted else tg.tensor)(a) for k, a in enumerate(arrays)]
    gradients = tg.grad(times(*inputs), [inputs[k] for k in wanted])
    assert [g.item() for g in gradients] == [arrays[1 - k].item() for k in wanted]
    both = [leaf(a) for a in arrays]
    tg.grad(times(*both), [both[k] for k in wanted])  # asked for, though all could have one
    assert told == [tuple(k in wanted for k in (0, 1))] * 2


def test_a_joint_rule_that_returns_too_few_gradients_raises():
    @tg.op("short", joint=lambda g, _out, _x, _y, needs: [g])
    def short(xp, x, y):
        return x + y

    x, y = vector(1.0), vector(2.0)
    with pytest.raises(RuntimeError, match=r"short: .*gradient"):
        short(x, y).backward()


def test_a_rule_may_return_one_array_for_two_arguments():
    @tg.op("plus", joint=lambda g, _out, _x, _y, needs: [g, g])
    def plus(xp, x, y):
        return x + y

    x, y = vector(1.0, 2.0), vector(3.0, 4.0)
    for total in (2.0, 4.0):
        plus(x, y).backward(tg.tensor(np.full(2, 2.0)))
        assert_values(x.grad, total, total)
    assert not share_memory(x.grad, y.grad)
    x.grad = y.grad = None
    (plus(x, x) + plus(x, y)).sum().backward()
    assert_values(x.grad, 3.0, 3.0)
    assert_values(y.grad, 1.0, 1.0)


def test_a_variadic_op_takes_a_list_and_keeps_what_its_rule_reads():
    def rule(g, _out, *_arrays, needs, weights):
        return [g * w for w in weights]

    @tg.op("combination", joint=rule, variadic=True)
    def combination(xp, *arrays, weights):
        return sum(w * a for w, a in zip(weights, arrays))

    x, y = vector(1.0), vector(10.0)
    total = combination([x, y, x], weights=(1.0, 2.0, 4.0))
    assert_values(total, 25.0)
    assert held_bytes([total]) == 0
    assert [g.item() for g in tg.grad(total, [x, y])] == [5.0, 2.0]
    arrays = combination([x.data, y.data], weights=(1.0, 1.0))
    assert not isinstance(arrays, tg.Tensor)


def test_an_op_with_two_outputs_gives_none_where_no_gradient_arrives():
    told = []

    def rule(gs, outs, x, *, needs):
        told.append([g is not None for g in gs])
        assert outs[0] is None  # its name has an underscore
        total = 0.0
        for g, slope in zip(gs, (2.0 * x, outs[1])):
            total = total + g * slope if g is not None else total
        return [total]

    @tg.op("square and exp", joint=rule, outputs=("_square", "exp"))
    def square_and_exp(xp, x):
        return x * x, xp.exp(x)

    x = vector(3.0)
    square, exp = square_and_exp(x)
    for output, wanted in ((square, 6.0), (exp, np.exp(3.0)), (square + exp, 6 + np.exp(3.0))):
        assert_values(tg.grad(output, x, retain_graph=True)[0], wanted)
    assert told == [[True, False], [False, True], [True, True]]
    (twice,) = tg.grad(square * square + exp + exp, x)  # sums at each output
    assert_values(twice, 108.0 + 2 * np.exp(3.0))
    assert gradgradcheck(square_and_exp, [vector(0.5)], atol=1e-8, rtol=1e-7)


def test_an_output_that_is_no_float_has_no_gradient():
    @tg.op("top", joint=lambda gs, _outs, _x, needs: [gs[0]], outputs=("_value", "_at"))
    def top(xp, x):
        return x + 0.0, xp.argmax(x, axis=0)

    value, at = top(vector(1.0, 2.0))
    assert value.requires_grad
    assert not at.requires_grad


@pytest.mark.parametrize(
    "rules",
    [
        [lambda g, _out, _x, _y: g],  # one rule for two arguments
        [lambda g, x, y: g * x, lambda g, x, y: g * y],  # out is forgotten
    ],
)
def test_a_missing_rule_or_parameter_is_found_when_the_op_is_made(rules):
    with pytest.raises(TypeError, match=r"product: wants a rule \(g, out, x, y\) for each"):

        @tg.op("product", *rules)
        def product(xp, x, y):
            return x * y


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_rule_may_make_a_tensor_of_its_own(create_graph):
    @tg.op("twice", lambda g, _out, _x: g * tg.full((), 2.0, dtype=np.float64))
    def twice(xp, x):
        return x * 2.0

    x = vector(1.0)
    (g,) = tg.grad(twice(x), x, create_graph=create_graph)
    assert_values(g, 2.0)


def test_an_op_may_have_no_rule_for_any_argument():
    @tg.op("floor", None)
    def floor(xp, x):
        return xp.floor(x)

    assert not floor(vector(1.5)).requires_grad


def test_a_label_is_wanted():
    with pytest.raises(TypeError, match="op: got function as its label"):
        tg.op(lambda xp, x: x)


def test_an_argument_that_is_not_kept_cannot_be_computed_with():
    @tg.op("square", lambda g, _out, _x: g * 2.0 * _x)
    def square(xp, x):
        return x * x

    x = vector(1.0, 2.0)
    with pytest.raises(TypeError, match="Like"):
        tg.grad(square(x).sum(), x)
