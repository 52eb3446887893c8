"""The CUDA kernels for normalization, run on the CPU: against the formula in float64."""

import double
import ml_dtypes
import numpy as np
import pytest
from double import raw

from tinygrad_bn.fusion import norm_relu
from tinygrad_bn.kernels import cuda_norm
from tinygrad_bn.norm import fused, running

# How far a result may be off, in parts of its largest value: a few roundings of y and ∂x, which are
# in the dtype of x; all else is float32 (beside float64, that).
DTYPES = {
    "float32": (np.dtype(np.float32), 1e-6),
    "float16": (np.dtype(np.float16), 1e-3),
    "bfloat16": (np.dtype(ml_dtypes.bfloat16), 8e-3),
    "float64": (np.dtype(np.float64), 4e-15),
}
# Shape, reduced axes, shape of γ: the layouts, with sizes that fill packs and that do not.
LAYOUTS = {
    "batch norm of images": ((3, 2, 8, 4), (0, 2, 3), (1, 2, 1, 1)),
    "batch norm of 7×7": ((2, 5, 7, 7), (0, 2, 3), (1, 5, 1, 1)),
    "batch norm of many places": ((2, 2, 80, 70), (0, 2, 3), (1, 2, 1, 1)),
    "batch norm of one channel": ((50, 1), (0,), (1, 1)),
    "batch norm of features": ((100, 32), (0,), (1, 32)),
    "batch norm of 33 features": ((70, 33), (0,), (1, 33)),
    "batch norm of 256 features": ((37, 256), (0,), (1, 256)),
    "two samples": ((2, 3), (0,), (1, 3)),
    "instance norm": ((3, 4, 6, 6), (2, 3), (1, 4, 1, 1)),
    "group norm": ((3, 2, 3, 4, 5), (2, 3, 4), (1, 2, 3, 1, 1)),
    "layer norm": ((9, 64), (1,), (1, 64)),
    "layer norm of 7": ((5, 7), (1,), (1, 7)),
    "layer norm of 1100": ((3, 1100), (1,), (1, 1100)),
    "layer norm of images": ((6, 4, 5, 7), (1, 2, 3), (1, 4, 5, 7)),
}
# The others are computed in float32, too; for them one layout of each kind.
SOME = ("batch norm of images", "batch norm of 7×7", "batch norm of features", "layer norm")
CASES = [(name, "float32") for name in LAYOUTS]
CASES += [(name, dtype) for dtype in ("float16", "bfloat16", "float64") for name in SOME]


pytestmark = pytest.mark.usefixtures("cupy")


def numbers(seed, *shapes):
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape) for shape in shapes]


def arguments(shape, affine, dtype, mean=1.0):
    """x and g in this dtype; γ and β in that beside it. NumPy arrays."""
    x, g, gamma, beta = numbers(1, shape, shape, affine, affine)
    gamma, beta = gamma.astype(beside(dtype)), beta.astype(beside(dtype))
    return (x * 2 + mean).astype(dtype), g.astype(dtype), gamma, beta


def beside(dtype):
    """The dtype of statistics, γ and β beside an x of this one."""
    return np.float64 if dtype == np.float64 else np.float32


def both(op, arrays, axes, eps=1e-5, **how):
    """What the kernels give for x, g, γ, β, as NumPy arrays; and the formulas in float64."""
    import cupy

    how = {"axes": axes, "eps": eps, **how}
    needs = (True, arrays[2] is not None, arrays[3] is not None)
    x, g, gamma, beta = [None if a is None else cupy.asarray(a) for a in arrays]
    outs = op.normalize_forward.on_gpu(x, gamma, beta, **how)
    grads = op.normalize_grads.on_gpu((g, None, None), outs, x, gamma, beta, needs=needs, **how)
    got = [None if a is None else a.get() for a in (*outs, *grads)]
    x, g, gamma, beta = [None if a is None else a.astype(np.float64) for a in arrays]
    wanted = op.normalize_forward.formula(x, gamma, beta, **how)
    # The mask of a ReLU is that of the kernel's own y.
    outs = (got[0].astype(np.float64), *wanted[1:])
    grads = op.normalize_grads.formula((g, None, None), outs, x, gamma, beta, needs=needs, **how)
    return dict(zip(NAMES, got)), dict(zip(NAMES, (*wanted, *grads)))


NAMES = "y", "μ", "σ²", "∂x", "∂γ", "∂β"


def check(op, arrays, axes, tolerance, **how):
    x, g, *_ = arrays
    got, wanted = both(op, arrays, axes, **how)
    size = {name: 0 if value is None else abs(value).max() for name, value in wanted.items()}
    # ∂x is a difference: of numbers of this size.
    size["∂x"] = abs(g.astype(np.float64)).max() / np.sqrt(wanted["σ²"].min() + 1e-5)
    for name, value in wanted.items():
        if value is None:
            assert got[name] is None, name
            continue
        in_dtype_of_x = name in ("y", "∂x")
        assert got[name].dtype == (x.dtype if in_dtype_of_x else beside(x.dtype)), name
        assert got[name].shape == value.shape, name
        error = abs(got[name].astype(np.float64) - value).max() / (size[name] or 1.0)
        assert error <= (tolerance if in_dtype_of_x else min(tolerance, 2e-6)), name


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_the_kernels_do_what_the_formula_says(name, dtype):
    shape, axes, affine = LAYOUTS[name]
    dtype, tolerance = DTYPES[dtype]
    check(fused, arguments(shape, affine, dtype), axes, tolerance)


@pytest.mark.parametrize("slices", [2, 5, 64])
@pytest.mark.parametrize("name", ["batch norm of images", "batch norm of features", "group norm"])
def test_groups_may_be_cut_into_slices_even_empty_ones(name, slices, monkeypatch):
    monkeypatch.setattr(cuda_norm, "_slices", lambda xp, blocks, turns: slices)
    shape, axes, affine = LAYOUTS[name]
    check(fused, arguments(shape, affine, np.dtype(np.float32)), axes, 1e-6)


@pytest.mark.parametrize("name", ["batch norm of images", "batch norm of features", "layer norm"])
def test_without_gamma_without_beta_without_either(name):
    shape, axes, affine = LAYOUTS[name]
    x, g, gamma, beta = arguments(shape, affine, np.dtype(np.float32))
    for given in ((gamma, None), (None, beta), (None, None)):
        check(fused, (x, g, *given), axes, 1e-6)


@pytest.mark.parametrize("name", [*SOME, "group norm"])
def test_a_norm_that_is_not_centred(name):
    shape, axes, affine = LAYOUTS[name]
    check(fused, arguments(shape, affine, np.dtype(np.float32)), axes, 1e-6, centred=False)


@pytest.mark.parametrize(
    "name", ["batch norm of images", "batch norm of 7×7", "batch norm of features"]
)
def test_with_the_relu_after_it(name):
    shape, axes, affine = LAYOUTS[name]
    check(norm_relu, arguments(shape, affine, np.dtype(np.float32)), axes, 1e-6)


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("name", [*SOME, "group norm", "batch norm of 256 features"])
def test_a_large_mean_costs_no_digits(name, slices, monkeypatch):
    monkeypatch.setattr(cuda_norm, "_slices", lambda xp, blocks, turns: slices)
    shape, axes, affine = LAYOUTS[name]
    check(fused, arguments(shape, affine, np.dtype(np.float32), mean=2e4), axes, 2e-6)


def test_an_outlier_in_first_place_costs_no_digits():
    x, g, gamma, beta = arguments((2, 2, 80, 70), (1, 2, 1, 1), np.dtype(np.float32))
    x[0, :, 0, 0] = 1e6
    check(fused, (x, g, gamma, beta), (0, 2, 3), 2e-6)


def test_y_and_the_gradient_lie_as_x_does():
    x, g, gamma, beta = arguments((3, 5, 4, 2), (1, 5, 1, 1), np.dtype(np.float32))
    channels_last = x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    got, wanted = both(fused, (channels_last, g, gamma, beta), (0, 2, 3))
    for name in ("y", "∂x"):
        np.testing.assert_allclose(got[name], wanted[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["batch norm of images", "batch norm of 256 features", "layer norm"]
)
def test_an_array_that_begins_between_two_accesses(name, cupy):
    shape, axes, affine = LAYOUTS[name]
    arrays = arguments(shape, affine, np.dtype(np.float32))
    x, _, gamma, beta = [cupy.asarray(a) for a in arrays]
    shifted = cupy.empty(x.size + 1, x.dtype)[1:].reshape(x.shape)
    shifted[...] = x
    assert shifted.data.ptr % 16
    how = {"axes": axes, "eps": 1e-5}
    y, there = [fused.normalize_forward.on_gpu(a, gamma, beta, **how)[0] for a in (x, shifted)]
    np.testing.assert_allclose(there.get(), y.get(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["batch norm of many places", "batch norm of features", "layer norm of 1100"]
)
def test_the_bits_do_not_depend_on_who_comes_first(name):
    shape, axes, affine = LAYOUTS[name]
    arrays = arguments(shape, affine, np.dtype(np.float32))
    first, _ = both(fused, arrays, axes)
    for order in ("reverse", 1, 2):
        with raw.order(order):
            again, _ = both(fused, arrays, axes)
        assert all([first[name].tobytes() == again[name].tobytes() for name in NAMES]), order


def test_a_channel_of_equal_values_and_gamma_of_0():
    x, g, gamma, beta = arguments((4, 3, 5, 5), (1, 3, 1, 1), np.dtype(np.float32))
    x[:, 0], gamma[0, 1] = 3.3, 0.0
    got, _ = both(fused, (x, g, gamma, beta), (0, 2, 3))
    assert (got["y"][:, 0] == beta[0, 0]).all()
    assert (got["y"][:, 1] == beta[0, 1]).all()
    assert not got["∂x"][:, 1].any()
    assert np.isfinite(got["∂x"]).all()


def test_what_is_not_a_number_stays_in_its_channel():
    x, g, gamma, beta = arguments((4, 3, 5, 5), (1, 3, 1, 1), np.dtype(np.float32))
    x[2, 1, 0, 0], x[1, 2, 3, 3] = np.nan, np.inf
    with np.errstate(invalid="ignore"):  # of the formula
        got, _ = both(fused, (x, g, gamma, beta), (0, 2, 3))
    assert np.isfinite(got["y"][:, 0]).all()
    assert np.isnan(got["y"][:, 1:]).all()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("batch norm of features", (1, 1)), ("batch norm of images", (1, 1)), ("layer norm", (1, 2))],
)
def test_a_launch_each_way_where_a_block_has_all_values(name, expected, cupy):
    """Launches, forward and backward, of small arrays: what makes small steps fast."""
    shape, axes, affine = LAYOUTS[name]
    x, g, gamma, beta = [cupy.asarray(a) for a in arguments(shape, affine, np.dtype(np.float32))]
    how = {"axes": axes, "eps": 1e-5}
    with double.forbid("h2d", "d2h", "sync"):
        counts = [double.stats["kernel"]]
        outs = fused.normalize_forward.on_gpu(x, gamma, beta, **how)
        counts.append(double.stats["kernel"])
        gs, needs = (g, None, None), (True, True, True)
        fused.normalize_grads.on_gpu(gs, outs, x, gamma, beta, needs=needs, **how)
        counts.append(double.stats["kernel"])
    assert tuple(np.diff(counts)) == expected


def test_what_the_kernels_do_not_know_is_left_to_the_formula(cupy):
    how = {"axes": (1,), "eps": 1e-5}
    x = cupy.ones((2, 3), np.float32)
    far = cupy.ones((2, 8193), np.float32)
    scattered = cupy.ones((2, 3, 2, 3), np.float32)
    for answer in (
        fused.normalize_forward.on_gpu(cupy.ones((2, 3), np.int32), None, None, **how),
        fused.normalize_forward.on_gpu(far, far[0], None, **how),
        fused.normalize_forward.on_gpu(scattered, None, None, axes=(1, 3), eps=1e-5),
        norm_relu.normalize_forward.on_gpu(x, x[:1], None, **how),
    ):
        assert answer is NotImplemented
    y, mu, var = fused.normalize_forward(far, far[0], None, **how)
    grads = fused.normalize_grads(
        (y, mu, None), (y, mu, var), far, far[0], None, needs=(True, True, False), **how
    )
    assert (y.get() == 0).all()
    assert grads[0].shape == far.shape


def test_more_values_than_32_bits_count_are_left_to_the_formula():
    layout = cuda_norm._layout.__wrapped__
    beside = (None, None)
    of_group = layout((2**16, 2, 2**15), (0, 0, 0), np.dtype(np.float32), (0, 2), *beside)
    in_all = layout((2**10, 2**10, 2**12), (2**24, 2**14, 4), np.dtype(np.float32), (0, 2), *beside)
    assert of_group is None
    assert in_all.groups * in_all.repeats * in_all.run == 2**32  # addresses have 64 bits


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("where", ["host", "device"])
def test_running_statistics_move_in_one_launch(samples, where, cupy):
    arrays = [a.astype(np.float32) for a in numbers(2, 5, 5, (samples, 5, 1), (samples, 5, 1))]
    mean, var, mu, variance = [cupy.asarray(a) for a in arrays]
    momentum = 0.25 if where == "host" else cupy.asarray(0.25)
    before = double.stats["kernel"]
    running.move(mean, var, mu, variance, 9, momentum)
    assert double.stats["kernel"] - before == (1 if where == "host" else 2)
    for got, start, batch, scale in zip((mean, var), arrays, arrays[2:], (1.0, 9 / 8)):
        expected = start + 0.25 * (batch.reshape(samples, 5).mean(0) * scale - start)
        np.testing.assert_allclose(got.get(), expected, rtol=1e-5, atol=1e-7)
