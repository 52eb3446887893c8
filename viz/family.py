"""Which entries of an (N, C, H·W) block share a mean and a variance: every member of the family.

Drawn from the table in `tinygrad_bn.norm.axes`. Run it as `python -m viz.family [folder]`.
"""

import sys
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np

from tinygrad_bn.diagram.drawing.shapes import Group, Label, Picture, Point, Polygon, Rect, Shape
from tinygrad_bn.diagram.drawing.sketch import plain
from tinygrad_bn.diagram.drawing.style import picture_css
from tinygrad_bn.diagram.drawing.svg import svg_text
from tinygrad_bn.files import write_whole
from tinygrad_bn.norm.axes import FAMILY, Member, arrange

GALLERY = Path(__file__).parent / "gallery"
BLOCK = N, C, S = 4, 6, 5
GROUPS = 2
UNIT = 20  # pixels
DEPTH = np.array([0.42, -0.34])  # how far to the right and up a step along N goes
RIGHT, UP = np.array([1, 0]), np.array([0, -1])
WIDTH, TOP, HEIGHT = 230, 70, 300  # of a block with its texts; where its upper edge is
HIGHLIGHT, TINTS = "arrow forward", ("cell plus3", "cell plus1")


def shared_with(member: Member) -> tuple[np.ndarray, tuple[int, ...]]:
    """The number of the group of each entry of the block, and the shape of γ there."""
    features = 2 if "F" in member.layout else None  # all of a sample
    shape, axes, affine = arrange(member, BLOCK, features, GROUPS)
    kept = [1 if i in axes else n for i, n in enumerate(shape)]
    groups = np.broadcast_to(np.arange(prod(kept)).reshape(kept), shape)
    return groups.reshape(BLOCK), affine


def looks(groups: np.ndarray) -> np.ndarray:
    """The look of each column of entries (N, C): no member splits H·W. The group at the front left
    is highlighted, and neighbouring groups differ."""
    along_n, along_c = (
        np.unique(line, return_inverse=True)[1] for line in (groups[:, 0, 0], groups[0, :, 0])
    )
    tints = np.array(TINTS)[(along_n[:, None] + along_c) % 2]
    return np.where(groups[:, :, 0] == groups[0, 0, 0], HIGHLIGHT, tints)


def faces(groups: np.ndarray) -> Iterator[Polygon]:
    """The visible squares of the block: in front, on top, at the right."""
    look = looks(groups)

    def square(n: int, c: int, s: int, first: np.ndarray, second: np.ndarray) -> Polygon:
        origin = c * RIGHT + s * UP + n * DEPTH
        corners = [origin, origin + first, origin + first + second, origin + second]
        return Polygon(str(look[n, min(c, C - 1)]), tuple(map(place, corners)))

    for c in range(C):
        yield from (square(0, c, s, RIGHT, UP) for s in range(S))
        yield from (square(n, c, S, RIGHT, DEPTH) for n in range(N))
    for n in range(N):
        yield from (square(n, C, s, DEPTH, UP) for s in range(S))


def place(at: np.ndarray) -> Point:
    """A point of the block, whose front left bottom corner is (0, 0), in pixels."""
    left = (WIDTH - UNIT * (C + N * DEPTH[0])) / 2
    bottom = TOP - UNIT * (S * UP[1] + N * DEPTH[1])
    return float(left + UNIT * at[0]), float(bottom + UNIT * at[1])


def texts(name: str, member: Member, groups: np.ndarray, affine: tuple) -> Iterator[Label]:
    """What stands above, below and beside a block."""
    count = int(groups.max()) + 1
    title = name.replace("_", " ").replace("rms", "RMS")
    share = "share μ and σ²" if member.centred else "share the mean square"
    lines = [(f"{count} groups of {groups.size // count} values", "text forward")]
    lines += [(share, "text ink"), (f"γ: {prod(affine)} numbers", "text muted")]
    yield Label("text ink", WIDTH / 2, 30, plain(title), 16, "middle", bold=True)
    for number, (line, look) in enumerate(lines):
        yield Label(look, WIDTH / 2, HEIGHT - 54 + 20 * number, plain(line), 13, "middle")
    for at, axis in (((C / 2, 0.8), "C"), ((-0.9, -S / 2 + 0.2), "H·W")):
        yield Label("text muted", *place(np.array(at)), plain(axis), 12, "middle")
    yield Label("text muted", *place(N / 2 * DEPTH + [C + 0.3, 0.6]), plain("N"), 12)


def picture() -> Picture:
    shapes: list[Shape] = [Rect("paper", 0, 0, WIDTH * len(FAMILY), HEIGHT)]
    for number, (name, member) in enumerate(FAMILY.items()):
        groups, affine = shared_with(member)
        block = (*faces(groups), *texts(name, member, groups, affine))
        shapes.append(Group(block, "member", x=WIDTH * number))
    description = "Five blocks of samples, channels, places; what shares statistics has one colour."
    return Picture("The family of norms", description, WIDTH * len(FAMILY), HEIGHT, tuple(shapes))


def main(folder: str | Path = GALLERY) -> None:
    """Draw into `folder`, light and dark, and say what was written."""
    for theme in ("light", "dark"):
        path = Path(folder) / f"family_{theme}.svg"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, svg_text(picture(), picture_css(theme)).encode())
        print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
