"""The backward pass of a graph, one op at a time, in the order in which it runs."""

from dataclasses import dataclass
from typing import Any

from .formulas.derivatives import Derivative
from .reading import Reading
from .recorded.record import Node
from .recorded.symbols import Place


@dataclass(frozen=True, eq=False)
class Share:
    """What one step hands on to one place.

    `amount` is added to what was there before, which makes `total`; `first`: nothing was. The two
    are arrays or floats. `derivative` is None if the recorded rule cannot be read (no tracing).
    """

    place: Place
    derivative: Derivative | None
    amount: Any
    total: Any
    first: bool


@dataclass(frozen=True, eq=False)
class Step:
    """The step through `node`: at its places `arrived` gradients are finished, and it hands on."""

    node: Node
    arrived: tuple[Place, ...]
    shares: tuple[Share, ...]


def backward_steps(reading: Reading) -> list[Step]:
    """The steps from the loss to the leaves. A ValueError where there are no gradients."""
    graph = reading.graph
    if reading.loss is None:
        raise ValueError("; ".join(graph.notes))
    totals: dict[Place, Any] = {}
    steps = []
    for node in reversed(graph.nodes):
        places = [(node.id, output.index) for output in node.outputs]
        arrived = tuple(p for p in places if reading.output(p).gradient is not None)
        if node.kind != "op" or not arrived:
            continue
        amounts: dict[Place, Any] = {}
        for edge in reading.edges[node.id]:
            start = edge.start, edge.output
            if edge.contribution is not None:
                met = start in amounts
                amounts[start] = amounts[start] + edge.contribution if met else edge.contribution
        arriving = {index: reading.gradient((number, index)) for number, index in arrived}
        derivatives = reading.of_ops.derivatives(node.id, arriving)
        shares = []
        for place, amount in amounts.items():
            first = place not in totals
            totals[place] = amount if first else totals[place] + amount
            derivative = derivatives.get(place)
            shares.append(Share(place, derivative, amount, totals[place], first))
        steps.append(Step(node, arrived, tuple(shares)))
    return steps
