"""A recorded graph as lines of Python that compute it again, one an op.

A line uses the names of the places as Python can write them: mu for μ_B, xhat for x̂. The library's
own ops are called as `tg.…`; an op of the user's own, and those inside norms, by their bare names.
"""

import keyword
import math
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np

from ... import ops
from ...primitive import Op
from ...scalar import Scalar
from ..reading import Reading
from ..recorded.record import Node
from ..recorded.symbols import Place

_WORDS = {"μ_B": "mu", "σ²_B": "var", "σ²": "var", "ε": "eps", "ℓ": "loss", "𝓛": "loss"}
_WORDS |= {"λ": "lam"}  # lambda means something else
_ACCENTS = {"\u0302": "hat", "\u0303": "tilde", "\u0304": "bar", "\u0307": "dot"}
_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**", "matmul": "@"}
_SCALAR_INFIX = {"+": "+", "−": "-", "×": "*", "÷": "/", "pow": "**"}
_SCALAR_METHODS = {"√": "sqrt", "σ": "sigmoid"} | {m: m for m in ("exp", "log", "tanh", "relu")}


def python_code(reading: Reading) -> list[str]:
    """The lines that compute the nodes of a graph, in their order; leaves and constants are given.

    >>> from tinygrad_bn.diagram.recorded.record import record
    >>> from tinygrad_bn.tensor import named
    >>> a, b = named("α", Scalar(2.0)), Scalar(-3.0)
    >>> python_code(Reading(record((a * b + 1).tanh()), "ioffe"))
    ['u = alpha * x', 'v = u + 1.0', 'loss = v.tanh()']
    """
    names = python_names(reading)
    return [_line(reading, node, names) for node in reading.graph.nodes if node.kind == "op"]


def python_names(reading: Reading) -> dict[Place, str]:
    """The symbols of all places as names in Python, each of its own."""
    taken = {"tg", "Scalar", *keyword.kwlist, *keyword.softkwlist}
    taken |= {_function(node.origin.op) for node in _tensor_ops(reading)}
    names = {}
    for place, symbol in reading.names.items():
        symbol = re.sub(r"\^\{\(\d+\)\}$", "", symbol)  # x̂^{(2)} is the second x̂
        name = word = _WORDS.get(symbol) or _identifier(symbol)
        count = 1
        while name in taken:
            count += 1
            name = f"{word}_{count}"
        taken.add(name)
        names[place] = name
    return names


def _tensor_ops(reading: Reading) -> Iterable[Node]:
    nodes = reading.graph.nodes
    return (n for n in nodes if n.kind == "op" and not isinstance(n.origin, Scalar))


def _identifier(symbol: str) -> str:
    """A symbol in ASCII: γ as gamma, x̂ as xhat, d² as d2; what has no such name as _.

    >>> [_identifier(symbol) for symbol in ("σ̂²", "w_1", "Δx", "my weight", "2nd", "重み")]
    ['sigmahat2', 'w_1', 'Deltax', 'my_weight', '_2nd', '_']
    """
    written = ""
    for character in unicodedata.normalize("NFKD", symbol.removesuffix("_B")):
        greek = re.fullmatch(
            r"GREEK (SMALL|CAPITAL) LETTER (?:FINAL )?(\w+)", unicodedata.name(character, "")
        )
        if greek:
            written += greek[2].lower() if greek[1] == "SMALL" else greek[2].capitalize()
        elif character in _ACCENTS:
            written += _ACCENTS[character]
        elif not unicodedata.combining(character):
            written += character if re.fullmatch(r"\w", character, re.ASCII) else "_"
    name = re.sub("__+", "_", written)[:30]
    return name if name.isidentifier() else f"_{name}".rstrip("_") or "_"


def _line(reading: Reading, node: Node, names: dict[Place, str]) -> str:
    arguments: dict[int, str] = {}
    for edge in reading.edges[node.id]:
        start = edge.start, edge.output
        value = reading.output(start).value
        unnamed = (
            reading.graph.nodes[edge.start].kind == "constant" and not reading.output(start).name
        )
        inline = unnamed and value is not None and np.ndim(value) == 0
        arguments[edge.argument] = _literal(value) if inline else names[start]
    if isinstance(node.origin, Scalar):
        return f"{names[node.id, 0]} = {_of_scalars(node.origin, [*arguments.values()])}"
    known = {output.index for output in node.outputs}
    targets = [names[node.id, k] if k in known else "_" for k in range(node.origin.many or 1)]
    given = [arguments.get(k, "None") for k in range(len(node.origin.parents))]
    left = f"{targets[0]}," if node.origin.many == 1 else ", ".join(targets)
    return f"{left} = {_of_tensors(node.origin.op, given, node.origin.kwargs)}"


# --- Ops on Tensors -------------------------------------------------------------------------------


def _of_tensors(op: Op, arguments: list[str], options: dict) -> str:
    """The call of an op."""
    function = _function(op)
    name = function.removeprefix("tg.") if function.startswith("tg.") else None
    if name in _INFIX:
        return _infix(_INFIX[name], *arguments)
    if name == "neg":
        return f"-{_operand(arguments[0])}"
    if name == "getitem":
        return f"{arguments[0]}[{_index(options['index'])}]"
    while arguments and arguments[-1] == "None":
        arguments = arguments[:-1]
    listed = [f"[{', '.join(arguments)}]"] if op.variadic else arguments
    defaults = op.__signature__.parameters
    chosen = [
        f"{key}={_option(key, value)}"
        for key, value in options.items()
        if not (key in defaults and _is(value, defaults[key].default))
    ]
    return f"{function}({', '.join([*listed, *chosen])})"


def _function(op: Op) -> str:
    own = op.forward.__module__.startswith(f"{ops.__name__}.") or getattr(ops, op.name, None) is op
    return f"tg.{op.name}" if own and hasattr(ops, op.name) else op.name


def _is(value: Any, default: Any) -> bool:
    return value is default or (isinstance(value, (int, float, str, tuple)) and value == default)


def _infix(sign: str, *arguments: str) -> str:
    return f" {sign} ".join(map(_operand, arguments))


def _operand(written: str) -> str:
    return f"({written})" if written.startswith("-") else written


def _option(key: str, value: Any) -> str:
    alone = key == "axis" and isinstance(value, tuple) and len(value) == 1
    return _literal(value[0] if alone else value)


def _literal(value: Any) -> str:
    """A value as Python writes it; arrays as lists, dtypes by their names."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))}{',' * (len(value) == 1)})"
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return repr(np.dtype(value).name)
    if np.ndim(value):
        return str(value.tolist() if hasattr(value, "tolist") else value)
    number = value[()] if hasattr(value, "shape") else value
    # 0.1 in float32 is 0.1; made a Python number it would be 0.10000000149011612.
    written = str(number) if isinstance(number, (float, np.generic)) else repr(number)
    return f'float("{written}")' if written in ("nan", "inf", "-inf") else written


def _index(index: Any) -> str:
    """What stands between [ and ]."""
    if isinstance(index, tuple):
        return ", ".join(map(_index, index)) + "," * (len(index) == 1) or "()"
    if isinstance(index, slice):
        ends = ("" if end is None else _literal(end) for end in (index.start, index.stop))
        return ":".join(ends) + ("" if index.step is None else f":{_literal(index.step)}")
    return "..." if index is ... else _literal(index)


# --- Scalars --------------------------------------------------------------------------------------


def _of_scalars(scalar: Scalar, arguments: list[str]) -> str:
    """The operation that made a Scalar; a number that took part is found from the values."""
    first, *more = arguments
    op, parents = scalar.op, scalar.parents
    if op in _SCALAR_METHODS:
        return f"{first}.{_SCALAR_METHODS[op]}()"
    if op.startswith("^"):
        return f"{first} ** {op[1:]}"
    if op in _SCALAR_INFIX and more:
        return _infix(_SCALAR_INFIX[op], *arguments)
    if op == "−":
        return f"-{first}"
    if op == "×":
        return _infix("*", first, _literal(scalar.local[0]))
    if op == "+":
        return _infix("+", first, _literal(_missing(scalar.data, [parents[0].data])))
    if op == "Σ":
        rest = _missing(scalar.data, [parent.data for parent in parents])
        return f"Scalar.sum([{', '.join([*arguments, *([_literal(rest)] if rest else [])])}])"
    if op == "·":
        return _dot(scalar, arguments)
    return f"{_identifier(op)}({', '.join(arguments)})"


def _missing(total: float, parts: list[float]) -> float:
    """The shortest number that makes the parts add up to the total."""
    rest = total - math.fsum(parts)
    tries = (float(f"{rest:.{digits}g}") for digits in range(1, 17))
    return next((short for short in tries if math.fsum([*parts, short]) == total), rest)


def _dot(scalar: Scalar, arguments: list[str]) -> str:
    """Σ xᵢ yᵢ. The slope to a factor is the other one: a Scalar, if there is such a one further on
    whose slope is this one, else a number."""
    parents, slopes = scalar.parents, scalar.local
    xs, ys, products = [], [], []
    left = list(range(len(parents)))
    while left:
        i = left.pop(0)
        pair = (slopes[i], parents[i].data)
        j = next((j for j in left if (parents[j].data, slopes[j]) == pair), None)
        if j is not None:
            left.remove(j)
        xs.append(arguments[i])
        ys.append(_literal(slopes[i]) if j is None else arguments[j])
        products.append(slopes[i] * parents[i].data)
    rest = _missing(scalar.data, products)
    xs, ys = ([*xs, _literal(rest)], [*ys, "1"]) if rest else (xs, ys)
    return f"Scalar.dot([{', '.join(xs)}], [{', '.join(ys)}])"
