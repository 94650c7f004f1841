"""JupyterLab and Notebook 7, each once; every press is written to out/matrix.md."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import browser, lab, page, window
from tests.browser.lab import Lab, Notebook
from tests.matrix import measured
from tests.matrix.setups import NOTEBOOK7, OUT, SETUPS, VOILA, Notebook7, Setup, notebook_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Page

__all__ = ["browser", "lab", "page", "window"]

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in this folder: it is not among the tests that every change must pass."""
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.matrix)


@pytest.fixture(scope="session")
def notebook7(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    server = Lab.start(tmp_path_factory.mktemp("notebook7"), notebook_environment(), NOTEBOOK7)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def cases() -> Iterator[list[measured.Case]]:
    """What was measured; the table is written at the end, of however many."""
    found: list[measured.Case] = []
    yield found
    if found:
        parts = [measured.machine(), measured.table(found, [*map(str, SETUPS), VOILA]), measured.said(found)]
        (OUT / "matrix.md").write_text("\n\n".join(parts) + "\n")


@pytest.fixture
def open_in(request: pytest.FixtureRequest, page: Page, tmp_path: Path) -> Callable[[Setup, list[str]], Notebook]:
    """Open a new notebook of the cells in a setup."""

    def opened(setup: Setup, sources: list[str]) -> Notebook:
        server: Lab = request.getfixturevalue("notebook7" if setup.is_notebook else "lab")
        kind = Notebook7 if setup.is_notebook else Notebook
        return kind(page, server, tmp_path.name, sources, kernel=setup.prepare(server))

    return opened
