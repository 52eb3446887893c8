"""The recorded graph of a Tensor or a Scalar as plain data: nodes, edges, and nothing to run.

A node is a leaf, a constant or an op; nodes are numbered in the order in which they may be
computed, so the same program gives the same numbers, and backward runs through the numbers
downwards. Values are copies in host memory.
"""

import math
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ... import graph as engine_graph
from ...backend import describe, to_device
from ...engine import fit, grad, listed
from ...graph import Leaf, Tensor, at_place, parents, toposort
from ...memory import extent, storage_of
from ...norm.axes import FAMILY
from ...recording import guarded_by, no_grad, tracing, written_since
from ...scalar import Scalar
from ...transforms import passing
from .hooks import HOOKED, changed_by_hooks

UNTRACED = "values were not kept: record inside tracing()"
VARIANCES = {member.variance for member in FAMILY.values()}
MOST_OPS = 10_000  # of a graph of which each op is looked at; to look at more takes long
OVERWRITTEN = "values that were changed in place since they were recorded are left out"


@dataclass(frozen=True, eq=False)
class Output:
    """One result of a node; None stands for what is not known of it."""

    index: int
    name: str | None
    shape: tuple[int, ...] | None
    dtype: str | None
    value: np.ndarray | float | None
    gradient: np.ndarray | float | None  # of the drawn output, at this place


@dataclass(frozen=True, eq=False)
class Node:
    """A leaf, a constant or an op, with those of its outputs that are used or named."""

    id: int
    kind: str  # "leaf", "constant" or "op"
    label: str  # of the op; "" for the others
    outputs: tuple[Output, ...]
    scope: str  # the modules it ran in, outermost first, with dots between
    source: str  # "file.py:line" of the user's program
    origin: Any = field(repr=False)  # the Node, Leaf or Scalar; None for a constant

    @property
    def places(self) -> list[tuple[int, int]]:
        return [(self.id, output.index) for output in self.outputs]


@dataclass(frozen=True, eq=False)
class Edge:
    """Output number `output` of node `start` is argument number `argument` of node `end`.

    `contribution`: what backward hands on through it, summed to the shape of the argument; None
    where no gradient comes. `local`: the derivative along it, for Scalars, which keep it.
    """

    start: int
    end: int
    argument: int
    output: int
    contribution: np.ndarray | float | None = None
    local: float | None = None


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes, each after those that it is computed from; edges; what a reader must be told; the
    number of the node and of its output for each thing that was drawn; the device it is on; the
    places where hooks changed the gradient.

    `backward`: if the backward pass was recorded, what was drawn, the gradients from the end to the
    leaves, and the gradient at the end.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    notes: tuple[str, ...]
    drawn: tuple[tuple[int, int], ...]
    device: str = "cpu"
    hooked: frozenset[tuple[int, int]] = frozenset()
    backward: tuple[Tensor, ...] = ()


@dataclass
class _Place:
    """What has been found out about one output of a node, or about a constant."""

    shape: tuple[int, ...] | None = None
    dtype: Any = None
    name: str | None = None
    value: Any = None  # as recorded: an array on its device, or a number


def check_single(argument: str, value: Any) -> None:
    """A TypeError for what is no Tensor and no Scalar."""
    if not isinstance(value, (Tensor, Scalar)):
        raise TypeError(f"{argument}: got {type(value).__name__}, wants a Tensor or a Scalar")


def ops_of(output: Tensor | Scalar | Sequence[Tensor]) -> list:
    """The ops that lead to what would be recorded; nothing else is found out about them."""
    if isinstance(output, Scalar):
        return [one for one in toposort([output], lambda one: one.parents) if one.parents]
    roots = [getattr(tensor, "node", None) for tensor in listed(output)]
    order = toposort([node for node in roots if node is not None], parents)
    return [node for node in order if not isinstance(node, Leaf)]


def record(
    output: Tensor | Scalar | Sequence[Tensor],
    argument: str = "output",
    most: float = math.inf,
    create_graph: bool = False,
) -> Graph:
    """The graph that leads to a Tensor, to several of them, or to a Scalar.

    A TypeError for anything else; a ValueError if no Tensor was recorded, or for more than `most`
    ops, which are counted first. They begin with the name of the argument. With `create_graph` the
    graph keeps the recorded backward pass of Tensors.
    """
    outputs = listed(output)
    for tensor in outputs if not isinstance(output, Scalar) else ():
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{argument}: got {type(tensor).__name__}, wants a Tensor, a sequence of Tensors "
                "or a Scalar"
            )
    if not outputs:
        raise ValueError(f"{argument}: got an empty sequence, wants at least one Tensor")
    count = len(ops_of(output))
    if count > most:
        raise ValueError(
            f"{argument}: got a graph of {count:,} ops, wants up to {most:,}; take a part of it, "
            'or record it inside tracing() and draw it with view="collapsed"'
        )
    if isinstance(output, Scalar):
        return scalar_graph(output)
    if all(tensor.node is None for tensor in outputs):
        got = ", ".join(describe(tensor.data) for tensor in outputs)
        raise ValueError(
            f"{argument}: got {got} without a graph, wants what ops made of Tensors with "
            "requires_grad=True, outside no_grad()"
        )
    return tensor_graph(outputs, create_graph)


def tensor_graph(outputs: Sequence[Tensor], create_graph: bool = False) -> Graph:
    """The graph that leads to `outputs`, at least one of which is recorded.

    If there is one output and it is a single number, every place of the graph carries the gradient
    of it, and every edge what it hands on. That is a backward pass, recorded with `create_graph`:
    hooks run, but no `.grad` is changed. What is missing is said in the notes.
    """
    order = toposort([t.node for t in outputs if t.node is not None], parents)
    places, notes = _places(outputs, order)
    slopes, shares, backward = {}, {}, ()
    if len(outputs) > 1 or outputs[0].data.size != 1:
        got = f"{len(outputs)} outputs" if len(outputs) > 1 else f"shape {outputs[0].shape}"
        notes.append(f"no gradients: got {got}, wants a single number, as of .sum() or .mean()")
    elif freed := [n.op for n in order if not isinstance(n, Leaf) and is_freed(n)]:
        notes.append(
            f"no gradients: {freed[0].name}: backward ran through this graph before and freed it: "
            "call this before backward(), or call backward(retain_graph=True)"
        )
    else:
        try:
            slopes, shares, backward = _gradients(outputs[0], order, places, create_graph)
        except RuntimeError as error:  # something was written into the graph
            notes.append(f"no gradients: {error}")

    nodes, edges, ids = [], [], {}

    def add(key, kind, origin=None, label="", scope="", source=""):
        ids[key] = len(nodes)
        known = tuple(
            Output(
                index,
                place.name,
                place.shape,
                None if place.dtype is None else str(place.dtype),
                _on_host(place.value),
                _on_host(slopes.get((key, index))),
            )
            for index, place in sorted(places[key].items())
        )
        nodes.append(Node(ids[key], kind, label, known, scope, source, origin))

    for node in reversed(order):
        if isinstance(node, Leaf):
            add(id(node), "leaf", node)
            continue
        arguments = list(_arguments(node))
        for _, key, _ in arguments:
            if key not in ids:
                add(key, "constant")
        trace = node.trace
        where = () if trace is None else (trace.scope, os.path.basename(trace.source))
        add(id(node), "op", node, node.op.label, *where)
        edges += [
            Edge(ids[key], ids[id(node)], k, index, _on_host(shares.get((id(node), k))))
            for k, key, index in arguments
        ]
    for tensor in outputs:
        if _key(tensor) not in ids:
            add(_key(tensor), "constant")
    if hooked := changed_by_hooks(nodes, edges):
        notes.append(HOOKED)
    drawn = tuple((ids[_key(tensor)], tensor.index) for tensor in outputs)
    facts = outputs[0].device, frozenset(hooked), backward
    return Graph(tuple(nodes), tuple(edges), tuple(notes), drawn, *facts)


def is_freed(node: engine_graph.Node) -> bool:
    """Whether backward ran through a node and took the arrays that its rule reads."""
    return node.arrays is None and node.refill is None


def _key(tensor: Tensor) -> Any:
    """What tells the node of a Tensor from others; constants are told by their arrays."""
    return _constant(tensor.data) if tensor.node is None else id(tensor.node)


def _constant(array: Any) -> tuple:
    """What tells an array from others; the same memory seen the same way is the same array."""
    if isinstance(array, np.generic):
        return "constant", id(array)
    where = id(storage_of(array)), *extent(array)
    return "constant", *where, array.shape, array.strides, array.dtype


def _arguments(node: engine_graph.Node) -> Iterator[tuple[int, Any, int]]:
    """For each argument that was given: its number, the key of its node, which output of that."""
    for k, (parent, index) in enumerate(zip(node.parents, node.indices)):
        if parent is not None:
            yield k, id(parent), index
        elif node.trace is not None:
            constant = node.trace.inputs[k]
            if hasattr(constant, "shape"):
                yield k, _constant(constant), 0
            elif constant is not None:
                yield k, ("constant", id(node), k), 0
        elif node.likes is None or node.likes[k] is not None:
            yield k, ("constant", id(node), k), 0


def _places(outputs: Sequence[Tensor], order: list) -> tuple[dict, list[str]]:
    """What is known of all places, {key of a node: {output number: _Place}}, and notes about it.

    A node tells of its arguments, and what was traced of its outputs. Consumers come first in
    `order`, so where a node was not traced its shape is known when its turn comes.
    """
    places = defaultdict(lambda: defaultdict(_Place))
    untraced = overwritten = False
    for tensor in outputs:
        place = places[_key(tensor)][tensor.index]
        place.shape, place.dtype, place.name = tensor.shape, tensor.dtype, tensor.name
        if tensor.is_leaf:
            place.value = tensor.data
    for node in order:
        if isinstance(node, Leaf):
            continue
        trace, mine = node.trace, places[id(node)]
        untraced |= trace is None
        if trace is not None:
            for index in {*mine, *trace.names}:
                place, array = mine[index], trace.outputs[index]
                place.shape, place.dtype, place.value = array.shape, array.dtype, array
                place.name = trace.names.get(index, place.name)
        for k, key, index in _arguments(node):
            place = places[key][index]
            if trace is not None:
                value = trace.inputs[k]
                if written_since(value, node.time):
                    overwritten = True
                else:
                    place.value = value
                place.name = place.name or trace.input_names[k]
                place.shape, place.dtype = np.shape(value), getattr(value, "dtype", None)
            elif node.likes is not None:
                place.shape, place.dtype = node.likes[k].shape, node.likes[k].dtype
            elif node.parents[k] is not None:  # without `likes`, all Tensors are as the output
                place.shape, place.dtype = mine[0].shape, mine[0].dtype
    for node in order:
        if not isinstance(node, Leaf):
            _name_epsilon(node, places)
    return places, [UNTRACED] * untraced + [OVERWRITTEN] * overwritten


def _name_epsilon(node: engine_graph.Node, places: dict) -> None:
    """The number that is added to a variance is ε; a Python float cannot carry its name itself."""
    if node.op.label == "+" and len(node.parents) == 2 and None in node.parents:
        one, other = (places[key][index] for _, key, index in _arguments(node))
        if one.name in VARIANCES and other.name is None and isinstance(other.value, float):
            other.name = "ε"


class _Ledger:
    """Runs the gradient rules of a backward pass and writes down what each hands on."""

    def __init__(self) -> None:
        self.shares: dict = {}  # (id of a node, number of an argument) -> its gradient, fitted

    def gradients(self, node, g, needs, create_graph):
        with guarded_by(None):
            found = node.op.gradients(node, g, needs, create_graph)
        for k, share in _fitted(node, g, needs, found).items():
            self.shares[id(node), k] = share
        return found


def run_rule(node: engine_graph.Node, g: Any, needs: Sequence[bool]) -> dict[int, Any]:
    """What the gradient rule of a recorded node makes of `g`, for another look: the gradients of
    the arguments that need one, by their numbers. The backward hooks of a module are not called.
    """
    if node.op is passing:
        found = g
    else:
        with no_grad(), guarded_by(None), np.errstate(all="ignore"):
            found = node.op.gradients(node, g, needs, create_graph=False)
    return _fitted(node, g, needs, found)


def _fitted(node: engine_graph.Node, g: Any, needs: Sequence[bool], found: Sequence) -> dict:
    """What a rule returned, as arrays, each summed to the shape of its argument."""
    fitted = {}
    with no_grad():
        for k, (share, need) in enumerate(zip(found, needs)):
            if share is not None and need:
                share = share.data if isinstance(share, Tensor) else share
                fitted[k] = fit(share, g if node.likes is None else node.likes[k], node, k)
    return fitted


def _gradients(output: Tensor, order: list, places: dict, create_graph: bool) -> tuple:
    """The gradient of `output` at every place that it depends on, {(key, output number): array};
    what backward hands on to each argument, {(key, argument number): array}; and the recorded pass,
    for `Graph.backward`."""
    spots = [(node, index) for node in order for index in sorted(places[id(node)])]
    targets = [at_place(None, node, index) for node, index in spots]
    # A gradient that is a leaf, so that every step from it is recorded.
    ones = np.ones(output.shape, output.dtype)
    one = Tensor(to_device(ones, output.device), requires_grad=True)
    ledger = _Ledger()
    with tracing(), guarded_by(ledger):
        options = {"retain_graph": True, "create_graph": create_graph, "allow_unused": True}
        answers = grad(output, targets, one, **options)
    found = {
        (id(node), index): answer
        for (node, index), answer in zip(spots, answers)
        if answer is not None
    }
    backward = (output, *found.values(), one) if create_graph else ()
    return {place: answer.data for place, answer in found.items()}, ledger.shares, backward


def _on_host(value: Any) -> np.ndarray | float | None:
    """A copy, for the graph's arrays may be written to after the picture is made."""
    return np.array(to_device(value, "cpu")) if hasattr(value, "shape") else value


def scalar_graph(output: Scalar) -> Graph:
    """The graph that leads to a Scalar, with the derivative of `output` by every Scalar in it.

    The derivatives are computed here and `.grad` is left alone.
    """
    order = toposort([output], lambda scalar: scalar.parents)
    slopes = dict.fromkeys(map(id, order), 0.0)
    slopes[id(output)] = 1.0
    for scalar in order:
        for parent, slope in zip(scalar.parents, scalar.local):
            slopes[id(parent)] += slopes[id(scalar)] * slope
    ids = {id(scalar): number for number, scalar in enumerate(reversed(order))}
    nodes, edges = [], []
    for scalar in reversed(order):
        slope = slopes[id(scalar)]
        result = Output(0, scalar.name, (), "float", scalar.data, slope)
        kind = "op" if scalar.parents else "leaf"
        nodes.append(Node(ids[id(scalar)], kind, scalar.op, (result,), "", "", scalar))
        edges += [
            Edge(ids[id(parent)], ids[id(scalar)], k, 0, slope * local, local)
            for k, (parent, local) in enumerate(zip(scalar.parents, scalar.local))
        ]
    return Graph(tuple(nodes), tuple(edges), (), ((ids[id(output)], 0),))
