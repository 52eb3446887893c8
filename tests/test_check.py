"""The checkers: they pass what is right, and name what is wrong."""

import math

import numpy as np
import pytest
from helpers import host, leaf

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn
from tinygrad_bn.check import compare, gradcheck, gradgradcheck, held_bytes


@tg.op("wrong", lambda g, _out, x: g * x)
def half_a_square(xp, x):
    return x * x


def test_a_wrong_gradient_is_named_with_both_numbers():
    with pytest.raises(
        AssertionError,
        match=r"output 0, element 0, by inputs\[0\]\[0\]: the gradient is 2, the .* quotient 4",
    ):
        gradcheck(half_a_square, [leaf(np.array([2.0, 3.0]))])


def test_a_constant_in_a_rule_passes_the_first_order_and_fails_the_second():
    @tg.op("constant", lambda g, _out, x: g * 2.0 * (x.data if isinstance(x, tg.Tensor) else x))
    def square(xp, x):
        return x * x

    x = leaf(np.array([2.0, 3.0]))
    assert gradcheck(square, [x])
    with pytest.raises(AssertionError, match="difference quotient"):
        gradgradcheck(square, [x])


def test_several_inputs_outputs_and_constants():
    def function(x, c, y):
        return x * c + y, (x * y).sum(), tg.argmax(x)

    inputs = [leaf(np.array([1.0, 2.0])), tg.tensor([3.0, 4.0]), leaf(np.array(0.5))]
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


def test_the_checkers_want_float64_inputs_that_require_a_gradient():
    with pytest.raises(ValueError, match="inputs: got none"):
        gradcheck(tg.exp, [tg.ones(2)])
    with pytest.raises(ValueError, match=r"inputs\[0\]: got float32, wants float64"):
        gradcheck(tg.exp, [leaf(np.ones(2, np.float32))])
    with pytest.raises(ValueError, match="inputs: got none"):
        compare(tg.exp, tg.exp, tg.ones(2))


def test_held_bytes_counts_each_storage_once_and_the_callers_inputs_not_at_all():
    x = leaf(np.ones(100))
    assert held_bytes([x + 1.0 + 2.0]) == 0
    y = x * x
    assert held_bytes([y]) == 800
    assert held_bytes([y], [x]) == 0
    assert held_bytes([tg.exp(y) * tg.exp(y)], [x]) == 2 * 800


def test_a_conversion_is_compared_and_the_arrays_it_makes_are_held(capsys):
    x = leaf(np.ones(100, np.float16))
    y = x.astype(np.float32)
    assert held_bytes([y], [x]) == 0
    assert held_bytes([y * y], [x]) == 400
    values = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float16)
    norms = [lambda x, impl=impl: F.layer_norm(x, 4, impl=impl) for impl in ("composed", "fused")]
    found = compare(*norms, leaf(values), order=1, repeat=1)
    assert found.held[0] > found.held[1] > 0
    assert 0 < max(found.differences) < 4e-3  # two roundings of float16


def test_compare_counts_a_dependence_that_ends_too_early(capsys):
    x = leaf(np.array([1.0, 2.0]))
    found = compare(lambda x: x * x, lambda x: x * 2.0, x, order=2)
    assert found.differences[2] == 1.0  # the second derivative of 2x is gone


def test_a_gradient_that_is_cut_off_is_found():
    x = leaf(np.array([2.0]))
    with pytest.raises(AssertionError, match="the gradient is 0, the difference quotient 4"):
        gradcheck(lambda x: x.detach() * x.detach(), [x])

    @tg.op("cut", lambda g, _out, x: g * 2.0 * (x.detach() if hasattr(x, "detach") else x))
    def square(xp, x):
        return x * x

    assert gradcheck(square, x)
    with pytest.raises(AssertionError, match="difference quotient"):
        gradgradcheck(square, x)


def test_nan_is_a_difference():
    x = leaf(np.array([1.0, 2.0]))
    nan = float("nan")
    found = compare(lambda x: (x, x * 1.0), lambda x: (x, x * nan), x, order=1)
    assert found.differences == (math.inf, math.inf)


def test_checking_a_training_step_moves_no_statistics():
    layer = nn.BatchNorm1d(2, dtype=np.float64, momentum=None)
    before = {k: host(v) for k, v in layer.state_dict().items()}
    x = leaf(np.random.default_rng(0).standard_normal((4, 2)))
    assert gradcheck(layer, x)
    assert gradgradcheck(layer, x)
    compare(layer, layer, x, order=1)
    assert all((host(v) == before[k]).all() for k, v in layer.state_dict().items())


def test_held_bytes_counts_an_index():
    x = leaf(np.ones(10))
    assert held_bytes([x[tg.zeros(1000, dtype=np.int64)]], [x]) == 8000


def test_nothing_to_differentiate_is_said():
    x = leaf(np.array([1.0]))
    with pytest.raises(ValueError, match="outputs: got none"):
        tg.grad([], x)
    with pytest.raises(ValueError, match="outputs: got none"):
        gradgradcheck(lambda x: x.detach(), [x])
