"""Small training runs for the tests: what they are told, and what they leave."""

import contextlib
import json

import pytest

from tinygrad_bn.train import run, training
from tinygrad_bn.train.config import Config

SMALL = {"data": "disc", "width": 8, "depth": 2, "epochs": 3, "dropout": 0.1, "schedule": "cosine"}


def small(**settings):
    return Config(**SMALL | settings)


def flags(config_settings):
    """The command line that says the same."""
    words = []
    for name, value in config_settings.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def bits(folder):
    """All that the last checkpoint of a run depends on: the bytes of its arrays, and its state
    without the times."""
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    state = json.loads((newest / "state.json").read_text())["state"]
    more = state["more"]
    del more["seconds"]
    for record in (*more["history"], more["best"]):
        del record["seconds"], record["samples_per_second"]
    return newest.name, state  # which has the SHA-256 of the arrays


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


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
