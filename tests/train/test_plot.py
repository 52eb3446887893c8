"""Plots: lines are told apart by every eye, labels stand apart, files are whole SVG."""

import itertools
import re
import sys
import xml.etree.ElementTree

import pytest
from colours import SEEN_BY, contrast, distance

from tinygrad_bn.train.plot import PALETTE, SERIES, Line, line_plot, look, svg_file

pytest.importorskip("matplotlib")

OPTIONS = {"name": "n", "alt": "a", "xlabel": "epoch", "ylabel": "loss", "ticks": [1, 2]}


def plotted(ends, labels=None, **options):
    """A plot of lines that end at these heights, and start at 0."""
    labels = labels or [f"line {k}" for k in range(len(ends))]
    lines = [
        Line(label, x=[1, 2], y=[0.0, end], **look(k))
        for k, (label, end) in enumerate(zip(labels, ends))
    ]
    return line_plot(lines, **OPTIONS, **options)


def height_of(label, svg):
    """The y of a label's text: it grows downwards."""
    return float(re.search(rf'y="([\d.]+)"[^>]*>{label}<', svg)[1])


# --- Colours --------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_labels_can_be_read_in_the_colour_of_their_line(theme):
    background = PALETTE["background"][theme]
    assert min(contrast(PALETTE[role][theme], background) for role in SERIES) >= 4.5


@pytest.mark.parametrize("eye", SEEN_BY)
@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_six_lines_are_told_apart_by_every_eye(theme, eye):
    assert len(SERIES) == 6
    pairs = itertools.combinations([PALETTE[role][theme] for role in SERIES], 2)
    assert min(distance(*pair, eye) for pair in pairs) >= 21  # the smallest is 21.2; 2 is just seen


def test_lines_of_one_colour_differ_in_marker_or_dashes():
    assert len({tuple(look(k).values()) for k in range(84)}) == 84
    assert (
        len({look(k)["role"] for k in range(6)}) == len({look(k)["marker"] for k in range(6)}) == 6
    )


# --- Labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [[0.5, 0.501], [1.0] * 5, [0.0] * 5, [0.5] * 9, [0.1, 0.1, 0.9]])
def test_labels_stand_apart_inside_the_picture(ends):
    svg = plotted(ends)
    heights = sorted(height_of(f"line {k}", svg) for k in range(len(ends)))
    assert min(b - a for a, b in itertools.pairwise(heights)) > 11  # the size of the font
    assert heights[0] > 11
    assert heights[-1] < 250


def test_labels_keep_the_order_of_their_lines():
    svg = plotted([0.3, 0.301, 0.1, 0.302])
    heights = [height_of(f"line {k}", svg) for k in (3, 1, 0, 2)]
    assert heights == sorted(heights)


def test_labels_that_have_no_room_are_counted():
    svg = plotted([k / 40 for k in range(40)])
    labelled = [k for k in range(40) if f">line {k}<" in svg]
    assert labelled == list(range(len(labelled)))  # the first ones stay
    assert 10 <= len(labelled) < 40
    assert f">… and {40 - len(labelled)} more<" in svg


def test_a_dotted_line_leads_to_a_label_that_was_moved():
    def dotted(svg):
        return svg.count("stroke-dasharray: 1,1.65")

    assert dotted(plotted([0.1, 0.9])) == 0
    assert dotted(plotted([0.3, 0.3, 0.3, 0.9])) == 2  # of three one stays where it is


def test_a_label_is_its_characters():
    labels = ["$x^{", r"\frac{", "<script>", '#005A9C id="a"', "日本語", "url(#b)"]
    svg = plotted(range(6), labels)
    texts = [element.text for element in xml.etree.ElementTree.fromstring(in_xml(svg)).iter("text")]
    assert set(labels) <= {*texts}


def in_xml(svg):
    """The element of a page, which knows the namespaces, as a document."""
    return svg.replace("<svg", '<svg xmlns:xlink="http://www.w3.org/1999/xlink"', 1)


# --- Values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("values", "foot"), [([0.1, 0.9], "0 %"), ([0.95, 0.99], "95 %")])
def test_an_axis_of_shares_starts_at_0_unless_all_is_far_above(values, foot):
    svg = line_plot([Line("a", x=[1, 2], y=values, **look(0))], **OPTIONS, percent=True)
    assert re.findall(r">([\d.]+ %)<", svg)[0] == foot


def test_an_axis_of_shares_names_no_tick_twice():
    svg = line_plot([Line("a", x=[1, 2], y=[0.981, 0.986], **look(0))], **OPTIONS, percent=True)
    ticks = re.findall(r">([\d.]+ %)<", svg)
    assert len(ticks) == len(set(ticks)) >= 3


@pytest.mark.parametrize(
    ("axis", "y", "highest"),
    [
        ({}, [0.0, 2.5], "2.5"),
        ({"log_y": True}, [0.1, 20.0], "10"),
        ({"percent": True}, [0.1, 0.97], "80 %"),
    ],
    ids=str,
)
def test_beside_a_cross_stands_no_number(axis, y, highest):
    line = Line("a", x=[1, 2], y=y, crosses=[3], **look(0))
    svg = line_plot([line], **OPTIONS, **axis)
    texts = re.findall(r'y="([\d.]+)"[^>]*>([\d.]+(?: %)?)<', svg)
    assert min(texts, key=lambda text: float(text[0]))[1] == highest


# --- SVG ------------------------------------------------------------------------------------------


def test_in_a_page_colours_are_its_variables_and_ids_its_own():
    svg = plotted([0.1, 0.9])
    assert "#" not in re.sub(r'(url\(|href=")#n-', "", svg)
    assert svg.startswith('<svg viewBox="0 0 440 250" role="img" aria-label="a">')


def test_a_file_is_svg_of_its_own_that_is_light_or_dark():
    svg = svg_file(plotted([0.1, 0.9]))
    root = xml.etree.ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert (root.get("width"), root.get("height")) == ("660", "375")
    assert "var(" not in svg  # which Inkscape and librsvg do not know
    usual, by_system = svg.split("@media(prefers-color-scheme:dark)")
    dark_rules = by_system[: by_system.index("</style>")]
    for role in ("blue", "ink", "background"):
        light, dark = PALETTE[role]
        assert f'[style*="fill: {light}"]{{fill:{dark}!important}}' in dark_rules
        assert dark not in usual
    assert re.search(rf'style="[^"]*stroke: {PALETTE["blue"][0]}', by_system)


def test_the_same_plot_is_the_same_svg():
    assert plotted([0.1, 0.9]) == plotted([0.1, 0.9])


def test_without_matplotlib_there_is_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert plotted([0.1]) is None
