"""What goes wrong in a training run: it diverges, the disk is full, nothing fits."""

import math

import numpy as np
import pytest
from small_runs import bits, metrics, small, stopped_after, summary

from tinygrad_bn.train import checkpoint, making, run, run_folder, training


@pytest.fixture(scope="module")
def through(tmp_path_factory):
    """The folder of a run in which nothing went wrong."""
    folder = tmp_path_factory.mktemp("through") / "run"
    assert training.start(small(), folder) == 0
    return folder


def test_a_run_that_diverges_says_where_and_keeps_the_last_good_checkpoint(tmp_path, capsys):
    """From the second epoch on, the learning rate is beyond all bounds."""

    def suddenly(self, base, t, group):
        return base if t < 1 else 1e30

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making.lr_scheduler.CosineAnnealingLR, "_rate", suddenly)
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


def test_a_stop_that_cannot_be_saved_is_a_failure(tmp_path, monkeypatch, capsys):
    def full(path, *what):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(run, "save_checkpoint", full)
    with stopped_after(3):
        assert training.start(small(), tmp_path / "run") == 1
    assert "not written: [Errno 28]" in capsys.readouterr().err


def test_a_best_epoch_whose_checkpoint_is_damaged_is_not_tested(tmp_path, monkeypatch, capsys):
    losses = iter([(0.1, 0.9), (0.5, 0.9), (0.5, 0.9), (9.0, 0.25), (1.0, 0.75)])
    monkeypatch.setattr(run, "evaluate", lambda *_: next(losses))
    monkeypatch.setattr(training, "evaluate", lambda *_: next(losses))
    close = run.Run.close_epoch

    def damage_the_best(self):
        if self.state.epoch == 2:
            (self.best_path / "model.safetensors").write_bytes(b"")
        return close(self)

    monkeypatch.setattr(run.Run, "close_epoch", damage_the_best)
    assert training.start(small(), tmp_path / "run") == 0
    end = summary(tmp_path / "run")
    assert (end["best_epoch"], end["test_accuracy"], end["best_test_accuracy"]) == (1, 0.25, None)
    assert "the best epoch cannot be tested: " in capsys.readouterr().out


def test_a_test_that_is_not_finite_is_no_number(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "evaluate", lambda *_: (math.nan, math.nan))
    assert training.start(small(validation=0.0, epochs=1), tmp_path / "run") == 0
    end = summary(tmp_path / "run")
    assert (end["test_loss"], end["test_accuracy"]) == (None, None)
    assert "index.html" in {path.name for path in (tmp_path / "run").iterdir()}


def test_parameters_that_a_step_lost_are_found_in_that_step(tmp_path):
    """All that the last step of an epoch computes is finite, but for what it leaves."""

    def suddenly(self, base, t, group):
        return base if t < 1 else 1e39

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making.lr_scheduler.CosineAnnealingLR, "_rate", suddenly)
        config = small(norm="none", epochs=5, batch_size=900, optimizer="adam")
        assert training.start(config, tmp_path / "run") == 1
    end = summary(tmp_path / "run")["diverged"]
    assert (end["epoch"], end["step"]) == (2, 1)
    assert end["what"] == "epoch 2, step 1: outputs on validation data are not finite"
    assert end["where"] == "in step 1: after the update 1.weight is not finite"


def test_a_folder_with_something_in_it_is_not_touched(tmp_path):
    (tmp_path / "run").mkdir()
    training.start(small(epochs=1), tmp_path / "run")  # an empty one is as good as none
    before = bits(tmp_path / "run")
    with pytest.raises(FileExistsError, match="run is there already; --resume goes on with it"):
        training.start(small(seed=1), tmp_path / "run")
    assert bits(tmp_path / "run") == before


def test_a_folder_that_holds_something_else_is_not_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is there already; wants one that is new, or empty"):
        training.start(small(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_that_is_rewritten_stays_as_private_as_it_was(tmp_path):
    training.start(small(epochs=1), tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").chmod(0o600)
    training.resume(tmp_path / "run", 2)
    assert (tmp_path / "run" / "metrics.jsonl").stat().st_mode & 0o777 == 0o600


def test_the_end_of_a_run_is_not_forgotten_on_a_full_disk(tmp_path, monkeypatch):
    training.start(small(epochs=1), tmp_path / "run")

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(run_folder, "write_whole", full)
    with pytest.raises(OSError, match="No space left"):
        training.resume(tmp_path / "run", 2)
    assert summary(tmp_path / "run")["state"] == "finished"


def test_a_run_that_stopped_early_has_nothing_left_to_train(tmp_path, monkeypatch, capsys):
    losses = iter([(0.1, 0.9)] + [(0.3, 0.9)] * 9)
    monkeypatch.setattr(run, "evaluate", lambda *_: next(losses))
    training.start(small(epochs=9, patience=2, schedule="constant"), tmp_path / "run")
    capsys.readouterr()
    assert training.resume(tmp_path / "run", 20) == 0
    assert capsys.readouterr().out.startswith("it stopped early after epoch 3: nothing is left")
    assert "epochs = 9\n" in (tmp_path / "run" / "config.toml").read_text()


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
