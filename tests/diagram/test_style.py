"""Colours: text can be read in both themes, and no two signs look alike to the colour-blind."""

from itertools import chain

import pytest
from colours import SEEN_BY, contrast, distance
from sketches import area, arrays, everything, lanes, placed

from tinygrad_bn.diagram.drawing.paint import paint
from tinygrad_bn.diagram.drawing.shapes import Label
from tinygrad_bn.diagram.drawing.style import DARK, HEAT_LEVELS, LIGHT, LOOKS, page_css, picture_css

pytest.importorskip("pygraphviz")

PALETTES = {"light": LIGHT, "dark": DARK}
SIGNS = [f"{sign}{level}" for sign in ("minus", "plus") for level in range(1, HEAT_LEVELS + 1)]


@pytest.fixture(scope="module")
def pairs():
    """(colour of a text, colour behind it), by their roles, in pictures that have everything."""
    found = set()
    for sketch in (everything(), arrays(), lanes(3)):
        behind = []
        for shape, x, y, _ in placed(paint(sketch).shapes):
            look, where = LOOKS[shape.look], area(shape, x, y)
            if isinstance(shape, Label):
                middle = (where[0] + where[2]) / 2, (where[1] + where[3]) / 2
                ground = [
                    role
                    for role, (left, top, right, bottom) in behind
                    if left <= middle[0] <= right and top <= middle[1] <= bottom
                ]
                found.add((look.fill, ground[-1]))
            elif look.fill:
                behind.append((look.fill, where))
    return found


@pytest.mark.parametrize("theme", PALETTES)
def test_every_text_of_a_picture_has_a_contrast_of_at_least_4_5(pairs, theme):
    palette = PALETTES[theme]
    assert {ground for _, ground in pairs} >= {*SIGNS, "box", "fused", "module", "background"}
    assert {ground for _, ground in pairs} >= {role for role in palette if role.endswith(" row")}
    found = {pair: contrast(palette[pair[0]], palette[pair[1]]) for pair in pairs}
    assert min(found.values()) >= 4.5, min(found, key=found.get)


def test_contrast_is_what_wcag_says_it_is():
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("eye", SEEN_BY)
@pytest.mark.parametrize("theme", PALETTES)
@pytest.mark.parametrize(
    ("first", "second", "least"),
    [
        ("forward", "backward", 70),  # wires and numbers; the smallest is 74.9
        ("forward row", "backward row", 15),  # pale grounds of rows; the smallest is 15.1
        (f"minus{HEAT_LEVELS}", f"plus{HEAT_LEVELS}", 30),  # the smallest is 30.2
        ("forward", "zero", 19),  # the smallest is 19.7, and one of them is dashed
    ],
)
def test_signs_are_told_apart_by_every_eye(theme, eye, first, second, least):
    palette = PALETTES[theme]
    assert distance(palette[first], palette[second], eye) >= least


def test_the_heat_of_a_sign_grows_with_its_level():
    for palette in PALETTES.values():
        for sign in ("minus", "plus"):
            steps = [palette["box"], *(palette[f"{sign}{k}"] for k in range(1, HEAT_LEVELS + 1))]
            from_nothing = [distance(steps[0], step, "all") for step in steps]
            assert from_nothing == sorted(set(from_nothing))


def test_the_palettes_have_the_same_roles_and_every_look_uses_some():
    assert LIGHT.keys() == DARK.keys()
    used = set(chain.from_iterable((look.fill, look.stroke) for look in LOOKS.values())) - {None}
    assert used == LIGHT.keys()


def test_a_picture_is_light_or_dark_or_as_the_system_has_it():
    light, dark, auto = (picture_css(theme) for theme in ("light", "dark", "auto"))
    assert LIGHT["forward"] in light
    assert DARK["forward"] not in light
    assert DARK["forward"] in dark
    assert LIGHT["forward"] not in dark
    usual, by_system = auto.split("@media (prefers-color-scheme:dark)")
    assert usual == light
    assert DARK["forward"] in by_system
    assert LIGHT["forward"] not in by_system
    assert "var(" not in auto  # which Inkscape and librsvg do not know


def test_a_page_can_set_the_theme_against_the_system():
    usual, dark = page_css().split("@media (prefers-color-scheme:dark)")
    by_system, by_page = dark.split("}}")
    assert usual == picture_css("light")
    assert by_system.count(":root:not([data-theme=light]) .diagram .") == len(LOOKS)
    assert by_page.count(":root[data-theme=dark] .diagram .") == len(LOOKS)
