"""Data-parallel training: ranks that make the steps of one process."""

import numpy as np
import pytest
from same_training import CUTS, ROWS, trained

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn, optim
from tinygrad_bn.distributed import ALONE, DataParallel, RankError, simulate


@pytest.mark.parametrize("cuts", CUTS, ids=str)
@pytest.mark.parametrize("kind", ["mlp", "convnet"])
@pytest.mark.parametrize("impl", ["fused", "composed"])
@pytest.mark.usefixtures("cpu_only")
def test_twenty_steps_are_those_of_one_process(kind, impl, cuts):
    assert_the_same(20, kind, impl, cuts)


@pytest.mark.parametrize("impl", ["fused", "composed"])
def test_two_steps_are_those_of_one_process_on_any_device(impl):
    assert_the_same(2, "convnet", impl, [0, 1, ROWS])


def assert_the_same(steps, kind, impl, cuts):
    losses, parameters = trained(ALONE, kind, [0, ROWS], steps=steps)
    for found in simulate(len(cuts) - 1, lambda comm: trained(comm, kind, cuts, impl, steps)):
        np.testing.assert_allclose(found[0], losses, rtol=1e-12)
        np.testing.assert_allclose(found[1], parameters, rtol=0, atol=1e-12)


def linear(seed=0, **options):
    tg.manual_seed(seed)
    return nn.Linear(2, 3, dtype=np.float64, **options)


def test_all_ranks_begin_with_what_rank_0_has():
    def each(comm):
        model = nn.Sequential(linear(comm.rank), nn.BatchNorm1d(3, dtype=np.float64))
        model[1].running_mean.data[...] = comm.rank
        DataParallel(model, optim.SGD(model.parameters(), lr=0.1), comm)
        return [tensor.cpu().numpy() for tensor in model.state_dict().values()]

    wanted = nn.Sequential(linear(0), nn.BatchNorm1d(3, dtype=np.float64)).state_dict().values()
    for found in simulate(3, each):
        for got, tensor in zip(found, wanted):
            np.testing.assert_array_equal(got, tensor.cpu().numpy())


def test_another_model_on_a_rank_is_told_of_by_its_first_parameter():
    def each(comm):
        model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4 + comm.rank))
        DataParallel(model, optim.SGD(model.parameters(), lr=0.1), comm)

    with pytest.raises(RankError, match=r"^1\.weight differs between ranks: on rank 1 of 2"):
        simulate(2, each)


@pytest.mark.parametrize("name", ["0.weight", "1.running_var"])
def test_what_has_diverged_is_named(name):
    def each(comm):
        model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        parallel = DataParallel(model, optim.SGD(model.parameters(), lr=0.1), comm)
        parallel.check_equal()
        if comm.rank == 2:
            state = model.state_dict()
            state[name] = state[name] * (1 + 1e-6)
            model.load_state_dict(state)
        parallel.check_equal()

    with pytest.raises(RankError, match=f"^{name} differs between ranks: on rank 2 of 3"):
        simulate(3, each)


def test_batch_norm_that_nobody_synchronized_is_found():
    def each(comm):
        model = nn.Sequential(linear(), nn.BatchNorm1d(3, dtype=np.float64))
        parallel = DataParallel(model, optim.SGD(model.parameters(), lr=0.1), comm)
        x = np.random.default_rng(comm.rank).standard_normal((4, 2))
        model(tg.tensor(x)).sum().backward()
        parallel.sum_gradients()
        parallel.optimizer.step()
        parallel.check_equal()

    with pytest.raises(RankError, match=r"1\.running_mean differs"):
        simulate(2, each)


# --- Gradients ------------------------------------------------------------------------------------


def gradients(parameters):
    return [None if p.grad is None else p.grad.cpu().numpy() for p in parameters]


def test_several_backward_passes_are_sent_once():
    """Gradient accumulation."""
    x = np.random.default_rng(0).standard_normal((12, 2))

    def each(comm):
        model = linear()
        parallel = DataParallel(model, optim.SGD(model.parameters(), lr=0.1), comm)
        for part in np.split(x[comm.share(12)], 3):
            (model(tg.tensor(part)) ** 2).sum().backward()
        parallel.sum_gradients()
        return gradients(model.parameters())

    one = linear()
    (one(tg.tensor(x)) ** 2).sum().backward()
    for found in simulate(2, each):
        for got, wanted in zip(found, gradients(one.parameters())):
            np.testing.assert_allclose(got, wanted, rtol=1e-13)


@pytest.mark.parametrize("flat", ["one dtype", "two dtypes"])
def test_a_parameter_that_only_some_ranks_used_is_stepped_on_all(flat):
    """Rank 0 uses the first, all the second, nobody the third; the fourth is frozen. What was in
    the gradient of the step before is not counted."""
    kinds = [np.float64] * 4 if flat == "one dtype" else [np.float64, np.float32] * 2

    def each(comm):
        parameters = [nn.Parameter(tg.ones(2, dtype=kind)) for kind in kinds]
        parameters[3].requires_grad_(False)
        model = nn.Module()
        for k, parameter in enumerate(parameters):
            setattr(model, f"p{k}", parameter)
        optimizer = optim.SGD(parameters, lr=1.0)
        parallel = DataParallel(model, optimizer, comm)
        found = []
        for step in range(2):
            optimizer.zero_grad()
            used = parameters if step == 0 else parameters[comm.rank : 2]
            for parameter in used:
                if parameter.requires_grad:
                    (parameter * (comm.rank + 1)).sum().backward()
            parallel.sum_gradients()
            found.append([None if g is None else g.tolist() for g in gradients(parameters)])
            optimizer.step()
        return found, [p.tolist() for p in parameters]

    for (first, second), values in simulate(2, each):
        assert first == [[3.0, 3.0]] * 3 + [None]
        assert second == [[1.0, 1.0], [3.0, 3.0], None, None]
        assert values == [[-3.0] * 2, [-5.0] * 2, [-2.0] * 2, [1.0] * 2]


def test_what_was_done_to_a_gradient_before_the_sum_is_sent():
    """A gradient that is given, or clipped, on each rank."""

    def each(comm):
        p = nn.Parameter(tg.zeros(2, dtype=np.float64))
        model = nn.Module()
        model.p = p
        parallel = DataParallel(model, optim.SGD([p], lr=1.0), comm)
        p.grad = tg.tensor([comm.rank + 1.0, 1.0], dtype=np.float64)
        parallel.sum_gradients()
        nn.utils.clip_grad_norm_([p], 1.0)  # and of the sum
        parallel.optimizer.step()
        return p.tolist()

    for found in simulate(2, each):
        np.testing.assert_allclose(found, -np.array([3, 2]) / np.sqrt(13), rtol=1e-6)


def test_float16_parameters_are_summed_in_float32():
    """2049 is no float16."""

    def each(comm):
        p = nn.Parameter(tg.zeros(2, dtype=np.float16))
        model = nn.Module()
        model.p = p
        parallel = DataParallel(model, optim.SGD([p], lr=0.5), comm)
        (p * (1.0 if comm.rank else 2048.0)).sum().backward()
        parallel.sum_gradients()
        found = p.grad.tolist()
        parallel.optimizer.step()
        return found, p.tolist()

    assert simulate(2, each) == [([2049.0] * 2, [-1024.0] * 2)] * 2


# --- Numbers that are sent along ------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3])
def test_numbers_come_back_summed_as_they_were_given(size):
    def each(comm):
        model = nn.Linear(1, 1)
        parallel = DataParallel(model, optim.SGD(model.parameters(), lr=0.1), comm)
        loss = model(tg.ones(1, 1)).sum() * 0.0 + 2.0
        return parallel.sum_gradients(loss, comm.rank + 1.0)

    for loss, number in simulate(size, each):
        assert isinstance(loss, tg.Tensor)
        assert not loss.requires_grad
        assert (loss.item(), number) == (2.0 * size, size * (size + 1) / 2)
        assert isinstance(number, float)


def test_a_rank_that_gives_no_number_adds_none():
    """Nor what was summed before."""

    def each(comm):
        model = nn.Linear(1, 1)
        parallel = DataParallel(model, optim.SGD(model.parameters(), lr=0.1), comm)
        return [parallel.sum_gradients(*[] if comm.rank else [1.0]) for _ in range(3)]

    assert simulate(2, each) == [[(1.0,)] * 3, [()] * 3]


def test_who_forgets_init_is_warned(monkeypatch):
    model = nn.Linear(1, 1)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    DataParallel(model, optimizer)
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.warns(UserWarning, match=r"distributed.init\(\) was not called: each trains alone"):
        DataParallel(model, optimizer)
    DataParallel(model, optimizer, ALONE)  # as was asked for


def test_too_many_numbers_are_refused():
    def each(comm):
        model = nn.Linear(1, 1)
        parallel = DataParallel(model, optim.SGD(model.parameters(), lr=0.1), comm)
        with pytest.raises(ValueError, match="numbers: got 5, wants at most 4"):
            parallel.sum_gradients(1, 2, 3, 4, 5)

    simulate(2, each)


def test_alone_it_does_nothing():
    model = linear()
    parallel = DataParallel(model, optim.SGD(model.parameters(), lr=0.1))
    F.mse_loss(model(tg.ones(2, 2, dtype=np.float64)), tg.zeros(2, 3, dtype=np.float64)).backward()
    before = gradients(model.parameters())
    assert parallel.sum_gradients(1.0) == (1.0,)
    for got, wanted in zip(gradients(model.parameters()), before):
        np.testing.assert_array_equal(got, wanted)
    parallel.check_equal()
