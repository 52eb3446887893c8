"""The letters i, j, … at the symbols of a formula: which entry of an array is meant."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from ...ops import elementwise
from .formula import (
    Apply,
    Formula,
    Gradient,
    Reshaped,
    Shape,
    Sigma,
    Sum,
    Symbol,
    is_long,
    parts,
    segments,
    shape_of,
    within,
)  # fmt: skip

Index = Mapping[int, str]  # the letters of axes, which are counted from the last: {−1: "i"}
NO_INDEX: Index = MappingProxyType({})

_ELEMENTWISE = {*elementwise.__all__, "step", "sign", "mask", "const", "…"}


def indexed(formulas: Iterable[Formula], shapes: Sequence[Shape] = ()) -> Index:
    """The letters that axes need: those along which a symbol varies and another, or an array of
    one of `shapes` beside it, does not. None where entries are mixed, as by @.

    >>> x, mu = Symbol("x", (4, 3)), Symbol("μ", (1, 3))
    >>> indexed([Sum((x, mu))])
    {-2: 'i'}
    """
    formulas = list(formulas)
    if not all(map(_is_elementwise, formulas)):
        return {}
    whole = shape_of(Sum(tuple(formulas)))
    beside = [shape for shape in shapes if _fits(shape, whole)]
    patterns = {axis: _pattern(formulas, axis) for axis in range(-len(whole), 0)}
    needed = [
        axis
        for axis, pattern in patterns.items()
        if True in pattern and False in pattern + [is_long(shape, axis) for shape in beside]
    ]
    return _letters(needed, formulas, ())


def _fits(shape: Shape, whole: Shape) -> bool:
    """Whether an array of a shape could stand beside a formula, for all that their shapes tell."""
    pairs = zip(reversed(shape), reversed(whole))
    return len(shape) <= len(whole) and all(1 in (a, b) or a == b for a, b in pairs)


def _is_elementwise(formula: Formula) -> bool:
    functions = {part.name for part in within(formula) if isinstance(part, Apply)}
    return functions <= _ELEMENTWISE


def _pattern(formulas: Sequence[Formula], axis: int) -> list[bool]:
    """Which of the symbols in formulas vary along an axis of theirs; a Σ over it is one that does
    not, and numbers are none."""
    found: list[bool] = []
    for formula in formulas:
        if isinstance(formula, (Symbol, Gradient)):
            found += [is_long(formula.shape, axis)] if formula.shape is not None else []
        elif isinstance(formula, Sigma) and axis in formula.axes:
            found.append(False)
        elif isinstance(formula, Reshaped):
            pairs = segments(formula.before, formula.after) if is_long(formula.after, axis) else []
            old = next((old for old, new in pairs if axis in new), ())
            inside = [_pattern([formula.body], before) for before in old]
            found += [any(varies) for varies in zip(*inside)] or [False]
        elif isinstance(formula, Apply) and not formula.arguments:
            found.append(is_long(shape_of(formula), axis))
        else:
            found += _pattern(parts(formula), axis)
    return found


def _letters(axes: Iterable[int], formulas: Sequence[Formula], taken: Iterable[str]) -> Index:
    """A letter for each axis; the same for axes along which the same symbols vary."""
    free = (letter for letter in "ijklnopqrstuvw" if letter not in "".join(taken))
    letters: dict[tuple, str] = {}
    for axis in axes:
        pattern = tuple(_pattern(formulas, axis))
        if pattern not in letters:
            letters[pattern] = next(free, "i")
    return {axis: letters[tuple(_pattern(formulas, axis))] for axis in axes}


def inside_sigma(formula: Sigma, index: Index) -> tuple[Index, str]:
    """The letters inside a Σ: none that stands for something outside; and those of the Σ."""
    if not _is_elementwise(formula.body):
        return NO_INDEX, ""
    bound = _letters(formula.axes, [formula.body], index.values())
    outside = {0: "".join(index.values())}  # so that no Σ in it takes one of them again
    return {**index, **bound, **outside}, "".join(dict.fromkeys(bound.values()))


def inside_reshaped(formula: Reshaped, index: Index) -> Index:
    """The letters of the axes before: an axis that became several has the letters of all."""
    inside: dict[int, str] = {}
    for old, new in segments(formula.before, formula.after):
        letters = "".join(dict.fromkeys("".join(index.get(axis, "") for axis in new)))
        inside |= {axis: letters for axis in old if letters}
    return inside | {0: "".join(index.values())}


def index_of(shape: Shape | None, index: Index) -> str:
    """The letters of an array of this shape."""
    axes = [axis for axis in sorted(index) if axis < 0 and is_long(shape or (), axis)]
    return "".join(dict.fromkeys("".join(index[axis] for axis in axes)))
