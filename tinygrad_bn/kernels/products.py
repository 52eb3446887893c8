"""A matrix product that keeps its sums in registers, for loops: eight rows by a panel of columns.

The left matrix is nowhere formed: its element (row, term) stands in an array, the *image*, at
rows[row] + terms[term]. So it may be the windows of an image, or a matrix, or a matrix transposed.
The right matrix is cut into panels, as wide as a vector and filled up with zeros.
"""

import numpy as np

from .compiled import inner
from .vectors import BYTES, WIDEST, load, plus_multiple, store, zeros

HEIGHT = 8  # rows of the product that are summed at once, in as many registers
_DEPTH = 256  # terms after which the sums are written down: a panel of them stays in the L1 cache


def _product(size):
    """The product, for panels whose rows are vectors of so many bytes."""

    def add_product(image, rows, terms, right, out):
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


_narrow, _wide = _product(BYTES), _product(WIDEST)


@inner
def add_product(image, rows, terms, right, out):
    """out[i] += Σₜ image[rows[i] + terms[t]] · right[t], for panels of `panel_width`.

    There are rows for whole tiles of HEIGHT; where the further ones are does not matter."""
    if right.shape[1] * right.itemsize > BYTES:
        _wide(image, rows, terms, right, out)
    else:
        _narrow(image, rows, terms, right, out)


def panel_width(columns, itemsize):
    """How many columns of a matrix a panel has."""
    narrow = BYTES // itemsize
    return narrow if columns <= narrow else WIDEST // itemsize


def whole_tiles(places):
    """As many as fill the last tile."""
    return np.resize(places, len(places) + -len(places) % HEIGHT)


@inner
def pack(matrix, first, width, panel):
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
def pack_transposed(matrix, first, width, panel):
    """The same of the matrix transposed."""
    for j in range(width):
        for i in range(len(panel)):
            panel[i, j] = matrix[first + j, i]


@inner
def unpack(panel, places, first, width, matrix):
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
def repeat(row, count, panel):
    """A panel of so many equal rows."""
    like, some = zeros(panel, BYTES), BYTES // panel.itemsize
    for i in range(count):
        for j in range(0, len(row), some):
            store(panel, i * len(row) + j, load(row, j, like))
