"""Small layers in one compiled call give what the layers give one by one."""

import itertools

import numpy as np
import pytest
from helpers import assert_close

import tinygrad_bn as tg
from tinygrad_bn.fusion.layers import layers, small_layers
from tinygrad_bn.kernels import cpu_dense
from tinygrad_bn.kernels.compiled import loops

pytestmark = pytest.mark.skipif(loops("dense") is None, reason="numba is not installed")

# Panels of 4 to 32 columns, tiles of 8 rows: less than one, whole ones, and a rest.
WIDTHS = [(3, 1), (2, 32), (5, 8, 16), (7, 33, 40, 2), (16, 17, 65)]


def arguments(samples, widths, dtype, missing=()):
    """x, and W, b, γ and β of each layer, of which some are `missing`: 1 is b."""
    random = np.random.default_rng(0)
    arrays = [random.standard_normal((samples, widths[0]))]
    for n, m in itertools.pairwise(widths):
        arrays += [random.standard_normal(shape) for shape in ((m, n), (m,), (m,), (m,))]
    return [None if k and (k - 1) % 4 in missing else a.astype(dtype) for k, a in enumerate(arrays)]


def run_both(arrays, eps=1e-3):
    """y and all gradients: by one call, and by `layers`."""
    eps, found = (eps,) * (len(arrays) // 4), []
    for op in (small_layers, layers):
        leaves = [
            None if a is None else tg.tensor(a, requires_grad=True, device="cpu") for a in arrays
        ]
        outputs = op(leaves, eps=eps)
        y = outputs[0 if op is small_layers else -1]
        g = np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype)
        gradients = tg.grad(y, [leaf for leaf in leaves if leaf is not None], g)
        found.append([t.detach().numpy() for t in (y, *gradients)])
    return found


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize("samples", [5, 8, 13])
@pytest.mark.parametrize("missing", [(), (1,), (2, 3)], ids=["all", "no b", "no γ and β"])
def test_values_and_gradients(samples, widths, missing):
    ours, theirs = run_both(arguments(samples, widths, np.float64, missing))
    largest = max(float(np.abs(g).max()) for g in theirs)
    for a, b in zip(ours, theirs):
        assert_close(a, b, 256, largest)


def test_float32_is_as_near_to_float64_as_rounding_allows():
    arrays = arguments(13, (7, 33, 40, 2), np.float64)
    exact = run_both(arrays)[0]
    ours = run_both([a.astype(np.float32) for a in arrays])[0]
    largest = max(np.abs(b).max() for b in exact)
    for a, b in zip(ours, exact):
        assert a.dtype == np.float32
        assert np.abs(a - b).max() < 1e-5 * largest


def test_what_is_not_finite_passes_through():
    arrays = arguments(8, (3, 4, 4), np.float64)
    arrays[0][2, 1] = np.nan
    ours, theirs = run_both(arrays)
    assert np.isnan(ours[0]).all()
    for a, b in zip(ours, theirs):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))


def test_layers_suit_as_long_as_they_are_small():
    x, widest = np.ones((1024, 2)), cpu_dense._SMALL // 1024 // 2
    assert cpu_dense.suits(x, [2, widest])
    assert not cpu_dense.suits(x, [2, widest + 1])
