"""What the places of a graph are called, in the notation of a lecture."""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping

import numpy as np

from ..drawing.arguments import one_of
from ..drawing.text import clean
from .record import Graph, Node, Output

Place = tuple[int, int]  # the number of a node, and of one of its outputs

# How a notation calls what `named` has named. "a+b" is the unnamed sum of what is called a and b;
# None is a name that is no symbol of this notation.
NOTATIONS: dict[str, dict[str, str | None]] = {
    "ioffe": {},  # Ioffe & Szegedy (2015), as `norm.composed` names them
    "fleuret": {"μ_B": "m̂", "σ²_B": "v̂", "x̂": "z", "ℓ": "𝓛"},  # EE-559, lecture 6.4
    "hat": {"μ_B": "μ̂", "σ²_B": None, "σ²_B+ε": "σ̂²"},  # with ε inside σ̂²
}

# What an unnamed result is called, by the label of its op: a difference d, a square q, …
_LETTERS = {"−": "d", "²": "q", "×": "up", "+": "v", "√": "s", "÷": "r", "@": "h", "linear": "h"}
_LETTERS |= {"mean": "a", "Σ": "t", "exp": "e"}
_OTHER = {"leaf": "x", "constant": "c", "op": "z"}

# A name that looks like a symbol: a letter, an accent, a square, `_` and what stands below, `^` and
# what stands above.
SYMBOL = re.compile(
    r"([^\W\d_][\u0300-\u036f]?)([²³]?)(?:_(\w{1,4}|\{[^{}]{1,12}\}))?(?:\^(\w|\{[^{}]{1,12}\}))?"
)


def symbols_of(graph: Graph, notation: str) -> tuple[dict[Place, str], set[Place]]:
    """The symbol of every place, and the places that are the lecture's: the leaves, the outputs,
    what was named, as far as the notation knows it, and where a hook may change the gradient.

    No two places have the same symbol, but for numbers of one name and value. A name that comes
    again is numbered; what has no name gets a letter that tells what made it. An unknown notation
    is a ValueError.
    """
    renamed = NOTATIONS[one_of("notation", notation, NOTATIONS)]
    outputs = {(node.id, output.index): output for node in graph.nodes for output in node.outputs}
    arguments: dict[int, list[Place]] = {node.id: [] for node in graph.nodes}
    for edge in graph.edges:
        arguments[edge.end].append((edge.start, edge.output))
    used = {edge.start for edge in graph.edges}
    unique = _Unique()
    names: dict[Place, str | None] = dict.fromkeys(outputs)  # in the order of computation
    lecture = set()

    def given(node: Node, output: Output) -> str | None:
        if is_visible(output.name):
            return output.name
        if node.id not in used and output.shape == ():
            return "ℓ"
        sum_of = "+".join(str(outputs[place].name) for place in arguments[node.id])
        return sum_of if node.label == "+" and sum_of in renamed else None

    for place, output in outputs.items():
        node = graph.nodes[place[0]]
        name = given(node, output)
        symbol = None if name is None else _renamed(name, renamed)
        is_end = node.kind == "leaf" or node.id not in used
        if symbol is not None or is_end or place in graph.hooked:
            lecture.add(place)
        if name is not None:
            is_number = node.kind == "constant" and output.dtype is None
            names[place] = unique.named(
                symbol or name, (name, output.value) if is_number else place
            )
    for place in outputs:
        if names[place] is None:
            node = graph.nodes[place[0]]
            factors = arguments[node.id]
            is_squared = node.label == "×" and len(factors) == 2 and len(set(factors)) == 1
            label = "²" if is_squared else node.label
            names[place] = unique.letter(_LETTERS.get(label, _OTHER[node.kind]))
    return names, lecture


def _renamed(name: str, renamed: Mapping[str, str | None]) -> str | None:
    """What a notation calls a name; one with an index as the one without: x̂_1 is z_1."""
    for known, symbol in renamed.items():
        if name == known or name.startswith((f"{known}_", f"{known}^")):
            return symbol and symbol + name.removeprefix(known)
    return name


class _Unique:
    """Symbols that are given once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._counts: Counter = Counter()  # how many numbers of a name have been looked at
        self._given: dict[tuple[str, Hashable], str] = {}

    def named(self, name: str, what: Hashable) -> str:
        """`name`, numbered if it was given to something else than `what`."""
        if (name, what) not in self._given:
            self._given[name, what] = self._first(name, numbered)
        return self._given[name, what]

    def letter(self, letters: str) -> str:
        """One of the letters that is not taken, else the first of them with a number."""
        free = [letter for letter in letters if letter not in self._taken]
        if free:
            self._taken.add(free[0])
            return free[0]
        return self._first(letters, lambda letters, k: f"{letters[0]}_{k + 1}")

    def _first(self, name: str, candidate: Callable[[str, int], str]) -> str:
        while True:
            self._counts[name, candidate is numbered] += 1
            found = candidate(name, self._counts[name, candidate is numbered])
            if found not in self._taken:
                self._taken.add(found)
                return found


def numbered(name: str, k: int) -> str:
    """The name for the k-th thing that has it, as it is shown.

    >>> numbered("x̂", 1), numbered("x̂", 2), numbered("weight", 2)
    ('x̂', 'x̂^{(2)}', 'weight_2')
    """
    name = clean(name)
    if k == 1:
        return name
    match = SYMBOL.fullmatch(name)
    return f"{name}^{{({k})}}" if match and not match[4] else f"{name[:_LONGEST_NUMBERED]}_{k}"


_LONGEST_NUMBERED = 30  # characters of a name that is numbered


def is_visible(name: str | None) -> bool:
    """Whether it is a name that leaves a mark on paper."""
    return name is not None and bool(clean(name).strip())


def is_plain_number(node: Node) -> bool:
    """Whether it is a constant without a name that formulas show as its number: not a truth."""
    (output, *_) = node.outputs
    known = np.size(output.value) == 1 and np.asarray(output.value).dtype.kind in "iuf"
    return node.kind == "constant" and not is_visible(output.name) and known
