"""Pages: they ask for nothing, a name in them is text, and tables say what pictures show."""

import base64
import hashlib
import html.parser
import importlib.util
import re

import numpy as np
import pytest
from helpers import leaf

import tinygrad_bn as tg
from tinygrad_bn.diagram import draw
from tinygrad_bn.diagram.batch_norm import worked_example
from tinygrad_bn.diagram.pages.page import Page, page, table_html, text_html

needs_graphviz = pytest.mark.skipif(
    importlib.util.find_spec("pygraphviz") is None, reason="pygraphviz is not installed"
)


class Reader(html.parser.HTMLParser):
    """The elements of a page, its script, and the texts of its table cells, a list a row."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.rows, self.script, self.inside = [], [], "", None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th", "script"):
            self.inside = tag
            if tag != "script":
                self.rows[-1].append("")
        elif tag == "br":
            self.handle_data("\n")

    def handle_endtag(self, tag):
        self.inside = None if tag == self.inside else self.inside

    def handle_data(self, data):
        if self.inside == "script":
            self.script += data
        elif self.inside:
            self.rows[-1][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


# --- Every page -----------------------------------------------------------------------------------


def test_the_policy_allows_the_pages_own_script_and_nothing_else():
    reader = Reader(page("A title", "<p>text</p>", script="let x = 1;"))
    (policy,) = [m["content"] for m in reader.all("meta") if "http-equiv" in m]
    digest = base64.b64encode(hashlib.sha256(reader.script.encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        f"script-src 'sha256-{digest}'",
    ]
    assert reader.script.endswith("let x = 1;")


def test_a_title_is_text():
    text = page("</title><script>alert(1)</script>\ud800", "")
    assert text.count("<script>") == 1
    assert "<h1>&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;</h1>" in text
    text.encode()


@pytest.mark.parametrize("theme", ["auto", "light", "dark"])
def test_a_page_may_have_a_theme_from_the_start(theme):
    ((_, attributes),) = [e for e in Reader(page("x", "", theme=theme)).elements if e[0] == "html"]
    assert attributes.get("data-theme", "auto") == theme


def test_text_has_subscripts_and_is_escaped():
    assert text_html((("<x>", 0), ("i&", -1), ("2", 1))) == "&lt;x&gt;<sub>i&amp;</sub><sup>2</sup>"


def test_a_table_has_a_head_and_names_its_rows():
    reader = Reader(table_html([["a", "b"], ["c", "d"]], "about"))
    assert reader.rows == [["a", "b"], ["c", "d"]]
    assert [cell["scope"] for cell in reader.all("th")] == ["col", "col", "row"]


# --- Saving, notebooks ----------------------------------------------------------------------------


def test_a_page_is_saved_as_it_is(tmp_path):
    whole = Page(page("σ²", "<p>x̂</p>"))
    path = whole.save(tmp_path / "page.HTML")
    assert path.read_text(encoding="utf-8") == whole.html


@pytest.mark.parametrize("name", ["page", "page.svg", ".html"])
def test_a_page_is_saved_as_html_only(tmp_path, name):
    with pytest.raises(ValueError, match=r"wants a name and an ending: \.html$"):
        Page("").save(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["missing/a.html", "file/a.html", "folder.html"])
def test_a_path_that_cannot_be_written_is_an_os_error_and_leaves_nothing(tmp_path, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.html").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError, match=r"."):
        Page("text").save(tmp_path / place)
    assert sorted(tmp_path.rglob("*")) == before


def test_in_a_notebook_a_page_has_a_frame_of_its_own():
    whole = page("a \"quoted\" 'title'", "<p>&amp;</p>")
    (frame,) = Reader(Page(whole)._repr_html_()).elements
    assert frame[0] == "iframe"
    assert frame[1]["sandbox"] == "allow-scripts"
    assert frame[1]["srcdoc"] == whole


# --- The page of a picture ------------------------------------------------------------------------


@needs_graphviz
def test_a_picture_is_saved_as_a_page_that_asks_for_nothing(tmp_path):
    text = draw(worked_example("composed"), "symbols").save(tmp_path / "x.html").read_text("utf-8")
    reader = Reader(text)
    assert len(reader.all("svg")) == 1
    assert not {"link", "iframe", "object", "base", "img"} & {tag for tag, _ in reader.elements}
    assert set(re.findall(r"\w+://[^\"']*", text)) == {"http://www.w3.org/2000/svg"}


@needs_graphviz
def test_the_table_of_a_picture_says_what_is_in_it(tmp_path):
    path = draw(worked_example("composed"), "symbols").save(tmp_path / "x.html")
    rows = {row[0]: row[1:] for row in Reader(path.read_text("utf-8")).rows}
    assert rows["symbol"] == ["definition", "op and shape", "value", "gradient"]
    assert rows["x"] == [
        *["", "(4, 1)", "▸ 0.5, 3.5, 4.5, 7.5"],
        "via μB −0.2, −0.2, −0.2, −0.2\n+ via σ²B 0.336, 0.048, −0.048, −0.336\n"
        "+ via x̂ 0.8, −1.6, 0.4, 1.2\n◂ ∂ℓ/∂x = 0.936, −1.752, 0.152, 0.664",
    ]
    assert rows["ℓ"] == ["Σ wi·yi", "", "▸ 3.4", "◂ ∂ℓ/∂ℓ = 1"]
    assert '<p class="note">m = 4</p>' in path.read_text("utf-8")


@needs_graphviz
def test_a_line_says_what_the_signs_and_colours_mean(tmp_path):
    text = draw(worked_example("fused")).save(tmp_path / "x.html").read_text("utf-8")
    (line,) = re.findall('<p class="legend">(.*?)</p>', text)
    assert re.sub("<.*?>", "", line) == ("▸ value ◂ gradient cells: green above 0, violet below 0")


@needs_graphviz
def test_each_output_of_an_op_has_a_row(tmp_path):
    path = draw(worked_example("fused"), "ops").save(tmp_path / "x.html")
    rows = {row[0]: row[1:] for row in Reader(path.read_text("utf-8")).rows}
    assert rows["σ²B"][2:] == ["▸ 6.25", "◂ none"]
    assert rows["y"][2:] == ["▸ −1.8, 0.6, 1.4, 3.8", "◂ 1, −2, 0.5, 1.5"]


@needs_graphviz
def test_a_picture_of_a_theme_is_a_page_of_that_theme(tmp_path):
    path = draw(worked_example("fused"), theme="dark").save(tmp_path / "x.html")
    assert '<html lang="en" data-theme="dark">' in path.read_text("utf-8")


@needs_graphviz
def test_a_name_in_a_picture_is_only_ever_a_name(tmp_path):
    with tg.tracing():
        x = tg.named("<script>alert(1)</script>&\ud800", leaf(np.float32([1, np.nan])))
        text = draw((x * x).sum()).save(tmp_path / "x.html").read_text("utf-8")
    assert text.count("<script") == 1
    assert Reader(text).rows[1][0] == "<script>alert(1)</script>&"
