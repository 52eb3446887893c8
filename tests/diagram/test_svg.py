"""The SVG of a sketch: it says what it shows, and names are only ever text."""

import gc
import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hostile import HOSTILE
from sketches import FORMULA, RUNNING, arrays, box, everything, lanes, placed

from tinygrad_bn.diagram.drawing.dot import dot_text
from tinygrad_bn.diagram.drawing.measure import text_width
from tinygrad_bn.diagram.drawing.paint import paint
from tinygrad_bn.diagram.drawing.shapes import Label, Tiles
from tinygrad_bn.diagram.drawing.sketch import Box, Column, Frame, Row, Sketch, Table, Wire
from tinygrad_bn.diagram.drawing.style import LIGHT, picture_css
from tinygrad_bn.diagram.drawing.svg import svg_text

pygraphviz = pytest.importorskip("pygraphviz")
raster = pytest.importorskip("tinygrad_bn.diagram.drawing.raster").raster

SVG = "{http://www.w3.org/2000/svg}"
TAGS = {f"{SVG}{name}" for name in ("svg", "title", "desc", "style")}
TAGS |= {f"{SVG}{name}" for name in ("g", "rect", "path", "text", "tspan")}


@pytest.fixture(scope="module")
def root():
    return ElementTree.fromstring(svg_text(paint(everything()), picture_css("auto"), "a-"))


def test_the_svg_says_what_it_is_and_fits_its_view_box(root):
    picture = paint(everything())
    assert root.get("role") == "img"
    assert [child.tag for child in root][:2] == [f"{SVG}title", f"{SVG}desc"]
    assert [root[0].text, root[1].text] == ["A picture", "of everything"]
    assert root.get("viewBox") == f"0 0 {picture.width} {picture.height}"
    assert (root.get("width"), root.get("height")) == (f"{picture.width}", f"{picture.height}")


def test_boxes_and_wires_are_groups_with_an_id_a_class_and_a_title(root):
    sketch = everything()
    groups = {group.get("id"): group for group in root.iter(f"{SVG}g") if group.get("id")}
    things = [*sketch.boxes, *sketch.wires]
    assert list(sorted(groups)) == sorted(f"a-{thing.id}" for thing in things)
    for thing in sketch.wires:
        assert groups[f"a-{thing.id}"].get("class") == f"wire {thing.role}"
    kinds = {"x": "box leaf", "norm": "box fused", "block": "box module", "apart": "box table"}
    assert {name: groups[f"a-{name}"].get("class") for name in kinds} == kinds
    assert groups["a-x"].findtext(f"{SVG}title") == "tooltip of x"
    assert groups["a-a"].findtext(f"{SVG}title") == "x → norm"


def test_of_several_states_the_last_is_seen(root):
    states = [g for g in root.iter(f"{SVG}g") if g.get("class") == "state"]
    assert [g.get("data-state") for g in states] == [str(k) for k in range(len(RUNNING))]
    assert [g.get("visibility") for g in states] == ["hidden", "hidden", None]
    assert ["".join(g.itertext()) for g in states] == ["", "0.5", "−0.250.75"]


def test_a_text_is_as_wide_as_it_was_measured_and_comes_back_to_its_line(root):
    texts = list(root.iter(f"{SVG}text"))
    assert all(float(text.get("textLength")) > 0 for text in texts)
    (formula,) = [t for t in texts if "".join(t.itertext()) == "= −½(σ2B+ε)−3/2"]
    assert float(formula.get("textLength")) == pytest.approx(
        text_width((("= ", 0), *FORMULA), 12), abs=0.01
    )
    size = float(formula.get("font-size"))
    down = np.cumsum([float(span.get("dy", 0)) for span in formula]) / size
    assert np.sign(np.round(down, 2)).tolist() == [-1, 1, 0, -1]  # ² up, B down, +ε), −3/2 up
    sizes = [float(span.get("font-size", size)) < size for span in formula]
    assert sizes == [True, True, False, True]


def test_numbers_have_two_decimals_and_nothing_is_a_reference_or_a_script():
    text = svg_text(paint(everything()), picture_css("auto"))
    shapes = text[text.index("</style>") :]
    assert not re.search(r"\d\.\d{3}|\de[-+]?\d|-0[ ,\"]|nan|inf", shapes)
    assert not re.search(r"<script|href|url\(|@import|var\(|on\w+=", text)


def test_the_same_sketch_gives_the_same_bytes():
    for make in (everything, arrays, lambda: lanes(3)):
        assert svg_text(paint(make())) == svg_text(paint(make()))


def test_dot_text_leaves_nothing_for_the_garbage_collector():
    sketch = everything()
    gc.collect()
    gc.disable()
    try:
        dot_text(sketch, LIGHT)
        assert gc.collect() == 0
    finally:
        gc.enable()


def texts_of(root, name):
    (group,) = [g for g in root.iter(f"{SVG}g") if g.get("id") == name]
    return ["".join(text.itertext()) for text in group.iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("a number", "3.25"),
        ("eight", "1 2 3 4 5 6 7 8"),
        ("a grid", "−3 −2 −1 0 1 2"),
        ("nine", "mean 4 ± 2.582"),
        ("a small square", "−4 −3 −2 −1 0 1 2 3 4"),
        ("a wide grid", "mean 8.5 ± 5.188"),
        ("many", "mean ≈ 0 ± 923.8"),
        ("nothing", "empty"),
        ("not finite", "1 nan −inf inf"),
        ("one not a number", "mean nan ± nan ×"),
        ("all not a number", "mean nan ± nan" + " ×" * 100),
        ("huge", "1e+308 −1e+308 3e−320"),
        ("truths", "1 0"),
        ("not known", ""),
    ],
)
def test_what_an_array_shows_in_words(name, seen):
    root = ElementTree.fromstring(svg_text(paint(arrays())))
    said = [text for text in texts_of(root, name)[2:] if text not in "▸◂"]
    assert " ".join(said[: len(said) // 2]) == seen


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((3, 3), 3, 3),
        ((8, 2), 8, 2),
        ((2, 8), 2, 8),
        ((2, 2, 3), 2, 6),
        ((1, 4), 1, 4),
        ((4, 1), 1, 4),  # a batch of one feature is a strip, as in the lecture
    ],
)
def test_a_grid_of_up_to_16_numbers_stands_in_its_rows(shape, rows, columns):
    values = np.arange(1.0, 1 + np.prod(shape))
    sketch = Sketch("", "", (box("x", Row("forward", (), (values.reshape(shape),))),), ())
    at = {
        int(shape.text[0][0]): (round(y + shape.y), round(x + shape.x))
        for shape, x, y, groups in placed(paint(sketch).shapes)
        if isinstance(shape, Label) and groups[-1].kind == "value"
    }
    assert sorted(at, key=at.get) == values.tolist()  # by rows, and in them from left to right
    assert [len({place[k] for place in at.values()}) for k in (0, 1)] == [rows, columns]


def test_a_note_says_where_cells_are_means():
    means = "show the means of blocks"
    assert means in svg_text(paint(arrays()))
    assert means not in svg_text(paint(everything()))


def test_colour_follows_sign_and_size_and_pools_by_means():
    values = np.repeat(np.repeat([[8.0, -4.0], [0.0, np.nan]], 20, axis=0), 20, axis=1)
    sketch = Sketch("", "", (box("x", Row("forward", (), (values,))),), ())
    tiles = {
        shape.look: {(round(x), round(y)) for x, y in shape.corners}
        for shape, *_ in placed(paint(sketch).shapes)
        if isinstance(shape, Tiles)
    }
    assert {look: len(corners) for look, corners in tiles.items()} == {
        "cell plus8": 64,
        "cell minus4": 64,
        "cell": 128,
    }
    assert max(tiles["cell plus8"]) < min(tiles["cell minus4"])  # left of it
    assert max(y for _, y in tiles["cell plus8"]) < max(y for _, y in tiles["cell"])  # above it


# --- Names are data -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_is_written_anywhere_is_text(name):
    name = name[:100]  # views take 40 characters
    text = ((name, 0), (name, -1), (name, 1))
    rows = (Row("forward", text, (1.0,)), Row("note", text))
    columns = (Column(text, rows), Column(text, rows))
    boxes = (
        Box("a", "op", text, text, text, columns, name),
        Table("b", ((text, text), (text, text))),
    )
    wires = (Wire("w", "a", "b", label=text),)
    sketch = Sketch(name, name, boxes, wires, (Frame(text, ("a",)),), (name, name))
    picture = paint(sketch)
    root = ElementTree.fromstring(svg_text(picture, picture_css("auto"), prefix=name))
    assert {element.tag for element in root.iter()} <= TAGS
    assert len(root.findall(f".//{SVG}g[@class='wire forward']")) == 1
    drawn = pygraphviz.AGraph(string=dot_text(sketch, LIGHT)).draw(prog="dot", format="json0")
    found = json.loads(drawn)
    assert sorted(thing["name"] for thing in found["objects"]) == ["cluster0", "n0", "n1"]
    assert len(found["edges"]) == 1
    assert raster(picture, LIGHT, "png").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("Batch norm", 5.113),  # 667 + 556 + 278 + 500 + 556 + 278 + 556 + 556 + 333 + 833
        ("x̂", 0.5),  # a combining character adds nothing
        ("é", 0.556),
        ("²", 0.333),
        ("中", 1),
        ("\u202e\x07", 0),
        ("", 0),
    ],
)
def test_widths_are_those_of_helvetica(text, width):
    assert text_width(((text, 0),), 1) == pytest.approx(width, abs=0.002)
    assert text_width(((text, -1),), 1) == pytest.approx(0.7 * width, abs=0.002)
