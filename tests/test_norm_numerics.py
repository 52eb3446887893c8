"""The digits of the norms: large means, extreme scales, half precision, NaN and infinity."""

import math
from fractions import Fraction

import numpy as np
import pytest
from helpers import host, leaf
from hypothesis import given
from hypothesis import strategies as st
from norm_members import arranged, by_hand, call, parameters

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn.engine import accumulator
from tinygrad_bn.norm import IMPLEMENTATIONS, fused
from tinygrad_bn.norm.axes import FAMILY

MEMBERS = pytest.mark.parametrize("name", FAMILY)
BOTH = pytest.mark.parametrize("impl", IMPLEMENTATIONS)
PASSES = pytest.mark.parametrize("create_graph", [False, True], ids=["kernel", "formula"])


def run(name, x, g, weight, create_graph=False, impl="fused", eps=1e-5):
    """y without β, ∂x and ∂γ as float64 arrays, and their dtypes."""
    inputs = [leaf(x), leaf(weight)]
    y = call(name, impl, eps)(*inputs)
    found = [y, *tg.grad(y, inputs, tg.tensor(g.astype(x.dtype)), create_graph=create_graph)]
    return [host(v).astype(np.float64) for v in found], [v.dtype for v in found]


def draw(name, shape, dtype, shift=0.0, scale=1.0, seed=0):
    random = np.random.default_rng(seed)
    x = (random.standard_normal(shape) * scale + shift).astype(dtype)
    g = random.standard_normal(shape)
    return x, g, parameters(name, shape, random, accumulator(x.dtype))[0]


@MEMBERS
@PASSES
@pytest.mark.parametrize("shape", [(64, 64, 16, 16), (256, 512, 3), (16, 4, 3000), (10_000, 2, 3)])
def test_float32_at_mean_1e4_loses_no_more_than_1e_5(name, shape, create_graph, request):
    if request.config.getoption("--device") == "double":  # which runs a kernel thread by thread
        shape = (max(shape[0] // 64, 2), *shape[1:])
    x, g, weight = draw(name, shape, np.float32, shift=1e4)
    found, _ = run(name, x, g, weight, create_graph)
    truth = by_hand(name, *(v.astype(np.float64) for v in (x, g.astype(np.float32), weight)))
    assert np.abs(found[0] - truth[0]).max() <= 1e-5
    for ours, theirs in zip(found[1:], truth[1:]):
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


@PASSES
@pytest.mark.parametrize("name", ["batch_norm", "layer_norm", "rms_norm"])
def test_ten_million_values_beside_each_gamma(name, create_graph, cpu_only):
    shape = (10_000_000, 1) if name == "batch_norm" else (2_500_000, 4)
    x, g, weight = draw(name, shape, np.float32, shift=1e4)
    found, _ = run(name, x, g, weight, create_graph)
    truth = by_hand(name, *(v.astype(np.float64) for v in (x, g.astype(np.float32), weight)))
    for ours, theirs in zip(found, truth):
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


@MEMBERS
@PASSES
@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_scales_of_1e_15_and_1e15_in_float32(name, scale, create_graph):
    x, g, weight = draw(name, (4, 4, 6), np.float32, scale=scale)
    found, _ = run(name, x, g, weight, create_graph, eps=0.0)
    truth = by_hand(name, *(v.astype(np.float64) for v in (x, g.astype(np.float32), weight)), eps=0)
    for ours, theirs in zip(found, truth):
        assert np.abs(ours - theirs).max() <= 2e-6 * np.abs(theirs).max()


@MEMBERS
@BOTH
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of inf − inf
def test_nan_and_infinity_stay_among_the_entries_that_share_statistics(name, impl, value):
    x, g, weight = draw(name, (3, 4, 5), np.float64)
    clean, _ = run(name, x, g, weight, impl=impl)
    x[1, 2, 3] = value
    found, _ = run(name, x, g, weight, impl=impl)
    seen, axes, _ = arranged(name, x.shape)
    touched = np.isnan(x) | np.isinf(x)
    touched = np.broadcast_to(touched.reshape(seen).any(axis=axes, keepdims=True), seen)
    touched = touched.reshape(x.shape)
    for ours, before in zip(found[:2], clean[:2]):  # y and ∂x
        if FAMILY[name].centred or np.isnan(value):  # in RMS norm 1/∞ is 0
            assert np.isnan(ours[touched]).all()
        np.testing.assert_array_equal(ours[~touched], before[~touched])


@BOTH
@pytest.mark.parametrize("name", [name for name, member in FAMILY.items() if member.centred])
def test_a_constant_input_gives_beta_and_finite_gradients(name, impl):
    x, (_, g, weight) = np.full((4, 4, 6), 3.25), draw(name, (4, 4, 6), np.float64)
    found, _ = run(name, x, g, weight, impl=impl)
    assert (found[0] == 0).all()
    assert all(np.isfinite(v).all() for v in found)
    assert np.abs(found[1]).max() > 1  # ∂x = γ (g − mean g) / √ε
    assert (found[2] == 0).all()


@MEMBERS
@BOTH
def test_gamma_zero_has_the_gradient_of_any_gamma(name, impl):
    x, g, weight = draw(name, (4, 4, 6), np.float64)
    zero, _ = run(name, x, g, 0 * weight, impl=impl)
    other, _ = run(name, x, g, weight, impl=impl)
    assert (zero[0] == 0).all()
    assert (zero[1] == 0).all()
    np.testing.assert_allclose(zero[2], other[2], rtol=1e-12)


# --- Half precision -----------------------------------------------------------------------------


@MEMBERS
@BOTH
@PASSES
def test_float16_is_normalized_in_float32_and_its_gradients_come_in_its_dtype(
    name, impl, create_graph
):
    x, g, weight = draw(name, (6, 4, 500), np.float16, shift=1000, scale=100)
    found, dtypes = run(name, x, g, weight, create_graph, impl)
    assert dtypes == [np.float16, np.float16, np.float32]
    truth = by_hand(name, *(v.astype(np.float64) for v in (x, g.astype(np.float16), weight)))
    for ours, theirs, bound in zip(found, truth, (1e-3, 2e-3, 1e-4)):  # a half has 11 bits
        assert np.abs(ours - theirs).max() <= bound * np.abs(theirs).max()


@BOTH
@PASSES
@pytest.mark.parametrize("name", [name for name in FAMILY if name != "rms_norm"])
def test_the_gradient_of_beta_is_summed_in_float32(name, impl, create_graph):
    shape = (1100, 2, 2) if "F" in FAMILY[name].layout else (2, 4, 1100)
    random = np.random.default_rng(0)
    x = leaf(random.standard_normal(shape).astype(np.float16))
    weight, bias = map(leaf, parameters(name, shape, random, np.float32))
    y = call(name, impl)(x, weight, bias)
    (dbias,) = tg.grad(y, bias, 64 * tg.ones_like(y), create_graph=create_graph)
    assert (host(dbias) == 64 * np.prod(shape) / bias.size).all()  # 70,400 and more: inf in float16


@BOTH
def test_the_gradient_of_beta_in_evaluation_is_summed_in_float32(impl):
    layer = tg.nn.BatchNorm2d(2, impl=impl).eval()
    y = layer(tg.tensor(np.ones((64, 2, 56, 56), np.float16)))
    y.backward(tg.ones_like(y))
    assert host(layer.bias.grad).tolist() == [64 * 56 * 56] * 2


@MEMBERS
@BOTH
def test_seventy_thousand_ones_do_not_overflow(name, impl):
    shape = {"batch_norm": (70_000, 4, 1), "instance_norm": (1, 4, 70_000)}.get(
        name, (2, 4, 70_000)
    )
    x, weight = (
        np.ones(shape, np.float16),
        parameters(name, shape, np.random.default_rng(0), "f4")[0],
    )
    (y, dx, dweight), _ = run(name, x, np.ones(shape), weight, impl=impl)
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()
    assert np.isfinite(dweight).all()
    if name == "rms_norm":
        np.testing.assert_allclose(y, np.broadcast_to(weight, shape), rtol=1e-3, atol=1e-7)
    else:
        assert (y == 0).all()


def test_what_is_kept_of_a_float16_input_is_the_input(cpu_only):
    x = leaf(np.ones((64, 8), np.float16))
    kept = tg.check.held_bytes([F.batch_norm(x, None, None, training=True)], [x])
    assert kept == 2 * 8 * 4  # μ and σ² in float32


@MEMBERS
@BOTH
def test_float16_derivatives_of_order_2_are_those_of_float32(name, impl):
    x, g, weight = draw(name, (4, 4, 16), np.float16)
    seconds = []
    for dtype in (np.float16, np.float32):
        t = leaf(x.astype(dtype))
        y = call(name, impl)(t, tg.tensor(weight))
        (dx,) = tg.grad(y, t, tg.tensor(g.astype(dtype)), create_graph=True)
        seconds.append(host(tg.grad(tg.sum(dx * dx), t)[0]).astype(np.float64))
    assert np.abs(seconds[0] - seconds[1]).max() <= 0.02 * np.abs(seconds[1]).max()


# --- Against exact arithmetic -------------------------------------------------------------------


def exact_statistics(column):
    """μ and σ² in exact arithmetic."""
    values = [Fraction(float(v)) for v in column]
    mu = sum(values) / len(values)
    return mu, sum((v - mu) ** 2 for v in values) / len(values)


@given(st.integers(3, 40), st.floats(-1e6, 1e6), st.integers(0, 2**32 - 1))
def test_fused_is_near_exact_arithmetic_at_any_mean(m, shift, seed):
    x = np.random.default_rng(seed).standard_normal((m, 1)) + shift
    mu, var = exact_statistics(x[:, 0])
    xhat = [
        float((Fraction(float(v)) - mu) / Fraction(math.sqrt(var + Fraction(1e-5))))
        for v in x[:, 0]
    ]
    y, found_mu, found_var = fused.normalize(tg.tensor(x), None, None, axes=(0,), eps=1e-5)
    condition = 1 + abs(shift)  # x itself is rounded to ε·|mean|, and no more is lost after that
    np.testing.assert_allclose(host(y)[:, 0], xhat, rtol=0, atol=1e-14 * (1 + 1e-8 * condition))
    assert float(host(found_mu)[0, 0]) == pytest.approx(float(mu), rel=1e-15, abs=1e-15)
    assert float(host(found_var)[0, 0]) == pytest.approx(float(var), rel=1e-13)


def test_the_formula_recentres_as_the_kernel_does():
    x = (np.random.default_rng(0).standard_normal((500, 2)) + 1e4).astype(np.float32)
    d = x - x.mean(axis=0, dtype=np.float64)
    truth = d / np.sqrt((d * d).mean(axis=0) + 1e-5)
    for forward in (fused.normalize_forward.kernel, fused.normalize_forward.formula):
        y, mu, var = forward(x, None, None, axes=(0,), eps=1e-5)
        assert np.abs(y - truth).max() <= 1e-5
        assert np.abs(mu - x.mean(axis=0, dtype=np.float64)).max() <= np.spacing(np.float32(1e4))
        np.testing.assert_allclose(var[0], (d * d).mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize(("dtype", "shift", "scale"), [("f2", 30, 1), ("f4", 0, 1e18)])
def test_sums_do_not_overflow(dtype, shift, scale):
    x = np.random.default_rng(0).standard_normal((4000, 1)) * scale + shift
    for forward in (fused.normalize_forward.kernel, fused.normalize_forward.formula):
        y, _, _ = forward(x.astype(dtype), None, None, axes=(0,), eps=0.0)
        assert y.astype(np.float64).std() == pytest.approx(1, rel=2e-3)
