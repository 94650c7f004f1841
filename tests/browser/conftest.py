"""One JupyterLab, server and page, for all browser tests; a fresh notebook and kernel for each.

Loading JupyterLab is more than half of what a short test takes, so `open_notebook` closes what the test before it had
open, and opens the new notebook in the same page. A test that asks for `page` has one of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.lab import Lab, Notebook, chromium, clear

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, BrowserContext, Page

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
    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def window(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    yield context
    context.close()


@pytest.fixture
def page(window: BrowserContext) -> Iterator[Page]:
    opened = window.new_page()
    yield opened
    opened.close()


@pytest.fixture
def open_notebook(window: BrowserContext, lab: Lab, tmp_path: Path) -> Iterator[Callable[..., Notebook]]:
    """Open a new notebook with the given cell sources: `open_notebook(["1 + 1"])`."""

    def opened(sources: list[str], **options: str) -> Notebook:
        page = window.pages[0] if window.pages else window.new_page()
        return Notebook(page, lab, tmp_path.name, sources, **options)

    yield opened
    for page in window.pages[1:]:
        page.close()
    for page in window.pages:
        clear(page)
    lab.end_kernels()  # a session that runs on would slow the next test down
