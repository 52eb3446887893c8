"""A recorded graph with its fused norms, and the same graph with composed ones; what sets them
apart is counted on the two."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backend import to_device
from ...engine import grad, listed
from ...graph import Tensor, at_place
from ...memory import extent, storage_of
from ...norm import IMPLEMENTATIONS
from ...recording import guarded_by, journal, scope, tracing
from ...tensor import named
from ..drawing.text import number
from ..reading import Reading
from ..recorded.hooks import is_hooked
from ..recorded.record import OVERWRITTEN, Node, record
from ..recorded.symbols import Place

_COMPOSED = {
    getattr(IMPLEMENTATIONS["fused"], name): getattr(IMPLEMENTATIONS["composed"], name)
    for name in ("normalize", "normalize_inference")
}


@dataclass(frozen=True, eq=False)
class Norm:
    """A norm in both graphs: `fused` is its node in one, `composed` are its nodes in the other.

    `places`: its arguments and outputs in the first graph, and where they are in the second.
    """

    fused: int
    composed: tuple[int, ...]
    places: dict[Place, Place]

    def nodes(self, implementation: str) -> tuple[int, ...]:
        return self.composed if implementation == "composed" else (self.fused,)


@dataclass(frozen=True, eq=False)
class Twins:
    """The two graphs: of the same leaves, values and loss."""

    fused: Reading
    composed: Reading
    norms: tuple[Norm, ...]


def twins(reading: Reading, caller: str = "fused") -> Twins:
    """A graph with fused norms, and its twin, recorded here with composed ones.

    A ValueError, which begins with the name of the caller, if there is no fused norm in it, or one
    inside a checkpoint; if it does not end in a single number; if it was recorded without
    `tracing()`, or changed since; if there are hooks, which would run for each of the two.
    """
    graph = reading.graph
    fused = [n for n in graph.nodes if getattr(n.origin, "op", None) in _COMPOSED]
    if not fused:
        raise ValueError(
            f'{caller}: got a graph without a fused norm, wants one recorded with impl="fused" '
            "(as functional and nn do if they are not told otherwise)"
        )
    reading.want_gradients(caller)
    if OVERWRITTEN in graph.notes:
        raise ValueError(f"{caller}: {OVERWRITTEN}")
    if any(node.origin.refill is not None for node in fused):
        raise ValueError(
            f"{caller}: got a norm inside a checkpoint, wants one that keeps its arrays"
        )
    if any(map(is_hooked, graph.nodes)):
        raise ValueError(
            f"{caller}: got a graph with hooks, which would run for both norms, wants one without"
        )
    near = leading_to(reading, {node.id for node in fused})
    names = {place: name for place, name in reading.names.items() if place[0] in near}
    tensors: dict[tuple[int, int], Tensor] = {}  # by the engine's node and the number of its output
    made: dict[int, list] = {}  # by the number of a node: the engine's nodes in its stead
    for node in graph.nodes:
        if node.kind != "constant":
            made[node.id] = []
            for index, tensor in enumerate(_again(reading, node, names, tensors, made[node.id])):
                tensors[id(node.origin), index] = tensor
    end, index = graph.drawn[0]
    composed = Reading(record(tensors[id(graph.nodes[end].origin), index]), reading.notation)
    for node in composed.graph.nodes:
        if node.kind == "constant" and node.outputs[0].name is None:  # no other may go by its name
            composed.names[node.id, 0] = f"k_{node.id}"
    numbers = {id(n.origin): n.id for n in composed.graph.nodes if n.origin is not None}

    def twin(place: Place) -> Place | None:
        tensor = tensors.get((id(graph.nodes[place[0]].origin), place[1]))
        known = tensor is not None and id(tensor.node) in numbers
        return (numbers[id(tensor.node)], tensor.index) if known else None

    norms = []
    for node in fused:
        places = [(edge.start, edge.output) for edge in reading.edges[node.id]]
        places += node.places
        pairs = {place: twin(place) for place in places}
        norms.append(
            Norm(
                node.id,
                tuple(numbers[id(n)] for n in made[node.id] if id(n) in numbers),
                {place: there for place, there in pairs.items() if there is not None},
            )
        )
    return Twins(reading, composed, tuple(norms))


def leading_to(reading: Reading, ends: Collection[int]) -> set[int]:
    """The nodes from which `ends` are computed, and those."""
    found = set(ends)
    for node in reversed(reading.graph.nodes):
        if node.id in found:
            found |= {edge.start for edge in reading.edges[node.id]}
    return found


def _again(
    reading: Reading, node: Node, names: dict[Place, str], tensors: dict, made: list
) -> list[Tensor]:
    """The outputs of a node, recorded once more; a fused norm as a composed one.

    `names`: what places are called, else as they are in the graph. What is recorded is added to
    `made`, and said to come from where the node came from.
    """
    recorded = node.origin

    def called(place: Place, tensor: Tensor) -> Tensor:
        name = names.get(place, reading.output(place).name)
        return tensor if name is None else named(name, tensor)

    if node.kind == "leaf":
        array = to_device(node.outputs[0].value, reading.graph.device)
        return [called((node.id, 0), at_place(array, recorded))]
    trace = recorded.trace
    arguments = [
        value if parent is None else tensors[id(parent), index]
        for value, parent, index in zip(trace.inputs, recorded.parents, recorded.indices)
    ]
    for edge in reading.edges[node.id]:
        k, value = edge.argument, arguments[edge.argument]
        if recorded.parents[k] is None and hasattr(value, "shape"):
            arguments[k] = called((edge.start, edge.output), at_place(value))

    def note(new: Any, *_: Any) -> None:
        new.trace.source = trace.source
        made.append(new)

    call = _COMPOSED.get(recorded.op, recorded.op)
    given = [arguments] if getattr(call, "variadic", False) else arguments
    with tracing(), scope(trace.scope), journal(note):
        outputs = listed(call(*given, **recorded.kwargs))
    for output in node.outputs:
        called((node.id, output.index), outputs[output.index])
    return outputs


# --- What sets them apart -------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """What the norms of a graph take: ops recorded; kernels launched forward and backward; numbers
    saved for backward, by the places that they are of."""

    ops: int
    forward: int
    backward: int
    saved: dict[Place, int]


def cost(pair: Twins, implementation: str) -> Cost:
    """What the "composed" or the "fused" norms take."""
    reading = getattr(pair, implementation)
    nodes = [number for norm in pair.norms for number in norm.nodes(implementation)]
    launched = [_kernels(pair.fused.graph.nodes[n.fused], implementation) for n in pair.norms]
    return Cost(len(nodes), *map(sum, zip(*launched)), saved(reading, nodes))


def saved(reading: Reading, nodes: Iterable[int]) -> dict[Place, int]:
    """How many numbers nodes keep for backward, by the places that they are of; an array that goes
    by several names is counted once."""
    found: dict[Place, int] = {}
    seen = set()
    for node in nodes:
        recorded = reading.graph.nodes[node].origin
        kept = [
            ((edge.start, edge.output), recorded.arrays[edge.argument])
            for edge in reading.edges[node]
            if recorded.arrays  # there are none if the rules read none
        ]
        kept += [((node, index), array) for index, array in enumerate(recorded.outputs or ())]
        for place, array in kept:
            if hasattr(array, "shape"):
                memory = storage_of(array)
                where = id(memory), *extent(array)
                if where not in seen:
                    seen.add(where)
                    found[place] = min(array.size, memory.size)  # a broadcast array has fewer
    return found


def compared(pair: Twins, norm: Norm) -> list[tuple[Place, bool]]:
    """What is compared of a norm: its y, and, marked True, the gradients of its arguments."""
    arguments = [place for place in norm.places if place[0] != norm.fused]
    return [(place, False) for place in norm.places if place == (norm.fused, 0)] + [
        (place, True) for place in arguments if pair.fused.output(place).gradient is not None
    ]


def difference(pair: Twins) -> float:
    """The largest |difference| between the twins in what is `compared`; NaN where there is one."""
    found = [0.0]
    for norm in pair.norms:
        for place, is_slope in compared(pair, norm):
            ours, theirs = pair.fused.output(place), pair.composed.output(norm.places[place])
            pairs = (ours.gradient, theirs.gradient) if is_slope else (ours.value, theirs.value)
            found.append(_apart(*pairs))
    return float(np.max(found))


def _apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        return np.abs(ours - theirs).max(initial=0.0)


def _kernels(norm: Node, implementation: str) -> tuple[int, int]:
    """How many kernels an implementation launches for a recorded norm, forward and backward.

    A kernel is an op that computes something (a view does not), wherever it stands: in the forward
    pass, in a gradient rule, or where gradients are added; or a function of `kernels/`, whatever
    happens inside of it. They are counted on the CPU, for the recorded arguments and gradients, as
    ops that are recorded; the same ones run if nothing is. What has no gradient (zeros, masks) is
    left out.
    """
    recorded, counter = norm.origin, _Counter()
    function = getattr(IMPLEMENTATIONS[implementation], recorded.op.name)
    arguments = [
        # Constants, too, as leaves, so that ops on them are recorded.
        Tensor(to_device(value, "cpu"), requires_grad=True) if hasattr(value, "shape") else value
        for value in recorded.trace.inputs
    ]
    with journal(counter.note):
        outputs = listed(function(*arguments, **recorded.kwargs))
    forward = counter.count
    gradients = {o.index: o.gradient for o in norm.outputs if o.gradient is not None}
    with journal(counter.note), guarded_by(counter):
        grad(
            [outputs[index] for index in gradients],
            [tensor for tensor, parent in zip(arguments, recorded.parents) if parent is not None],
            [Tensor(gradient, requires_grad=True) for gradient in gradients.values()],
            create_graph=True,
            allow_unused=True,
        )
    return forward, counter.count - forward


class _Counter:
    """Counts the ops that are recorded, and in a backward pass the calls of kernels."""

    def __init__(self) -> None:
        self.count = 0

    def note(self, node: Any, arguments: Sequence, outputs: Sequence) -> None:
        seen = {id(storage_of(a)) for a in arguments if hasattr(a, "shape")}
        self.count += any(id(storage_of(output)) not in seen for output in outputs)

    def gradients(self, node: Any, g: Any, needs: Sequence, create_graph: bool) -> Sequence:
        if not hasattr(node.op.joint, "kernel"):
            return node.op.gradients(node, g, needs, create_graph)
        self.count += 1
        arrays = [None if gi is None else gi.data for gi in g] if node.many else g.data
        found = node.op.gradients(node, arrays, needs, create_graph=False)
        return [None if f is None else Tensor(f, requires_grad=True) for f in found]


def bound(value: float) -> str:
    """The power of ten that a difference does not exceed.

    >>> bound(3.3e-16), bound(0.001), bound(0.0)
    ('≤ 1e−15', '≤ 0.001', '0')
    """
    if value == 0 or not math.isfinite(value):
        return number(value)
    power = math.ceil(math.log10(value))
    power += float(f"1e{power}") < value  # the logarithm is rounded
    return f"≤ {number(float(f'1e{power}'))}"
