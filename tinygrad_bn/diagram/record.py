"""The recorded graph of a Tensor or a Scalar as plain data: nodes, edges, and nothing to run.

A node is a leaf, a constant or an op; nodes are numbered in the order in which they may be
computed, so the same program gives the same numbers. Values are copies in host memory.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import graph as engine_graph
from ..backend import to_device
from ..engine import grad, parents, toposort
from ..graph import Leaf, Tensor, at_place
from ..recording import written_since
from ..scalar import Scalar

UNTRACED = "values were not kept: record inside tracing()"
OVERWRITTEN = "values that were changed in place since they were recorded are left out"
NOT_ONE_NUMBER = "no gradients: they are drawn for one output that is a single number"


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


@dataclass(frozen=True)
class Edge:
    """Output number `output` of node `start` is argument number `argument` of node `end`."""

    start: int
    end: int
    argument: int
    output: int


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes, each after those that it is computed from; edges; what a reader must be told."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    notes: tuple[str, ...]


@dataclass
class _Place:
    """What has been found out about one output of a node, or about a constant."""

    shape: tuple[int, ...] | None = None
    dtype: Any = None
    name: str | None = None
    value: Any = None  # as recorded: an array on its device, or a number


def tensor_graph(outputs: Sequence[Tensor], gradients: bool) -> Graph:
    """The graph that leads to `outputs`, at least one of which is recorded.

    With `gradients`, and if there is one output and it is a single number, every place of the graph
    carries the gradient of it. That is a backward pass: hooks run, and a graph that an earlier
    backward freed is a RuntimeError. No `.grad` is changed.
    """
    order = toposort([t.node for t in outputs if t.node is not None], parents)
    places, notes = _places(outputs, order)
    slopes = {}
    if gradients and len(outputs) == 1 and outputs[0].data.size == 1:
        slopes = _gradients(outputs[0], order, places)
    elif gradients:
        notes.append(NOT_ONE_NUMBER)

    nodes, edges, ids = [], [], {}

    def add(key, kind, label="", scope="", source=""):
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
        nodes.append(Node(ids[key], kind, label, known, scope, source))

    for node in reversed(order):
        if isinstance(node, Leaf):
            add(id(node), "leaf")
            continue
        arguments = list(_arguments(node))
        for _, key, _ in arguments:
            if key not in ids:
                add(key, "constant")
        trace = node.trace
        if trace is None:
            add(id(node), "op", node.op.label)
        else:
            add(id(node), "op", node.op.label, trace.scope, os.path.basename(trace.source))
        edges += [Edge(ids[key], ids[id(node)], k, index) for k, key, index in arguments]
    for tensor in outputs:
        if _key(tensor) not in ids:
            add(_key(tensor), "constant")
    return Graph(tuple(nodes), tuple(edges), tuple(notes))


def _key(tensor: Tensor) -> Any:
    """What tells the node of a Tensor from others; constants are told by their arrays."""
    return ("constant", id(tensor.data)) if tensor.node is None else id(tensor.node)


def _arguments(node: engine_graph.Node) -> Iterator[tuple[int, Any, int]]:
    """For each argument that was given: its number, the key of its node, which output of that."""
    for k, (parent, index) in enumerate(zip(node.parents, node.indices)):
        if parent is not None:
            yield k, id(parent), index
        elif node.trace is not None:
            constant = node.trace.inputs[k]
            if hasattr(constant, "shape"):
                yield k, ("constant", id(constant)), 0
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
    return places, [UNTRACED] * untraced + [OVERWRITTEN] * overwritten


def _gradients(output: Tensor, order: list, places: dict) -> dict:
    """The gradient of `output` at every place that it depends on, {(key, output number): array}."""
    spots = [(node, index) for node in order for index in places[id(node)]]
    targets = [at_place(None, node, index) for node, index in spots]
    try:
        answers = grad(output, targets, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        raise RuntimeError(f"{error}; gradients=False draws the graph without them") from error
    return {
        (id(node), index): answer.data
        for (node, index), answer in zip(spots, answers)
        if answer is not None
    }


def _on_host(value: Any) -> np.ndarray | float | None:
    """A copy, for the graph's arrays may be written to after the picture is made."""
    return np.array(to_device(value, "cpu")) if hasattr(value, "shape") else value


def scalar_graph(output: Scalar, gradients: bool) -> Graph:
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
        slope = slopes[id(scalar)] if gradients else None
        result = Output(0, scalar.name, (), "float", scalar.data, slope)
        kind = "op" if scalar.parents else "leaf"
        nodes.append(Node(ids[id(scalar)], kind, scalar.op, (result,), "", ""))
        edges += [
            Edge(ids[id(parent)], ids[id(scalar)], k, 0) for k, parent in enumerate(scalar.parents)
        ]
    return Graph(tuple(nodes), tuple(edges), ())
