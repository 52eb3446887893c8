"""Small layers of x ← relu(batch_norm(x Wᵀ + b)), by one compiled call for all of them."""

import functools
import itertools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .compiled import loops
from .cpu_norm import DTYPES, lines_of

_SMALL = 1 << 20  # products in a layer: from there on, NumPy's matrix product is quicker


class Plan(NamedTuple):
    """What the loops want to know of layers of these widths, and how to cut their arrays."""

    widths: np.ndarray
    lines: np.ndarray
    starts: np.ndarray  # where in `hidden` each layer begins
    hidden: int  # its size
    blanks: list[np.ndarray | None]  # what stands for each b, γ and β where there is none
    pieces: list[slice]  # where each W, b, γ and β is in the flat array
    shapes: list[tuple[int, int]]  # of each W


def suits(x: Any, widths: Sequence[int]) -> bool:
    """Whether layers of these widths are worth one call, and there is a compiler for it."""
    if type(x) is not np.ndarray or x.dtype not in DTYPES or loops("dense") is None:
        return False
    return len(x) * max(map(operator.mul, (x.shape[1], *widths), widths)) <= _SMALL


@functools.lru_cache(maxsize=64)
def hidden_slices(samples: int, widths: tuple[int, ...]) -> list[slice]:
    """Where z, μ, σ² and y of each layer stand in `hidden`, one after the other; of the last, y is
    not there."""
    sizes = [size for m in widths for size in (samples * m, m, m, samples * m)][:-1]
    edges = [0, *itertools.accumulate(sizes)]
    return [*map(slice, edges, edges[1:])]


def run(x, parameters, eps):
    """y of the last layer, and all else that `hidden_slices` finds in a flat array."""
    plan = _plan(len(x), _widths(x, parameters), x.dtype)
    hidden = np.empty(plan.hidden, x.dtype)
    y = np.empty((len(x), plan.widths[-1]), x.dtype)
    how = (plan.widths, plan.lines, plan.starts, np.array(eps))
    loops("dense").run.alone(_plain(x), _flat(parameters, plan), *how, hidden, y)
    return y, hidden


def run_grads(g, y, hidden, x, parameters, needs, eps):
    """The gradients at x and the parameters, for g at the last y."""
    plan = _plan(len(x), _widths(x, parameters), x.dtype)
    flat, d_x = _flat(parameters, plan), np.empty(x.shape if needs[0] else (0, 0), x.dtype)
    how, d_flat = (plan.widths, plan.lines, plan.starts, np.array(eps)), np.empty_like(flat)
    outs = _plain(hidden), _plain(y)
    loops("dense").run_grads.alone(_plain(g), _plain(x), flat, *how, *outs, d_x, d_flat)
    found = [d_flat[piece] for piece in plan.pieces]
    found[::4] = map(np.ndarray.reshape, found[::4], plan.shapes)
    return [d if need else None for d, need in zip([d_x, *found], needs)]


def _widths(x, parameters) -> tuple[int, ...]:
    return (x.shape[1], *[len(weight) for weight in parameters[::4]])


@functools.lru_cache(maxsize=64)
def _plan(samples: int, widths: tuple[int, ...], dtype: np.dtype) -> Plan:
    shapes = list(zip(widths[1:], widths))
    edges = [0, *itertools.accumulate(size for m, n in shapes for size in (m * n, m, m, m))]
    blanks = []
    for m in widths[1:]:
        zeros, ones = np.zeros(m, dtype), np.ones(m, dtype)
        blanks += [None, zeros, ones, zeros]
    lines = np.array([lines_of(samples, m) for m in widths[1:]])
    where = hidden_slices(samples, widths[1:])
    starts = np.array([piece.start for piece in where[::4]])
    pieces = [*map(slice, edges, edges[1:])]
    return Plan(np.array(widths), lines, starts, where[-1].stop, blanks, pieces, shapes)


def _flat(parameters, plan: Plan) -> np.ndarray:
    pairs = zip(parameters, plan.blanks)
    return np.concatenate([blank if p is None else p for p, blank in pairs], axis=None)


def _plain(array: np.ndarray) -> np.ndarray:
    """Contiguous and read-only: numba compiles a loop for each kind."""
    array = np.ascontiguousarray(array).view()
    array.setflags(False)
    return array
