"""Normalization on NumPy arrays, by compiled loops where these know the layout, else by NumPy.

Which loop runs, and how it sees the arrays, depends on shapes and strides: `_plan` decides, once.
Loops read and write flat arrays in the order of memory, so y and ∂x lie as x does.
"""

import functools
import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..reduction import accumulator, kept_shape
from . import numpy_norm
from .compiled import loops
from .norm_layout import Layout, layouts

_log = logging.getLogger("tinygrad_bn")
SMALL = 1 << 16  # elements: for fewer, waking a second thread takes longer than the work
_RUN = 4096  # elements that the loops may sum in the dtype of x


class Plan(NamedTuple):
    """How the loops see the arrays."""

    kind: str  # "columns", "rows" or "parts": of the loops
    forward: Callable
    backward: Callable
    places: tuple[int, ...]  # of the values that share statistics, as these loops want it
    order: tuple[int, ...] | None  # of the axes of x in memory; None: as they are
    back: tuple[int, ...] | None  # the axes of x in that order
    shape: tuple[int, ...]  # of x in that order
    kept: tuple[int, ...]  # of μ and σ² in one array
    affine: tuple[int, ...]  # of ∂γ and ∂β in one array
    dtype: np.dtype  # in which is computed
    floors: tuple  # the least value of y: without ReLU, and with it
    blanks: tuple[np.ndarray | None, np.ndarray | None]  # γ and β where there are none


def normalize(x, gamma, beta, *, axes, eps, centred=True, relu=False):
    """(y, μ, σ²) of `norm.fused.normalize_forward`; with `relu`, y = max(y, 0)."""
    plan = plan_of(x.shape, x.strides, x.dtype, axes, _shape(gamma), _shape(beta))
    if plan is None:
        return numpy_norm.normalize(x, gamma, beta, axes=axes, eps=eps, centred=centred, relu=relu)
    dtype, order = plan.dtype, plan.order
    y, stats = np.empty(plan.shape, dtype), np.empty(plan.kept, dtype)
    plan.forward(
        flat(x, dtype, order),
        y.ravel(),
        plan.blanks[0] if gamma is None else flat(gamma, dtype),
        plan.blanks[1] if beta is None else flat(beta, dtype),
        stats.ravel(),
        plan.places,
        float(eps),
        centred,
        plan.floors[relu],
    )
    mu, var = stats
    return as_x(y, x, plan.back), mu, var


def normalize_grads(gs, outs, x, gamma, beta, *, needs, axes, eps, centred=True, relu=False):
    """(∂ℓ/∂x, ∂ℓ/∂γ, ∂ℓ/∂β) of `norm.fused.normalize_grads`; with `relu`, g counts where y > 0."""
    (g, g_mu, g_var), (y, mu, var) = gs, outs
    plan = None
    if g is not None and g_mu is None and g_var is None:
        plan = plan_of(x.shape, x.strides, x.dtype, axes, _shape(gamma), _shape(beta))
    if plan is None:
        return numpy_norm.normalize_grads(
            gs, outs, x, gamma, beta, needs=needs, axes=axes, eps=eps, centred=centred, relu=relu
        )
    dtype, order = plan.dtype, plan.order
    dx, sums = np.empty(plan.shape, dtype), np.empty(plan.affine, dtype)
    plan.backward(
        flat(x, dtype, order),
        flat(g, dtype, order),
        flat(y, dtype, order) if relu else None,
        dx.ravel(),
        plan.blanks[0] if gamma is None else flat(gamma, dtype),
        flat(mu, dtype),
        flat(var, dtype),
        sums.ravel(),
        plan.places,
        float(eps),
        centred,
    )
    dgamma, dbeta = sums
    return (
        as_x(dx, x, plan.back) if needs[0] else None,
        dgamma if needs[1] else None,
        dbeta if needs[2] else None,
    )


def move(running_mean, running_var, mu, var, scale, momentum):
    """What `norm.running.move` does: None once it is done, NotImplemented if no loop can."""
    compiled = loops("running")
    if compiled is None or type(momentum) is not float:
        return NotImplemented
    dtype, shape = running_mean.dtype, running_mean.shape
    if dtype not in DTYPES or mu.size % running_mean.size or var.shape != mu.shape:
        return NotImplemented
    if running_var.dtype is not dtype or running_var.shape != shape:
        return NotImplemented
    for flags in (running_mean.flags, running_var.flags):
        if not (flags.c_contiguous and flags.writeable):
            return NotImplemented
    mu, var = flat(mu, dtype), flat(var, dtype)
    compiled.move.alone(running_mean, running_var, mu, var, scale, momentum)
    return None


def flat(array: np.ndarray, dtype: np.dtype, order: tuple | None = None) -> np.ndarray:
    """The values in this order of the axes: read-only, as numba compiles a loop for each kind."""
    if order is not None:
        array = array.transpose(order)
    if array.dtype is not dtype:
        array = array.astype(dtype)
    flat = array.ravel()
    flat.setflags(False)
    return flat


def as_x(array: np.ndarray, x: np.ndarray, back: tuple | None) -> np.ndarray:
    """What a loop filled, with the axes and the dtype of x."""
    if back is not None:
        array = array.transpose(back)
    return array if array.dtype is x.dtype else array.astype(x.dtype)


def _shape(array: Any) -> tuple | None:
    return None if array is None else array.shape


# --- Which loop, and how --------------------------------------------------------------------------


@functools.lru_cache(maxsize=512)
def plan_of(shape, strides, dtype, axes, gamma, beta) -> Plan | None:
    """The plan for x, γ and β of these shapes; None, and a line in the log, if the loops know no
    way."""
    plan = _plan_of_loops(shape, strides, dtype, axes, gamma, beta)
    if plan is None:
        _log.debug("NumPy normalizes %s%s over the axes %s, which no loop does", dtype, shape, axes)
    return plan


def _plan_of_loops(shape, strides, dtype, axes, gamma, beta) -> Plan | None:
    dtype = np.dtype(accumulator(dtype))
    if dtype not in DTYPES:
        return None
    for layout in layouts(shape, strides, axes, gamma, beta):
        places = _places(layout)
        if places is not None:
            break
    else:
        return None
    if (compiled := loops(layout.kind)) is None:
        return None
    forward, backward = compiled.normalize, compiled.normalize_grads
    if math.prod(shape) <= SMALL:
        forward, backward = forward.alone, backward.alone
    beside = beta if gamma is None else gamma
    return Plan(
        layout.kind,
        forward,
        backward,
        places,
        layout.order,
        layout.back,
        shape if layout.order is None else tuple([shape[i] for i in layout.order]),
        (2, *kept_shape(shape, axes)),
        (2, layout.affine) if beside is None else (2, *beside),
        dtype,
        (dtype.type(-math.inf), dtype.type(0)),
        tuple(
            [
                _blank(v, layout.affine, dtype) if s is None else None
                for v, s in ((1, gamma), (0, beta))
            ]
        ),
    )


def _blank(value: float, size: int, dtype: np.dtype) -> np.ndarray:
    return flat(np.full(size, value, dtype), dtype)


DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def lines_of(rows: int, columns: int) -> tuple[int, int]:
    """How the loops for columns read a matrix: how many lines, and how long they are."""
    times = max([n for n in range(1, max(64 // max(columns, 1), 1) + 1) if rows % n == 0])
    return rows // times, columns * times


def _places(layout: Layout) -> tuple[int, ...] | None:
    """The sizes as the loops of this kind want them; None if a run cannot be cut into pieces."""
    kind, _, _, repeats, groups, parts, run, _ = layout
    if kind == "columns":
        return *lines_of(repeats, groups), groups
    pieces = next((m for m in range(-(-run // _RUN), run // 64 + 2) if run % m == 0), None)
    if pieces is None:
        return None
    if kind == "rows":
        return groups, pieces, run // pieces
    return repeats, groups, parts * pieces, run // pieces, parts
