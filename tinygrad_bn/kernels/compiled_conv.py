"""Convolution by the loops of `conv_loops`: where in memory the windows are, and the weights."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NamedTuple

import numpy as np

from ..reduction import accumulator
from .array_conv import windows
from .compiled import get_num_threads, loops
from .images import as_pixels, images_of

_SMALL = 1 << 20  # products, for which a second thread is not worth its start
_PADDED = 1 << 18  # numbers in the images that are padded side by side


def convolve(x, weight, bias, *, groups, **how):
    """`ops.convolution`."""
    sizes, kernel = x.shape[2:], weight.shape[2:]
    counts, _ = windows(sizes, kernel, **how)
    plan = _windows(sizes, kernel, x.shape[1], groups, counts, **how)
    filters, shape = _grouped(weight, groups), (len(x), len(weight), *counts)
    return _correlate(x, [plan], filters, bias, shape)


def convolve_input(g, weight, *, shape, groups, **how):
    """`ops.convolution_input`."""
    sizes, kernel = shape[2:], weight.shape[2:]
    plans = _phases(sizes, kernel, g.shape[1], groups, g.shape[2:], **how)
    return _correlate(g, plans, _grouped(weight, groups).swapaxes(1, 2), None, shape)


def convolve_weight(x, g, *, shape, groups, **how):
    """`ops.convolution_weight`."""
    compiled, filters = loops("conv"), shape[0] // groups
    plan = _windows(x.shape[2:], shape[2:], x.shape[1], groups, g.shape[2:], **how)
    pixels = as_pixels(x)
    loop, parts = _shared(compiled.correlate_weights, plan, pixels, math.prod(shape))
    rows, width = compiled.whole_tiles(plan.terms), compiled.panel_width(filters, pixels.itemsize)
    out = np.zeros((parts, groups, -(-filters // width), len(rows), width))
    bunch = _bunch(plan, len(x), parts, compiled)
    terms = _repeated(plan.rows, bunch, plan.size)
    loop(pixels, bunch, *plan[:3], rows, terms, as_pixels(g), out)
    total = out.sum(axis=0).swapaxes(2, 3).reshape(groups, -1, len(rows))
    total = total[:, :filters, : len(plan.terms)].reshape(groups, filters, -1, shape[1])
    return total.swapaxes(2, 3).reshape(shape).astype(x.dtype)


class _Plan(NamedTuple):
    """Where in a padded image, whose channels are last, its windows and what they meet stand."""

    size: int  # how long the padded image is
    starts: np.ndarray  # where in it each run of the image begins
    step: int  # how far a group of channels is from the next
    rows: np.ndarray  # the windows
    terms: np.ndarray  # what a window meets, from its row on: places in the kernel × channels
    taps: np.ndarray  # which places in the kernel these are
    places: np.ndarray  # where in the answer a window's sum belongs


def _plan(sizes, padding, channels, groups, rows, terms, taps, places) -> _Plan:
    """All but the first four have an entry for each axis: where things are along it."""
    padded = [before + n + after for n, (before, after) in zip(sizes, padding)]
    steps = [channels * math.prod(padded[axis + 1 :]) for axis in range(len(padded))]
    starts = [np.arange(n) + before for n, (before, _) in zip(sizes, padding)]
    starts[-1] = starts[-1][:1]  # a run goes along the last axis
    met = _sums(terms, steps)[:, None] + np.arange(channels // groups)
    return _Plan(
        channels * math.prod(padded),
        *(_sums(starts, steps), channels // groups, _sums(rows, steps), met.reshape(-1)),
        *(taps, places),
    )


def _sums(along: Sequence[np.ndarray], steps: Sequence[int]) -> np.ndarray:
    """The place in memory of each combination of places along the axes."""
    scaled = [np.asarray(places) * step for places, step in zip(along, steps)]
    return functools.reduce(np.add.outer, scaled).reshape(-1)


def _numbers(along: Sequence, sizes: Sequence[int]) -> np.ndarray:
    """The same, in an array of these sizes."""
    return _sums(along, [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))])


@functools.lru_cache(maxsize=256)
def _windows(sizes, kernel, channels, groups, counts, *, stride, padding, dilation) -> _Plan:
    """The windows of a convolution."""
    rows = [np.arange(m) * s for m, s in zip(counts, stride)]
    terms = [np.arange(k) * d for k, d in zip(kernel, dilation)]
    taps, places = np.arange(math.prod(kernel)), np.arange(math.prod(counts))
    return _plan(sizes, padding, channels, groups, rows, terms, taps, places)


@functools.lru_cache(maxsize=256)
def _phases(sizes, kernel, channels, groups, counts, *, stride, padding, dilation) -> list[_Plan]:
    """The windows of g whose sums are the gradient at x: place u = m · stride + phase of padded x
    was met by place k of the kernel in window m − (k · dilation − phase) / stride, if it is whole.
    """
    axes = []
    for n, k, m, s, (before, _), d in zip(sizes, kernel, counts, stride, padding, dilation):
        reach, last = (k - 1) * d // s, (before + n - 1) // s
        phases = []
        for phase in range(s):
            taps = np.array([tap for tap in range(k) if (tap * d - phase) % s == 0], int)
            places = np.arange(n)[(np.arange(n) + before) % s == phase]
            rows = (places + before) // s
            phases.append((rows, reach - (taps * d - phase) // s, taps, places))
        axes.append(((reach, max(last + 1 - m, 0)), phases))
    paddings, phases = zip(*axes)
    plans = []
    for along in itertools.product(*phases):
        rows, terms, taps, places = zip(*along)
        taps, places = _numbers(taps, kernel), _numbers(places, sizes)
        plans.append(_plan(counts, paddings, channels, groups, rows, terms, taps, places))
    return plans


def _correlate(images, plans, filters, bias, shape):
    """The answer of this shape, by one plan or several that divide its places among themselves;
    filters (groups, channels of the answer, channels of an image, places in the kernel)."""
    compiled, pixels, (groups, channels, _, _) = loops("conv"), as_pixels(images), filters.shape
    out = np.empty((shape[0], math.prod(shape[2:]), shape[1]), pixels.dtype)
    bias = np.zeros(shape[1]) if bias is None else bias
    bias = _panels(bias.reshape(groups, 1, channels), compiled, pixels.dtype)[:, :, 0]
    for plan in plans:
        chosen = filters[..., plan.taps].transpose(0, 3, 2, 1)  # in the order of the terms
        right = chosen.reshape(groups, len(plan.terms), channels)
        right = _panels(right, compiled, pixels.dtype)
        loop, parts = _shared(compiled.correlate, plan, pixels, filters.size)
        bunch = _bunch(plan, len(out), parts, compiled)
        rows = compiled.whole_tiles(_repeated(plan.rows, bunch, plan.size))
        places = _repeated(plan.places, bunch, out.shape[1])
        loop(pixels, bunch, *plan[:3], rows, plan.terms, right, bias, places, out, parts)
    return images_of(out, shape[2:]).astype(images.dtype, copy=False)


def _panels(matrices: np.ndarray, compiled: ModuleType, dtype: np.dtype) -> np.ndarray:
    """Matrices (groups, n, m), cut into panels (groups, panels, n, width)."""
    groups, n, m = matrices.shape
    width = compiled.panel_width(m, dtype.itemsize)
    panels = -(-m // width)
    filled = np.zeros((groups, n, panels * width), dtype)
    filled[..., :m] = matrices
    return np.ascontiguousarray(filled.reshape(groups, n, panels, width).swapaxes(1, 2))


def _bunch(plan: _Plan, images: int, parts: int, compiled: ModuleType) -> int:
    """How many images to pad side by side: as many as fill a task and stay in the cache."""
    fit = min(compiled.ROWS // max(len(plan.places), 1), _PADDED // plan.size)
    return max(1, min(fit, -(-images // parts)))


def _repeated(places: np.ndarray, count: int, apart: int) -> np.ndarray:
    """The same places in each of so many images."""
    return np.add.outer(np.arange(count) * apart, places).reshape(-1)


def _grouped(weight: np.ndarray, groups: int) -> np.ndarray:
    """A weight as (groups, O / groups, C / groups, places in the kernel), to be summed with."""
    weight = weight.astype(accumulator(weight.dtype), copy=False)
    return weight.reshape(groups, -1, weight.shape[1], math.prod(weight.shape[2:]))


def _shared(loop: Callable, plan: _Plan, pixels: np.ndarray, weights: int) -> tuple[Callable, int]:
    """The loop, for one thread if there is little to do, and how many parts to make of it."""
    if len(pixels) * len(plan.rows) * weights < _SMALL:
        return loop.alone, 1
    return loop, get_num_threads()
