"""Folders of runs as training leaves them, made by hand."""

import json

from tinygrad_bn.train.config import Config, as_toml


def epochs(n, best=0.98, validation=True):
    """Records of n epochs: the loss falls, the accuracy rises to its best in the last."""
    records = []
    for epoch in range(1, n + 1):
        accuracy = best * epoch / n
        record = {"epoch": epoch, "step": 18 * epoch, "lr": 0.1, "loss": 2 / epoch}
        record["accuracy"] = accuracy
        if validation:
            record |= {"validation_loss": 2.5 / epoch, "validation_accuracy": 0.99 * accuracy}
        records.append(record | {"seconds": 0.5, "samples_per_second": 1650.0})
    return records


def finished(test_accuracy=0.9861, state="finished"):
    """The summary of a run that came to its end."""
    return {
        "state": state,
        "parameters": 21_000,
        "seconds": 25.1,
        "test_loss": 0.05,
        "test_accuracy": test_accuracy,
        "best_test_accuracy": 0.9889,
        "versions": {"python": "3.11.7"},
        "machine": "x86_64, 2 cores, cpu",
        "diverged": None,
    }


def diverged(epoch):
    """The summary of a run that diverged."""
    what = f"epoch {epoch}, step 7: the loss is nan"
    where = {"epoch": epoch, "step": 7, "what": what, "where": "exp made the first inf"}
    return {"state": "diverged", "parameters": 21_000, "seconds": 4.0, "diverged": where}


def write_run(folder, records=None, summary=None, **settings):
    """Make the folder, and leave the files of a run in it."""
    folder.mkdir(parents=True)
    config = Config(**{"data": "digits", "model": "convnet", **settings})
    (folder / "config.toml").write_text(as_toml(config), encoding="utf-8")
    if records is not None:
        lines = [json.dumps(record) + "\n" for record in records]
        (folder / "metrics.jsonl").write_text("".join(lines))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder
