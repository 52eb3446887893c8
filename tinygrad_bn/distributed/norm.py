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
from typing import Any, NamedTuple

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
from ..norm import composed
from ..norm.axes import FAMILY, arrange
from ..ops import sqrt, stack
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


class Statistics(NamedTuple):
    """Of the values on all ranks. μ + rounding is the mean with more digits than μ has."""

    mu: Any
    var: Any
    rounding: Any
    m: int  # values behind each entry


def statistics(x: Any, axes: tuple[int, ...], comm: Communicator) -> Statistics:
    """One all-gather of (count, mean, Σ(x − mean)²) of each rank, merged in the order of ranks, so
    that all get the same bits (Chan, Golub & LeVeque 1983, formula 1.5, for many parts). A rank may
    have no values."""
    xp, n = array_module([x]), count(x.shape, axes)
    x = widened(x)
    own = xp.zeros((3, *kept_shape(x.shape, axes)), np.float64)
    if n:
        how = {"axis": axes, "keepdims": True, "dtype": np.float64}
        centre = x.mean(**how).astype(x.dtype)
        d = x - centre
        rest = d.mean(**how)
        d *= d
        own[0], own[1], own[2] = n, centre + rest, d.sum(**how) - n * rest * rest
    found = comm.allgather(own)
    if device_of(x) == "cpu":
        m = int(found[:, 0].reshape(comm.size, -1)[:, :1].sum())
    else:  # the host does not wait for the GPU to be told a number
        m = values_of_all(n, comm)
    counts, means, squares = found[:, 0], found[:, 1], found[:, 2]
    mean = (counts * means).sum(axis=0) / max(m, 1)
    squares = (squares + counts * (means - mean) ** 2).sum(axis=0)
    mu = mean.astype(x.dtype)
    var, rounding = (squares / max(m, 1)).astype(x.dtype), (mean - mu).astype(x.dtype)
    return Statistics(mu, var, rounding, m)


def normalize_grads(gs, outs, x, gamma, _beta, *, needs, axes, eps, comm, found):
    """∂ℓ/∂x, and this rank's share of ∂ℓ/∂γ and ∂ℓ/∂β, by one all-reduce of two sums a channel (and
    of what arrives at μ and σ², if anything does)."""
    (g, g_mu, g_var), (_, mu, var) = gs, outs
    d = named("d", widened(x) - mu - found.rounding)
    r = named("r", 1.0 / sqrt(var + eps))
    xhat, shared, dgamma, dbeta = named("x̂", d * r), [], None, None
    if g is not None:
        g = widened(g)
        dbeta, dgamma = wide_sum(g, axes=axes), wide_sum(g * xhat, axes=axes)
        shared = [dbeta, dgamma]
    shared += [wide_sum(v, axes=()) for v in (g_mu, g_var) if v is not None]
    means = cast(all_sum(stack(shared), comm=comm) * (1.0 / found.m), d.dtype)
    means, dx = [means[k] for k in range(len(shared))], 0.0
    if g is not None:
        scale = r if gamma is None else gamma * r
        dx = scale * (g - means.pop(0) - xhat * means.pop(0))
    if g_mu is not None:
        dx = dx + broadcast_to(means.pop(0), shape=x.shape)
    if g_var is not None:
        dx = dx + d * (means.pop(0) * 2.0)
    return dx, dgamma if needs[1] else None, dbeta if needs[2] else None


@op("normalize (all ranks)", joint=normalize_grads, outputs=("_y", "mu", "var"))
def normalize(xp, x, gamma, beta, *, axes, eps, comm, found):
    """y, μ, σ², as of `norm.fused.normalize`, by the statistics of all ranks."""
    d = widened(x) - found.mu - found.rounding
    y = scale_and_shift(d / xp.sqrt(found.var + eps), gamma, beta, x.dtype)
    return y, found.mu, found.var


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
            y, mu, var = normalize(input, gamma, beta, **how, comm=comm, found=found)
        else:
            mean = functools.partial(mean_of_all, comm=comm, m=m)
            y, mu, var = composed.normalize(input, gamma, beta, **how, mean=mean)
    named("y", y), named("σ²_B", var), named("μ_B", mu)  # which a single op cannot do itself
    return y, mu, var, m
