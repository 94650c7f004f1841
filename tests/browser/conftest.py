"""One JupyterLab and one Chromium for all browser tests; a fresh page and notebook for each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright

from tests.browser.lab import CHROMIUM_ARGS, Lab, Notebook
from tools.chromium import ensure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in this folder, and move it to the end.

    Playwright's sync API keeps an event loop running in the main thread until its fixture ends: asyncio.run() in
    any test after it would fail.
    """
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.browser)
    items.sort(key=lambda item: FOLDER in item.path.parents)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    server = Lab.start(tmp_path_factory.mktemp("lab"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=ensure(), args=list(CHROMIUM_ARGS))
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    yield context.new_page()
    context.close()


@pytest.fixture
def open_notebook(page: Page, lab: Lab, tmp_path: Path) -> Callable[..., Notebook]:
    """Open a new notebook with the given cell sources: `open_notebook(["1 + 1"])`."""

    def opened(sources: list[str], **options: str) -> Notebook:
        return Notebook(page, lab, tmp_path.name, sources, **options)

    return opened
