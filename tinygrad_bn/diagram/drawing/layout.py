"""The positions of a Sketch's boxes, wires and frames, by Graphviz; and files that are whole or not
there.

pygraphviz carries Graphviz in its wheel; without it the `dot` program serves as well. Graphviz runs
in a process of its own, for it cannot be interrupted otherwise.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .dot import skeleton
from .lanes import stand_in_lanes
from .routes import Route, around, beside_wires, lead_around
from .shapes import Edges, Point, Size
from .sketch import Sketch

TIME_LIMIT = 20  # seconds
_BESIDE_TITLE = 10  # for a wire that runs beside the title of a frame

Things = dict[str, dict[str, Any]]

_BY_PYGRAPHVIZ = """
import sys
sys.path.append(sys.argv[1])
import pygraphviz
text = sys.stdin.buffer.read().decode()
sys.stdout.buffer.write(pygraphviz.AGraph(string=text).draw(prog="dot", format="json0"))
"""


@dataclass(frozen=True)
class Sizes:
    """What the layout must make room for; nothing where a wire has no label."""

    boxes: tuple[Size, ...]
    columns: tuple[tuple[int, ...], ...]  # widths, of each box
    labels: tuple[Size | None, ...]  # at the wires
    titles: tuple[Size | None, ...]  # of the frames


@dataclass(frozen=True)
class Places:
    """Where everything is, in the order of the sketch; y grows downwards.

    Boxes and frames by their edges, titles of frames by their middles.
    """

    boxes: tuple[Edges, ...]
    wires: tuple[Route, ...]
    frames: tuple[Edges, ...]
    titles: tuple[Point | None, ...]


def places(sketch: Sketch, sizes: Sizes) -> Places:
    """Where boxes of these sizes stand, and how the wires run around them.

    RuntimeError: there is no Graphviz, it took longer than 20 s, or it failed.
    """
    if sketch.across and sketch.frames:
        return _in_lanes(sketch, sizes)
    return _in_layers(sketch, sizes)


def _in_layers(sketch: Sketch, sizes: Sizes) -> Places:
    """Each box below (or right of) those that it depends on, as Graphviz decides; but wires that
    rank nothing, which would push the boxes apart, are led around them afterwards."""
    settings = [
        f"graph [rankdir={'LR' if sketch.across else 'TB'} newrank=true ranksep=0.4 nodesep=0.3]",
        "graph [labeljust=l]",
        "node [shape=plain]",
        "edge [arrowsize=0.6]",
    ]
    rooms = [f"label=<{_room(*size, wide)}>" for size, wide in zip(sizes.boxes, sizes.columns)]
    ranked = [i for i, wire in enumerate(sketch.wires) if wire.ranked]
    wires = [f"id=w{i} {_label(sizes.labels[i])}" for i in ranked]
    # A frame is so wide that beside a wire through its upper edge there is room for its title.
    spare = [size[0] + _BESIDE_TITLE if size else 0 for size in sizes.titles]
    frames = [_label(size and (size[0] + w, size[1])) for size, w in zip(sizes.titles, spare)]
    graph = replace(sketch, wires=tuple(sketch.wires[i] for i in ranked))
    things, edges = _run(skeleton(graph, settings, rooms, wires, frames))
    boxes = [around(_point(things[f"n{i}"]["pos"]), size) for i, size in enumerate(sizes.boxes)]
    clusters = [things[f"cluster{k}"] for k in range(len(sketch.frames))]
    borders = tuple(_edges(cluster["bb"]) for cluster in clusters)
    titles = [_point(cluster["lp"]) if "lp" in cluster else None for cluster in clusters]
    titles = [title and (title[0] - w / 2, title[1]) for title, w in zip(titles, spare)]
    taken = [around(title, size) for title, size in zip(titles, sizes.titles) if title]
    # Now and then Graphviz leads a wire through a box; such a one is led around too.
    found = {i: _route(edges[f"w{i}"]) for i in ranked}
    routes = lead_around(boxes, _ends(sketch), sizes.labels, taken, found)
    titles = beside_wires(borders, titles, sizes.titles, routes)
    return Places(tuple(boxes), tuple(routes), borders, tuple(titles))


def _in_lanes(sketch: Sketch, sizes: Sizes) -> Places:
    title_widths = [size[0] if size else 0 for size in sizes.titles]
    boxes, lanes, titles = stand_in_lanes(sketch, sizes.boxes, title_widths)
    routes = lead_around(boxes, _ends(sketch), sizes.labels, (), {})
    return Places(tuple(boxes), tuple(routes), tuple(lanes), tuple(titles))


def _ends(sketch: Sketch) -> list[tuple[int, int]]:
    """The numbers of the boxes that each wire joins."""
    numbers = {box.id: i for i, box in enumerate(sketch.boxes)}
    return [(numbers[wire.start], numbers[wire.end]) for wire in sketch.wires]


def _label(size: Size | None) -> str:
    return f"label=<{_room(*size)}>" if size else 'label=""'


def _room(width: int, height: int, columns: Sequence[int] = ()) -> str:
    """An empty table of a size, with a port for each column."""
    cells = "".join(
        f'<TD PORT="c{k}" FIXEDSIZE="TRUE" WIDTH="{wide}" HEIGHT="{height}"></TD>'
        for k, wide in enumerate(columns or [width])
    )
    return (
        f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0"><TR>{cells}</TR></TABLE>'
    )


def _point(text: str) -> Point:
    x, y = text.split(",")
    return float(x), -float(y)


def _edges(text: str) -> Edges:
    left, bottom, right, top = map(float, text.split(","))
    return left, -top, right, -bottom


def _route(edge: dict[str, str]) -> Route:
    """A wire of which one end has an arrow, "e,x,y" at its head or "s,x,y" at its tail."""
    mark, *points = edge["pos"].split()
    side, tip = mark.split(",", 1)
    path = tuple(map(_point, points))
    label = _point(edge["lp"]) if "lp" in edge else None
    return Route(path if side == "e" else path[::-1], _point(tip), label)


def _run(text: str) -> tuple[Things, Things]:
    """What Graphviz finds for a DOT text: boxes and clusters by their names, edges by their ids."""
    try:
        done = subprocess.run(
            _command(), input=text.encode(), capture_output=True, timeout=TIME_LIMIT
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(
            f"the layout took longer than {TIME_LIMIT} s and was stopped; draw a smaller graph, or "
            "save it as .dot"
        ) from None
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise RuntimeError(f"Graphviz: {reason[-1] if reason else f'exit {done.returncode}'}")
    try:
        found = json.loads(done.stdout)
    except ValueError as error:
        raise RuntimeError(f"Graphviz: its answer is no JSON: {error}") from None
    return (
        {thing["name"]: thing for thing in found.get("objects", ())},
        {edge["id"]: edge for edge in found.get("edges", ())},
    )


def _command() -> list[str]:
    """A command that reads DOT and writes positions."""
    package = importlib.util.find_spec("pygraphviz")
    if package is not None:
        folder = str(Path(package.origin).parents[1])
        return [sys.executable, "-I", "-c", _BY_PYGRAPHVIZ, folder]
    program = shutil.which("dot")
    if program is not None:
        return [program, "-Tjson0"]
    raise RuntimeError(
        'the layout of a picture needs Graphviz: pip install "tinygrad_bn[viz]" (.dot goes without)'
    )
