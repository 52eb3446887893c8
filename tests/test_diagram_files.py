"""Pictures on disk: endings, paths that cannot be written, missing and failing layout engines."""

import importlib.util
import os
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from helpers import leaf

from tinygrad_bn.diagram import draw, layout
from tinygrad_bn.diagram.batch_norm import draw_batch_norm

needs_graphviz = pytest.mark.skipif(
    importlib.util.find_spec("pygraphviz") is None, reason="pygraphviz is not installed"
)
GALLERY = Path(__file__).parents[1] / "viz" / "gallery"


def test_the_gallery_is_what_the_program_draws(tmp_path):
    paths, _ = draw_batch_norm(tmp_path)
    for path in paths:
        if path.suffix == ".dot":  # an .svg differs from one version of Graphviz to the next
            assert path.read_text() == (GALLERY / path.name).read_text()


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
    with pytest.raises(ValueError, match=r"\.dot, \.svg, \.png, \.pdf"):
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
    assert [path.suffix for path in paths] == [".dot"] * 4
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


def test_the_dot_program_serves_as_well(small, tmp_path, dot_program):
    dot_program("echo $1; cat")
    saved = small.save(tmp_path / "a.svg").read_text(encoding="utf-8")
    assert saved == "-Tsvg\n" + small.dot()


def test_a_layout_that_fails_or_takes_too_long_leaves_nothing(
    small, tmp_path, dot_program, monkeypatch
):
    monkeypatch.setattr(layout, "TIME_LIMIT", 0.5)
    dot_program('case "$1" in -Tsvg) exec sleep 60;; *) echo broken >&2; exit 3;; esac')
    with pytest.raises(RuntimeError, match="longer than"):
        small.save(tmp_path / "a.svg")
    with pytest.raises(RuntimeError, match="Graphviz: broken"):
        small.save(tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


@needs_graphviz
def test_a_notebook_is_given_an_svg_and_the_listing(small):
    bundle = small._repr_mimebundle_()
    assert set(bundle) == {"image/svg+xml", "text/plain"}
    assert bundle["text/plain"] == str(small)
    ElementTree.fromstring(bundle["image/svg+xml"])


def test_a_graph_of_any_depth_has_a_dot_text_but_no_picture_above_2000_nodes(tmp_path):
    y = x = leaf(np.float32(1))
    for _ in range(20_000):
        y = -y
    diagram = draw(y)
    assert diagram.graph.nodes[0].outputs[0].gradient == 1
    diagram.save(tmp_path / "a.dot")
    with pytest.raises(ValueError, match="up to 2,000 nodes and this graph has 20,001"):
        diagram.save(tmp_path / "a.svg")
    assert x.grad is None
