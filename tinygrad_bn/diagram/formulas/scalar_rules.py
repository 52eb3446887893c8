"""The local derivatives of Scalars as formulas. A Scalar keeps them as numbers; the formulas are
those of the ops on Tensors that compute the same.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ... import ops
from ...graph import Tensor
from ...primitive import Op
from ...recording import enable_grad, tracing
from ...scalar import Scalar
from ..recorded.paths import edges_into
from ..recorded.record import tensor_graph
from .computed import exponent_of, is_of_pairs
from .formula import ONE, Formula, Symbol, number, substituted
from .rules import RuleReader

_OPS = {
    ("+", 2): ops.add,
    ("−", 2): ops.sub,
    ("−", 1): ops.neg,
    ("×", 2): ops.mul,
    ("÷", 2): ops.div,
    ("pow", 2): ops.pow,
    ("exp", 1): ops.exp,
    ("log", 1): ops.log,
    ("√", 1): ops.sqrt,
    ("tanh", 1): ops.tanh,
    ("σ", 1): ops.sigmoid,
    ("relu", 1): ops.relu,
}
_X, _OUT = (Symbol("x", ()), Symbol("y", ())), Symbol("out", ())


def scalar_slopes(scalar: Scalar, arguments: Sequence[Formula], own: Formula) -> list[Formula]:
    """The derivative of a Scalar by each of its parents, for which `arguments` stand; `own` stands
    for itself. What is not known as a formula is its number."""
    exponent, op = exponent_of(scalar), _OPS.get((scalar.op, len(arguments)))
    if scalar.op == "·" and is_of_pairs(scalar):
        half = len(arguments) // 2
        return [*arguments[half:], *arguments[:half]]
    if exponent is not None:
        slopes = _slopes(ops.pow, exponent)
    elif op is not None:
        slopes = _slopes(op, None)
    else:
        return [number(float(slope)) for slope in scalar.local]
    meanings = dict(zip(_X, arguments)) | {_OUT: own}
    return [substituted(slope, meanings) for slope in slopes]


@lru_cache(maxsize=1000)
def _slopes(op: Op, exponent: float | None) -> list[Formula]:
    """The derivatives of an op on numbers, in symbols."""
    with tracing(), enable_grad(), np.errstate(all="ignore"):
        given = [Tensor(np.array(value), requires_grad=True) for value in (2.0, 3.0)]
        arguments = given[: op.arity] if exponent is None else [given[0], exponent]
        graph = tensor_graph([op(*arguments)])
    node, edges = graph.nodes[-1], edges_into(graph)[graph.nodes[-1].id]
    meanings = [_X[0], _X[1] if exponent is None else number(exponent)]
    meaning = {(edge.start, 0): meanings[edge.argument] for edge in edges}
    recorded = {id(graph.nodes[edge.start].origin): {0: meanings[edge.argument]} for edge in edges}
    reader = RuleReader(meaning, recorded, {}, number, {}, set())
    return [formula for _, formula, _ in reader.read(node, edges, {0: ONE}, {0: _OUT})]
