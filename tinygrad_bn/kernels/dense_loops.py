"""Layers of x ← relu(batch_norm(x Wᵀ + b)), however many, in one call.

For small layers the calls cost more than the work. `parameters` holds W (m, n), b, γ and β of the
layers, end to end, and `d_parameters` their gradients; `hidden` z and y (N, m), μ and σ² of the
layers, but without the last y. `widths`: of the input and of the layers. `lines`: how
`columns_loops` sees the values of each.
"""

import numpy as np

from . import columns_loops
from .compiled import Loop, inner
from .products import HEIGHT, add_product, pack, pack_transposed, panel_width, repeat, unpack

_normalize, _normalize_grads = columns_loops.normalize.alone, columns_loops.normalize_grads.alone
_panel_width = inner(panel_width)


@inner
def _tiles(count, step):
    """Where so many rows, `step` apart, begin; and as many more as fill the last tile."""
    rows = np.arange(-(-count // HEIGHT) * HEIGHT) * step
    rows[count:] = 0
    return rows


@inner
def _multiply(left, rows, terms, right, transposed, bias, out):
    """out = left · right + bias, with element (row, term) of the left at rows[row] + terms[term].

    `transposed`: the right is given so."""
    columns, places = out.shape[1], np.arange(len(out))
    lanes = _panel_width(columns, right.itemsize)
    panel = np.zeros((len(terms), lanes), right.dtype)
    sums, start = np.empty((len(rows), lanes), right.dtype), np.zeros(lanes, right.dtype)
    for first in range(0, columns, lanes):
        width = min(lanes, columns - first)
        if transposed:
            pack_transposed(right, first, width, panel)
        else:
            pack(right, first, width, panel)
        start[:width] = bias[first : first + width]
        repeat(start, len(rows), sums)
        add_product(left, rows, terms, panel, sums)
        unpack(sums, places, first, width, out)


@inner
def _column_sums(matrix, sums):
    sums[:] = 0
    for i in range(len(matrix)):
        for j in range(len(sums)):
            sums[j] += matrix[i, j]


@inner
def _parts(parameters, end, n, m):
    """W, b, γ and β, which end there."""
    weight, vectors = parameters[end - (n + 3) * m : end - 3 * m], parameters[end - 3 * m : end]
    bias, gamma, beta = vectors.reshape((3, m))
    return weight.reshape((m, n)), bias, gamma, beta


@Loop
def run(x, parameters, widths, lines, eps, hidden, y):
    """Fill `hidden`, and the last y, for x (N, n)."""
    samples, layers, at, end, below = len(x), len(eps), 0, 0, x.copy()
    for k in range(layers):
        n, m = widths[k], widths[k + 1]
        size, end = samples * m, end + (n + 3) * m
        weight, bias, gamma, beta = _parts(parameters, end, n, m)
        z, stats = hidden[at : at + size], hidden[at + size : at + size + 2 * m]
        at += size + 2 * m
        above = y if k == layers - 1 else hidden[at : at + size].reshape((samples, m))
        at += size
        product = z.reshape((samples, m))
        rows, terms = _tiles(samples, n), np.arange(n)
        _multiply(below.ravel(), rows, terms, weight, True, bias, product)
        places, floor = (lines[k, 0], lines[k, 1], m), x.dtype.type(0)
        _normalize(z, above.ravel(), gamma, beta, stats, places, eps[k], True, floor)
        below = above


@Loop
def run_grads(g, x, parameters, widths, lines, eps, hidden, y, dx, d_parameters):
    """Fill `d_parameters`; and dx, if it is there: if not, it has no rows."""
    samples, at, end, above = len(x), len(hidden) + y.size, len(parameters), y
    first, slope = x.copy(), g.copy()
    for k in range(len(eps) - 1, -1, -1):
        n, m = widths[k], widths[k + 1]
        size = samples * m
        at -= 2 * (size + m)
        z, stats = hidden[at : at + size], hidden[at + size : at + size + 2 * m]
        weight, _, gamma, _ = _parts(parameters, end, n, m)
        d_weight, d_bias, _, _ = _parts(d_parameters, end, n, m)
        sums, end = d_parameters[end - 2 * m : end], end - (n + 3) * m
        dz, places = np.empty_like(above), (lines[k, 0], lines[k, 1], m)
        mu, var, masks = stats[:m], stats[m:], above.ravel()
        _normalize_grads(
            z, slope.ravel(), masks, dz.ravel(), gamma, mu, var, sums, places, eps[k], True
        )
        above = hidden[at - samples * n : at].reshape((samples, n)) if k else first
        _column_sums(dz, d_bias)
        nothing, flat = np.zeros(max(n, m), x.dtype), dz.ravel()
        _multiply(flat, _tiles(m, 1), np.arange(samples) * m, above, False, nothing, d_weight)
        if k or len(dx):
            slope = np.empty((samples, n), x.dtype) if k else dx
            _multiply(flat, _tiles(samples, m), np.arange(m), weight, False, nothing, slope)
