"""Synchronized batch norm: to each rank it is as if it had the rows of all."""

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import distributed, nn
from tinygrad_bn.distributed import RankError, norm, simulate
from tinygrad_bn.recording import no_grad

IMPLEMENTATIONS = pytest.mark.parametrize("impl", ["fused", "composed"])
# Where the twelve rows are cut: evenly, unevenly, one rank without a row, several, four ranks.
CUTS = {
    "even": [0, 6, 12],
    "uneven": [0, 1, 12],
    "first empty": [0, 0, 12],
    "last empty": [0, 5, 12, 12],
    "four": [0, 3, 3, 4, 12],
}
SHARES = pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
SHAPES = pytest.mark.parametrize("shape", [(12, 3), (12, 3, 4), (12, 3, 2, 3)], ids=str)


def layer(kind, impl="fused", dtype=np.float64, **options):
    """A batch norm of three channels, with γ and β that are not 1 and 0."""
    made = kind(3, impl=impl, dtype=dtype, **options)
    for parameter, values in ((made.weight, [1.0, 2.0, -0.5]), (made.bias, [0.1, 0.2, 0.3])):
        if parameter is not None:
            parameter.data = tg.tensor(np.array(values, dtype)).data
    return made


def whole(shape):
    """The batch norm of one process for a batch of this shape."""
    return {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]


def numbers(shape, seed=0, mean=0.5, dtype=np.float64):
    return np.random.default_rng(seed).normal(mean, 1.0, shape).astype(dtype)


def on_host(tensors):
    return [tensor.detach().cpu().numpy() for tensor in tensors]


def derivatives(made, order, rows, shape, dtype=np.float64):
    """y, and what is differentiated `order` times with respect to x, γ and β, of some rows."""
    x, v, w = (numbers(shape, seed, dtype=dtype)[rows] for seed in range(3))
    x = tg.tensor(x, requires_grad=True)
    inputs = [x, *made.parameters()]
    y = made(x)
    found, value = [y], (y * tg.tensor(v)).sum() + (tg.sin(y) * tg.tensor(w)).sum()
    for k in range(1, order + 1):
        gradients = tg.grad(value, inputs, create_graph=k < order)
        found += gradients
        value = (tg.sin(gradients[0]) * tg.tensor(w)).sum()
    return on_host(found)


def assert_whole(got, wanted, rtol, atol=0.0):
    """What the ranks got, together, is what one process gets: rows one after the other, gradients
    of parameters summed."""
    for k, one in enumerate(wanted):
        pieces = [found[k] for found in got]
        joined = np.concatenate(pieces) if len(one) == 12 else sum(pieces)
        np.testing.assert_allclose(joined, one, rtol=0, atol=rtol * np.abs(one).max() + atol)


@IMPLEMENTATIONS
@SHARES
@SHAPES
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"bias": False}], ids=str)
def test_values_and_gradients_are_those_of_the_whole_batch(impl, cuts, shape, options):
    def each(comm):
        rows = slice(cuts[comm.rank], cuts[comm.rank + 1])
        return derivatives(layer(nn.SyncBatchNorm, impl, **options), 2, rows, shape)

    one = layer(whole(shape), **options)
    wanted = derivatives(one, 2, slice(None), shape)
    assert_whole(simulate(len(cuts) - 1, each), wanted, rtol=1e-12)


@IMPLEMENTATIONS
def test_the_third_order_too(impl):
    cuts, shape = CUTS["four"], (12, 3)

    def each(comm):
        rows = slice(cuts[comm.rank], cuts[comm.rank + 1])
        return derivatives(layer(nn.SyncBatchNorm, impl), 3, rows, shape)

    wanted = derivatives(layer(nn.BatchNorm1d), 3, slice(None), shape)
    assert_whole(simulate(4, each), wanted, rtol=1e-10)


@IMPLEMENTATIONS
@SHARES
def test_running_statistics_are_those_of_the_whole_batch_and_the_same_bits_on_all(impl, cuts):
    shape = (12, 3, 4)

    def each(comm):
        made = layer(nn.SyncBatchNorm, impl, momentum=None)
        for seed in range(3):
            made(tg.tensor(numbers(shape, seed)[cuts[comm.rank] : cuts[comm.rank + 1]]))
        return on_host(made.buffers())

    one = layer(nn.BatchNorm1d, momentum=None)
    for seed in range(3):
        one(tg.tensor(numbers(shape, seed)))
    first, *others = simulate(len(cuts) - 1, each)
    for other in others:
        for a, b in zip(first, other):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(first, on_host(one.buffers())):
        np.testing.assert_allclose(a, b, rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@IMPLEMENTATIONS
def test_other_dtypes(impl, dtype):
    """γ, β and statistics are float32 beside float16."""
    shape, cuts = (12, 3, 4), CUTS["uneven"]

    def each(comm):
        made = layer(nn.SyncBatchNorm, impl, np.float32)
        rows = slice(cuts[comm.rank], cuts[comm.rank + 1])
        found = derivatives(made, 1, rows, shape, dtype)
        assert [a.dtype for a in found] == [dtype, dtype, np.float32, np.float32]
        return found

    wanted = derivatives(layer(nn.BatchNorm1d, dtype=np.float32), 1, slice(None), shape, dtype)
    assert_whole(simulate(2, each), wanted, rtol=2e-3 if dtype is np.float16 else 2e-6)


def test_float32_far_from_zero_loses_no_digits():
    """Mean 1e4 and std 1 (the promise for fused batch norm: an error of y of 1e-5 at most), where
    μ in float32 is wrong by up to 5e-4."""
    x = numbers((4096, 3), mean=1e4, dtype=np.float32)
    exact = x.astype(np.float64)
    exact = (exact - exact.mean(axis=0)) / np.sqrt(exact.var(axis=0) + 1e-5)

    def each(comm):
        made = nn.SyncBatchNorm(3)
        return made(tg.tensor(x[comm.share(len(x))])).detach().cpu().numpy()

    assert np.abs(np.concatenate(simulate(3, each)) - exact).max() < 1e-5


def test_shares_with_other_means_are_merged_to_the_digit():
    """The mean of a share is 1e6 times its deviation away from that of another."""
    x = np.concatenate([numbers((6, 3), mean=-1e6), numbers((6, 3), mean=1e6)])

    def each(comm):
        return norm.statistics(x[comm.share(12)], (0,), comm)

    for of in simulate(2, each):
        assert of.m == 12
        np.testing.assert_allclose((of.mu + of.rest)[0], x.mean(axis=0), rtol=0, atol=1e-9)
        np.testing.assert_allclose(of.var[0], x.var(axis=0), rtol=1e-14)


class Counting:
    """A communicator that notes which collectives it is asked for, and of what."""

    def __init__(self, comm):
        self.comm, self.notes = comm, []

    def __getattr__(self, name):
        what = getattr(self.comm, name)
        if name not in ("allreduce_", "allgather", "bcast_"):
            return what
        return lambda array: (self.notes.append((name, array.shape)), what(array))[1]


@pytest.mark.usefixtures("cpu_only")
def test_the_fused_one_asks_once_forward_and_once_backward_for_two_sums_a_channel():
    def each(comm):
        counting = Counting(comm)
        made = layer(nn.SyncBatchNorm, process_group=counting)
        x = tg.tensor(numbers((4, 3, 5)), requires_grad=True)
        y = made(x)
        forward = list(counting.notes)
        (y * y * y).sum().backward()
        return forward, counting.notes[len(forward) :]

    forward, backward = simulate(2, each)[0]
    assert forward == [("allgather", (1 + 2 * 3,))]
    assert backward == [("allreduce_", (2, 1, 3, 1))]


@pytest.mark.parametrize("seen", ["y, μ and σ²", "μ and σ²", "μ", "σ²", "y and σ²"])
def test_gradients_that_arrive_at_the_statistics_count(seen):
    """A norm across ranks whose μ and σ² are looked at themselves: by each of two ranks, so they
    count twice."""
    x = numbers((12, 3))

    def value(y, mu, var, times):
        found = (y * y * y).sum() if "y" in seen else 0.0
        found = found + times * tg.sin(mu).sum() if "μ" in seen else found
        return found + times * tg.exp(var).sum() if "σ²" in seen else found

    def each(comm):
        mine = tg.tensor(x[comm.share(12)], requires_grad=True)
        how = {"axes": (0,), "eps": 1e-5, "of": norm.statistics(mine.data, (0,), comm)}
        return on_host(tg.grad(value(*norm.normalize(mine, None, None, **how), 1), mine))[0]

    whole = tg.tensor(x, requires_grad=True)
    mu = whole.mean(axis=0, keepdims=True)
    d = whole - mu
    var = (d * d).mean(axis=0, keepdims=True)
    wanted = tg.grad(value(d / tg.sqrt(var + 1e-5), mu, var, 2), whole)
    got = np.concatenate(simulate(2, each))
    np.testing.assert_allclose(got, on_host(wanted)[0], rtol=1e-11, atol=1e-12)


def test_the_gradient_at_the_variance_loses_no_digits_far_from_zero():
    """∂σ²/∂x = 2 (x − μ) / m, where μ in float32 is wrong by up to 5e-4."""
    x = numbers((16, 3), mean=1e4, dtype=np.float32)

    def each(comm):
        mine = tg.tensor(x[comm.share(16)], requires_grad=True)
        how = {"axes": (0,), "eps": 1e-5, "of": norm.statistics(mine.data, (0,), comm)}
        return on_host(tg.grad(norm.normalize(mine, None, None, **how)[2].sum(), mine))[0]

    wide = x.astype(np.float64)
    wanted = 2 * 2 * (wide - wide.mean(axis=0)) / 16  # two ranks look at it
    np.testing.assert_allclose(np.concatenate(simulate(2, each)), wanted, rtol=0, atol=1e-7)


def test_the_composed_one_sums_in_twice_the_precision():
    x = numbers((40_000, 1), mean=100.0, dtype=np.float32)

    def each(comm):
        made = nn.SyncBatchNorm(1, impl="composed", momentum=1.0)
        made(tg.tensor(x[comm.share(len(x))]))
        return float(made.running_mean[0])

    for mean in simulate(2, each):
        assert mean == pytest.approx(x.mean(dtype=np.float64), rel=1e-7)


@pytest.mark.usefixtures("cpu_only")
def test_a_first_layer_asks_nobody_in_backward():
    """Its input wants no gradient; those of γ and β are the rank's own."""

    def each(comm):
        counting = Counting(comm)
        made = layer(nn.SyncBatchNorm, process_group=counting)
        y = made(tg.tensor(numbers((4, 3))))
        counting.notes.clear()
        (y * y * y).sum().backward()
        return counting.notes, made.weight.grad is not None

    assert simulate(2, each) == [([], True)] * 2


@IMPLEMENTATIONS
@pytest.mark.filterwarnings("error")
def test_values_that_are_not_finite_reach_all_ranks_without_a_warning(impl, cpu_only):
    """Of the channel that has one, and no other."""

    def each(comm):
        x = numbers((6, 3))
        x[0, 1] = np.inf if comm.rank else 0.0
        with np.errstate(invalid="ignore" if impl == "composed" else "warn"):
            return np.isnan(layer(nn.SyncBatchNorm, impl)(tg.tensor(x)).detach().numpy())

    for found in simulate(2, each):
        assert found.tolist() == [[False, True, False]] * 6


def test_what_pictures_and_errors_call_it():
    of = norm.statistics(numbers((4, 3)), (0,), distributed.ALONE)
    assert repr(of) == "4 values on 1 ranks"


# --- When there is nothing to synchronize ---------------------------------------------------------


def test_alone_and_in_evaluation_it_is_batch_norm():
    x = tg.tensor(numbers((12, 3)))
    made, other = layer(nn.SyncBatchNorm), layer(nn.BatchNorm1d)
    np.testing.assert_array_equal(*on_host([made(x), other(x)]))

    def each(comm):
        made.eval()
        return made(x[: comm.rank + 1]).detach().cpu().numpy()  # each when it likes

    first = other.eval()(x).detach().cpu().numpy()
    for rank, found in enumerate(simulate(3, each)):
        np.testing.assert_array_equal(found, first[: rank + 1])


def test_a_frozen_one_without_recording_moves_its_statistics_all_the_same():
    def each(comm):
        made = layer(nn.SyncBatchNorm)
        with no_grad():
            made(tg.tensor(numbers((12, 3))[comm.share(12)]))
        return on_host([made.running_mean])[0]

    np.testing.assert_allclose(simulate(2, each)[0], 0.1 * numbers((12, 3)).mean(axis=0))


def test_no_rows_on_any_rank_give_no_rows_and_move_nothing():
    def each(comm):
        made = layer(nn.SyncBatchNorm)
        x = tg.tensor(np.zeros((0, 3)), requires_grad=True)
        y = made(x)
        y.sum().backward()
        return y.shape, x.grad.shape, int(made.num_batches_tracked)

    assert simulate(2, each) == [((0, 3), (0, 3), 0)] * 2


@IMPLEMENTATIONS
def test_one_value_a_channel_on_all_ranks_is_refused_on_all(impl):
    def each(comm):
        with pytest.raises(ValueError, match="one value per channel in training on all ranks"):
            layer(nn.SyncBatchNorm, impl)(tg.tensor(np.ones((1 - comm.rank, 3))))

    simulate(2, each)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((4,), "wants"), ((4, 2), r"got shape \(4, 2\), wants \(N, 3, …\)")],
)
def test_another_shape_is_refused(shape, message):
    def each(comm):
        with pytest.raises(ValueError, match=message):
            layer(nn.SyncBatchNorm)(tg.tensor(np.ones(shape)))

    simulate(2, each)


def test_ranks_with_other_channels_are_told_of():
    def each(comm):
        made = nn.SyncBatchNorm(3 + comm.rank)
        made(tg.ones(2, 3 + comm.rank))

    with pytest.raises(
        RankError, match=r"allgather of float64\[7\]; rank 1 allgather of float64\[9\]"
    ):
        simulate(2, each)
