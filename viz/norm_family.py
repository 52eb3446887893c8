"""Which entries of an (N, C, H·W) block share a mean and a variance: every member of the family.

Drawn from the table in `tinygrad_bn.norm.axes`. Run it as `python -m viz.norm_family [folder]`.
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from tinygrad_bn.norm.axes import FAMILY, Member, arrange

GALLERY = Path(__file__).parent / "gallery"
BLOCK = N, C, S = 4, 6, 5
GROUPS = 2
DEPTH = np.array([0.42, 0.34])  # how far to the right and up a step along N goes
HIGHLIGHT, TINTS = "#005A9C", ("#C5DCF0", "#E4ECF3")
INK, MUTED = "#1B1F24", "#57606A"


def shared_with(member: Member) -> tuple[np.ndarray, tuple[int, ...]]:
    """The number of the group of each entry of the block, and the shape of γ there."""
    features = 2 if "F" in member.layout else None  # all of a sample
    shape, axes, affine = arrange(member, BLOCK, features, GROUPS)
    kept = [1 if i in axes else n for i, n in enumerate(shape)]
    groups = np.broadcast_to(np.arange(np.prod(kept)).reshape(kept), shape)
    return groups.reshape(BLOCK), affine


def colours(groups: np.ndarray) -> np.ndarray:
    """The colour of each column of entries (N, C): no member splits H·W. The group at the front
    left is highlighted, and neighbouring groups differ."""
    along_n, along_c = (
        np.unique(line, return_inverse=True)[1] for line in (groups[:, 0, 0], groups[0, :, 0])
    )
    tints = np.array(TINTS)[(along_n[:, None] + along_c) % 2]
    return np.where(groups[:, :, 0] == groups[0, 0, 0], HIGHLIGHT, tints)


def faces(groups: np.ndarray):
    """The visible squares of the block with their colours: in front, on top, at the right."""
    colour, right, up = colours(groups), np.array([1, 0]), np.array([0, 1])

    def square(n, c, s, first, second):
        origin = np.array([c, s]) + n * DEPTH
        return [origin, origin + first, origin + first + second, origin + second]

    for c in range(C):
        yield from ((square(0, c, s, right, up), colour[0, c]) for s in range(S))
        yield from ((square(n, c, S, right, DEPTH), colour[n, c]) for n in range(N))
    for n in range(N):
        yield from ((square(n, C, s, DEPTH, up), colour[n, C - 1]) for s in range(S))


def draw_member(axes, name: str, member: Member) -> None:
    groups, affine = shared_with(member)
    squares, fill = zip(*faces(groups))
    axes.add_collection(PolyCollection(squares, facecolors=fill, edgecolors="white", lw=0.8))
    axes.set_xlim(-1.2, C + N * DEPTH[0] + 0.6)
    axes.set_ylim(-3.9, S + N * DEPTH[1] + 1.6)
    axes.set_aspect("equal")
    axes.axis("off")
    middle = (C + N * DEPTH[0]) / 2
    count = groups.max() + 1
    texts = [
        (S + N * DEPTH[1] + 0.7, name.replace("_", " ").replace("rms", "RMS"), INK, 13, "bold"),
        (-1.6, f"{count} groups of {groups.size // count} values", HIGHLIGHT, 10, "normal"),
        (-2.5, "share μ and σ²" if member.centred else "share the mean square", INK, 10, "normal"),
        (-3.4, f"γ: {np.prod(affine)} numbers", MUTED, 10, "normal"),
    ]
    for y, text, colour, size, weight in texts:
        axes.text(middle, y, text, ha="center", color=colour, size=size, weight=weight)
    axes.text(C / 2, -0.65, "C", ha="center", color=MUTED, size=9)
    axes.text(-0.55, S / 2, "H·W", ha="center", va="center", color=MUTED, size=9, rotation=90)
    axes.text(*(np.array([C + 0.4, -0.35]) + N / 2 * DEPTH), "N", color=MUTED, size=9)


def main(folder: str | Path = GALLERY) -> None:
    """Draw into `folder` and say what was written."""
    matplotlib.rcParams.update({"svg.hashsalt": "tinygrad_bn", "svg.fonttype": "path"})
    figure = Figure(figsize=(13, 3.5), layout="constrained")
    for axes, (name, member) in zip(figure.subplots(1, len(FAMILY)), FAMILY.items()):
        draw_member(axes, name, member)
    path = Path(folder) / "norm_family.svg"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None}, facecolor="white")
    print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
