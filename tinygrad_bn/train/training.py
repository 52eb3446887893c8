"""Train a model in a folder of its own, and go on with what was begun in one.

config.toml      what the run was told
checkpoints/     the last ones, and the best
metrics.jsonl    a line for each epoch
summary.json     how it ended
index.html       the report, with loss.svg and accuracy.svg

If `distributed.communicator()` knows several ranks, they train together, and only rank 0 sees the
folder. A run may go on with another number of ranks.
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

from ..distributed import RankError, communicator
from ..distributed.agreement import from_rank_0, together
from ..files import write_whole
from .checkpoint import checkpoints
from .config import Config
from .divergence import where_it_diverged
from .loop import evaluate
from .progress import TrainingProgress, say
from .run import DivergedError, Run
from .run_folder import check_free, new_folder, old_folder, renew
from .run_report import write_report


def start(config: Config, folder: Path | None = None) -> int:
    """Train in `folder`, which is new or empty (None: one in runs/ with a new name); returns the
    exit status of the command: 0; 1, if it diverged or something could not be written; 130, if it
    was stopped."""
    comm = communicator()
    from_rank_0(comm, lambda: None if folder is None else check_free(folder))
    if config.path is not None:  # whoever resumes may be in another folder
        config = dataclasses.replace(config, path=str(Path(config.path).expanduser().absolute()))
    run = Run(config, comm=comm)
    with contextlib.ExitStack() as stack:
        taken = from_rank_0(comm, lambda: stack.enter_context(new_folder(config, folder)))
        run.folder = Path(os.fsdecode(taken))
        return _train(run)


def resume(folder: Path, epochs: int | None) -> int:
    """Go on with the run in `folder`, to another number of epochs if one is given; returns what
    `start` does."""
    comm = communicator()
    with contextlib.ExitStack() as stack:
        settings = from_rank_0(comm, lambda: stack.enter_context(old_folder(folder)))
        config = Config(**json.loads(settings))
        if epochs is not None:
            config = together(comm, lambda: dataclasses.replace(config, epochs=epochs))
        run = Run(config, folder, comm)
        restored = run.restore()
        together(comm, lambda: _check_epochs(run))
        if run.complete:
            say(f"it {run.complete} after epoch {run.state.epoch}: nothing is left to train")
        elif restored:
            begun = f" and {run.state.step} steps" * bool(run.state.step)
            say(f"going on after epoch {run.state.epoch}{begun}")
        else:
            say("no checkpoint yet: from the start")
        if not run.complete:
            from_rank_0(comm, lambda: renew(folder, config))
        return _train(run)


def _check_epochs(run: Run) -> None:
    done, begun = run.state.epoch, run.state.step
    if done + bool(begun) > run.config.epochs:
        have = f"{done} and a part of the next are" if begun else f"{done} are"
        raise ValueError(f"epochs: got {run.config.epochs}, and {have} done")


def _train(run: Run) -> int:
    """Train to the end, and leave what tells of it."""
    done = run.state.epoch * len(run.pipeline.x) + run.state.seen
    progress = TrainingProgress(run.folder.name, run.config.epochs, len(run.pipeline.x), done)
    diverged = unsaved = None
    with _stop_requests() as asked, contextlib.closing(progress):
        try:
            while not run.complete and not run.stops(asked):
                run.train_epoch(progress, asked)
                if run.epoch_is_over:
                    progress.epoch(run.close_epoch())
                unsaved = _saved(run, progress)
        except DivergedError as error:
            diverged = error
    summary = _summary(run, diverged)
    if run.comm.rank == 0:
        unsaved = _written(run, summary) or unsaved
        _tell(run, summary)
        if unsaved:
            with contextlib.suppress(OSError):
                print(f"not written: {unsaved}", file=sys.stderr)
    return 1 if diverged or unsaved else 130 if summary["state"] == "interrupted" else 0


def _summary(run: Run, diverged: DivergedError | None) -> dict[str, Any]:
    """What summary.json holds; the test data are looked at for it."""
    where, ranks = None, f", {run.comm}" * (run.comm.size > 1)
    if diverged:
        with contextlib.suppress(ValueError):  # no checkpoint is whole
            where = where_it_diverged(run, diverged)  # and is again as the last checkpoint has it
    summary = {
        "state": "diverged" if diverged else run.complete or "interrupted",
        "epochs": run.state.epoch,
        "best_epoch": run.state.best and run.state.best["epoch"],
        "parameters": sum(p.size for p in run.model.parameters()),
        "seconds": run.state.seconds,
        "versions": _versions(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {run.config.device}{ranks}",
        "diverged": None,
    }
    if diverged:
        place = {"epoch": diverged.epoch, "step": diverged.step}
        summary["diverged"] = {**place, "what": str(diverged), "where": where}
    elif run.complete:
        summary |= _tested(run)
    return summary


def _written(run: Run, summary: dict[str, Any]) -> OSError | None:
    """Write what tells of a run; if that fails, why."""
    try:
        _write_metrics(run)
        text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False)
        write_whole(run.folder / "summary.json", text.encode())
        write_report(run.folder)
    except OSError as error:
        return error
    return None


def _saved(run: Run, progress: TrainingProgress) -> OSError | None:
    """Write a checkpoint and the metrics; if that fails, why. The training may go on: what was
    written before is as it was."""
    try:
        run.save()
        _write_metrics(run)
    except OSError as error:
        progress.line(f"not written, but the training goes on: {error}")
        return error
    return None


def _write_metrics(run: Run) -> None:
    if run.comm.rank:
        return
    lines = [json.dumps(record, allow_nan=False) + "\n" for record in run.state.history]
    write_whole(run.folder / "metrics.jsonl", "".join(lines).encode())


def _tested(run: Run) -> dict[str, float | None]:
    """Loss and accuracy on the test data after the last epoch, and the accuracy after the best;
    None for what is not finite, or cannot be had."""
    loss, accuracy = evaluate(run.model, *run.test, run.comm)
    best = accuracy
    if run.state.best["epoch"] != run.state.epoch:
        try:
            run.load_best()
        except (ValueError, RankError) as error:
            say(f"the best epoch cannot be tested: {error}")
            best = None
        else:
            best = evaluate(run.model, *run.test, run.comm)[1]
    found = {"test_loss": loss, "test_accuracy": accuracy, "best_test_accuracy": best}
    return {
        name: value if value is not None and math.isfinite(value) else None
        for name, value in found.items()
    }


def _tell(run: Run, summary: dict[str, Any]) -> None:
    """The last lines: what came out, and where it is."""
    folder = run.folder
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
        elif run.comm.size > 1:
            resume = f"tinygrad-bn train --resume {shlex.quote(str(folder))}"
            say(f"one process can tell by which op: {resume}")
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
        if communicator().rank:
            return
        with contextlib.suppress(OSError):  # and not by print, which may be busy
            os.write(2, b"\nstopping after this step; once more to stop at once, unsaved\n")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
