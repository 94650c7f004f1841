"""What failed, in a real JupyterLab: one press from its number, worked by keys, whatever was shown before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.browser.lab import Notebook

SESSION = """
from ipybatch import BatchSession, Permanent

async def fetch(item):
    if item % 10 == 3:
        raise Permanent(f"404 no such game {item}")
    if item % 100 == 50:
        raise Permanent("410 gone: " + "for ever " * 300)

session = BatchSession("what failed", fetch, list(range(1000)), breaker=None)
summary = await session
session
"""


def test_what_failed_is_found_searched_and_left_by_keys(open_notebook: Callable[..., Notebook]) -> None:
    """The number opens all of it by message; arrows open, Enter tells, Escape closes; the focus is never lost."""
    notebook = open_notebook([SESSION])
    notebook.run(0)
    panel = notebook.output(0).locator(".ipybatch")
    expect(panel.locator(".ib-state")).to_contain_text("completed", timeout=90_000)
    panel.get_by_role("button", name="110 failed").click()
    rows = panel.locator(".ib-of-errors .ib-rows .ib-row")
    expect(rows.first).to_contain_text("404 no such game <key>")
    expect(rows.nth(1)).to_contain_text("410 gone")
    keyboard = notebook.page.keyboard
    rows.nth(1).focus()
    keyboard.press("ArrowRight")
    expect(rows).not_to_have_count(2)
    keyboard.press("ArrowDown")
    expect(panel.locator(".ib-of-errors .ib-row:focus .ib-words")).to_have_text("50")
    keyboard.press("Enter")
    details = panel.locator(".ib-details:visible")
    expect(details).to_contain_text("characters more")
    expect(details.locator(".ib-where")).to_contain_text("notebook cell:7 in fetch")
    details.get_by_role("button", name="Show all").click()
    expect(details).not_to_contain_text("characters more")
    keyboard.press("Escape")
    expect(details).to_have_count(0)
    expect(panel.locator(".ib-of-errors .ib-row:focus .ib-words")).to_have_text("50")
    search = panel.get_by_role("searchbox", name="Search in keys")
    search.fill("game 993")
    expect(panel.locator(".ib-of-errors .ib-aside")).to_have_text("1 of 110")
    expect(rows.first).to_contain_text("993")
    panel.get_by_role("button", name="Retry these 1").click()
    expect(panel.locator(".ib-state")).to_contain_text("completed")
    notebook.wait_done(0)
    assert notebook.page.locator(".jp-Cell").count() >= 1, "no key reached the notebook"
