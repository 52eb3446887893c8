"""Colours, fonts and sizes of pictures, as data, and as CSS.

A colour has a role, and a light and a dark value. A look says which roles fill and stroke a shape;
shapes of an SVG carry the look as their class, so that a style sheet can give them either colour.
"""

from dataclasses import dataclass

FONTS = 'Helvetica, Arial, "Liberation Sans", "DejaVu Sans", sans-serif'
# Sizes of text: SMALL is that at wires, of titles of frames, and of notes.
HEADING, DEFINITION, DETAIL, ROW, CELL, SMALL = 13, 12, 10, 11, 10, 11
THEMES = ("auto", "light", "dark")
HEAT_LEVELS = 8  # intensities of either sign

Palette = dict[str, str]


def _heat(palette: Palette, minus: str, plus: str, strongest: float) -> Palette:
    """The colours of heat cells: from the box's colour towards that of the sign."""
    return palette | {
        f"{sign}{level}": _mixed(palette["box"], colour, strongest * level / HEAT_LEVELS)
        for sign, colour in (("minus", minus), ("plus", plus))
        for level in range(1, HEAT_LEVELS + 1)
    }


def _mixed(first: str, second: str, part: float) -> str:
    """The colour that lies `part` of the way from the first to the second."""
    pairs = [(int(first[i : i + 2], 16), int(second[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + (b - a) * part):02X}" for a, b in pairs)


LIGHT = _heat(
    {
        "background": "#FFFFFF",
        "box": "#FFFFFF",
        "fused": "#FBF3D0",
        "module": "#F1F4F8",
        "frame": "#F6F8FA",
        "frame line": "#C8CFD6",
        "line": "#6B7580",
        "cell line": "#AEB6BF",
        "ink": "#1B1F24",
        "muted": "#57606A",
        "forward": "#005A9C",
        "forward row": "#DCEBF7",
        "backward": "#B03A00",
        "backward row": "#FCE5D8",
        "path row": "#FFF7F2",
        "saved": "#6B4E00",
        "saved row": "#FAF3DA",
        "zero": "#636C76",
    },
    minus="#762A83",
    plus="#1B7837",
    strongest=0.6,
)
DARK = _heat(
    {
        "background": "#0D1117",
        "box": "#161B22",
        "fused": "#2B2511",
        "module": "#1B222C",
        "frame": "#10151C",
        "frame line": "#30363D",
        "line": "#768390",
        "cell line": "#4A545F",
        "ink": "#E6EDF3",
        "muted": "#9AA4AF",
        "forward": "#6CB6FF",
        "forward row": "#12283D",
        "backward": "#FF9B6A",
        "backward row": "#3A1C0E",
        "path row": "#241812",
        "saved": "#E3B341",
        "saved row": "#2A2310",
        "zero": "#8B949E",
    },
    minus="#BE78CD",
    plus="#5ABE78",
    strongest=0.5,
)
PALETTES = {"auto": LIGHT, "light": LIGHT, "dark": DARK}


@dataclass(frozen=True)
class Look:
    """The roles of the colours that fill and stroke a shape, the width of the line, its dashes."""

    fill: str | None = None
    stroke: str | None = None
    width: float = 1
    dashes: tuple[float, ...] = ()
    opacity: float = 1


LOOKS = {
    "paper": Look("background"),
    "frame": Look("frame", "frame line"),
    "outline leaf": Look("box", "ink", 2),
    "outline constant": Look("box", "muted", 1, (4, 3)),
    "outline op": Look("box", "line"),
    "outline fused": Look("fused", "saved", 1.5),
    "outline module": Look("module", "line", 1.5),
    "outline table": Look("box", "frame line"),
    "rule": Look("frame line"),
    "halo": Look("background", opacity=0.85),
    "halo framed": Look("frame", opacity=0.85),
    "band forward": Look("forward row"),
    "band backward": Look("backward row"),
    "band path": Look("path row"),
    "band zero": Look("path row"),
    "band saved": Look("saved row"),
    "cell": Look("box", "cell line", 0.6),
    "line forward": Look(None, "forward", 1.4),
    "line backward": Look(None, "backward", 1.4, (5, 3)),
    "line saved": Look(None, "saved", 1.4, (1.4, 3)),
    "line zero": Look(None, "zero", 1.2, (4, 3)),
}
LOOKS |= {
    f"cell {sign}{level}": Look(f"{sign}{level}", "cell line", 0.6)
    for sign in ("minus", "plus")
    for level in range(1, HEAT_LEVELS + 1)
}
LOOKS |= {f"arrow {role}": Look(role) for role in ("forward", "backward", "saved", "zero")}
LOOKS |= {
    f"text {role}": Look(role) for role in ("ink", "muted", "forward", "backward", "saved", "zero")
}

# The colour of what the rows of a box say, and of what stands at the wires, by their roles.
ROW_TEXT = {
    "forward": "forward",
    "backward": "backward",
    "path": "backward",
    "zero": "zero",
    "saved": "saved",
    "note": "muted",
}
# At a forward wire stands the derivative along it, of which the backward pass is made.
WIRE_TEXT = {"forward": "backward", "backward": "backward", "saved": "saved", "zero": "zero"}


def picture_css(theme: str) -> str:
    """The style sheet of an SVG file: of one theme, or "auto" as the reader's system has it."""
    css = _lines() + _colours(PALETTES[theme], "")
    if theme == "auto":
        css += f"@media (prefers-color-scheme:dark){{{_colours(DARK, '')}}}"
    return css


def page_css() -> str:
    """The style sheet of the pictures of a page, which `data-theme` on <html> makes light or dark.

    Without that the page is as the reader's system has it.
    """
    by_system = _colours(DARK, ":root:not([data-theme=light]) ")
    return (
        _lines()
        + _colours(LIGHT, "")
        + f"@media (prefers-color-scheme:dark){{{by_system}}}"
        + _colours(DARK, ":root[data-theme=dark] ")
    )


def _selector(look: str) -> str:
    return ".diagram ." + look.replace(" ", ".")


def _colours(palette: Palette, prefix: str) -> str:
    return "".join(
        f"{prefix}{_selector(name)}{{{_paint(look, palette)}}}" for name, look in LOOKS.items()
    )


def _paint(look: Look, palette: Palette) -> str:
    parts = (("fill", look.fill), ("stroke", look.stroke))
    return ";".join(f"{part}:{palette[role] if role else 'none'}" for part, role in parts)


def _lines() -> str:
    """What is the same in both themes."""
    rules = f".diagram text{{font-family:{FONTS}}}"
    for name, look in LOOKS.items():
        facts = [f"stroke-width:{look.width:g}"] if look.stroke else []
        facts += [f"stroke-dasharray:{' '.join(f'{dash:g}' for dash in look.dashes)}"] * bool(
            look.dashes
        )
        facts += [f"opacity:{look.opacity:g}"] * (look.opacity < 1)
        rules += f"{_selector(name)}{{{';'.join(facts)}}}" if facts else ""
    return rules
