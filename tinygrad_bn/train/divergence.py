"""Where a run diverged: which op made the first value that is not finite."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np

from ..anomaly import detect_anomaly
from .run import DivergedError, Run, not_finite
from .upload import uploaded


def where_it_diverged(run: Run, error: DivergedError) -> str | None:
    """Which op made the first value that is not finite, if that can be found: the steps since the
    last checkpoint are made again, first to see after which one the parameters were lost, then to
    look at that one. What was trained is given up. (One process can tell: several ranks would not
    stop at the same op.)"""
    if run.comm.size > 1:
        return None
    last = (error.epoch, error.step)
    lost = _replay(run, last, lambda *_: None) or last
    return _replay(run, lost, _watch)


def _replay(run: Run, last: tuple[int, int], make_last: Callable) -> Any:
    """Make the steps since the last checkpoint again, up to `last`, an epoch and its step; that one
    by `make_last`, whose answer is returned. Before that, the step after which a parameter is not
    finite ends it, and is returned."""
    run.begin()
    run.restore()
    if run.state.epoch != last[0] - 1:
        return None  # its checkpoint could not be written
    run.model.train()
    batches = uploaded(run.pipeline.epoch(last[0], run.state.step), run.device)
    with closing(batches), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for k in range(run.state.step, run.pipeline.steps):
            parts = [next(batches) for _ in range(run.config.accumulate)]
            if (number := k + 1) == last[1]:
                return make_last(run, number, parts, run.pipeline.rows(k))
            run.make_step(parts, run.pipeline.rows(k))
            if not_finite(run.model):
                return last[0], number
    return None


def _watch(run: Run, number: int, parts: list, n: int) -> str | None:
    try:
        with detect_anomaly():
            run.make_step(parts, n)
    except FloatingPointError as found:
        what, _, place = str(found).partition("\n  recorded at ")
        return f"in step {number}: {what}, {place.partition(', ')[2]}"  # no line of the user's
    lost = not_finite(run.model)
    return lost and f"in step {number}: after the update {lost} is not finite"
