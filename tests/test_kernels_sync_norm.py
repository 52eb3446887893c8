"""The loops of batch norm across ranks against the formulas that they stand for."""

import numpy as np
import pytest

from tinygrad_bn.distributed import norm

pytestmark = [
    pytest.mark.usefixtures("cpu_only"),
    pytest.mark.skipif(norm.moments.kernel(np.ones((4, 3)), axes=(0,)) is NotImplemented,
                       reason="needs numba"),
]  # fmt: skip

# Shape, the axes in their order in memory (None: as they are), and the dtype.
CASES = {
    "samples": ((50, 3), None, np.float64),
    "few columns, many lines": ((1000, 2), None, np.float32),
    "one channel": ((30, 1), None, np.float64),
    "images": ((6, 3, 5, 7), None, np.float64),
    "one image": ((1, 3, 9, 9), None, np.float32),
    "channels last in memory": ((6, 3, 5, 7), (0, 2, 3, 1), np.float64),
    "a series": ((6, 3, 300), None, np.float32),
    "half": ((40, 3, 5), None, np.float16),
    "enough for threads": ((64, 5, 40, 41), None, np.float32),
    "enough samples for threads": ((5000, 40), None, np.float32),
}
EVERY = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def array(case, seed, mean=0.0):
    shape, order, dtype = case
    order = order or tuple(range(len(shape)))
    made = np.random.default_rng(seed).normal(mean, 1.0, [shape[i] for i in order]).astype(dtype)
    return made.transpose(np.argsort(order))


def given(case, mean=0.0):
    """x, g, γ, β, and μ, rest and σ², which are not those of x alone."""
    x = array(case, 0, mean)
    axes = tuple(i for i in range(x.ndim) if i != 1)
    kept = tuple(n if i == 1 else 1 for i, n in enumerate(x.shape))
    wide = np.float64 if x.dtype == np.float64 else np.float32
    random = np.random.default_rng(9)
    gamma, beta = (random.normal(0.5, 1.0, kept).astype(wide) for _ in range(2))
    exact = x.mean(axes, np.float64, keepdims=True) + random.normal(0.0, 0.1, kept)
    mu = exact.astype(wide)
    rest = (exact - mu + (1e-3 if wide is np.float64 else 0)).astype(wide)
    return x, array(case, 1), gamma, beta, mu, rest, random.uniform(0.5, 2, kept).astype(wide), axes


def assert_near(got, wanted, dtype):
    assert got is not NotImplemented
    assert got.shape == wanted.shape
    assert got.dtype == wanted.dtype
    rtol = {"e": 1e-3, "f": 4e-6, "d": 1e-13}[dtype.char]
    wanted = wanted.astype(np.float64)
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(got.astype(np.float64), wanted, rtol=0, atol=rtol * scale)


def exactly(*arrays):
    return [None if a is None else a.astype(np.float64) for a in arrays]


@EVERY
@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_moments(case, mean):
    x, *_, axes = given(case, mean)
    wide = x.astype(np.float64)
    d = wide - wide.mean(axes, keepdims=True)
    got = norm.moments.kernel(x, axes=axes) if x.dtype != np.float16 else norm.moments(x, axes=axes)
    for found, wanted in zip(
        got, (wide.mean(axes, keepdims=True), (d * d).sum(axes, keepdims=True))
    ):
        assert found.dtype == np.float64
        assert_near(found, wanted, x.dtype)


@EVERY
@pytest.mark.parametrize("affine", ["γ and β", "γ", "β", "none"])
def test_apply(case, affine):
    x, _, gamma, beta, mu, rest, var, axes = given(case)
    gamma, beta = gamma if "γ" in affine else None, beta if "β" in affine else None
    how = {"axes": axes, "eps": 1e-3}
    wanted = norm.apply.formula(*exactly(x, gamma, beta, mu, rest, var), **how).astype(x.dtype)
    got = norm.apply.kernel(x, gamma, beta, mu, rest, var, **how)
    assert_near(got, wanted, x.dtype)
    assert got.strides == x.strides


@EVERY
def test_products(case):
    x, g, _, _, mu, rest, var, axes = given(case)
    how = {"axes": axes, "eps": 1e-3}
    wanted = norm.products.formula(*exactly(x, g, mu, rest, var), **how)
    got = norm.products.kernel(x, g, mu, rest, var, **how)
    for found, exact in zip(got, wanted):  # which may be of other sizes
        assert_near(found, exact, np.dtype(np.float32) if x.dtype == np.float16 else x.dtype)


@EVERY
@pytest.mark.parametrize("affine", [True, False])
def test_slopes(case, affine):
    x, g, gamma, _, mu, rest, var, axes = given(case)
    means = np.random.default_rng(2).standard_normal((2, *mu.shape))
    how, gamma = {"axes": axes, "eps": 1e-3}, gamma if affine else None
    wanted = norm.slopes.formula(*exactly(x, g, gamma, mu, rest, var, means), **how)
    got = norm.slopes.kernel(x, g, gamma, mu, rest, var, means, **how)
    assert_near(got, wanted.astype(x.dtype), x.dtype)


def test_a_large_mean_costs_no_digits():
    """x̂ of float32 at a mean of 1e4, by μ and the rest that it lost."""
    case = ((500, 3), None, np.float32)
    x, _, _, _, _, _, _, axes = given(case, 1e4)
    wide = x.astype(np.float64)
    mean, var = wide.mean(axes, keepdims=True), wide.var(axes, keepdims=True).astype(np.float32)
    mu = mean.astype(np.float32)
    rest = (mean - mu).astype(np.float32)
    got = norm.apply.kernel(x, None, None, mu, rest, var, axes=axes, eps=0.0)
    np.testing.assert_allclose(got, (wide - mean) / np.sqrt(var), rtol=0, atol=5e-6)


@pytest.mark.parametrize("x", [np.ones((0, 3)), np.ones((3, 2), np.longdouble)], ids=str)
def test_what_the_loops_do_not_know_is_left_to_the_formula(x):
    assert norm.moments.kernel(x, axes=(0,)) is NotImplemented
