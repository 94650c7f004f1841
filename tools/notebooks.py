"""Run notebooks headless, for the demo, and to renew the outputs that are committed.

python -m tools.notebooks         runs all of notebooks/ and keeps what they show

What is kept is small and needs nothing to be seen: no widget state (a panel's last static form stands for it), no
metadata of a run, and a picture beside each chart for pages that draw none.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"
CHART = "application/vnd.plotly.v1+json"
CELL_S = 300
WIDTH_PX, HEIGHT_PX = 900, 320  # of a chart's picture

Notebook = nbformat.NotebookNode
Watch = Callable[[Notebook, int], None]


def read(path: Path) -> Notebook:
    """Return a notebook without the outputs of earlier runs."""
    notebook: Notebook = nbformat.read(path, as_version=4)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    return notebook


def write(notebook: Notebook, path: Path) -> None:
    """Write a notebook, tidied."""
    nbformat.write(tidy(notebook), path)


def code_cells(notebook: Notebook) -> list[Notebook]:
    """Return the cells that run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def displays(notebook: Notebook) -> list[dict[str, Any]]:
    """Return what the cells display, each in all its forms by MIME type."""
    return [output.data for cell in code_cells(notebook) for output in cell.outputs if "data" in output]


async def run(
    notebook: Notebook, environment: Mapping[str, str], *, begin: Watch | None = None, end: Watch | None = None
) -> None:
    """Run a notebook top to bottom, outputs into it, as if it lay in `FOLDER`.

    Args:
        environment: Of the kernel, whole.
        begin: Called with each code cell and its index before it runs.
        end: Called with them when it has run without an error.

    Raises:
        CellExecutionError: A cell raised.
    """
    client = NotebookClient(
        notebook,
        timeout=CELL_S,
        kernel_name="python3",
        store_widget_state=False,
        resources={"metadata": {"path": str(FOLDER)}},
        extra_arguments=["--log-level=ERROR"],
        on_cell_execute=lambda cell, cell_index: _tell(begin, cell, cell_index),
        on_cell_executed=lambda cell, cell_index, execute_reply: _tell(
            end if execute_reply["content"]["status"] == "ok" else None, cell, cell_index
        ),
    )
    await client.async_execute(env=dict(environment))


def environment(folder: Path) -> dict[str, str]:
    """Return a kernel's environment: its files in ``folder``, none of the user's settings or sessions, no proxy."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("IPYBATCH_")}
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP", "XDG_RUNTIME_DIR"), str(folder))
    return kept | places | dict.fromkeys(("NO_PROXY", "no_proxy"), "*")


def tidy(notebook: Notebook) -> Notebook:
    """Return a copy that needs no kernel to be seen: the static form of a widget, and no metadata of a run."""
    kept = copy.deepcopy(notebook)
    kept.metadata.pop("widgets", None)
    kept.metadata.language_info = {"name": "python"}
    for cell in kept.cells:
        cell.metadata.pop("execution", None)
    for forms in displays(kept):
        if "text/html" in forms:
            forms.pop(WIDGET, None)
    return kept


def as_page(notebook: Notebook) -> str:
    """Return a notebook as one HTML page that asks no other server for anything; its charts can be zoomed."""
    from nbconvert import HTMLExporter

    kept = tidy(notebook)
    charts = [forms for forms in displays(kept) if CHART in forms]
    for number, forms in enumerate(charts):
        forms["text/html"] = _drawn(forms.pop(CHART), with_library=number == 0)
        forms.pop("image/png", None)
    elsewhere = ("mathjax_url", "require_js_url", "jquery_url", "mermaid_js_url", "jupyter_widgets_base_url")
    exporter = HTMLExporter(  # type: ignore[no-untyped-call]  # nbconvert has no types
        embed_images=True, exclude_input_prompt=True, exclude_output_prompt=True
    )
    for url in (*elsewhere, "widget_renderer_url"):
        setattr(exporter, url, "")
    page: str = exporter.from_notebook_node(kept)[0]
    return page


def add_pictures(notebook: Notebook) -> None:
    """Put a picture beside each chart, drawn by Chromium."""
    from playwright.sync_api import sync_playwright

    from tools.chromium import ensure

    charts = [forms for forms in displays(notebook) if CHART in forms]
    if not charts:
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=ensure(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH_PX + 50, "height": HEIGHT_PX + 50})
        for forms in charts:
            page.set_content(_drawn(forms[CHART], with_library=True))
            picture = page.locator(".js-plotly-plot").screenshot()
            forms["image/png"] = base64.b64encode(picture).decode()
        browser.close()


def renew(path: Path) -> None:
    """Run a notebook and keep what it shows in its file."""
    import tempfile

    notebook = read(path)
    with tempfile.TemporaryDirectory(prefix="ipybatch-") as folder:
        asyncio.run(run(notebook, environment(Path(folder))))
    add_pictures(notebook)
    write(notebook, path)


def _tell(watch: Watch | None, cell: Notebook, index: int) -> None:
    if watch is not None:
        watch(cell, index)


def _drawn(chart: dict[str, Any], *, with_library: bool) -> str:
    import plotly.io

    figure = {"data": chart["data"], "layout": chart["layout"]}
    html: str = plotly.io.to_html(figure, include_plotlyjs=with_library, full_html=False, validate=False)
    return html


if __name__ == "__main__":
    for found in sorted(FOLDER.glob("*.ipynb")):
        print(found.relative_to(ROOT))
        renew(found)
