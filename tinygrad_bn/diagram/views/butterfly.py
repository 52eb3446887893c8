"""The forward pass, and beside it the backward pass that `create_graph=True` records."""

from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import count

from ...scalar import Scalar
from ..drawing.sketch import (
    Box,
    Column,
    Frame,
    Row,
    Sketch,
    Text,
    Wire,
    characters,
    plain,
    separated,
)
from ..drawing.text import clean
from ..formulas.derivatives import Formulas
from ..formulas.formula import ZERO
from ..formulas.typeset import as_text
from ..reading import Reading, is_plain_number, shape_of
from ..recorded.record import Graph, Node, tensor_graph
from ..recorded.symbols import Place, symbols_of
from .ops import ops

_LONGEST_FORMULA = 64  # characters, in a box


def butterfly(reading: Reading) -> Sketch:
    """The forward half runs down, the recorded backward half up; gradients stand beside values.

    Wires across are the values that the backward pass reads. A ValueError for what is not a single
    number, was not recorded inside `tracing()`, or is a Scalar. The graph must have been recorded
    with `create_graph`.
    """
    recorded = backward_pass(reading)
    half = ops(reading)
    forward = tuple(replace(box, columns=tuple(map(_values, box.columns))) for box in half.boxes)
    shown = {
        node.id
        for node in recorded.graph.nodes
        if node.id not in recorded.forward and not is_plain_number(node)
    }
    backward = tuple(_boxes(reading, recorded, shown))
    wires = [replace(wire, label=()) for wire in half.wires]
    level = [
        (f"n{places[0][0]}", f"b{number}")
        for (number, _), places in recorded.gradients.items()
        if number in shown
    ]
    return Sketch(
        "Forward and backward",
        "On one side the forward pass, from top to bottom; on the other the recorded backward "
        "pass, from bottom to top, each gradient on the height of the value that it belongs to. "
        "Dotted: values that the backward pass reads.",
        (*forward, *backward),
        (*wires, *_wires(reading, recorded, shown)),
        (
            Frame(plain("forward ▾"), tuple(box.id for box in forward)),
            Frame(plain("recorded backward ▴"), tuple(box.id for box in backward)),
        ),
        half.notes,
        level=tuple(level),
    )


# --- The recorded backward pass -------------------------------------------------------------------


@dataclass(frozen=True)
class BackwardPass:
    """A recorded backward pass: a graph that the forward graph is a part of.

    `forward`: the nodes of that part, and which nodes of the forward graph they are. `gradients`:
    of which places a place is the gradient; an op may hand on what it gets, so of several, the one
    that is nearest to the end first. `sloped`: the nodes that the gradient at the end reaches; the
    others only compute values anew.
    """

    graph: Graph
    forward: dict[int, int]
    gradients: dict[Place, list[Place]]
    sloped: set[int]


def backward_pass(reading: Reading) -> BackwardPass:
    """The backward pass that a graph has kept. Errors are those of `butterfly`."""
    graph = reading.graph
    if isinstance(graph.nodes[-1].origin, Scalar):
        raise ValueError("butterfly: got a Scalar, wants a Tensor, whose backward can be recorded")
    reading.want_gradients("butterfly")
    places = [
        (node.id, output.index)
        for node in reversed(graph.nodes)
        for output in node.outputs
        if output.gradient is not None
    ]
    both = tensor_graph(graph.backward)
    gradients = defaultdict(list)
    for place, at in zip(places, both.drawn[1:]):
        gradients[at].append(place)
    sloped = {both.drawn[-1][0]}
    for edge in both.edges:  # in the order of computation
        if edge.start in sloped:
            sloped.add(edge.end)
    return BackwardPass(both, _common(graph, both), dict(gradients), sloped)


def _common(graph: Graph, both: Graph) -> dict[int, int]:
    """The nodes of `both` that are in `graph`, and which they are; constants are known by their
    use."""
    numbers = {id(node.origin): node.id for node in graph.nodes if node.origin is not None}
    found = {n.id: numbers[id(n.origin)] for n in both.nodes if id(n.origin) in numbers}
    starts = {(edge.end, edge.argument): edge.start for edge in graph.edges}
    for edge in both.edges:
        if edge.end in found:
            found[edge.start] = starts[found[edge.end], edge.argument]
    return found


# --- The picture ----------------------------------------------------------------------------------


def _values(column: Column) -> Column:
    """What the forward pass knows of a column."""
    return replace(column, rows=tuple(row for row in column.rows if row.role == "forward"))


def _boxes(reading: Reading, recorded: BackwardPass, shown: set[int]) -> list[Box]:
    """The boxes of the backward half."""
    graph, gradients = recorded.graph, recorded.gradients
    names, named = _names(reading, recorded)
    formulas = Formulas(graph, names, named)

    def symbol(place: Place) -> Text:
        return heading(place)[0]

    def heading(place: Place) -> tuple[Text, Text]:
        """The symbol of a place and what it is computed as, with the letters of one line."""
        left = [reading.gradient(one) for one in gradients.get(place, ())]
        left = left or ([formulas.symbol(place)] if place in named else [])
        formula = formulas.definitions.get(place)
        *names, meaning = map(as_text, reading.line([*left, formula or ZERO]))
        is_said = formula is not None and len(characters(meaning)) <= _LONGEST_FORMULA
        return separated(" = ", names), meaning if is_said else ()

    def box(node: Node) -> Box:
        role, sign = ("backward", "◂") if node.id in recorded.sloped else ("forward", "▸")
        several, label = len(node.outputs) > 1, clean(node.label)
        columns = tuple(
            Column(
                symbol((node.id, output.index)) if several else (),
                (Row(role, plain(sign), (output.value,)),),
            )
            for output in node.outputs
        )
        key = f"b{node.id}"
        if several:
            return Box(key, "fused", plain(label), (), (), columns, label)
        place = node.id, node.outputs[0].index
        detail = plain(" ".join(filter(None, [label, shape_of(node.outputs[0])])))
        return Box(key, node.kind, *heading(place), detail, columns, label)

    return [box(node) for node in graph.nodes if node.id in shown]


def _names(reading: Reading, recorded: BackwardPass) -> tuple[dict, set[Place]]:
    """What the places of a backward pass are called, and those that formulas are written with.

    Values go by their symbols, gradients by those of what they are gradients of, and a constant
    that only the backward pass knows is a k.
    """
    names, named = symbols_of(recorded.graph, reading.notation)
    taken = {*reading.names.values(), *(names[place] for place in named)}
    letters = (k for n in count(1) if (k := f"k_{n}" if n > 1 else "k") not in taken)
    for node in recorded.graph.nodes:
        for output in node.outputs:
            place = node.id, output.index
            if node.id in recorded.forward:
                here = recorded.forward[node.id], output.index
                # An output that only the backward pass reads is not in the forward graph.
                names[place] = reading.names.get(here, f"output {output.index}")
            elif place in recorded.gradients:
                names[place] = reading.gradient(recorded.gradients[place][0])
            elif node.kind == "constant" and output.name is None and not is_plain_number(node):
                names[place] = next(letters)
            else:
                continue
            named.add(place)
    return names, named


def _wires(reading: Reading, recorded: BackwardPass, shown: set[int]) -> list[Wire]:
    """The wires that end in the backward half."""
    wires = []
    for number, edge in enumerate(recorded.graph.edges):
        across = edge.start in recorded.forward
        node = recorded.graph.nodes[edge.start]
        if across:
            node = reading.graph.nodes[recorded.forward[edge.start]]
        if edge.end not in shown or is_plain_number(node):
            continue
        start, role = (f"n{node.id}", "saved") if across else (f"b{node.id}", "backward")
        columns = [output.index for output in node.outputs]
        column = columns.index(edge.output) if edge.output in columns else None
        wires.append(Wire(f"b{number}", start, f"b{edge.end}", role, (), column, not across))
    return wires
