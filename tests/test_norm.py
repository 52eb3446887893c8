"""Batch norm: what composed and fused promise each other, accuracy, and the corner cases."""

import math
from fractions import Fraction

import numpy as np
import pytest
from helpers import host, leaf
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn.check import compare, gradcheck, gradgradcheck, held_bytes
from tinygrad_bn.norm import composed, fused


@st.composite
def problems(draw):
    """x, γ, β and axes: at least three values share statistics, the mean is within ten std."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    axes = tuple(i for i in range(len(shape)) if draw(st.booleans())) or (0,)
    while math.prod(shape[i] for i in axes) < 3:
        shape[axes[0]] += 1
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kept = [1 if i in axes else n for i, n in enumerate(shape)]
    x = random.standard_normal(shape) + random.uniform(-10, 10, kept)
    return x, random.standard_normal(kept), random.standard_normal(kept), axes


def gradient_chain(norm, x, gamma, beta, axes, eps, with_statistics):
    """The gradients of orders 1 to 4, each of a fixed random combination of the last."""
    random = np.random.default_rng(7)
    given_ = [None if v is None else leaf(v) for v in (x, gamma, beta)]
    inputs = [v for v in given_ if v is not None]
    y, mu, var = norm.batch_norm(*given_, axes=axes, eps=eps)
    current, chain = [y, mu, var] if with_statistics else [y], []
    for _ in range(4):
        total = sum(tg.sum(t * tg.tensor(random.standard_normal(t.shape))) for t in current)
        current = tg.grad(total, inputs, create_graph=True, allow_unused=True)
        current = [tg.zeros_like(v) if g is None else g for v, g in zip(inputs, current)]
        chain.append([host(g) for g in current])
    return chain


@given(problems(), st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_composed_equals_fused_at_orders_1_to_4(problem, with_statistics, scaled, shifted, strided):
    x, gamma, beta, axes = problem
    gamma, beta = gamma if scaled else None, beta if shifted else None
    if strided:
        x = np.repeat(x, 2, axis=-1)[..., ::2]
    chains = [
        gradient_chain(n, x, gamma, beta, axes, 1e-3, with_statistics) for n in (composed, fused)
    ]
    for bound, ours, theirs in zip((1e-12, 1e-12, 1e-10, 1e-10), *chains):
        # One scale an order: β's share, say, vanishes beyond order 1 but for rounding.
        scale = max(np.abs(g).max() for g in ours)
        for a, b in zip(ours, theirs):
            assert (np.abs(a - b) <= bound * scale).all()  # false for NaN


@given(problems())
def test_kernel_equals_formula(problem):
    x, gamma, beta, axes = problem
    inputs = [leaf(v) for v in (x, gamma, beta)]
    outputs = fused.batch_norm(*inputs, axes=axes, eps=1e-3)
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
    kernel = fused.batch_norm_forward.kernel(x, gamma, beta, **options)
    formula = fused.batch_norm_forward.formula(x, gamma, beta, **options)
    for a, b in zip(kernel, formula):
        assert isinstance(b, np.ndarray)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-14)


@pytest.mark.parametrize("norm", [composed, fused])
@pytest.mark.parametrize("affine", [True, False])
def test_finite_differences_confirm_both_orders(norm, affine):
    random = np.random.default_rng(0)
    x = leaf(random.standard_normal((4, 2, 3)))
    given_ = [leaf(random.standard_normal((2, 1))) for _ in range(2 if affine else 0)]

    def training(x, gamma=None, beta=None):
        return norm.batch_norm(x, gamma, beta, axes=(0, 2), eps=1e-2)

    assert gradcheck(training, [x, *given_])
    assert gradgradcheck(training, [x, *given_])

    def inference(x, mu, var, gamma=None, beta=None):
        return norm.batch_norm_inference(x, mu, var, gamma, beta, eps=1e-2)

    statistics = [leaf(random.standard_normal((2, 1))), leaf(random.uniform(0.5, 2, (2, 1)))]
    assert gradcheck(inference, [x, *statistics, *given_])
    assert gradgradcheck(inference, [x, *statistics, *given_])


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
    y, found_mu, found_var = fused.batch_norm(tg.tensor(x), None, None, axes=(0,), eps=1e-5)
    condition = 1 + abs(shift)  # x itself is rounded to ε·|mean|, and no more is lost after that
    np.testing.assert_allclose(host(y)[:, 0], xhat, rtol=0, atol=1e-14 * (1 + 1e-8 * condition))
    assert float(host(found_mu)[0, 0]) == pytest.approx(float(mu), rel=1e-15, abs=1e-15)
    assert float(host(found_var)[0, 0]) == pytest.approx(float(var), rel=1e-13)


@pytest.mark.parametrize("shape", [(64, 64, 16, 16), (256, 512), (100, 32), (1_000_000, 2)])
@pytest.mark.parametrize("create_graph", [False, True], ids=["kernel", "formula"])
def test_float32_at_mean_1e4_loses_no_more_than_1e_5(shape, create_graph):
    random = np.random.default_rng(0)
    x = (random.standard_normal(shape) + 1e4).astype(np.float32)
    g = random.standard_normal(shape).astype(np.float32)
    weight, bias = random.standard_normal((2, shape[1])).astype(np.float32)
    axes, column = (0, *range(2, len(shape))), (shape[1],) + (1,) * (len(shape) - 2)
    d = x.astype(np.float64) - x.mean(axis=axes, keepdims=True, dtype=np.float64)
    r = 1 / np.sqrt((d * d).mean(axis=axes, keepdims=True) + 1e-5)
    w, xhat, g64 = weight.reshape(column).astype(np.float64), d * r, g.astype(np.float64)
    mean_g, mean_gx = (v.mean(axis=axes, keepdims=True) for v in (g64, g64 * xhat))
    truth = {
        "y": w * xhat + bias.reshape(column),
        "dx": w * r * (g64 - mean_g - xhat * mean_gx),
        "dweight": (g64 * xhat).sum(axis=axes),
    }
    inputs = [leaf(v) for v in (x, weight, bias)]
    y = F.batch_norm(inputs[0], None, None, *inputs[1:], training=True)
    dx, dweight, _ = tg.grad(y, inputs, tg.tensor(g), create_graph=create_graph)
    assert np.abs(host(y) - truth["y"]).max() <= 1e-5
    for found, name in ((dx, "dx"), (dweight, "dweight")):
        assert np.abs(host(found) - truth[name]).max() <= 1e-5 * np.abs(truth[name]).max(), name


def test_the_formula_recentres_as_the_kernel_does():
    x = (np.random.default_rng(0).standard_normal((500, 2)) + 1e4).astype(np.float32)
    d = x - x.mean(axis=0, dtype=np.float64)
    truth = d / np.sqrt((d * d).mean(axis=0) + 1e-5)
    for forward in (fused.batch_norm_forward.kernel, fused.batch_norm_forward.formula):
        y, mu, var = forward(x, None, None, axes=(0,), eps=1e-5)
        assert np.abs(y - truth).max() <= 1e-5
        assert np.abs(mu - x.mean(axis=0, dtype=np.float64)).max() <= np.spacing(np.float32(1e4))
        np.testing.assert_allclose(var[0], (d * d).mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize(("dtype", "shift", "scale"), [("f2", 30, 1), ("f4", 0, 1e18)])
def test_sums_do_not_overflow(dtype, shift, scale):
    x = np.random.default_rng(0).standard_normal((4000, 1)) * scale + shift
    for forward in (fused.batch_norm_forward.kernel, fused.batch_norm_forward.formula):
        y, _, _ = forward(x.astype(dtype), None, None, axes=(0,), eps=0.0)
        assert y.astype(np.float64).std() == pytest.approx(1, rel=2e-3)


@pytest.mark.parametrize("impl", ["fused", "composed"])
def test_no_channels_are_no_trouble(impl):
    x = leaf(np.zeros((4, 0)))
    F.batch_norm(x, None, None, training=True, impl=impl).sum().backward()
    assert x.grad.shape == (4, 0)


def test_gamma_that_is_broadcast_means_the_same_to_kernel_and_formula():
    x, gamma = leaf(np.random.default_rng(0).standard_normal((4, 3, 2))), leaf(np.array([[2.0]]))
    ours, theirs = (
        n.batch_norm(x, gamma, None, axes=(0, 2), eps=0.1)[0] for n in (composed, fused)
    )
    np.testing.assert_allclose(host(ours), host(theirs), rtol=1e-13)
    with pytest.raises(ValueError, match="broadcast"):
        fused.batch_norm(x, leaf(np.ones(5)), None, axes=(0, 2), eps=0.1)


def test_held_for_backward_are_the_input_and_three_numbers_a_channel():
    x, weight, bias = leaf(np.ones((8, 5, 4))), leaf(np.ones(5)), leaf(np.ones(5))
    held = {
        impl: held_bytes([F.batch_norm(x, None, None, weight, bias, training=True, impl=impl)], [x])
        for impl in ("fused", "composed")
    }
    assert held["fused"] == 3 * 5 * 8  # μ, σ², γ; four are promised
    assert held["composed"] > 2 * x.data.nbytes


def test_compare_returns_what_it_prints(capsys):
    x, gamma, beta = (
        leaf(np.random.default_rng(0).standard_normal((8, 3))),
        *map(leaf, np.ones((2, 1, 3))),
    )

    def by(norm):
        return lambda *inputs: norm.batch_norm(*inputs, axes=(0,), eps=1e-5)

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


# --- Corner cases -------------------------------------------------------------------------------

BOTH = pytest.mark.parametrize("impl", ["fused", "composed"])


@BOTH
def test_a_constant_channel_gives_beta_and_finite_gradients(impl):
    x, weight, bias = leaf(np.full((4, 1), 3.25)), leaf(np.array([2.0])), leaf(np.array([0.5]))
    y = F.batch_norm(x, None, None, weight, bias, training=True, impl=impl)
    assert (host(y) == 0.5).all()
    dx, dweight, dbias = tg.grad(
        y, [x, weight, bias], tg.tensor([[1.0], [2.0], [3.0], [4.0]], np.float64)
    )
    np.testing.assert_allclose(
        host(dx)[:, 0], 2 / math.sqrt(1e-5) * np.array([-1.5, -0.5, 0.5, 1.5])
    )
    assert host(dweight) == 0
    assert host(dbias) == 10


@BOTH
def test_gamma_zero_has_a_gradient_of_its_own(impl):
    x, weight = leaf(np.array([[0.0], [1.0], [5.0]])), leaf(np.zeros(1))
    y = F.batch_norm(x, None, None, weight, None, training=True, eps=0.0, impl=impl)
    dx, dweight = tg.grad(y, [x, weight], tg.tensor([[1.0], [0.0], [0.0]], np.float64))
    assert (host(dx) == 0).all()
    assert host(dweight)[0] == pytest.approx((0 - 2) / math.sqrt(14 / 3))


@BOTH
def test_an_empty_batch_moves_nothing(impl):
    x, weight = leaf(np.zeros((0, 3, 2), np.float32)), leaf(np.ones(3, np.float32))
    mean, var = (tg.full(3, value) for value in (5.0, 6.0))
    y = F.batch_norm(x, mean, var, weight, None, training=True, impl=impl)
    assert (y.shape, y.dtype) == ((0, 3, 2), np.float32)
    dx, dweight = tg.grad(tg.sum(y), [x, weight])
    assert dx.shape == (0, 3, 2)
    assert host(dweight).tolist() == [0, 0, 0]
    assert host(mean).tolist() == [5, 5, 5]
    assert host(var).tolist() == [6, 6, 6]


@BOTH
def test_nan_stays_in_its_channel(impl):
    x = np.random.default_rng(0).standard_normal((5, 3))
    x[2, 1] = np.nan
    y = F.batch_norm(leaf(x), None, None, training=True, impl=impl)
    assert np.isnan(host(y)).any(axis=0).tolist() == [False, True, False]


@BOTH
def test_running_variance_is_unbiased_and_momentum_weighs_the_new_batch(impl):
    x = np.random.default_rng(0).standard_normal((7, 2, 3))
    mean, var = tg.tensor(np.array([1.0, 2.0])), tg.tensor(np.array([3.0, 4.0]))
    F.batch_norm(tg.tensor(x), mean, var, training=True, momentum=0.25, impl=impl)
    columns = np.moveaxis(x, 1, 0).reshape(2, -1)
    np.testing.assert_allclose(host(mean), 0.75 * np.array([1, 2]) + 0.25 * columns.mean(1))
    np.testing.assert_allclose(host(var), 0.75 * np.array([3, 4]) + 0.25 * columns.var(1, ddof=1))


@BOTH
def test_on_plain_arrays_it_computes_plain_arrays(impl, cpu_only):
    x = np.random.default_rng(0).standard_normal((6, 2))
    mean, var = np.zeros(2), np.ones(2)
    y = F.batch_norm(x, mean, var, training=True, impl=impl)
    assert type(y) is np.ndarray
    np.testing.assert_allclose(y, (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), atol=1e-14)
    assert (mean != 0).all()


def test_arrays_that_do_not_fit_are_named_too(cpu_only):
    with pytest.raises(TypeError, match=r"input: got int64\[4, 3\]"):
        F.batch_norm(np.ones((4, 3), np.int64), None, None, training=True)


@BOTH
def test_float16_is_normalized_in_float32(impl):
    x = leaf((np.random.default_rng(0).standard_normal((300, 2)) * 100 + 1000).astype(np.float16))
    weight = leaf(np.ones(2, np.float32))
    y = F.batch_norm(x, None, None, weight, None, training=True, impl=impl)
    dx, dweight = tg.grad(tg.sum(y * y), [x, weight])
    assert (y.dtype, dx.dtype, dweight.dtype) == (np.float16, np.float16, np.float32)
    truth = host(x).astype(np.float64)
    truth = (truth - truth.mean(0)) / np.sqrt(truth.var(0) + 1e-5)
    assert np.abs(host(y) - truth).max() < 2e-3


# --- Bad input ----------------------------------------------------------------------------------

ONES = np.ones((4, 3))
BAD = {
    "one value": (dict(input=np.ones((1, 3))), ValueError, "one value per channel"),
    "one axis": (dict(input=np.ones(3)), TypeError, "input: got float64"),
    "integers": (dict(input=np.ones((4, 3), int)), TypeError, "input: got int64"),
    "weight shape": (dict(weight=np.ones(4)), ValueError, r"weight: got float64\[4\]"),
    "weight dtype": (dict(weight=np.ones(3, "f")), ValueError, "weight: got float32"),
    "bias shape": (dict(bias=np.ones((3, 1))), ValueError, "bias: got"),
    "mean shape": (dict(running_mean=np.ones(2)), ValueError, "running_mean: got"),
    "mean alone": (dict(running_var=None), ValueError, "running_mean, running_var"),
    "no statistics": (
        dict(running_mean=None, running_var=None, training=False),
        ValueError,
        "running_mean: got None",
    ),
    "eps < 0": (dict(eps=-1e-5), ValueError, "eps: got -1e-05"),
    "eps NaN": (dict(eps=math.nan), ValueError, "eps: got nan"),
    "eps text": (dict(eps="small"), ValueError, "eps: got 'small'"),
    "momentum 2": (dict(momentum=2), ValueError, "momentum: got 2"),
    "momentum NaN": (dict(momentum=math.nan), ValueError, "momentum: got nan"),
    "momentum None": (dict(momentum=None), TypeError, "momentum: got None"),
    "impl": (dict(impl="magic"), ValueError, "impl: got 'magic'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_moves_nothing(case):
    changes, error, message = BAD[case]
    arguments = dict(
        input=ONES, running_mean=np.zeros(3), running_var=np.ones(3), weight=np.ones(3), bias=None
    )
    arguments = {
        k: v if v is None or isinstance(v, (bool, int, float, str)) else tg.tensor(v)
        for k, v in (arguments | {"training": True} | changes).items()
    }
    before = {k: host(v) for k, v in arguments.items() if k.startswith("running") and v is not None}
    with pytest.raises(error, match=message):
        F.batch_norm(**arguments)
    for k, v in before.items():
        assert (host(arguments[k]) == v).all()
