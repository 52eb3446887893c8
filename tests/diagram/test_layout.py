"""Sketches on paper: nothing covers anything else or is cut off, and everything has its place."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from sketches import along, area, arrays, box, everything, lanes, placed, scrambled

from tinygrad_bn.diagram.drawing.paint import paint
from tinygrad_bn.diagram.drawing.shapes import Curve, Label
from tinygrad_bn.diagram.drawing.sketch import Frame, Row, Sketch, Wire, plain

pytest.importorskip("pygraphviz")

SKETCHES = {"everything": everything(), "arrays": arrays(), "lanes": lanes(5)}
# Among these are some where Graphviz alone leads a wire through a box, or a label covers a text.
SKETCHES |= {f"scrambled {seed}": scrambled(seed) for seed in (3, 4, 10, 12, 68, 145)}


@pytest.fixture(scope="module", params=SKETCHES)
def sketch(request):
    return SKETCHES[request.param]


@pytest.fixture(scope="module")
def picture(sketch):
    return paint(sketch)


def group_of(groups, kind):
    """The id of the box or wire that a shape belongs to, None if it is of no such thing."""
    return next((group.id for group in groups if group.kind.split()[0] == kind), None)


def outlines(picture):
    """The edges of every box on the paper."""
    return {
        group_of(groups, "box"): area(shape, x, y)
        for shape, x, y, groups in placed(picture.shapes)
        if shape.look.startswith("outline")
    }


def labels(picture, kind):
    """The texts that belong to a kind of thing, as (its id, edges on the paper)."""
    return [
        (group_of(groups, kind), area(shape, x, y))
        for shape, x, y, groups in placed(picture.shapes)
        if isinstance(shape, Label) and group_of(groups, kind) is not None
    ]


def covers(first, second, slack=0.5):
    """Whether two rectangles share more than an edge."""
    return all(
        first[k] + slack < second[k + 2] and second[k] + slack < first[k + 2] for k in (0, 1)
    )


# --- Nothing is hidden ----------------------------------------------------------------------------


def test_all_of_it_lies_within_the_picture(picture):
    for shape, x, y, _ in placed(picture.shapes):
        left, top, right, bottom = area(shape, x, y)
        assert min(left, top) >= 0
        assert right <= picture.width
        assert bottom <= picture.height


def test_no_box_covers_another(picture, sketch):
    found = outlines(picture)
    assert set(found) == {each.id for each in sketch.boxes}
    assert not [pair for pair in combinations(found, 2) if covers(*map(found.get, pair))]


def test_no_text_covers_another_and_those_of_a_box_lie_in_it(picture):
    texts = [
        area(shape, x, y) for shape, x, y, _ in placed(picture.shapes) if isinstance(shape, Label)
    ]
    assert not [pair for pair in combinations(texts, 2) if covers(*pair)]
    found = outlines(picture)
    for name, (left, top, right, bottom) in labels(picture, "box"):
        edges = found[name]
        assert edges[0] < left < right < edges[2]
        assert edges[1] < top < bottom < edges[3]


def test_no_wire_and_no_label_runs_over_a_box(picture, sketch):
    ends = {wire.id: (wire.start, wire.end) for wire in sketch.wires}
    found = outlines(picture)
    for shape, x, y, groups in placed(picture.shapes):
        wire = group_of(groups, "wire")
        if isinstance(shape, Curve):
            points = along(shape, x, y)
            for name, (left, top, right, bottom) in found.items():
                inside = (points > (left + 1, top + 1)) & (points < (right - 1, bottom - 1))
                assert name in ends[wire] or not inside.all(axis=1).any(), (wire, name)
        if isinstance(shape, Label) and wire:
            over = [name for name, e in found.items() if covers(area(shape, x, y), e)]
            assert not over


def test_every_wire_leads_from_its_first_box_to_its_second(picture, sketch):
    edges = outlines(picture)
    for shape, x, y, groups in placed(picture.shapes):
        if shape.look.startswith(("line", "arrow")):
            wire = next(w for w in sketch.wires if w.id == group_of(groups, "wire"))
            curve = isinstance(shape, Curve)
            left, top, right, bottom = edges[wire.start if curve else wire.end]
            px, py = shape.points[0]  # the start of a curve, the tip of an arrow
            assert left - 2 <= px + x <= right + 2
            assert top - 2 <= py + y <= bottom + 2


def test_a_frame_is_around_its_boxes_and_no_others():
    sketch = everything()
    picture = paint(sketch)
    frames = [area(s, x, y) for s, x, y, _ in placed(picture.shapes) if s.look == "frame"]
    found = outlines(picture)
    inside = [
        {n for n, b in found.items() if f[0] < b[0] and f[1] < b[1] and b[2] < f[2] and b[3] < f[3]}
        for f in frames
    ]
    wanted = [set(frame.boxes) for frame in sketch.frames if frame.boxes]
    assert inside == sorted(wanted, key=len, reverse=True)  # those within others are drawn later


@pytest.mark.parametrize("value", [np.arange(8.0), 0.5], ids=["wide boxes", "narrow boxes"])
@pytest.mark.parametrize("names", ["ab", "abc"])
def test_the_title_of_a_frame_stands_where_no_wire_crosses_it(value, names):
    boxes = tuple(box(name, Row("forward", plain("▸"), (value,))) for name in names)
    wires = tuple(Wire(name, "a", name) for name in names[1:])
    for title in ("title", "a title that is longer"):
        for inside in names[1:]:
            frame = Frame(plain(title), (inside,))
            picture = paint(Sketch("", "", boxes, wires, (frame,)))
            ((_, (left, top, right, bottom)),) = labels(picture, "frame-title")
            for shape, x, y, _ in placed(picture.shapes):
                if isinstance(shape, Curve):
                    points = along(shape, x, y)
                    within = (points > (left, top)) & (points < (right, bottom))
                    assert not within.all(axis=1).any()


# --- Where things stand ---------------------------------------------------------------------------


def middles(picture):
    return {n: ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for n, b in outlines(picture).items()}


def test_forward_runs_down_backward_up_and_level_boxes_are_level():
    at = middles(paint(everything()))
    heights = [at[name][1] for name in ("x", "norm", "block", "z", "x̂")]
    assert heights == sorted(heights)
    assert at["∂x"][1] < at["∂z"][1]
    assert at["x"][1] == pytest.approx(at["∂x"][1])
    assert at["z"][1] == pytest.approx(at["∂z"][1])


def test_across_without_lanes_runs_to_the_right():
    at = middles(paint(replace(everything(), across=True, frames=(), level=())))
    places = [at[name][0] for name in ("x", "norm", "block", "z", "x̂")]
    assert places == sorted(places)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_lane_has_its_boxes_side_by_side_and_the_rest_stand_in_the_middle(count):
    sketch = lanes(count)
    picture = paint(sketch)
    found = outlines(picture)
    rects = [area(s, x, y) for s, x, y, _ in placed(picture.shapes) if s.look == "frame"]
    titles = [area for _, area in labels(picture, "frame-title") if area]
    for frame, (left, top, right, bottom) in zip(sketch.frames, rects, strict=True):
        for name, edges in found.items():
            within = top < edges[1] and edges[3] < bottom and left < edges[0] and edges[2] < right
            assert within == (name in frame.boxes)
    assert len(titles) == count
    at = middles(picture)
    order = [at[name][0] for name in ("x0", "μ", "d0", "q0", "σ²", "s", "x̂0", "u0")]
    assert order == sorted(set(order))
    assert at["γ"][0] < at["u0"][0]
    assert abs(at["γ"][0] - at["x̂0"][0]) < 1  # just before the first that needs it
    above = [rect for rect in rects if rect[3] <= at["μ"][1]]
    assert len(above) == (count + 1) // 2


def test_lanes_take_no_circle():
    sketch = lanes(1)
    circle = replace(sketch, wires=(*sketch.wires, Wire("back", "u0", "x0")))
    with pytest.raises(ValueError, match="circle"):
        paint(circle)


def test_a_wire_of_a_column_starts_below_that_column():
    picture = paint(everything())
    columns = [
        x + group.x
        for shape, x, y, groups in placed(picture.shapes)
        for group in groups[-1:]
        if group.kind == "column" and groups[-2].id == "norm"
    ]
    assert columns
    starts = {
        group_of(groups, "wire"): x + shape.points[0][0]
        for shape, x, y, groups in placed(picture.shapes)
        if isinstance(shape, Curve)
    }
    y_and_mu = [
        area(shape, x, y)
        for shape, x, y, groups in placed(picture.shapes)
        if isinstance(shape, Label) and shape.bold and group_of(groups, "box") == "norm"
    ][1:]
    assert y_and_mu[0][0] < starts["c"] < y_and_mu[1][0] < starts["d"]
