"""Formulas as a small algebra: what a graph computes and its derivatives, as a lecturer writes.

Equal factors become a power and equal terms are added up; nothing else is rearranged. Formulas are
multiplied and added entry by entry, as arrays are: shapes are aligned at their last axes, and axes
are counted from there, −1, −2, …

>>> x, mu = Symbol("x"), Symbol("μ")
>>> d = plus(x, minus(mu))
>>> plus(times(d, x), times(x, d)) == times(number(2), d, x)
True
>>> times(power(d, Fraction(1, 2)), power(d, -2)) == power(d, Fraction(-3, 2))
True
"""

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Symbol:
    """A name; `shape` is that of the array it stands for, None for a number such as ε."""

    name: str
    shape: Shape | None = None


@dataclass(frozen=True)
class Gradient:
    """The symbol ∂of/∂by, for an array of `shape`."""

    of: str
    by: str
    shape: Shape | None = None


@dataclass(frozen=True)
class Apply:
    """A function of formulas that the algebra knows nothing about; it makes an array of `shape`.

    `how` is what else decides its values: two that differ in it are not the same.
    """

    name: str
    arguments: tuple["Formula", ...]
    shape: Shape | None = None
    how: Hashable = None


@dataclass(frozen=True)
class Sigma:
    """The sum of `body` over axes along which it varies; they stay, with length 1."""

    body: "Formula"
    axes: tuple[int, ...]


@dataclass(frozen=True)
class Reshaped:
    """The entries of `body`, an array of the shape `before`, in another shape."""

    body: "Formula"
    before: Shape
    after: Shape


@dataclass(frozen=True)
class Product:
    """A coefficient times powers: pairs of a formula and its exponent."""

    coefficient: Fraction | float
    factors: tuple[tuple["Formula", Fraction | float], ...]


@dataclass(frozen=True)
class Sum:
    """Several terms, none of which is a Sum."""

    terms: tuple["Formula", ...]


Formula = Symbol | Gradient | Apply | Sigma | Reshaped | Product | Sum


def parts(formula: Formula) -> tuple[Formula, ...]:
    """The formulas that it is made of, one level down."""
    if isinstance(formula, Product):
        return tuple(base for base, _ in formula.factors)
    if isinstance(formula, Sum):
        return formula.terms
    if isinstance(formula, (Sigma, Reshaped)):
        return (formula.body,)
    return formula.arguments if isinstance(formula, Apply) else ()


def within(formula: Formula) -> Iterator[Formula]:
    """It and all formulas in it, from left to right."""
    yield formula
    for part in parts(formula):
        yield from within(part)


def symbols(formula: Formula) -> set[Symbol | Gradient]:
    """All symbols in it."""
    return {part for part in within(formula) if isinstance(part, (Symbol, Gradient))}


def size(formula: Formula) -> int:
    """How many symbols and numbers it takes to write it."""
    return max(1, sum(map(size, parts(formula))))


# --- Numbers, products, sums ----------------------------------------------------------------------


def number(value: float | Fraction) -> Product:
    """A number: exact if it is whole or a fraction, or a float that is one of 64ths."""
    if isinstance(value, float) and not (math.isfinite(value) and (value * 64).is_integer()):
        return Product(float(value), ())
    return Product(_in_bounds(Fraction(value)), ())


def is_number(formula: Formula) -> bool:
    """Whether it is a number, and no symbol is in it."""
    return isinstance(formula, Product) and not formula.factors


def _in_bounds(value: Any) -> Any:
    """A coefficient, as a float if it has more digits than one: they would only grow."""
    if isinstance(value, float) or max(abs(value.numerator), value.denominator) <= 2**53:
        return value
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


ZERO, ONE, MINUS = number(0), number(1), number(-1)


def _product(formula: Formula) -> Product:
    return formula if isinstance(formula, Product) else Product(Fraction(1), ((formula, 1),))


def times(*formulas: Formula) -> Formula:
    """The product."""
    coefficient: Any = Fraction(1)
    factors: dict = {}
    for part in map(_product, formulas):
        coefficient = _in_bounds(coefficient * part.coefficient)
        for base, exponent in part.factors:
            factors[base] = factors.get(base, 0) + exponent
    opened = [base for base, exponent in factors.items() if _is_taken_of_each(base, exponent)]
    if opened:  # √v · √v, where v is a product
        powers = [power(base, factors.pop(base)) for base in opened]
        return times(Product(coefficient, tuple(factors.items())), *powers)
    left = tuple((base, exponent) for base, exponent in factors.items() if exponent)
    if coefficient == 0:
        return ZERO
    if coefficient == 1 and len(left) == 1 and left[0][1] == 1:
        return left[0][0]
    return Product(coefficient, left)


def power(base: Formula, exponent: float | Fraction) -> Formula:
    """base ** exponent, for a number as exponent.

    It is simplified where that is right for all values for which it is real: (√d)² is d, but √(d²)
    is not.
    """
    exponent = number(exponent).coefficient
    part = _product(base)
    if _is_taken_of_each(part, exponent):
        powers = [Product(Fraction(1), ((b, e * exponent),)) for b, e in part.factors]
        return times(Product(_raised(part.coefficient, int(exponent)), ()), *powers)
    if part == ONE:
        return ONE
    if part.coefficient == 1 and len(part.factors) == 1:
        ((inside, own),) = part.factors
        if own % 2:
            return times(Product(Fraction(1), ((inside, own * exponent),)))
    return Product(Fraction(1), ((base, exponent),))


def _is_taken_of_each(base: Formula, exponent: Any) -> bool:
    """Whether a power of a product is written as the product of powers: a whole one, not huge."""
    if not isinstance(base, Product) or not math.isfinite(exponent):
        return False
    return exponent == int(exponent) and abs(exponent) <= 64 and (base.coefficient or exponent > 0)


def _raised(coefficient: Any, exponent: int) -> Any:
    try:
        return _in_bounds(coefficient**exponent)
    except OverflowError:
        return math.inf if coefficient > 0 or exponent % 2 == 0 else -math.inf


def plus(*formulas: Formula) -> Formula:
    """The sum."""
    terms: dict = {}  # the factors of a term, in any order -> (its first form, coefficient)
    for formula in formulas:
        for term in formula.terms if isinstance(formula, Sum) else (formula,):
            part = _product(term)
            key = frozenset(part.factors)
            factors, coefficient = terms.get(key, (part.factors, 0))
            terms[key] = factors, _in_bounds(coefficient + part.coefficient)
    left = [times(Product(c, factors)) for factors, c in terms.values() if c != 0]
    if not left:
        return ZERO
    return left[0] if len(left) == 1 else Sum(tuple(left))


def minus(formula: Formula) -> Formula:
    """Its negative, term by term."""
    if isinstance(formula, Sum):
        return Sum(tuple(times(MINUS, term) for term in formula.terms))
    return times(MINUS, formula)


def substituted(formula: Formula, meanings: Mapping[Formula, Formula]) -> Formula:
    """The formula with others in the place of some of its symbols, which are single numbers."""
    if isinstance(formula, Sum):
        return plus(*[substituted(term, meanings) for term in formula.terms])
    if isinstance(formula, Product):
        powers = [power(substituted(b, meanings), e) for b, e in formula.factors]
        return times(Product(formula.coefficient, ()), *powers)
    if isinstance(formula, Apply):
        arguments = tuple([substituted(argument, meanings) for argument in formula.arguments])
        return Apply(formula.name, arguments, formula.shape, formula.how)
    return meanings.get(formula, formula)


# --- Shapes, axes, sums over axes -----------------------------------------------------------------


def shape_of(formula: Formula) -> Shape:
    """The shape of the array that it stands for, with 1 where it does not vary along an axis."""
    if isinstance(formula, (Symbol, Gradient, Apply)):
        return formula.shape or ()
    if isinstance(formula, Reshaped):
        return shape_after(shape_of(formula.body), formula.before, formula.after)
    shapes = [shape_of(part) for part in parts(formula)]
    summed = formula.axes if isinstance(formula, Sigma) else ()
    return tuple(
        1 if axis in summed else next((s[axis] for s in shapes if is_long(s, axis)), 1)
        for axis in range(-max(map(len, shapes), default=0), 0)
    )


def is_long(shape: Shape, axis: int) -> bool:
    """Whether there is such an axis, and its length is not 1."""
    return -axis <= len(shape) and shape[axis] != 1


def varies(formula: Formula, axes: Iterable[int]) -> bool:
    """Whether it has several values along one of the axes."""
    shape = shape_of(formula)
    return any(is_long(shape, axis) for axis in axes)


def broadcast_axes(small: Shape, large: Shape) -> tuple[int, ...]:
    """The axes along which `small` is repeated to `large`."""
    axes = range(-len(large), 0)
    return tuple(axis for axis in axes if is_long(large, axis) and not is_long(small, axis))


def segments(before: Shape, after: Shape) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Which axes become which when an array is reshaped: the shortest runs with as many entries.

    >>> segments((2, 6, 5), (2, 2, 3, 5))
    [((-3,), (-4,)), ((-2,), (-3, -2)), ((-1,), (-1,))]
    """
    i, j = -len(before), -len(after)
    if math.prod(before) != math.prod(after) or 0 in before:
        return [(tuple(range(i, 0)), tuple(range(j, 0)))]
    found = []
    while i or j:
        if i and before[i] == 1:
            old, new = (i,), ()
        elif j and after[j] == 1:
            old, new = (), (j,)
        else:
            old, new, a, b = (i,), (j,), before[i], after[j]
            while a != b:
                if a < b:
                    old += (old[-1] + 1,)
                    a *= before[old[-1]]
                else:
                    new += (new[-1] + 1,)
                    b *= after[new[-1]]
        found.append((old, new))
        i, j = i + len(old), j + len(new)
    return found


def shape_after(shape: Shape, before: Shape, after: Shape) -> Shape:
    """The shape of a formula, which stands for an array of the shape `before`, when that is
    reshaped: again with length 1 along what it does not vary along."""
    fixed = set()
    for old, new in segments(before, after):
        if not any(is_long(shape, axis) for axis in old):
            fixed |= set(new)
    return tuple(1 if axis in fixed else after[axis] for axis in range(-len(after), 0))


def reshaped(formula: Formula, before: Shape, after: Shape) -> Formula:
    """An array of the shape `before` in another shape; axes of length 1 in front mean nothing."""
    is_one_value = all(n == 1 for n in shape_of(formula))
    if is_one_value or _without_leading_ones(before) == _without_leading_ones(after):
        return formula
    if isinstance(formula, Sum):
        return plus(*[reshaped(term, before, after) for term in formula.terms])
    if isinstance(formula, Product):
        powers = [power(reshaped(b, before, after), e) for b, e in formula.factors]
        return times(Product(formula.coefficient, ()), *powers)
    if isinstance(formula, Reshaped) and formula.after == before:
        return reshaped(formula.body, formula.before, after)
    return Reshaped(formula, before, after)


def _without_leading_ones(shape: Shape) -> Shape:
    return shape[next((k for k, n in enumerate(shape) if n != 1), len(shape)) :]


def sigma(body: Formula, axes: Iterable[int], shape: Shape) -> Formula:
    """Σ over axes of an array of this shape; of equal values it is so many times one."""
    axes = tuple(axes)
    kept = tuple(sorted(axis for axis in axes if varies(body, (axis,))))
    equal = math.prod(shape[axis] for axis in axes if axis not in kept)
    return times(number(equal), Sigma(body, kept) if kept else body)
