"""Wires around boxes that have their places already: straight, with round bends at the corners of
what is in the way.

Graphviz can do this too, but takes 16 s for 260 boxes where this takes a fraction of a second.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import dist

import numpy as np

from .shapes import Edges, Point, Size

_MARGIN = 6  # between a wire and a box that it passes
_ARROW = 6  # the length of an arrow's head
_BEND = 16  # how far from its corner a bend begins, at most


@dataclass(frozen=True)
class Route:
    """A wire: Bézier curves from its start, the point of its arrow, the middle of its label."""

    points: tuple[Point, ...]
    tip: Point
    label: Point | None


def lead_around(
    boxes: Sequence[Edges],
    wires: Sequence[tuple[int, int]],
    labels: Sequence[Size | None],
    taken: Sequence[Edges],
    found: Mapping[int, Route],
) -> list[Route]:
    """Routes for wires, each from a box to another by their numbers, with labels of some size.

    They run over no box, and labels cover no box, no other label, and nothing that is `taken`.
    `found`: routes of some of the wires, by their numbers, which are kept if they do the same.
    """
    edges, taken = np.array(boxes), [*boxes, *taken]
    routes: dict[int, Route] = {}
    for i, route in found.items():
        label = [around(route.label, labels[i])] if route.label else []
        covers = any(_overlap(rect, other) for rect in label for other in taken)
        if not covers and not _runs_over(route, edges, wires[i]):
            routes[i] = route
            taken += label
    for i, (start, end) in enumerate(wires):
        if i not in routes:
            first, out = _stub(boxes[start], boxes[end], _MARGIN)
            last, into = _stub(boxes[end], boxes[start], _MARGIN + 2)
            way = [spot for spot, _ in groupby([first, *_shortest(out, into, edges), last])]
            label = _free_spot(way, labels[i], taken) if labels[i] else None
            taken += [around(label, labels[i])] if label else []
            routes[i] = _curved(way, label)
    return [routes[i] for i in range(len(wires))]


def around(middle: Point, size: Size) -> Edges:
    """The edges of a rectangle of a size."""
    (x, y), (width, height) = middle, size
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def beside_wires(
    frames: Sequence[Edges],
    titles: Sequence[Point | None],
    sizes: Sequence[Size | None],
    routes: Sequence[Route],
) -> list[Point | None]:
    """The middles of the titles of frames, each moved along the upper edge to where no wire is, or
    as little of wires as can be."""
    points = [_on_curve(np.array(route.points), 100) for route in routes]
    xs, ys = np.concatenate([*points, np.empty((0, 2))]).T
    order = np.argsort(ys, kind="stable")
    xs, ys = xs[order], ys[order]
    moved = []
    for (left, _, right, _), title, size in zip(frames, titles, sizes):
        if title:
            x, y = title
            _, top, _, bottom = around(title, size)
            crossing = xs[slice(*np.searchsorted(ys, (top, bottom)))]
            spots = np.linspace(x, left + right - x, 33)
            covered = (abs(crossing[:, np.newaxis] - spots) < size[0] / 2).sum(axis=0)
            title = spots[covered.argmin()].item(), y
        moved.append(title)
    return moved


def _runs_over(route: Route, boxes: np.ndarray, ends: tuple[int, int]) -> bool:
    """Whether a wire runs over a box that is not one of its ends."""
    points = np.array(route.points)
    others = np.delete(boxes, ends, axis=0)
    low, high = points.min(axis=0), points.max(axis=0)  # a curve stays among its control points
    near = others[(others[:, :2] < high).all(axis=1) & (others[:, 2:] > low).all(axis=1)]
    if not len(near):
        return False
    on_it = _on_curve(points, 16)[:, np.newaxis]
    return bool(((on_it > near[:, :2]) & (on_it < near[:, 2:])).all(axis=2).any())


def _on_curve(points: np.ndarray, count: int) -> np.ndarray:
    """So many points on each of the Bézier curves."""
    t = np.linspace(0, 1, count)[:, np.newaxis, np.newaxis]
    a, b, c, d = points[:-1:3], points[1::3], points[2::3], points[3::3]
    on_it = (a * (1 - t) + 3 * b * t) * (1 - t) ** 2 + (3 * c * (1 - t) + d * t) * t**2
    return on_it.reshape(-1, 2)


def _stub(box: Edges, other: Edges, length: float) -> tuple[Point, Point]:
    """The middle of the side of a box that looks at the other one, and the point before it."""
    left, top, right, bottom = box
    x, y = (left + right) / 2, (top + bottom) / 2
    if right <= other[0]:
        return (right, y), (right + length, y)
    if other[2] <= left:
        return (left, y), (left - length, y)
    if bottom <= other[1]:
        return (x, bottom), (x, bottom + length)
    return (x, top), (x, top - length)


def _shortest(start: Point, end: Point, boxes: np.ndarray) -> list[Point]:
    """The shortest way around the boxes: at first around none, then around those it ran over.

    A way that is walled in goes straight.
    """
    met: list[int] = []
    while True:
        way = _shortest_around(start, end, boxes[met])
        over = _too_close(np.array(way[:-1]), np.array(way[1:]), boxes).any(axis=0)
        new = sorted(set(np.flatnonzero(over).tolist()) - set(met))
        if not new:
            return way
        met += new


def _shortest_around(start: Point, end: Point, boxes: np.ndarray) -> list[Point]:
    """The shortest way from corner to corner of these boxes (Dijkstra's algorithm)."""
    left, top, right, bottom = np.add(boxes, (-_MARGIN, -_MARGIN, _MARGIN, _MARGIN)).T
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    spots = np.concatenate([[start, end], *(np.stack(corner, axis=1) for corner in corners)])
    count = len(spots)
    pairs = np.repeat(spots, count, axis=0), np.tile(spots, (count, 1))
    steps = np.linalg.norm(pairs[0] - pairs[1], axis=1)
    steps = np.where(_too_close(*pairs, boxes).any(axis=1), np.inf, steps).reshape(count, count)
    lengths, came_from = np.where(np.arange(count), np.inf, 0), np.zeros(count, int)
    to_do = set(range(count))
    while to_do:
        here = min(to_do, key=lengths.__getitem__)
        to_do.remove(here)
        through = lengths[here] + steps[here]
        came_from[through < lengths] = here
        lengths = np.minimum(lengths, through)
    way = [1]
    while way[-1]:
        way.append(came_from[way[-1]])
    return [tuple(spots[i].tolist()) for i in reversed(way)]


def _too_close(starts: np.ndarray, ends: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Whether straight ways come closer to boxes than the margin: a row a way, a column a box."""
    low, high = boxes[:, :2] - _MARGIN + 0.5, boxes[:, 2:] + _MARGIN - 0.5
    starts, steps = starts[:, np.newaxis], (ends - starts)[:, np.newaxis]
    with np.errstate(all="ignore"):  # along an axis a step may be 0
        first, second = (low - starts) / steps, (high - starts) / steps
        enters = np.minimum(first, second).max(axis=2)
        leaves = np.maximum(first, second).min(axis=2)
        return (enters < leaves) & (leaves > 0) & (enters < 1)


def _curved(way: list[Point], label: Point | None) -> Route:
    """The way with round corners, and the head of an arrow at its end."""
    *corners, tip = way
    lengths = [dist(a, b) for a, b in pairwise(way)]
    corners.append(_between(tip, corners[-1], min(_ARROW / lengths[-1], 0.8)))
    # A bend takes up to half of the way to the next one, and all of the way to an end.
    room = [length / 2 for length in lengths]
    room[0], room[-1] = lengths[0], lengths[-1] - _ARROW
    points = [way[0]]
    for i in range(1, len(corners) - 1):
        corner = corners[i]
        bend = max(0.0, min(_BEND, room[i - 1], room[i]))
        before = _between(corner, corners[i - 1], bend / lengths[i - 1])
        after = _between(corner, corners[i + 1], bend / lengths[i])
        points += _straight(points[-1], before)
        points += [_between(before, corner, 2 / 3), _between(after, corner, 2 / 3), after]
    points += _straight(points[-1], corners[-1])
    return Route(tuple(points), tip, label)


def _straight(start: Point, end: Point) -> list[Point]:
    """The rest of a Bézier curve that is a straight line."""
    return [_between(start, end, 1 / 3), _between(start, end, 2 / 3), end]


def _between(start: Point, end: Point, part: float) -> Point:
    return start[0] + part * (end[0] - start[0]), start[1] + part * (end[1] - start[1])


def _free_spot(way: list[Point], size: Size, taken: list[Edges]) -> Point:
    """A place on the way, or else above or below it, where a label of a size covers nothing."""
    lengths = [dist(a, b) for a, b in pairwise(way)]
    parts = np.cumsum([0, *lengths]) / sum(lengths)
    spots = [
        tuple(float(np.interp(part, parts, axis)) for axis in zip(*way))
        for part in (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8, 0.1, 0.9)
    ]
    for dy in sorted(np.arange(-20, 21) * size[1], key=abs):
        for x, y in spots:
            if not any(_overlap(around((x, y + dy), size), other) for other in taken):
                return x, y + float(dy)
    return spots[0]


def _overlap(first: Edges, second: Edges) -> bool:
    """Whether two rectangles share more than an edge."""
    return all(first[k] < second[k + 2] and second[k] < first[k + 2] for k in (0, 1))
