"""Normalization in machine code where neighbours do not share statistics: *columns*.

That is batch norm of samples (N, C), and of images that have their channels last. A matrix is read
by lines that hold every column once, or several times where there are few, so that vectors of the
machine are full. Sums are shifted, and those of some lines made in the dtype of x, as in
`parts_loops.py`. Threads share the lines in `tasks` that depend on the shape alone, so that their
number changes no result.
"""

import numpy as np
from numba import prange

from .compiled import Loop, inner

_STRIP = 64  # lines that are summed in the dtype of x
_TASKS = 32
_FIRST = 8


@inner
def _task(lines):
    """How many lines are one task."""
    return max(_STRIP, -(-lines // _TASKS))


@inner
def _spread(k, columns):
    """Repeats the first values of a line, one a column, up to its end."""
    for start in range(columns, k.size, columns):
        for j in range(columns):
            k[start + j] = k[j]


@inner
def _fold(sums, columns):
    """Adds up the sums (tasks, n, line) of all tasks and places of a column, in the first places of
    the first task."""
    tasks, n, line = sums.shape
    for t in range(tasks):
        for i in range(n):
            for start in range(0, line, columns):
                if t + start > 0:
                    for j in range(columns):
                        sums[0, i, j] += sums[t, i, start + j]


@inner
def _near_mean(x, columns, k):
    """The mean of the first values of each column: k, from which deviations are small."""
    lines = min(_FIRST, len(x))
    k[:] = 0
    for n in range(lines):
        for j in range(columns):
            k[j] += x[n, j] * x.dtype.type(1 / lines)  # the sum might be too large
    _spread(k, columns)


@inner
def _deviations(x, start, stop, k, sums):
    """Σ d and Σ d² of some lines, where d = x − k: into `sums` (2, line).

    Four lines at once, so that the sums are loaded and stored once for the four."""
    line = k.size
    a, b = np.empty_like(k), np.empty_like(k)
    sums[:] = 0.0
    for first in range(start, stop, _STRIP):
        last = min(first + _STRIP, stop)
        middle = last - (last - first) % 4
        a[:] = 0
        b[:] = 0
        for n in range(first, middle, 4):
            for j in range(line):
                d0, d1 = x[n, j] - k[j], x[n + 1, j] - k[j]
                d2, d3 = x[n + 2, j] - k[j], x[n + 3, j] - k[j]
                a[j] += (d0 + d1) + (d2 + d3)
                b[j] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
        for n in range(middle, last):
            for j in range(line):
                d = x[n, j] - k[j]
                a[j] += d
                b[j] += d * d
        for j in range(line):
            sums[0, j] += a[j]
            sums[1, j] += b[j]


@inner
def _again(x, c, columns, k):
    """Σ d and Σ d² of one column, in float64."""
    lines, line = x.shape
    s, q = 0.0, 0.0
    for n in range(lines):
        for j in range(c, line, columns):
            d = x[n, j] - np.float64(k)
            s += d
            q += d * d
    return s, q


@inner
def _moments(x, k, columns, sums, centred):
    """Mean and variance of d (if not `centred` 0 and the mean of d²), in place of Σ d and Σ d².

    Columns whose squares were too large for the dtype, or in which k is far from the mean, are
    summed again, each by itself: it changes nothing in the others.
    """
    m = x.size // columns
    for c in range(columns):
        s, q = sums[0, c], sums[1, c]
        if q == np.inf:
            s, q = _again(x, c, columns, k[c])
        if centred and s * s > 16 * (q * m - s * s):
            k[c] += s / m
            s, q = _again(x, c, columns, k[c])
        e = s / m if centred else 0.0
        v = q / m - e * e
        sums[0, c] = e
        sums[1, c] = max(v, 0.0) if v == v else v


@inner
def _maps(gamma, beta, stats, moments, eps, k, scale, shift):
    """μ and σ²; and y = (x − k) · scale + shift for each column."""
    columns = gamma.size
    mu, var, e, v = stats[:columns], stats[columns:], moments[0], moments[1]
    for j in range(columns):
        mu[j] = k[j] + e[j]
        var[j] = v[j]
    for j in range(columns):
        scale[j] = gamma[j] / np.sqrt(var[j] + eps)
    for j in range(columns):
        shift[j] = beta[j] - e[j] * scale[j]
    _spread(k, columns)
    _spread(scale, columns)
    _spread(shift, columns)


@inner
def _affine(x, y, start, stop, k, scale, shift, floor):
    for n in range(start, stop):
        for j in range(k.size):
            v = (x[n, j] - k[j]) * scale[j] + shift[j]
            y[n, j] = floor if v < floor else v


@Loop
def normalize(x, y, gamma, beta, stats, places, eps, centred, floor):
    """y; and into `stats` μ and then σ² of each column."""
    lines, line, columns = places
    x2, y2 = x.reshape((lines, line)), y.reshape((lines, line))
    task = _task(lines)
    tasks = -(-lines // task)
    k, scale, shift = np.empty(line, x.dtype), np.empty(line, x.dtype), np.empty(line, x.dtype)
    k[:] = 0
    if centred:
        _near_mean(x2, columns, k)
    sums = np.empty((tasks, 2, line))
    for t in prange(tasks):
        _deviations(x2, t * task, min((t + 1) * task, lines), k, sums[t])
    _fold(sums, columns)
    _moments(x2, k, columns, sums[0], centred)
    _maps(gamma, beta, stats, sums[0], eps, k, scale, shift)
    for t in prange(tasks):
        _affine(x2, y2, t * task, min((t + 1) * task, lines), k, scale, shift, floor)


@inner
def _products(x, g, y, start, stop, k, sums):
    """Σ d, Σ g and Σ g d of some lines, where d = x − k: into `sums` (3, line). g counts where
    y > 0, if there is a y."""
    line, zero = k.size, x.dtype.type(0)
    a, b, c = np.empty_like(k), np.empty_like(k), np.empty_like(k)
    mask = None if y is None else y.reshape(x.shape)
    sums[:] = 0.0
    for first in range(start, stop, _STRIP):
        last = min(first + _STRIP, stop)
        middle = last - (last - first) % 2
        a[:] = 0
        b[:] = 0
        c[:] = 0
        for n in range(first, middle, 2):
            for j in range(line):
                d0, d1, g0, g1 = x[n, j] - k[j], x[n + 1, j] - k[j], g[n, j], g[n + 1, j]
                if y is not None:
                    g0 = g0 if mask[n, j] > 0 else zero
                    g1 = g1 if mask[n + 1, j] > 0 else zero
                a[j] += d0 + d1
                b[j] += g0 + g1
                c[j] += g0 * d0 + g1 * d1
        for n in range(middle, last):
            for j in range(line):
                d0, g0 = x[n, j] - k[j], g[n, j]
                if y is not None:
                    g0 = g0 if mask[n, j] > 0 else zero
                a[j] += d0
                b[j] += g0
                c[j] += g0 * d0
        for j in range(line):
            sums[0, j] += a[j]
            sums[1, j] += b[j]
            sums[2, j] += c[j]


@inner
def _coefficients(gamma, var, dparams, sums, m, eps, centred, a, b, c):
    """∂γ and ∂β; and a, b and c of `_slopes` for each column."""
    columns = gamma.size
    dgamma, dbeta, e, s, q = dparams[:columns], dparams[columns:], sums[0], sums[1], sums[2]
    for j in range(columns):
        r = 1 / np.sqrt(var[j] + eps)
        mean = e[j] / m if centred else 0.0
        product = (q[j] - mean * s[j]) * r
        scale = gamma[j] * r
        dgamma[j] = product
        dbeta[j] = s[j]
        a[j] = scale
        c[j] = -scale * r * product / m
        b[j] = scale * (mean * r * product - s[j]) / m if centred else 0.0
    _spread(a, columns)
    _spread(b, columns)
    _spread(c, columns)


@inner
def _slopes(x, g, y, dx, start, stop, k, a, b, c):
    """∂x = a g + c (x − k) + b in some lines."""
    mask = None if y is None else y.reshape(x.shape)
    for n in range(start, stop):
        for j in range(k.size):
            gj = g[n, j]
            if y is not None:
                gj = gj if mask[n, j] > 0 else x.dtype.type(0)
            dx[n, j] = a[j] * gj + (c[j] * (x[n, j] - k[j]) + b[j])


@Loop
def normalize_grads(x, g, y, dx, gamma, mu, var, dparams, places, eps, centred):
    """∂x; and into `dparams` ∂γ and then ∂β. g counts where y > 0, if there is a y."""
    lines, line, columns = places
    shape, task = (lines, line), _task(lines)
    x2, g2, dx2 = x.reshape(shape), g.reshape(shape), dx.reshape(shape)
    tasks = -(-lines // task)
    k, a = np.empty(line, x.dtype), np.empty(line, x.dtype)
    b, c = np.empty(line, x.dtype), np.empty(line, x.dtype)
    for j in range(columns):
        k[j] = mu[j]
    _spread(k, columns)
    sums = np.empty((tasks, 3, line))
    for t in prange(tasks):
        _products(x2, g2, y, t * task, min((t + 1) * task, lines), k, sums[t])
    _fold(sums, columns)
    _coefficients(gamma, var, dparams, sums[0], x.size // columns, eps, centred, a, b, c)
    for t in prange(tasks):
        _slopes(x2, g2, y, dx2, t * task, min((t + 1) * task, lines), k, a, b, c)


# --- The same in steps, between which processes tell each other what they found -------------------


@inner
def _repeated(values, k, columns):
    """The values of the columns, into each place of a line k."""
    for j in range(columns):
        k[j] = values[j]
    _spread(k, columns)


@Loop
def moments(x, found, places):
    """Into `found` the mean and then Σ (x − mean)² of each column."""
    lines, line, columns = places
    x2, task = x.reshape((lines, line)), _task(lines)
    tasks, k = -(-lines // task), np.empty(line, x.dtype)
    _near_mean(x2, columns, k)
    sums = np.empty((tasks, 2, line))
    for t in prange(tasks):
        _deviations(x2, t * task, min((t + 1) * task, lines), k, sums[t])
    _fold(sums, columns)
    _moments(x2, k, columns, sums[0], True)
    for j in range(columns):
        found[j] = k[j] + sums[0, 0, j]
        found[columns + j] = sums[0, 1, j] * (x.size // columns)


@Loop
def apply(x, y, gamma, beta, mu, rest, var, places, eps):
    """y = γ (x − μ − rest) / √(σ² + ε) + β."""
    lines, line, columns = places
    x2, y2, task = x.reshape((lines, line)), y.reshape((lines, line)), _task(lines)
    k, scale, shift = np.empty(line, x.dtype), np.empty(line, x.dtype), np.empty(line, x.dtype)
    _repeated(mu, k, columns)
    for j in range(columns):
        scale[j] = gamma[j] / np.sqrt(var[j] + eps)
        shift[j] = beta[j] - rest[j] * scale[j]
    _spread(scale, columns)
    _spread(shift, columns)
    for t in prange(-(-lines // task)):
        start, stop = t * task, min((t + 1) * task, lines)
        _affine(x2, y2, start, stop, k, scale, shift, x.dtype.type(-np.inf))


@Loop
def products(x, g, mu, rest, var, found, places, eps):
    """Into `found` Σ g and then Σ g x̂ of each column."""
    lines, line, columns = places
    x2, g2, task = x.reshape((lines, line)), g.reshape((lines, line)), _task(lines)
    tasks, k = -(-lines // task), np.empty(line, x.dtype)
    _repeated(mu, k, columns)
    sums = np.empty((tasks, 3, line))
    for t in prange(tasks):
        _products(x2, g2, None, t * task, min((t + 1) * task, lines), k, sums[t])
    _fold(sums, columns)
    for j in range(columns):
        found[j] = sums[0, 1, j]
        product = sums[0, 2, j] - rest[j] * sums[0, 1, j]
        found[columns + j] = product / np.sqrt(var[j] + eps)


@Loop
def slopes(x, g, dx, gamma, mu, rest, var, means, places, eps):
    """∂x = γ r (g − means of g − x̂ · means of g x̂)."""
    lines, line, columns = places
    shape, task = (lines, line), _task(lines)
    x2, g2, dx2 = x.reshape(shape), g.reshape(shape), dx.reshape(shape)
    k, a = np.empty(line, x.dtype), np.empty(line, x.dtype)
    b, c = np.empty(line, x.dtype), np.empty(line, x.dtype)
    _repeated(mu, k, columns)
    for j in range(columns):
        r = 1 / np.sqrt(var[j] + eps)
        scale = gamma[j] * r
        a[j], c[j] = scale, -scale * r * means[columns + j]
        b[j] = -scale * means[j] + scale * r * means[columns + j] * rest[j]
    _spread(a, columns)
    _spread(b, columns)
    _spread(c, columns)
    for t in prange(-(-lines // task)):
        _slopes(x2, g2, None, dx2, t * task, min((t + 1) * task, lines), k, a, b, c)
