"""The side bar in a real JupyterLab, with a server, a kernel and a journal of its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.browser.lab import Lab, Notebook
from tests.browser.test_access import violations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Locator, Page

SOON_MS = 20_000
SLOW = """
import asyncio, time
from ipybatch import BatchSession, Limits

async def fetch(item):
    await asyncio.sleep(0.05 if item < 6 else 3600)
    if item == 3:
        raise ValueError("no such game")

BatchSession("wishlist", fetch, range(12), limits=Limits(concurrency=6, batch_size=6)).start()
"""
BUSY = "time.sleep(3600)"


@pytest.fixture(scope="module")
def own_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    # On loopback no key is needed; a quote asks nobody.
    server = Lab.start(tmp_path_factory.mktemp("side"), {"GEMINI_BASE_URL": "http://127.0.0.1:9"})
    yield server
    server.stop()


def side_of(page: Page, lab: Lab, workspace: str) -> Locator:
    """Open JupyterLab with nothing but the side bar."""
    page.goto(f"{lab.url}/lab/workspaces/{workspace}?token={lab.token}")
    page.wait_for_function("() => window.jupyterapp?.commands.hasCommand('ipybatch:show')", timeout=60_000)
    expect(page.locator("#jupyterlab-splash")).to_have_count(0, timeout=30_000)
    return show_side(page)


def show_side(page: Page) -> Locator:
    page.evaluate("() => window.jupyterapp.commands.execute('ipybatch:show')")
    side = page.locator(".ib-side")
    expect(side).to_be_visible()
    return side


def test_side_bar_teaches_where_there_is_nothing_and_new_batch_asks_the_server(page: Page, own_lab: Lab) -> None:
    side = side_of(page, own_lab, "empty")
    expect(side).to_contain_text("No sessions yet.", timeout=SOON_MS)
    expect(page.locator("button.ib-status")).to_be_hidden()
    assert violations(side) == []
    side.locator(".ib-first").get_by_role("button", name="New batch").click()
    form = page.locator(".ib-new")
    form.get_by_label("What").select_option("forecast")
    table = {"name": "demand.csv", "mimeType": "text/csv", "buffer": b"site,part,date,demand\n"}
    form.get_by_label("Table").set_input_files([table])
    expect(form.locator(".ib-hint").filter(has_text=re.compile(r"row|table"))).not_to_have_count(0, timeout=SOON_MS)
    assert violations(form) == []
    form.get_by_label("What").select_option("text")
    form.get_by_label("Prompts").fill("A fox\nA whale")
    expect(form.locator(".ib-quoted table")).to_be_visible(timeout=SOON_MS)
    assert violations(form) == []


def across(what: Locator) -> tuple[float, float]:
    """Return where something begins and ends, from the left."""
    found = what.evaluate("(element) => [element.getBoundingClientRect().left, element.getBoundingClientRect().right]")
    return found[0], found[1]


def test_what_is_queued_stands_in_its_lines(page: Page, own_lab: Lab) -> None:
    """However long its name is: Cancel stays in sight, and takes it away."""
    side = side_of(page, own_lab, "queued")
    order = {"template": "text", "name": f"A name {'of many words ' * 6}", "requests": ["a"], "start_at": "2099-01-01"}
    headers = {"Authorization": f"token {own_lab.token}"}
    assert page.request.post(f"{own_lab.url}/ipybatch/api/v1/submissions", data=order, headers=headers).ok
    entry = side.locator(".ib-in-queue")
    expect(entry).to_contain_text("begins on 1 Jan 2099", timeout=SOON_MS)
    name, cancel = entry.locator(".ib-subject"), entry.get_by_role("button")
    (left, right), (begins, ends), (tool, tool_ends) = map(across, (side, name, cancel))
    assert left < begins < left + 40
    assert begins < ends <= tool < tool_ends <= right
    assert violations(side) == []
    cancel.click()
    expect(entry).to_have_count(0, timeout=SOON_MS)


def test_a_template_is_saved_changed_and_scheduled_and_both_deleted(page: Page, own_lab: Lab) -> None:
    side = side_of(page, own_lab, "scheduled")
    side.get_by_role("button", name="New batch").first.click()
    form = page.locator(".ib-new")
    form.get_by_label("What").select_option("refresh")
    form.get_by_label("Name").fill("night")
    form.get_by_label("App ids").fill("440")
    form.get_by_role("button", name="Save as template").click()
    expect(form).to_contain_text("Saved: night is among your templates", timeout=SOON_MS)
    expect(form.get_by_label("What")).to_have_value("night")
    kept = side.locator(".ib-in-queue").filter(has=page.get_by_role("button", name="New batch by night"))
    expect(kept).to_have_count(1, timeout=SOON_MS)
    form.get_by_label("Priority").select_option("low")
    form.get_by_role("button", name="Save changes").click()
    expect(form.get_by_role("button", name="Save changes")).to_be_disabled(timeout=SOON_MS)
    form.get_by_label("Start").fill("22:00")
    form.get_by_label("Repeat").select_option("1d")
    expect(form).to_contain_text(re.compile(r"Next: .*22:00, .*22:00, .*22:00"), timeout=SOON_MS)
    assert violations(form) == []
    form.get_by_role("button", name="Schedule", exact=True).click()
    entry = side.locator(".ib-in-queue").filter(has_text="daily 22:00")
    expect(entry).to_contain_text(re.compile("next .*22:00"), timeout=SOON_MS)
    expect(form.get_by_role("button", name="Schedule", exact=True)).to_be_disabled()
    assert violations(side) == []
    assert violations(form) == []
    entry.get_by_role("button", name="Pause night").click()
    expect(entry).to_contain_text("paused", timeout=SOON_MS)
    entry.get_by_role("button", name="Delete night").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(entry).to_have_count(0, timeout=SOON_MS)
    kept.get_by_role("button", name="New batch by night").click()
    again = page.locator(".ib-new").last
    expect(again.get_by_label("Priority")).to_have_value("low", timeout=SOON_MS)
    kept.get_by_role("button", name="Delete night").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(kept).to_have_count(0, timeout=SOON_MS)


def test_side_bar_cancels_what_a_busy_notebook_runs_after_its_tab_was_closed(page: Page, own_lab: Lab) -> None:
    """The command goes by the journal: neither the tab nor the kernel's shell is needed."""
    notebook = Notebook(page, own_lab, "busy", [SLOW, BUSY])
    side = show_side(page)
    notebook.run(0)
    notebook.wait_done(0)
    notebook.run(1)
    card = side.locator(".ib-card")
    expect(card).to_contain_text("1 failed", timeout=SOON_MS)
    expect(card.locator(".ib-percent")).to_have_text("50 %")
    expect(page.locator("button.ib-status")).to_have_text("1 session, 50 %")
    notebook.call("await panel.context.save(); panel.dispose(); return null")
    card.get_by_role("button", name="wishlist, running, open").click()
    tab = page.locator(".ib-in-tab")
    expect(tab.locator(".ib-name")).to_have_text("wishlist", timeout=SOON_MS)
    tab.get_by_role("tab", name="Errors").click()
    expect(tab.locator(".ib-of-errors .ib-rows .ib-row").first).to_contain_text("no such game", timeout=SOON_MS)
    assert violations(side) + violations(tab) == []
    card.get_by_role("button", name="Cancel wishlist").click()
    expect(side.locator(".ib-past")).to_contain_text("cancelled", timeout=SOON_MS)
    expect(card).to_have_count(0)
    expect(tab.locator(".ib-state")).to_contain_text("cancelled", timeout=SOON_MS)
    expect(page.locator("button.ib-status")).to_be_hidden()
    page.evaluate(
        "() => Promise.all([...window.jupyterapp.serviceManager.sessions.running()].map("
        "({id}) => window.jupyterapp.serviceManager.sessions.shutdown(id)))"
    )
    page.reload()
    expect(page.locator(".ib-in-tab .ib-state")).to_contain_text("cancelled", timeout=SOON_MS)
