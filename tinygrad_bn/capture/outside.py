"""Leaves that a step reaches and that are not in its state: their gradients must stay."""

from typing import Any

from ..backend import assign, copied
from ..graph import Leaf


class Outside:
    """Those that ops recorded while `note` was their journal, and their gradients before."""

    def __init__(self, inside: list[Leaf]) -> None:
        self.inside = set(inside)
        self.found: dict[Leaf, tuple] = {}  # the gradient, and what was in its home

    def note(self, node: Any, _arguments: Any, _outputs: Any) -> None:
        for leaf in node.parents:
            if isinstance(leaf, Leaf) and leaf not in self.inside and leaf not in self.found:
                home = copied(leaf.home) if leaf.is_at_home else None
                self.found[leaf] = leaf.gradient, home

    def moved(self) -> set[Leaf]:
        """Those whose gradient is another now."""
        return {
            leaf for leaf, (gradient, home) in self.found.items() if _moved(leaf, gradient, home)
        }

    def restore(self) -> None:
        for leaf, (gradient, home) in self.found.items():
            leaf.gradient, leaf.is_at_home = gradient, home is not None
            if home is not None:
                assign(leaf.home, home)


def _moved(leaf: Leaf, gradient: Any, home: Any) -> bool:
    if home is None:
        return leaf.gradient is not gradient or bool(leaf.is_at_home)
    return not leaf.is_at_home or bool((leaf.home != home).any())
