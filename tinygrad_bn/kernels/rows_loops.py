"""Normalization in machine code where each value has a γ of its own: *rows*.

That is layer norm and RMS norm. An array is seen as (1, rows, pieces, size), γ and β as (pieces,
size), again and again if they are longer. Each row has statistics of its own; sums are made as in
`parts_loops.py`.
"""

import numpy as np
from numba import prange

from .compiled import Loop, inner
from .parts_loops import collect, statistics
from .vectors import long_vectors

_STRIP = 64  # rows whose ∂γ and ∂β are summed in the dtype of x
_BLOCK = 4  # rows that are summed up one after the other, and then normalized: neither waits
_TASKS = 32  # into which rows are divided: by their number alone, so that threads change no result


@inner
def _affine(x, y, t, k, shift, r, gamma, beta, floor):
    """y = γ ((x − k) r + shift) + β in row t."""
    long_vectors()
    _, _, pieces, size = x.shape
    first = t * pieces % len(gamma)
    for p in range(pieces):
        for i in range(size):
            v = ((x[0, t, p, i] - k) * r + shift) * gamma[first + p, i] + beta[first + p, i]
            y[0, t, p, i] = floor if v < floor else v


@Loop
def normalize(x, y, gamma, beta, stats, places, eps, centred, floor):
    """y; and into `stats` μ and then σ² of each row."""
    rows, pieces, size = places
    dtype, shape, like = x.dtype.type, (1, rows, pieces, size), (gamma.size // size, size)
    x4, y4, gamma2, beta2 = (
        x.reshape(shape),
        y.reshape(shape),
        gamma.reshape(like),
        beta.reshape(like),
    )
    found = np.empty((rows, 2), x.dtype)
    for block in prange(-(-rows // _BLOCK)):
        first, last = block * _BLOCK, min((block + 1) * _BLOCK, rows)
        for t in range(first, last):
            k, e, v = statistics(x4, t, centred)
            stats[t] = k + e
            stats[rows + t] = v
            found[t, 0] = k
            found[t, 1] = e
        for t in range(first, last):
            k, e = found[t]
            r = dtype(1 / np.sqrt(stats[rows + t] + eps))
            _affine(x4, y4, t, k, -e * r, r, gamma2, beta2, floor)


@inner
def _products(x, g, y, t, k, r, gamma):
    """Σ x̂, Σ γ g and Σ γ g x̂ of row t, where x̂ = (x − k) r. g counts where y > 0, if there is a
    y."""
    long_vectors()
    _, _, pieces, size = x.shape
    mask = None if y is None else y.reshape(x.shape)
    dtype, first = x.dtype.type, t * pieces % len(gamma)
    e, s, q = 0.0, 0.0, 0.0
    for p in range(pieces):
        a = b = c = dtype(0)
        for i in range(size):
            xhat = (x[0, t, p, i] - k) * r
            gi = g[0, t, p, i] * gamma[first + p, i]
            if y is not None:
                gi = gi if mask[0, t, p, i] > 0 else dtype(0)
            a += xhat
            b += gi
            c += gi * xhat
        e += a
        s += b
        q += c
    return e, s, q


@inner
def _add(x, g, y, t, k, r, shift, sums):
    """Adds g x̂ and g of row t to `sums`, (2, pieces of γ, size)."""
    long_vectors()
    _, _, pieces, size = x.shape
    mask = None if y is None else y.reshape(x.shape)
    first = t * pieces % sums.shape[1]
    for p in range(pieces):
        for i in range(size):
            gi = g[0, t, p, i]
            if y is not None:
                gi = gi if mask[0, t, p, i] > 0 else x.dtype.type(0)
            sums[0, first + p, i] += gi * ((x[0, t, p, i] - k) * r + shift)
            sums[1, first + p, i] += gi


@inner
def _slopes(x, g, y, dx, t, k, r, b, c, gamma):
    """∂x = γ r g + c (x − k) + b in row t."""
    long_vectors()
    _, _, pieces, size = x.shape
    mask = None if y is None else y.reshape(x.shape)
    first = t * pieces % len(gamma)
    for p in range(pieces):
        for i in range(size):
            gi = g[0, t, p, i]
            if y is not None:
                gi = gi if mask[0, t, p, i] > 0 else x.dtype.type(0)
            dx[0, t, p, i] = gamma[first + p, i] * (r * gi) + (c * (x[0, t, p, i] - k) + b)


@inner
def _some_rows(x, g, y, dx, gamma, mu, var, start, stop, eps, centred, sums):
    """∂x of some rows, and what they add to ∂γ and ∂β."""
    dtype, m = x.dtype.type, x.shape[2] * x.shape[3]
    narrow = np.zeros(sums.shape, x.dtype)
    sums[:] = 0.0
    for t in range(start, stop):
        k, r = mu[t], dtype(1 / np.sqrt(var[t] + eps))
        e, s, q = _products(x, g, y, t, k, r, gamma)
        e = e / m if centred else 0.0
        c = -r * r * (q - e * s) / m
        b = -c * e / r - r * s / m if centred else 0.0
        _add(x, g, y, t, k, r, dtype(-e), narrow)
        _slopes(x, g, y, dx, t, k, r, dtype(b), dtype(c), gamma)
        if (t + 1 - start) % _STRIP == 0 or t + 1 == stop:
            sums += narrow
            narrow[:] = 0


@Loop
def normalize_grads(x, g, y, dx, gamma, mu, var, dparams, places, eps, centred):
    """∂x; and into `dparams` ∂γ and then ∂β. g counts where y > 0, if there is a y."""
    rows, pieces, size = places
    shape, like = (1, rows, pieces, size), (gamma.size // size, size)
    x4, g4, dx4 = x.reshape(shape), g.reshape(shape), dx.reshape(shape)
    gamma2 = gamma.reshape(like)
    each = max(_STRIP, -(-rows // _TASKS))
    tasks = -(-rows // each)
    sums = np.empty((tasks, 2, len(gamma2), size))
    for t in prange(tasks):
        stop = min((t + 1) * each, rows)
        _some_rows(x4, g4, y, dx4, gamma2, mu, var, t * each, stop, eps, centred, sums[t])
    collect(sums.reshape((tasks, 2, gamma.size)), dparams)
