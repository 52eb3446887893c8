"""The backward pass of a graph, one op at a time, in the order in which it runs."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..graph import Tensor
from ..scalar import Scalar
from .drawing.cells import is_numbered
from .drawing.text import number, summary
from .formulas.derivatives import Derivative
from .reading import Reading
from .recorded.record import Node, check_single, record
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
def read_backward(loss: Tensor | Scalar, notation: str, most: int) -> Reading:
    """The graph of a loss that is to be told step by step, with its gradients and values.

    A TypeError or ValueError for anything else, and for more than `most` ops.
    """
    check_single("loss", loss)
    reading = Reading(record(loss, "loss", most), notation)
    reading.want_gradients("loss")
    return reading


@np.errstate(all="ignore")
def backward_steps(reading: Reading) -> list[Step]:
    """The steps from the loss, of which gradients are known, to the leaves."""
    graph = reading.graph
    totals: dict[Place, Any] = {}
    steps = []
    for node in reversed(graph.nodes):
        arrived = tuple(p for p in node.places if reading.output(p).gradient is not None)
        if node.kind != "op" or not arrived:
            continue
        amounts: dict[Place, Any] = {}
        known = set(totals)
        for edge in reading.edges[node.id]:
            start, share = (edge.start, edge.output), edge.contribution
            for sums in (amounts, totals) if share is not None else ():
                # One by one, as the engine does: so the totals are rounded as it has rounded them.
                sums[start] = sums[start] + share if start in sums else share
        arriving = {index: reading.gradient((number, index)) for number, index in arrived}
        derivatives = reading.of_ops.derivatives(node.id, arriving)
        shares = tuple(
            Share(place, derivatives.get(place), amount, totals[place], place not in known)
            for place, amount in amounts.items()
        )
        steps.append(Step(node, arrived, shares))
    return steps


# --- Numbers --------------------------------------------------------------------------------------


def told(value: Any) -> str:
    """A number; those that pictures number in parentheses, rows apart; mean and deviation of more.

    >>> told(np.array([[0.5, 3.5], [0.0, 1.0]]))
    '(0.5, 3.5; 0, 1)'
    """
    array = np.asarray(value)
    if array.size != 1 and not is_numbered(array):
        return summary(array)
    each = [number(one) for one in array.ravel().tolist()]
    length = next((n for n in reversed(array.shape) if n != 1), 1)  # of a row
    rows = [", ".join(each[k : k + length]) for k in range(0, len(each), length)]
    return f"({'; '.join(rows)})" if array.size > 1 else rows[0]
