"""The family of normalizations as data: one standardization, over different axes.

The letters are axes of an input: N samples, C channels, S places (time, or rows and columns), F
features; G and K are the channels in G groups of K. (Wu & He 2018, Figure 2, is this table drawn.)
"""

import functools
from typing import NamedTuple


class Member(NamedTuple):
    """A member of the family: y = γ (x − μ) / √(σ² + ε) + β, or without μ if it is not centred."""

    layout: str  # the axes of its input
    shares: str  # those along which entries share one μ and one σ²
    affine: str  # those along which γ and β vary
    centred: bool = True
    mean: str = "μ"  # what its statistics are called in pictures
    variance: str = "σ²"


FAMILY = {
    "batch_norm": Member("NCS", shares="NS", affine="C", mean="μ_B", variance="σ²_B"),
    "layer_norm": Member("NF", shares="F", affine="F"),
    "instance_norm": Member("NCS", shares="S", affine="C"),
    "group_norm": Member("NGKS", shares="KS", affine="GK"),
    "rms_norm": Member("NF", shares="F", affine="F", centred=False, variance="RMS²"),
}


class Arrangement(NamedTuple):
    """How an input is normalized."""

    shape: tuple[int, ...]  # as which it is seen
    axes: tuple[int, ...]  # along which entries share statistics
    affine: tuple[int, ...]  # the shape of γ and β beside it


@functools.lru_cache
def arrange(
    member: Member, shape: tuple[int, ...], features: int | None = None, groups: int = 1
) -> Arrangement:
    """Where the axes of `member` are in an input of `shape`.

    `features`: how many axes, the last ones, are F (for a layout with F). `groups`: G.

    >>> arrange(FAMILY["batch_norm"], (8, 6, 5, 5))
    Arrangement(shape=(8, 6, 5, 5), axes=(0, 2, 3), affine=(1, 6, 1, 1))
    >>> arrange(FAMILY["group_norm"], (8, 6, 5, 5), groups=2)
    Arrangement(shape=(8, 2, 3, 5, 5), axes=(2, 3, 4), affine=(1, 2, 3, 1, 1))
    >>> arrange(FAMILY["layer_norm"], (8, 6, 5), features=2)
    Arrangement(shape=(8, 6, 5), axes=(1, 2), affine=(1, 6, 5))
    """
    if "G" in member.layout:
        shape = (shape[0], groups, shape[1] // groups, *shape[2:])
    first, middle, last = member.layout[0], member.layout[1:-1], member.layout[-1]
    repeats = len(shape) - 1 - len(middle) if features is None else features
    letters = first * (len(shape) - len(middle) - repeats) + middle + last * repeats
    axes = tuple(i for i, letter in enumerate(letters) if letter in member.shares)
    affine = tuple(n if letter in member.affine else 1 for n, letter in zip(shape, letters))
    return Arrangement(shape, axes, affine)
