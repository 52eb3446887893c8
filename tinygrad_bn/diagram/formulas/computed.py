"""What the ops of a graph compute, as formulas."""

import math
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from ...backend import is_array
from ...primitive import Op
from ...reduction import kept_shape, reduced_axes
from ...scalar import Scalar
from .formula import (
    Apply,
    Formula,
    Product,
    Reshaped,
    Shape,
    broadcast_axes,
    minus,
    number,
    plus,
    power,
    reshaped,
    shape_of,
    sigma,
    symbols,
    times,
    varies,
    within,
)  # fmt: skip

NONE = Apply("None", ())  # stands for an argument that is left out before others


class Call:
    """An op with its options, and which of its outputs is meant; None stands for all."""

    def __init__(self, op: Op, options: Mapping[str, Any], output: int | None = 0) -> None:
        self.op, self.options, self.output = op, options, output
        self._key = op, output, hashable(options)

    @property
    def name(self) -> str:
        """That of an op of the library; "" for a user's, whatever it is called."""
        return self.op.name if (self.op.__module__ or "").startswith(_LIBRARY) else ""

    def of_all_outputs(self) -> "Call":
        return Call(self.op, self.options, None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Call) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


_LIBRARY = __package__.partition(".")[0] + "."


def hashable(value: Any) -> Hashable:
    """What is equal for equal options; for arrays, and what has no value, for the same ones."""
    if isinstance(value, Mapping):
        return tuple((key, hashable(value[key])) for key in sorted(value))
    if isinstance(value, (tuple, list)):
        return type(value), tuple(map(hashable, value))
    if isinstance(value, slice):
        return slice, value.start, value.stop, value.step
    is_comparable = isinstance(value, Hashable) and not is_array(value)
    return type(value), value if is_comparable else id(value)


def applied(
    call: Call,
    given: Mapping[int, Formula],
    shapes: Mapping[int, Shape],
    shape: Shape,
    counted: Callable[[int], Formula] = number,
) -> Formula:
    """What a call makes of its arguments, which are given by their numbers, as their shapes are;
    `shape` is that of the result.

    `counted(m)` is how the number of values that go into a mean is written.
    """
    arguments = tuple([given.get(k, NONE) for k in range(max(given, default=-1) + 1)])
    spread_out = tuple([spread(x, shapes.get(k)) for k, x in enumerate(arguments)])
    unknown = Apply(call.op.name, spread_out, shape, call)
    x, *more = arguments or [unknown]
    match call.name, more:
        case (("astype" | "broadcast_to" | "transfer"), []):
            return x
        case (("reshape" | "expand_dims" | "squeeze"), []):
            return reshaped(x, shapes[0], shape)
        case "passing", _:
            return arguments[call.output]
        case (("sum" | "mean"), []):
            axis = call.options.get("axis")
            axes = [a - len(shapes[0]) for a in reduced_axes(len(shapes[0]), axis)]
            total = sigma(x, axes, shapes[0])
            reduced = total if call.name == "sum" else _mean(x, axes, shapes[0], counted)
            return reshaped(reduced, kept_shape(shapes[0], axis), shape)
        case "sum_to", []:
            return sigma(x, broadcast_axes(shape, shapes[0]), shapes[0])
        case "linear", [_, *bias]:
            turned = Apply("ᵀ", (spread_out[1],), shapes[1][::-1])
            return plus(Apply("@", (spread_out[0], turned), shape), *bias)
        case "matmul", [_] if min(map(len, shapes.values())) > 1 and shapes[0][-1] == 1:
            return times(*[_row(x, shapes[k]) for k, x in enumerate(spread_out)])  # xᵢ · yⱼ
        case "matmul", [_]:
            return Apply("@", spread_out, shape)
        case "concatenate", _:
            parts = [_taken_apart(x, shapes[k], call) for k, x in enumerate(arguments)]
            return unknown if None in parts else Apply("stack", tuple(parts), shape, call)
        case (("transpose" | "swapaxes"), []):
            return _transposed(x, _order(call, len(shape)), unknown)
        case "where", [_, _]:
            return Apply("where", arguments, shape)
        case "mul", [y]:
            return _times_m(x, y, counted)
    return _arithmetic(call.name, x, more) or unknown


def spread(formula: Formula, shape: Shape | None) -> Formula:
    """A formula as an array of this shape, where it matters: a row is no vector, a 1 no matrix."""
    if shape is None or shape_of(formula) == shape:
        return formula
    return Reshaped(formula, shape, shape)


def _row(x: Formula, shape: Shape) -> Formula:
    """A factor of @ as entries: of a row that is a column on its side, those of the column."""
    if isinstance(x, Apply) and x.name == "ᵀ":
        return reshaped(x.arguments[0], (*shape[:-2], shape[-1], shape[-2]), shape)
    return x


def _taken_apart(x: Formula, shape: Shape, call: Call) -> Formula | None:
    """What `stack` has given an axis of length 1; None for what had one before."""
    axis = call.options.get("axis", 0)
    if axis is None or shape[axis] != 1:
        return None
    before = tuple(n for k, n in enumerate(shape) if k != axis % len(shape))
    part = reshaped(x, shape, before)
    moves = [sum(isinstance(p, Reshaped) for p in within(formula)) for formula in (part, x)]
    return part if len(shape_of(part)) < len(shape) and moves[0] <= moves[1] else None


def _arithmetic(name: str, x: Formula, more: Sequence[Formula]) -> Formula | None:
    match name, more:
        case "add", [y]:
            return plus(x, y)
        case "sub", [y]:
            return plus(x, minus(y))
        case "neg", []:
            return minus(x)
        case "mul", [y]:
            return times(x, y)
        case "div", [y]:
            return times(x, power(y, -1))
        case "sqrt", []:
            return power(x, 0.5)
        case "pow", [Product(coefficient=exponent, factors=())]:
            return power(x, exponent)
    return None


def _times_m(x: Formula, y: Formula, counted: Callable[[int], Formula]) -> Formula:
    """A product, in which m times a mean is a sum: the m of a mean may be a letter."""
    for n, mean in ((x, y), (y, x)):
        if isinstance(n, Product) and isinstance(mean, Product) and not n.factors:
            m = counted(int(n.coefficient)) if math.isfinite(n.coefficient) else n
            if n.coefficient % 1 == 0 and (m, -1) in mean.factors:
                return times(m, mean)
    return times(x, y)


def _mean(x: Formula, axes: Sequence[int], shape: Shape, counted: Callable) -> Formula:
    kept = [axis for axis in axes if varies(x, (axis,))]
    m = math.prod(shape[axis] for axis in kept)
    if not m:
        return number(math.nan)
    return times(power(counted(m), -1), sigma(x, kept, shape))


def _order(call: Call, rank: int) -> list[int]:
    """Which axis of its argument each axis of the result is."""
    order = list(range(rank))
    if call.name == "transpose":
        axes = call.options.get("axes")
        return order[::-1] if axes is None else [axis % rank for axis in axes]
    i, j = call.options["axis1"], call.options["axis2"]
    order[i], order[j] = order[j], order[i]
    return order


def _transposed(x: Formula, order: list[int], unknown: Apply) -> Formula:
    first = list(range(len(order)))
    if order == first:
        return x
    if order == [*first[:-2], *first[:-3:-1]]:
        return Apply("ᵀ", unknown.arguments, unknown.shape)
    return unknown


# --- Scalars --------------------------------------------------------------------------------------

_SCALAR_OPS = {"+": "add", "−": "sub", "×": "mul", "÷": "div", "√": "sqrt", "pow": "pow"}
_NUMBER = re.compile(r"\^(-?\d[\d.e+-]*|-?inf|nan)")
_MOST = 4  # terms; of a sum of more the first and the last are shown


def scalar_formula(scalar: Scalar, arguments: Sequence[Formula]) -> Formula:
    """What a Scalar was computed as from its parents, whose formulas are `arguments`.

    A number that took part is no parent; it is read off the value or the local derivative.
    """
    x, *more = arguments
    exponent = exponent_of(scalar)
    if exponent is not None:
        return power(x, exponent)
    if scalar.op == "×" and not more:
        factor = number(scalar.local[0])
        return uncancelled(times(factor, x), Apply("mul", (x, factor), ()))
    if scalar.op == "Σ" or (scalar.op == "+" and not more):
        constant = scalar.data - _exact_sum([parent.data for parent in scalar.parents])
        if math.isfinite(constant):
            return plus(*_shown(arguments), number(constant))
    if scalar.op == "·" and is_of_pairs(scalar):
        half = len(arguments) // 2
        return plus(*_shown(list(map(times, arguments[:half], arguments[half:]))))
    if scalar.op == "·" and _is_weighted(scalar):
        weights = [number(float(weight)) for weight in scalar.local]
        return plus(*_shown(list(map(times, weights, arguments))))
    name = "neg" if scalar.op == "−" and not more else _SCALAR_OPS.get(scalar.op, "")
    plain = Apply(name or ("dot" if scalar.op == "·" else scalar.op), tuple(arguments), ())
    return uncancelled(_arithmetic(name, x, more) or plain, plain)


def uncancelled(formula: Formula, plain: Apply) -> Formula:
    """The formula; or `plain`, where an argument of that has fallen out: x/x is computed, and may
    be no number, though it is 1 on paper."""
    gone = symbols(plain) - symbols(formula)
    return plain if any(symbol.shape is not None for symbol in gone) else formula


def exponent_of(scalar: Scalar) -> float | None:
    """The exponent of a power, if it is a number."""
    match = _NUMBER.fullmatch(scalar.op)
    return float(match[1]) if match and len(scalar.parents) == 1 else None


def _shown(terms: Sequence[Formula]) -> Sequence[Formula]:
    return terms if len(terms) <= _MOST else [terms[0], left_out(()), terms[-1]]


def _exact_sum(values: Sequence[float]) -> float:
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # huge ones, or ∞ − ∞
        return math.nan


def is_of_pairs(product: Scalar) -> bool:
    """Whether a dot product is one of Scalars, and no numbers are among them."""
    values = [parent.data for parent in product.parents]
    half = len(values) // 2
    left, right = values[:half], values[half:]
    total = _exact_sum([a * b for a, b in zip(left, right)])
    return len(left) == len(right) and list(product.local) == right + left and total == product.data


def _is_weighted(product: Scalar) -> bool:
    """Whether a dot product is surely one of Scalars and numbers: the value tells."""
    values = [parent.data for parent in product.parents]
    total = _exact_sum([a * b for a, b in zip(values, product.local)])
    return all(values) and math.isfinite(total) and total == product.data


def left_out(shape: Shape) -> Apply:
    """What is too long to be written; equal to nothing else."""
    return Apply("…", (), shape, object())
