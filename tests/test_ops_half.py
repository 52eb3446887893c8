"""Few bits: float16 accumulates in float32, small integers do not wrap, shares add to a whole."""

import numpy as np
import pytest
from helpers import assert_values, host, leaf

import tinygrad_bn as tg
from tinygrad_bn import functional as F

ZEROS = np.zeros(70_000, np.float16)


def test_softmax_and_its_family_over_70_000_values():
    x = leaf(ZEROS)
    n = len(ZEROS)
    assert (host(tg.softmax(x)) == np.float16(1 / n)).all()
    assert (host(tg.log_softmax(x)) == np.float16(-np.log(n))).all()
    assert host(tg.logsumexp(x)) == np.float16(np.log(n))
    for function in (tg.softmax, tg.log_softmax, tg.logsumexp):
        (dx,) = tg.grad(tg.mean(function(x)), x)
        assert np.isfinite(host(dx)).all()


@pytest.mark.parametrize(
    ("x", "dtype"), [(1e8, np.float32), (1e6, np.float32), (300.0, np.float16), (1e20, np.float64)]
)
def test_the_gradient_of_logsumexp_adds_to_1_however_large_the_values(x, dtype):
    t = leaf(np.full(2, x, dtype))
    (dx,) = tg.grad(tg.logsumexp(t), t, create_graph=True)
    assert_values(dx, 0.5, 0.5)


def test_a_place_that_is_read_5000_times_gets_all_of_the_gradient():
    weight = leaf(np.zeros((1, 1), np.float16))
    many = tg.tensor(np.zeros(5000, np.int64))
    assert_values(tg.grad(tg.sum(F.embedding(many, weight)), weight)[0], 5000)
    assert_values(tg.grad(tg.sum(weight[many]), weight)[0], 5000)
    x = leaf(np.zeros((1, 2), np.float16))
    assert_values(tg.grad(tg.sum(F.pad(x, (2999, 0), mode="replicate")), x)[0], 3000, 1)


@pytest.mark.parametrize(
    ("x", "low", "high", "wanted"),
    [
        (0.0, 5.0, 3.0, (0, 0, 1)),  # low > high: high holds
        (4.0, 5.0, 3.0, (0, 0, 1)),
        (9.0, 5.0, 3.0, (0, 0, 1)),
        (0.0, 1.0, 3.0, (0, 1, 0)),
        (2.0, 1.0, 3.0, (1, 0, 0)),
        (9.0, 1.0, 3.0, (0, 0, 1)),
        (np.nan, 1.0, 3.0, (0, 0, 0)),
    ],
)
def test_the_gradient_of_clip_goes_to_what_is_returned(x, low, high, wanted):
    inputs = [leaf(np.array(v)) for v in (x, low, high)]
    found = tg.grad(tg.clip(*inputs), inputs)
    assert tuple(host(g).item() for g in found) == wanted


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, bool])
@pytest.mark.parametrize("name", ["sigmoid", "softplus", "softmax", "log_softmax", "logsumexp"])
def test_integers_do_not_wrap(name, dtype):
    x = np.array([1, 0, 3]).astype(dtype)
    found, wanted = getattr(tg, name)(tg.tensor(x)), getattr(tg, name)(tg.tensor(x.astype(float)))
    assert found.dtype.kind == "f"
    np.testing.assert_allclose(host(found), host(wanted), rtol=2e-3)
