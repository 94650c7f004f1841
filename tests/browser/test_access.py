"""Everyone can use the panel: axe-core finds nothing to complain of, in any state, tab or theme."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Locator

    from tests.browser.lab import Notebook

AXE = Path(__file__).parents[2] / "widgets" / "node_modules" / "axe-core" / "axe.min.js"
EVIL = "<img src=x onerror=alert(1)>"
SESSION = f"""
import asyncio, os
from ipywidgets import HBox, Tab, VBox
from ipybatch import BatchSession, Breaker, Limits, Rate
from ipybatch.jupyter import BreakerStatus, Log, PartitionTable, Progress, Timeline

async def fetch(item):
    await asyncio.sleep(0.01)
    if item % 7 == 3:
        raise ValueError("{EVIL} no such game")
    if item > 60 and PACE:
        await asyncio.sleep(PACE)

def session(name, items, pace):
    global PACE
    PACE = pace
    limits = Limits(concurrency=4, batch_size=10, rates=[Rate(1000, per_s=2)])
    return BatchSession(f"{{name}} {{os.getpid()}}", fetch, range(items), limits=limits, fresh=True)
"""
CASES = {
    "running": "s = session('running', 100, 60); s.start(); s",
    "failed and done": "s = session('done', 50, 0); s.run(); display(s)",
    "empty": "s = session('empty', 0, 0); s.run(); display(s)",
    "not started": "session('planned', 10, 0)",
}
SIZES = """
from ipybatch.jupyter import Panel, Sessions
two = session("two", 50, 0)
two.run()
one = session("one", 100, 60)
one.start()
display(Panel(one), Panel(one, compact=True), Sessions([one, two]))
"""
VIEWS = """
s = session("views", 40, 0)
s.run()
display(VBox([Progress(s), HBox([BreakerStatus(s), Timeline(s)]), Tab([PartitionTable(s), Log(s)])]))
"""


def violations(shown: Locator) -> list[dict[str, Any]]:
    """Return what axe-core finds within the view, with the places."""
    page = shown.page
    if not page.evaluate("() => 'axe' in window"):
        # JupyterLab has an AMD loader, which would take the script for a module of its own.
        page.evaluate("source => { const define = undefined; eval(source); }", AXE.read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = shown.evaluate(
        "async node => (await axe.run(node)).violations.map(({id, help, nodes}) =>"
        " ({id, help, at: nodes.map(({html}) => html.slice(0, 160))}))"
    )
    return found


def through_tabs(shown: Locator) -> list[dict[str, Any]]:
    """Return what axe-core finds, one tab after the other."""
    found = []
    for tab in shown.get_by_role("tab").all():
        tab.click()
        expect(tab).to_have_attribute("aria-selected", "true")
        found += violations(shown)
    return found


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(open_notebook: Callable[..., Notebook], theme: str) -> None:
    """Every state and every tab, in JupyterLab's own colours; text from a service stays text."""
    notebook = open_notebook([SESSION, *CASES.values()])
    notebook.set_theme(theme)
    notebook.run(0)
    found = {}
    for index, name in enumerate(CASES, start=1):
        notebook.run(index)
        shown = notebook.output(index).locator(".ipybatch")
        expect(shown).to_be_visible(timeout=60_000)
        found[name] = through_tabs(shown)
        assert shown.locator("img").count() == 0
    assert not any(found.values()), found


@pytest.mark.parametrize(("theme", "widths_px"), [("light", [280, 480, 960, 1900]), ("dark", [280])])
def test_axe_finds_nothing_in_any_size(
    open_notebook: Callable[..., Notebook], theme: str, widths_px: list[int]
) -> None:
    """From a line to a full width, several sessions, and letters twice as large."""
    notebook = open_notebook([SESSION, SIZES])
    notebook.set_theme(theme)
    notebook.run(0)
    notebook.run(1)
    panels = notebook.output(1).locator(".ipybatch:not(.ipybatch .ipybatch)")
    expect(panels).to_have_count(3, timeout=60_000)
    expect(panels.last.locator(".ib-compact")).to_have_count(2)
    found = {}
    for px in widths_px:
        panels.evaluate_all("(nodes, px) => { for (const node of nodes) node.style.width = `${px}px`; }", px)
        found[px] = [problem for shown in panels.all() for problem in through_tabs(shown) or violations(shown)]
    notebook.page.evaluate("() => document.documentElement.style.setProperty('--jp-ui-font-size1', '26px')")
    expect(panels.first).to_have_css("zoom", "2", timeout=10_000)
    found[200] = through_tabs(panels.first) + violations(panels.last)
    panels.last.locator(".ib-fold").first.click()
    expect(panels.last.locator(".ib-book").first).to_be_visible()
    found[1] = through_tabs(panels.last)
    assert not any(found.values()), found


def test_views_stand_alone_and_together(open_notebook: Callable[..., Notebook]) -> None:
    """All lay out in VBox, HBox and Tab, show the session, and satisfy axe-core."""
    notebook = open_notebook([SESSION, VIEWS])
    notebook.run(0)
    notebook.run(1)
    shown = notebook.output(1)
    for name in ("progress", "breaker", "timeline", "table"):
        view = shown.locator(f".ib-view-{name}")
        expect(view).to_be_visible(timeout=60_000)
        assert violations(view) == []
    expect(shown.locator(".ib-view-progress")).to_contain_text("40 of 40")
    expect(shown.locator(".ib-view-table")).to_contain_text(EVIL)
    shown.locator(".lm-TabBar-tab").nth(1).click()
    expect(shown.locator(".ib-view-log")).to_contain_text("Completed")
    assert violations(shown.locator(".ib-view-log")) == []


NARROW = """
async def work(item):
    await asyncio.sleep(0)
    if item % 700 == 3:
        raise ValueError("404 no such game: ask again with another country")

s = BatchSession(f"narrow {os.getpid()}", work, range(4000), limits=Limits(concurrency=50, batch_size=1000), fresh=True)
s.run()
display(s)
"""
# Of each row: how far the figures reach towards the error, and the error towards the panel's edge.
CROWDED = """
panel => [...panel.querySelectorAll(".ib-of-groups .ib-rows .ib-row")].map((row) => {
  const figures = document.createRange();
  figures.selectNodeContents(row.querySelector(".ib-items").firstElementChild);
  const shown = [...row.querySelectorAll(".ib-cell")].filter((cell) => cell.checkVisibility());
  const next = shown[shown.findIndex((cell) => cell.matches(".ib-items")) + 1];
  const right = (node) => node.getBoundingClientRect().right;
  const gap = next.getBoundingClientRect().left - right(figures);
  return [Math.round(gap), Math.round(right(panel.querySelector(".ib-panel")) - right(row.querySelector(".ib-error")))];
}).filter(([gap, edge]) => gap < 6 || edge < 8)
"""


def test_columns_keep_apart_in_any_width(open_notebook: Callable[..., Notebook]) -> None:
    """As long as "1,000 / 1,000" beside an error, from 280 pixels on."""
    notebook = open_notebook([SESSION, NARROW])
    notebook.run(0)
    notebook.run(1)
    shown = notebook.output(1).locator(".ipybatch")
    expect(shown.locator(".ib-rows .ib-row").first).to_be_visible(timeout=60_000)
    crowded = {}
    for px in (280, 340, 341, 400, 460, 461, 480, 600, 601, 720, 721, 960):
        shown.evaluate("(node, px) => { node.style.width = `${px}px`; }", px)
        crowded[px] = shown.evaluate(CROWDED)
    assert {px: rows for px, rows in crowded.items() if rows} == {}
