"""Train a model in a folder of its own, and go on with what was begun in one.

config.toml      what the run was told
checkpoints/     the last ones, and the best
metrics.jsonl    a line for each epoch
summary.json     how it ended
index.html       the report, with loss.svg and accuracy.svg
"""

import contextlib
import dataclasses
import json
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from ..backend import module_on
from ..files import write_whole
from .checkpoint import read_checkpoint
from .config import Config, as_toml, read_config
from .loop import evaluate
from .progress import TrainingProgress
from .run import DivergedError, Run
from .run_report import write_report


def start(config: Config, folder: Path) -> int:
    """Train in `folder`, which is new or empty; returns the exit status of the command: 0, 1 (it
    diverged, or the last checkpoint could not be written), 130 (it was stopped)."""
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is there already; --resume goes on with it")
    if config.path is not None:  # whoever resumes may be in another folder
        config = dataclasses.replace(config, path=str(Path(config.path).expanduser().absolute()))
    module_on(config.device)
    run = Run(config, folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "config.toml", as_toml(config).encode())
    return _train(run, folder)


def resume(folder: Path, epochs: int | None) -> int:
    """Go on with the run in `folder`, to another number of epochs if one is given."""
    if not (folder / "config.toml").exists():
        raise FileNotFoundError(f"{folder} holds no config.toml, so no run")
    config = Config(**read_config(folder / "config.toml"))
    if epochs is not None:
        config = dataclasses.replace(config, epochs=epochs)
    module_on(config.device)
    run = Run(config, folder)
    if run.restore(print):
        if run.state.epoch > config.epochs:
            raise ValueError(f"epochs: got {config.epochs}, and {run.state.epoch} are done")
        print(f"going on after epoch {run.state.epoch}, step {run.state.step}")
    else:
        print("no checkpoint yet: from the start")
    write_whole(folder / "config.toml", as_toml(config).encode())
    return _train(run, folder)


def _train(run: Run, folder: Path) -> int:
    """Train to the end, and leave what tells of it."""
    samples, done = len(run.pipeline.x), run.state.epoch * len(run.pipeline.x) + run.state.seen
    progress = TrainingProgress(folder.name, run.config.epochs, samples, done)
    diverged = unsaved = None
    with _stop_requests() as stopped, contextlib.closing(progress):
        try:
            while not run.complete and not stopped():
                run.train_epoch(progress, stopped)
                if run.epoch_is_over:
                    progress.epoch(run.close_epoch())
                unsaved = _saved(run, folder, progress)
        except DivergedError as error:
            diverged = error
    summary = {
        "state": "diverged" if diverged else run.complete or "interrupted",
        "epochs": run.state.epoch,
        "best_epoch": run.state.best and run.state.best["epoch"],
        "parameters": sum(p.size for p in run.model.parameters()),
        "seconds": run.state.seconds,
        "versions": _versions(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {run.config.device}",
        "diverged": None,
    }
    if diverged:
        summary["diverged"] = {
            "epoch": diverged.epoch,
            "step": diverged.step,
            "what": str(diverged),
        }
        summary["diverged"]["where"] = run.where_it_diverged(diverged)
    elif run.complete:
        summary |= _tested(run)
    try:
        _write_metrics(run, folder)
        text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False)
        write_whole(folder / "summary.json", text.encode())
        write_report(folder)
    except OSError as error:
        unsaved = error
    _tell(run, folder, summary)
    if unsaved:
        print(f"not written: {unsaved}", file=sys.stderr)
    return 130 if summary["state"] == "interrupted" else 1 if diverged or unsaved else 0


def _saved(run: Run, folder: Path, progress: TrainingProgress) -> OSError | None:
    """Write a checkpoint and the metrics; if that fails, why. The training may go on: what was
    written before is as it was."""
    try:
        run.save()
        _write_metrics(run, folder)
    except OSError as error:
        progress.line(f"not written, but the training goes on: {error}")
        return error
    return None


def _write_metrics(run: Run, folder: Path) -> None:
    lines = [json.dumps(record, allow_nan=False) + "\n" for record in run.state.history]
    write_whole(folder / "metrics.jsonl", "".join(lines).encode())


def _tested(run: Run) -> dict[str, float]:
    """Loss and accuracy on the test data after the last epoch, and after the best."""
    loss, accuracy = evaluate(run.model, *run.test)
    found = {"test_loss": loss, "test_accuracy": accuracy, "best_test_accuracy": accuracy}
    if run.state.best["epoch"] != run.state.epoch and run.best_path.exists():
        run.model.load_state_dict(read_checkpoint(run.best_path)[0]["model"])
        found["best_test_accuracy"] = evaluate(run.model, *run.test)[1]
    return found


def _tell(run: Run, folder: Path, summary: dict[str, Any]) -> None:
    """The last lines: what came out, and where it is."""
    if summary["state"] == "interrupted":
        epoch, step = run.last_step
        print(f"stopped after step {step} of epoch {epoch}; to go on: ", end="")
        print(f"tinygrad-bn train --resume {folder}")
        return
    if summary["state"] == "diverged":
        print(f"diverged: {summary['diverged']['what']}")
        if summary["diverged"]["where"]:
            print(summary["diverged"]["where"])
        kept = run.best_path
        print(f"the last good checkpoint: {kept}" if kept else "no checkpoint was written before")
    else:
        best = (
            f"{100 * summary['best_test_accuracy']:.2f} % after the best, {summary['best_epoch']}"
        )
        print(f"test accuracy {100 * summary['test_accuracy']:.2f} % after the last epoch, {best}")
    print(folder / "index.html")


def _versions() -> dict[str, str]:
    """Of Python and the packages that compute."""
    found = {"python": platform.python_version()}
    for package in ("tinygrad_bn", "numpy", "numba", "cupy-cuda12x", "cupy-cuda13x"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


@contextlib.contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """In the block Ctrl-C, or a request to terminate, is noted; the second interrupts. Gives a
    function that says whether there was one."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield asked.is_set
        return

    def note(*_: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        os.write(2, b"\nstopping after this step; once more to stop at once\n")  # print may be busy

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
