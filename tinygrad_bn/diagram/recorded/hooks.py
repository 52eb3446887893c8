"""Hooks, and where they have changed a gradient on its way."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ...transforms import passing

if TYPE_CHECKING:
    from .record import Edge, Node

HOOKED = "hooks changed gradients: what the paths add up to is what was handed to them"


def is_hooked(node: "Node") -> bool:
    """Whether a hook, of a Tensor or of a module, may change a gradient at a node."""
    hooks = getattr(node.origin, "hooks", None) or {}
    return any(hooks.values()) or (_is_of_module(node) and node.origin.kwargs["back"] is not list)


def _is_of_module(node: "Node") -> bool:
    """Whether it stands where a module with backward hooks begins or ends."""
    return getattr(node.origin, "op", None) is passing


def changed_by_hooks(nodes: Iterable["Node"], edges: Iterable["Edge"]) -> set[tuple[int, int]]:
    """The places of which the gradient is not what the edges from them hand on, because of a hook
    there or, for what goes into or comes out of a module, a hook of it."""
    nodes = list(nodes)
    arrived: dict[tuple[int, int], Any] = {}
    changed = set()
    for edge in sorted(edges, key=lambda edge: (-edge.end, edge.argument)):  # as backward adds
        if edge.contribution is not None:
            start, share = (edge.start, edge.output), edge.contribution
            arrived[start] = arrived[start] + share if start in arrived else share
            came = _gradient(nodes[edge.end], edge.argument)
            if _is_of_module(nodes[edge.end]) and came is not None and not _same(came, share):
                changed.add((edge.end, edge.argument))
    for node in nodes:
        for index in getattr(node.origin, "hooks", None) or ():
            came = _gradient(node, index)
            if came is not None and not _same(arrived.get((node.id, index), 1.0), came):
                changed.add((node.id, index))  # at the loss itself 1 has arrived
    return changed


def _gradient(node: "Node", index: int) -> Any:
    return next((o.gradient for o in node.outputs if o.index == index), None)


def _same(a: Any, b: Any) -> bool:
    return np.array_equal(a, np.reshape(b, np.shape(a)), equal_nan=True)
