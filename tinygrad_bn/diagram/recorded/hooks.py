"""Where hooks have changed a gradient on its way."""

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ...transforms import passing

if TYPE_CHECKING:
    from .record import Edge, Node

HOOKED = "hooks changed gradients: what the paths add up to is what was handed to them"


def changed_by_hooks(nodes: Iterable["Node"], edges: Iterable["Edge"]) -> set[tuple[int, int]]:
    """The places of which the gradient is not what the edges from them hand on, because of a hook
    there or, for what goes into or comes out of a module, a hook of it."""
    nodes = list(nodes)
    arrived: dict[tuple[int, int], Any] = defaultdict(float)
    changed = set()
    for edge in edges:
        if edge.contribution is not None:
            arrived[edge.start, edge.output] = arrived[edge.start, edge.output] + edge.contribution
            came = _gradient(nodes[edge.end], edge.argument)
            is_of_module = getattr(nodes[edge.end].origin, "op", None) is passing
            if is_of_module and came is not None and not _same(came, edge.contribution):
                changed.add((edge.end, edge.argument))
    for node in nodes:
        for index in getattr(node.origin, "hooks", None) or ():
            given, came = arrived.get((node.id, index)), _gradient(node, index)
            if given is not None and came is not None and not _same(given, came):
                changed.add((node.id, index))
    return changed


def _gradient(node: "Node", index: int) -> Any:
    return next((o.gradient for o in node.outputs if o.index == index), None)


def _same(a: Any, b: Any) -> bool:
    """Whether two sums of the same terms are equal, but for the order of the terms."""
    precision = 8 * np.finfo(np.asarray(b).dtype).eps
    return np.allclose(
        a, b, rtol=precision, atol=precision * np.abs(b).max(initial=0), equal_nan=True
    )
