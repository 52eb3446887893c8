"""Layers of x ← relu(batch_norm(x Wᵀ + b)), however many, in one call.

For small layers the calls cost more than the work. `parameters` holds W (m, n), b, γ and β of the
layers, end to end, and `d_parameters` their gradients. `hidden` holds z (N, m), μ, σ² and y (N, m)
of each layer from `starts` on, but not the last y. `widths`: of the input and of the layers.
`lines`: how `columns_loops` sees the values of each.
"""

import numpy as np

from . import columns_loops
from .compiled import Loop, inner
from .products import HEIGHT, add_product, pack, pack_transposed, panel_width, repeat, unpack

_normalize = columns_loops.normalize.inside()
_normalize_grads = columns_loops.normalize_grads.inside()
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


@inner
def _values(hidden, at, size, m, y, is_last):
    """z, μ and σ² in one vector, and y of the layer that begins there."""
    z, stats = hidden[at : at + size], hidden[at + size : at + size + 2 * m]
    end = at + size + 2 * m
    return z, stats, y.ravel() if is_last else hidden[end : end + size]


@Loop
def run(x, parameters, widths, lines, starts, eps, hidden, y):
    """Fill `hidden`, and the last y, for x (N, n)."""
    samples, layers, end, below = len(x), len(eps), 0, x.copy().ravel()
    for k in range(layers):
        n, m = widths[k], widths[k + 1]
        end += (n + 3) * m
        weight, bias, gamma, beta = _parts(parameters, end, n, m)
        z, stats, above = _values(hidden, starts[k], samples * m, m, y, k == layers - 1)
        rows, terms, product = _tiles(samples, n), np.arange(n), z.reshape((samples, m))
        _multiply(below, rows, terms, weight, True, bias, product)
        places, floor = (lines[k, 0], lines[k, 1], m), x.dtype.type(0)
        _normalize(z, above, gamma, beta, stats, places, eps[k], True, floor)
        below = above


@Loop
def run_grads(g, x, parameters, widths, lines, starts, eps, hidden, y, dx, d_parameters):
    """Fill `d_parameters`; and dx, if it is there: if not, it has no rows."""
    samples, end, last, slope = len(x), len(parameters), len(eps) - 1, g.copy()
    first = x.copy()
    for k in range(last, -1, -1):
        n, m = widths[k], widths[k + 1]
        weight, _, gamma, _ = _parts(parameters, end, n, m)
        d_weight, d_bias, _, _ = _parts(d_parameters, end, n, m)
        sums, end = d_parameters[end - 2 * m : end], end - (n + 3) * m
        z, stats, above = _values(hidden, starts[k], samples * m, m, y, k == last)
        dz, places, flat = (
            np.empty(samples * m, x.dtype),
            (lines[k, 0], lines[k, 1], m),
            slope.ravel(),
        )
        _normalize_grads(
            z, flat, above, dz, gamma, stats[:m], stats[m:], sums, places, eps[k], True
        )
        _column_sums(dz.reshape((samples, m)), d_bias)
        below, nothing = first, np.zeros(max(n, m), x.dtype)
        if k:
            below = hidden[starts[k] - samples * n : starts[k]].reshape((samples, n))
        _multiply(dz, _tiles(m, 1), np.arange(samples) * m, below, False, nothing, d_weight)
        if k or len(dx):
            slope = np.empty((samples, n), x.dtype) if k else dx
            _multiply(dz, _tiles(samples, m), np.arange(m), weight, False, nothing, slope)
