"""Whitening over the batch: what it gives, its derivatives, and batch norm, its one-column case."""

import numpy as np
import pytest
from helpers import assert_close, host, leaf, on_device

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn.check import compare, gradcheck, gradgradcheck
from tinygrad_bn.norm import whiten

each_way = pytest.mark.parametrize("function", [whiten.zca, whiten.cholesky])


def correlated(n, c, seed=0, dtype=np.float64):
    """Rows whose columns depend on each other and are far from 0."""
    random = np.random.default_rng(seed)
    mixed = random.standard_normal((n, c)) @ (np.eye(c) + 0.5 * random.standard_normal((c, c)))
    return leaf((mixed + 10.0).astype(dtype))


@each_way
@pytest.mark.parametrize("shape", [(50, 6), (7, 6), (1000, 1), (40, 32)])
def test_the_rows_have_mean_0_and_covariance_1(function, shape):
    y = host(function(correlated(*shape), eps=0.0))
    np.testing.assert_allclose(y.mean(axis=0), 0.0, atol=1e-10)
    np.testing.assert_allclose(np.cov(y.T, bias=True), np.eye(shape[1]).squeeze(), atol=1e-10)


def test_zca_is_symmetric_and_cholesky_triangular():
    x = correlated(50, 4)
    d = host(x) - host(x).mean(axis=0)
    for function, half in ((whiten.zca, np.transpose), (whiten.cholesky, np.tril)):
        root = d.T @ host(function(x, eps=0.0)) / 50  # S, as d = y Sᵀ
        np.testing.assert_allclose(root, half(root), atol=1e-12)
        assert (np.diag(root) > 0).all()


@each_way
def test_eps_is_added_to_the_variances(function):
    x, eps = correlated(50, 3), 0.5
    y, cov = host(function(x, eps=eps)), np.cov(host(x).T, bias=True)
    w = np.linalg.eigvalsh(cov)
    np.testing.assert_allclose(np.linalg.eigvalsh(y.T @ y / 50), w / (w + eps), atol=1e-12)


CORNERS = np.array([[1.0, 1.0, 1.0], [-1.0, -1.0, 1.0], [-1.0, 1.0, -1.0], [1.0, -1.0, -1.0]])
INPUTS = {
    "any data": (host(correlated(8, 3)), 0.0),
    "one column": (host(correlated(5, 1)), 1e-5),
    "equal eigenvalues": (CORNERS, 0.0),
    "equal eigenvalues and eps": (CORNERS, 0.1),
    "fewer rows than columns": (host(correlated(3, 4)), 0.1),  # two eigenvalues are 0
    "constant columns": (np.ones((4, 3)), 0.1),
    "one row": (np.array([[1.0, 2.0, 3.0]]), 0.1),
}


@each_way
@pytest.mark.parametrize(("x", "eps"), INPUTS.values(), ids=INPUTS)
def test_first_and_second_derivatives_are_those_of_finite_differences(function, x, eps):
    assert gradcheck(lambda x: function(x, eps=eps), leaf(x), atol=1e-8, rtol=1e-7)
    assert gradgradcheck(lambda x: function(x, eps=eps), leaf(x), atol=1e-8, rtol=1e-6)


@each_way
@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.5])
def test_of_one_column_it_is_batch_norm_at_orders_0_to_4(function, eps, capsys):
    found = compare(
        lambda x: F.batch_norm(x, None, None, training=True, eps=eps, impl="composed"),
        lambda x: function(x, eps=eps),
        correlated(9, 1),
        repeat=1,
    )
    assert max(found.differences) < 1e-12


def test_zca_is_the_root_by_eigenvalues_at_orders_0_to_4(capsys):
    def by_eigenvalues(x):
        d = x - tg.mean(x, axis=0)
        w, v = tg.eigh(d.T @ d / x.shape[0])
        return d @ (v / tg.sqrt(w)) @ v.T

    zca = lambda x: whiten.zca(x, eps=0.0)  # noqa: E731
    assert max(compare(by_eigenvalues, zca, correlated(9, 3), repeat=1).differences) < 1e-10


@each_way
def test_float16_is_whitened_in_float32(function):
    x = correlated(70_000, 2, dtype=np.float16)  # the sum of squares is above the largest float16
    y = function(x, eps=1e-5)
    assert_close(y, host(function(x.astype(np.float64), eps=1e-5)).astype(np.float16), ulps=1)
    (g,) = tg.grad(y, x, tg.ones_like(y))
    assert g.dtype == np.float16
    assert np.isfinite(host(g)).all()


@each_way
def test_on_arrays_it_computes_and_leaves_them_as_they_are(function):
    x = on_device(CORNERS)
    y = function(x, eps=0.1)
    assert not isinstance(y, tg.Tensor)
    np.testing.assert_array_equal(host(y), host(function(leaf(CORNERS), eps=0.1)))
    np.testing.assert_array_equal(host(x), CORNERS)


@each_way
@pytest.mark.parametrize(
    "x", [np.ones(3), np.ones((0, 3)), np.ones((2, 3, 4)), np.ones((2, 3), int)]
)
def test_what_is_not_a_batch_of_rows_is_refused(function, x):
    with pytest.raises(ValueError, match=r"x: got (float|int)64\[.*wants floating point \(N, C\)"):
        function(tg.tensor(x), eps=0.1)


def test_a_covariance_that_is_not_positive_definite_is_an_error_of_cholesky(cpu_only):
    with pytest.raises(ValueError, match=r"cholesky\(float64\[3, 3\]\).*not positive definite"):
        whiten.cholesky(tg.tensor(np.ones((2, 3))), eps=0.0)
