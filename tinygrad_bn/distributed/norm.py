"""Batch norm of a batch whose rows are spread over ranks: the statistics are those of all rows.

It is the same twice again. Composed: the lines of `norm.composed`, whose mean is that over all
ranks. Fused: what each rank finds of its rows is merged, and the gradient of `norm.fused` needs two
sums a channel from the others:

    ∂ℓ/∂x = γ r (∂ℓ/∂y − Σ ∂ℓ/∂y / m − x̂ Σ(∂ℓ/∂y x̂) / m)

where Σ and m go over the rows of all ranks. ℓ is the sum of what the ranks call their losses. γ and
β are the same on all of them, and a rank finds its own share of their gradients: these are summed
with all others (`DataParallel`).

Both are made of ops, among them the sum over ranks, which is its own gradient; so every order is
right, as long as all ranks differentiate the same things together.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import array_module, array_of, device_of, on_device_of
from ..engine import broadcast_to
from ..functional.norm import (
    all_given,
    beside,
    check_beside,
    check_several,
    checked,
    implementation,
)
from ..kernels import accelerated, cpu_sync_norm
from ..norm import composed
from ..norm.axes import FAMILY, arrange
from ..ops import add, sqrt, stack
from ..ops.shape import cast
from ..primitive import op
from ..reduction import WIDER, count, kept_shape
from ..tensor import named
from .communicators import Communicator

widened, scale_and_shift = composed.widened, composed.scale_and_shift


@op("Σ ranks", lambda g, _out, _x, comm: all_sum(g, comm=comm))
def all_sum(xp, x, *, comm):
    """The sum of x over all ranks. What each rank does with it counts for the gradient."""
    return comm.allreduce_(xp.array(x, order="C"))


@op("Σ", lambda g, _out, _x, axes: broadcast_to(g, shape=_x.shape))
def wide_sum(xp, x, *, axes):
    """The sum over `axes`, which stay as 1, in twice the precision of x."""
    return x.sum(axis=axes, keepdims=True, dtype=WIDER.get(x.dtype.char))


def mean_of_all(x, *, axis, keepdims, comm, m):
    """The mean over `axis` (kept as 1) and all ranks, on which there are m values."""
    return cast(all_sum(wide_sum(x, axes=axis), comm=comm) * (1.0 / m), x.dtype)


def values_of_all(n: int, comm: Communicator) -> int:
    """The sum of a number of the host over all ranks."""
    return int(comm.allreduce_(np.array([n]))[0])


@dataclass(frozen=True, repr=False)
class Statistics:
    """Of the values on all ranks. μ + rest is the mean with more digits than μ has."""

    mu: Any
    var: Any
    rest: Any
    m: int  # values behind each entry
    comm: Communicator

    def __repr__(self) -> str:  # in pictures
        return f"{self.m} values on {self.comm.size} ranks"


@accelerated(cpu_sync_norm.moments)
def moments(x, *, axes):
    """(2, …): the mean and Σ (x − mean)² over `axes`, which stay as 1, in float64."""
    how = {"axis": axes, "keepdims": True, "dtype": np.float64}
    centre = x.mean(**how).astype(x.dtype)
    d = x - centre
    rest = d.mean(**how)
    d *= d
    squares = d.sum(**how) - count(x.shape, axes) * rest * rest
    return array_module([x]).stack([centre + rest, squares])


def statistics(x: Any, axes: tuple[int, ...], comm: Communicator) -> Statistics:
    """One all-gather of (count, mean, Σ(x − mean)²) of each rank, merged in the order of ranks, so
    that all get the same bits (Chan, Golub & LeVeque 1983, formula 1.5, for many parts). A rank may
    have no values."""
    xp, n, kept = array_module([x]), count(x.shape, axes), kept_shape(x.shape, axes)
    x = widened(x)
    own = xp.zeros(1 + 2 * math.prod(kept), np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # of data that are not finite
        if n:
            own[0], own[1:] = n, moments(x, axes=axes).ravel()
        found = comm.allgather(own)
        counts, shape = found[:, 0], (comm.size, 2, *kept)
        # Who is on a GPU does not wait to be told a number.
        m = int(counts.sum()) if device_of(x) == "cpu" else values_of_all(n, comm)
        counts = counts.reshape(-1, *[1] * len(kept))
        means, squares = (found[:, 1:].reshape(shape)[:, k] for k in (0, 1))
        mean = (counts * means).sum(axis=0) / max(m, 1)
        squares = (squares + counts * (means - mean) ** 2).sum(axis=0)
        mu, var = mean.astype(x.dtype), (squares / max(m, 1)).astype(x.dtype)
        return Statistics(mu, var, (mean - mu).astype(x.dtype), m, comm)


@accelerated(cpu_sync_norm.apply)
def apply(x, gamma, beta, mu, rest, var, *, axes, eps):
    """y = γ x̂ + β by given statistics."""
    d = widened(x) - mu - rest
    return scale_and_shift(d / sqrt(var + eps), gamma, beta, x.dtype)


@accelerated(cpu_sync_norm.products)
def products(x, g, mu, rest, var, *, axes, eps):
    """(2, …): Σ g and Σ g x̂ of this rank."""
    xhat = named("x̂", (widened(x) - mu - rest) * (1.0 / sqrt(var + eps)))
    return stack([wide_sum(g, axes=axes), wide_sum(widened(g) * xhat, axes=axes)])


@accelerated(cpu_sync_norm.slopes)
def slopes(x, g, gamma, mu, rest, var, means, *, axes, eps):
    """γ r (g − mean(g) − x̂ mean(g x̂)), with the two means over all ranks."""
    d, r = widened(x) - mu - rest, named("r", 1.0 / sqrt(var + eps))
    scale = r if gamma is None else gamma * r
    of_g, of_products = [cast(means[k], d.dtype) for k in (0, 1)]
    return scale * (widened(g) - of_g - named("x̂", d * r) * of_products)


def normalize_grads(gs, outs, x, gamma, _beta, *, needs, axes, eps, of):
    """∂ℓ/∂x, and this rank's share of ∂ℓ/∂γ and ∂ℓ/∂β, by one all-reduce of two sums a channel (and
    of what arrives at μ and σ², if anything does)."""
    (g, g_mu, g_var), (_, mu, var) = gs, outs
    given, how = (mu, of.rest, var), {"axes": axes, "eps": eps}
    sums = {}
    if g is not None:
        own = products(x, g, *given, **how)
        sums = {"g": own[0], "g x̂": own[1]}
    dbeta, dgamma = sums.get("g") if needs[2] else None, sums.get("g x̂") if needs[1] else None
    if not needs[0]:
        return None, dgamma, dbeta
    sums |= {"g_mu": g_mu} if g_mu is not None else {}
    sums |= {"g_var": g_var} if g_var is not None else {}
    means = all_sum(stack([wide_sum(v, axes=()) for v in sums.values()]), comm=of.comm) / of.m
    mean_of, terms = {name: means[k] for k, name in enumerate(sums)}, []
    if g is not None:
        terms.append(slopes(x, g, gamma, *given, means[:2], **how))
    if g_mu is not None:
        terms.append(broadcast_to(cast(mean_of["g_mu"], mu.dtype), shape=x.shape))
    if g_var is not None:
        d = widened(x) - mu - of.rest
        terms.append(d * (cast(mean_of["g_var"], mu.dtype) * 2.0))
    return functools.reduce(add, terms), dgamma, dbeta


@op("normalize (all ranks)", joint=normalize_grads, outputs=("_y", "mu", "var"))
def normalize(xp, x, gamma, beta, *, axes, eps, of):
    """y, μ, σ², as of `norm.fused.normalize`, by the statistics `of` all ranks."""
    y = apply(x, gamma, beta, of.mu, of.rest, of.var, axes=axes, eps=eps)
    return y, of.mu, of.var


def batch_norm(input, weight, bias, eps, impl, comm):
    """(y, μ, σ², m) of this rank's rows by the statistics of all m values a channel that the ranks
    have; None if they have none at all. The arguments are as of `functional.batch_norm`. All ranks
    together."""
    input, *_, weight, bias = given = all_given(input, None, None, weight, bias)
    implementation(impl)
    input, eps = checked(given, 2, "(N, C, …)", eps)
    check_beside(given, (input.shape[1],))
    arrangement = arrange(FAMILY["batch_norm"], input.shape)
    gamma, beta = beside(weight, arrangement), beside(bias, arrangement)
    how, found = {"axes": arrangement.axes, "eps": eps}, None
    with on_device_of(array_of(input)):
        if impl == "fused":
            found = statistics(array_of(input), arrangement.axes, comm)
        m = found.m if found else values_of_all(count(input.shape, arrangement.axes), comm)
        if m == 0:
            return None
        check_several(input, m, "channel in training on all ranks")
        if impl == "fused":
            y, mu, var = normalize(input, gamma, beta, **how, of=found)
        else:
            mean = functools.partial(mean_of_all, comm=comm, m=m)
            y, mu, var = composed.normalize(input, gamma, beta, **how, mean=mean)
    named("y", y), named("σ²_B", var), named("μ_B", mu)  # which a single op cannot do itself
    return y, mu, var, m
