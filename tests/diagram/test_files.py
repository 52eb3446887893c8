"""Pictures on disk: endings, paths that cannot be written, missing and failing layout engines."""

import importlib.util
import os
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers import leaf
from pictures import seconds
from sketches import box, everything

import tinygrad_bn as tg
from tinygrad_bn import Scalar, diagram, named, nn
from tinygrad_bn import functional as F
from tinygrad_bn.diagram import VIEWS, Diagram, draw
from tinygrad_bn.diagram.batch_norm import draw_batch_norm, worked_example
from tinygrad_bn.diagram.drawing import layout
from tinygrad_bn.diagram.drawing.paint import paint
from tinygrad_bn.diagram.drawing.shapes import Picture
from tinygrad_bn.diagram.drawing.sketch import Row, Sketch
from tinygrad_bn.diagram.drawing.style import DARK, LIGHT
from tinygrad_bn.diagram.recorded import record
from tinygrad_bn.norm.fused import normalize

needs_graphviz = pytest.mark.skipif(
    importlib.util.find_spec("pygraphviz") is None, reason="pygraphviz is not installed"
)


@pytest.fixture
def small():
    x = leaf(np.float32(2))
    return draw(x * x)


@pytest.mark.parametrize("place", ["missing/a.dot", "file/a.dot", "folder.dot"])
def test_a_path_that_cannot_be_written_is_an_os_error_and_leaves_nothing(small, tmp_path, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.dot").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError, match=r"."):
        small.save(tmp_path / place)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["a.jpg", "a", ".svg"])
def test_an_unknown_ending_names_the_known_ones(small, tmp_path, name):
    with pytest.raises(ValueError, match=r"\.svg, \.html, \.dot, \.png, \.pdf"):
        small.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def no_engine(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    monkeypatch.setenv("PATH", "")


@pytest.mark.usefixtures("no_engine")
def test_without_graphviz_dot_still_works_and_the_rest_says_what_to_install(small, tmp_path):
    small.save(tmp_path / "a.dot")
    for ending in ("svg", "png", "pdf"):
        with pytest.raises(RuntimeError, match=r'pip install "tinygrad_bn\[viz\]"'):
            small.save(tmp_path / f"a.{ending}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.dot"]
    (text,) = small._repr_mimebundle_().items()
    assert text[0] == "text/plain"
    assert "pip install" in text[1]


@pytest.mark.usefixtures("no_engine")
def test_without_graphviz_the_worked_example_says_why_it_has_no_svg(tmp_path):
    paths, reason = draw_batch_norm(tmp_path)
    assert [path.suffix for path in paths] == [".dot"] * 3
    assert "pip install" in reason


@pytest.fixture
def dot_program(monkeypatch, tmp_path):
    """Makes a `dot` program of a shell script, and takes pygraphviz away."""
    if os.name != "posix":
        pytest.skip("the stand-in for `dot` is a shell script")

    def make(script):
        program = tmp_path / "bin" / "dot"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setitem(sys.modules, "pygraphviz", None)
        monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)

    return make


@needs_graphviz
def test_the_dot_program_serves_as_well(small, dot_program):
    by_pygraphviz = small.svg()
    folder = Path(importlib.util.find_spec("pygraphviz").origin).parents[1]
    program = [sys.executable, "-c", layout._BY_PYGRAPHVIZ, str(folder)]
    dot_program(f'[ "$1" = -Tjson0 ] && exec {shlex.join(program)}')
    assert small.svg() == by_pygraphviz


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exec sleep 60", "longer than 0.5 s and was stopped"),
        ("echo broken >&2; exit 3", "Graphviz: broken"),
        ("exit 3", "Graphviz: exit 3"),
        ("echo hello", "Graphviz: its answer is no JSON"),
    ],
)
def test_a_layout_that_fails_or_takes_too_long_leaves_nothing(
    small, tmp_path, dot_program, monkeypatch, script, message
):
    monkeypatch.setattr(layout, "TIME_LIMIT", 0.5)
    dot_program(script)
    for ending in ("svg", "png", "pdf"):
        with pytest.raises(RuntimeError, match=message):
            small.save(tmp_path / f"a.{ending}")
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


@needs_graphviz
def test_without_matplotlib_there_are_svgs_and_the_rest_says_what_to_install(
    small, tmp_path, monkeypatch
):
    monkeypatch.delitem(sys.modules, "tinygrad_bn.diagram.drawing.raster", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    small.save(tmp_path / "a.svg")
    for ending in ("png", "pdf"):
        with pytest.raises(RuntimeError, match=r'matplotlib: pip install "tinygrad_bn\[viz\]"'):
            small.save(tmp_path / f"a.{ending}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.svg"]


@needs_graphviz
@pytest.mark.parametrize("ending", ["svg", "png", "pdf"])
def test_a_file_is_the_same_bytes_every_time(tmp_path, ending):
    for name in ("first", "second"):
        Diagram(everything(), None, "light").save(tmp_path / f"{name}.{ending}")
    first, second = (path.read_bytes() for path in sorted(tmp_path.iterdir()))
    assert first == second


@needs_graphviz
def test_a_png_has_two_pixels_a_unit_and_the_colours_of_the_theme(tmp_path):
    image = pytest.importorskip("matplotlib.image")
    unit = paint(everything())
    for theme, palette in (("light", LIGHT), ("dark", DARK), ("auto", LIGHT)):
        path = Diagram(everything(), None, theme).save(tmp_path / "a.png")
        pixels = np.round(image.imread(path)[..., :3] * 255).astype(int)
        assert pixels.shape == (2 * unit.height, 2 * unit.width, 3)
        found = {f"#{c:06X}" for c in np.unique(pixels @ (1 << 16, 1 << 8, 1)).tolist()}
        roles = ("background", "forward row", "backward row", "fused", "ink")
        assert {palette[role] for role in roles} <= found


@needs_graphviz
def test_a_png_takes_nothing_from_the_users_style_of_matplotlib(tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    plain = Diagram(everything(), None, "light").save(tmp_path / "a.png").read_bytes()
    rc = {"savefig.bbox": "tight", "font.family": "serif", "path.sketch": (1, 100, 2)}
    with matplotlib.rc_context(rc):
        styled = Diagram(everything(), None, "light").save(tmp_path / "b.png").read_bytes()
    assert styled == plain


@needs_graphviz
@pytest.mark.parametrize("ending", ["png", "pdf"])
def test_letters_that_no_font_has_do_not_stop_a_file(tmp_path, ending):
    text = "".join(map(chr, (0x4E2D, 0x1F9EA, 0x1D4DB, 0xE000, 0x10FFFD, 0x302)))
    sketch = Sketch("", "", (box("x", Row("note", ((text, 0), ("$\\frac{1$", -1)))),), ())
    assert Diagram(sketch, None, "light").save(tmp_path / f"a.{ending}").stat().st_size > 1000


def test_a_letter_that_the_font_lacks_is_the_one_it_is_a_form_of_else_a_sign_of_its_absence():
    raster = pytest.importorskip("tinygrad_bn.diagram.drawing.raster")

    def outline(text):
        path, advance = raster._run(text, False)
        return path.vertices.tolist(), advance

    assert outline("𝓛") == outline("L") != outline("\N{REPLACEMENT CHARACTER}")
    for missing in ("🧪", "中", "\ue000"):
        assert outline(missing) == outline("\N{REPLACEMENT CHARACTER}")
    path, advance = raster._run("\u0302x", False)
    assert path.vertices[:, 0].max() <= advance  # a mark without a letter covers nothing


def test_a_png_that_would_fill_the_memory_is_refused():
    raster = pytest.importorskip("tinygrad_bn.diagram.drawing.raster").raster
    wall = Picture("", "", 20_000, 20_000, ())
    with pytest.raises(ValueError, match="up to 50,000,000 pixels and this picture needs 1,600,"):
        raster(wall, LIGHT, "png")
    assert raster(wall, LIGHT, "pdf").startswith(b"%PDF")


@needs_graphviz
def test_a_graph_of_300_boxes_is_drawn_in_under_a_second():
    norm = partial(nn.BatchNorm1d, 32, impl="composed")
    layers = [layer for _ in range(17) for layer in (nn.Linear(32, 32), norm(), nn.ReLU())]
    net = nn.Sequential(*layers, nn.Linear(32, 2))
    batch, classes = np.ones((100, 32), np.float32), np.arange(100) % 2
    with tg.tracing():
        loss = F.cross_entropy(net(tg.tensor(batch)), tg.tensor(classes))
    assert 280 <= len(draw(loss, view="ops").sketch.boxes) <= 320
    assert seconds(lambda: draw(loss, view="ops").svg()) < 1


def test_graphviz_is_given_the_dot_text(small, monkeypatch):
    graphviz = pytest.importorskip("graphviz")
    source = small.to_graphviz()
    assert isinstance(source, graphviz.Source)
    assert source.source == small.dot()
    monkeypatch.setitem(sys.modules, "graphviz", None)
    with pytest.raises(RuntimeError, match=r'graphviz package: pip install "tinygrad_bn\[viz\]"'):
        small.to_graphviz()


def test_an_unknown_theme_is_refused(small):
    with pytest.raises(
        ValueError, match="theme: got 'sepia', wants one of 'auto', 'light', 'dark'"
    ):
        Diagram(small.sketch, small.graph, "sepia")


@needs_graphviz
def test_a_notebook_is_given_an_svg_and_the_listing(small):
    bundle = small._repr_mimebundle_()
    assert set(bundle) == {"image/svg+xml", "text/plain"}
    assert bundle["text/plain"] == str(small)
    ElementTree.fromstring(bundle["image/svg+xml"])


def test_a_graph_of_10_000_ops_has_a_dot_text_but_no_picture_above_2000_boxes(tmp_path):
    y = x = leaf(np.float32(1))
    for _ in range(10_000):
        y = -y
    diagram = draw(y, view="ops")
    assert diagram.graph.nodes[0].outputs[0].gradient == 1
    diagram.save(tmp_path / "a.dot")
    with pytest.raises(
        ValueError, match="up to 2,000 boxes and this one has 10,001; record it inside"
    ):
        diagram.save(tmp_path / "a.svg")
    assert x.grad is None


CALLS = [("output", partial(draw, view=view)) for view in VIEWS if view != "collapsed"]
CALLS += [("loss", diagram.comparison), ("loss", lambda loss: diagram.paths(loss, to=loss))]
FOLDING = ("output", partial(draw, view="collapsed")), ("output", draw)


@pytest.mark.parametrize(
    ("number", "argument", "call"),
    [
        *((Scalar, *call) for call in CALLS),
        *((lambda x: leaf(np.float32(x)), *call) for call in (*CALLS, *FOLDING)),
    ],
)
def test_a_larger_graph_is_refused_before_it_is_read(monkeypatch, number, argument, call):
    """Also where modules fold, if it was not traced which modules there are."""
    for reads in ("tensor_graph", "scalar_graph"):
        monkeypatch.setattr(record, reads, None)  # a call of it is a TypeError
    y = number(1.0)
    for _ in range(10_001):
        y = -y
    wanted = (
        f"^{argument}: got a graph of 10,001 ops, wants up to 10,000; take a part of it, or rec"
    )
    with pytest.raises(ValueError, match=wanted):
        call(y)


# --- Any numbers, in any view ---------------------------------------------------------------------

NUMBERS = {
    "not a number": np.array([np.nan, 1.0, 2.0]),
    "infinite": np.array([np.inf, -np.inf, 1.0]),
    "huge": np.array([1e300, -1e300, 1.0]),
    "a map that is not finite": np.array([[np.nan] * 5, [np.inf] * 5, [1e300] * 5, [0.0] * 5]),
    "empty": np.zeros(0),
    "empty rows": np.zeros((0, 3)),
    "no dimension": np.array(2.0),
}


def complaints(text):
    """What Graphviz has to say of a DOT text."""
    done = subprocess.run(layout._command(), input=text.encode(), capture_output=True)
    lines = done.stderr.decode().splitlines()
    return [line for line in lines if line.startswith(("Warning", "Error"))] + [done.returncode]


@needs_graphviz
@pytest.mark.filterwarnings("ignore:Mean of empty slice")  # from the backward pass of the user
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("numbers", NUMBERS)
def test_any_numbers_are_drawn_in_any_view(tmp_path, numbers, view):
    with np.errstate(all="ignore"), tg.tracing():
        x = named("x", leaf(NUMBERS[numbers]))
        h = x.reshape(x.shape or (1,)) * 2.0
        y = normalize(h, None, None, axes=(0,), eps=1e-5)[0]
        loss = named("ℓ", (y * h).sum())
    drawn = draw(loss, view)  # a warning would be an error
    ElementTree.fromstring(drawn.svg())
    assert drawn.save(tmp_path / "a.html").stat().st_size > 1000
    assert complaints(drawn.dot()) == [0]


# --- What Graphviz makes of it --------------------------------------------------------------------


def network():
    tg.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 2))
    with tg.tracing():
        return F.cross_entropy(net(named("x", tg.randn(3, 2))), tg.tensor(np.array([0, 1, 1])))


def attention():
    q, k, v = (named(name, leaf(np.arange(6.0).reshape(3, 2))) for name in "QKV")
    with tg.tracing():
        return named("ℓ", (named("A", F.softmax(q @ k.T, -1)) @ v).sum())


@needs_graphviz
@pytest.mark.parametrize(
    ("recorded", "view"),
    [
        *[(lambda: worked_example("fused"), view) for view in VIEWS],
        *[(network, view) for view in VIEWS],
        *[(attention, view) for view in VIEWS if view != "fused"],
    ],
)
def test_graphviz_takes_the_dot_text_without_a_word(recorded, view):
    assert complaints(draw(recorded(), view).dot()) == [0]


@needs_graphviz
def test_graphviz_would_say_what_it_does_not_take():
    assert complaints('digraph { a [color="nonsense"] }') == [
        "Warning: nonsense is not a known color.",
        0,
    ]
