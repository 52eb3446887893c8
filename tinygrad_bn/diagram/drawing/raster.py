"""A Picture as PNG or PDF, by matplotlib: the shapes of the SVG, text as outlines of DejaVu Sans.

This file alone imports matplotlib; `save` imports it where a PNG or a PDF is asked for.
"""

import io
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ft2font import FT2Font
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.textpath import TextToPath
from matplotlib.transforms import Affine2D

from .measure import SHIFT, SHIFTED_SIZE, text_width
from .shapes import Curve, Group, Label, Picture, Polygon, Rect, Shape, Tiles
from .style import LOOKS, Look, Palette
from .text import printable

_DPI, _UNITS_PER_INCH = 144, 72  # two pixels of a PNG to a unit of the picture
_MOST_PIXELS = 50_000_000  # which are 200 MB in memory
_MISSING = "\N{REPLACEMENT CHARACTER}"  # for a character that the font does not have
_METADATA = {  # no dates and no versions, so that the same picture is the same bytes
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


def raster(picture: Picture, palette: Palette, file_format: str) -> bytes:
    """The picture as "png" or "pdf"; ValueError for a PNG of more than 50 million pixels."""
    pixels = picture.width * picture.height * (_DPI / _UNITS_PER_INCH) ** 2
    if file_format == "png" and pixels > _MOST_PIXELS:
        raise ValueError(
            f"a .png has up to {_MOST_PIXELS:,} pixels and this picture needs {pixels:,.0f}; save "
            "it as .svg or .pdf"
        )
    # Nothing of the user's own style, and dashes in the unit of the picture.
    with style.context(["default", {"lines.scale_dashes": False}]):
        figure = Figure((picture.width / _UNITS_PER_INCH, picture.height / _UNITS_PER_INCH))
        upright = Affine2D().scale(1, -1).translate(0, picture.height)
        to_paper = upright.scale(1 / _UNITS_PER_INCH) + figure.dpi_scale_trans
        for name, path in _paths(picture.shapes, 0, 0):
            patch = PathPatch(path, transform=to_paper, **_paint(LOOKS[name], palette))
            figure.add_artist(patch)
        file = io.BytesIO()
        figure.savefig(file, format=file_format, dpi=_DPI, metadata=_METADATA[file_format])
    return file.getvalue()


def _paint(look: Look, palette: Palette) -> dict:
    return {
        "facecolor": palette[look.fill] if look.fill else "none",
        "edgecolor": palette[look.stroke] if look.stroke else "none",
        "linewidth": look.width if look.stroke else 0,
        "linestyle": (0, look.dashes) if look.dashes else "-",
        "alpha": look.opacity,
    }


def _paths(shapes: Iterable[Shape], x: float, y: float) -> Iterator[tuple[str, Path]]:
    """The outlines of what is visible of the shapes, moved by (x, y), each with its look."""
    for shape in shapes:
        if isinstance(shape, Group):
            if not shape.hidden:
                yield from _paths(shape.shapes, x + shape.x, y + shape.y)
        else:
            for path in _letters(shape) if isinstance(shape, Label) else [_outline(shape)]:
                if len(path):
                    yield shape.look, path.transformed(Affine2D().translate(x, y))


def _outline(shape: Rect | Tiles | Curve | Polygon) -> Path:
    match shape:
        case Curve(points=points):
            return Path(points, [Path.MOVETO] + [Path.CURVE4] * (len(points) - 1))
        case Polygon(points=points):
            return Path([*points, points[0]], closed=True)
        case Tiles(corners=corners, width=width, height=height):
            unit = Path.unit_rectangle()
            points = np.array(corners)[:, np.newaxis] + unit.vertices * (width, height)
            return Path(points.reshape(-1, 2), np.tile(unit.codes, len(corners)))
    return _rectangle(shape)


def _rectangle(rect: Rect) -> Path:
    """A rectangle; its round corners are parabolas, which at their size look like circles."""
    if not rect.radius:
        unit = Path.unit_rectangle()
        return unit.transformed(Affine2D().scale(rect.width, rect.height).translate(rect.x, rect.y))
    x0, y0, r = rect.x, rect.y, rect.radius
    x1, y1 = x0 + rect.width, y0 + rect.height
    points = [(x0 + r, y0)]
    points += [(x1 - r, y0), (x1, y0), (x1, y0 + r)]
    points += [(x1, y1 - r), (x1, y1), (x1 - r, y1)]
    points += [(x0 + r, y1), (x0, y1), (x0, y1 - r)]
    points += [(x0, y0 + r), (x0, y0), (x0 + r, y0)]
    side = [Path.LINETO, Path.CURVE3, Path.CURVE3]
    return Path([*points, points[0]], [Path.MOVETO, *side * 4, Path.CLOSEPOLY])


def _letters(label: Label) -> Iterator[Path]:
    """The outlines of the runs of a text, each as wide as it was measured."""
    width = text_width(label.text, label.size, label.bold)
    x = label.x - {"start": 0, "middle": width / 2, "end": width}[label.anchor]
    for run, level in label.text:
        size = label.size * (SHIFTED_SIZE if level else 1)
        measured = text_width(((run, 0),), size, label.bold)
        path, advance = _run(printable(run), label.bold)
        if advance and measured:
            stretched = Affine2D().scale(measured / advance, -size / TextToPath.FONT_SCALE)
            y = label.y + SHIFT[level] * label.size
            yield path.transformed(stretched.translate(x, y))
        x += measured


@cache
def _run(characters: str, bold: bool) -> tuple[Path, float]:
    """The outline of characters that stand on the origin, and how far they go to the right."""
    properties = FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    font = get_font(findfont(properties))
    known = "".join([_known(character, font) for character in characters])
    vertices, codes = TextToPath().get_text_path(properties, known)
    font.set_size(TextToPath.FONT_SCALE, TextToPath.DPI)
    advance = sum(font.load_char(ord(c)).linearHoriAdvance for c in known) / 65536
    # A mark with no letter to stand on is given a circle, which has no part in the advance.
    right = max((x for x, _ in vertices), default=0)
    return Path(vertices, codes), max(advance, right)


def _known(character: str, font: FT2Font) -> str:
    """The character, else the letter that it is a form of (𝓛 → L), else the sign for neither."""
    forms = (character, unicodedata.normalize("NFKD", character)[0])
    return next((form for form in forms if font.get_char_index(ord(form))), _MISSING)
