"""Gradient rules as formulas: a rule is run on Tensors, recorded, and what it did is translated."""

import copy
import itertools
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ... import ops
from ...backend import array_module, is_array, on_device_of, to_device
from ...graph import Leaf, Tensor, parents, toposort
from ...ops import elementwise
from ...recording import enable_grad, guarded_by, tracing
from ...reduction import count
from ...transforms import passing
from ..recorded.record import Edge, Node
from ..recorded.symbols import Place, numbered
from .computed import NONE, Call, applied, left_out
from .formula import (
    Apply,
    Formula,
    Shape,
    Symbol,
    is_number,
    number,
    plus,
    power,
    shape_of,
    size,
    times,
    within,
)  # fmt: skip

_LARGEST_FORMULA = 40  # symbols and numbers in a formula
# What the rules of these ops multiply by: an array that they make, without a history to read.
_MASKS = {"relu": "step", "abs": "sign"}
# What readers know of ops: the functions that they call, but not those that only rules call.
_KNOWN = {*ops.__all__, "normalize"} - {"scatter_add", "convolution_input", "convolution_weight"}

Known = Mapping[int, Mapping[int, Formula]]  # by id of the engine's node, and number of the output


@dataclass
class RuleReader:
    """Translates what gradient rules do, with the formulas of the places that they read.

    `meaning`: what stands for a place; `recorded`: the same by the engine's node; `numbers`: the
    symbols of numbers that have a name, by it and their value; `counted`: how the number of values
    in a mean is written; `renamed`: how the notation calls what rules name; `taken`: names that
    stand for something else. `where` collects what the rules have named, with its formula;
    `unread` what they have made that says nothing to a reader: masks, and results of their own ops.
    """

    meaning: Mapping[Place, Formula]
    recorded: Known
    numbers: Mapping[tuple[str, float], Symbol]
    counted: Callable[[int], Formula]
    renamed: Mapping[str, str | None]
    taken: set
    where: dict[Symbol, Formula] = field(default_factory=dict)
    unread: set[Formula] = field(default_factory=set)

    def read(
        self,
        node: Node,
        edges: Sequence[Edge],
        arriving: Mapping[int, Formula],
        outputs: Mapping[int, Formula],
    ) -> Iterator[tuple[Edge, Formula, Any]]:
        """For each edge along which the rule hands something on: its formula, not yet summed to the
        shape of the argument, and the array that it is if 1 arrives. Where the rule is nothing for
        readers, the formula is left out, and that is None.

        The node was traced; `outputs` stand for its outputs. A rule that cannot be run again yields
        nothing.
        """
        if node.origin.op is passing:  # to run it would call the hooks of a module
            for edge in edges:
                if edge.argument in arriving:
                    ones = np.ones(np.shape(node.origin.trace.outputs[edge.argument]))
                    yield edge, arriving[edge.argument], ones
            return
        run = _run(node, edges, arriving)
        if run is None:
            return
        ones = {id(one.node): {0: arriving[index]} for index, one in run.ones.items()}
        fixed = {id(leaf): {0: self.meaning[e.start, e.output]} for leaf, e in run.constants}
        known = ChainMap(ones, fixed, {id(run.twin): outputs}, self.recorded)
        for edge in edges:
            answer = run.answers[edge.argument]
            if answer is not None and node.origin.parents[edge.argument] is not None:
                array = answer.data if isinstance(answer, Tensor) else answer
                formula = self._translated(answer, known, set(ones), node, edges)
                if not self.unread.isdisjoint(within(formula)):
                    formula = self._slope(node, edges, np.shape(array))
                    if formula is None:
                        formula, array = left_out(np.shape(edge.contribution)), None
                    else:
                        formula = times(formula, *arriving.values())
                yield edge, formula, array

    def _slope(self, node: Node, edges: Sequence[Edge], shape: Shape) -> Formula | None:
        """f′ of a function of one variable that works entry by entry."""
        call = Call(node.origin.op, node.origin.kwargs)
        given = {edge.argument: self.meaning[edge.start, edge.output] for edge in edges}
        variables = [formula for formula in given.values() if not is_number(formula)]
        if call.name not in elementwise.__all__ or len(variables) > 1:
            return None
        arguments = [given.get(k, NONE) for k in range(max(given) + 1)]
        return Apply(f"{call.name}′", tuple(arguments), shape, call)

    def _translated(
        self, answer: Any, known: Known, arrived: set[int], node: Node, edges: Sequence[Edge]
    ) -> Formula:
        """The formula of what the rule of `node` returned. `arrived`: the ids of the places at
        which gradients arrive."""
        if not isinstance(answer, Tensor) or answer.node is None:
            value = answer.data if isinstance(answer, Tensor) else answer
            return self._constant(value, node, edges)
        order = toposort([answer.node], lambda one: () if id(one) in known else parents(one))
        found: Known = ChainMap({}, known)
        moved = set(arrived)  # the nodes that depend on what arrives
        for one in reversed(order):
            if id(one) in known:
                continue
            if getattr(one, "trace", None) is None:  # from somewhere else
                found[id(one)] = {}
                continue
            if any(id(parent) in moved for parent in one.parents):
                moved.add(id(one))
            inputs = [(k, value) for k, value in enumerate(one.trace.inputs) if value is not None]
            shapes = {k: np.shape(value) for k, value in inputs}
            arguments = {
                k: self._constant(value, node, edges)
                if one.parents[k] is None
                else found[id(one.parents[k])].get(one.indices[k], left_out(shapes[k]))
                for k, value in inputs
            }
            found[id(one)] = {}
            for index, output in enumerate(one.trace.outputs):
                call = Call(one.op, one.kwargs, index)
                made = applied(call, arguments, shapes, output.shape, self.counted)
                if getattr(made, "how", None) == call and call.name and call.name not in _KNOWN:
                    made = self._unknown(output.shape)
                if id(one) not in moved and Call(node.origin.op, {}).name:
                    made = self._unguarded(made)
                formula, name = short(made), one.trace.names.get(index)
                if name is not None and id(one) not in moved:
                    formula = self._named(name, formula, output.shape)
                found[id(one)][index] = formula
        return found[id(answer.node)].get(answer.index, left_out(answer.data.shape))

    def _named(self, name: str, formula: Formula, shape: tuple[int, ...] | None) -> Symbol:
        """The symbol of what a rule calls `name`: that, unless it stands for something else."""
        name = self.renamed.get(name) or name
        for k in itertools.count(1):
            symbol = Symbol(numbered(name, k), shape)
            if symbol.name not in self.taken and self.where.setdefault(symbol, formula) == formula:
                return symbol

    def _constant(self, value: Any, node: Node, edges: Sequence[Edge]) -> Formula:
        """A number or an argument that the rule of a node uses, or what it has made of such."""
        for edge in edges:
            if is_array(value) and value is node.origin.trace.inputs[edge.argument]:
                return self.meaning[edge.start, edge.output]
        name = _MASKS.get(Call(node.origin.op, {}).name)
        if name is not None:
            arguments = tuple(self.meaning[edge.start, edge.output] for edge in edges)
            return Apply(name, arguments, np.shape(value))
        is_truth = np.dtype(getattr(value, "dtype", type(value))) == bool
        if is_truth or np.shape(value):
            return self._unknown(np.shape(value))
        return self._number(value, node)

    def _unknown(self, shape: Shape) -> Formula:
        found = left_out(shape)
        self.unread.add(found)
        return found

    def _unguarded(self, formula: Formula) -> Formula:
        """Without what keeps a rule of the library from 0/0, ∞ · 0 and the like: on paper,
        where(mask, 1, x) and clip(x, −30, 30) are x."""
        if not isinstance(formula, Apply) or not formula.arguments:
            return formula
        first, *others = formula.arguments
        if formula.name == "where" and first in self.unread:
            left = [part for part in others if not is_number(part)]
            return left[0] if len(left) == 1 else formula
        if formula.name == "clip" and all(map(is_number, others)):
            return first
        return formula

    def _number(self, value: Any, node: Node) -> Formula:
        host = float(np.reshape(to_device(value, "cpu") if is_array(value) else value, ()))
        if value is not node.origin.kwargs.get("eps"):
            return _counts(node, self.counted).get(host, number(host))
        return self.numbers.get(("ε", host)) or self._named("ε", number(host), None)


@dataclass
class _Run:
    """A rule that was run: a double of the recorded node, the Tensors that arrived, the constant
    arguments by the leaves that stood in their places, and what came out."""

    twin: Any
    ones: dict[int, Tensor]
    constants: list[tuple[Leaf, Edge]]
    answers: Sequence


def _run(node: Node, edges: Sequence[Edge], arriving: Mapping[int, Formula]) -> _Run | None:
    """Run the rule of a node on Tensors, with 1 for each gradient that arrives.

    None if that cannot be done: backward has freed the graph, something was written, or the rule is
    a user's own and works on arrays only.
    """
    origin, constants = node.origin, []
    twin = copy.copy(origin)
    twin.parents = list(origin.parents)
    for edge in edges:
        value = origin.trace.inputs[edge.argument]
        if twin.parents[edge.argument] is None and is_array(value) and value.dtype.kind == "f":
            twin.parents[edge.argument] = leaf = Leaf()
            constants.append((leaf, edge))
    ones = {index: _ones_like(origin.trace.outputs[index]) for index in arriving}
    g = [ones.get(index) for index in range(origin.many)] if origin.many else ones[0]
    needs = [parent is not None for parent in origin.parents]
    try:
        with tracing(), enable_grad(), guarded_by(None), np.errstate(all="ignore"):
            answers = origin.op.gradients(twin, g, needs, create_graph=True)
    except Exception:  # whatever a rule of the user's own may raise
        return None
    return _Run(twin, ones, constants, answers)


def _ones_like(array: Any) -> Tensor:
    with on_device_of(array):
        return Tensor(array_module((array,)).ones_like(array), requires_grad=True)


def short(formula: Formula) -> Formula:
    """The formula, unless it is too long to be read."""
    return formula if size(formula) <= _LARGEST_FORMULA else left_out(shape_of(formula))


def values_in_a_mean(call: Call, shape: Shape) -> int | None:
    """How many values of an argument of this shape go into each mean; None if none is taken."""
    if call.name not in ("mean", "var", "normalize"):
        return None
    return count(shape, call.options.get("axes", call.options.get("axis")))


def _counts(node: Node, counted: Callable[[int], Formula]) -> dict[float, Formula]:
    """The numbers in the rule of a node that tell how many values went into a mean."""
    call = Call(node.origin.op, node.origin.kwargs)
    m = values_in_a_mean(call, np.shape(node.origin.trace.inputs[0]))
    correction = call.options.get("correction", 0)
    if call.name == "mean" and m:
        return {1 / m: power(counted(m), -1)}
    if call.name == "var" and m > correction:
        freedom = plus(counted(m), number(-correction))
        return {2 / (m - correction): times(number(2), power(freedom, -1))}
    if call.name == "normalize" and m > 2:  # else there are other numbers 1 and 2 in it
        return {m: counted(m), 2 / m: times(number(2), power(counted(m), -1))}
    return {}
