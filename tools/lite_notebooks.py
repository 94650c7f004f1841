"""The notebooks of the demo without a server: those of the repository, changed where a browser has no processes."""

from __future__ import annotations

from typing import Any

NOTEBOOKS = ["00_first_session.ipynb"]
INSTALL = "%pip install -q ipybatch ipywidgets anywidget aiolimiter pandas"


def for_browser(name: str, notebook: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook with a first code cell that installs what it needs, on the kernel of JupyterLite."""
    first = next(at for at, cell in enumerate(notebook["cells"]) if cell["cell_type"] == "code")
    cell: dict[str, Any] = {
        "cell_type": "code",
        "execution_count": None,
        "id": "install",
        "metadata": {},
        "outputs": [],
        "source": INSTALL,
    }
    kernel = {"kernelspec": {"display_name": "Python (Pyodide)", "language": "python", "name": "python"}}
    cells = [*notebook["cells"][:first], cell, *notebook["cells"][first:]]
    return {**notebook, "cells": cells, "metadata": {**notebook["metadata"], **kernel}}
