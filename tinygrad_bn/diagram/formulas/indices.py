"""The letters i, j, … at the symbols of a formula: which entry of an array is meant."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
)  # fmt: skip

Index = Mapping[int, str]  # the letters of axes, which are counted from the last: {−1: "i"}
NO_INDEX: Index = MappingProxyType({})

_ELEMENTWISE = {*elementwise.__all__, "step", "sign", "…"}
LETTERS = "ijklnopqrstuvw"


def indexed(formulas: Iterable[Formula], beside: Iterable[Shape] = ()) -> Index:
    """The letters of the axes of a line: of formulas, and of arrays of the shapes `beside` them.

    There are some if a symbol varies along an axis and another, or an array beside it, does not.
    Then every axis along which something varies has one: i the first, j the second, …, counting
    those that a Σ runs over; axes along which the same symbols vary have the same. Where @ and the
    like mix entries there are none, unless entries are moved or a Σ runs over a part of the axes.

    >>> x, mu = Symbol("x", (4, 3)), Symbol("μ", (1, 3))
    >>> indexed([Sum((x, mu))]), indexed([Sum((x, x))])
    ({-2: 'i', -1: 'j'}, {})
    """
    formulas = list(formulas)
    whole = shape_of(Sum(tuple(formulas)))
    near = [Symbol("", shape) for shape in beside if _fits(shape, whole)]
    line = Sum((*formulas, *near))
    patterns = {axis: _pattern([line], axis) for axis in range(-len(shape_of(line)), 0)}
    varied = {axis: found for axis, found in patterns.items() if True in found}
    entries = list(_entries(line))
    mixes = any(isinstance(part, Apply) and not is_elementwise(part) for part in entries)
    is_told = any(map(_is_partial_sum, entries))
    if any(False in found for found in varied.values()):
        is_told |= not mixes or any(isinstance(part, Reshaped) for part in entries)
    return _letters(varied, _long_axes(line), ()) if is_told else {}


def _fits(shape: Shape, whole: Shape) -> bool:
    """Whether an array of a shape could stand beside a formula, for all that their shapes tell."""
    return all(1 in (a, b) or a == b for a, b in zip(reversed(shape), reversed(whole)))


def is_elementwise(function: Apply) -> bool:
    """Whether an entry of it is made of one entry of each argument; gelu′ is as gelu."""
    return function.name.rstrip("′") in _ELEMENTWISE


def _entries(formula: Formula) -> Iterator[Formula]:
    """It and the formulas in it of which its entries are made one by one."""
    yield formula
    if not isinstance(formula, Apply) or is_elementwise(formula):
        for part in parts(formula):
            yield from _entries(part)


def _is_partial_sum(formula: Formula) -> bool:
    """Whether it is a Σ that leaves axes: it must say over which it runs."""
    return isinstance(formula, Sigma) and any(n != 1 for n in shape_of(formula))


def _long_axes(formula: Formula) -> set[int]:
    """The axes along which it varies, or what a Σ in it runs over."""
    shape = shape_of(formula)
    axes = {axis for axis in range(-len(shape), 0) if is_long(shape, axis)}
    is_own = isinstance(formula, Apply) and not is_elementwise(formula)
    inside = () if is_own or isinstance(formula, Reshaped) else parts(formula)
    return axes.union(*map(_long_axes, inside))


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
        elif isinstance(formula, Apply) and not (formula.arguments and is_elementwise(formula)):
            found.append(is_long(shape_of(formula), axis))
        else:
            found += _pattern(parts(formula), axis)
    return found


def _letters(
    patterns: Mapping[int, list[bool]], axes: Iterable[int], taken: Iterable[str]
) -> Index:
    """A letter for each axis that has a pattern: that of its place among all `axes` unless it is
    taken, and the same for those of one pattern."""
    left = [letter for letter in LETTERS if letter not in "".join(taken)]
    own = dict(zip(sorted(axes), LETTERS))
    letters: dict[tuple, str] = {}
    for axis, found in patterns.items():
        letter = own[axis] if own.get(axis) in left else next(iter(left), "i")
        if letters.setdefault(tuple(found), letter) == letter and letter in left:
            left.remove(letter)
    return {axis: letters[tuple(found)] for axis, found in patterns.items()}


def inside_sigma(formula: Sigma, index: Index) -> tuple[Index, str]:
    """The letters inside a Σ: none that stands for something outside; and those of the Σ."""
    patterns = {axis: _pattern([formula.body], axis) for axis in formula.axes}
    bound = _letters(patterns, _long_axes(formula.body), index.values())
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
