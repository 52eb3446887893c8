"""How a normalization lies in memory: which axes are one, and what shares statistics along them.

Every kernel reads an array as (repeats, groups, parts, run), neighbours along the last: what has
the same index in `groups` shares statistics, and along `parts` γ and β vary.
"""

import itertools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from ..reduction import reduced_axes


class Layout(NamedTuple):
    """What a kernel of this kind is to know of x, γ and β."""

    kind: str  # "columns": of a matrix; "rows": γ varies along them; "parts": all else
    order: tuple[int, ...] | None  # of the axes of x in memory; None: as they are
    back: tuple[int, ...] | None  # the axes of x in that order
    repeats: int
    groups: int
    parts: int
    run: int
    affine: int  # how many values γ has


def layouts(shape, strides, axes, gamma, beta) -> Iterator[Layout]:
    """The layouts in which x, of this shape, can be read; γ and β: their shapes, or None.

    First in the order of memory, then in that of the axes. There is none for shapes of γ and β that
    differ or do not stand beside x, for an x without values, and where what shares statistics is
    scattered.
    """
    given = {shape for shape in (gamma, beta) if shape is not None}
    beside = given.pop() if given else ()
    affine = (1,) * (len(shape) - len(beside)) + beside
    if given or 0 in shape or len(affine) > len(shape):
        return
    if any([n not in (1, m) for n, m in zip(affine, shape)]):
        return
    axes, as_it_is = reduced_axes(len(shape), axes), tuple(range(len(shape)))
    in_memory = tuple(sorted(as_it_is, key=lambda i: -abs(strides[i])))
    has_affine = gamma is not None or beta is not None
    for order in dict.fromkeys((in_memory, as_it_is)):
        found = _read(shape, axes, affine, order)
        if found is not None and not (has_affine and math.prod(affine) != found[-1]):
            changed = order != as_it_is
            back = tuple(sorted(as_it_is, key=order.__getitem__)) if changed else None
            yield Layout(found[0], order if changed else None, back, *found[1:])


def _read(shape, axes, affine, order) -> tuple | None:
    """With the axes in this order: kind, repeats, groups, parts, run, and the size of γ.

    Axes are letters, and neighbours of the same kind one letter: k is kept and r reduced; in
    capitals, γ varies along it.
    """
    long = [i for i in order if shape[i] > 1]
    letters = ["kKrR"[2 * (i in axes) + (affine[i] > 1)] for i in long]
    for some in ("kK", "KR"):  # statistics and γ stand in the order of the axes of x
        places = [i for i, letter in zip(long, letters) if letter in some]
        if places != sorted(places):
            return None
    runs = [
        (a, list(run)) for a, run in itertools.groupby(zip(letters, long), lambda pair: pair[0])
    ]
    pattern = "".join([letter for letter, _ in runs])
    sizes = [math.prod([shape[i] for _, i in run]) for _, run in runs]
    if re.fullmatch("r[kK]", pattern):
        return "columns", sizes[0], sizes[1], 1, 1, sizes[1]
    n = {"k": 1, "K": 1, "R": 1, **dict(zip(pattern, sizes))}  # of two r the last
    groups, run = n["k"] * n["K"], sizes[-1] if sizes else 1
    if re.fullmatch("k?K?R", pattern):
        return "rows", 1, groups, 1, run, n["K"] * run
    if re.fullmatch("(r(?=.))?k?K?R?r", pattern):
        repeats = sizes[0] if pattern[0] == "r" and len(pattern) > 1 else 1
        return "parts", repeats, groups, n["R"], run, n["K"] * n["R"]
    return None
