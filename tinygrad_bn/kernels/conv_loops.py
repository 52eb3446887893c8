"""Convolution as a matrix product whose left matrix is nowhere formed.

The matrix of im2col has a row for each window and a column for each term of its sum, and its
element (row, term) stands in the padded image at rows[row] + terms[term]. That holds for every
stride, dilation and number of axes; and transposed, for the gradient at the weight.

An image is an array of runs, with the channels last: what lies side by side in its padded copy.
The right matrix is cut into panels, as wide as a vector and filled up with zeros.
"""

import numpy as np
from numba import prange

from .compiled import Loop, inner
from .vectors import BYTES, WIDEST, load, plus_multiple, store, zeros

HEIGHT = 8  # rows of the product that are summed at once, in as many registers
_DEPTH = 256  # terms after which the sums are written down: a panel of them stays in the L1 cache
ROWS = 1024  # windows that a task takes


def _product(size):
    """The product, for panels whose rows are vectors of so many bytes."""

    def add_product(image, rows, terms, right, out):
        """out[i] += Σₜ image[rows[i] + terms[t]] · right[t]."""
        lanes, like = right.shape[1], zeros(right, size)
        for start in range(0, len(terms), _DEPTH):
            stop = min(start + _DEPTH, len(terms))
            for i in range(0, len(rows), HEIGHT):
                r0, r1, r2, r3 = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
                r4, r5, r6, r7 = rows[i + 4], rows[i + 5], rows[i + 6], rows[i + 7]
                at = i * lanes
                s0, s1 = load(out, at, like), load(out, at + lanes, like)
                s2, s3 = load(out, at + 2 * lanes, like), load(out, at + 3 * lanes, like)
                s4, s5 = load(out, at + 4 * lanes, like), load(out, at + 5 * lanes, like)
                s6, s7 = load(out, at + 6 * lanes, like), load(out, at + 7 * lanes, like)
                for t in range(start, stop):
                    term, vector = terms[t], load(right, t * lanes, like)
                    s0 = plus_multiple(s0, image, r0 + term, vector)
                    s1 = plus_multiple(s1, image, r1 + term, vector)
                    s2 = plus_multiple(s2, image, r2 + term, vector)
                    s3 = plus_multiple(s3, image, r3 + term, vector)
                    s4 = plus_multiple(s4, image, r4 + term, vector)
                    s5 = plus_multiple(s5, image, r5 + term, vector)
                    s6 = plus_multiple(s6, image, r6 + term, vector)
                    s7 = plus_multiple(s7, image, r7 + term, vector)
                store(out, at, s0)
                store(out, at + lanes, s1)
                store(out, at + 2 * lanes, s2)
                store(out, at + 3 * lanes, s3)
                store(out, at + 4 * lanes, s4)
                store(out, at + 5 * lanes, s5)
                store(out, at + 6 * lanes, s6)
                store(out, at + 7 * lanes, s7)

    return inner(add_product)


_add_product, _add_wide_product = _product(BYTES), _product(WIDEST)


@inner
def _fill(images, size, starts, padded):
    """Put the runs of images where they belong in their padded copies."""
    length = images[0].size // len(starts)
    runs = images.reshape(-1, length)
    for k in range(len(runs)):
        at = k // len(starts) * size + starts[k % len(starts)]
        to, run = padded[at : at + length], runs[k]
        for i in range(length):
            to[i] = run[i]


@inner
def _pack(matrix, first, width, panel):
    """So many columns of a matrix, from `first` on, as a panel."""
    columns, lanes, like = matrix.shape[1], panel.shape[1], zeros(panel, BYTES)
    some = BYTES // panel.itemsize
    whole = width // some * some
    for i in range(len(matrix)):
        for j in range(0, whole, some):
            store(panel, i * lanes + j, load(matrix, i * columns + first + j, like))
        for j in range(whole, width):
            panel[i, j] = matrix[i, first + j]


@inner
def _unpack(panel, places, first, width, matrix):
    """The other way, into these rows of a matrix."""
    columns, lanes, like = matrix.shape[1], panel.shape[1], zeros(panel, BYTES)
    some = BYTES // panel.itemsize
    whole = width // some * some
    for i in range(len(places)):
        for j in range(0, whole, some):
            at = places[i] * columns + first + j
            store(matrix, at, load(panel, i * lanes + j, like))
        for j in range(whole, width):
            matrix[places[i], first + j] = panel[i, j]


@inner
def _repeat(row, count, panel):
    """A panel of so many equal rows."""
    like, some = zeros(panel, BYTES), BYTES // panel.itemsize
    for i in range(count):
        for j in range(0, len(row), some):
            store(panel, i * len(row) + j, load(row, j, like))


@inner
def _add(total, terms):
    for i in range(len(terms)):
        for j in range(terms.shape[1]):
            total[i, j] += terms[i, j]


@Loop
def correlate(images, bunch, size, starts, step, rows, terms, weights, bias, places, out, parts):
    """out[n, places[i]] = bias + the terms of the window of image n at rows[i] · weights.

    images (N, places, channels), whose runs begin at `starts` in a padded copy of this `size`, and
    whose groups of channels are there this `step` apart. `bunch`: so many are padded side by side,
    and the rows and places are those of them all. weights (groups, panels, terms, lanes), bias
    (groups, panels, lanes), out (N, places, channels). `parts`: of the work.
    """
    groups, panels, _, lanes = weights.shape
    channels, windows = out.shape[2] // groups, len(places) // bunch
    blocks = -(-len(places) // ROWS)
    tasks, wide = -(-len(images) // bunch) * blocks, lanes * images.itemsize > BYTES
    for part in prange(parts):
        padded, filled = np.zeros(bunch * size, images.dtype), -1
        panel = np.empty((ROWS, lanes), images.dtype)
        for task in range(part * tasks // parts, (part + 1) * tasks // parts):
            n, first = task // blocks * bunch, task % blocks * ROWS
            if n != filled:
                _fill(images[n : n + bunch], size, starts, padded)
                filled = n
            last = min(first + ROWS, windows * min(bunch, len(images) - n))
            block, to = rows[first : first + ROWS], places[first:last]
            for group in range(groups):
                for p in range(panels):
                    at, width = group * channels + p * lanes, min(lanes, channels - p * lanes)
                    _repeat(bias[group, p], len(block), panel)
                    image, right = padded[group * step :], weights[group, p]
                    if wide:
                        _add_wide_product(image, block, terms, right, panel)
                    else:
                        _add_product(image, block, terms, right, panel)
                    _unpack(panel, to, at, width, out[n:].reshape(-1, out.shape[2]))


@Loop
def correlate_weights(images, bunch, size, starts, step, rows, terms, g, out):
    """out[part] = Σ over its images of the windows' columns · g: the gradient at the weights.

    Of the product of `correlate` the left matrix, transposed: so `rows` and `terms` have changed
    places. g (N, terms, channels); out (parts, groups, panels, rows, lanes) is float64.
    """
    parts, groups, panels, _, lanes = out.shape
    channels, windows = g.shape[2] // groups, g.shape[1]
    blocks = -(-len(terms) // ROWS)
    tasks, wide = -(-len(images) // bunch) * blocks, lanes * images.itemsize > BYTES
    for part in prange(parts):
        padded, filled = np.zeros(bunch * size, images.dtype), -1
        panel = np.zeros((ROWS, lanes), images.dtype)
        sums = np.empty((len(rows), lanes), images.dtype)
        for task in range(part * tasks // parts, (part + 1) * tasks // parts):
            n, first = task // blocks * bunch, task % blocks * ROWS
            if n != filled:
                _fill(images[n : n + bunch], size, starts, padded)
                filled = n
            last = min(first + ROWS, windows * min(bunch, len(images) - n))
            lines = g[n:].reshape(-1, g.shape[2])[first:last]
            for group in range(groups):
                for p in range(panels):
                    at, width = group * channels + p * lanes, min(lanes, channels - p * lanes)
                    _pack(lines, at, width, panel)
                    sums[:] = 0
                    image, block = padded[group * step :], terms[first:last]
                    if wide:
                        _add_wide_product(image, rows, block, panel, sums)
                    else:
                        _add_product(image, rows, block, panel, sums)
                    _add(out[part, group, p], sums)
