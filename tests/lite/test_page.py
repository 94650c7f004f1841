"""The built demo in a real Chromium: Python as Pyodide in a worker, JupyterLab, the panel with its buttons."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

pytest.importorskip("playwright")

from playwright.sync_api import expect, sync_playwright

from tests.browser.lab import CHROMIUM_ARGS
from tests.lite.page import BUILT, Demo, DemoNotebook
from tools.chromium import ensure

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (BUILT / "static" / "pyodide").is_dir(), reason=f"no demo in {BUILT}: make lite builds it"),
]

SLOW = """
async def slowly(item):
    await asyncio.sleep(0.2)
    return item

night = BatchSession("night", slowly, range(1000), limits=Limits(concurrency=4))
night.start()
night
"""
REFUSED = """
from ipybatch.backends import Processes

for wrong in (Processes, night.run, lambda: BatchSession("kept", slowly, [1], journal="kept.db").start()):
    try:
        wrong()
    except (ValueError, ipybatch.JournalError) as error:
        print(error)
"""
MORE = [SLOW, "print(await night)", "print(night.counts.cancelled + night.counts.completed)", REFUSED]


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    server = Demo()
    yield server
    server.close()


@pytest.fixture(scope="module")
def notebook(demo: Demo) -> Iterator[DemoNotebook]:
    """Notebook 00, with some cells more, whose first cells have installed the package."""
    name = "00_first_session.ipynb"
    demo.offer(name, MORE)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=ensure(), args=list(CHROMIUM_ARGS))
        page = chromium.new_page(viewport={"width": 1280, "height": 1200}, reduced_motion="reduce")
        opened = DemoNotebook(page, demo, name)
        assert opened.run_to_end("%pip install", 120) == ""
        assert opened.run_to_end("import asyncio") == ""
        yield opened
        chromium.close()


def test_the_first_notebook_runs(demo, notebook):
    assert "100 requests" in notebook.run_to_end("session.estimate")
    notebook.run(started := notebook.index("session.start()\nsession"))
    panel = notebook.output(started)
    expect(panel.get_by_role("button", name="Pause")).to_be_visible(timeout=30_000)
    assert "99/100 successful, 1 failed" in notebook.run_to_end("summary = await session")
    expect(panel.get_by_role("button", name="Retry failed")).to_be_visible()
    again, longer, labels, frames = notebook.run_all(
        ["session.retry_failed()", "again = BatchSession", "from aiolimiter", "Results are a DataFrame"]
    )
    assert "100/100 successful" in again
    assert "101 calls so far" in again
    assert "121 calls so far" in longer
    assert "30/30 successful" in labels
    assert not demo.has_pandas or "print labels" in frames
    expect(panel).to_contain_text("100 of 100")
    expect(panel).to_contain_text("completed")


def test_buttons_work_in_the_page_while_a_cell_waits_and_while_none_does(notebook):
    notebook.run(shown := notebook.index("night.start()"))
    panel = notebook.output(shown)
    panel.get_by_role("button", name="Pause").click(timeout=30_000)
    expect(panel.get_by_role("button", name="Resume")).to_be_visible()
    notebook.run(waiting := notebook.index("await night"))
    panel.get_by_role("button", name="Resume").click()
    panel.get_by_role("button", name="Pause").click()
    panel.get_by_role("button", name="Resume").click()
    panel.get_by_role("button", name="Cancel").click()
    notebook.wait_done(waiting)
    assert "night cancelled" in notebook.output(waiting).inner_text()
    assert notebook.run_to_end("night.counts.cancelled").strip() == "1000"


def test_what_cannot_be_there_is_refused_in_a_sentence(notebook):
    processes, run, journal = notebook.run_to_end("import Processes").splitlines()
    assert processes.startswith("Processes() cannot run here, because Python in a browser has no threads")
    assert run.startswith("run() cannot wait here")
    assert journal.startswith("journal /drive/kept.db ")


def test_the_page_asks_for_no_server_of_ours(demo, notebook):
    """The side bar would ask a server again and again."""
    assert not [path for path in demo.asked if "ipybatch" in path], json.dumps(demo.asked)
