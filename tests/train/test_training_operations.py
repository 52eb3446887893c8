"""A run that is killed, or cannot write, at any of its operations on files: each is tried."""

import errno
import os
import sys

import pytest
from small_runs import bits, metrics, small, summary

from tinygrad_bn.train import training
from tinygrad_bn.train.checkpoint import checkpoints, read_checkpoint

SETTINGS = {"epochs": 3, "batch_size": 300, "keep": 1, "schedule": "constant"}
CHANGES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}


class Killed(BaseException):
    """Nothing after it changes a file."""


class Disk:
    """Counts what is to change in a folder, and from one such operation on prevents it."""

    folder = None  # or nothing is watched
    operations = 0

    def watch(self, folder, first_prevented=None, error=None, lasts=False):
        self.folder, self.operations = str(folder), 0
        self.first, self.error, self.lasts = first_prevented, error, lasts

    def __call__(self, event, arguments):
        if self.folder is None or event not in CHANGES:
            return
        path, *more = arguments
        of_a_tree = event in ("os.remove", "os.rmdir") and more[0] != -1  # by rmtree, in a dir_fd
        if not (of_a_tree or str(path).startswith(self.folder)):
            return
        if event == "open" and not more[1] & (os.O_WRONLY | os.O_RDWR):
            return
        self.operations += 1
        if self.operations == self.first or (self.lasts and self.operations > self.first):
            raise self.error


DISK = Disk()
sys.addaudithook(DISK)  # which stays as long as Python does


@pytest.fixture(autouse=True, scope="module")
def _no_pictures():
    """They take their time, and write_whole is what writes these files as all others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "write_report", lambda folder: None)
        yield
    DISK.folder = None


@pytest.fixture(scope="module")
def through(tmp_path_factory):
    """The folder of a run in which nothing went wrong."""
    folder = tmp_path_factory.mktemp("through") / "run"
    DISK.watch(folder)
    assert training.start(small(**SETTINGS), folder) == 0
    return folder, DISK.operations


def goes_on(folder, straight):
    """What is there is whole, and ends as a run in which nothing went wrong."""
    DISK.folder = None
    for path in checkpoints(folder / "checkpoints"):
        read_checkpoint(path)
    if (folder / "config.toml").exists():
        assert training.resume(folder, None) == 0
    else:  # it had not begun
        assert training.start(small(**SETTINGS), folder) == 0
    assert bits(folder) == bits(straight)
    assert len(metrics(folder)) == 3
    assert summary(folder)["state"] == "finished"
    assert not [path for path in folder.rglob("*") if "unfinished" in path.name]


def test_a_run_that_is_killed_at_any_operation_goes_on(tmp_path, through):
    straight, operations = through
    assert operations > 50
    for k in range(1, operations + 1):
        DISK.watch(tmp_path / str(k), k, Killed(), lasts=True)
        with pytest.raises(Killed):
            training.start(small(**SETTINGS), tmp_path / str(k))
        goes_on(tmp_path / str(k), straight)


@pytest.mark.parametrize("lasts", [False, True])
def test_a_run_that_meets_a_full_disk_at_any_operation_goes_on(tmp_path, through, capsys, lasts):
    """For that operation, or from there on. What cannot be written is said, and status 1, unless a
    later checkpoint is in its place, or it is only the rest of an old one that was not removed."""
    straight, operations = through
    for k in range(1, operations + 1):
        folder = tmp_path / str(k)
        DISK.watch(folder, k, OSError(errno.ENOSPC, "No space left on device"), lasts)
        try:
            status = training.start(small(**SETTINGS), folder)
        except OSError:
            status = "not begun"
            assert not (folder / "config.toml").exists()
        said = capsys.readouterr()
        if status == 1:
            assert "not written: [Errno 28] No space left on device" in said.err
        elif status == 0:
            assert (bits(folder), len(metrics(folder))) == (bits(straight), 3)
            assert summary(folder)["state"] == "finished"
        goes_on(folder, straight)
