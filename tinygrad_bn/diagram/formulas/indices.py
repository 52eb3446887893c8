"""The letters i, j, … at the symbols of a formula: which entry of an array is meant."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from ...ops import elementwise
from .formula import (
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
    parts,
    reshaped,
    segments,
    shape_of,
)  # fmt: skip

Index = Mapping[int, str]  # the letters of axes, which are counted from the last: {−1: "i"}
NO_INDEX: Index = MappingProxyType({})

_ELEMENTWISE = {*elementwise.__all__, "step", "sign", "…"}
_MATRIX = {-2, -1}  # the axes of the matrices that @ and ᵀ are of
LETTERS = "ijklnopqrstuvwabcdfgh"


def indexed(formulas: Iterable[Formula], beside: Iterable[Shape] = ()) -> Index:
    """The letters of the axes of a line: of formulas, and of arrays of the shapes `beside` them.

    There are some if a symbol varies along an axis and another, or an array beside it, does not.
    Then every axis along which something varies has its own: i the first, j the second, …, counting
    those that a Σ runs over, and those that a reshape has made fewer. Where @ and the like mix
    entries there are none, unless entries are moved or a Σ runs over a part of the axes; and
    matrices that are summed stay whole.

    >>> x, mu = Symbol("x", (4, 3)), Symbol("μ", (1, 3))
    >>> indexed([Sum((x, mu))]), indexed([Sum((x, x))])
    ({-2: 'i', -1: 'j'}, {})
    """
    formulas, beside = list(formulas), list(beside)
    whole = shape_of(Sum(tuple(formulas)))
    for moved in _moved_terms(formulas):
        if len(moved.before) > len(moved.after) >= len(whole):
            back = Reshaped(moved, moved.after, moved.before)
            kept = [reshaped(formula, back.before, back.after) for formula in formulas]
            return inside_reshaped(back, indexed(kept, beside))
    line = Sum((*formulas, *[Symbol("", shape) for shape in beside if _fits(shape, whole)]))
    patterns = {axis: _pattern([line], axis) for axis in range(-len(shape_of(line)), 0)}
    varied = {axis for axis, found in patterns.items() if True in found}
    entries = list(_entries(line))
    is_told = any(map(_is_partial_sum, entries)) or _moves_some(entries)
    if any(False in patterns[axis] for axis in varied):
        mixes = any(isinstance(part, Apply) and not is_elementwise(part) for part in entries)
        is_told |= not mixes or any(map(_pairs_entries, entries))
    if not is_told:
        return {}
    letters = dict(zip(sorted(_long_axes(line) | varied), LETTERS))
    if any(map(is_of_matrices, entries)) and not any(False in patterns.get(a, ()) for a in _MATRIX):
        varied -= _MATRIX
    return {axis: letters.get(axis, "·") for axis in sorted(varied)}


def _moved_terms(formulas: Iterable[Formula]) -> Iterator[Reshaped]:
    """What is reshaped in the terms and factors of formulas."""
    for formula in formulas:
        if isinstance(formula, Reshaped):
            yield formula
        elif isinstance(formula, (Sum, Product)):
            yield from _moved_terms(parts(formula))


def _moves_some(entries: Sequence[Formula]) -> bool:
    """Whether some of several arrays stand in another shape: x·w would be that of whole arrays."""
    arrays = [part for part in entries if isinstance(part, (Symbol, Gradient)) and part.shape]
    moved = [part for part in entries if isinstance(part, Reshaped) and part.before != part.after]
    return len(arrays) > 1 and bool(moved)


def only_ones_differ(moved: Reshaped) -> bool:
    """Whether only axes of length 1 are dropped or put in."""
    before, after = ([n for n in shape if n != 1] for shape in (moved.before, moved.after))
    return before == after


def _fits(shape: Shape, whole: Shape) -> bool:
    """Whether an array of a shape could stand beside a formula, for all that their shapes tell: the
    one with fewer axes is broadcast to the other."""
    few, many = sorted((shape, whole), key=len)
    same_rank = len(few) == len(many)
    pairs = zip(reversed(few), reversed(many))
    return all(a in (1, b) or (same_rank and b == 1) for a, b in pairs)


def is_elementwise(function: Apply) -> bool:
    """Whether an entry of it is made of one entry of each argument; gelu′ is as gelu."""
    return function.name.rstrip("′") in _ELEMENTWISE


def is_of_matrices(formula: Formula) -> bool:
    """Whether it is made of the matrices along the last two axes of its arguments."""
    return isinstance(formula, Apply) and formula.name in ("@", "ᵀ")


def _entries(formula: Formula) -> Iterator[Formula]:
    """It and the formulas in it of which its entries are made one by one."""
    yield formula
    if not isinstance(formula, Apply) or is_elementwise(formula):
        for part in parts(formula):
            yield from _entries(part)


def _is_partial_sum(formula: Formula) -> bool:
    """Whether it is a Σ that leaves axes: it must say over which it runs."""
    return isinstance(formula, Sigma) and any(n != 1 for n in shape_of(formula))


def _pairs_entries(formula: Formula) -> bool:
    """Whether it moves entries, or multiplies each by each of others, as xᵢ·yⱼ."""
    if isinstance(formula, Product) and formula.factors:
        whole = shape_of(formula)
        return all(broadcast_axes(shape_of(base), whole) for base in parts(formula))
    return isinstance(formula, Reshaped)


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


def inside_sigma(formula: Sigma, index: Index) -> tuple[Index, str]:
    """The letters inside a Σ: none that stands for something outside, each that of the place of its
    axis unless it is taken; and those of the Σ."""
    own = dict(zip(sorted(_long_axes(formula.body)), LETTERS))
    taken = "".join(index.values())
    bound: dict[int, str] = {}
    for axis in formula.axes:
        free = [letter for letter in LETTERS if letter not in (*taken, *bound.values())]
        bound[axis] = own[axis] if own.get(axis) in free else next(iter(free), "·")
    outside = {0: taken}  # so that no Σ in it takes one of them again
    return {**index, **bound, **outside}, "".join(bound.values())


def inside_reshaped(formula: Reshaped, index: Index) -> Index:
    """The letters of the axes before: an axis that became several has the letters of all, and
    several that became one have one each."""
    inside: dict[int, str] = {}
    for old, new in segments(formula.before, formula.after):
        letters = "".join(dict.fromkeys("".join(index.get(axis, "") for axis in new)))
        axes = [axis for axis in old if letters and is_long(formula.before, axis)]
        inside |= zip(axes, letters if len(letters) == len(axes) else [letters] * len(axes))
    return inside | {0: "".join(index.values())}


def index_of(shape: Shape | None, index: Index) -> str:
    """The letters of an array of this shape."""
    axes = [axis for axis in sorted(index) if axis < 0 and is_long(shape or (), axis)]
    return "".join(dict.fromkeys("".join(index[axis] for axis in axes)))
