"""The backward pass of a graph, one op at a time, in the order in which it runs."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..graph import Tensor
from ..scalar import Scalar
from .drawing.text import LISTED, number, summary
from .formulas.derivatives import Derivative
from .reading import Reading
from .recorded.record import Node, count_ops, record
from .recorded.symbols import Place


@dataclass(frozen=True, eq=False)
class Share:
    """What one step hands on to one place.

    `amount` is added to what was there before, which makes `total`; `first`: nothing was. The two
    are arrays or floats. `derivative` is None if the recorded rule cannot be read (it works on
    arrays only).
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


@np.errstate(all="ignore")  # infinite and undefined slopes are shown, not warned of
def read_backward(loss: Tensor | Scalar, notation: str, caller: str, most: int) -> Reading:
    """The graph of a loss that is to be told step by step, with its gradients and values.

    A TypeError or ValueError, which begins with the name of the caller, for anything else, and for
    more than `most` ops, which are counted first.
    """
    if not isinstance(loss, (Tensor, Scalar)):
        raise TypeError(f"{caller}: got {type(loss).__name__}, wants a Tensor or a Scalar")
    count = count_ops(loss)
    if count > most:
        raise ValueError(
            f"{caller}: got a graph of {count:,} ops, wants up to {most:,}; take a part of it, or "
            'draw it with view="collapsed"'
        )
    reading = Reading(record(loss, caller), notation)
    reading.want_gradients(caller)
    return reading


@np.errstate(all="ignore")
def backward_steps(reading: Reading) -> list[Step]:
    """The steps from the loss, of which gradients are known, to the leaves."""
    graph = reading.graph
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
            derivative = derivatives.get(place)
            totals[place] = amount if first else totals[place] + amount
            shares.append(Share(place, derivative, amount, totals[place], first))
        steps.append(Step(node, arrived, tuple(shares)))
    return steps


# --- Numbers --------------------------------------------------------------------------------------


def told(value: Any) -> str:
    """A number; a few in parentheses, rows apart; mean and deviation of many.

    >>> told(np.array([[0.5, 3.5], [0.0, 1.0]]))
    '(0.5, 3.5; 0, 1)'
    """
    array = np.asarray(value)
    if not 0 < array.size <= LISTED:
        return summary(array)
    each = [number(one) for one in array.ravel().tolist()]
    length = next((n for n in reversed(array.shape) if n != 1), 1)  # of a row
    rows = [", ".join(each[k : k + length]) for k in range(0, len(each), length)]
    return f"({'; '.join(rows)})" if array.size > 1 else rows[0]
