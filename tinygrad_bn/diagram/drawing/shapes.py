"""What a picture is made of once all has its place: rectangles, tiles, curves, labels, …

Coordinates grow to the right and downwards; a unit is a pixel of an SVG and a point of a PDF.
`look` is a key of `style.LOOKS`.
"""

from dataclasses import dataclass

from .sketch import Text

Point = tuple[float, float]
Size = tuple[int, int]  # width and height
Edges = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Rect:
    """A rectangle by its upper left corner."""

    look: str
    x: float
    y: float
    width: float
    height: float
    radius: float = 0


@dataclass(frozen=True)
class Tiles:
    """Many rectangles of one size, by their upper left corners."""

    look: str
    width: float
    height: float
    corners: tuple[Point, ...]


@dataclass(frozen=True)
class Curve:
    """Cubic Bézier curves, one after the other: start, control, control, end, control, …"""

    look: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Polygon:
    """A closed figure with straight sides."""

    look: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Label:
    """A line of text; `x` is its "start", "middle" or "end", as `anchor` says, `y` its baseline."""

    look: str
    x: float
    y: float
    text: Text
    size: float
    anchor: str = "start"
    bold: bool = False


@dataclass(frozen=True)
class Group:
    """Shapes that belong together, moved by (x, y).

    `title` is shown where the pointer rests. Groups that stand in the same place are numbered by
    `state`, and all but one of them are hidden.
    """

    shapes: tuple["Shape", ...]
    kind: str
    id: str = ""
    title: str = ""
    x: float = 0
    y: float = 0
    state: int | None = None
    hidden: bool = False


Shape = Rect | Tiles | Curve | Polygon | Label | Group


@dataclass(frozen=True)
class Block:
    """Shapes in a rectangle of a known size, whose upper left corner is the origin."""

    width: float
    height: float
    shapes: tuple[Shape, ...] = ()


@dataclass(frozen=True)
class Picture:
    """All of a picture, with what it is called and says for those who cannot see it."""

    title: str
    description: str
    width: float
    height: float
    shapes: tuple[Shape, ...]
