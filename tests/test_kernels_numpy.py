"""The norms in NumPy alone, on what they treat apart, against the formula in float64."""

import numpy as np
import pytest

from tinygrad_bn.kernels import numpy_norm
from tinygrad_bn.norm import fused

pytestmark = pytest.mark.usefixtures("cpu_only")

LAYOUTS = {  # shape of x, axes, shape of γ and β
    "columns": ((50, 6), (0,), (6,)),
    "one feature": ((50,), (0,), ()),
    "columns of many rows": ((2500, 6), (0,), (6,)),
    "groups": ((3, 4, 5, 6), (0, 2, 3), (1, 4, 1, 1)),
    "groups of uneven pieces": ((1, 4, 2503), (0, 2), (1, 4, 1)),
    "several blocks": ((2, 40, 80, 80), (0, 2, 3), (1, 40, 1, 1)),
    "γ within a group": ((3, 4, 50), (1, 2), (4, 50)),
}


def drawn(name, shift=0.0, scale=1.0):
    """x, γ, β, the gradients at y, μ and σ², and the axes."""
    shape, axes, affine = LAYOUTS[name]
    random = np.random.default_rng(0)
    kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
    shapes = shape, affine, affine, shape, kept, kept
    x, gamma, beta, *gs = (random.standard_normal(s).astype(np.float32) for s in shapes)
    return ((x + shift) * scale).astype(np.float32), gamma, beta, tuple(gs), axes


def by_kernel_and_formula(name, arriving, centred=True, eps=1e-5, **drawn_as):
    """y, μ, σ², ∂x, ∂γ and ∂β, twice; `arriving` says which gradients do."""
    x, gamma, beta, gs, axes = drawn(name, **drawn_as)
    gs = tuple(g if some else None for g, some in zip(gs, arriving))
    how = {"axes": axes, "eps": eps, "centred": centred}

    def both(forward, backward, gs, *arrays):
        outs = forward(*arrays, **how)
        return *outs, *backward(gs, outs, *arrays, needs=(True,) * 3, **how)

    wide = [v.astype(np.float64) for v in (x, gamma, beta)]
    wide_gs = tuple(g if g is None else g.astype(np.float64) for g in gs)
    formulas = fused.normalize_forward.formula, fused.normalize_grads.formula
    found = both(numpy_norm.normalize, numpy_norm.normalize_grads, gs, x, gamma, beta)
    return found, both(*formulas, wide_gs, *wide)


def assert_near(found, truth, bound):
    for ours, theirs in zip(found, truth, strict=True):
        assert (ours is None) == (theirs is None)
        if theirs is not None:
            assert np.abs(ours - theirs.reshape(ours.shape)).max() <= bound * np.abs(theirs).max()


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_mean_of_10_000_costs_no_digits(name):
    assert_near(*by_kernel_and_formula(name, (1, 0, 0), shift=1e4), 2e-6)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("scale", [1e-15, 1e15])
@pytest.mark.parametrize("centred", [True, False])
def test_neither_tiny_nor_large_values_leave_the_dtype(name, scale, centred):
    assert_near(*by_kernel_and_formula(name, (1, 0, 0), centred, eps=0.0, scale=scale), 2e-6)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("arriving", [(1, 1, 1), (0, 1, 0), (0, 0, 1)])
def test_gradients_that_arrive_at_the_statistics(name, centred, arriving):
    found, truth = by_kernel_and_formula(name, arriving, centred)
    if arriving[0] or arriving[2] or centred:
        assert_near(found[3:], truth[3:], 2e-6)
    else:
        assert not found[3].any()
