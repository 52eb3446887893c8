"""Batches travel to a GPU while it computes, and labels are checked before: on the double."""

import collections

import double
import numpy as np
import pytest
from helpers import host

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn, train

pytestmark = pytest.mark.usefixtures("cupy")


def pairs(n=5, rows=4):
    """Batches of inputs and labels."""
    random = np.random.default_rng(0)
    return [(random.random((rows, 3), np.float32), random.integers(2, size=rows)) for _ in range(n)]


# --- Uploads --------------------------------------------------------------------------------------


def test_batches_arrive_as_they_were_and_those_that_are_kept_stay():
    given = pairs()
    kept = list(train.uploaded(iter(given), "cuda:1"))
    for arrays, arrived in zip(given, kept, strict=True):
        for array, copy in zip(arrays, arrived, strict=True):
            assert tg.Tensor(copy).device == "cuda:1"
            np.testing.assert_array_equal(host(copy), array, strict=True)


def test_on_the_cpu_batches_are_handed_on():
    given = pairs()
    assert list(train.uploaded(given, "cpu")) == given


def test_a_step_copies_from_pinned_memory_alone_and_waits_for_nothing():
    net = nn.Linear(3, 2, device="cuda")
    uploads = []
    with double.forbid("h2d", "d2h", "sync"):
        for inputs, _ in train.uploaded(iter(pairs()), "cuda"):
            uploads.append(double.stats["upload"])
            net(tg.Tensor(inputs)).sum().backward()
    # Each step has its batch, and the next one is on its way: inputs and labels.
    assert np.diff(uploads).tolist() == [2, 2, 2, 0]


def test_nothing_is_lost_when_a_loop_ends_early():
    batches = train.uploaded(iter(pairs()), "cuda")
    first = next(batches)[0]
    batches.close()
    np.testing.assert_array_equal(host(first), pairs()[0][0])
    assert len(list(train.uploaded(iter([]), "cuda"))) == 0


def sums_on_two_streams(cupy):
    """Of the batches of two iterators, which take turns, each on its own stream. Each batch is read
    when the next one is on its way, and dropped at once."""
    turns = [
        (cupy.cuda.Stream(non_blocking=True), train.uploaded(iter(pairs()), "cuda"))
        for _ in range(2)
    ]
    inputs, sums = {}, []
    for _ in pairs():
        for stream, batches in turns:
            with stream:
                following, _ = next(batches)
                if stream in inputs:
                    sums.append(inputs[stream].sum(0))
                inputs[stream] = following
    cupy.cuda.Device().synchronize()
    return [host(array) for array in sums]


def test_memory_is_used_again_when_the_gpu_is_done_with_it(cupy):
    wanted = [x.sum(0) for x, _ in pairs()[:-1] for _ in range(2)]
    np.testing.assert_array_equal(sums_on_two_streams(cupy), wanted)


def test_without_waits_between_streams_it_would_not_be(cupy, monkeypatch):
    monkeypatch.setattr(cupy.cuda.Stream, "wait_event", lambda stream, event: None)
    with pytest.raises(double.Race, match="wants to come after it"):
        sums_on_two_streams(cupy)


def end_early(cupy):
    with cupy.cuda.Stream(non_blocking=True):
        batches = train.uploaded(iter(pairs()), "cuda")
        next(batches)
        batches.close()
        cupy.zeros((4, 3), np.float32)


def test_a_batch_that_nobody_gets_has_arrived_before_its_memory_is_used_again(cupy, monkeypatch):
    end_early(cupy)
    monkeypatch.setattr(cupy.cuda.Event, "synchronize", lambda event: None)
    with pytest.raises(double.Race, match="got memory that a copy from the host on stream"):
        end_early(cupy)


def test_an_upload_that_nobody_waits_for_shows(cupy):
    import cupyx

    memory, stream = cupyx.empty_pinned((3,), np.float32), cupy.cuda.Stream(non_blocking=True)
    memory[...] = 1
    with stream:
        array = cupy.asarray(memory)
    with pytest.raises(double.Race, match="cupy_add on the default stream"):
        array + 0  # read too early
    memory[...] = 2  # written too early
    stream.synchronize()
    assert array.tolist() == [2, 2, 2]
    with stream:
        array = cupy.asarray(memory)
    del memory  # given back too early
    stream.synchronize()
    assert np.isnan(array.get()).all()


def test_a_copy_from_pageable_memory_is_told_from_one_that_is_pinned(cupy):
    array, memory = cupy.zeros(2), cupy.cuda.alloc_pinned_memory(16)
    double.stats.clear()
    array.set(np.ones(2))
    assert double.stats == collections.Counter(["h2d", "sync"])
    double.stats.clear()
    array.set(np.frombuffer(memory, count=2), stream=cupy.cuda.Stream())
    assert double.stats == collections.Counter(["upload"])
    with pytest.raises(double.ForbiddenTransfer, match="upload"), double.forbid("upload"):
        array.set(np.frombuffer(memory, count=2))


# --- Training -------------------------------------------------------------------------------------


def fitted(device, x, y, **changes):
    with tg.device(device):
        tg.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    options = {"epochs": 3, "batch_size": 8, "lr": 0.1, "seed": 1, **changes}
    return train.fit(net, x, y, **options)


@pytest.mark.parametrize("model", ["cpu", "cuda:1"])
@pytest.mark.parametrize("data", ["cpu", "cuda:0", "cuda:1"])
def test_training_sees_the_same_batches_wherever_data_and_model_are(data, model):
    x, y = train.disc(60, seed=0)
    history = fitted(model, tg.tensor(x, device=data), tg.tensor(y, device=data))
    np.testing.assert_allclose(history.losses, fitted("cpu", x, y).losses, rtol=1e-5)


def test_data_on_the_host_is_copied_by_no_step_but_through_pinned_memory():
    x, y = train.disc(80, seed=0)
    counts = []
    for batch_size in (80, 10):
        double.stats.clear()
        fitted("cuda", x, y, batch_size=batch_size, epochs=2)
        counts.append([double.stats[event] for event in ("h2d", "d2h", "sync", "upload")])
    once, more = counts
    assert once[:3] == more[:3]
    assert (once[3], more[3]) == (4, 32)  # inputs and labels of each batch


@pytest.mark.parametrize("place", ["cpu", "cuda"])
@pytest.mark.parametrize("label", [-1, 2, 2**40])
def test_a_label_out_of_range_is_found_before_the_first_step(place, label):
    x, y = train.disc(20, seed=0)
    y[7] = label
    with pytest.raises(ValueError, match=rf"(y|target): got class {label}, wants 0 … 1"):
        fitted("cuda", *(tg.tensor(a, device=place) for a in (x, y)))
    with pytest.raises(ValueError, match=f"got class {label}, wants 0 … 1"):
        fitted("cpu", x, y)


@pytest.mark.parametrize("label", [-1, 3, 2**33])
@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss])
@pytest.mark.parametrize("options", [{}, {"reduction": "sum"}, {"ignore_index": 0}])
def test_a_loss_of_a_label_out_of_range_is_nan_and_reads_nothing_else(loss, label, options):
    logits = tg.tensor(np.zeros((3, 3), np.float32), device="cuda", requires_grad=True)
    target = tg.tensor(np.array([0, label, 2]), device="cuda")
    with double.forbid("h2d", "d2h", "sync"):
        total = loss(logits, target, **options)
        each = loss(logits, target, reduction="none")
    assert np.isnan(host(total))
    assert np.isnan(host(each)).tolist() == [False, True, False]


@pytest.mark.parametrize("index", [[0, 3], ([0, 1], [0, 2]), (..., [-3])])
def test_an_index_that_comes_from_the_host_is_checked_there(index):
    x = tg.tensor(np.ones((3, 2), np.float32), device="cuda", requires_grad=True)
    with pytest.raises(IndexError, match="out of bounds"):
        x[index]
    assert x[[0, 2], :].shape == (2, 2)
    assert host(tg.scatter_add(x[:, 0], [4, 4, 1], (5,))).tolist() == [0, 1, 0, 0, 2]
    with pytest.raises(IndexError, match="out of bounds"):
        tg.scatter_add(x[:, 0], [4, 4, 5], (5,))


def test_rows_of_an_embedding_that_are_not_there_are_nan():
    weight = tg.tensor(np.ones((3, 2), np.float32), device="cuda")
    index = tg.tensor(np.array([0, 3, -1]), device="cuda")
    with double.forbid("h2d", "d2h", "sync"):
        rows = F.embedding(index, weight)
    assert np.isnan(host(rows)).all(axis=1).tolist() == [False, True, True]
