"""Pages: they fetch nothing, and what they are given is text."""

import pytest
from parsed_page import Page

from tinygrad_bn.train.page import document, figure, folded, note, paragraph, section, table

HOSTILE = "</title></td><script>alert(1)</script>&amp;\x00\u202e\ud800"
SHOWN = "</title></td><script>alert(1)</script>&amp;"


def test_a_page_fetches_nothing_and_has_no_script():
    page = Page(document("A title", section("Heading", paragraph("text"))))
    (policy,) = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert not {"script", "link", "iframe", "img"} & {tag for tag, _ in page.elements}
    assert page.text["title"] == page.text["h1"] == "A title"


@pytest.mark.parametrize(
    ("part", "tag"),
    [
        (section(HOSTILE), "h2"),
        (paragraph(HOSTILE), "p"),
        (note(HOSTILE), "p"),
        (folded(HOSTILE, ""), "summary"),
        (table([HOSTILE], []), "th"),
        (table([], [[HOSTILE]]), "td"),
        (figure("<svg></svg>", "", HOSTILE), "summary"),
    ],
)
def test_what_a_part_is_given_is_text(part, tag):
    page = Page(document(HOSTILE, part))
    assert not page.all("script")
    assert page.text["h1"] == page.text[tag] == SHOWN
    assert "\x00" not in document(HOSTILE, part)


def test_numbers_fold_out_under_a_plot_and_stand_open_without():
    numbers = table(["a"], [[1]])
    assert [tag for tag, _ in Page(figure("<svg></svg>", numbers)).elements[:3]] == [
        *("figure", "svg", "details")
    ]
    assert figure(None, numbers) == numbers


def test_a_table_without_header_has_no_empty_row():
    assert len(Page(table(["", ""], [["a", 1]])).all("tr")) == 1
    assert len(Page(table(["", "b"], [["a", 1]])).all("tr")) == 2
