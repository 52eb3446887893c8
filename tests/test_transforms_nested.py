"""Transforms of transforms: second and third derivatives along directions, and of norms."""

import numpy as np
import pytest
from helpers import assert_close, assert_values, grid, host, leaf, vector
from test_transforms import constant

import tinygrad_bn as tg
from tinygrad_bn import functional as F

POINT, ALONG, ACROSS = [0.3, -0.7], [1.0, 2.0], [-0.5, 0.25]


def along(function, v):
    """The derivative of a function along v."""
    return lambda x: tg.jvp(function, x, constant(*v))[1]


def test_jvp_of_jvp_of_jvp_are_the_closed_forms():
    x, found = constant(*POINT), tg.tanh
    t, v = np.tanh(POINT), np.array(ALONG)
    s = 1 - t * t
    for wanted in (s * v, -2 * t * s * v**2, s * (6 * t**2 - 2) * v**3):
        found = along(found, ALONG)
        assert_close(found(x), wanted, ulps=8)
        assert not found(x).requires_grad


def test_mixed_directions_commute():
    def function(x):
        return tg.exp(x[0] * x[1]) * tg.tanh(x)

    x = constant(*POINT)
    one = along(along(function, ALONG), ACROSS)(x)
    other = along(along(function, ACROSS), ALONG)(x)
    assert_close(one, host(other), ulps=8)


def cubic(x):
    """A function R² -> R with a full Hessian and constant third derivatives."""
    return tg.sum(x * x * x) + x[0] * x[0] * x[1]


CUBIC_HESSIAN = lambda x: np.array([[6 * x[0] + 2 * x[1], 2 * x[0]], [2 * x[0], 6 * x[1]]])  # noqa: E731


def test_four_ways_to_a_hessian_times_a_vector():
    x, v = constant(*POINT), constant(*ALONG)
    wanted = CUBIC_HESSIAN(POINT) @ ALONG

    def gradient(x):
        return tg.vjp(cubic, x)[1]

    live = vector(*POINT)
    (g,) = tg.grad(cubic(live), live, create_graph=True)
    for found in (
        tg.jvp(gradient, x, v)[1],
        tg.vjp(gradient, x, v)[1],
        tg.vjp(lambda x: tg.jvp(cubic, x, v)[1], x)[1],
        tg.grad(g, live, v)[0],
    ):
        assert_close(found, wanted)


def test_the_jacobian_of_a_gradient_is_the_hessian_and_so_on():
    x = constant(*POINT)
    wanted = CUBIC_HESSIAN(POINT)
    assert_close(tg.jacobian(lambda x: tg.jacobian(cubic, x), x), wanted)
    assert_close(tg.hessian(cubic, x), wanted)
    third = tg.jacobian(lambda x: tg.hessian(cubic, x), x)
    assert_values(third, 6.0, 2.0, 2.0, 0.0, 2.0, 0.0, 0.0, 6.0)
    fourth = tg.hessian(lambda x: tg.sum(tg.hessian(lambda x: tg.sum(x * x * x * x), x)), x)
    assert_values(fourth, 24.0, 0.0, 0.0, 24.0)


def test_a_tangent_and_a_gradient_can_be_trained():
    w = leaf(grid((2, 2)))
    x, v = constant(*POINT), constant(*ALONG)

    def penalty(w):
        _, tangent = tg.jvp(lambda x: tg.tanh(x @ w), x, v)
        return tg.sum(tangent * tangent)

    assert tg.check.gradcheck(penalty, [w], atol=1e-8, rtol=1e-7)
    assert tg.check.gradgradcheck(penalty, [w], atol=1e-8, rtol=1e-7)


def test_a_transform_inside_no_grad_inside_another_is_a_constant():
    def function(x):
        with tg.no_grad():
            slope = tg.vjp(tg.sum, x * x)[1] + tg.jvp(lambda t: t * t, x, x)[1]
        return slope * x

    assert_values(tg.jvp(function, constant(3.0), constant(1.0))[1], 19.0)  # 1 + 2x²


@pytest.mark.parametrize("shape", [(5, 2), (3, 2, 2)])
@pytest.mark.parametrize("affine", [False, True])
def test_nested_tangents_of_the_fused_norm_are_those_of_the_composed_one(shape, affine):
    x, v, u, c = (tg.tensor(grid(shape, seed=k)) for k in range(4))
    gamma = [tg.tensor(grid((2,), seed=k)) for k in (4, 5)] if affine else [None, None]

    def norm(impl):
        return lambda x: F.batch_norm(x, None, None, *gamma, training=True, eps=1e-3, impl=impl)

    def jvp_of_jvp(function):
        return tg.jvp(lambda x: tg.jvp(function, x, v)[1], x, u)[1]

    def gradient(function):
        return lambda x: tg.vjp(lambda x: tg.sum(function(x) * function(x) * c), x)[1]

    def jvp_of_grad(function):
        return tg.jvp(gradient(function), x, v)[1]

    def grad_of_jvp(function):
        return tg.vjp(lambda x: tg.jvp(function, x, v)[1], x, u)[1]

    def jvp_of_jvp_of_grad(function):
        return tg.jvp(lambda x: tg.jvp(gradient(function), x, v)[1], x, u)[1]

    for nest, bound in (
        (jvp_of_jvp, 1e-12),
        (jvp_of_grad, 1e-12),
        (grad_of_jvp, 1e-12),
        (jvp_of_jvp_of_grad, 1e-10),
    ):
        fused, composed = (host(nest(norm(impl))) for impl in ("fused", "composed"))
        assert np.abs(composed).max() > 0.01
        assert np.abs(fused - composed).max() <= bound * np.abs(composed).max()
