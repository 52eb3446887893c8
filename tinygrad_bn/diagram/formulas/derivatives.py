"""What the ops of a graph compute, and their local derivatives, as formulas.

No derivative is written down here: it is read off the gradient rule of the op (`rules.py`). So an
op of the user's own has one too.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backend import to_device
from ...reduction import kept_shape
from ...scalar import Scalar
from ..recorded.paths import edges_into, propagate
from ..recorded.record import Graph, Node, Output
from ..recorded.symbols import Place, is_plain_number
from .computed import Call, applied, scalar_formula, spread, uncancelled
from .factors import factor_of
from .formula import (
    ZERO,
    Apply,
    Formula,
    Gradient,
    Product,
    Reshaped,
    Sigma,
    Sum,
    Symbol,
    broadcast_axes,
    minus,
    number,
    plus,
    reshaped,
    shape_of,
    sigma,
    symbols,
    times,
    varies,
    within,
)  # fmt: skip
from .indices import is_of_matrices
from .rules import RuleReader, short, values_in_a_mean
from .scalar_rules import scalar_slopes

_SHAPE_ONLY = ("reshape", "expand_dims", "squeeze")


_CANCELLING = {"add", "sub", "mul", "div", "pow"}


@dataclass(frozen=True, eq=False)
class Derivative:
    """How the gradients that arrive at a node lead to that of a place it was computed from.

    `gradient` is what backward makes of them, summed to the shape of the place. `factor` is what an
    entry of a single one is multiplied by, None if it is more than multiplied; `numbers` are those
    of the factor, None where it leads over several ops, or a rule sums by itself. `vanishes`: the
    gradient is 0 on paper, whatever comes out in numbers. `where` says what the symbols mean that
    are no places of the graph: those by which a rule calls what it computes.
    """

    gradient: Formula
    factor: Formula | None
    numbers: Any
    vanishes: bool
    where: Mapping[Symbol, Formula]


class Formulas:
    """The formulas of a recorded graph, written with the symbols of the places `written`.

    `names` has the symbol of every place; `renamed` is how a notation calls what rules name.
    `definitions` is what each op computes. `m` is the number of values that go into each mean, if
    it is the same for all: then formulas write it as m.
    """

    def __init__(
        self,
        graph: Graph,
        names: Mapping[Place, str | Gradient],
        written: Collection[Place],
        renamed: Mapping[str, str | None] | None = None,
    ) -> None:
        self.graph, self._names, self._written = graph, names, written
        self._renamed, self._taken = renamed or {}, set(names.values())
        self._shapes = {(n.id, o.index): o.shape or () for n in graph.nodes for o in n.outputs}
        self._edges = edges_into(graph)
        counts = set(map(self._values_in_a_mean, graph.nodes)) - {None}
        self.m = counts.pop() if len(counts) == 1 and "m" not in self._taken else None
        self.definitions: dict[Place, Formula] = {}
        self._meaning: dict[Place, Formula] = {}  # what stands for a place in other formulas
        self._recorded: dict[int, dict[int, Formula]] = {}  # the same, by id of the engine's node
        self._numbers: dict[tuple[str, float], Symbol] = {}  # by name and value
        self._deviations: dict[frozenset, set[int]] = {}  # what is less its mean: over which axes
        for node in graph.nodes:
            for output in node.outputs:
                self._define(node, output)

    def symbol(self, place: Place) -> Symbol | Gradient:
        """The symbol of a place, with its shape if it is an array."""
        name, node = self._names[place], self.graph.nodes[place[0]]
        if isinstance(name, Gradient):
            return name
        is_number = node.kind == "constant" and node.outputs[0].dtype is None
        return Symbol(name, None if is_number else self._shapes[place])

    def has_stacks(self) -> bool:
        """Whether @ or ᵀ is of arrays with more than two axes."""
        found = (part for formula in self.definitions.values() for part in within(formula))
        matrices = filter(is_of_matrices, found)
        return any(len(shape_of(x)) > 2 for part in matrices for x in (part, *part.arguments))

    # --- What is computed -------------------------------------------------------------------------

    def _define(self, node: Node, output: Output) -> None:
        place = node.id, output.index
        if node.kind == "op":
            self.definitions[place] = self._computed(node, output.index)
        if is_plain_number(node):
            self._meaning[place] = number(float(np.reshape(output.value, ())))
        elif node.kind == "op" and place not in self._written:
            self._meaning[place] = self.definitions[place]
        else:
            self._meaning[place] = self.symbol(place)
        if node.kind == "constant" and output.dtype is None and output.name is not None:
            self._numbers[output.name, output.value] = self._meaning[place]
        if node.origin is not None:
            self._recorded.setdefault(id(node.origin), {})[output.index] = self._meaning[place]
        name = self._call(node).name if self._call(node) else ""
        if name == "mean":
            self._remember_deviation(node)
        elif name in _SHAPE_ONLY and place in self._written:
            self._say_the_shape(node, place)

    def _say_the_shape(self, node: Node, place: Place) -> None:
        """Entries in another shape are no other entries, but z = x would be read as the same
        array."""
        (edge,) = self._edges[node.id]
        given, before = (
            self._meaning[edge.start, edge.output],
            self._shapes[edge.start, edge.output],
        )
        if isinstance(reshaped(Symbol("", before), before, self._shapes[place]), Reshaped):
            array = spread(given, before)
            call, shape = self._call(node), self._shapes[place]
            self.definitions[place] = short(Apply(call.name, (array,), shape, call))

    def _call(self, node: Node, index: int = 0) -> Call | None:
        is_op = node.kind == "op" and not isinstance(node.origin, Scalar)
        return Call(node.origin.op, node.origin.kwargs, index) if is_op else None

    def _computed(self, node: Node, index: int) -> Formula:
        edges, call = self._edges[node.id], self._call(node, index)
        arguments = {edge.argument: self._meaning[edge.start, edge.output] for edge in edges}
        if call is None:
            return short(scalar_formula(node.origin, list(arguments.values())))
        shapes = {edge.argument: self._shapes[edge.start, edge.output] for edge in edges}
        if (node.id, index) in self._shapes:
            shape = self._shapes[node.id, index]
        else:  # an output that nobody uses, but the rule does
            shape = node.origin.trace.outputs[index].shape
        formula = applied(call, arguments, shapes, shape, self._counted)
        if call.name in _CANCELLING:
            plain = Apply(call.op.name, tuple(arguments.values()), shape, call)
            formula = uncancelled(formula, plain)
        return short(formula)

    def _values_in_a_mean(self, node: Node) -> int | None:
        call = self._call(node)
        if call is None:
            return None
        first = self._edges[node.id][0]
        return values_in_a_mean(call, self._shapes[first.start, first.output])

    def _counted(self, values: int) -> Formula:
        return Symbol("m") if values == self.m and values > 1 else number(values)

    def _remember_deviation(self, node: Node) -> None:
        (edge,) = self._edges[node.id]
        start = edge.start, edge.output
        shape = self._shapes[start]
        kept = kept_shape(shape, node.origin.kwargs.get("axis"))
        mean = reshaped(self._meaning[node.id, 0], self._shapes[node.id, 0], kept)
        deviation, axes = plus(self._meaning[start], minus(mean)), broadcast_axes(kept, shape)
        if axes and deviation != ZERO:
            self._deviations[_terms(deviation)] = set(axes)

    # --- Derivatives ------------------------------------------------------------------------------

    def derivatives(self, end: int, arriving: Mapping[int, Gradient]) -> dict[Place, Derivative]:
        """How the gradients `arriving` at outputs of node `end` lead to the places that it was
        computed from: to leaves and written ones, and no further.

        None are known where a rule cannot be run again: backward has freed the graph, something was
        written into it, or a rule of the user's own works on arrays only.
        """
        rules = RuleReader(
            self._meaning,
            self._recorded,
            self._numbers,
            self._counted,
            self._renamed,
            self._taken,
        )

        def hand_on(node: Node, met: dict[int, tuple]) -> Iterator[tuple[Place, tuple]]:
            formulas = {index: formula for index, (formula, _) in met.items()}
            yield from self._handed_on(node, formulas, node.id == end, rules)

        def add(a: tuple, b: tuple) -> tuple:
            known = a[1] is not None and b[1] is not None
            return short(plus(a[0], b[0])), a[1] + b[1] if known else None

        first = {index: (gradient, None) for index, gradient in arriving.items()}
        found = propagate(self.graph, end, first, hand_on, self._stops, add)
        return {
            place: self._derivative(end, arriving, place, gradient, numbers, rules.where)
            for place, (gradient, numbers) in found.items()
        }

    def _stops(self, place: Place) -> bool:
        return place in self._written or self.graph.nodes[place[0]].kind != "op"

    def _handed_on(
        self, node: Node, arriving: dict[int, Formula], is_end: bool, rules: RuleReader
    ) -> Iterator[tuple[Place, tuple[Formula, Any]]]:
        """For each argument that a gradient comes to: its place, the formula of the gradient, and
        the numbers by which the end of all paths multiplies what arrives, if it does no more."""
        edges = self._edges[node.id]
        if isinstance(node.origin, Scalar):
            arguments = [self._meaning[edge.start, edge.output] for edge in edges]
            slopes = scalar_slopes(node.origin, arguments, self._output(node, 0, is_end))
            for edge, slope in zip(edges, slopes):
                numbers = edge.local if is_end else None
                yield (edge.start, edge.output), (times(slope, arriving[0]), numbers)
            return
        if node.origin.trace is None:
            return
        outputs = {
            index: self._output(node, index, is_end) for index in range(node.origin.many or 1)
        }
        for edge, formula, array in rules.read(node, edges, arriving, outputs):
            start, numbers = (edge.start, edge.output), None
            shape = self._shapes[start] if array is None else np.shape(array)
            if is_end and len(arriving) == 1 and array is not None:
                factor = factor_of(formula, *arriving.values())
                if factor is not None and not factor.picked:
                    numbers = to_device(array, "cpu")
            summed = broadcast_axes(self._shapes[start], shape)
            yield start, (sigma(formula, summed, shape), numbers)

    def _output(self, node: Node, index: int, is_end: bool) -> Formula:
        """What stands for an output of a node in its own rule.

        Over several ops, the end is written out: −½ (x − μ) (σ²+ε)^{−3/2}, without x̂.
        """
        place = node.id, index
        is_passed = any(not self._stops((e.start, e.output)) for e in self._edges[node.id])
        is_alone = len(node.outputs) == 1
        if place not in self._meaning or (is_end and is_passed and is_alone):
            return self.definitions.get(place) or self._computed(node, index)
        return self._meaning[place]

    def _derivative(
        self,
        end: int,
        arriving: Mapping[int, Gradient],
        start: Place,
        gradient: Formula,
        numbers: Any,
        where: dict,
    ) -> Derivative:
        if any(isinstance(part, Apply) and part.name == "…" for part in within(gradient)):
            slopes = {k: Gradient(self._names[end, k], self._names[start]) for k in arriving}
            shape = self._shapes[start]
            pairs = [(came, slopes[k]) for k, came in arriving.items()]
            gradient = plus(*[Apply("·", pair, shape) for pair in pairs])
            return Derivative(gradient, None, None, False, {})
        used = symbols(gradient)
        for symbol in reversed(where):  # a later one may be made of earlier ones
            used |= symbols(where[symbol]) if symbol in used else set()
        named = {symbol: meaning for symbol, meaning in where.items() if symbol in used}
        factor = factor_of(gradient, *arriving.values()) if len(arriving) == 1 else None
        if factor is None:
            return Derivative(gradient, None, None, False, named)
        vanishes = self._vanishes(factor.formula)
        return Derivative(gradient, factor.formula, numbers, vanishes, named)

    def _vanishes(self, formula: Formula) -> bool:
        """Whether it is, on paper, a multiple of a sum of deviations from their mean: Σ (a − ā)."""
        if isinstance(formula, Sum):
            return all(map(self._vanishes, formula.terms))
        if isinstance(formula, Product):
            return any(exponent > 0 and self._vanishes(base) for base, exponent in formula.factors)
        if isinstance(formula, Reshaped):
            return self._vanishes(formula.body)
        if not isinstance(formula, Sigma):
            return False
        body = formula.body
        factors = body.factors if isinstance(body, Product) else ((body, 1),)
        for base, exponent in factors:
            axes = self._deviations.get(_terms(base)) or self._deviations.get(_terms(minus(base)))
            others = [other for other, _ in factors if other != base]
            if axes and axes <= set(formula.axes) and exponent == 1:
                return not any(varies(other, axes) for other in others)
        return False


def _terms(formula: Formula) -> frozenset:
    """The terms of a formula, in whatever order."""
    return frozenset(formula.terms if isinstance(formula, Sum) else (formula,))
