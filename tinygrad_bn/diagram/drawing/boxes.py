"""A box of a Sketch as shapes around its own corner: what is in it, and how large it must be.

Sizes are whole numbers, for Graphviz takes no others for the parts of a box.
"""

from dataclasses import dataclass
from itertools import accumulate, zip_longest
from math import ceil

from .cells import cell_width, cells
from .measure import text_width
from .shapes import Block, Group, Label, Rect, Shape
from .sketch import Box, Column, Row, Table, Text, characters, joined
from .style import DEFINITION, DETAIL, HEADING, LOOKS, ROW, ROW_TEXT

Part = tuple[Text, str, float, bool]  # a text, its look, its size, whether it is bold
Contents = list[tuple[Row, list[Block]]]  # the rows of a column, each with its values as shapes

_PADDING = 4  # between a row and the border of its box, or half of the way to the next column
_INSET = 5  # from the ends of a row to what it says
_SPACE = 8  # between texts that stand side by side
_BASELINE = 14  # of a line below its top
_ROW_HEIGHT, _TITLE_HEIGHT, _HEADING_HEIGHT, _DETAIL_HEIGHT = 20, 18, 22, 13
_LOWEST = 16  # of an empty box
_ONE_LINE = 120  # a heading up to this wide is one line, however narrow the rows are
_TABLE_INSET = 10


@dataclass(frozen=True)
class Card(Block):
    """A box as shapes; `columns` are the widths of its columns, which fill it side by side."""

    columns: tuple[int, ...] = ()


def card(box: Box | Table) -> Card:
    """The shapes of a box, and its size."""
    return _table(box) if isinstance(box, Table) else _box(box)


def heading(box: Box) -> list[Part]:
    """The parts of a heading, without those that are empty."""
    definition = joined("= ", box.definition) if box.symbol and box.definition else box.definition
    parts = (
        (box.symbol, "text ink", HEADING, True),
        (definition, "text muted", DEFINITION, False),
        (box.detail, "text muted", DETAIL, False),
    )
    return [part for part in parts if characters(part[0]).strip()]


def _box(box: Box) -> Card:
    contents = [_contents(column) for column in box.columns]
    columns = [_column_width(*pair) for pair in zip(box.columns, contents)]
    lines = _heading_lines(heading(box), sum(columns))
    wanted = max((line.width for line in lines), default=0) + 2 * (_PADDING + _INSET)
    spare = max(0, ceil(wanted) - sum(columns))
    width = sum(columns) + spare
    # What the heading needs beyond the columns is shared among them.
    columns = [
        column + (spare * (k + 1) // len(columns) - spare * k // len(columns))
        for k, column in enumerate(columns)
    ]
    top = _HEADING_HEIGHT + _DETAIL_HEIGHT * (len(lines) - 1) if lines else _PADDING
    blocks = [_column(*each) for each in zip(box.columns, contents, columns)]
    rows_height = max((block.height for block in blocks), default=0)
    height = max(_LOWEST, ceil(top + rows_height + (_PADDING if rows_height else 0)))
    shapes: list[Shape] = [Rect(f"outline {box.kind}", 0, 0, width, height, _PADDING)]
    for k, line in enumerate(lines):
        baseline = _BASELINE + 2 + _DETAIL_HEIGHT * k
        shapes.append(Group(line.shapes, "heading", x=_PADDING + _INSET, y=baseline))
    for left, block in zip(accumulate(columns, initial=0), blocks):
        shapes.append(Group(block.shapes, "column", x=left, y=top))
    return Card(width, height, tuple(shapes), tuple(columns))


def _heading_lines(parts: list[Part], columns_width: float) -> list[Block]:
    """One line, or the last part below the others where it would make the box wider."""
    line = _side_by_side(parts)
    if len(parts) > 1 and line.width > max(_ONE_LINE, columns_width - 2 * (_PADDING + _INSET)):
        return [_side_by_side(parts[:-1]), _side_by_side(parts[-1:])]
    return [line] if parts else []


def _side_by_side(parts: list[Part]) -> Block:
    widths = [text_width(text, size, bold) + _SPACE for text, _, size, bold in parts]
    labels = tuple(
        Label(look, x, 0, text, size, bold=bold)
        for x, (text, look, size, bold) in zip(accumulate(widths, initial=0), parts)
    )
    return Block(sum(widths) - _SPACE, 0, labels)


def _contents(column: Column) -> Contents:
    """The values of every row as shapes; numbered cells are equally wide in all rows."""
    wide = max((cell_width(v) for row in column.rows for v in row.values), default=0)
    return [(row, [cells(v, ROW_TEXT[row.role], wide) for v in row.values]) for row in column.rows]


def _column_width(column: Column, contents: Contents) -> int:
    widths = [text_width(column.title, ROW, bold=True)]
    for row, values in contents:
        label, widest = text_width(row.label, ROW), max((v.width for v in values), default=0)
        widths.append(label + widest + _SPACE * (label > 0 and widest > 0))
    return ceil(max(widths)) + 2 * (_PADDING + _INSET)


def _column(column: Column, contents: Contents, width: int) -> Block:
    """The title and the rows of a column, one below the other."""
    shapes: list[Shape] = []
    y = 0.0
    if column.title:
        title = Label("text ink", _PADDING + _INSET, _BASELINE - 1, column.title, ROW, bold=True)
        shapes, y = [title], _TITLE_HEIGHT
    for row, values in contents:
        block = _row(row, values, width - 2 * _PADDING)
        shapes.append(Group(block.shapes, f"row {row.role}", x=_PADDING, y=y))
        y += block.height
    return Block(width, y, tuple(shapes))


def _row(row: Row, values: list[Block], width: float) -> Block:
    """A band with the label at the left and the values, all in the same place, at the right."""
    height = max([_ROW_HEIGHT, *(block.height + 4 for block in values)])
    band = f"band {row.role}"
    shapes: list[Shape] = [Rect(band, 0, 0, width, height)] if band in LOOKS else []
    look = f"text {ROW_TEXT[row.role]}"
    if row.label:
        shapes.append(Label(look, _INSET, _BASELINE, row.label, ROW))
    last = len(values) - 1
    for k, block in enumerate(values):
        x, y = width - _INSET - block.width, max(2, (_ROW_HEIGHT - block.height) / 2)
        if last:
            group = Group(block.shapes, "state", x=x, y=y, state=k, hidden=k < last)
        else:
            group = Group(block.shapes, "value", x=x, y=y)
        shapes.append(group)
    return Block(width, height, tuple(shapes))


def _table(table: Table) -> Card:
    """Text in rows and columns; the first of each is bold, and lines divide the rows."""
    widths = [
        [text_width(text, ROW, bold=i == 0 or k == 0) for k, text in enumerate(row)]
        for i, row in enumerate(table.rows)
    ]
    columns = [ceil(max(column)) + 2 * _TABLE_INSET for column in zip_longest(*widths, fillvalue=0)]
    width, height = sum(columns), _ROW_HEIGHT * len(table.rows)
    shapes: list[Shape] = [Rect("outline table", 0, 0, width, height)]
    for i, row in enumerate(table.rows):
        y = i * _ROW_HEIGHT
        if i:
            shapes.append(Rect("rule", 0, y, width, 0.8))
        for k, (x, text) in enumerate(zip(accumulate(columns, initial=0), row)):
            if text:
                x, bold = x + _TABLE_INSET, i == 0 or k == 0
                shapes.append(Label("text ink", x, y + _BASELINE, text, ROW, bold=bold))
    return Card(width, height, tuple(shapes), tuple(columns))
