"""A training run leaves a folder, and goes on from it as if it had not stopped."""

import math

import numpy as np
import pytest
from small_runs import Killed, bits, killed_after, metrics, small, stopped_after, summary

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
    newest, before = sorted((tmp_path / "run" / "checkpoints").iterdir(), reverse=True)
    (newest / file).write_bytes((newest / file).read_bytes()[:-9])
    capsys.readouterr()
    training.resume(tmp_path / "run", None)
    said = capsys.readouterr().out
    assert f"{newest} is damaged" in said
    assert f"in its place {before} is used\ngoing on after epoch 1\n" in said
    assert bits(tmp_path / "run") == bits(through)


def test_a_damaged_checkpoint_takes_no_place_among_those_that_are_kept(tmp_path):
    with killed_after(31):
        training.start(small(keep=1), tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    training.resume(tmp_path / "run", None)
    newest = checkpoint.checkpoints(folder)[0]
    with stopped_after(newest_steps := 50):
        training.resume(tmp_path / "run", 9)
    (checkpoint.checkpoints(folder)[0] / "state.json").write_text("")
    with stopped_after(newest_steps - 2):
        training.resume(tmp_path / "run", None)
    assert checkpoint.checkpoints(folder)[0].name == "step-00000048"
    assert newest.exists()
    assert (folder / "damaged-step-00000050").exists()


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


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (150, "rows 180 in the checkpoint, now 135"),
        (-1, r"classes \['a', 'b'\] in the .* \['b', 'x'\]"),
    ],
)
def test_a_run_on_data_that_have_changed_is_refused(tmp_path, rows, what):
    def write(names, n):
        lines = [f"{k % 7},{k % 5},{names[k % 7 > 3]}" for k in range(n)]
        (tmp_path / "t.csv").write_text("\n".join(["u,v,class", *lines]))

    write("ab", 250)
    config = small(data="csv", path=str(tmp_path / "t.csv"), schedule="constant")
    with stopped_after(4):
        training.start(config, tmp_path / "run")
    write("xb" if rows < 0 else "ab", 250 if rows < 0 else rows * 5 // 4)
    with pytest.raises(ValueError, match=f"the data have changed: {what}"):
        training.resume(tmp_path / "run", None)


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    inside = []

    def resume_too(self, progress, stopped):
        with pytest.raises(FileExistsError, match="another process is training there"):
            training.resume(tmp_path / "run", None)
        inside.append(self.state.epoch)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.Run, "train_epoch", resume_too)
        with pytest.raises(Killed):
            training.start(small(), tmp_path / "run")
    assert inside == [0]


def test_the_end_of_a_run_is_forgotten_when_it_goes_on(tmp_path):
    training.start(small(epochs=1), tmp_path / "run")
    with killed_after(20):
        training.resume(tmp_path / "run", 3)
    assert not (tmp_path / "run" / "summary.json").exists()


def test_what_a_killed_start_left_is_no_run(tmp_path):
    (tmp_path / "run" / ".unfinished-step-00000015").mkdir(parents=True)
    (tmp_path / "run" / ".unfinished-0123456789abcdef").write_text("half")
    assert training.start(small(epochs=1), tmp_path / "run") == 0


def test_a_run_can_go_on_to_more_epochs_and_not_to_fewer(tmp_path):
    settings = {"schedule": "constant"}
    training.start(small(**settings), tmp_path / "run")
    training.start(small(**settings, epochs=5), tmp_path / "through")
    assert training.resume(tmp_path / "run", 5) == 0
    assert bits(tmp_path / "run") == bits(tmp_path / "through")
    with pytest.raises(ValueError, match="epochs: got 4, and 5 are done"):
        training.resume(tmp_path / "run", 4)
    with stopped_after(80):
        training.resume(tmp_path / "run", 6)
    with pytest.raises(ValueError, match="got 5, and 5 and a part of the next are done"):
        training.resume(tmp_path / "run", 5)


def test_a_run_that_is_complete_is_only_looked_at_again(through, capsys):
    before = bits(through)
    assert training.resume(through, None) == 0
    said = capsys.readouterr().out
    assert said.startswith("it finished after epoch 3: nothing is left to train\n")
    assert bits(through) == before


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
