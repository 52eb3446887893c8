"""A Picture as SVG text."""

from collections.abc import Iterable
from functools import lru_cache
from html import escape

from .measure import SHIFT, SHIFTED_SIZE, text_width
from .shapes import Curve, Group, Label, Picture, Point, Polygon, Rect, Shape, Tiles
from .text import printable


def svg_text(picture: Picture, css: str = "", prefix: str = "") -> str:
    """An SVG element, with its style sheet if one is given; else the page around it has that.

    `prefix` stands before every id, so that several pictures can be in one page.
    """
    width, height = _number(picture.width), _number(picture.height)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="diagram" role="img" xml:space="preserve" '
        f'width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f"<title>{_escaped(picture.title)}</title><desc>{_escaped(picture.description)}</desc>"
        f"{f'<style>{css}</style>' if css else ''}"
        f"{''.join(_element(shape, prefix) for shape in picture.shapes)}</svg>\n"
    )


def _element(shape: Shape, prefix: str) -> str:
    match shape:
        case Group():
            return _group(shape, prefix)
        case Label():
            return _label(shape)
        case Rect():
            rounding = f' rx="{_number(shape.radius)}"' if shape.radius else ""
            return f'<rect class="{shape.look}" {_area(shape)}{rounding}/>'
        case Tiles():
            step = f"h{_number(shape.width)}v{_number(shape.height)}h{_number(-shape.width)}z"
            return _path(shape.look, "".join(f"M{_points([c])}{step}" for c in shape.corners))
        case Curve():
            start, *rest = shape.points
            return _path(shape.look, f"M{_points([start])}C{_points(rest)}")
        case Polygon():
            return _path(shape.look, f"M{_points(shape.points)}z")


def _group(group: Group, prefix: str) -> str:
    attributes = f' id="{_escaped(prefix + group.id)}"' if group.id else ""
    attributes += f' class="{_escaped(group.kind)}"'
    if group.state is not None:
        attributes += f' data-state="{group.state}"'
    if group.hidden:
        attributes += ' visibility="hidden"'
    if group.x or group.y:
        attributes += f' transform="translate({_points([(group.x, group.y)])})"'
    title = f"<title>{_escaped(group.title)}</title>" if group.title else ""
    inside = "".join(_element(shape, prefix) for shape in group.shapes)
    return f"<g{attributes}>{title}{inside}</g>"


def _label(label: Label) -> str:
    """Text as wide as it was measured, whatever the font; shifted runs are moved by `dy`, which all
    programs know, and the next run back."""
    runs, at = "", 0.0
    for run, level in label.text:
        run = _escaped(run)
        if not run:
            continue
        move = SHIFT[level] * label.size - at
        at += move
        size = f' font-size="{_number(label.size * SHIFTED_SIZE)}"' if level else ""
        shift = f' dy="{_number(move)}"' if move else ""
        runs += f"<tspan{shift}{size}>{run}</tspan>" if size or shift else run
    width = text_width(label.text, label.size, label.bold)
    if not width:
        return ""
    anchor = f' text-anchor="{label.anchor}"' if label.anchor != "start" else ""
    weight = ' font-weight="700"' if label.bold else ""
    return (
        f'<text class="{label.look}" x="{_number(label.x)}" y="{_number(label.y)}" '
        f'font-size="{_number(label.size)}"{anchor}{weight} textLength="{_number(width)}" '
        f'lengthAdjust="spacingAndGlyphs">{runs}</text>'
    )


def _area(rect: Rect) -> str:
    sides = (("x", rect.x), ("y", rect.y), ("width", rect.width), ("height", rect.height))
    return " ".join(f'{side}="{_number(value)}"' for side, value in sides)


def _path(look: str, data: str) -> str:
    return f'<path class="{look}" d="{data}"/>'


def _points(points: Iterable[Point]) -> str:
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in points)


@lru_cache(10_000)  # most of the numbers and texts of a picture stand in it many times
def _number(value: float) -> str:
    """Two decimals at most, and no −0."""
    text = f"{value:.2f}".rstrip("0").removesuffix(".")
    return "0" if text == "-0" else text


@lru_cache(10_000)
def _escaped(text: str) -> str:
    return escape(printable(text))
