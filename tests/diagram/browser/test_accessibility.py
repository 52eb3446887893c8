"""No violation that axe-core can find, in either theme, at the width of a desk and of a phone."""

import json
from pathlib import Path

import pytest

from tinygrad_bn.diagram import comparison, draw
from tinygrad_bn.diagram.batch_norm import worked_example
from tinygrad_bn.diagram.pages.stepper import stepper

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "results" / "fused_composed.json"


@pytest.fixture(scope="session")
def folder(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    loss = worked_example("composed")
    stepper(loss).save(folder / "stepper.html")
    draw(loss, "symbols").save(folder / "picture.html")
    measured = json.loads(BENCHMARK.read_text())
    comparison(worked_example("fused"), measured).save(folder / "fused_vs_composed.html")
    return folder


DESK, PHONE = (1280, 900), (420, 900)


@pytest.mark.parametrize(
    ("name", "size", "theme"),
    [
        *[
            (name, size, theme)
            for name in ("stepper.html", "fused_vs_composed.html")
            for size in (DESK, PHONE)
            for theme in ("light", "dark")
        ],
        *[("picture.html", DESK, "light"), ("picture.html", PHONE, "dark")],
    ],
)
def test_axe_finds_nothing(visit, folder, name, size, theme):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(folder / name, "#step=17", size=size, color_scheme=theme)
    for summary in page.locator("summary").all():
        summary.click()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
