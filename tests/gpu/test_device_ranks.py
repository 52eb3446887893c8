"""Ranks with a GPU each: by NCCL, and by MPI or threads through the host. On the double of CuPy the
ranks are threads; on a machine with a GPU there is one rank, and the NCCL is the real one."""

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import nn, optim
from tinygrad_bn.backend import device_of, module_on, to_device
from tinygrad_bn.distributed import ALONE, DataParallel, init, simulate
from tinygrad_bn.distributed.communicators import set_communicator
from tinygrad_bn.distributed.nccl import NCCL
from tinygrad_bn.distributed.start import on_device


@pytest.fixture
def ranks(cupy):
    """simulate for two ranks, each with the GPU of its number as its current and default one."""

    def run(function):
        def each(comm):
            device = f"cuda:{comm.rank}"
            with tg.device(device), module_on(device)[1]:
                return function(on_device(comm, device))

        return simulate(2, each)

    return run


DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64], ids=str)


@DTYPES
def test_the_three_collectives_from_gpu_to_gpu(ranks, cupy, dtype):
    import double

    def each(comm):
        assert isinstance(comm, NCCL)
        mine = to_device(np.array([[comm.rank, 5]], dtype), f"cuda:{comm.rank}")
        comm.allgather(np.zeros(1))  # both have theirs: what is forbidden is to all
        with double.forbid("h2d", "d2h", "sync"):
            return comm.allgather(mine), comm.allreduce_(mine.copy()), comm.bcast_(mine.copy())

    for rank, arrays in enumerate(ranks(each)):
        assert {device_of(a) for a in arrays} == {f"cuda:{rank}"}
        found = [to_device(a, "cpu").tolist() for a in arrays]
        assert found == [[[[0, 5]], [[1, 5]]], [[1, 10]], [[0, 5]]]


def test_arrays_of_the_host_go_by_the_other_communicator(ranks):
    def each(comm):
        mine = np.array([comm.rank + 1.0])
        both = comm.allgather(mine).tolist(), comm.bcast_(mine.copy()).tolist()
        return (comm.allreduce_(mine).tolist(), *both)

    assert ranks(each) == [([3.0], [[1.0], [2.0]], [1.0])] * 2


def test_arrays_that_nccl_cannot_sum_are_refused_on_all(ranks, cupy):
    def each(comm):
        with pytest.raises(TypeError, match="wants int32, int64, float32 or float64"):
            comm.allreduce_(cupy.ones(2, np.float16))
        with pytest.raises(ValueError, match="with gaps, wants one without"):
            comm.allreduce_(cupy.ones((2, 2), np.float32)[:, :1])

    ranks(each)


def test_gathering_takes_arrays_with_gaps(ranks, cupy):
    def each(comm):
        array = cupy.asarray(np.arange(4.0).reshape(2, 2) + comm.rank)[:, 1]
        return comm.read(comm.allgather(array)).tolist()

    assert ranks(each) == [[[1.0, 3.0], [2.0, 4.0]]] * 2


def trained(comm, steps=3):
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))
    random = np.random.default_rng(0)
    values = {
        key: random.standard_normal(value.shape).astype(np.float32)
        for key, value in model.state_dict().items()
        if value.dtype == np.float32
    }
    model.load_state_dict(values, strict=False)
    model = nn.convert_sync_batchnorm(model, comm)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    parallel, losses = DataParallel(model, optimizer, comm), []
    for step in range(steps):
        x = np.random.default_rng(step).standard_normal((10, 4)).astype(np.float32)
        optimizer.zero_grad()
        cuts = [0, 10] if comm.size == 1 else [0, 3, 10]
        mine = slice(*cuts[comm.rank : comm.rank + 2])
        outputs = model(tg.tensor(x[mine]))
        loss = (outputs * outputs).sum() / 10
        loss.backward()
        losses.append(parallel.sum_gradients(loss)[0].item())
        optimizer.step()
    parallel.check_equal()
    return losses, {name: t.cpu().numpy() for name, t in model.state_dict().items()}


@pytest.mark.parametrize("by", ["NCCL", "threads through the host"])
def test_two_gpus_train_what_one_process_trains(ranks, by):
    losses, parameters = trained(ALONE)
    by_host = by != "NCCL"
    for found in ranks(lambda comm: trained(comm._control if by_host else comm)):
        np.testing.assert_allclose(found[0], losses, rtol=1e-5)
        for name, wanted in parameters.items():
            np.testing.assert_allclose(found[1][name], wanted, rtol=2e-4, atol=1e-5)


def test_who_reads_waits_as_long_as_ranks_wait(ranks, monkeypatch):
    def each(comm):
        waited = []
        monkeypatch.setattr(comm._control, "wait", lambda is_done, what: waited.append(what()))
        comm.read(to_device(np.ones(2), f"cuda:{comm.rank}"))
        comm.read(to_device(np.ones(2), f"cuda:{comm.rank}"))
        comm.read(np.ones(2))  # which is there
        return waited

    assert ranks(each) == [[f"what its GPU does for reading {k}" for k in (1, 2)]] * 2


def test_two_ranks_on_one_gpu_are_what_nccl_says_of_them(cupy):
    with pytest.raises(RuntimeError, match="Duplicate GPU"):
        simulate(2, lambda comm: NCCL(comm, "cuda:0"))


def test_without_nccl_the_host_carries_and_who_asks_for_it_is_told(cupy, monkeypatch):
    monkeypatch.setattr(cupy.cuda.nccl, "available", False)
    assert simulate(2, lambda comm: on_device(comm, "cuda:0") is comm) == [True, True]
    with pytest.raises(RuntimeError, match="CuPy finds no NCCL: pip install nvidia-nccl-cu12"):
        init("nccl", "cuda")


def test_one_rank_by_nccl(request):
    """With `--device=cuda` by the real one."""
    if request.config.getoption("--device") != "cuda":
        request.getfixturevalue("cupy")
    try:
        comm = init("nccl", "cuda")
        array = to_device(np.arange(6, dtype=np.float32), "cuda:0")
        assert repr(comm).startswith("1 GPUs by NCCL ")
        found = comm.allreduce_(array), comm.bcast_(array), comm.allgather(array)[0]
        for got in found:
            np.testing.assert_array_equal(comm.read(got), np.arange(6))
        with tg.device("cuda"):
            losses, _ = trained(comm)
            np.testing.assert_allclose(losses, trained(ALONE)[0], rtol=1e-6)
    finally:
        set_communicator(ALONE)
