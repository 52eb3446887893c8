"""Convolution as a matrix product whose left matrix is nowhere formed.

The matrix of im2col has a row for each window and a column for each term of its sum, and its
element (row, term) stands in the padded image at rows[row] + terms[term]. That holds for every
stride, dilation and number of axes; and transposed, for the gradient at the weight.

An image is an array of runs, with the channels last: what lies side by side in its padded copy.
`products.py` has the product, and its panels.
"""

import numpy as np
from numba import prange

from .compiled import Loop, inner
from .products import add_product, pack, panel_width, repeat, unpack, whole_tiles

__all__ = ["ROWS", "correlate", "correlate_weights", "panel_width", "whole_tiles"]

ROWS = 1024  # windows that a task takes


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
    tasks = -(-len(images) // bunch) * blocks
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
                    repeat(bias[group, p], len(block), panel)
                    image, right = padded[group * step :], weights[group, p]
                    add_product(image, block, terms, right, panel)
                    unpack(panel, to, at, width, out[n:].reshape(-1, out.shape[2]))


@Loop
def correlate_weights(images, bunch, size, starts, step, rows, terms, g, out):
    """out[part] = Σ over its images of the windows' columns · g: the gradient at the weights.

    Of the product of `correlate` the left matrix, transposed: so `rows` and `terms` have changed
    places. g (N, terms, channels); out (parts, groups, panels, rows, lanes) is float64.
    """
    parts, groups, panels, _, lanes = out.shape
    channels, windows = g.shape[2] // groups, g.shape[1]
    blocks = -(-len(terms) // ROWS)
    tasks = -(-len(images) // bunch) * blocks
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
                    pack(lines, at, width, panel)
                    sums[:] = 0
                    image, block = padded[group * step :], terms[first:last]
                    add_product(image, rows, block, panel, sums)
                    _add(out[part, group, p], sums)
