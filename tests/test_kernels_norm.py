"""The kernels of the norms, compiled and in NumPy, against the formula in float64."""

from typing import NamedTuple

import numpy as np
import pytest

from tinygrad_bn.kernels import cpu_norm
from tinygrad_bn.norm import running


class Member(NamedTuple):
    shape: tuple
    axes: tuple
    affine: tuple
    centred: bool = True


MEMBERS = {
    "batch norm of samples": Member((70, 40), (0,), (40,)),
    "of few channels": Member((90, 3), (0,), (1, 3)),
    "of images": Member((5, 4, 6, 6), (0, 2, 3), (1, 4, 1, 1)),
    "of large images": Member((3, 2, 75, 60), (0, 2, 3), (1, 2, 1, 1)),
    "of one channel": Member((6, 1, 5), (0, 2), (1, 1, 1)),
    "of one sample": Member((1, 4, 9), (0, 2), (1, 4, 1)),
    "of one place": Member((9, 4, 1, 1), (0, 2, 3), (1, 4, 1, 1)),
    "layer norm": Member((6, 50), (1,), (50,)),
    "layer norm over two axes": Member((70, 3, 5), (1, 2), (3, 5)),
    "layer norm of long rows": Member((3, 5000), (1,), (5000,)),
    "RMS norm": Member((6, 50), (1,), (50,), centred=False),
    "RMS norm over the batch": Member((50, 6), (0,), (6,), centred=False),
    "instance norm": Member((5, 4, 6, 6), (2, 3), (1, 4, 1, 1)),
    "group norm": Member((5, 2, 3, 4, 4), (2, 3, 4), (1, 2, 3, 1, 1)),
    "group norm of samples": Member((5, 2, 30), (2,), (1, 2, 30)),
    "one statistic for all": Member((5, 6), (0, 1), (1, 1)),
    "γ along a middle axis": Member((4, 5, 6), (1,), (1, 5, 1)),
}
UNKNOWN = {"γ along a middle axis"}  # to the loops
LAYOUTS = ("contiguous", "channels last", "sliced", "transposed")


@pytest.fixture(params=["compiled", "numpy"], autouse=True)
def kernel(request, monkeypatch, cpu_only):
    """Which code computes."""
    if request.param == "numpy":
        monkeypatch.setattr(cpu_norm, "plan_of", lambda *args: None)
        monkeypatch.setattr(cpu_norm, "loops", lambda name: None)
    else:
        pytest.importorskip("numba")
    return request.param


def laid_out(array, layout):
    if layout == "channels last":
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)
    if layout == "sliced":
        return np.repeat(array, 2, axis=-1)[..., ::2]
    return np.asfortranarray(array) if layout == "transposed" else array


def drawn(member, dtype=np.float32, shift=0.0, layout="contiguous"):
    """x, γ, β and the gradient that arrives."""
    random = np.random.default_rng(0)
    wide = np.float32 if dtype == np.float16 else dtype
    x, g = (random.standard_normal(member.shape) for _ in range(2))
    gamma, beta = (random.standard_normal(member.affine).astype(wide) for _ in range(2))
    return laid_out((x + shift).astype(dtype), layout), gamma, beta, g.astype(dtype)


def by_hand(member, x, gamma, beta, g, eps=1e-5):
    """y, μ, σ², ∂x, ∂γ and ∂β by the formula, in float64."""
    x, g = x.astype(np.float64), g.astype(np.float64)
    gamma, beta = (v if v is None else v.astype(np.float64) for v in (gamma, beta))

    def mean(v):
        return v.mean(axis=member.axes, keepdims=True)

    def summed(v, like):
        if like is None:
            return None
        shape = (1,) * (v.ndim - like.ndim) + like.shape
        axes = tuple(i for i, n in enumerate(shape) if n == 1)
        return v.sum(axis=axes, keepdims=True).reshape(like.shape)

    mu = mean(x) if member.centred else 0 * mean(x)
    d = x - mu
    d = d - mean(d) if member.centred else d
    var = mean(d * d)
    r = 1 / np.sqrt(var + eps)
    xhat = d * r
    y = xhat * (1 if gamma is None else gamma) + (0 if beta is None else beta)
    dxhat = g * (1 if gamma is None else gamma)
    dx = r * (dxhat - xhat * mean(dxhat * xhat) - (mean(dxhat) if member.centred else 0))
    return y, mu, var, dx, summed(g * xhat, gamma), summed(g, beta)


def computed(member, x, gamma, beta, g, eps=1e-5, **options):
    """The same by the kernel."""
    options |= {"axes": member.axes, "eps": eps, "centred": member.centred}
    outs = cpu_norm.normalize(x, gamma, beta, **options)
    needs = True, gamma is not None, beta is not None
    gs = g, None, None
    return outs + cpu_norm.normalize_grads(gs, outs, x, gamma, beta, needs=needs, **options)


def assert_near(found, truth, bound):
    for ours, theirs in zip(found, truth):
        if theirs is None:
            assert ours is None
        else:
            assert ours.shape == theirs.shape
            assert np.abs(ours - theirs).max() <= bound * max(1, np.abs(theirs).max())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MEMBERS)
def test_every_member_in_every_layout(name, layout):
    values = drawn(MEMBERS[name], shift=1e4, layout=layout)
    assert_near(computed(MEMBERS[name], *values), by_hand(MEMBERS[name], *values), 2e-6)


@pytest.mark.parametrize("name", ["batch norm of samples", "of images", "layer norm"])
@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 2e-14), (np.float16, 1e-3)])
def test_other_dtypes(name, dtype, bound):
    values = drawn(MEMBERS[name], dtype, shift=3)
    found = computed(MEMBERS[name], *values)
    wide = np.float32 if dtype == np.float16 else dtype
    assert [v.dtype for v in found[:4]] == [dtype, wide, wide, dtype]
    assert_near(found, by_hand(MEMBERS[name], *values), bound)


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("given", ["γ", "β", ""])
def test_gamma_and_beta_may_be_none(name, given):
    x, gamma, beta, g = drawn(MEMBERS[name])
    values = x, gamma if "γ" in given else None, beta if "β" in given else None, g
    assert_near(computed(MEMBERS[name], *values), by_hand(MEMBERS[name], *values), 2e-6)


@pytest.mark.parametrize("name", MEMBERS)
def test_with_relu_what_is_cut_off_gives_no_gradient(name):
    x, gamma, beta, g = drawn(MEMBERS[name])
    found = computed(MEMBERS[name], x, gamma, beta, g, relu=True)
    truth = by_hand(MEMBERS[name], x, gamma, beta, np.where(found[0] > 0, g, 0))
    assert_near(found, (np.maximum(truth[0], 0), *truth[1:]), 2e-6)


@pytest.mark.parametrize("name", MEMBERS)
def test_only_the_gradients_that_are_needed_come_back(name):
    member = MEMBERS[name]
    x, gamma, beta, g = drawn(member)
    options = {"axes": member.axes, "eps": 1e-5, "centred": member.centred}
    outs = cpu_norm.normalize(x, gamma, beta, **options)
    every = computed(member, x, gamma, beta, g)[3:]
    for k in range(3):
        needs = tuple(i == k for i in range(3))
        found = cpu_norm.normalize_grads(
            (g, None, None), outs, x, gamma, beta, needs=needs, **options
        )
        assert [v is not None for v in found] == list(needs)
        np.testing.assert_array_equal(found[k], every[k])


def test_the_loops_know_all_members_but_one(kernel):
    for name, member in MEMBERS.items():
        x, gamma, _, _ = drawn(member)
        args = x.shape, x.strides, x.dtype, member.axes, gamma.shape, gamma.shape
        known = kernel == "compiled" and name not in UNKNOWN
        assert (cpu_norm.plan_of(*args) is not None) == known, name


def test_the_log_says_where_no_loop_runs(kernel, monkeypatch, caplog):
    monkeypatch.undo()
    x = np.ones((2, 3, 4), np.float32)
    with caplog.at_level("DEBUG", "tinygrad_bn"):
        assert (
            cpu_norm.plan_of.__wrapped__(x.shape, x.strides, x.dtype, (1,), (1, 3, 1), None) is None
        )
    assert "NumPy normalizes float32(2, 3, 4) over the axes (1,)" in caplog.text


def test_results_lie_in_memory_as_x_does():
    values = drawn(MEMBERS["of images"], layout="channels last")
    y, _, _, dx, _, _ = computed(MEMBERS["of images"], *values)
    assert y.strides == dx.strides == values[0].strides


@pytest.mark.parametrize("name", ["batch norm of samples", "of images", "layer norm"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_not_finite_or_huge_changes_no_bit_elsewhere(name, value):
    member = MEMBERS[name]
    x, gamma, beta, g = drawn(member)
    clean = computed(member, x, gamma, beta, g)
    x.flat[7] = value
    found = computed(member, x, gamma, beta, g)
    touched = np.zeros(x.shape, bool)
    touched.flat[7] = True
    touched = np.broadcast_to(touched.any(axis=member.axes, keepdims=True), x.shape)
    for k in (0, 3):  # y and ∂x
        np.testing.assert_array_equal(found[k][~touched], clean[k][~touched])
    assert value == 1e30 or np.isnan(found[0][touched]).all()


@pytest.mark.parametrize("name", ["batch norm of samples", "of images", "layer norm"])
def test_a_first_value_far_from_the_others_costs_no_digits(name):
    member = MEMBERS[name]
    x, gamma, beta, g = drawn(member, shift=1e4)
    x.flat[:3] = -1e6
    assert_near(computed(member, x, gamma, beta, g), by_hand(member, x, gamma, beta, g), 2e-6)


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("constant", [3.25, 1e38])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # as RMS norm squares 1e38
def test_a_constant_input_gives_beta(name, constant):
    member = MEMBERS[name]
    _, gamma, beta, g = drawn(member)
    x = np.full(member.shape, constant, np.float32)
    y, _, var, dx, dgamma, _ = computed(member, x, gamma, beta, g)
    if member.centred:
        np.testing.assert_array_equal(y, np.broadcast_to(beta, x.shape))
        assert (var == 0).all()
        assert (dgamma == 0).all()
    if member.centred or constant < 1e19:  # beyond, the mean square is infinite
        assert np.isfinite(dx).all()


def test_a_long_run_of_a_prime_length_is_summed_in_pieces_too():
    member = Member((1_000_003,), (0,), (1,))
    values = drawn(member, shift=1e4)
    y_to_dx = slice(4)  # ∂γ and ∂β are small differences of a million terms
    assert_near(computed(member, *values)[y_to_dx], by_hand(member, *values)[y_to_dx], 2e-6)


def test_inputs_are_read_only_and_left_alone():
    member = MEMBERS["of images"]
    values = drawn(member)
    copies = [v.copy() for v in values]
    for v in values:
        v.setflags(write=False)
    computed(member, *values)
    for value, copy in zip(values, copies):
        np.testing.assert_array_equal(value, copy)


# --- The running statistics ---------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_running_statistics_move_towards_the_batch(samples, step, dtype):
    random = np.random.default_rng(0)
    mean, var = (random.uniform(1, 2, 6 * step).astype(dtype)[::step] for _ in range(2))
    mu, sigma2 = (random.uniform(1, 2, (samples, 6, 1)).astype(dtype) for _ in range(2))
    truth = (
        0.75 * mean + 0.25 * mu.mean(axis=0)[:, 0],
        0.75 * var + 0.25 * sigma2.mean(axis=0)[:, 0] * 10 / 9,
    )
    running.move(mean, var, mu, sigma2, 10, 0.25)
    for ours, theirs in zip((mean, var), truth):
        np.testing.assert_allclose(ours, theirs, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_read_only_running_statistic_is_refused_before_anything_moves(frozen):
    statistics = [np.zeros(3, np.float32), np.ones(3, np.float32)]
    statistics[frozen].setflags(write=False)
    batch = np.full((1, 3), 2, np.float32)
    with pytest.raises(ValueError, match="read-only"):
        running.move(*statistics, batch, batch, 10, 0.5)
    assert statistics[0].tolist() == [0, 0, 0]
    assert statistics[1].tolist() == [1, 1, 1]
