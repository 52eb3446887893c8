"""Every op of a graph as a box with its value and its gradient."""

from collections import Counter, defaultdict

from ..drawing.sketch import Box, Column, Frame, Row, Sketch, Text, Wire, plain
from ..drawing.text import clean, summary
from ..reading import Reading, is_plain_number, shape_of, tooltip
from ..recorded.record import Edge, Graph, Node

_MOST_ON_WIRE = 4  # numbers that fit there


def ops(reading: Reading) -> Sketch:
    """A box a node, a wire an edge; the outputs of a node stand side by side.

    A wire is labelled where several uses of a place add up: with what this one adds. Numbers
    without a name stand in the formulas and are no boxes.
    """
    graph = reading.graph
    shown = [node for node in graph.nodes if not is_plain_number(node)]
    boxes = tuple(_box(reading, node) for node in shown)
    wires = tuple(_wires(reading, {node.id for node in shown}))
    return Sketch(
        "The recorded graph",
        "Every op, with its value ▸ on the way forward and its gradient ◂ on the way back.",
        boxes,
        wires,
        frames(graph),
        reading.notes(reading.of_ops),
    )


def _box(reading: Reading, node: Node) -> Box:
    places = node.places
    columns = tuple(_column(reading, place, len(places) > 1) for place in places)
    kind = "fused" if len(places) > 1 else node.kind
    label = clean(node.label)
    if len(places) > 1:
        return Box(f"n{node.id}", kind, plain(label), (), (), columns, tooltip(node))
    (place,) = places
    detail = " ".join(filter(None, [label, shape_of(node.outputs[0])]))
    definition = reading.definition(reading.of_ops, place)
    symbol = reading.symbol(place)
    return Box(f"n{node.id}", kind, symbol, definition, plain(detail), columns, tooltip(node))


def _column(reading: Reading, place: tuple[int, int], titled: bool) -> Column:
    rows = reading.rows(place)
    if titled and reading.loss and reading.output(place).gradient is None:
        rows += (Row("backward", plain("◂ none")),)
    return Column(reading.symbol(place) if titled else (), rows)


def _wires(reading: Reading, shown: set[int]) -> list[Wire]:
    uses = Counter((e.start, e.output) for e in reading.graph.edges if e.contribution is not None)
    columns = {
        (node.id, output.index): column
        for node in reading.graph.nodes
        for column, output in enumerate(node.outputs)
    }
    return [
        Wire(
            f"e{number}",
            f"n{edge.start}",
            f"n{edge.end}",
            label=_handed(edge) if uses[edge.start, edge.output] > 1 else (),
            column=columns[edge.start, edge.output],
        )
        for number, edge in enumerate(reading.graph.edges)
        if edge.start in shown
    ]


def _handed(edge: Edge) -> Text:
    """What backward hands on through an edge, if it is a few numbers."""
    size = getattr(edge.contribution, "size", 1)
    if edge.contribution is None or size > _MOST_ON_WIRE:
        return ()
    return plain(f"◂ {summary(edge.contribution)}")


def frames(graph: Graph) -> tuple[Frame, ...]:
    """The modules that ops ran in, but for those that a path leaves and enters again."""
    members: dict[str, set[int]] = defaultdict(set)
    for node in graph.nodes:
        if node.scope:
            members[node.scope].add(node.id)
    return tuple(
        Frame(plain(clean(scope)), tuple(f"n{number}" for number in sorted(inside)))
        for scope, inside in members.items()
        if not _is_entered_again(graph, inside)
    )


def _is_entered_again(graph: Graph, inside: set[int]) -> bool:
    left: set[int] = set()  # the nodes outside to which a path leads from inside
    for edge in graph.edges:  # in the order of computation
        if edge.end not in inside and (edge.start in inside or edge.start in left):
            left.add(edge.end)
        elif edge.end in inside and edge.start in left:
            return True
    return False
