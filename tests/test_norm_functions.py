"""Batch norm and its family as functions: corner cases, running statistics, bad input."""

import math

import numpy as np
import pytest
from helpers import host, leaf

import tinygrad_bn as tg
from tinygrad_bn import functional as F

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
def test_no_channels_are_no_trouble(impl):
    x = leaf(np.zeros((4, 0)))
    F.batch_norm(x, None, None, training=True, impl=impl).sum().backward()
    assert x.grad.shape == (4, 0)


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
    "momentum None": (dict(momentum=None), ValueError, "momentum: got None"),
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


@pytest.mark.parametrize("impl", ["fused", "composed"])
def test_numbers_of_numpy_leave_the_dtype_alone(impl):
    x, mean, var = tg.randn(6, 3), tg.zeros(3), tg.ones(3)
    options = {"eps": np.float64(1e-5), "impl": impl}
    for training in (True, False):
        y = F.batch_norm(x, mean, var, training=training, momentum=np.float64(0.1), **options)
        assert y.dtype == mean.dtype == np.float32
    assert F.group_norm(tg.randn(2, 4, 3), np.int64(2), **options).dtype == np.float32
    assert F.rms_norm([[1.0, 2.0]], 2, impl=impl).shape == (1, 2)
