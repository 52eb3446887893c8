"""Contenders that do the same work, timed side by side.

In each round every contender has its turn, a burst of calls, so that what else the machine does
hits all alike. Python's garbage collector is on, as users have it. Where somebody leaves reference
cycles behind, the garbage of others is collected before a burst; its own is part of its time.
"""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

OURS = "tinygrad_bn"


class Contender(NamedTuple):
    """Somebody who does the work: `step` is timed, `numbers` gives what it computes."""

    step: Callable[[], Any]
    numbers: Callable[[], Sequence[np.ndarray]]
    prepare: Callable[[], Any] = lambda: None  # before a burst: the number of threads, say


class Target(NamedTuple):
    """The fastest of `rivals` takes at least `ratio` times as long; `stretch` is hoped for."""

    ratio: float
    rivals: tuple[str, ...]
    stretch: float | None = None


class Work(NamedTuple):
    """What is timed. `make` gives the contenders by name, ours first."""

    name: str
    make: Callable[[], dict[str, Contender]]
    targets: tuple[Target, ...] = ()
    parts: int = 1  # a call does it so many times over: the ops of a chain
    streamed: int = 0  # bytes that pass through memory in a call, at the least
    bound: float | None = None  # at least this share of the speed at which memory copies
    rounds: int = 9
    burst: float = 0.1  # seconds
    cycles: bool = False  # somebody leaves reference cycles behind
    tolerance: float = 1e-4  # of the numbers, relative to the largest


def measured(work: Work) -> dict:
    """The row of a work, in seconds: quartiles for each contender, and which targets are met."""
    contenders = work.make()
    check_equal(work, contenders)
    found = interleaved(contenders, work.rounds, work.burst, work.cycles)
    times = {name: quartiles(one, work.parts) for name, one in found.items()}
    return {
        "work": work.name,
        "seconds": times,
        "targets": [
            reached(t, times) for t in work.targets if not times.keys().isdisjoint(t.rivals)
        ],
        "streamed": work.streamed,
        "bound": work.bound,
    }


def check_equal(work: Work, contenders: dict[str, Contender]) -> None:
    """An AssertionError if somebody computes something else."""
    answers = {}
    for name, contender in contenders.items():
        contender.prepare()
        answers[name] = [np.asarray(array, np.float64) for array in contender.numbers()]
    ours = answers[OURS]
    for name, theirs in answers.items():
        shapes = [array.shape for array in theirs]
        assert shapes == [array.shape for array in ours], f"{work.name}: {name} gives {shapes}"
        for k, (a, b) in enumerate(zip(ours, theirs)):
            error = np.max(np.abs(a - b), initial=0.0)
            bound = work.tolerance * np.max(np.abs(a), initial=0.0)
            assert error <= bound, f"{work.name}: result {k} of {name} is off by {error:.1e}"


def interleaved(contenders: dict, rounds: int, burst: float, cycles: bool) -> dict[str, list]:
    """Seconds a call, for each contender one number a round. (The check was the first call.)"""
    calls = {}
    for name, contender in contenders.items():
        contender.prepare()
        calls[name] = max(1, round(burst / seconds(contender.step, 1)))
    names = list(contenders)
    found = {name: [] for name in names}
    for k in range(rounds):
        turn = k % len(names)
        for name in names[turn:] + names[:turn]:
            contender = contenders[name]
            contender.prepare()
            if cycles:
                gc.collect()
            if calls[name] > 1:
                contender.step()  # its threads wake up; the others' go to sleep
            found[name].append(seconds(contender.step, calls[name]))
    return found


def seconds(step: Callable[[], Any], calls: int) -> float:
    """Seconds a call."""
    start = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - start) / calls


def quartiles(times: Sequence[float], parts: int = 1) -> list[float]:
    """The first quartile, the median and the third."""
    times = [time / parts for time in times]
    return statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3


def reached(target: Target, times: dict[str, list[float]]) -> dict:
    """How much longer than ours the fastest of a target's rivals takes, by medians."""
    rival = min((r for r in target.rivals if r in times), key=lambda r: times[r][1])
    ratio = times[rival][1] / times[OURS][1]
    wanted = {"ratio": target.ratio, "stretch": target.stretch, "rival": rival}
    return wanted | {"reached": ratio, "met": ratio >= target.ratio}
