"""The norms, composed and fused: what they promise each other at every order, what they keep."""

import math
from typing import NamedTuple

import numpy as np
import pytest
from helpers import host, leaf
from hypothesis import given
from hypothesis import strategies as st
from norm_members import arranged, call, parameters

import tinygrad_bn as tg
from tinygrad_bn.check import compare, gradcheck, gradgradcheck, held_bytes
from tinygrad_bn.norm import IMPLEMENTATIONS, composed, fused
from tinygrad_bn.norm.axes import FAMILY


class Problem(NamedTuple):
    """Inputs of `normalize`; γ and β None where they are not wanted."""

    x: np.ndarray
    gamma: np.ndarray | None
    beta: np.ndarray | None
    options: dict

    def leaves(self):
        return [None if v is None else leaf(v) for v in (self.x, self.gamma, self.beta)]


@st.composite
def problems(draw):
    """Any axes, γ and β along any axes, centred or not: the family and all its relatives. At least
    three values share statistics, and their mean is within ten std."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    axes = tuple(i for i in range(len(shape)) if draw(st.booleans())) or (0,)
    while math.prod(shape[i] for i in axes) < 3:
        shape[axes[0]] += 1
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = random.standard_normal(shape)
    x += random.uniform(-10, 10, [1 if i in axes else n for i, n in enumerate(shape)])
    if draw(st.booleans()):
        x = np.repeat(x, 2, axis=-1)[..., ::2]  # not contiguous

    def parameter():
        varies = [n if draw(st.booleans()) else 1 for n in shape]
        return random.standard_normal(varies) if draw(st.booleans()) else None

    options = {"axes": axes, "eps": 1e-3, "centred": draw(st.booleans())}
    return Problem(x, parameter(), parameter(), options)


def gradient_chain(norm, problem, with_statistics):
    """The gradients of orders 1 to 4, each of a fixed random combination of the last."""
    random = np.random.default_rng(7)
    given_ = problem.leaves()
    inputs = [v for v in given_ if v is not None]
    y, mu, var = norm.normalize(*given_, **problem.options)
    statistics = [mu, var] if problem.options["centred"] else [var]
    current, chain = [y, *statistics] if with_statistics else [y], []
    for _ in range(4):
        total = sum(tg.sum(t * tg.tensor(random.standard_normal(t.shape))) for t in current)
        current = tg.grad(total, inputs, create_graph=True, allow_unused=True)
        current = [tg.zeros_like(v) if g is None else g for v, g in zip(inputs, current)]
        chain.append([host(g) for g in current])
    return chain


BOUNDS = (1e-12, 1e-12, 1e-10, 1e-10)  # of the promise, for orders 1 to 4


def assert_chains_agree(ours, theirs):
    for bound, a_gradients, b_gradients in zip(BOUNDS, ours, theirs):
        # One scale an order: β's share, say, vanishes beyond order 1 but for rounding.
        scale = max(np.abs(g).max() for g in a_gradients)
        for a, b in zip(a_gradients, b_gradients):
            assert (np.abs(a - b) <= bound * scale).all()  # false for NaN


@given(problems(), st.booleans())
def test_composed_equals_fused_at_orders_1_to_4(problem, with_statistics):
    assert_chains_agree(*(gradient_chain(n, problem, with_statistics) for n in (composed, fused)))


@pytest.mark.parametrize("shape", [(5, 4), (2, 4, 3), (2, 4, 3, 2), (2, 4, 2, 1, 3)])
@pytest.mark.parametrize("name", FAMILY)
def test_every_member_is_the_same_composed_and_fused_at_orders_1_to_4(name, shape):
    if name == "instance_norm" and len(shape) == 2:
        shape = (2, 4, 5)  # it wants places
    random = np.random.default_rng(3)
    values = [random.standard_normal(shape) + 2, *parameters(name, shape, random)]
    chains = []
    for impl in IMPLEMENTATIONS:
        inputs, probes = [leaf(v) for v in values], np.random.default_rng(7)
        current, chain = [call(name, impl)(*inputs)], []
        for _ in BOUNDS:
            total = sum(tg.sum(t * tg.tensor(probes.standard_normal(t.shape))) for t in current)
            found = tg.grad(total, inputs, create_graph=True, allow_unused=True)
            current = [tg.zeros_like(v) if g is None else g for v, g in zip(inputs, found)]
            chain.append([host(g) for g in current])
        chains.append(chain)
    assert_chains_agree(*chains)


@pytest.mark.parametrize("name", FAMILY)
def test_every_member_is_the_same_in_nested_forward_mode(name):
    random, shape = np.random.default_rng(5), (3, 4, 5)
    x, u, v = (tg.tensor(random.standard_normal(shape)) for _ in range(3))
    weight = tg.tensor(parameters(name, shape, random)[0])
    found = []
    for impl in IMPLEMENTATIONS:

        def norm(x, impl=impl):
            return call(name, impl)(x, weight)

        def tangent(x, norm=norm):
            return tg.jvp(norm, x, u)[1]

        def gradient(x, norm=norm):
            return tg.vjp(lambda x: tg.sum(norm(x) ** 3), x)[1]

        found.append(
            {
                "jvp of jvp": tg.jvp(tangent, x, v)[1],
                "jvp of grad": tg.jvp(gradient, x, v)[1],
                "grad of jvp": tg.vjp(lambda x, f=tangent: tg.sum(f(x) ** 2), x)[1],
                "jvp of jvp of grad": tg.jvp(lambda x, f=gradient: tg.jvp(f, x, u)[1], x, v)[1],
            }
        )
    for mode, composed_one in found[0].items():
        bound = 1e-10 if mode == "jvp of jvp of grad" else 1e-12  # its order is 3
        difference = np.abs(host(composed_one) - host(found[1][mode])).max()
        assert difference <= bound * np.abs(host(composed_one)).max(), mode


@given(problems(), st.booleans())
def test_kernel_equals_formula(problem, with_statistics):
    given_ = problem.leaves()
    inputs = [v for v in given_ if v is not None]
    outputs = fused.normalize(*given_, **problem.options)
    outputs = outputs if with_statistics else outputs[:1]
    seeds = [tg.tensor(np.random.default_rng(1).standard_normal(v.shape)) for v in outputs]
    by_kernel = tg.grad(outputs, inputs, seeds, retain_graph=True)
    by_formula = tg.grad(outputs, inputs, seeds, create_graph=True)
    for a, b in zip(by_kernel, by_formula):
        np.testing.assert_allclose(
            host(a), host(b), rtol=0, atol=1e-13 * np.abs(host(b)).max() + 1e-14
        )


def test_the_formula_on_arrays_is_the_kernels_reference():
    x, gamma, beta = (
        np.random.default_rng(0).standard_normal(s) for s in ((6, 3, 4), (3, 1), (3, 1))
    )
    options = {"axes": (0, 2), "eps": 1e-5}
    kernel = fused.normalize_forward.kernel(x, gamma, beta, **options)
    formula = fused.normalize_forward.formula(x, gamma, beta, **options)
    for a, b in zip(kernel, formula):
        assert isinstance(b, np.ndarray)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-14)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", FAMILY)
def test_finite_differences_confirm_both_orders(name, impl):
    random, shape = np.random.default_rng(0), (2, 4, 3)
    inputs = [leaf(random.standard_normal(shape)), *map(leaf, parameters(name, shape, random))]
    for given_ in (inputs, inputs[:1]):
        assert gradcheck(call(name, impl, eps=0.1), given_)
        assert gradgradcheck(call(name, impl, eps=0.1), given_)


@pytest.mark.parametrize("norm", IMPLEMENTATIONS.values(), ids=list(IMPLEMENTATIONS))
@pytest.mark.parametrize("affine", [True, False])
def test_finite_differences_confirm_inference_and_the_gradients_of_statistics(norm, affine):
    random = np.random.default_rng(0)
    x = leaf(random.standard_normal((4, 2, 3)))
    given_ = [leaf(random.standard_normal((2, 1))) for _ in range(2 if affine else 0)]

    def training(x, gamma=None, beta=None):
        return norm.normalize(x, gamma, beta, axes=(0, 2), eps=1e-2)  # y, μ and σ²

    assert gradcheck(training, [x, *given_])
    assert gradgradcheck(training, [x, *given_])

    def inference(x, mu, var, gamma=None, beta=None):
        return norm.normalize_inference(x, mu, var, gamma, beta, eps=1e-2)

    statistics = [leaf(random.standard_normal((2, 1))), leaf(random.uniform(0.5, 2, (2, 1)))]
    assert gradcheck(inference, [x, *statistics, *given_])
    assert gradgradcheck(inference, [x, *statistics, *given_])


def test_gamma_that_is_broadcast_means_the_same_to_kernel_and_formula():
    x, gamma = leaf(np.random.default_rng(0).standard_normal((4, 3, 2))), leaf(np.array([[2.0]]))
    ours, theirs = (n.normalize(x, gamma, None, axes=(0, 2), eps=0.1)[0] for n in (composed, fused))
    np.testing.assert_allclose(host(ours), host(theirs), rtol=1e-13)
    with pytest.raises(ValueError, match="broadcast"):
        fused.normalize(x, leaf(np.ones(5)), None, axes=(0, 2), eps=0.1)


@pytest.mark.parametrize("name", FAMILY)
def test_held_for_backward_are_the_input_and_at_most_four_numbers_a_group(name):
    shape = (8, 4, 6)
    values = parameters(name, shape, np.random.default_rng(0))
    held, x = {}, leaf(np.ones(shape))
    for impl in IMPLEMENTATIONS:
        inputs = [x, *map(leaf, values)]
        held[impl] = held_bytes([call(name, impl)(*inputs)], inputs)
    shape, axes, _ = arranged(name, shape)
    statistics = np.prod([n for i, n in enumerate(shape) if i not in axes])
    assert held["fused"] == 2 * statistics * 8  # μ and σ²; beside them γ, which the layer owns
    assert held["composed"] > x.data.nbytes


def test_compare_returns_what_it_prints(capsys):
    x, gamma, beta = (
        leaf(np.random.default_rng(0).standard_normal((8, 3))),
        *map(leaf, np.ones((2, 1, 3))),
    )

    def by(norm):
        return lambda *inputs: norm.normalize(*inputs, axes=(0,), eps=1e-5)

    found = compare(by(composed), by(fused), x, gamma, beta, order=4)
    assert found.ops == (9, 1)
    assert len(found.differences) == 5
    assert max(found.differences) < 1e-12
    assert found.held[0] > found.held[1] == 2 * 3 * 8  # μ and σ²
    assert found.ratio == found.seconds[0] / found.seconds[1]
    assert str(found) in capsys.readouterr().out


def test_compare_sees_a_difference():
    x = leaf(np.arange(3.0))
    found = compare(lambda x: x * x, lambda x: x * x * 1.001, x, order=2)
    assert min(found.differences) > 1e-4
