"""The signature picture: only the lecture's symbols, and the local derivative on every arrow."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..drawing.sketch import Box, Column, Row, Sketch, Text, Wire, characters, joined, plain
from ..drawing.text import number, summary
from ..formulas.derivatives import Derivative
from ..formulas.formula import Apply, Formula, Gradient, Symbol
from ..formulas.indices import NO_INDEX
from ..formulas.typeset import as_factor, as_text, marks
from ..reading import Reading, shape_of, tooltip
from ..recorded.paths import contributions, propagate
from ..recorded.record import Node
from ..recorded.symbols import Place, is_plain_number

_LONGEST_LABEL = 34  # characters of a formula on a wire


def symbols(reading: Reading) -> Sketch:
    """A box for each named place, a wire from each to those computed from it with no other between.

    A wire carries the local derivative; a box lists what each path adds to its gradient.
    """
    graph, formulas = reading.graph, reading.of_symbols
    shown = [place for place in sorted(reading.lecture) if _is_shown(reading, place)]
    wires: list[Wire] = []
    # Of what is on an arrow and is no box: the formula, and where the arrow ends.
    meanings: dict[Symbol, tuple[Formula, Place]] = {}
    shares: dict[Place, list] = {place: [] for place in shown}
    for end in shown:
        node = graph.nodes[end[0]]
        if node.kind != "op":
            continue
        added = contributions(graph, reading.edges, end, reading.lecture) if reading.loss else {}
        derivatives = reading.derivatives(formulas, node, end[1])
        for start in derivatives or _starts(reading, end):
            derivative = derivatives.get(start)
            vanishes = derivative is not None and derivative.vanishes
            if start in added:
                shares[start].append((end, added[start], vanishes))
            nothing = vanishes or (
                start in added and np.size(added[start]) and not np.any(added[start])
            )
            label = _factor(reading, start, end, derivative)
            if label:
                meanings |= {name: (meaning, end) for name, meaning in derivative.where.items()}
            label = label or as_text(marks(Gradient(reading.names[end], reading.names[start])))
            role = "zero" if nothing else "forward"
            wires.append(Wire(f"e{len(wires)}", _id(start), _id(end), role, label))
    boxes = tuple(_box(reading, place, shares[place]) for place in shown)
    description = (
        "Each box has a value ▸, what every path adds to its gradient, and the sum ◂; each arrow "
        "the local derivative that the chain rule multiplies by."
    )
    return Sketch(
        "The symbols",
        description,
        boxes,
        tuple(wires),
        notes=(*reading.notes(formulas), *_constants(reading), *_meanings(reading, meanings)),
    )


def _id(place: Place) -> str:
    return f"n{place[0]}_{place[1]}"


def _is_shown(reading: Reading, place: Place) -> bool:
    """Constants stand below the picture; an output that nothing uses tells nothing of a loss."""
    kind, output = reading.graph.nodes[place[0]].kind, reading.output(place)
    return kind == "leaf" or (kind == "op" and not (reading.loss and output.gradient is None))


def _starts(reading: Reading, end: Place) -> list[Place]:
    """The boxes that a place was computed from, where its gradient rule cannot be read: the graph
    was not traced, or is freed."""
    nodes = reading.graph.nodes

    def stops(place: Place) -> bool:
        return place in reading.lecture or nodes[place[0]].kind != "op"

    def hand_on(node: Node, _: Any) -> list[tuple[Place, None]]:
        return [((edge.start, edge.output), None) for edge in reading.edges[node.id]]

    found = propagate(reading.graph, end[0], {end[1]: None}, hand_on, stops, lambda a, _: a)
    return [place for place in found if nodes[place[0]].kind != "constant"]


def _factor(reading: Reading, start: Place, end: Place, derivative: Derivative | None) -> Text:
    """The local derivative, if it is a factor that fits on an arrow; else nothing."""
    if derivative is None:
        return ()
    if derivative.factor is None:
        return _matrix(derivative.gradient, reading.gradient(end))
    text = as_text(reading.marks_of(derivative.factor, start, end))
    text = joined(text, " = 0") if derivative.vanishes else text
    return text if len(characters(text)) <= _LONGEST_LABEL else ()


def _matrix(gradient: Formula, arrived: Gradient) -> Text:
    """· Wᵀ or Xᵀ ·, if a gradient is the one that arrives times a matrix; else nothing."""
    if isinstance(gradient, Apply) and gradient.name == "@" and arrived in gradient.arguments:
        left, right = (as_text(as_factor(part, NO_INDEX)) for part in gradient.arguments)
        return joined("· ", right) if gradient.arguments[0] == arrived else joined(left, " ·")
    return ()


def _box(reading: Reading, place: Place, shares: list) -> Box:
    node, output = reading.graph.nodes[place[0]], reading.output(place)
    rows = [row for row in reading.rows(place) if row.role == "forward"]
    if len(shares) > 1:
        rows += [_added(reading, k, *share) for k, share in enumerate(shares)]
    if output.gradient is not None:
        label = joined("◂ ", reading.slope(place), " =")
        rows.append(Row("backward", label, (output.gradient,)))
    definition = reading.definition(reading.of_symbols, place)
    columns = (Column((), tuple(rows)),)
    detail = plain(shape_of(output))
    return Box(
        _id(place), node.kind, reading.symbol(place), definition, detail, columns, tooltip(node)
    )


def _added(reading: Reading, k: int, end: Place, share: Any, vanishes: bool) -> Row:
    """What path number `k` adds. Floating point may not give the 0 of paper: then both are said."""
    label = joined("+ " if k else "", "via ", reading.symbol(end))
    if not vanishes or not np.isfinite(share).all():
        return Row("path", label, (share,))
    largest = float(np.abs(share).max())
    said = f"≈ 0 ({number(largest)}; 0 on paper)" if largest else "0"
    return Row("zero", joined(label, f" {said}"))


def _constants(reading: Reading) -> list[str]:
    """What stands in the formulas and is no box: ε = 0, w = 1, −2, 0.5, 1.5."""
    nodes = [node for node in reading.graph.nodes if node.kind == "constant"]
    lettered = [node for node in nodes if not is_plain_number(node)]
    values = [(reading.names[node.id, 0], node.outputs[0].value) for node in lettered]
    return [f"{name} = {summary(value)}" for name, value in values if value is not None]


def _meanings(reading: Reading, meanings: Mapping[Symbol, tuple]) -> list[Text]:
    """What the gradient rule of a fused op calls what it computes: r = 1/√(σ²+ε)."""
    lines = []
    for symbol, (formula, end) in meanings.items():
        left, right = map(as_text, reading.line([symbol, formula], [end]))
        lines.append(joined(left, " = ", right))
    return lines
