from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.browser.lab import Notebook


def test_cell_shows_its_value(open_notebook: Callable[..., Notebook]) -> None:
    """The harness itself: a real cell, run by a real kernel, shown by a real JupyterLab."""
    notebook = open_notebook(["1 + 1"])
    notebook.run(0)
    notebook.wait_output(0, "2")
    notebook.wait_done(0)
