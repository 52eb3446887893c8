"""detect_anomaly: who made the first NaN or infinity, forward or backward, recorded where."""

import inspect
import re

import numpy as np
import pytest
from helpers import assert_values, leaf, vector
from test_engine_memory import cyclic_garbage

import tinygrad_bn as tg
from tinygrad_bn import nn, recording

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
NAN, INF = np.nan, np.inf


def line(function):
    """Where a lambda stands, as an error tells it."""
    return f"{__file__}:{function.__code__.co_firstlineno}"


def anomaly(function):
    """What detect_anomaly says of a call."""
    with pytest.raises(FloatingPointError) as caught, tg.detect_anomaly():
        function()
    return str(caught.value)


def on_device(text):
    """A text that describes arrays, as it is on the device under test."""
    where = "" if tg.get_default_device() == "cpu" else " on cuda:0"
    return re.sub(r"(float64\[[\d, ]*\])", rf"\1{where}", text)


FORWARD = [
    (
        lambda: tg.log(vector(1.0, 0.0, 0.0)),
        "log(float64[3]): its result is -inf at [1], though its arguments are finite",
    ),
    (
        lambda: vector(1.0, 0.0) / vector(1.0, 0.0),
        "div(float64[2], float64[2]): its result is nan at [1], though no argument has a NaN",
    ),
    (
        lambda: tg.exp(leaf(np.full((2, 2), 1000.0))),
        "exp(float64[2, 2]): its result is inf at [0, 0], though its arguments are finite",
    ),
    (
        lambda: vector(1.0) * INF - vector(1.0) * INF,  # the infinities were put in
        "sub(float64[1], float64[1]): its result is nan at [0], though no argument has a NaN",
    ),
    (
        lambda: vector(1.0, 2.0) + tg.tensor(np.array([0.0, NAN])),
        "add(float64[2], float64[2]): a NaN came in with argument 1, at [1]",
    ),
    (
        lambda: vector(1.0, 2.0) * NAN,
        "mul(float64[2], nan): a NaN came in with argument 1, at []",
    ),
    (
        lambda: tg.sum(leaf(np.array([[1e308, 1e308]]))),
        "sum(float64[1, 2]): its result is inf at [], though its arguments are finite",
    ),
    (
        lambda: tg.norm.fused.normalize(leaf(np.ones((2, 2))), None, None, axes=(0,), eps=0.0),
        "(float64[2, 2], None, None): result 0 is nan at [0, 0], though no argument has a NaN",
    ),
]


@pytest.mark.parametrize(("function", "message"), FORWARD)
def test_the_first_op_that_makes_one_is_named_with_its_arguments_and_line(function, message):
    first, second = anomaly(function).split("\n")
    assert first.endswith(on_device(message))
    assert second == f"  recorded at {line(function)}"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x**0.5, "pow(float64[2], 0.5): the gradient at argument 0 is inf at [1]"),
        (
            lambda x: tg.sqrt(x[1]),
            "sqrt(float64[]): the gradient at argument 0 is inf at []",
        ),
        (
            lambda x: x * 1e-200 * 1e200 * 1e200,
            "mul(float64[2], 1e+200): the gradient at argument 0",
        ),
    ],
)
def test_a_gradient_rule_that_makes_one_is_named(function, message):
    x = vector(1.0, 0.0)
    text = anomaly(lambda: tg.grad(tg.sum(function(x)), x, np.float64(1e200)))
    assert text.startswith("the gradient rule of " + on_device(message))


@pytest.mark.parametrize("create_graph", [False, True])
def test_the_first_gradient_rule_that_makes_one_is_named_with_its_forward_line(create_graph):
    def sqrt():
        return tg.sqrt(x * 1.0), f"{__file__}:{inspect.currentframe().f_lineno}"

    x = vector(1.0, 0.0)
    with tg.detect_anomaly():
        y, where = sqrt()
    text = anomaly(lambda: tg.grad(tg.sum(y * 2.0), x, create_graph=create_graph))
    assert text == (
        f"the gradient rule of {on_device('sqrt(float64[2])')}: the gradient at argument 0 is inf "
        f"at [1], though that at its result is finite\n  recorded at {where}"
    )


def test_a_gradient_rule_of_several_outputs_and_arguments():
    def rule(gs, _outs, _x, _y, needs):
        return [gs[1], gs[1] * NAN]

    @tg.op("two", joint=rule, outputs=("_a", "_b"))
    def two(xp, x, y):
        return x + y, x - y

    x, y = vector(1.0), vector(2.0)
    text = anomaly(lambda: two(x, y)[1].backward())
    assert "two(" in text
    assert "the gradient at argument 1 is nan at [0], though that at its result has no NaN" in text
    assert x.grad is None
    with tg.detect_anomaly():
        tg.grad(two(x, y)[1], x)  # the other rule's answer is not wanted


def test_what_was_recorded_outside_has_no_line():
    y = tg.sqrt(vector(0.0))
    text = anomaly(lambda: y.backward())
    assert text.startswith("the gradient rule of sqrt(…): the gradient at argument 0 is inf")
    assert text.endswith("(it was recorded outside, so its line is not known)")


class Log(nn.Module):
    def forward(self, x):
        return tg.log(x)


def test_the_module_is_named():
    net = nn.Sequential(nn.Linear(2, 2), Log())
    text = anomaly(lambda: net(tg.zeros(1, 2) * NAN))
    assert text.endswith(", in Sequential.0:Linear")
    text = anomaly(lambda: nn.Sequential(Log())(vector(0.0)))
    assert text.endswith(", in Sequential.0:Log")


@pytest.mark.parametrize(
    "function",
    [
        lambda: tg.softmax(vector(1.0, 2.0) + tg.tensor([0.0, -INF])),  # a mask
        lambda: tg.maximum(vector(1.0), -INF),
        lambda: tg.where(tg.tensor([True, False]), vector(1.0, 2.0), INF),
        lambda: tg.log(tg.zeros(1)),  # not recorded
        lambda: tg.exp(vector(1.0)) > NAN,
        lambda: tg.grad(tg.sum(tg.exp(x := vector(1.0))), x, tg.tensor(NAN)),  # it was put in
        lambda: tg.argmax(tg.zeros((0, 3)), axis=1),
    ],
)
def test_what_was_put_in_and_what_is_not_recorded_passes(function):
    with tg.detect_anomaly():
        function()


def test_an_infinite_gradient_that_was_put_in_passes_and_a_nan_made_of_it_does_not():
    x, y, infinite = vector(1.0), vector(0.0), tg.tensor(np.array([INF]))
    with tg.detect_anomaly():
        assert_values(tg.grad(x * 2.0, x, infinite)[0], INF)
    text = anomaly(lambda: tg.grad(x * y, x, infinite))
    assert "is nan at [0], though that at its result has no NaN" in text


def test_in_a_checkpoint_and_under_a_transform():
    x = vector(0.0)
    assert "the gradient rule of sqrt" in anomaly(lambda: tg.checkpoint(tg.sqrt, x).backward())
    assert "log(" in anomaly(lambda: tg.checkpoint(tg.log, x))
    assert "log(" in anomaly(lambda: tg.jacobian(tg.log, x.detach()))
    assert "rule of sqrt" in anomaly(lambda: tg.vjp(tg.sqrt, x))


def test_outside_nothing_is_looked_at_and_after_an_error_neither():
    anomaly(lambda: tg.log(vector(0.0)))
    assert recording.guard.get() is None
    assert recording.journals.get() == ()
    y = tg.log(vector(0.0))
    assert y.node.trace is None
    y.backward()


def test_it_is_a_decorator_and_nests():
    @tg.detect_anomaly()
    def function(x):
        with tg.detect_anomaly():
            y = tg.exp(x)
        return tg.log(y * 0.0)

    for _ in range(2):
        with pytest.raises(FloatingPointError, match=r"^log\(.* is -inf"):
            function(vector(1.0))


def test_an_error_leaves_no_reference_cycle():
    def function():
        for wrong in (tg.log, lambda x: tg.sqrt(x).backward()):
            with pytest.raises(FloatingPointError), tg.detect_anomaly():
                wrong(vector(0.0))

    assert not {"Node", "Tensor", "ndarray"} & set(cyclic_garbage(function))
