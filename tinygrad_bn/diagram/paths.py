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

from ..backend import to_device
from ..engine import fit
from ..graph import Tensor
from ..recording import guarded_by, no_grad
from ..scalar import Scalar
from .record import Edge, Graph, Node, record
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


def contributions(graph: Graph, end: Place, stops: Set[Place]) -> dict[Place, Any]:
    """What the gradient at `end` adds to the places that it was computed from, up to `stops` and
    the leaves: arrays on the host, or floats. Empty at a leaf, and where there is no gradient.
    """
    edges, last = edges_into(graph), graph.nodes[end[0]]
    gradient = next(output.gradient for output in last.outputs if output.index == end[1])
    if gradient is None or last.kind != "op":
        return {}
    if not isinstance(last.origin, Scalar):
        gradient = to_device(gradient, graph.device)

    def hand_on(node: Node, arriving: dict[int, Any]) -> Iterator[tuple[Place, Any]]:
        if isinstance(node.origin, Scalar):
            for edge in edges[node.id]:
                yield (edge.start, edge.output), arriving[0] * edge.local
            return
        recorded = node.origin
        needs = [parent is not None for parent in recorded.parents]
        g = [arriving.get(i) for i in range(recorded.many)] if recorded.many else arriving[0]
        with no_grad(), guarded_by(None), np.errstate(all="ignore"):
            answers = recorded.op.gradients(recorded, g, needs, create_graph=False)
        for edge in edges[node.id]:
            share = answers[edge.argument]
            if needs[edge.argument] and share is not None:
                share = share.data if isinstance(share, Tensor) else share
                like = g if recorded.likes is None else recorded.likes[edge.argument]
                yield (edge.start, edge.output), fit(share, like, recorded, edge.argument)

    def stopping(place: Place) -> bool:
        return place in stops or graph.nodes[place[0]].kind != "op"

    found = propagate(graph, end[0], {end[1]: gradient}, hand_on, stopping, lambda a, b: a + b)
    return {
        place: to_device(share, "cpu") if hasattr(share, "shape") else share
        for place, share in found.items()
    }


def paths(loss: Tensor | Scalar, to: Tensor | Scalar) -> dict[str, np.ndarray | float]:
    """What each named place that was computed from `to` adds to ∂loss/∂to, by its name.

    The named places are what `named` has named, the leaves, `to` and `loss` itself; a path runs
    from one to the next. The contributions (NumPy arrays of the shape of `to`, floats for Scalars)
    add up to the gradient. The second place that is called y is "y^{(2)}", as in pictures. Record
    inside `tracing()` for the names; a `loss` that is no single number, or was not computed from
    `to`, is a ValueError.

    >>> import tinygrad_bn as tg
    >>> from tinygrad_bn import diagram
    >>> with tg.tracing():
    ...     x = tg.tensor([1.0, 3.0], requires_grad=True)
    ...     mu = tg.named("μ", x.mean())
    ...     loss = tg.named("ℓ", (x * mu).sum())
    >>> diagram.paths(loss, to=x)
    {'μ': array([2., 2.], dtype=float32), 'ℓ': array([2., 2.], dtype=float32)}
    """
    for name, value in (("loss", loss), ("to", to)):
        if not isinstance(value, (Tensor, Scalar)):
            raise TypeError(f"{name}: got {type(value).__name__}, wants a Tensor or a Scalar")
    graph = record(loss)
    origin, index = (to, 0) if isinstance(to, Scalar) else (to.node, to.index)
    here = {id(node.origin): node.id for node in graph.nodes if node.origin is not None}
    place = here.get(id(origin), -1), index
    if place[0] < 0 or place == graph.drawn[0]:
        raise ValueError("to: wants something else that the loss was computed from")
    end = next(o for o in graph.nodes[graph.drawn[0][0]].outputs if o.index == graph.drawn[0][1])
    if end.gradient is None:
        raise ValueError(f"loss: {'; '.join(graph.notes)}")
    names, lecture = symbols_of(graph, "ioffe")
    found = {}
    for start in sorted(lecture - {place}):
        added = contributions(graph, start, lecture | {place})
        if place in added:
            found[names[start]] = added[place]
    return found
