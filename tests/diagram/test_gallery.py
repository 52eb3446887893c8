"""The gallery is what its programs draw, byte for byte."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GALLERY = ROOT / "viz" / "gallery"
DRAWN_WITH = "2.0.4"  # pygraphviz: another Graphviz puts boxes elsewhere


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The folder into which all programs have drawn."""
    if "pygraphviz" not in {d.name for d in metadata.distributions()}:
        pytest.skip("pygraphviz is not installed")
    folder = tmp_path_factory.mktemp("gallery")
    command = [sys.executable, "-m", "viz", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == sorted(map(str, folder.iterdir()))
    return folder


def test_the_programs_draw_what_is_in_the_gallery_and_nothing_else(drawn):
    assert {path.name for path in drawn.iterdir()} == {path.name for path in GALLERY.iterdir()}


@pytest.mark.parametrize("name", sorted(path.name for path in GALLERY.iterdir()))
def test_a_picture_is_as_its_program_draws_it(drawn, name):
    version = metadata.version("pygraphviz")
    if version != DRAWN_WITH and not name.startswith("family"):
        pytest.skip(f"drawn with pygraphviz {DRAWN_WITH}, here is {version}")
    assert (drawn / name).read_bytes() == (GALLERY / name).read_bytes()


def test_the_page_about_the_gallery_names_every_picture():
    page = (ROOT / "viz" / "README.md").read_text()
    dark = "family_dark.svg"  # the README of the project shows it
    assert [p.name for p in GALLERY.iterdir() if p.name not in page and p.name != dark] == []
