"""HTML pages: what all of them share, and the page of a single picture.

A page is one file. It asks the network for nothing, and its content security policy forbids to; of
scripts the policy lets in the page's own alone, by their hash.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from ...files import write_whole
from ..drawing.arguments import file_path
from ..drawing.sketch import Box, Column, Row, Sketch, Table, Text
from ..drawing.style import DARK, FONTS, LIGHT, Palette, page_css
from ..drawing.svg import svg_text
from ..drawing.text import printable, summary

if TYPE_CHECKING:
    from .. import Diagram

_SLOPES = ("backward", "path", "zero")  # the roles of rows that are about a gradient


@dataclass(frozen=True)
class Page:
    """A whole page as HTML text. In a notebook it shows itself, in a frame that may run its script
    and nothing else."""

    html: str

    def save(self, path: str | PathLike) -> Path:
        """Write the page to a path that ends in .html; an OSError leaves no half of a file."""
        path = file_path(path, [".html"])
        write_whole(path, self.html.encode())
        return path

    def _repr_html_(self) -> str:
        return (
            '<iframe sandbox="allow-scripts" title="a page of tinygrad_bn" '
            'style="width:100%;height:720px;border:1px solid #8888" '
            f'srcdoc="{escape(self.html)}"></iframe>'
        )


def page(
    title: str,
    body: str,
    *,
    lead: str = "",
    styles: str = "",
    script: str = "",
    theme: str = "auto",
) -> str:
    """A page with a heading, a theme button and light and dark colours.

    `title` is text. `body` and `lead`, which stands beside the heading, are HTML: what is a user's
    in them is escaped by the caller. `styles` and `script` come after those of every page. The
    reader's system chooses the theme until the button does, unless it is "light" or "dark".
    """
    heading = text_html(title)
    script = f"{static('page.js')}{script}"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        f"script-src 'sha256-{digest}'"
    )
    chosen = f' data-theme="{theme}"' if theme != "auto" else ""
    return (
        f'<!doctype html>\n<html lang="en"{chosen}>\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{heading}</title>\n<style>\n{_variables()}{static('page.css')}{styles}</style>\n"
        f"</head>\n<body>\n<header>\n<h1>{heading}</h1>\n{lead}\n"
        '<button id="theme" type="button" hidden></button>\n'
        f"</header>\n<main>\n{body}\n</main>\n<script>{script}</script>\n</body>\n</html>\n"
    )


def static(name: str) -> str:
    """A file of the folder `static`."""
    return (files(__package__) / "static" / name).read_text(encoding="utf-8")


def _variables() -> str:
    """The palette as CSS variables, --forward-row and so on."""
    return (
        f":root{{--fonts:{FONTS};{_colours(LIGHT)}}}\n"
        f"@media(prefers-color-scheme:dark){{:root:not([data-theme=light]){{{_colours(DARK)}}}}}\n"
        f":root[data-theme=dark]{{{_colours(DARK)}}}\n"
    )


def _colours(palette: Palette) -> str:
    return "".join(
        f"--{role.replace(' ', '-')}:{colour};"
        for role, colour in palette.items()
        if not role[-1].isdigit()  # those of heat cells are in the pictures alone
    )


# --- Pieces of pages ------------------------------------------------------------------------------


def text_html(text: Text | str) -> str:
    """A Text, or characters, as HTML that shows just them."""
    runs = ((text, 0),) if isinstance(text, str) else text
    tags = {0: "{}", -1: "<sub>{}</sub>", 1: "<sup>{}</sup>"}
    return "".join(tags[level].format(escape(printable(run))) for run, level in runs)


def table_html(rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """A table of cells that are HTML; the first row is its head, the first column names rows."""
    head, *body = rows
    titles = "".join(f'<th scope="col">{cell}</th>' if cell else "<td></td>" for cell in head)
    lines = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>\n'
        for first, *rest in body
    )
    about = f"<caption>{caption}</caption>" if caption else ""
    return (
        f'<div class="scroll" tabindex="0"><table>{about}<thead><tr>{titles}</tr></thead>\n'
        f"<tbody>{lines}</tbody></table></div>"
    )


def notes_html(notes: Iterable[Text | str]) -> str:
    """What a reader must be told, a paragraph each."""
    return "".join(f'<p class="note">{text_html(note)}</p>\n' for note in notes)


def legend(gradient: str = "gradient") -> str:
    """What the signs and colours of a picture mean, in a line; `gradient` is text."""
    return (
        '<p class="legend"><span class="forward">▸ value</span> '
        f'<span class="backward">◂ {text_html(gradient)}</span> '
        "<span>cells: green above 0, violet below 0</span></p>"
    )


# --- The page of a picture ------------------------------------------------------------------------


def picture_page(diagram: "Diagram") -> str:
    """The picture of a Diagram with its notes, and all that is in it as a table of text."""
    sketch = diagram.sketch
    body = (
        f"<p>{text_html(sketch.description)}</p>\n{legend()}\n"
        f'<div class="scroll" tabindex="0">{svg_text(diagram._painted())}</div>\n'
        f'<div class="spoken">{notes_html(sketch.notes)}</div>\n'
        f"{_boxes(sketch)}{_tables(sketch)}"
    )
    return page(sketch.title, body, styles=page_css(), theme=diagram.theme)


def _boxes(sketch: Sketch) -> str:
    """The numbers of every box as text; the gradient with what it is the sum of."""
    rows = [["symbol", "definition", "op and shape", "value", "gradient"]]
    for box in sketch.boxes:
        if isinstance(box, Box):
            what = [text_html(box.definition), text_html(box.detail)]
            for column in box.columns or [Column((), ())]:
                symbol = text_html(column.title or box.symbol)
                values = [row for row in column.rows if row.role not in _SLOPES]
                slopes = [row for row in column.rows if row.role in _SLOPES]
                rows.append([symbol, *what, _lines(values), _lines(slopes)])
    return table_html(rows, "Every node of the picture") if len(rows) > 1 else ""


def _lines(rows: Iterable[Row]) -> str:
    """What each row says, and the last of its values."""
    return "<br>".join(
        " ".join([text_html(row.label), *map(summary, row.values[-1:])]) for row in rows
    )


def _tables(sketch: Sketch) -> str:
    tables = [box.rows for box in sketch.boxes if isinstance(box, Table)]
    return "".join(table_html([[*map(text_html, row)] for row in rows]) for rows in tables)
