"""Training runs of several ranks (threads that take turns): they train what one process trains."""

import contextlib
import dataclasses

import numpy as np
import pytest
from small_runs import bits, killed_after, metrics, small, stopped_after, summary

from tinygrad_bn import files, nn
from tinygrad_bn.distributed import RankError, communicator, simulate
from tinygrad_bn.train import checkpoint, evaluate, making, run, run_folder, training

ALIKE = {"dropout": 0.0}  # else each rank drops other units than one process would
CONVNET = {"data": "digits", "model": "convnet", "width": 2, "depth": 2, "epochs": 1} | ALIKE


def start(ranks, config, folder):
    """The exit statuses of the ranks."""
    return simulate(ranks, lambda comm: training.start(config, folder))


def resume(ranks, folder, epochs=None):
    return simulate(ranks, lambda comm: training.resume(folder, epochs))


def parameters(folder):
    newest = checkpoint.checkpoints(folder / "checkpoints")[0]
    return checkpoint.read_checkpoint(newest)[0]["model"]


def assert_alike(folder, other, rtol=1e-3):
    """Two runs made the same steps, up to rounding in float32."""
    here, there = parameters(folder), parameters(other)
    for name, wanted in there.items():
        atol = rtol * max(np.abs(wanted).max(), 1e-3)
        np.testing.assert_allclose(here[name], wanted, rtol=0, atol=atol, err_msg=name)
    for record, wanted in zip(metrics(folder), metrics(other), strict=True):
        for key in ("loss", "validation_loss"):
            assert record[key] == pytest.approx(wanted[key], rel=1e-3)
        for key in ("epoch", "step", "lr"):
            assert record[key] == wanted[key]


@pytest.mark.parametrize(
    "settings",
    [
        ALIKE,
        CONVNET | {"shift": 1},
        ALIKE | {"norm": "layer", "optimizer": "adam", "accumulate": 3},
        ALIKE | {"batch_size": 3, "epochs": 1, "norm": "layer", "lr": 0.01},
    ],
    ids=["batch norm", "convnet", "layer norm in parts", "more ranks than rows"],
)
def test_ranks_train_what_one_process_trains(settings, tmp_path):
    config = small(**settings)
    training.start(config, tmp_path / "one")
    assert start(4, config, tmp_path / "four") == [0] * 4
    assert_alike(tmp_path / "four", tmp_path / "one")
    assert "4 threads that take turns" in summary(tmp_path / "four")["machine"]


@pytest.mark.parametrize("parts", [2, 5])
def test_parts_of_a_batch_add_up_to_it(parts, tmp_path):
    """With layer norm, for which it makes no difference who is in a batch."""
    settings = ALIKE | {"norm": "layer", "epochs": 1}
    training.start(small(**settings), tmp_path / "whole")
    training.start(small(**settings, accumulate=parts), tmp_path / "parts")
    assert_alike(tmp_path / "parts", tmp_path / "whole")


def test_only_rank_0_speaks_and_writes(tmp_path, capsys):
    start(3, small(**ALIKE, epochs=2), tmp_path / "run")
    told = capsys.readouterr().out
    assert told.count("epoch 1/2, ") == told.count("test accuracy") == 1
    assert told.count("index.html") == 1


@pytest.mark.parametrize(("first", "then"), [(1, 3), (3, 1), (2, 2), (2, 4)])
def test_a_run_goes_on_with_another_number_of_ranks(first, then, tmp_path):
    """After it was stopped within an epoch."""
    config = small(**ALIKE)
    training.start(config, tmp_path / "one")
    with stopped_after(20):
        assert set(start(first, config, tmp_path / "run")) == {130}
    assert 20 <= summary_step(tmp_path / "run") <= 22
    assert set(resume(then, tmp_path / "run")) == {0}
    assert_alike(tmp_path / "run", tmp_path / "one")


def summary_step(folder):
    newest = checkpoint.checkpoints(folder / "checkpoints")[0]
    return int(newest.name.removeprefix("step-"))


def test_with_the_same_number_of_ranks_it_ends_with_the_same_bits(tmp_path):
    """With dropout, too: what a rank draws depends on the state in the checkpoint, and the rank."""
    start(2, small(), tmp_path / "through")
    with stopped_after(20):
        start(2, small(), tmp_path / "run")
    resume(2, tmp_path / "run")
    assert bits(tmp_path / "run") == bits(tmp_path / "through")


def test_what_a_killed_run_left_is_gone_on_with(tmp_path):
    start(2, small(), tmp_path / "through")
    with killed_after(35):
        start(2, small(), tmp_path / "run")
    resume(2, tmp_path / "run")
    assert bits(tmp_path / "run") == bits(tmp_path / "through")


def test_one_that_is_asked_to_stop_stops_all_after_the_same_step(tmp_path, monkeypatch):
    def asked():
        return communicator().rank == 1 and len(steps) > 12

    steps, make_step = [], run.Run.make_step

    def counted(self, *batch):
        steps.append(communicator().rank)
        return make_step(self, *batch)

    monkeypatch.setattr(run.Run, "make_step", counted)
    monkeypatch.setattr(training, "_stop_requests", lambda: contextlib.nullcontext(asked))
    assert start(2, small(), tmp_path / "run") == [130, 130]
    assert steps.count(0) == steps.count(1) == summary_step(tmp_path / "run") < 10


def test_a_run_that_diverges_ends_on_all_ranks(tmp_path, capsys):
    def suddenly(self, base, t, group):
        return base if t < 1 else 1e30

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making.lr_scheduler.CosineAnnealingLR, "_rate", suddenly)
        config = small(**ALIKE, norm="none", epochs=5)
        assert start(2, config, tmp_path / "run") == [1, 1]
    assert summary(tmp_path / "run")["state"] == "diverged"
    told = capsys.readouterr().out
    assert "one process can tell by which op: tinygrad-bn train --resume" in told
    assert "the last good checkpoint: " in told


def test_a_full_disk_of_rank_0_does_not_end_the_training(tmp_path, monkeypatch):
    def full(path, *what):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(run, "save_checkpoint", full)
    assert start(2, small(**ALIKE, epochs=1), tmp_path / "run") == [1, 0]
    assert summary(tmp_path / "run")["state"] == "finished"


def test_a_number_that_is_none_on_one_rank_ends_it_on_all_by_its_name(tmp_path, monkeypatch):
    check = run.DataParallel.check_equal

    def spoiled(self):
        if self.comm.rank == 1:
            self.model[2].running_mean.data[0] = np.nan
        check(self)

    monkeypatch.setattr(run.DataParallel, "check_equal", spoiled)
    with pytest.raises(RankError, match=r"^2\.running_mean differs between ranks: on rank 1 of 2"):
        start(2, small(**ALIKE), tmp_path / "run")


def test_outputs_that_are_not_finite_on_one_rank_are_so_for_all():
    x, y = np.zeros((8, 2), np.float32), np.zeros(8, np.int64)
    x[7] = np.inf  # a row of the last rank
    model = nn.Linear(2, 2)
    found = simulate(4, lambda comm: evaluate(model, x, y, comm))
    assert np.isnan(found).all()
    assert np.isfinite(simulate(4, lambda comm: evaluate(model, x[:7], y[:7], comm))).all()


def test_all_files_are_written_by_rank_0(tmp_path, monkeypatch):
    writers, write_whole = [], files.write_whole

    def noted(path, content):
        writers.append(communicator().rank)
        write_whole(path, content)

    for module in (checkpoint, nn.files, run_folder, training):
        monkeypatch.setattr(module, "write_whole", noted)
    start(3, small(**ALIKE, epochs=1), tmp_path / "run")
    resume(3, tmp_path / "run", 2)
    assert len(writers) > 10
    assert {*writers} == {0}


def test_running_statistics_that_differ_end_it_before_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "convert_sync_batchnorm", lambda model, comm: model)
    with pytest.raises(RankError, match=r"^2\.running_mean differs between ranks: on rank 1 of 2"):
        start(2, small(**ALIKE), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_best_epoch_is_tested_by_all(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_loss", lambda record: record["epoch"])  # the first is the best
    config = small(**ALIKE, epochs=2)
    training.start(config, tmp_path / "one")
    start(2, config, tmp_path / "two")
    one, two = (summary(tmp_path / name) for name in ("one", "two"))
    for name in ("test_accuracy", "best_test_accuracy"):
        assert two[name] == pytest.approx(one[name], abs=0.005)
    assert abs(one["best_test_accuracy"] - one["test_accuracy"]) > 0.02  # else it shows nothing


# --- Errors that all ranks know -------------------------------------------------------------------


def refusal(ranks, config, folder):
    """What all ranks say."""

    def each(comm):
        with pytest.raises(RankError) as raised:
            training.start(config, folder)
        return str(raised.value)

    (told,) = {*simulate(ranks, each)}
    return told


def test_a_folder_that_is_taken_is_said_once(tmp_path):
    (tmp_path / "config.toml").write_text("")
    told = refusal(2, small(), tmp_path)
    assert told == f"{tmp_path} is there already; --resume goes on with it"


def test_data_that_one_rank_cannot_read_are_said_with_its_number(tmp_path, monkeypatch):
    load = run.load

    def lost(*what):
        if communicator().rank == 1:
            raise FileNotFoundError("no such file: digits")
        return load(*what)

    monkeypatch.setattr(run, "load", lost)
    assert refusal(3, small(), tmp_path / "run") == "rank 1 of 3: no such file: digits"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("what", ["x", "labels", "test_x", "test_labels"])
def test_other_data_on_a_rank_are_found(tmp_path, monkeypatch, what):
    load = run.load

    def other(*where):
        data = load(*where)
        turned = getattr(data, what)[::-1]  # the same numbers in another order
        return dataclasses.replace(data, **{what: turned}) if communicator().rank == 1 else data

    monkeypatch.setattr(run, "load", other)
    assert refusal(2, small(), tmp_path / "run").startswith("data differs between ranks: on rank 1")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"capture": True, "device": "cuda"}, "capture: wants one process, and there are 2 ranks"),
        ({"accumulate": 65}, "accumulate: got 65, and some batches have only 60 rows"),
        ({"accumulate": 60}, "batch_size: some parts of them have 1; input: got one value per"),
    ],
)
def test_settings_that_do_not_go_together_are_said_once(settings, message, tmp_path, cupy):
    assert refusal(2, small(**settings), tmp_path / "run").startswith(message)


def test_a_run_without_a_whole_checkpoint_is_said_once(tmp_path, capsys):
    start(2, small(**ALIKE, epochs=1, keep=1), tmp_path / "run")
    (kept,) = (tmp_path / "run" / "checkpoints").iterdir()
    (kept / "state.json").write_bytes(b"")
    with pytest.raises(RankError, match="none of 1 checkpoints is whole"):
        resume(2, tmp_path / "run", 2)
    assert capsys.readouterr().out.count("is damaged") == 1


def test_fewer_epochs_than_are_done_are_said_once(tmp_path):
    start(2, small(**ALIKE, epochs=2), tmp_path / "run")
    with pytest.raises(RankError, match=r"^epochs: got 1, and 2 are done$"):
        resume(2, tmp_path / "run", 1)
    with pytest.raises(RankError, match=r"^epochs: got 0, wants"):
        resume(2, tmp_path / "run", 0)


def test_settings_that_cannot_be_written_are_said_once(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(run_folder, "write_whole", full)
    assert "No space left" in refusal(2, small(), tmp_path / "run")


def test_a_run_of_ranks_has_synchronized_norms(tmp_path):
    def norms(comm):
        made = run.Run(small(), tmp_path, comm)
        return [type(m) for m in made.model.modules()].count(nn.SyncBatchNorm)

    assert simulate(2, norms) == [2, 2]
    assert simulate(1, norms) == [0]
