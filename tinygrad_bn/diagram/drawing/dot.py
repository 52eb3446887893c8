"""A Sketch in the DOT language of Graphviz: for Graphviz's own rendering, and as a skeleton, which
`layout.py` fills with boxes of fixed sizes.

Boxes are called n0, n1, … and frames cluster0, …, so no name of a user's is part of the language.
"""

from collections.abc import Sequence
from html import escape
from textwrap import wrap

from .boxes import heading
from .sketch import Box, Frame, Row, Sketch, Table, Text, Wire, joined
from .style import FONTS, LOOKS, ROW, ROW_TEXT, SMALL, WIRE_TEXT, Look, Palette
from .text import printable, summary

_LONGEST_LINE = 48  # characters of a row of numbers; what is longer goes on below
_STYLES = {"forward": "solid", "backward": "dashed", "saved": "dotted", "zero": "dashed"}


def dot_text(sketch: Sketch, palette: Palette) -> str:
    """The sketch as DOT text; the same sketch gives the same text."""
    fonts = FONTS.replace('"', "")
    font = f'fontname="{fonts}" fontsize={ROW} fontcolor="{palette["ink"]}"'
    settings = [
        f"graph [rankdir={'LR' if sketch.across else 'TB'} newrank=true ranksep=0.4 nodesep=0.3]",
        f'graph [bgcolor="{palette["background"]}" labelloc=b labeljust=l {font}]',
        f"node [shape=plain {font}]",
        f"edge [arrowsize=0.6 {font}]",
    ]
    if sketch.notes:
        notes = "<BR/>".join(_markup(joined(note)) for note in sketch.notes)
        settings.append(f"label=<{_colored(notes, palette['muted'])}>")
    return skeleton(
        sketch,
        settings,
        [f"label=<{_label(box, palette)}>" for box in sketch.boxes],
        [_wire(wire, palette) for wire in sketch.wires],
        [_frame(frame, palette) for frame in sketch.frames],
    )


def skeleton(
    sketch: Sketch,
    settings: Sequence[str],
    boxes: Sequence[str],
    wires: Sequence[str],
    frames: Sequence[str],
) -> str:
    """DOT text with the given settings, and attributes for each box, wire and frame.

    A wire that ranks its boxes goes downwards, if it is a "backward" one upwards. Of a box with
    several columns each has a port, c0, c1, …
    """
    names = {box.id: f"n{i}" for i, box in enumerate(sketch.boxes)}
    several = {box.id for box in sketch.boxes if isinstance(box, Box) and len(box.columns) > 1}
    lines = [*settings, *(f"n{i} [{attributes}]" for i, attributes in enumerate(boxes))]
    lines += _clusters(sketch.frames, frames, names)
    lines += [f"{{rank=same {names[first]} {names[second]}}}" for first, second in sketch.level]
    for wire, attributes in zip(sketch.wires, wires):
        upward = wire.ranked and wire.role == "backward"
        start, end = names[wire.start], names[wire.end]
        if wire.column is not None and wire.start in several:
            start += f":c{wire.column}:{'n' if upward else 's'}"
        attributes += "" if wire.ranked else " constraint=false"
        if upward:
            lines.append(f"{end} -> {start} [dir=back {attributes}]")
        else:
            lines.append(f"{start} -> {end} [{attributes}]")
    return "\n".join(["digraph {", *(f"  {line}" for line in lines), "}", ""])


def _clusters(frames: Sequence[Frame], attributes: Sequence[str], names: dict) -> list[str]:
    """A cluster for each frame, inside of the smallest one that has all of its boxes."""
    inner: dict[int | None, list[int]] = {None: []}
    for k in sorted(range(len(frames)), key=lambda k: -len(set(frames[k].boxes))):
        boxes = set(frames[k].boxes)
        around = [j for j in inner if j is not None and boxes <= set(frames[j].boxes)]
        inner[around[-1] if around else None].append(k)
        inner[k] = []

    outermost, clusters = inner.pop(None), {}
    for k in reversed(inner):  # those within others first
        members = " ".join(names[box] for box in frames[k].boxes)
        within = [attributes[k], members, *(line for j in inner[k] for line in clusters[j])]
        clusters[k] = [f"subgraph cluster{k} {{", *(f"  {line}" for line in within), "}"]
    return [line for k in outermost for line in clusters[k]]


def _label(box: Box | Table, palette: Palette) -> str:
    """An HTML-like label: a table."""
    return _text_table(box, palette) if isinstance(box, Table) else _box_table(box, palette)


def _box_table(box: Box, palette: Palette) -> str:
    parts = [
        _colored(f"<B>{_markup(text)}</B>" if bold else _markup(text), _ink(look, palette), size)
        for text, look, size, bold in heading(box)
    ]
    span = f'COLSPAN="{len(box.columns)}" ' if len(box.columns) > 1 else ""
    rows = f'<TR><TD {span}ALIGN="LEFT">{" ".join(parts)}</TD></TR>' if parts else ""
    if len(box.columns) == 1:
        rows += _rows(box.columns[0].rows, palette)
    elif box.columns:
        tables = [
            f'<TD PORT="c{k}" VALIGN="TOP"><TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0">'
            f"{_title(column.title)}{_rows(column.rows, palette)}</TABLE></TD>"
            for k, column in enumerate(box.columns)
        ]
        rows += f"<TR>{''.join(tables)}</TR>"
    look = LOOKS[f"outline {box.kind}"]
    return _table(rows, look, palette)


def _text_table(table: Table, palette: Palette) -> str:
    rows = ""
    for i, row in enumerate(table.rows):
        texts = [_markup(text) or " " for text in row]
        texts = [f"<B>{t}</B>" if i == 0 or k == 0 else t for k, t in enumerate(texts)]
        cells = "".join(f'<TD ALIGN="LEFT">{text}</TD>' for text in texts)
        rows += f"<TR>{cells}</TR>"
    return _table(rows, LOOKS["outline table"], palette)


def _table(rows: str, look: Look, palette: Palette) -> str:
    dashed = ' STYLE="DASHED"' if look.dashes else ""
    return (
        f'<TABLE BORDER="{round(look.width)}" COLOR="{palette[look.stroke]}"{dashed} '
        f'BGCOLOR="{palette[look.fill]}" CELLBORDER="0" CELLSPACING="0" CELLPADDING="4">'
        f"{rows or '<TR><TD></TD></TR>'}</TABLE>"
    )


def _title(title: Text) -> str:
    return f'<TR><TD ALIGN="LEFT"><B>{_markup(title)}</B></TD></TR>' if _markup(title) else ""


def _rows(rows: Sequence[Row], palette: Palette) -> str:
    return "".join(_row(row, palette) for row in rows) or "<TR><TD></TD></TR>"


def _row(row: Row, palette: Palette) -> str:
    """What a row says and the last of its values, on as many lines as that takes."""
    shown = [value for value in row.values[-1:] if value is not None]
    numbers = [line for value in shown for line in wrap(summary(value), _LONGEST_LINE)]
    first = [part for part in (_markup(row.label), *numbers[:1]) if part]
    lines = '<BR ALIGN="LEFT"/>'.join([" ".join(first), *numbers[1:]])
    band = LOOKS.get(f"band {row.role}")
    fill = f' BGCOLOR="{palette[band.fill]}"' if band else ""
    text = _colored(lines, palette[ROW_TEXT[row.role]])
    return f'<TR><TD ALIGN="LEFT" BALIGN="LEFT"{fill}>{text}</TD></TR>'


def _wire(wire: Wire, palette: Palette) -> str:
    look = LOOKS[f"line {wire.role}"]
    attributes = f'color="{palette[look.stroke]}" style={_STYLES[wire.role]}'
    text = _colored(_markup(wire.label), palette[WIRE_TEXT[wire.role]], SMALL)
    return f"{attributes} label=<{text}>" if text else attributes


def _frame(frame: Frame, palette: Palette) -> str:
    look = LOOKS["frame"]
    colors = f'bgcolor="{palette[look.fill]}" pencolor="{palette[look.stroke]}"'
    title = _colored(_markup(frame.title), palette["muted"], SMALL)
    return f"graph [{colors} labelloc=t label={f'<{title}>' if title else chr(34) * 2}]"


def _ink(look: str, palette: Palette) -> str:
    return palette[LOOKS[look].fill]


def _colored(markup: str, color: str, size: float | None = None) -> str:
    """Markup in a colour; Graphviz takes no empty element."""
    points = f' POINT-SIZE="{size}"' if size else ""
    return f'<FONT COLOR="{color}"{points}>{markup}</FONT>' if markup else ""


def _markup(text: Text) -> str:
    """Text as part of an HTML-like label, where \\N would be the name of the node."""
    tags = {0: ("", ""), -1: ("<SUB>", "</SUB>"), 1: ("<SUP>", "</SUP>")}
    runs = [(escape(printable(run)).replace("\\", "\\\\"), tags[level]) for run, level in text]
    return "".join(f"{opening}{run}{closing}" for run, (opening, closing) in runs if run)
