"""Normalization in machine code where each γ stands beside runs of neighbours: *parts*.

That is batch norm of images (the runs are a channel's places, in each image), group norm and
instance norm. An array is seen as (repeats, groups, parts, size): what has the same index in
`groups` shares statistics. Along `parts` γ has `width` values.

Sums are of d = x − k, for a k near the mean: a run in the dtype of x (it is a few thousand values
at most), and the runs in float64. So a large mean costs no digits. The inner loops are functions of
whole arrays, which count from 0: that is what the compiler makes vectors of.
"""

import numpy as np
from numba import prange

from .compiled import Loop, inner
from .vectors import long_vectors

_FIRST = 8


@inner
def _deviations(x, t, k):
    """Σ d and Σ d² of group t, where d = x − k; a run in the dtype of k."""
    long_vectors()
    repeats, _, parts, size = x.shape
    s, q = 0.0, 0.0
    for n in range(repeats):
        for p in range(parts):
            a = b = type(k)(0)
            for i in range(size):
                d = x[n, t, p, i] - k
                a += d
                b += d * d
            s += a
            q += b
    return s, q


@inner
def _moments(x, t, k):
    """Mean and variance of d; in float64 if the squares are too large for the dtype."""
    s, q = _deviations(x, t, k)
    if q == np.inf:
        s, q = _deviations(x, t, np.float64(k))
    m = x.size // x.shape[1]
    e = s / m
    return e, q / m - e * e


@inner
def _guess(x, t):
    """A number near the mean of group t, in the dtype of x: the mean of its first values."""
    k = x.dtype.type(0)
    if x.shape[3] < _FIRST:
        return x[0, t, 0, 0]
    for i in range(_FIRST):
        k += x[0, t, 0, i]
    return k / x.dtype.type(_FIRST) if abs(k) < np.inf else x[0, t, 0, 0]


@inner
def statistics(x, t, centred):
    """k, mean and variance of x − k in group t; if not `centred` 0, 0 and the mean of x²."""
    k = x.dtype.type(0)
    if not centred:
        e, v = _moments(x, t, k)
        return k, 0.0, v + e * e
    k = _guess(x, t)
    e, v = _moments(x, t, k)
    if e * e > 16 * v:  # k was far from the mean, and v lost digits
        k += e
        e, v = _moments(x, t, k)
    return k, e, max(v, 0.0) if v == v else v


@inner
def _affine(x, y, t, k, e, r, gamma, beta, width, floor):
    """y = γ (x − k − e) r + β in group t."""
    long_vectors()
    repeats, _, parts, size = x.shape
    dtype, first = x.dtype.type, t * width % gamma.size
    for p in range(parts):
        j = first + p * width // parts
        scale = dtype(gamma[j] * r)
        shift = dtype(beta[j] - e * scale)
        for n in range(repeats):
            for i in range(size):
                v = (x[n, t, p, i] - k) * scale + shift
                y[n, t, p, i] = floor if v < floor else v


@Loop
def normalize(x, y, gamma, beta, stats, places, eps, centred, floor):
    """y; and into `stats` μ and then σ² of each group."""
    repeats, groups, parts, size, width = places
    shape = repeats, groups, parts, size
    x4, y4 = x.reshape(shape), y.reshape(shape)
    for t in prange(groups):
        k, e, v = statistics(x4, t, centred)
        stats[t] = k + e
        stats[groups + t] = v
        r = 1 / np.sqrt(stats[groups + t] + eps)
        _affine(x4, y4, t, k, e, r, gamma, beta, width, floor)


@inner
def _products(x, g, y, t, k, r, sums):
    """Σ x̂ of group t, where x̂ = (x − k) r; and into `sums`, (2, width), Σ g x̂ and Σ g. g counts
    where y > 0, if there is a y."""
    long_vectors()
    repeats, _, parts, size = x.shape
    mask = None if y is None else y.reshape(x.shape)
    dtype, width = x.dtype.type, sums.shape[1]
    e = 0.0
    sums[:] = 0.0
    for p in range(parts):
        j = p * width // parts
        for n in range(repeats):
            a = b = c = dtype(0)
            for i in range(size):
                xhat = (x[n, t, p, i] - k) * r
                gi = g[n, t, p, i]
                if y is not None:
                    gi = gi if mask[n, t, p, i] > 0 else dtype(0)
                a += xhat
                b += gi
                c += gi * xhat
            e += a
            sums[0, j] += c
            sums[1, j] += b
    return e


@inner
def _slopes(x, g, y, dx, t, k, r, b, c, gamma, width):
    """∂x = γ r g + c (x − k) + b in group t."""
    long_vectors()
    repeats, _, parts, size = x.shape
    mask = None if y is None else y.reshape(x.shape)
    dtype, first = x.dtype.type, t * width % gamma.size
    for p in range(parts):
        a = dtype(gamma[first + p * width // parts] * r)
        for n in range(repeats):
            for i in range(size):
                gi = g[n, t, p, i]
                if y is not None:
                    gi = gi if mask[n, t, p, i] > 0 else dtype(0)
                dx[n, t, p, i] = a * gi + (c * (x[n, t, p, i] - k) + b)


@inner
def _coefficients(sums, e, r, t, m, gamma, centred):
    """b and c of `_slopes`, from the sums of group t; ∂γ and ∂β, as far as it knows, stay there."""
    width = sums.shape[1]
    first = t * width % gamma.size
    e = e / m if centred else 0.0
    s, q = 0.0, 0.0
    for j in range(width):
        sums[0, j] -= e * sums[1, j]
        s += gamma[first + j] * sums[1, j]
        q += gamma[first + j] * sums[0, j]
    b = r * (e * q - s) / m if centred else 0.0
    return b, -r * r * q / m


@inner
def collect(sums, dparams):
    """Adds up the ∂γ and ∂β that were found, (tasks, 2, n): γ comes round again and again."""
    tasks, _, n = sums.shape
    size = dparams.size // 2
    total = np.zeros(2 * size)
    for t in range(tasks):
        first = t * n % size
        for j in range(n):
            total[first + j] += sums[t, 0, j]
            total[size + first + j] += sums[t, 1, j]
    dparams[:] = total


@Loop
def normalize_grads(x, g, y, dx, gamma, mu, var, dparams, places, eps, centred):
    """∂x; and into `dparams` ∂γ and then ∂β. g counts where y > 0, if there is a y."""
    repeats, groups, parts, size, width = places
    dtype, m, shape = x.dtype.type, repeats * parts * size, (repeats, groups, parts, size)
    x4, g4, dx4 = x.reshape(shape), g.reshape(shape), dx.reshape(shape)
    sums = np.empty((groups, 2, width))
    for t in prange(groups):
        k, r = mu[t], 1 / np.sqrt(var[t] + eps)
        e = _products(x4, g4, y, t, k, dtype(r), sums[t])
        b, c = _coefficients(sums[t], e, r, t, m, gamma, centred)
        _slopes(x4, g4, y, dx4, t, k, r, dtype(b), dtype(c), gamma, width)
    collect(sums, dparams)


# --- The same in steps, between which processes tell each other what they found -------------------


@Loop
def moments(x, found, places):
    """Into `found` the mean and then Σ (x − mean)² of each group."""
    repeats, groups, parts, size, _ = places
    x4 = x.reshape((repeats, groups, parts, size))
    for t in prange(groups):
        k, e, v = statistics(x4, t, True)
        found[t] = k + e
        found[groups + t] = v * (repeats * parts * size)


@Loop
def apply(x, y, gamma, beta, mu, rest, var, places, eps):
    """y = γ (x − μ − rest) / √(σ² + ε) + β."""
    repeats, groups, parts, size, width = places
    shape = repeats, groups, parts, size
    x4, y4, least = x.reshape(shape), y.reshape(shape), x.dtype.type(-np.inf)
    for t in prange(groups):
        r = 1 / np.sqrt(var[t] + eps)
        _affine(x4, y4, t, mu[t], rest[t], r, gamma, beta, width, least)


@Loop
def products(x, g, mu, rest, var, found, places, eps):
    """Into `found` Σ g and then Σ g x̂ of each group."""
    repeats, groups, parts, size, _ = places
    shape, dtype = (repeats, groups, parts, size), x.dtype.type
    x4, g4, sums = x.reshape(shape), g.reshape(shape), np.empty((groups, 2, 1))
    for t in prange(groups):
        r = 1 / np.sqrt(var[t] + eps)
        _products(x4, g4, None, t, mu[t], dtype(r), sums[t])
        found[t] = sums[t, 1, 0]
        found[groups + t] = sums[t, 0, 0] - rest[t] * r * sums[t, 1, 0]


@Loop
def slopes(x, g, dx, gamma, mu, rest, var, means, places, eps):
    """∂x = γ r (g − means of g − x̂ · means of g x̂)."""
    repeats, groups, parts, size, width = places
    shape, dtype = (repeats, groups, parts, size), x.dtype.type
    x4, g4, dx4 = x.reshape(shape), g.reshape(shape), dx.reshape(shape)
    for t in prange(groups):
        r = 1 / np.sqrt(var[t] + eps)
        scale = gamma[t * width % gamma.size] * r
        c = -scale * r * means[groups + t]
        b = -scale * means[t] - c * rest[t]
        _slopes(x4, g4, None, dx4, t, mu[t], r, dtype(b), dtype(c), gamma, width)
