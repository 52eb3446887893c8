"""What formulas come to: their symbols as arrays, worked out by NumPy; what they must come to."""

import functools
import operator

import numpy as np
from helpers import host, on_device
from test_ops import seeds

import tinygrad_bn as tg
from tinygrad_bn.diagram.drawing.sketch import characters
from tinygrad_bn.diagram.formulas.formula import (
    Gradient,
    Product,
    Reshaped,
    Sigma,
    Sum,
    Symbol,
    parts,
    symbols,
    within,
)
from tinygrad_bn.diagram.formulas.typeset import as_text, indexed, marks
from tinygrad_bn.diagram.reading import Reading
from tinygrad_bn.diagram.recorded.paths import contributions
from tinygrad_bn.diagram.recorded.record import record

BY_NAME = {
    "@": np.matmul,
    "ᵀ": lambda x: np.swapaxes(x, -1, -2),
    "where": np.where,
    "step": lambda x: np.greater(x, 0),
    "sign": np.sign,
    "None": lambda: None,
    "pow": np.power,
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "σ": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
}


def evaluate(formula, values):
    """The array that a formula stands for; `values` has those of its symbols."""
    if isinstance(formula, (Symbol, Gradient)):
        return np.asarray(values[formula])
    if isinstance(formula, Product):
        powers = [evaluate(base, values) ** float(exponent) for base, exponent in formula.factors]
        return functools.reduce(operator.mul, powers, np.float64(formula.coefficient))
    inside = [evaluate(part, values) for part in parts(formula)]
    if isinstance(formula, Sum):
        return functools.reduce(operator.add, inside)
    if isinstance(formula, Sigma):
        return np.sum(inside[0], axis=formula.axes, keepdims=True)
    if isinstance(formula, Reshaped):
        return in_shape(inside[0], formula.before).reshape(formula.after)
    if formula.how is None:
        return BY_NAME[formula.name](*inside)
    if formula.name == "stack":
        return np.stack(inside, **formula.how.options)
    op = formula.how.op
    given = [None if x is None else on_device(np.asarray(x)) for x in inside]
    given = [given] if op.variadic else given + [None] * (op.arity - len(given))
    if formula.name.endswith("′"):
        (place,) = [k for k, argument in enumerate(formula.arguments) if symbols(argument)]
        given[place] = x = tg.Tensor(given[place], requires_grad=True)
        return host(tg.grad(tg.sum(op(*given, **formula.how.options)), x)[0])
    answer = op(*given, **formula.how.options)
    return host(answer[formula.how.output] if isinstance(answer, tuple) else answer)


def in_shape(array, shape):
    """An array repeated to a shape; axes of length 1 in front of it may be too many."""
    while array.ndim > len(shape) and array.shape[0] == 1:
        array = array[0]
    return np.broadcast_to(array, shape)


def is_whole(formula):
    """Whether no part of it is left out."""
    return all(getattr(part, "name", "") not in ("…", "·") for part in within(formula))


def assert_near(got, wanted, rtol=1e-12):
    """Equal up to rounding of the largest values."""
    scale = np.max(np.abs(wanted), where=np.isfinite(wanted), initial=0)
    np.testing.assert_allclose(got, wanted, rtol=rtol, atol=rtol * scale)


def values_of(reading, formulas):
    """What the symbols of a graph stand for, and those of its gradients."""
    values = {Symbol("m"): formulas.m}
    for node in reading.graph.nodes:
        for output in node.outputs:
            place = node.id, output.index
            values[formulas.symbol(place)] = output.value
            values[reading.gradient(place)] = output.gradient
    return values


def check_definitions(reading, formulas):
    """Every definition comes to the value of its place. Returns how many."""
    values, whole = values_of(reading, formulas), 0
    for place, formula in formulas.definitions.items():
        if is_whole(formula):
            wanted = reading.output(place).value
            assert_near(in_shape(evaluate(formula, values), np.shape(wanted)), wanted)
            whole += 1
    return whole


def check_derivatives(reading, formulas, written):
    """What each place hands on to those it was computed from is what formulas, factors and numbers
    say. Returns how many were checked."""
    whole = 0
    for end in sorted(written):
        node = reading.graph.nodes[end[0]]
        if node.kind != "op" or reading.output(end).gradient is None:
            continue
        found = reading.derivatives(formulas, node, end[1])
        wanted = contributions(reading.graph, reading.edges, end, written)
        assert found.keys() == wanted.keys()
        for start, derivative in found.items():
            if is_whole(derivative.gradient):
                values = with_meanings(values_of(reading, formulas), derivative)
                check_derivative(derivative, reading.gradient(end), values, wanted[start])
                whole += 1
    return whole


def with_meanings(values, derivative):
    """And what the symbols stand for that a rule has named."""
    for symbol, meaning in derivative.where.items():
        values[symbol] = evaluate(meaning, values)
    return values


def check_derivative(derivative, arriving, values, wanted):
    """The formula of a derivative comes to `wanted`; its factor is the entries of the Jacobian."""
    shape = np.shape(wanted)
    assert_near(in_shape(evaluate(derivative.gradient, values), shape), wanted)
    if derivative.factor is None:
        assert derivative.numbers is None
        return
    factor = evaluate(derivative.factor, values)
    if derivative.numbers is not None:
        assert_near(in_shape(factor, np.shape(derivative.numbers)), derivative.numbers)
    if 0 in (np.size(wanted), np.size(values[arriving])):
        return
    units = np.eye(np.size(values[arriving])).reshape(-1, *np.shape(values[arriving]))
    jacobian = [evaluate(derivative.gradient, values | {arriving: unit}) for unit in units]
    assert_same_values(np.concatenate([np.ravel(row) for row in jacobian]), factor)


def assert_same_values(some, others):
    """That numbers other than 0 are the same, however often each comes."""
    some, others = (np.unique(np.asarray(x)[np.asarray(x) != 0]) for x in (some, others))
    for a, b in ((some, others), (others, some)):
        near = [np.min(np.abs(b - value), initial=np.inf) <= 1e-12 * abs(value) for value in a]
        assert all(near), (a, b)


# --- Of a recorded number ------------------------------------------------------------------------


def is_of_rounding(loss):
    """Whether something in the graph is 0 on paper and not in numbers, as the variance of equal
    values: what follows from it is as wrong in formulas as it is in the engine."""
    outputs = [output for node in read(loss).graph.nodes for output in node.outputs]
    arrays = [x for o in outputs for x in (o.value, o.gradient) if x is not None]
    return any(0 < np.max(np.abs(array), initial=0) < 1e-12 for array in arrays)


def loss_of(outputs):
    """One number that depends on all outputs, each entry with a weight of its own."""
    return sum((tg.sum(y * weight) for y, weight in zip(outputs, seeds(outputs))), 0.0)


def read(loss, notation="ioffe"):
    return Reading(record(loss), notation)


def check(loss, notation="ioffe"):
    """The formulas of single ops and those between the lecture's symbols. Returns how many."""
    reading = read(loss, notation)
    with np.errstate(all="ignore"):
        return [
            check_definitions(reading, formulas)
            + check_derivatives(reading, formulas, set(written))
            for formulas, written in (
                (reading.of_ops, reading.names),
                (reading.of_symbols, reading.lecture),
            )
        ]


def said(formula):
    return characters(as_text(marks(formula, indexed([formula]))))


def derivatives(loss, end, of="ops", notation="ioffe"):
    """What is said of the place called `end`, by the names of those it was computed from."""
    return {name: derivative for name, derivative, _ in _derivatives(loss, end, of, notation)}


def factors(loss, end, of="ops", notation="ioffe"):
    """The local derivatives as they stand on arrows."""
    return {name: said for name, _, said in _derivatives(loss, end, of, notation)}


def _derivatives(loss, end, of, notation):
    reading = read(loss, notation)
    formulas = reading.of_ops if of == "ops" else reading.of_symbols
    (place,) = [place for place, name in reading.names.items() if name == end]
    node = reading.graph.nodes[place[0]]
    for start, found in reading.derivatives(formulas, node, place[1]).items():
        factor = found.factor
        mark = None if factor is None else reading.marks_of(factor, start, place)
        yield reading.names[start], found, mark and characters(as_text(mark))
