"""How gradients travel from one place of a graph to those it was computed from, path by path.

The contribution of a path is a vector-Jacobian product: it starts at a named place, with the whole
gradient there, and stops at the next named ones. So the contributions that reach a place add up to
its gradient.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Any

import numpy as np

from ...backend import to_device
from ...graph import Tensor
from ...scalar import Scalar
from .record import MOST_OPS, Edge, Graph, Node, check_single, record, run_rule
from .symbols import Place, symbols_of


def edges_into(graph: Graph) -> dict[int, list[Edge]]:
    """The edges that end at each node, in the order of its arguments."""
    edges = defaultdict(list)
    for edge in graph.edges:
        edges[edge.end].append(edge)
    return edges


def propagate(
    graph: Graph,
    end: int,
    arriving: Mapping[int, Any],
    hand_on: Callable[[Node, dict[int, Any]], Iterable[tuple[Place, Any]]],
    stops: Callable[[Place], bool],
    add: Callable[[Any, Any], Any],
) -> dict[Place, Any]:
    """Take what arrives at outputs of node `end` back through the graph, to the places at which it
    stops. `hand_on(node, {output: what arrived})` gives the shares of the node's arguments; where
    several meet they are added."""
    found: dict[Place, Any] = {}
    waiting: dict[int, dict[int, Any]] = {end: dict(arriving)}
    queue = [-end]  # the highest number first: whatever hands on to a node is through before it
    while queue:
        node = graph.nodes[-heapq.heappop(queue)]
        for place, share in hand_on(node, waiting.pop(node.id)):
            number, index = place
            if stops(place):
                found[place] = add(found[place], share) if place in found else share
                continue
            if number not in waiting:
                heapq.heappush(queue, -number)
                waiting[number] = {}
            met = waiting[number]
            met[index] = add(met[index], share) if index in met else share
    return dict(sorted(found.items()))


def contributions(
    graph: Graph, edges: Mapping[int, list[Edge]], end: Place, stops: Set[Place]
) -> dict[Place, Any]:
    """What the gradient at `end` adds to the places that it was computed from, up to `stops` and
    the leaves: arrays on the host, or floats. Empty at a leaf, and where there is no gradient.
    `edges`: those that end at each node.
    """
    last = graph.nodes[end[0]]
    gradients = {output.index: output.gradient for output in last.outputs}
    if gradients[end[1]] is None or last.kind != "op":
        return {}
    is_alone = sum(gradient is not None for gradient in gradients.values()) == 1

    def hand_on(node: Node, arriving: dict[int, Any]) -> Iterator[tuple[Place, Any]]:
        recorded, shares = node.origin, None
        if node is last and is_alone:  # as it was in the backward pass itself, hooks and all
            shares = {edge.argument: edge.contribution for edge in edges[node.id]}
        elif isinstance(recorded, Scalar):
            shares = {edge.argument: arriving[0] * edge.local for edge in edges[node.id]}
        else:
            needs = [parent is not None for parent in recorded.parents]
            g = {index: to_device(one, graph.device) for index, one in arriving.items()}
            g = [g.get(i) for i in range(recorded.many)] if recorded.many else g[0]
            found = run_rule(recorded, g, needs)
            shares = {k: to_device(share, "cpu") for k, share in found.items()}
        for edge in edges[node.id]:
            if shares.get(edge.argument) is not None:
                yield (edge.start, edge.output), shares[edge.argument]

    def stopping(place: Place) -> bool:
        return place in stops or graph.nodes[place[0]].kind != "op"

    first = {end[1]: gradients[end[1]]}
    return propagate(graph, end[0], first, hand_on, stopping, lambda a, b: a + b)


def paths(loss: Tensor | Scalar, to: Tensor | Scalar) -> dict[str, np.ndarray | float]:
    """What each named place that was computed from `to` adds to ∂loss/∂to, by its name.

    The named places are what `named` has named, the leaves, `to` and `loss` itself; a path runs
    from one to the next. The contributions (NumPy arrays of the shape of `to`, floats for Scalars)
    add up to the gradient, as it is before the hooks of `to` itself. A second place that is called
    y is "y^{(2)}", as in pictures. Record inside `tracing()` for the names. It is computed here, in
    a backward pass that runs hooks and changes no `.grad`. A `loss` that is no single number, that
    was not computed from `to`, or of more than 10,000 ops, is a ValueError.

    >>> import tinygrad_bn as tg
    >>> from tinygrad_bn import diagram
    >>> with tg.tracing():
    ...     x = tg.tensor([1.0, 3.0], requires_grad=True)
    ...     mu = tg.named("μ", x.mean())
    ...     loss = tg.named("ℓ", (x * mu).sum())
    >>> diagram.paths(loss, to=x)
    {'μ': array([2., 2.], dtype=float32), 'ℓ': array([2., 2.], dtype=float32)}
    """
    check_single("loss", loss)
    check_single("to", to)
    graph = record(loss, "loss", MOST_OPS)
    origin, index = (to, 0) if isinstance(to, Scalar) else (to.node, to.index)
    here = {id(node.origin): node.id for node in graph.nodes if node.origin is not None}
    place = here.get(id(origin), -1), index
    if place[0] < 0 or place == graph.drawn[0]:
        raise ValueError("to: wants something else that the loss was computed from")
    end = next(o for o in graph.nodes[graph.drawn[0][0]].outputs if o.index == graph.drawn[0][1])
    if end.gradient is None:
        raise ValueError(f"loss: {'; '.join(graph.notes)}")
    names, lecture = symbols_of(graph, "ioffe")
    found, edges = {}, edges_into(graph)
    for start in sorted(lecture - {place}):
        added = contributions(graph, edges, start, lecture | {place})
        if place in added:
            found[names[start]] = added[place]
    return found
