"""The stepper in a browser: what is to be seen after each step, and every way to get there."""

import re

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn.diagram.batch_norm import worked_example
from tinygrad_bn.diagram.drawing.style import DARK, LIGHT
from tinygrad_bn.diagram.pages.stepper import stepper

FORWARD = 11  # ops of composed batch norm under ℓ = Σ wy
TURN, END = FORWARD + 1, 2 * FORWARD + 1


@pytest.fixture(scope="session")
def file(browser, tmp_path_factory):
    page = stepper(worked_example("composed"), title="Batch normalization")
    return page.save(tmp_path_factory.mktemp("stepper") / "stepper.html")


def at(page):
    """The number of the step that is shown, which all that tell it agree on."""
    number, *others = page.evaluate("""() => {
        const links = [...document.querySelectorAll(".steps a")];
        const scenes = [...document.querySelectorAll(".formula > article")];
        const told = document.querySelector("#position").textContent;
        return [
            Number(document.querySelector("#step").value),
            Number(told.split(" / ")[0]),
            links.findIndex((link) => link.hasAttribute("aria-current")),
            scenes.findIndex((scene) => !scene.hidden),
        ];
    }""")
    assert set(others) == {number}
    return number


def go(page, number):
    """Follow the link to a step, which is in the table of all steps."""
    page.locator(".steps a").nth(number).dispatch_event("click")


def box(page, symbol):
    """The box of a node, by its symbol."""
    name = page.locator(".heading text:first-child", has_text=re.compile(f"^{re.escape(symbol)}$"))
    return page.locator(".box").filter(has=name)


def numbers(page, symbol):
    """The numbers to be seen in a box: the value, and the gradient."""
    return box(page, symbol).evaluate("""box => [...box.querySelectorAll(".row")].map(row =>
        getComputedStyle(row).opacity === "0" ? [] : [...row.querySelectorAll("text")]
            .filter(text => getComputedStyle(text).visibility === "visible")
            .map(text => text.textContent).slice(1))""")


def shown(page):
    """The article in the pane of formulas, as one line."""
    return re.sub(r"\s+", " ", page.inner_text(".formula"))


# --- What a step shows ----------------------------------------------------------------------------


def test_values_appear_as_they_are_computed(visit, file):
    page = visit(file, "#step=2")
    assert numbers(page, "x") == [["0.5", "3.5", "4.5", "7.5"], []]
    assert numbers(page, "d") == [["−3.5", "−0.5", "0.5", "3.5"], []]
    assert numbers(page, "q") == [[], []]
    page.keyboard.press("ArrowRight")
    assert numbers(page, "q") == [["12.25", "0.25", "0.25", "12.25"], []]


def test_gradients_add_up_in_the_node_as_they_arrive(visit, file):
    page = visit(file)
    seen = {symbol: [] for symbol in ("x", "d", "μB", "x̂", "ℓ")}
    for _ in range(TURN, END + 1):
        page.keyboard.press("b" if at(page) < TURN else "ArrowRight")
        for symbol, sums in seen.items():
            gradient = numbers(page, symbol)[1]
            if gradient and gradient not in sums:
                sums.append(gradient)
    assert seen == {
        "x": [["1.136", "−1.552", "0.352", "0.864"], ["0.936", "−1.752", "0.152", "0.664"]],
        "d": [["0.8", "−1.6", "0.4", "1.2"], ["1.136", "−1.552", "0.352", "0.864"]],
        "μB": [["−0.8"]],
        "x̂": [["2", "−4", "1", "3"]],
        "ℓ": [["1"]],
    }
    page.keyboard.press("Home")
    assert numbers(page, "x") == [["0.5", "3.5", "4.5", "7.5"], []]


def test_line_graph_and_formula_are_in_step(visit, file):
    page = visit(file, "#step=17")
    assert page.inner_text(".code li.now") == "xhat = d / s"
    assert page.locator(".box.now").evaluate_all("all => all.map(one => one.id)") == [
        box(page, "x̂").get_attribute("id")
    ]
    titles = page.locator(".wire.now > title").all_text_contents()
    assert titles == ["d → x̂", "s → x̂"]
    assert "∂ℓ/∂x̂ arrives (2, −4, 1, 3)" in shown(page)
    assert "d receives (0.8, −1.6, 0.4, 1.2)" in shown(page)
    assert "s receives −0.96" in shown(page)
    assert page.locator(".scene:not([hidden]) math").count() == 2
    page.keyboard.press("ArrowLeft")
    assert page.locator(".wire.now > title").all_text_contents() == ["γ → u", "x̂ → u"]


@pytest.mark.parametrize("size", [(1280, 900), (420, 900), (1000, 420)])
def test_every_step_lights_one_node_and_one_line_which_are_in_sight(visit, file, size):
    page = visit(file, size=size)
    for number in range(1, END + 1):
        page.keyboard.press("ArrowRight")
        assert at(page) == number
        foot, boxes, lines = page.evaluate("""() => {
            const ends = (selector) => [...document.querySelectorAll(selector)].map((one) => {
                const { top, bottom } = one.getBoundingClientRect();
                return [top, bottom];
            });
            const [[foot]] = ends(innerWidth > 900 ? ".controls" : ".sheet");
            return [foot, ends(".box.now"), ends(".code li.now")];
        }""")
        (box_top, box_bottom), (line_top, line_bottom) = *boxes, *lines
        assert 0 <= box_top <= box_bottom <= foot
        assert size[0] <= 900 or 0 <= line_top <= line_bottom <= foot


def test_a_sentence_is_said_at_every_step(visit, file):
    page = visit(file, "#step=1")
    said = page.locator("[aria-live=polite]")
    assert said.text_content() == "Forward 1 of 11: μB = 4"
    page.keyboard.press("End")
    assert said.text_content() == (
        "Backward 11 of 11: ∂ℓ/∂x += (−0.2, −0.2, −0.2, −0.2), so far (0.936, −1.752, 0.152, 0.664)"
    )


# --- Ways to go -----------------------------------------------------------------------------------


KEYS = [
    *[(0, "ArrowRight", 1), (END, "ArrowRight", END), (5, "ArrowLeft", 4), (0, "ArrowLeft", 0)],
    *[(7, "Home", 0), (7, "End", END), (2, "b", TURN), (20, "b", TURN), (7, "x", 7)],
    *[(7, "Control+b", 7), (7, "Alt+ArrowRight", 7)],
]


def test_keys(visit, file):
    page = visit(file)
    for start, key, end in KEYS:
        go(page, start)
        page.keyboard.press(key)
        assert (start, key, at(page)) == (start, key, end)


def test_buttons(visit, file):
    page = visit(file)
    ends = {"next step": 1, "end": END, "step back": END - 1, "backward": TURN, "start": 0}
    for name, end in ends.items():
        page.get_by_role("button", name=name, exact=True).click()
        assert at(page) == end


def test_the_slider(visit, file):
    page = visit(file)
    slider = page.get_by_role("slider")
    slider.fill("9")
    assert at(page) == 9
    slider.press("ArrowLeft")
    assert at(page) == 8
    slider.press("End")
    assert at(page) == END


def test_play_runs_at_its_speed_to_the_end_and_stops(visit, file):
    page = visit(file, "#step=19")
    page.clock.install()
    play = page.get_by_role("button", name="play")
    page.keyboard.press("Space")
    assert play.get_attribute("aria-pressed") == "true"
    page.clock.run_for(900)
    assert at(page) == 20
    page.get_by_label("speed").select_option("fast")
    page.clock.run_for(700)
    assert at(page) == 22
    play.press("Space")
    page.clock.run_for(5000)
    assert (at(page), play.get_attribute("aria-pressed")) == (22, "false")
    play.click()
    page.clock.run_for(350)
    assert (at(page), play.get_attribute("aria-pressed")) == (END, "false")
    page.keyboard.press("Space")  # nothing has the focus but the button: once more, from the start
    assert (at(page), play.get_attribute("aria-pressed")) == (0, "true")
    page.keyboard.press("ArrowRight")
    assert (at(page), play.get_attribute("aria-pressed")) == (1, "false")


@pytest.mark.parametrize(
    ("fragment", "number"),
    [("#step=7", 7), ("#step=999", END), ("#step=-1", 0), ("#x", 0), ("", 0)],
)
def test_a_link_leads_to_its_step(visit, file, fragment, number):
    assert at(visit(file, fragment)) == number


def test_the_address_follows_and_leads(visit, file):
    page = visit(file)
    page.keyboard.press("b")
    page.wait_for_url(f"**#step={TURN}")
    page.evaluate("location.hash = '#step=14'")
    page.locator(".steps a[aria-current][href='#step=14']").wait_for(state="attached")
    assert at(page) == 14


def test_the_table_has_a_link_to_every_step(visit, file):
    page = visit(file)
    page.click("summary")
    page.get_by_role("link", name="Backward 9 of 11").click()
    assert at(page) == TURN + 9


# --- Nodes ----------------------------------------------------------------------------------------


def test_a_node_under_the_pointer_shows_its_local_derivatives(visit, file):
    page = visit(file, "#step=5")
    before = shown(page)
    box(page, "q").hover()
    assert "∂q/∂d = 2d (−7, −1, 1, 7)" in shown(page)
    box(page, "γ").hover()
    assert "∂u/∂γ = x̂i (−1.4, −0.2, 0.2, 1.4)" in shown(page)
    page.mouse.move(5, 5)
    assert shown(page) == before
    assert at(page) == 5


def test_nodes_are_one_stop_of_the_tab_key_and_arrows_go_on(visit, file):
    page = visit(file, "#step=3")
    focused = "document.activeElement.getAttribute('aria-label')"
    stops = ".box[tabindex='0']"
    assert page.locator(".box").count() == 16
    assert page.locator(stops).count() == 1
    page.locator(stops).focus()
    page.keyboard.press("ArrowUp")
    first = page.evaluate(focused)
    for _ in range(20):
        page.keyboard.press("ArrowDown")
    assert page.locator(stops).count() == 1
    assert page.evaluate(focused).startswith("ℓ = 3.4; ∂ℓ/∂p = 1")
    assert "∂ℓ/∂p" in shown(page)
    for _ in range(20):
        page.keyboard.press("ArrowUp")
    assert page.evaluate(focused) == first


@pytest.mark.parametrize(("start", "end"), [(3, 8), (TURN, TURN + 4)])
def test_a_node_leads_to_its_step(visit, file, start, end):
    page = visit(file, f"#step={start}")
    box(page, "u").click()
    assert at(page) == end
    page.keyboard.press("Home")
    page.keyboard.press("Enter")  # it has the focus: forward again
    assert at(page) == 8


# --- Themes, motion, paper, no script -------------------------------------------------------------


def colour(page):
    rgb = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return "#{:02X}{:02X}{:02X}".format(*map(int, re.findall(r"\d+", rgb)))


@pytest.mark.parametrize("system", ["light", "dark"])
def test_the_theme_is_the_systems_until_the_button_says_another(visit, file, system):
    page = visit(file, color_scheme=system)
    backgrounds = {"light": LIGHT["background"], "dark": DARK["background"]}
    button = page.locator("#theme")
    for theme in ("auto", "light", "dark", "auto"):
        assert button.inner_text() == f"theme: {theme}"
        wanted = backgrounds.get(theme, backgrounds[system])
        assert colour(page) == wanted
        rect = page.locator(".diagram .paper")
        assert colour_of(rect) == wanted
        button.click()


def colour_of(rect):
    rgb = rect.evaluate("one => getComputedStyle(one).fill")
    return "#{:02X}{:02X}{:02X}".format(*map(int, re.findall(r"\d+", rgb)))


@pytest.mark.parametrize(("motion", "name"), [("reduce", "none"), ("no-preference", "upward")])
def test_nothing_moves_for_those_who_asked_for_that(visit, file, motion, name):
    page = visit(file, "#step=17", reduced_motion=motion)
    line = page.locator(".wire.now .line").first
    assert line.evaluate("one => getComputedStyle(one).animationName") == name
    moving = page.locator(".row").first.evaluate("one => getComputedStyle(one).transitionProperty")
    assert moving == {"none": "none", "upward": "opacity"}[name]


def test_on_paper_it_is_light_and_has_the_table_but_no_buttons(visit, file):
    page = visit(file, color_scheme="dark")
    page.locator("#theme").click(click_count=2)
    assert page.inner_text("#theme") == "theme: dark"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert colour(page) == LIGHT["background"]
    assert not page.locator("button, input").locator("visible=true").count()
    assert page.get_by_role("cell", name="d = (−3.5, −0.5, 0.5, 3.5)").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.inner_text("#theme") == "theme: dark"


def test_without_script_there_is_the_finished_graph_and_the_table(visit, file):
    page = visit(file, java_script_enabled=False)
    assert page.locator(".controls, #theme").locator("visible=true").count() == 0
    assert page.get_by_role("cell", name="d = (−3.5, −0.5, 0.5, 3.5)").is_visible()
    gradient = page.locator(".box.leaf .row.backward text:visible").all_text_contents()
    assert "0.936" in gradient
    assert "1.136" not in gradient


def test_no_answer_is_seen_before_the_script_has_run(visit, file, tmp_path):
    before = tmp_path / "before.html"
    html = file.read_text("utf-8")
    before.write_text(re.sub("<script>.*?</script>", "", html, flags=re.S), "utf-8")
    visibility = "getComputedStyle(document.querySelector('main')).visibility"
    assert visit(before).evaluate(visibility) == "hidden"
    assert visit(file).evaluate(visibility) == "visible"


def test_what_is_to_come_does_not_fade_out_at_first(visit, file):
    page = visit(file, reduced_motion="no-preference")
    assert page.evaluate("document.getAnimations().length") == 0
    assert numbers(page, "d") == [[], []]


# --- Phones, notebooks, other graphs --------------------------------------------------------------


@pytest.mark.parametrize("width", [320, 420, 900])
def test_a_phone_needs_no_scrolling_to_the_side_and_has_the_controls_at_hand(visit, file, width):
    page = visit(file, "#step=17", size=(width, 800))
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for selector in ("#next", ".formula", "#step"):
        place = page.locator(selector).bounding_box()
        assert place["x"] >= 0
        assert place["x"] + place["width"] <= width
        assert place["y"] + place["height"] <= 800


def test_in_a_notebook_it_runs_in_a_frame_of_its_own(visit, file, tmp_path):
    frame = stepper(worked_example("fused"))._repr_html_()
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><title>notebook</title>{frame}", encoding="utf-8")
    page = visit(notebook)
    inside = page.frame_locator("iframe")
    inside.locator("#next").click()
    inside.locator("#next").click()
    assert inside.locator("#position").inner_text() == "2 / 7"
    inside.locator("summary").click()
    inside.get_by_role("link", name="Turn").click()
    assert inside.locator("#position").inner_text() == "4 / 7"
    assert page.url == notebook.as_uri()


def test_a_name_is_only_ever_a_name(visit, tmp_path):
    names = [
        "</script><script>alert(1)</script>",
        "a\"b' onload=alert(2) &",
        "x" * 10_000,
        "\ud800",
    ]
    with tg.tracing():
        loss = tg.tensor(0.0)
        for name in names:
            x = tg.named(name, tg.tensor([1.0, np.nan], requires_grad=True))
            loss = loss + x.sum()
        file = stepper(loss, title="<b>&amp;").save(tmp_path / "names.html")
    page = visit(file)
    assert page.inner_text("h1") == "<b>&amp;"
    assert names[0] in box(page, names[0]).text_content()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    page.locator(".box").first.hover()
    assert page.locator("script").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") == 1280
