"""A checkpoint has all that the training needs to go on, or says what is wrong with it."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import host

import tinygrad_bn as tg
from tinygrad_bn import nn, optim
from tinygrad_bn.random_numbers import random_state
from tinygrad_bn.train import checkpoint, training_step

FILES = ("model.safetensors", "optimizer.safetensors", "state.json")
OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw, frozen and unused": lambda p: optim.AdamW(
        [{"params": p[:2]}, {"params": p[2:], "lr": 0.3}]
    ),
}


class Training:
    """A small network with all that has a state: statistics, moments, dropout, a schedule."""

    def __init__(self, optimizer="momentum", width=4):
        tg.manual_seed(0)
        self.model = nn.Sequential(
            *(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(0.3), nn.Linear(width, 2))
        )
        self.optimizer = OPTIMIZERS[optimizer](list(self.model.parameters()))
        self.schedule = optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=20)
        self.step = training_step(self.model, self.optimizer)

    def steps(self, n):
        for _ in range(n):
            self.step(tg.randn(8, 3), tg.tensor([0, 1] * 4))
            self.schedule.step()
        return self

    def bits(self):
        """All that the training depends on, as it is now."""
        arrays = [host(value).tobytes() for value in self.model.state_dict().values()]
        for entries in self.optimizer.state_dict()["state"].values():
            arrays += [host(value).tobytes() for value in entries.values()]
        drawn, keys = random_state()
        keys = {device: host(numbers).tolist() for device, numbers in keys.items()}
        return arrays, self.schedule.get_last_lr(), drawn, keys

    def save(self, path, **more):
        checkpoint.save_checkpoint(path, self.model, self.optimizer, self.schedule, more)
        return path

    def load(self, path):
        return checkpoint.load_checkpoint(path, self.model, self.optimizer, self.schedule)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("before", [0, 5])
def test_training_goes_on_as_if_it_had_not_stopped(tmp_path, optimizer, before):
    path = Training(optimizer).steps(before).save(tmp_path / "step-00000005", epoch=3)
    through = Training(optimizer).steps(before).steps(4).bits()
    stopped = Training(optimizer)
    assert stopped.load(path) == {"epoch": 3}
    assert stopped.steps(4).bits() == through


def test_the_model_of_a_checkpoint_is_a_file_of_its_state_dict(tmp_path):
    training = Training().steps(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    nn.load_safetensors(model, training.save(tmp_path / "step-00000001") / "model.safetensors")
    for key, value in training.model.state_dict().items():
        np.testing.assert_array_equal(host(model.state_dict()[key]), host(value))


# --- Damage ---------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    return Training().steps(2).save(tmp_path / "step-00000002")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("left", [0.0, 0.5, 0.999])
def test_a_truncated_file_is_damage(saved, file, left):
    content = (saved / file).read_bytes()
    (saved / file).write_bytes(content[: int(left * len(content))])
    with pytest.raises(ValueError, match="step-00000002 is damaged"):
        checkpoint.read_checkpoint(saved)


@pytest.mark.parametrize("file", FILES)
def test_a_digit_that_changes_is_damage(saved, file):
    content = bytearray((saved / file).read_bytes())
    place = content.rfind(b"0.9") + 2 if file == "state.json" else -1  # the momentum
    content[place] ^= 1
    (saved / file).write_bytes(content)
    with pytest.raises(ValueError, match=f"is damaged: {file}: got .* SHA-256 .*, wants"):
        checkpoint.read_checkpoint(saved)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_damage(saved, file):
    (saved / file).unlink()
    with pytest.raises(ValueError, match="is damaged"):
        checkpoint.read_checkpoint(saved)


@pytest.mark.parametrize(
    "content", ["[]", "3", "{}", '{"state": 3, "fingerprint": ""}', "[" * 99_999]
)
def test_a_state_of_another_kind_is_damage(saved, content):
    (saved / "state.json").write_text(content)
    with pytest.raises(ValueError, match="is damaged"):
        checkpoint.read_checkpoint(saved)


def test_a_damaged_checkpoint_changes_nothing(saved):
    (saved / "optimizer.safetensors").write_bytes(b"")
    training = Training()
    before = training.bits()
    with pytest.raises(ValueError, match="is damaged"):
        training.load(saved)
    assert training.bits() == before


def test_the_checkpoint_of_another_model_lists_its_keys(saved):
    training = Training(width=5)
    listed = r"(?s)step-00000002: .*0\.weight: got .*4, 3\], wants .*5, 3\].*3\.weight"
    with pytest.raises(RuntimeError, match=listed):
        training.load(saved)
    other = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with pytest.raises(RuntimeError, match=r"(?s)1\.running_mean.*3\.weight"):
        checkpoint.load_checkpoint(saved, other, training.optimizer, training.schedule)


# --- Writing --------------------------------------------------------------------------------------


def test_what_cannot_be_written_leaves_what_was_there(saved, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, "write_whole", full)
    for name in ("step-00000002", "step-00000003"):
        with pytest.raises(OSError, match="No space left"):
            Training().save(saved.with_name(name))
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["step-00000002"]


def test_a_disk_that_fills_up_leaves_what_was_there(tmp_path):
    """The system refuses to write more than 4,000 bytes to a file."""
    program = "import sys, test_checkpoint_folders as t; t.save_until_the_disk_is_full(sys.argv[1])"
    run = subprocess.run(
        [sys.executable, "-c", program, tmp_path],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        encoding="utf-8",
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == "File too large\n"
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    Training(width=1).load(tmp_path / "step-00000001")


def save_until_the_disk_is_full(folder):
    folder = Path(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
    Training(width=1).save(folder / "step-00000001")
    try:
        Training(width=500).save(folder / "step-00000002")
    except OSError as error:
        print(error.strerror)


def test_a_damaged_checkpoint_is_written_anew(saved):
    (saved / "state.json").write_text("")
    Training().steps(2).save(saved)
    checkpoint.read_checkpoint(saved)
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_what_a_killed_process_left_is_removed(saved):
    (saved.parent / ".unfinished-step-00000003").mkdir()
    (saved.parent / ".unfinished-step-00000003" / "model.safetensors").write_bytes(b"half")
    Training().save(saved.with_name("step-00000004"))
    names = sorted(path.name for path in saved.parent.iterdir())
    assert names == ["step-00000002", "step-00000004"]


def test_a_checkpoint_may_be_damaged_twice(saved):
    for name in ("damaged-step-00000002", "damaged-step-00000002-2"):
        checkpoint.put_aside(saved)
        assert (saved.parent / name).is_dir()
        Training().steps(2).save(saved)


def test_only_what_this_library_did_not_finish_is_removed(tmp_path):
    (tmp_path / ".unfinished-notes.txt").write_text("mine")
    (tmp_path / ".unfinished-0123456789abcdef").write_text("half")
    checkpoint.remove_rests(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".unfinished-notes.txt"]


def test_checkpoints_come_newest_first_and_nothing_else_does(tmp_path):
    for name in ("step-00000009", "step-00000010", ".unfinished-step-00000011", "step-1", "x"):
        (tmp_path / name).mkdir()
    names = [path.name for path in checkpoint.checkpoints(tmp_path)]
    assert names == ["step-00000010", "step-00000009"]


def test_a_state_that_json_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        Training().save(tmp_path / "step-00000001", loss=float("nan"))
    assert list(tmp_path.iterdir()) == []


def test_the_state_is_plain_json(saved):
    content = json.loads((saved / "state.json").read_text())
    assert {"optimizer", "schedule", "random", "more", "files"} == set(content["state"])
