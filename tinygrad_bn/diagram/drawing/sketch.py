"""What a view puts on paper, as plain data without positions: boxes, wires between them, frames.

A view (`views/`) makes a Sketch of a recorded graph; `layout.py` finds the positions, `paint.py`
turns both into shapes, `svg.py` and `raster.py` write those, and `dot.py` writes the Sketch for
Graphviz. All text is `Text`: runs of characters, so that nothing is ever read as markup.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# Runs of characters, each on the line (0), below it as a subscript (−1) or above it (+1).
Text = tuple[tuple[str, int], ...]


@dataclass(frozen=True, eq=False)
class Row:
    """A line of a box: what it says, and the numbers it shows.

    `role` is "forward" (a value), "backward" (a finished gradient), "path" (what one path adds to
    it), "zero" (a path that adds nothing), "saved" (kept for backward) or "note". `values` holds an
    array or a number, None if there are only words; several stand in the same place, and the
    stepper shows one of them at a time (a running sum).
    """

    role: str
    label: Text
    values: tuple[Any, ...] = ()


@dataclass(frozen=True, eq=False)
class Column:
    """The rows of one output of a node; `title` is empty if it is the only one."""

    title: Text
    rows: tuple[Row, ...]


@dataclass(frozen=True, eq=False)
class Box:
    """A node of the picture: a heading (symbol, definition, op and shape) above columns of rows.

    `kind` is "leaf", "constant", "op", "fused" or "module". `tooltip` is plain text.
    """

    id: str
    kind: str
    symbol: Text
    definition: Text
    detail: Text
    columns: tuple[Column, ...]
    tooltip: str


@dataclass(frozen=True, eq=False)
class Table:
    """A box that is a table of text; the first row is its head, the first column names rows."""

    id: str
    rows: tuple[tuple[Text, ...], ...]


@dataclass(frozen=True)
class Wire:
    """An arrow from a box, or from one of its columns, to a box.

    `role` is "forward", "backward" (dashed), "saved" (dotted) or "zero" (dashed, grey). A wire that
    is not `ranked` does not decide which of its boxes stands higher.
    """

    id: str
    start: str
    end: str
    role: str = "forward"
    label: Text = ()
    column: int | None = None
    ranked: bool = True


@dataclass(frozen=True)
class Frame:
    """A region with a title around boxes: a module, or the lane of a sample."""

    title: Text
    boxes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Sketch:
    """A picture before it has positions.

    `title` and `description` are for those who cannot see it, `notes` stand below it. `across`: the
    boxes run from left to right, in lanes if there are frames, instead of from top to bottom.
    `level` lists pairs of boxes that stand on the same height.
    """

    title: str
    description: str
    boxes: tuple[Box | Table, ...]
    wires: tuple[Wire, ...]
    frames: tuple[Frame, ...] = ()
    notes: tuple[Text | str, ...] = ()
    across: bool = False
    level: tuple[tuple[str, str], ...] = ()


def plain(characters: str) -> Text:
    """Characters as Text, all on the line."""
    return ((characters, 0),) if characters else ()


def joined(*parts: Text | str) -> Text:
    """Texts and strings, one after the other."""
    return tuple(run for part in parts for run in (plain(part) if isinstance(part, str) else part))


def separated(by: str, texts: Iterable[Text]) -> Text:
    """Texts one after the other, with a string between each two."""
    return joined(*[part for text in texts for part in (by, text)][1:])


def characters(text: Text) -> str:
    """What a Text reads as on one line: subscripts after _, superscripts after ^.

    >>> characters((("μ", 0), ("B", -1), (" + x", 0), ("−3/2", 1)))
    'μ_B + x^{−3/2}'
    """
    signs = {0: "", -1: "_", 1: "^"}
    return "".join(
        f"{signs[level]}{{{run}}}" if level and len(run) > 1 else f"{signs[level]}{run}"
        for run, level in text
    )
