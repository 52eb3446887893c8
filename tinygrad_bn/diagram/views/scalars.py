"""The graph of single numbers, in swim lanes, one lane a sample."""

import copy
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ... import graph as engine_graph
from ... import recording
from ...backend import array_module, is_array, to_device
from ...scalar import Scalar
from ..drawing.sketch import Box, Column, Frame, Row, Sketch, Text, Wire, characters, joined, plain
from ..drawing.text import clean
from ..reading import Reading, is_plain_number, tooltip
from ..recorded.record import Graph, is_freed, run_rule
from ..recorded.symbols import Place, is_visible

_MOST_NUMBERS = 200  # nobody can read a picture of more
_SUBSCRIPT = re.compile(r"_(?:([0-9]{1,9})|\{([0-9]{1,9})\})$")

Element = tuple[int, int, int]  # a node, one of its outputs, one number of that, counted from 0
Shapes = dict[Place, tuple[int, ...]]
Slopes = dict[tuple[Element, Element], float]  # the derivative of the second by the first
Lanes = dict[Element, int]  # of the numbers that belong to one i


def scalars(reading: Reading) -> Sketch:
    """A box a number, and a wire to each number that is computed from it, from left to right.

    Of Tensors every element is a box; its wires are found by running the gradient rules. A wire
    along which the derivative is 0 is dashed. What belongs to one i, such as a sample, is framed:
    of Scalars it is told by the number that ends a name (x_1), of Tensors by the first axis. A
    graph of more than 200 numbers is a ValueError, and so is one that backward has freed, unless it
    was traced.
    """
    graph = reading.graph
    shapes = {
        (node.id, output.index): output.shape
        for node in graph.nodes
        for output in node.outputs
        if output.shape is not None and not is_plain_number(node)
    }
    count = sum(map(math.prod, shapes.values()))
    if count > _MOST_NUMBERS:
        raise ValueError(
            f"scalars: got a graph of {count:,} numbers, wants up to {_MOST_NUMBERS}: take fewer "
            'samples, or view="ops"'
        )
    if any(_is_lost(node.origin) for node in graph.nodes):
        raise ValueError(f"scalars: {'; '.join(graph.notes)}")
    if isinstance(graph.nodes[-1].origin, Scalar):
        slopes = _slopes_of_scalars(graph)
        lanes = _lanes_by_name(reading)
    else:
        slopes = _slopes_of_tensors(reading, shapes)
        lanes = _lanes_by_axis(graph, shapes, slopes)
    used = {start for start, _ in slopes}
    shown = [
        (node, output, i)
        for (node, output), shape in shapes.items()
        for i in range(math.prod(shape))
        if graph.nodes[node].kind != "constant"
        or (node, output, i) in used
        or (node, output) in graph.drawn
    ]
    wires = tuple(
        Wire(f"e{k}", _id(start), _id(end), "forward" if slope else "zero")
        for k, ((start, end), slope) in enumerate(slopes.items())
    )
    return Sketch(
        "The graph of single numbers",
        "A box a number, with its value ▸ on the way forward and its gradient ◂ on the way back.",
        tuple(_box(reading, element, shapes[element[:2]]) for element in shown),
        wires,
        tuple(_frames(shown, lanes)),
        graph.notes,
        across=True,
    )


# --- What a number is computed from ---------------------------------------------------------------


def _slopes_of_scalars(graph: Graph) -> Slopes:
    slopes: Slopes = defaultdict(float)
    for edge in graph.edges:
        slopes[(edge.start, 0, 0), (edge.end, 0, 0)] += edge.local
    return slopes


def _slopes_of_tensors(reading: Reading, shapes: Shapes) -> Slopes:
    """A rule is fed a gradient that is 0 but at one element. Where that is 1, the answers are the
    derivatives; where it is NaN they are NaN for all that the element is computed from, also if the
    derivative happens to be 0."""
    slopes: Slopes = defaultdict(float)
    for node, index in shapes:
        if reading.graph.nodes[node].kind != "op":
            continue
        output = reading.output((node, index))
        if "float" not in output.dtype:
            continue
        recorded, needs = _probed(reading.graph.nodes[node].origin)
        answers = partial(_answers, needs=needs, index=index, device=reading.graph.device)
        zero = np.zeros(output.shape, output.dtype)
        # 0 times what is infinite is NaN, too: then the rule is asked at other numbers.
        is_finite = not any(np.isnan(answer).any() for answer in answers(recorded, zero).values())
        other = recorded if is_finite else _at_halves(recorded)
        for i in range(zero.size):
            one, nan = zero.copy(), zero.copy()
            one.flat[i], nan.flat[i] = 1, math.nan
            derivatives, dependences = answers(recorded, one), answers(other, nan)
            for edge in reading.edges[node]:
                if edge.argument in dependences:
                    for j in np.flatnonzero(np.isnan(dependences[edge.argument])).tolist():
                        ends = (edge.start, edge.output, j), (node, index, i)
                        slopes[ends] += derivatives[edge.argument].flat[j]
    return slopes


def _is_lost(recorded: Any) -> bool:
    """Whether backward has freed an op, and no trace has kept what its rule reads."""
    return isinstance(recorded, engine_graph.Node) and is_freed(recorded) and recorded.trace is None


def _probed(recorded: engine_graph.Node) -> tuple[engine_graph.Node, list[bool]]:
    """A copy of a node to run the rule of, and for which arguments it can be asked: if the node was
    traced, for constants too."""
    node, trace = copy.copy(recorded), recorded.trace
    needs = [parent is not None for parent in recorded.parents]
    node.time = recording.now  # what has been written since does not change what depends on what
    if trace is not None:
        kept = recorded.arrays or trace.inputs  # backward may have freed them
        node.arrays = [t if is_array(t) else a for a, t in zip(kept, trace.inputs)]
        node.outputs = trace.outputs
        for k, array in enumerate(trace.inputs):
            needs[k] |= is_array(array) and array.dtype.kind == "f" and k not in node.op.ruleless
    return node, needs


def _at_halves(recorded: engine_graph.Node) -> engine_graph.Node:
    """A copy of a node that computed with 1/2 everywhere, which is no pole of the usual ops."""

    def halves(array: Any) -> Any:
        if not is_array(array) or array.dtype.kind != "f":
            return array
        return array_module((array,)).full_like(array, 0.5)

    node = copy.copy(recorded)
    node.arrays, node.outputs = (
        kept and [halves(array) for array in kept] for kept in (node.arrays, node.outputs)
    )
    return node


def _answers(node: engine_graph.Node, g: Any, needs: list[bool], index: int, device: str) -> dict:
    """What backward hands on to the arguments if `g` arrives at output number `index`."""
    g = to_device(g, device)
    arriving = [g if i == index else None for i in range(node.many)] if node.many else g
    found = run_rule(node, arriving, needs)
    return {k: to_device(answer, "cpu") for k, answer in found.items()}


# --- Lanes ----------------------------------------------------------------------------------------


def _lanes_by_name(reading: Reading) -> Lanes:
    """By the number that ends a name; else that of the parents, where they have but one. A leaf
    that is used for another number than its own, such as a weight, is in no lane."""
    graph, lanes = reading.graph, {}
    matches = {n.id: _SUBSCRIPT.search(n.outputs[0].name or "") for n in graph.nodes}
    own = {number: int(match[1] or match[2]) for number, match in matches.items() if match}
    used: dict[int, set[int]] = defaultdict(set)  # for which numbers, over what has no name
    for edge in reversed(graph.edges):
        if edge.end in own:
            used[edge.start].add(own[edge.end])
        elif not graph.nodes[edge.end].outputs[0].name:
            used[edge.start] |= used[edge.end]
    for node in graph.nodes:
        starts = [(edge.start, 0, 0) for edge in reading.edges[node.id]]
        found = {own[node.id]} if node.id in own else {lanes[s] for s in starts if s in lanes}
        if len(found) == 1 and (node.kind == "op" or used[node.id] <= found):
            (lanes[node.id, 0, 0],) = found
    return lanes


def _lanes_by_axis(graph: Graph, shapes: Shapes, slopes: Slopes) -> Lanes:
    """By the first axis, where it is as long as that of most numbers that ops computed. But weights
    and the statistics of features, which may be as long, are in no lane. They are told by an op
    that computes a number in a lane from other parts of a place: from those and not from the one in
    that lane, or from those as well, though it takes another place lane by lane."""
    lengths: Counter = Counter()
    for (node, _), shape in shapes.items():
        if graph.nodes[node].kind == "op" and shape and shape[0] > 1:
            lengths[shape[0]] += math.prod(shape)
    if not lengths:
        return {}
    ((samples, _),) = lengths.most_common(1)
    parts = {
        (*place, i): i * samples // math.prod(shape) + 1
        for place, shape in shapes.items()
        if shape[:1] == (samples,)
        for i in range(math.prod(shape))
    }
    # By what is computed, and from what: of which parts of this each number needs some.
    needed: dict[Place, dict] = defaultdict(lambda: defaultdict(lambda: defaultdict(set)))
    for start, end in slopes:
        if start in parts and end in parts:
            needed[end[:2]][start[:2]][end].add(parts[start])
    outside: set[Place] = set()
    for place in reversed(shapes):
        if place in outside:
            continue
        uses = needed[place]
        by_lane = {p for p, u in uses.items() if all(s == {parts[e]} for e, s in u.items())}
        for start, use in uses.items():
            others = any(parts[end] not in some for end, some in use.items())
            if others or (by_lane and start not in by_lane):
                outside.add(start)
    return {element: part for element, part in parts.items() if element[:2] not in outside}


def _frames(shown: Sequence[Element], lanes: Lanes) -> Iterator[Frame]:
    members = defaultdict(list)
    for element in shown:
        if element in lanes:
            members[lanes[element]].append(_id(element))
    for lane, boxes in sorted(members.items()):
        yield Frame(plain(f"i = {lane}"), tuple(boxes))


# --- Boxes ----------------------------------------------------------------------------------------


def _id(element: Element) -> str:
    return "n{}_{}_{}".format(*element)


def _box(reading: Reading, element: Element, shape: tuple[int, ...]) -> Box:
    number, index, i = element
    node, place = reading.graph.nodes[number], (number, index)
    rows = tuple(
        Row(row.role, row.label, (np.ravel(value)[i],))
        for row in reading.rows(place)
        for value in row.values
    )
    definition = characters(reading.definition(reading.of_ops, place))
    symbol = characters(reading.symbol(place))
    said = " = ".join(filter(None, [symbol, definition]))
    kind = "fused" if len(node.outputs) > 1 else node.kind
    name = _name(reading, place, shape, i)
    return Box(_id(element), kind, name, (), (), (Column((), rows),), f"{said}, {tooltip(node)}")


def _name(reading: Reading, place: Place, shape: tuple[int, ...], i: int) -> Text:
    """The symbol, with a subscript that tells the element; of a Scalar that nobody has named the
    op, which a letter such as x would be taken for."""
    node = reading.graph.nodes[place[0]]
    nameless = node.kind == "leaf" and not is_visible(reading.output(place).name)
    if isinstance(node.origin, Scalar) and (nameless or place not in reading.lecture):
        label = clean(node.label) or node.kind
        return joined("( )", ((label[1:], 1),)) if label[:1] == "^" else plain(label)
    symbol = reading.symbol(place)
    along = [str(k + 1) for k, n in zip(np.unravel_index(i, shape), shape) if n > 1]
    if not along:
        return symbol
    below, level = symbol[-1] if symbol else ("", 0)
    if level == -1 and below.isdigit():  # element 1 of x_2 is not element (2, 1) of x
        return joined("(", symbol, ")", ((",".join(along), -1),))
    if level == -1:
        *symbol, _ = symbol
        along = [below, *along]
    return (*symbol, (",".join(along), -1))
