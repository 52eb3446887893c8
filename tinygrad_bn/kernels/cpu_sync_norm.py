"""Batch norm across processes on NumPy arrays, by compiled loops: what each does by itself.

The steps of `distributed/norm.py`. They return NotImplemented for what the loops of `cpu_norm.py`
do not know, or whose statistics lie along rows: there, the formula runs.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from . import cpu_norm
from .compiled import loops


def moments(x, *, axes):
    """(2, …): the mean and Σ (x − mean)² over `axes`, in float64."""
    plan, run = _loop("moments", x, axes)
    if plan is None:
        return NotImplemented
    found = np.empty(plan.kept)
    run(cpu_norm.flat(x, plan.dtype, plan.order), found.ravel(), plan.places)
    return found


def apply(x, gamma, beta, mu, rest, var, *, axes, eps):
    """γ (x − μ − rest) / √(σ² + ε) + β."""
    plan, run = _loop("apply", x, axes, gamma, beta)
    if plan is None:
        return NotImplemented
    dtype, y = plan.dtype, np.empty(plan.shape, plan.dtype)
    run(
        cpu_norm.flat(x, dtype, plan.order),
        y.ravel(),
        plan.blanks[0] if gamma is None else cpu_norm.flat(gamma, dtype),
        plan.blanks[1] if beta is None else cpu_norm.flat(beta, dtype),
        *(cpu_norm.flat(v, dtype) for v in (mu, rest, var)),
        plan.places,
        float(eps),
    )
    return cpu_norm.as_x(y, x, plan.back)


def products(x, g, mu, rest, var, *, axes, eps):
    """(2, …): Σ g and Σ g x̂ over `axes`, in float64."""
    plan, run = _loop("products", x, axes)
    if plan is None:
        return NotImplemented
    dtype, found = plan.dtype, np.empty(plan.kept)
    arrays = [cpu_norm.flat(v, dtype, plan.order) for v in (x, g)]
    arrays += [cpu_norm.flat(v, dtype) for v in (mu, rest, var)]
    run(*arrays, found.ravel(), plan.places, float(eps))
    return found


def slopes(x, g, gamma, mu, rest, var, means, *, axes, eps):
    """γ r (g − means[0] − x̂ means[1])."""
    plan, run = _loop("slopes", x, axes, gamma)
    if plan is None:
        return NotImplemented
    dtype, dx = plan.dtype, np.empty(plan.shape, plan.dtype)
    run(
        *(cpu_norm.flat(v, dtype, plan.order) for v in (x, g)),
        dx.ravel(),
        plan.blanks[0] if gamma is None else cpu_norm.flat(gamma, dtype),
        *(cpu_norm.flat(v, dtype) for v in (mu, rest, var)),
        cpu_norm.flat(means, np.dtype(np.float64)),
        plan.places,
        float(eps),
    )
    return cpu_norm.as_x(dx, x, plan.back)


def _loop(name: str, x, axes, *vectors) -> tuple[Any, Callable | None]:
    """How the loops see x, and the one of this name; (None, None) if there is none."""
    shapes = [None if v is None else v.shape for v in (*vectors, None, None)]
    plan = cpu_norm.plan_of(x.shape, x.strides, x.dtype, axes, *shapes[:2]) if x.size else None
    if plan is None or plan.kind == "rows":
        return None, None
    loop = getattr(loops(plan.kind), name)
    return plan, loop.alone if x.size <= cpu_norm.SMALL else loop
