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
import math
import os
import platform
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None

from ..backend import module_on
from ..files import write_whole
from .checkpoint import checkpoints, read_checkpoint, remove_rests, rests
from .config import Config, as_toml, read_config
from .loop import evaluate
from .progress import TrainingProgress, say
from .run import DivergedError, Run
from .run_report import write_report


class TakenError(FileExistsError):
    """The folder holds something, or another process trains there."""


def start(config: Config, folder: Path) -> int:
    """Train in `folder`, which is new or empty; returns the exit status of the command: 0; 1, if it
    diverged or something could not be written; 130, if it was stopped."""
    if folder.exists() and _holds_something(folder):
        goes_on = (folder / "config.toml").exists()
        hint = "--resume goes on with it" if goes_on else "wants one that is new, or empty"
        raise TakenError(f"{folder} is there already; {hint}")
    if config.path is not None:  # whoever resumes may be in another folder
        config = dataclasses.replace(config, path=str(Path(config.path).expanduser().absolute()))
    module_on(config.device)
    run = Run(config, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder):
        if _holds_something(folder):
            raise TakenError(f"{folder}: another process was faster")
        remove_rests(folder)
        write_whole(folder / "config.toml", as_toml(config).encode())
        return _train(run, folder)


def resume(folder: Path, epochs: int | None) -> int:
    """Go on with the run in `folder`, to another number of epochs if one is given; returns what
    `start` does."""
    if not (folder / "config.toml").exists():
        raise FileNotFoundError(f"{folder} holds no config.toml, so no run")
    with _alone_in(folder):
        remove_rests(folder)
        remove_rests(folder / "checkpoints")
        config = Config(**read_config(folder / "config.toml"))
        if epochs is not None:
            config = dataclasses.replace(config, epochs=epochs)
        module_on(config.device)
        run = Run(config, folder)
        if run.restore():
            done, begun = run.state.epoch, run.state.step
            if done + bool(begun) > config.epochs:
                have = f"{done} and a part of the next are" if begun else f"{done} are"
                raise ValueError(f"epochs: got {config.epochs}, and {have} done")
            if run.complete:
                say(f"it {run.complete} after epoch {done}: nothing is left to train")
            else:
                say(f"going on after epoch {done}" + f" and {begun} steps" * bool(begun))
        else:
            say("no checkpoint yet: from the start")
        if not run.complete:
            write_whole(folder / "config.toml", as_toml(config).encode())
            (folder / "summary.json").unlink(missing_ok=True)  # of an end that is none any more
        return _train(run, folder)


def _holds_something(folder: Path) -> bool:
    """Whether there is more than what a killed process did not finish."""
    return {*folder.iterdir()} > {*rests(folder)}


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """In the block no other process may train in this folder (where the system has flock)."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TakenError(f"{folder}: another process is training there") from error
        yield
    finally:
        os.close(descriptor)


def _train(run: Run, folder: Path) -> int:
    """Train to the end, and leave what tells of it."""
    done = run.state.epoch * len(run.pipeline.x) + run.state.seen
    progress = TrainingProgress(folder.name, run.config.epochs, len(run.pipeline.x), done)
    diverged = unsaved = where = None
    with _stop_requests() as stopped, contextlib.closing(progress):
        try:
            while not run.complete and not stopped():
                run.train_epoch(progress, stopped)
                if run.epoch_is_over:
                    progress.epoch(run.close_epoch())
                unsaved = _saved(run, folder, progress)
        except DivergedError as error:
            diverged = error
    if diverged:
        with contextlib.suppress(ValueError):  # no checkpoint is whole
            where = run.where_it_diverged(diverged)  # and is again as the last checkpoint has it
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
        place = {"epoch": diverged.epoch, "step": diverged.step}
        summary["diverged"] = {**place, "what": str(diverged), "where": where}
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
        with contextlib.suppress(OSError):
            print(f"not written: {unsaved}", file=sys.stderr)
    return 1 if diverged or unsaved else 130 if summary["state"] == "interrupted" else 0


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


def _tested(run: Run) -> dict[str, float | None]:
    """Loss and accuracy on the test data after the last epoch, and the accuracy after the best;
    None for what is not finite, or cannot be had."""
    loss, accuracy = evaluate(run.model, *run.test)
    best = accuracy
    if run.state.best["epoch"] != run.state.epoch:
        try:
            run.model.load_state_dict(read_checkpoint(run.best_path)[0]["model"])
            best = evaluate(run.model, *run.test)[1]
        except ValueError as error:
            say(f"the best epoch cannot be tested: {error}")
            best = None
    found = {"test_loss": loss, "test_accuracy": accuracy, "best_test_accuracy": best}
    return {
        name: value if value is not None and math.isfinite(value) else None
        for name, value in found.items()
    }


def _tell(run: Run, folder: Path, summary: dict[str, Any]) -> None:
    """The last lines: what came out, and where it is."""
    kept = checkpoints(run.checkpoints)
    if summary["state"] == "interrupted":
        epoch, step = run.last_step
        where = (
            f"after step {step} of epoch {epoch}" if run.state.steps else "before the first step"
        )
        say(f"stopped {where}; to go on: tinygrad-bn train --resume {shlex.quote(str(folder))}")
    elif summary["state"] == "diverged":
        say(f"diverged: {summary['diverged']['what']}")
        if summary["diverged"]["where"]:
            say(summary["diverged"]["where"])
        say(f"the last good checkpoint: {kept[0]}" if kept else "it was before any checkpoint")
    else:
        last, best = (
            "not finite" if summary[name] is None else f"{100 * summary[name]:.2f} %"
            for name in ("test_accuracy", "best_test_accuracy")
        )
        say(f"test accuracy {last} after the last epoch")
        if summary["best_epoch"] != summary["epochs"]:
            say(f"test accuracy {best} after epoch {summary['best_epoch']}, of the lowest loss")
    if (folder / "index.html").exists():
        say(str(folder / "index.html"))


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
        with contextlib.suppress(OSError):  # and not by print, which may be busy
            os.write(2, b"\nstopping after this step; once more to stop at once, unsaved\n")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
