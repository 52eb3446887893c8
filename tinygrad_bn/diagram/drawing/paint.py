"""A Sketch as a Picture: every box, wire, frame, table and note in its place."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, hypot
from textwrap import wrap

from .boxes import card
from .cells import is_pooled
from .layout import Places, Sizes, places
from .measure import text_width
from .routes import Route, around
from .shapes import Block, Curve, Edges, Group, Label, Picture, Point, Polygon, Rect, Shape, Size
from .sketch import Box, Sketch, Table, Text, Wire, characters, plain
from .style import SMALL, WIRE_TEXT

_MARGIN, _GAP = 12, 14  # around the picture, and between the graph, tables and notes
_LINE_HEIGHT, _NOTE_HEIGHT = 15, 16
_TEXT_PADDING = 4
_ARROW_HALF_WIDTH = 3.2
_POOLED = "Maps of arrays with more than 16 numbers along an edge show the means of blocks."
_LONGEST_NOTE = 72  # characters of a line of the notes; below a wide picture it may be longer


def paint(sketch: Sketch) -> Picture:
    """The sketch as shapes: the graph, below it the tables that stand alone, then the notes.

    RuntimeError where the layout has one.
    """
    joined = {end for wire in sketch.wires for end in (wire.start, wire.end)}
    joined |= {box for frame in sketch.frames for box in frame.boxes}
    apart = {box.id for box in sketch.boxes if isinstance(box, Table) and box.id not in joined}
    graph = tuple(box for box in sketch.boxes if box.id not in apart)
    frames = tuple(frame for frame in sketch.frames if frame.boxes)
    parts = [_graph(replace(sketch, boxes=graph, frames=frames))] if graph else []
    for box in sketch.boxes:
        if box.id in apart:
            block = card(box)
            parts.append(Block(block.width, block.height, (_box(box, block, 0, 0),)))
    width = max((part.width for part in parts), default=0)
    notes = (*sketch.notes, *([_POOLED] if any(map(_has_means, graph)) else []))
    if notes:
        parts.append(_notes(notes, width))
        width = max(width, parts[-1].width)
    shapes: list[Shape] = []
    y = _MARGIN
    for part in parts:
        x = _MARGIN + (width - part.width) / 2
        shapes.append(Group(part.shapes, "part", x=x, y=y))
        y += part.height + _GAP
    width, height = ceil(width + 2 * _MARGIN), ceil(y - _GAP + _MARGIN)
    paper = Rect("paper", 0, 0, width, height)
    return Picture(sketch.title, sketch.description, width, height, (paper, *shapes))


def _graph(sketch: Sketch) -> Block:
    """Boxes, wires and frames where the layout puts them."""
    cards = [card(box) for box in sketch.boxes]
    sizes = Sizes(
        tuple((block.width, block.height) for block in cards),
        tuple(block.columns for block in cards),
        tuple(_room(wire.label) for wire in sketch.wires),
        tuple(_room(frame.title) for frame in sketch.frames),
    )
    found = places(sketch, sizes)
    left, top, right, bottom = _bounds(found, sizes)
    # Frames within others are drawn after them, to be seen.
    frames = sorted(zip(sketch.frames, found.frames), key=lambda pair: -len(pair[0].boxes))
    shapes: list[Shape] = [
        Rect("frame", x0, y0, x1 - x0, y1 - y0, 6) for _, (x0, y0, x1, y1) in frames
    ]
    names = {box.id: _name(box) for box in sketch.boxes}
    # Those with labels last, so that no other wire crosses a label.
    for wire, route in sorted(zip(sketch.wires, found.wires), key=lambda pair: len(pair[0].label)):
        title = f"{names[wire.start]} → {names[wire.end]}"
        shapes.append(_wire(wire, route, title, found.frames))
    shapes += [
        _box(box, block, x, y) for box, block, (x, y, _, _) in zip(sketch.boxes, cards, found.boxes)
    ]
    for frame, middle in zip(sketch.frames, found.titles):
        if frame.title:
            title = _on_patch("halo framed", "text muted", frame.title, middle)
            shapes.append(Group(title, "frame-title"))
    moved = Group(tuple(shapes), "graph", x=-left, y=-top)
    return Block(right - left, bottom - top, (moved,))


def _room(text: Text) -> Size | None:
    """What a line of text needs, with a little space around it; None for no text."""
    return (ceil(text_width(text, SMALL)) + 2 * _TEXT_PADDING, _LINE_HEIGHT) if text else None


def _bounds(found: Places, sizes: Sizes) -> Edges:
    """Left, top, right and bottom of all that is drawn; a curve stays among its control points."""
    rects = [*found.boxes, *found.frames]
    rects += [around(route.label, size) for route, size in zip(found.wires, sizes.labels) if size]
    corners = [corner for x0, y0, x1, y1 in rects for corner in ((x0, y0), (x1, y1))]
    corners += [point for route in found.wires for point in (*route.points, route.tip)]
    xs, ys = zip(*corners)
    return min(xs), min(ys), max(xs), max(ys)


def _on_patch(patch: str, look: str, text: Text, middle: Point) -> tuple[Shape, ...]:
    """A line of text, on a patch that covers what it stands on."""
    (x, y), width = middle, text_width(text, SMALL)
    return (
        Rect(patch, x - width / 2, y - _LINE_HEIGHT / 2, width, _LINE_HEIGHT),
        Label(look, x - width / 2, y + 0.36 * SMALL, text, SMALL),
    )


def _wire(wire: Wire, route: Route, title: str, frames: Sequence[Edges]) -> Group:
    shapes: list[Shape] = [
        Curve(f"line {wire.role}", route.points),
        Polygon(f"arrow {wire.role}", _arrow(route)),
    ]
    if wire.label:
        x, y = route.label
        framed = any(x0 < x < x1 and y0 < y < y1 for x0, y0, x1, y1 in frames)
        look = f"text {WIRE_TEXT[wire.role]}"
        shapes += _on_patch("halo framed" if framed else "halo", look, wire.label, route.label)
    return Group(tuple(shapes), f"wire {wire.role}", wire.id, title)


def _arrow(route: Route) -> tuple[Point, Point, Point]:
    """The head of an arrow: from the end of the curve to the tip."""
    (x, y), (tip_x, tip_y) = route.points[-1], route.tip
    length = hypot(tip_x - x, tip_y - y) or 1.0
    across = (_ARROW_HALF_WIDTH * (y - tip_y) / length, _ARROW_HALF_WIDTH * (tip_x - x) / length)
    return (
        (tip_x, tip_y),
        (x + across[0], y + across[1]),
        (x - across[0], y - across[1]),
    )


def _box(box: Box | Table, block: Block, x: float, y: float) -> Group:
    kind, tooltip = ("table", "") if isinstance(box, Table) else (box.kind, box.tooltip)
    return Group(block.shapes, f"box {kind}", box.id, tooltip, x, y)


def _name(box: Box | Table) -> str:
    """What a box is called in words."""
    if isinstance(box, Table):
        return "table"
    return characters(box.symbol) or characters(box.detail) or box.kind


def _has_means(box: Box | Table) -> bool:
    columns = box.columns if isinstance(box, Box) else ()
    return any(is_pooled(value) for c in columns for row in c.rows for value in row.values)


def _notes(notes: Sequence[Text | str], width: float) -> Block:
    """Sentences in lines that are hardly wider than the picture."""
    longest = max(_LONGEST_NOTE, int(width / (SMALL / 2)))
    lines: list[Text] = []
    for note in notes:  # a formula is one line
        lines += map(plain, wrap(note, longest)) if isinstance(note, str) else [note]
    shapes = tuple(
        Label("text muted", 0, _NOTE_HEIGHT * (k + 0.75), line, SMALL)
        for k, line in enumerate(lines)
    )
    widest = max((text_width(line, SMALL) for line in lines), default=0)
    return Block(widest, _NOTE_HEIGHT * len(lines), shapes)
