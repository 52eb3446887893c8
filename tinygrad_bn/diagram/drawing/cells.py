"""Numbers and arrays as shapes: up to 16 elements one by one, more as a heat map.

Green is above 0 and violet below; the stronger, the nearer to the largest absolute value. A number
stands in every cell, or the mean and the standard deviation beside the map, and what is not finite
is written out or crossed, so colour is never the only sign.
"""

from collections import defaultdict
from typing import Any

import numpy as np

from .measure import text_width
from .shapes import Block, Label, Rect, Shape, Tiles
from .sketch import plain
from .style import CELL, HEAT_LEVELS, ROW
from .text import LISTED, number, summary

_MOST_NUMBERED, _LONGEST_ROW = 16, LISTED  # cells with numbers, and how many of them in a row
_WORDS_HEIGHT = 14
_CELL_HEIGHT, _CELL_BASELINE = 16, 11.5
_NARROWEST, _CELL_PADDING = 26, 5
_MAP_CELL, _MAP_EDGE = 7, 16  # the size of a cell of a heat map, and cells along its edge
_GAP = 2


def cell_width(value: Any) -> float:
    """The width that the numbered cells of an array need; 0 if it has none."""
    if value is None or not is_numbered(array := np.asarray(value)):
        return 0
    widest = max(text_width(plain(number(v)), CELL) for v in array.ravel().tolist())
    return max(_NARROWEST, widest + 2 * _CELL_PADDING)


def cells(value: Any, role: str, width: float) -> Block:
    """The shapes of a value; `width`: of a numbered cell, `role`: of the words' colour."""
    if value is None:
        return Block(0, 0)
    array = np.asarray(value)
    if array.size <= 1:
        return _words(summary(array), role)
    with np.errstate(all="ignore"):  # sums of huge numbers are inf, and shown as that
        grid = _as_grid(array).astype(np.float64)
        if is_numbered(array):
            return _numbered(grid, width)
        return _heat_map(_pooled(_pooled(grid, 0), 1), _words(summary(array), role))


def is_pooled(value: Any) -> bool:
    """Whether the cells of a value are means of blocks, because it has too many numbers."""
    array = np.asarray(value)
    return array.size > 1 and max(_as_grid(array).shape) > _MAP_EDGE


def is_numbered(array: np.ndarray) -> bool:
    """Whether a number fits in every cell."""
    return 1 < array.size <= _MOST_NUMBERED and _as_grid(array).shape[1] <= _LONGEST_ROW


def _words(text: str, role: str) -> Block:
    label = Label(f"text {role}", 0, ROW, plain(text), ROW)
    return Block(text_width(label.text, ROW), _WORDS_HEIGHT, (label,))


def _as_grid(array: np.ndarray) -> np.ndarray:
    """Two dimensions: one row if there is but one dimension to speak of, as in a batch of one
    feature, (4, 1)."""
    array = array.reshape([n for n in array.shape if n > 1])
    return array.reshape(1 if array.ndim == 1 else array.shape[0], -1)


def _pooled(grid: np.ndarray, axis: int) -> np.ndarray:
    """At most 16 entries along an axis, each the mean of neighbours, as many as of any other or one
    more."""
    length = grid.shape[axis]
    edges = np.linspace(0, length, min(length, _MAP_EDGE) + 1).astype(int)
    counts = np.diff(edges)
    shares = grid / np.expand_dims(np.repeat(counts, counts), 1 - axis)  # their sum is no overflow
    return np.add.reduceat(shares, edges[:-1], axis)


def _levels(grid: np.ndarray) -> list[list[int]]:
    """The intensity of every cell, below 0 for numbers below 0; 0 for what is not finite."""
    finite = np.isfinite(grid)
    largest = np.abs(grid[finite]).max(initial=0) or 1.0
    return np.rint(np.where(finite, grid, 0) / largest * HEAT_LEVELS).astype(int).tolist()


def _look(level: int) -> str:
    return f"cell {'plus' if level > 0 else 'minus'}{abs(level)}" if level else "cell"


def _numbered(grid: np.ndarray, width: float) -> Block:
    shapes: list[Shape] = []
    for i, row in enumerate(_levels(grid)):
        for j, level in enumerate(row):
            x, y, text = j * width, i * _CELL_HEIGHT, plain(number(grid[i, j].item()))
            shapes += [
                Rect(_look(level), x, y, width, _CELL_HEIGHT),
                Label("text ink", x + width / 2, y + _CELL_BASELINE, text, CELL, "middle"),
            ]
    return Block(grid.shape[1] * width, grid.shape[0] * _CELL_HEIGHT, tuple(shapes))


def _heat_map(grid: np.ndarray, words: Block) -> Block:
    """Words above unnumbered cells, which end where they end; the cells of a look are one shape,
    which keeps files small."""
    rows, columns = grid.shape
    top, left = words.height + _GAP, max(0, words.width - columns * _MAP_CELL)
    corners = defaultdict(list)
    for i, row in enumerate(_levels(grid)):
        for j, level in enumerate(row):
            corners[level].append((left + j * _MAP_CELL, top + i * _MAP_CELL))
    tiles = [Tiles(_look(k), _MAP_CELL, _MAP_CELL, tuple(corners[k])) for k in sorted(corners)]
    crosses = [
        Label(
            "text ink",
            left + (j + 0.5) * _MAP_CELL,
            top + (i + 1) * _MAP_CELL - 1,
            plain("×"),
            _MAP_CELL,
            "middle",
        )
        for i, j in np.argwhere(~np.isfinite(grid)).tolist()
    ]
    width, height = left + columns * _MAP_CELL, top + rows * _MAP_CELL
    return Block(width, height, (*words.shapes, *tiles, *crosses))
