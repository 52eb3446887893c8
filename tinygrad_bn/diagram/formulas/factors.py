"""By what a formula multiplies a symbol: the local derivative in what a gradient rule returns."""

from collections.abc import Callable
from dataclasses import dataclass

from .formula import (
    ONE,
    ZERO,
    Apply,
    Formula,
    Gradient,
    Product,
    Reshaped,
    Shape,
    Sigma,
    Sum,
    Symbol,
    broadcast_axes,
    is_long,
    plus,
    reshaped,
    shape_after,
    shape_of,
    sigma,
    symbols,
    times,
)  # fmt: skip


@dataclass(frozen=True)
class Factor:
    """What an entry of a symbol is multiplied by. `seen` is the shape in which the symbol stands in
    the formula; `picked` the axes of a Σ that fell away, and the reshapes after it."""

    formula: Formula
    seen: Shape
    picked: tuple = ()


def factor_of(formula: Formula, symbol: Symbol | Gradient) -> Factor | None:
    """What `symbol` is multiplied by in a formula that is linear in it; None if that is no factor.

    A Σ over axes along which the symbol itself varies picks one entry of it, as ∂yᵢ/∂μ is one entry
    of Σᵢ gᵢ ∂yᵢ/∂μ: that Σ falls away.
    """
    if formula in (symbol, ZERO):
        return Factor(ONE if formula == symbol else ZERO, shape_of(symbol))
    if isinstance(formula, Sum):
        return _combined([factor_of(term, symbol) for term in formula.terms], plus)
    if isinstance(formula, Product):
        held = [base for base, exponent in formula.factors if symbol in symbols(base)]
        rest = [factor for factor in formula.factors if factor[0] not in held]
        if len(held) != 1 or (held[0], 1) not in formula.factors:
            return None
        inside = factor_of(held[0], symbol)
        return inside and _multiplied(
            times(Product(formula.coefficient, tuple(rest))), held[0], inside
        )
    if isinstance(formula, Sigma):
        inside = factor_of(formula.body, symbol)
        return inside and _summed(formula, inside)
    if isinstance(formula, Reshaped):
        inside = factor_of(formula.body, symbol)
        return inside and _moved(formula.before, formula.after, inside)
    if isinstance(formula, Apply) and formula.name == "where" and formula.how is None:
        return _chosen(formula, symbol)
    return None


def _combined(found: list[Factor | None], combine: Callable[..., Formula]) -> Factor | None:
    """The factor in a combination of formulas; None where they are about different entries of the
    symbol: if a Σ fell away in one only, or it stands there in another shape."""
    if None in found or len({(factor.seen, factor.picked) for factor in found}) != 1:
        return None
    return Factor(combine(*[f.formula for f in found]), found[0].seen, found[0].picked)


def _multiplied(rest: Formula, held: Formula, inside: Factor) -> Factor | None:
    if inside.picked:
        if broadcast_axes(shape_of(held), shape_of(rest)):
            return None  # along the axis of the Σ, perhaps: for other entries than it has picked
        for before, after in reversed(inside.picked[1:]):
            rest = reshaped(rest, after, before)
    return Factor(times(rest, inside.formula), inside.seen, inside.picked)


def _summed(total: Sigma, inside: Factor) -> Factor | None:
    if inside.picked:
        return None
    picked = tuple(axis for axis in total.axes if is_long(inside.seen, axis))
    summed = tuple(axis for axis in total.axes if axis not in picked)
    factor = sigma(inside.formula, summed, shape_of(total.body))
    return Factor(factor, inside.seen, (picked,) if picked else ())


def _moved(before: Shape, after: Shape, inside: Factor) -> Factor:
    if inside.picked:
        return Factor(inside.formula, inside.seen, (*inside.picked, (before, after)))
    return Factor(reshaped(inside.formula, before, after), shape_after(inside.seen, before, after))


def _chosen(formula: Apply, symbol: Symbol | Gradient) -> Factor | None:
    """The factor in where(condition, a, b), either of which may be 0."""
    condition, *branches = formula.arguments
    linear = [branch for branch in branches if branch != ZERO]

    def combine(*factors: Formula) -> Formula:
        of = dict(zip(linear, factors))
        chosen = [of.get(branch, branch) for branch in branches]
        return Apply("where", (condition, *chosen), formula.shape, formula.how)

    if symbol in symbols(condition):
        return None
    return _combined([factor_of(branch, symbol) for branch in linear], combine)
