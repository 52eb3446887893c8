"""Pages in a headless Chromium: the one of the system, driven by Playwright.

Every page that a test visits is held to the same: no error in the console, no request to anywhere.
"""

import importlib.util
import shutil

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
MISSING = [
    name
    for name in ("playwright", "axe_playwright_python", "pygraphviz")
    if importlib.util.find_spec(name) is None
]
MISSING += [] if CHROMIUM else ["chromium"]


@pytest.fixture(scope="session")
def browser(request):
    """One Chromium for all tests; they are skipped where it is missing, or what drives it."""
    if MISSING:
        pytest.skip(f"not installed: {', '.join(MISSING)}")
    if request.config.getoption("--device") != "cpu":
        pytest.skip("pages are the same on every device")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    """visit(path, fragment, **options): the page of a file, in a context of its own."""
    contexts, problems = [], []

    def open_page(path, fragment="", *, size=(1280, 900), **options):
        width, height = size
        options = {"reduced_motion": "reduce", **options}
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(5000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
        page.goto(f"{path.as_uri()}{fragment}")
        page.on("request", lambda request: problems.append(f"request: {request.url}"))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []
