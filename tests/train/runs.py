"""Small training runs for the tests: what they are told, and what they leave."""

import json

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
    state = json.loads((newest / "state.json").read_text())
    more = state["more"]
    del more["seconds"]
    for record in (*more["history"], more["best"]):
        del record["seconds"], record["samples_per_second"]
    return newest.name, state  # which has the SHA-256 of the arrays


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
