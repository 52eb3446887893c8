"""No violation that axe-core can find, in either theme, at the width of a desk and of a phone."""

import pytest

from tinygrad_bn.diagram import draw
from tinygrad_bn.diagram.batch_norm import worked_example
from tinygrad_bn.diagram.pages.stepper import stepper


@pytest.fixture(scope="session")
def folder(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    loss = worked_example("composed")
    stepper(loss).save(folder / "stepper.html")
    draw(loss, "symbols").save(folder / "picture.html")
    return folder


DESK, PHONE = (1280, 900), (420, 900)


@pytest.mark.parametrize(
    ("name", "size", "theme"),
    [
        *[("stepper.html", size, theme) for size in (DESK, PHONE) for theme in ("light", "dark")],
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
