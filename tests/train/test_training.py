"""A training run leaves a folder, and goes on from it as if it had not stopped."""

import contextlib
import math

import numpy as np
import pytest
from runs import bits, metrics, small, summary

import tinygrad_bn as tg
from tinygrad_bn.train import checkpoint, loop, run, training
from tinygrad_bn.train.config import Config, read_config

AUGMENTED = {"data": "digits", "model": "convnet", "width": 2, "depth": 2, "shift": 1, "flip": True}


@pytest.fixture(scope="module")
def through(tmp_path_factory):
    """The folder of a run that was not stopped."""
    folder = tmp_path_factory.mktemp("through") / "run"
    assert training.start(small(), folder) == 0
    return folder


class Killed(BaseException):
    """Nothing after it runs."""


@contextlib.contextmanager
def killed_after(steps):
    """In the block a run ends without a word when it has made so many steps."""
    read = run.Run._read

    def counted(self, unread, progress):
        read(self, unread, progress)
        if self.state.steps >= steps:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.Run, "_read", counted)
        with contextlib.suppress(Killed):
            yield
            raise AssertionError("the run made fewer steps")


@contextlib.contextmanager
def stopped_after(steps):
    """In the block a run is asked to stop when it has made so many steps."""
    made, read = [], run.Run._read

    def counted(self, unread, progress):
        read(self, unread, progress)
        made.append(self.state.steps)

    def asked():
        return bool(made) and made[-1] >= steps

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.Run, "_read", counted)
        patch.setattr(training, "_stop_requests", lambda: contextlib.nullcontext(asked))
        yield


# --- The folder -----------------------------------------------------------------------------------


def test_a_run_leaves_its_settings_its_metrics_and_its_end(through):
    assert Config(**read_config(through / "config.toml")) == small()
    records, end = metrics(through), summary(through)
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert records[-1]["loss"] < records[0]["loss"]
    assert {"validation_loss", "validation_accuracy", "lr", "step", "seconds"} < records[0].keys()
    assert (end["state"], end["epochs"], end["diverged"]) == ("finished", 3, None)
    assert 0.5 < end["test_accuracy"] <= 1
    assert end["versions"]["numpy"] == np.__version__
    for name in ("index.html", "loss.svg", "accuracy.svg"):
        assert (through / name).stat().st_size > 1000


def test_the_record_of_an_epoch_is_what_was_seen_and_what_evaluate_finds(tmp_path):
    """By a loop of its own: the mean loss over the epoch, and validation after it."""
    training.start(small(epochs=1, dropout=0.0), tmp_path / "run")
    (record,) = metrics(tmp_path / "run")
    again = run.Run(small(epochs=1, dropout=0.0), tmp_path)
    step, losses = loop.training_step(again.model, again.optimizer), []
    for x, y in again.pipeline.epoch(1):
        x, y = tg.tensor(x, device="cpu"), tg.tensor(y, device="cpu")
        losses += [step(x, y)[0].item()] * len(y)
    assert record["loss"] == pytest.approx(np.mean(losses), rel=1e-12)
    assert (record["validation_loss"], record["validation_accuracy"]) == loop.evaluate(
        again.model, *again.validation
    )


def test_validation_and_test_data_are_not_trained_on(tmp_path):
    made = run.Run(small(**AUGMENTED), tmp_path)
    sizes = [len(x) for x in (made.pipeline.x, made.validation[0], made.test[0])]
    assert sizes == [1437 - 144, 144, 360]
    trained_on = {x.tobytes() for x in made.pipeline.standardize(made.pipeline.x)}
    assert not trained_on & {x.tobytes() for x in (*made.validation[0], *made.test[0])}


def test_the_best_checkpoint_is_kept_beside_the_last(tmp_path, monkeypatch):
    losses = iter([(0.5, 0.9), (0.1, 0.9), *[(0.3, 0.9)] * 4, (9.0, 0.2), (1.0, 0.4)])
    monkeypatch.setattr(run, "evaluate", lambda *_: next(losses))
    monkeypatch.setattr(training, "evaluate", lambda *_: next(losses))
    training.start(small(epochs=6, keep=2), tmp_path / "run")
    per_epoch = metrics(tmp_path / "run")[0]["step"]
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == [f"step-{k * per_epoch:08d}" for k in (2, 5, 6)]
    end = summary(tmp_path / "run")
    assert (end["best_epoch"], end["test_accuracy"], end["best_test_accuracy"]) == (2, 0.2, 0.4)


def test_a_run_stops_early_when_validation_gets_no_better(tmp_path, monkeypatch):
    losses = iter([(0.5, 0.9), (0.1, 0.9), *[(0.3, 0.9)] * 9])
    monkeypatch.setattr(run, "evaluate", lambda *_: next(losses))
    assert training.start(small(epochs=9, patience=3), tmp_path / "run") == 0
    end = summary(tmp_path / "run")
    assert (end["state"], end["epochs"], end["best_epoch"]) == ("stopped early", 5, 2)


@pytest.mark.parametrize("settings", [{}, {"optimizer": "adam"}, AUGMENTED])
def test_a_run_is_its_seed(tmp_path, settings):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        training.start(small(**settings, epochs=1, seed=seed), tmp_path / name)
    assert bits(tmp_path / "a") == bits(tmp_path / "b")
    assert bits(tmp_path / "a") != bits(tmp_path / "c")


@pytest.mark.parametrize("settings", [{"prefetch": 0}, {"prefetch": 7}])
def test_batches_made_ahead_change_nothing(tmp_path, settings, through):
    training.start(small(**settings), tmp_path / "run")
    assert bits(tmp_path / "run") == bits(through)


# --- Stopped, and resumed -------------------------------------------------------------------------


STEPS = [1, 14, 15, 16, 31, 44]  # of 45, 15 an epoch


@pytest.mark.parametrize("steps", STEPS)
def test_a_run_that_was_killed_ends_as_one_that_was_not(tmp_path, through, steps):
    with killed_after(steps):
        training.start(small(), tmp_path / "run")
    assert training.resume(tmp_path / "run", None) == 0
    assert bits(tmp_path / "run") == bits(through)


@pytest.mark.parametrize("steps", STEPS)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, through, capsys, steps):
    with stopped_after(steps):
        assert training.start(small(), tmp_path / "run") == 130
    assert summary(tmp_path / "run")["state"] == "interrupted"
    assert f"to go on: tinygrad-bn train --resume {tmp_path / 'run'}" in capsys.readouterr().out
    state = checkpoint.read_checkpoint(checkpoint.checkpoints(tmp_path / "run" / "checkpoints")[0])
    assert state[1]["more"]["steps"] == steps  # nothing was lost
    assert training.resume(tmp_path / "run", None) == 0
    assert bits(tmp_path / "run") == bits(through)
    assert len(metrics(tmp_path / "run")) == 3


@pytest.mark.parametrize("settings", [{"optimizer": "adam"}, AUGMENTED | {"norm": "group"}])
def test_what_else_a_run_depends_on_is_in_its_checkpoint(tmp_path, settings):
    settings |= {"epochs": 2, "batch_size": 200}
    training.start(small(**settings), tmp_path / "through")
    with stopped_after(7):
        training.start(small(**settings), tmp_path / "run")
    training.resume(tmp_path / "run", None)
    assert bits(tmp_path / "run") == bits(tmp_path / "through")


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_in_place_of_a_damaged_checkpoint_the_one_before_is_used(tmp_path, through, capsys, file):
    with killed_after(31):
        training.start(small(), tmp_path / "run")
    newest, _ = sorted((tmp_path / "run" / "checkpoints").iterdir(), reverse=True)
    (newest / file).write_bytes((newest / file).read_bytes()[:-9])
    capsys.readouterr()
    training.resume(tmp_path / "run", None)
    said = capsys.readouterr().out
    assert f"{newest} is damaged" in said
    assert "the one before is used\ngoing on after epoch 1, step 0" in said
    assert bits(tmp_path / "run") == bits(through)


def test_if_no_checkpoint_is_whole_nothing_is_trained(tmp_path):
    with killed_after(20):
        training.start(small(), tmp_path / "run")
    (only,) = (tmp_path / "run" / "checkpoints").iterdir()
    (only / "state.json").unlink()
    with pytest.raises(ValueError, match="none of 1 checkpoints is whole"):
        training.resume(tmp_path / "run", None)
    assert only.exists()


def test_the_checkpoint_of_another_model_is_refused(tmp_path):
    with killed_after(20):
        training.start(small(), tmp_path / "run")
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text().replace("width = 8", "width = 9"))
    with pytest.raises(RuntimeError, match=r"step-0+15: .*\n  misshapen 1\.weight"):
        training.resume(tmp_path / "run", None)


def test_a_run_can_go_on_to_more_epochs_and_not_to_fewer(tmp_path):
    settings = {"schedule": "constant"}
    training.start(small(**settings), tmp_path / "run")
    training.start(small(**settings, epochs=5), tmp_path / "through")
    assert training.resume(tmp_path / "run", 5) == 0
    assert bits(tmp_path / "run") == bits(tmp_path / "through")
    with pytest.raises(ValueError, match="epochs: got 4, and 5 are done"):
        training.resume(tmp_path / "run", 4)


def test_a_run_that_is_complete_is_only_looked_at_again(through, capsys):
    before = bits(through)
    assert training.resume(through, None) == 0
    assert "going on after epoch 3" in capsys.readouterr().out
    assert bits(through) == before


# --- What goes wrong ------------------------------------------------------------------------------


def test_a_run_that_diverges_says_where_and_keeps_the_last_good_checkpoint(tmp_path, capsys):
    """From the second epoch on, the learning rate is beyond all bounds."""

    def suddenly(self, base, t, group):
        return base if t < 1 else 1e30

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.lr_scheduler.CosineAnnealingLR, "_rate", suddenly)
        assert training.start(small(norm="none", epochs=5), tmp_path / "run") == 1
    end = summary(tmp_path / "run")
    assert end["state"] == "diverged"
    assert end["diverged"]["epoch"] == 2
    assert end["diverged"]["step"] >= 2
    assert "the loss is nan" in end["diverged"]["what"]
    assert "linear(" in end["diverged"]["where"]
    assert "its arguments are finite, in Sequential." in end["diverged"]["where"]
    assert "test_accuracy" not in end
    assert "the last good checkpoint: " in capsys.readouterr().out
    (kept,) = (tmp_path / "run" / "checkpoints").iterdir()
    arrays, _ = checkpoint.read_checkpoint(kept)
    assert all(np.isfinite(array).all() for array in arrays["model"].values())
    assert len(metrics(tmp_path / "run")) == 1


def test_a_checkpoint_that_is_not_finite_is_not_written(tmp_path):
    made = run.Run(small(), tmp_path)
    made.state.epoch = 2
    parameter = next(iter(made.model.parameters()))
    parameter.data = (parameter * math.inf).data
    with pytest.raises(run.DivergedError, match=r"epoch 2, step 15: 1\.weight is not finite"):
        made.save()
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("at", [1, 3])
def test_a_full_disk_does_not_end_the_training(tmp_path, monkeypatch, capsys, through, at):
    """The disk is full when the checkpoint of epoch `at` is written."""
    made, write = [], run.save_checkpoint

    def full(path, *what):
        made.append(path)
        if len(made) == at:
            raise OSError(28, "No space left on device", str(path))
        write(path, *what)

    monkeypatch.setattr(run, "save_checkpoint", full)
    assert training.start(small(), tmp_path / "run") == (1 if at == 3 else 0)
    captured = capsys.readouterr()
    assert "not written, but the training goes on: [Errno 28] No space left" in captured.out
    assert ("not written: [Errno 28]" in captured.err) == (at == 3)
    assert len(metrics(tmp_path / "run")) == 3
    monkeypatch.undo()
    training.resume(tmp_path / "run", None)
    assert bits(tmp_path / "run") == bits(through)


def test_a_folder_with_something_in_it_is_not_touched(tmp_path):
    (tmp_path / "run").mkdir()
    training.start(small(epochs=1), tmp_path / "run")  # an empty one is as good as none
    before = bits(tmp_path / "run")
    with pytest.raises(FileExistsError, match="run is there already; --resume goes on with it"):
        training.start(small(seed=1), tmp_path / "run")
    assert bits(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"model": "convnet"}, ValueError, "model: got convnet, which wants images"),
        ({"shift": 1}, ValueError, "shift, flip: want images"),
        ({"data": "csv"}, ValueError, "path: got none"),
        ({"data": "mnist", "path": "nowhere"}, FileNotFoundError, "nowhere"),
    ],
)
def test_what_cannot_be_trained_leaves_no_folder(tmp_path, settings, error, message):
    with pytest.raises(error, match=message):
        training.start(small(**settings), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no config\.toml, so no run"):
        training.resume(tmp_path, None)


# --- On a GPU -------------------------------------------------------------------------------------


@pytest.mark.parametrize("capture", [False, True])
def test_on_a_gpu_a_run_finds_what_it_finds_on_the_cpu(tmp_path, cupy, capture):
    settings = {"dropout": 0.0, "epochs": 2}
    for name, more in (("cpu", {}), ("gpu", {"device": "cuda", "capture": capture})):
        training.start(small(**settings, **more), tmp_path / name)
    for one, other in zip(metrics(tmp_path / "cpu"), metrics(tmp_path / "gpu")):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["validation_loss"] == pytest.approx(other["validation_loss"], rel=1e-4)


@pytest.mark.parametrize("steps", [10, 15])
def test_on_a_gpu_a_run_goes_on_too(tmp_path, cupy, monkeypatch, steps):
    monkeypatch.setattr(run, "_SECONDS_BETWEEN_READINGS", 0.0)
    training.start(small(device="cuda"), tmp_path / "through")
    with stopped_after(steps):
        training.start(small(device="cuda"), tmp_path / "run")
    training.resume(tmp_path / "run", None)
    assert bits(tmp_path / "run") == bits(tmp_path / "through")


def test_on_a_gpu_a_step_reads_nothing(tmp_path, cupy, monkeypatch):
    import double

    waits = []
    monkeypatch.setattr(run, "_SECONDS_BETWEEN_READINGS", math.inf)
    for batch_size in (900, 30):
        made = run.Run(small(device="cuda", batch_size=batch_size), tmp_path)
        double.stats.clear()
        made.train_epoch(training.TrainingProgress("run", 1, 900, 0), lambda: False)
        waits.append((double.stats["d2h"], double.stats["sync"]))
    assert waits[0] == waits[1]
