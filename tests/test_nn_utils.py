"""Clipping of gradients (training with it: see test_golden_training)."""

import math

import numpy as np
import pytest
from helpers import host, leaf

import tinygrad_bn as tg
from tinygrad_bn.nn.utils import clip_grad_norm_, clip_grad_value_


def with_gradients(*gradients):
    """Leaves of the shapes and dtypes of these arrays, which are their gradients."""
    parameters = [leaf(np.zeros_like(g)) for g in gradients]
    for p, g in zip(parameters, gradients):
        p.grad = tg.tensor(g)
    return parameters


@pytest.mark.parametrize(
    ("norm_type", "norm"), [(2, 13.0), (2.0, 13.0), (1, 19.0), (math.inf, 12.0)]
)
def test_the_norm_is_that_of_all_gradients_as_one_vector(norm_type, norm):
    p, q = with_gradients(np.array([[3.0], [4.0]]), np.array(-12.0))
    total = clip_grad_norm_([p, leaf(np.ones(2)), q], 6.0, norm_type)
    factor = min(1, 6 / (norm + 1e-6))
    assert host(total) == pytest.approx(norm)
    np.testing.assert_allclose(host(p.grad), [[3 * factor], [4 * factor]])
    np.testing.assert_allclose(host(q.grad), -12 * factor)


def test_smaller_gradients_stay_as_they_are():
    p, q = with_gradients(np.array([3.0]), np.array([4.0]))
    assert host(clip_grad_norm_((p, q), 5.1)) == 5
    assert (host(p.grad).item(), host(q.grad).item()) == (3, 4)
    clip_grad_value_(p, 3.5)
    assert host(p.grad).item() == 3


def test_without_gradients_the_norm_is_zero():
    assert host(clip_grad_norm_([leaf(np.ones(2))], 1.0)) == 0
    assert host(clip_grad_norm_([], 1.0)) == 0


def test_values_are_clipped_to_both_sides_and_nan_stays():
    (p,) = with_gradients(np.array([-7.0, 0.5, 7.0, np.nan]))
    assert clip_grad_value_([p], 1) is None
    np.testing.assert_array_equal(host(p.grad), [-1, 0.5, 1, np.nan])


def test_a_gradient_taken_out_before_is_not_changed():
    (p,) = with_gradients(np.array([3.0, 4.0]))
    before = p.grad
    clip_grad_norm_(p, 1.0)
    clip_grad_value_(p, 0.1)
    assert host(before).tolist() == [3, 4]


def test_float16_gradients_are_summed_in_float32_and_keep_their_dtype():
    (p,) = with_gradients(np.full(40_000, 4, np.float16))
    total = clip_grad_norm_([p], 80.0)
    assert (total.dtype, host(total)) == (np.float32, 800)
    assert p.grad.dtype == np.float16
    np.testing.assert_allclose(host(p.grad), np.float16(0.4), rtol=1e-3)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_norm_that_is_not_finite_raises_if_asked_and_changes_nothing(bad):
    (p,) = with_gradients(np.array([1.0, bad]))
    with pytest.raises(RuntimeError, match=r"the norm of the gradients is (inf|nan)"):
        clip_grad_norm_([p], 1.0, error_if_nonfinite=True)
    np.testing.assert_array_equal(host(p.grad), [1, bad])
    assert not np.isfinite(host(clip_grad_norm_([p], 1.0)))
    assert np.isnan(host(p.grad)[1])


def test_nothing_waits_for_the_device(double_only):
    p, q = with_gradients(np.ones((2, 3)), np.ones(4))
    with double_only.forbid("h2d", "d2h", "sync"):
        clip_grad_norm_([p, q], 1.0)
        clip_grad_value_([p, q], 0.1)


def test_gradients_on_two_devices_have_one_norm(double_only):
    p = tg.tensor(np.zeros(1), device="cuda:0", requires_grad=True)
    q = tg.tensor(np.zeros(1), device="cuda:1", requires_grad=True)
    p.grad, q.grad = tg.tensor([3.0], np.float64, "cuda:0"), tg.tensor([4.0], np.float64, "cuda:1")
    total = clip_grad_norm_([q, p], 1.0)
    assert (total.device, host(total)) == ("cuda:1", 5)
    np.testing.assert_allclose([host(p.grad).item(), host(q.grad).item()], [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("bad", [-1, math.nan, "1", None])
def test_bad_bounds_are_named(bad):
    (p,) = with_gradients(np.ones(1))
    with pytest.raises(ValueError, match="max_norm: got"):
        clip_grad_norm_([p], bad)
    with pytest.raises(ValueError, match="clip_value: got"):
        clip_grad_value_([p], bad)
