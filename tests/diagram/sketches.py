"""Sketches made by hand, and what the tests ask of pictures: shapes where they are on the paper."""

import random
from dataclasses import replace

import numpy as np

from tinygrad_bn.diagram.drawing.measure import text_width
from tinygrad_bn.diagram.drawing.shapes import Curve, Group, Label, Rect, Shape, Tiles
from tinygrad_bn.diagram.drawing.sketch import Box, Column, Frame, Row, Sketch, Table, Wire, plain

STRIP = np.array([0.5, 3.5, -4.5, 7.5])
RUNNING = (None, 0.5, np.array([-0.25, 0.75]))  # a sum that grows while the gradients arrive
FORMULA = (("−½(σ", 0), ("2", 1), ("B", -1), ("+ε)", 0), ("−3/2", 1))
ARRAYS = {
    "a number": 3.25,
    "no dimension": np.float32(2),
    "eight": np.arange(1.0, 9.0),  # of every intensity
    "eight below 0": -np.arange(1.0, 9.0),
    "a grid": np.arange(-3.0, 3.0).reshape(2, 3),
    "three dimensions": np.arange(8.0).reshape(2, 2, 2),
    "nine": np.arange(9.0),
    "a small square": np.arange(-4.0, 5).reshape(3, 3),
    "a wide grid": np.arange(18.0).reshape(2, 9),
    "a square": np.arange(256.0).reshape(16, 16),
    "many": np.arange(-1599.5, 1600).reshape(100, 32),
    "a column": np.arange(40.0)[:, np.newaxis],
    "images": np.cos(np.arange(768.0)).reshape(4, 3, 8, 8),
    "nothing": np.zeros((0, 3)),
    "zeros": np.zeros(4),
    "a map of zeros": np.zeros((5, 5)),
    "not finite": np.array([1, np.nan, -np.inf, np.inf]),
    "all not a number": np.full((10, 10), np.nan),
    "one not a number": np.where(np.eye(10)[3] > 0, np.nan, 1.0),
    "infinity": np.inf,
    "huge": np.array([1e308, -1e308, 3e-320]),
    "a map of huge": np.full((20, 20), 1e308),
    "half": np.full(9, 60000, np.float16),
    "truths": np.array([True, False]),
    "whole numbers": np.array([2**62, -5, 7]),
    "not known": None,
}


def box(name: str, *rows: Row, kind: str = "op", columns: tuple[Column, ...] = ()) -> Box:
    """A box that is called by its id."""
    columns = columns or (Column((), rows),)
    return Box(name, kind, plain(name), (), plain("op (4, 1)"), columns, f"tooltip of {name}")


def everything() -> Sketch:
    """Every kind of box, row, wire and value; frames within frames, tables, notes, levels."""
    value, gradient = Row("forward", plain("▸"), (STRIP,)), Row("backward", plain("◂"), (-STRIP,))
    path, running = Row("path", plain("via μ"), (STRIP,)), Row("backward", plain("◂"), RUNNING)
    said = (Row("zero", plain("via σ² 0")), Row("saved", plain("saved"), (4.0,)))
    facts = (Row("note", plain("13 ops, 28 numbers")), Row("note", plain("×16")))
    outputs = (
        Column(plain("y"), (value, gradient)),
        Column(plain("μ"), (Row("forward", (), (4.0,)),)),
    )
    boxes = (
        box("x", value, path, gradient, kind="leaf"),
        box("ε", Row("forward", plain("▸"), (0.0,)), kind="constant"),
        box("norm", kind="fused", columns=outputs),
        box("block", *facts, kind="module"),
        box("z", value, running, *said),
        replace(box("x̂", value), definition=FORMULA),
        box("∂x", gradient),
        box("∂z", gradient),
        Box("empty", "op", (), (), (), (), ""),
        Table("wired", (((), plain("numbers")), (plain("saved"), plain("13")))),
        Table("apart", (((), plain("composed"), plain("fused")), (plain("ops"), plain("10")))),
    )
    wires = (
        Wire("a", "x", "norm", label=FORMULA),
        Wire("b", "ε", "norm"),
        Wire("c", "norm", "block", column=0),
        Wire("d", "norm", "z", column=1),
        Wire("e", "block", "z", "zero", plain("= 0")),
        Wire("f", "z", "x̂"),
        Wire("g", "z", "x̂", label=plain("twice")),
        Wire("h", "x̂", "empty"),
        Wire("i", "∂z", "∂x", "backward", plain("−1/m")),
        Wire("j", "norm", "∂z", "saved", plain("kept"), 0, ranked=False),
        Wire("k", "x̂", "∂z", "saved", ranked=False),
        Wire("l", "empty", "wired"),
    )
    frames = (
        Frame(plain("block"), ("norm", "block", "z")),
        Frame(plain("net, which has a long name"), ("ε", "norm", "block", "z", "x̂")),
        Frame((), ("∂x", "∂z")),
        Frame(plain("nobody"), ()),
    )
    notes = ("m = 4", "A note that is so long that it takes two lines: " + "and more " * 20)
    level = (("x", "∂x"), ("z", "∂z"))
    return Sketch("A picture", "of everything", boxes, wires, frames, notes, level=level)


def arrays() -> Sketch:
    """A box for every kind of array, as a value and as a gradient."""
    boxes = [
        box(name, Row("forward", plain("▸"), (value,)), Row("backward", plain("◂"), (value,)))
        for name, value in ARRAYS.items()
    ]
    wires = [Wire(f"w{i}", a.id, b.id) for i, (a, b) in enumerate(zip(boxes, boxes[5:]))]
    return Sketch("Arrays", "of every kind", tuple(boxes), tuple(wires))


def lanes(count: int) -> Sketch:
    """Batch norm over so many numbers, a lane for each."""
    names = {"x": "μ d", "μ": "d", "d": "q x̂", "q": "σ²", "σ²": "s", "s": "x̂", "x̂": "u", "γ": "u"}
    shared = {"μ", "σ²", "s", "γ"}
    samples = range(count)
    boxes = [box(name, Row("forward", plain("▸"), (0.5,))) for name in sorted(shared)]
    wires, frames = [], []
    for i in samples:
        mine = [f"{name}{i}" for name in (*names, "u") if name not in shared]
        boxes += [box(name, Row("forward", plain("▸"), (0.5 + i,))) for name in mine]
        frames.append(Frame(plain(f"sample {i}"), tuple(mine)))
    for start, ends in names.items():
        for end in ends.split():
            pairs = {
                (start if start in shared else f"{start}{i}", end if end in shared else f"{end}{i}")
                for i in samples
            }
            wires += [Wire(f"{a}-{b}", a, b) for a, b in sorted(pairs)]
    return Sketch("Lanes", "", tuple(boxes), tuple(wires), tuple(frames), across=True)


def scrambled(seed: int) -> Sketch:
    """Boxes of all sizes, and wires of all roles between any two of them."""
    dice = random.Random(seed)
    count = dice.randint(1, 25)
    names = [f"b{i}" for i in range(count)]
    boxes = []
    for name in names:
        arrays = [np.arange(float(dice.randint(1, 8))) for _ in range(dice.randint(0, 3))]
        rows = tuple(Row("forward", plain("▸"), (array,)) for array in arrays)
        titles = [f"o{k}" for k in range(dice.choice((0, 0, 0, 2, 4)))]
        columns = tuple(Column(plain(title), rows) for title in titles)
        boxes.append(box(name, *rows, kind=dice.choice(("leaf", "op", "fused")), columns=columns))
    wires = []
    for k in range(dice.randint(0, 2 * count) if count > 1 else 0):
        start, end = sorted(dice.sample(range(count), 2))
        role = dice.choice(("forward", "forward", "zero", "saved", "backward"))
        start, end = (end, start) if role == "backward" else (start, end)
        label = plain(f"wire {k}") if dice.random() < 0.3 else ()
        column = dice.randrange(len(boxes[start].columns))
        ranked = role != "saved" and dice.random() < 0.9
        wires.append(Wire(f"w{k}", names[start], names[end], role, label, column, ranked))
    frames, level, across = (), (), dice.random() < 0.2
    if dice.random() < 0.5:
        cut = dice.randint(1, count)
        inner = Frame(plain("inner"), tuple(names[: cut // 2]))
        frames = (Frame(plain("frame"), tuple(names[:cut])), *([inner] * (not across)))
    if dice.random() < 0.3 and count > 1:
        level = (tuple(dice.sample(names, 2)),)
    return Sketch("", "", tuple(boxes), tuple(wires), frames, (), across, level)


# --- Shapes on the paper --------------------------------------------------------------------------


def placed(shapes: tuple[Shape, ...], x: float = 0, y: float = 0, groups: tuple[Group, ...] = ()):
    """Every visible shape that is no group, where it lies on the paper: itself, x, y, groups."""
    for shape in shapes:
        if not isinstance(shape, Group):
            yield shape, x, y, groups
        elif not shape.hidden:
            yield from placed(shape.shapes, x + shape.x, y + shape.y, (*groups, shape))


def area(shape: Shape, x: float, y: float) -> tuple[float, float, float, float]:
    """Left, top, right and bottom; of a text up to its sub- and superscripts."""
    if isinstance(shape, Label):
        width = text_width(shape.text, shape.size, shape.bold)
        left = x + shape.x - {"start": 0, "middle": width / 2, "end": width}[shape.anchor]
        top = y + shape.y - 0.75 * shape.size
        return left, top, left + width, top + shape.size
    if isinstance(shape, Rect):
        left, top = x + shape.x, y + shape.y
        return left, top, left + shape.width, top + shape.height
    points = shape.corners if isinstance(shape, Tiles) else shape.points
    size = (shape.width, shape.height) if isinstance(shape, Tiles) else (0, 0)
    xs, ys = zip(*points)
    return x + min(xs), y + min(ys), x + max(xs) + size[0], y + max(ys) + size[1]


def along(curve: Curve, x: float, y: float) -> np.ndarray:
    """Points close together on a curve."""
    points, t = np.add(curve.points, (x, y)), np.linspace(0, 1, 40)[:, np.newaxis]
    pieces = [points[k : k + 4] for k in range(0, len(points) - 1, 3)]
    return np.concatenate(
        [
            a * (1 - t) ** 3 + 3 * b * t * (1 - t) ** 2 + 3 * c * t**2 * (1 - t) + d * t**3
            for a, b, c, d in pieces
        ]
    )
