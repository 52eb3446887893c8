"""What the pages of this room are made of: a document, and sections, tables and plots to put in it.

A page is one file. It asks the network for nothing, and its content security policy forbids to; it
has no script. It is light or dark as the reader's system has it. What these functions are given is
text, and shown as just that; but `plot` is an SVG element, `body`, `parts` and `numbers` are HTML.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from ..diagram.drawing.style import FONTS
from ..diagram.drawing.text import printable
from .plot import PALETTE

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
body{color:var(--ink);background:var(--background);max-width:44rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .5rem;text-wrap:balance}
h2{font-size:1.2rem;line-height:1.3;margin:2.5rem 0 .4rem}
h1,h2,p{overflow-wrap:anywhere}
p{margin:.4rem 0 .8rem}
figure{margin:1rem 0}
figcaption,summary,footer{color:var(--muted);font-size:.9rem}
summary{cursor:pointer}
a{color:var(--blue)}
svg{display:block;width:100%;height:auto}
svg text{font-family:inherit!important}
.scroll{overflow-x:auto}
.pictures{width:min(62rem,100vw - 2rem);margin-left:calc(50% - min(31rem,50vw - 1rem));
 display:flex;flex-wrap:wrap;gap:1.5rem 1rem;align-items:flex-start}
.pictures figure{margin:0;max-width:100%}
.pictures img{display:block;max-width:100%;border:1px solid var(--grid);box-sizing:border-box}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:1rem}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;margin:.5rem 0}
th,td{border-bottom:1px solid var(--grid);padding:.2rem .8rem .2rem 0;text-align:right}
th:first-child,td:first-child{text-align:left}
td+td{white-space:nowrap}
.note{border-left:4px solid var(--red);padding-left:.8rem}
footer{margin-top:3rem}
@media(max-width:30rem){svg text{font-size:13px!important}}
"""


def text(value: Any) -> str:
    """A value as HTML that shows just its characters."""
    return escape(printable(str(value)))


def document(title: str, body: str) -> str:
    """A whole page, with its title as heading."""
    light, dark = (
        "".join(f"--{role}:{pair[theme]};" for role, pair in PALETTE.items()) for theme in (0, 1)
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{text(title)}</title>\n<style>\n:root{{{light}}}\n"
        f"@media(prefers-color-scheme:dark){{:root{{{dark}}}}}\nbody{{font:16px/1.5 {FONTS}}}"
        f"{_STYLE}</style>\n</head>\n<body>\n<h1>{text(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def section(heading: str | None, *parts: str) -> str:
    """Parts of a page under a heading, if it has one."""
    title = f"<h2>{text(heading)}</h2>\n" if heading else ""
    return f"<section>\n{title}{''.join(parts)}</section>\n"


def paragraph(words: str) -> str:
    """A paragraph of text."""
    return f"<p>{text(words)}</p>\n"


def note(words: str) -> str:
    """Something that is missing, or less than usual."""
    return f'<p class="note">{text(words)}</p>\n'


def folded(about: str, numbers: str) -> str:
    """What is seen after a click on what it is about."""
    return f"<details><summary>{text(about)}</summary>{numbers}</details>\n"


def figure(plot: str | None, numbers: str, about: str = "numbers") -> str:
    """A plot with the table of its numbers folded out below; without the plot, the table alone."""
    return numbers if plot is None else f"<figure>{plot}</figure>\n{folded(about, numbers)}"


def table(header: Sequence, rows: Sequence[Sequence]) -> str:
    """Rows of cells under a header, if it says anything; the first column names the rows."""

    def row(tag, cells):
        return "<tr>" + "".join(f"<{tag}>{text(cell)}</{tag}>" for cell in cells) + "</tr>\n"

    head = row("th", header) if any(header) else ""
    body = "".join(row("td", cells) for cells in rows)
    return f'<div class="scroll" tabindex="0"><table>\n{head}{body}</table></div>\n'


def number(value: float | None, form: str, unit: str = "") -> str:
    """A number as text in a format of Python's: — where there is none, × where it is not finite.

    >>> number(0.98612, ".1%"), number(None, ".1%"), number(float("nan"), "g")
    ('98.6 %', '—', '×')
    """
    if value is None:
        return "—"
    if math.isnan(value):
        return "×"
    return f"{value:{form}}".replace("%", " %") + unit
