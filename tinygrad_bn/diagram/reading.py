"""A recorded graph read in a notation: what the views, `explain` and the pages say of it."""

from collections.abc import Iterable, Sequence
from functools import cached_property

from .drawing.sketch import Row, Text, plain
from .drawing.text import clean
from .formulas.derivatives import Derivative, Formulas
from .formulas.formula import Formula, Gradient, Symbol
from .formulas.typeset import Mark, as_text, indexed, marks, symbol_marks
from .recorded.paths import edges_into
from .recorded.record import UNTRACED, Graph, Node, Output
from .recorded.symbols import NOTATIONS, Place, symbols_of
from .recorded.symbols import is_plain_number as is_plain_number


class Reading:
    """A graph, the symbols of its places in a notation, and its formulas.

    `names`: the symbol of every place. `lecture`: the places that have one of their own (leaves,
    outputs, and what was named). `loss`: the symbol of what is differentiated, None if nothing is.
    `of_ops` are the formulas of single ops; `of_symbols` those between the lecture's symbols.
    """

    def __init__(self, graph: Graph, notation: str) -> None:
        self.graph, self.notation = graph, notation
        self.names, self.lecture = symbols_of(graph, notation)
        self.edges = edges_into(graph)
        self._outputs = {(n.id, o.index): o for n in graph.nodes for o in n.outputs}
        differentiated = self._outputs[graph.drawn[0]].gradient is not None
        self.loss = self.names[graph.drawn[0]] if differentiated else None

    def output(self, place: Place) -> Output:
        return self._outputs[place]

    def want_gradients(self, caller: str) -> None:
        """A ValueError, which begins with the name of the caller, if gradients or values are
        missing."""
        if self.loss is None or UNTRACED in self.graph.notes:
            raise ValueError(f"{caller}: {'; '.join(self.graph.notes)}")

    @cached_property
    def of_ops(self) -> Formulas:
        return Formulas(self.graph, self.names, set(self.names), NOTATIONS[self.notation])

    @cached_property
    def of_symbols(self) -> Formulas:
        return Formulas(self.graph, self.names, self.lecture, NOTATIONS[self.notation])

    # --- Formulas ---------------------------------------------------------------------------------

    def gradient(self, place: Place) -> Gradient:
        """The symbol of the gradient at a place: ∂ℓ/∂x."""
        return Gradient(self.loss or "", self.names[place], self._outputs[place].shape)

    def derivatives(
        self, formulas: Formulas, node: Node, index: int = 0
    ) -> dict[Place, Derivative]:
        """How the gradient at one output of a node leads to what it was computed from."""
        return formulas.derivatives(node.id, {index: self.gradient((node.id, index))})

    def marks_of(self, formula: Formula, *near: Place) -> Mark:
        """A formula with the letters of a line in which the places `near` stand, too."""
        return self.line([formula], near)[0]

    def line(self, formulas: Sequence[Formula], near: Iterable[Place] = ()) -> list[Mark]:
        """The formulas of one line, with an index i, j, … where one is needed, also beside the
        places `near`."""
        index = indexed(formulas, [self._outputs[place].shape or () for place in near])
        return [marks(formula, index) for formula in formulas]

    def definition(self, formulas: Formulas, place: Place) -> Text:
        """= what the place is computed as, or nothing for what is not computed."""
        formula = formulas.definitions.get(place)
        if formula is None or (isinstance(formula, Symbol) and formula.name == self.names[place]):
            return ()
        return as_text(self.line([formulas.symbol(place), formula])[1])

    # --- Pieces of boxes --------------------------------------------------------------------------

    def symbol(self, place: Place) -> Text:
        return as_text(symbol_marks(self.names[place]))

    def slope(self, place: Place) -> Text:
        """∂ℓ/∂x as Text."""
        return as_text(marks(self.gradient(place)))

    def rows(self, place: Place) -> tuple[Row, ...]:
        """The value ▸ and the gradient ◂ of a place, as far as they are known."""
        output, rows = self._outputs[place], []
        if output.value is not None:
            rows.append(Row("forward", plain("▸"), (output.value,)))
        if output.gradient is not None:
            rows.append(Row("backward", plain("◂"), (output.gradient,)))
        return tuple(rows)

    @cached_property
    def remarks(self) -> tuple[str, ...]:
        """What a reader must be told."""
        stacks = ["@ and ᵀ are of the last two axes"] * self.of_ops.has_stacks()
        return (*self.graph.notes, *stacks)

    def notes(self, formulas: Formulas) -> tuple[str, ...]:
        """What a reader must be told, and what m is."""
        return (*self.remarks, *([f"m = {formulas.m}"] if formulas.m else []))


def tooltip(node: Node) -> str:
    """Where a node comes from."""
    where = [f"in {clean(node.scope)}"] * bool(node.scope)
    where += [f"at {clean(node.source)}"] * bool(node.source)
    return f"{clean(node.label) or node.kind} {', '.join(where)}".strip()


def shape_of(output: Output) -> str:
    """The shape, unless it is that of a single number, which would tell nobody anything."""
    return str(output.shape) if output.shape else ""
