"""A session and its panel outlive pages and kernels; nobody is sent what nobody sees."""

from __future__ import annotations

import contextlib
import json
import re
import time
from typing import TYPE_CHECKING

from playwright.sync_api import Error, expect

from tests.browser.lab import CHROMIUM_ARGS, Notebook
from tools.chromium import ensure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Browser, Locator

    from tests.browser.lab import Lab

# Work that would take minutes: it still runs when the page is back.
SESSION = """
import asyncio
from ipybatch import BatchSession, Limits

async def fetch(item):
    await asyncio.sleep(0.1)
    return item

session = BatchSession("NAME", fetch, list(range(8000)), limits=Limits(concurrency=4))
session.start()
session
"""
COUNTED = """
import asyncio, collections
import ipybatch.jupyter.pages
from ipybatch import BatchSession
from ipybatch.jupyter import Panel

ipybatch.jupyter.pages.HELLO_S = 0.2  # seconds after this cell: who has not shown it by then, does not
sent = collections.Counter()

async def fetch(item):
    await asyncio.sleep(0.001)

session = BatchSession("NAME", fetch, list(range(2000)))
panel = Panel(session)
send = panel.comm.send

def count(data=None, **rest):
    sent[data["method"]] += 1
    send(data, **rest)

panel.comm.send = count
"""
# The publisher's turn after the end is not awaited.
RUN = "sent.clear(); summary = await session; await asyncio.sleep(1); print(summary, dict(sent))"
LOAD_S = 90


# Once the test says that the page is dead: how the kernel learns of it, and what is sent then.
FORGETTING = """
import json, pathlib, threading, time
import ipybatch.jupyter.pages as pages
place = pathlib.Path("PLACE")

def watch():
    while not any(page.always for page in panel._pages._pages.values()):
        time.sleep(0.02)
    (place / "heard").write_text("past its cells")
    while not (place / "dead").exists():
        time.sleep(0.02)
    pages.FORGET_S = 0.5
    while panel.is_open:
        time.sleep(0.02)
    time.sleep(0.1)  # a round of the publisher's that had begun
    before = sent["custom"]
    time.sleep(2)
    (place / "sent").write_text(json.dumps([before, sent["custom"], session.state]))

session.start()
threading.Thread(target=watch, daemon=True).start()
time.sleep(60)
"""
GONE = re.compile(r"kernel gone, last heard \d\d:\d\d:\d\d")


def panel_in(notebook: Notebook, index: int, state: str) -> Locator:
    panel = notebook.output(index).locator(".ipybatch")
    expect(panel.locator(".ib-state").first).to_contain_text(state, timeout=LOAD_S * 1000)
    return panel


def wait_for(file: Path) -> str:
    """Wait until the kernel has written a file, and return its text."""
    deadline_s = time.monotonic() + 30
    while not (file.exists() and file.read_text()) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return file.read_text()


def wait_news(panel: Locator) -> None:
    """Wait until the panel shows something else than now."""
    before = panel.inner_text()
    expect(panel).not_to_have_text(before, use_inner_text=True, timeout=10_000)


def test_a_reloaded_page_shows_the_present_and_goes_on(open_notebook: Callable[..., Notebook]) -> None:
    notebook = open_notebook([SESSION.replace("NAME", "reloaded"), "print(session.counts.completed > 0)"])
    notebook.run(0)
    panel_in(notebook, 0, "running")
    notebook.reload()
    panel = panel_in(notebook, 0, "running")
    wait_news(panel)
    panel.locator(".ib-cancel").click()
    expect(panel.locator(".ib-state").first).to_contain_text("cancelled")
    notebook.run(1)
    notebook.wait_output(1, "True")


def test_two_tabs_show_the_same_and_one_may_close(open_notebook: Callable[..., Notebook]) -> None:
    """Cancel in one shows in the other; the session is still there when the first is closed."""
    notebook = open_notebook([SESSION.replace("NAME", "two tabs"), "print(session.state)"])
    notebook.run(0)
    first = panel_in(notebook, 0, "running")
    other = notebook.show_in(notebook.page.context.new_page())
    second = panel_in(other, 0, "running")
    wait_news(second)
    first.locator(".ib-cancel").click()
    expect(second.locator(".ib-state").first).to_contain_text("cancelled")
    notebook.page.close()
    second.locator(".ib-resume").click()
    expect(second.locator(".ib-state").first).to_contain_text("running")
    second.locator(".ib-cancel").click()
    expect(second.locator(".ib-state").first).to_contain_text("cancelled")
    other.run(1)
    other.wait_output(1, "cancelled")


def test_a_browser_that_is_killed_ends_nothing(open_notebook: Callable[..., Notebook], browser: Browser) -> None:
    """Another one finds the notebook, its kernel, and the session that ran on meanwhile."""
    notebook = open_notebook([SESSION.replace("NAME", "abandoned"), "print(session.state); session.cancel()"])
    killed = browser.browser_type.launch(executable_path=ensure(), args=list(CHROMIUM_ARGS))
    first = notebook.show_in(killed.new_page())
    first.run(0)
    wait_news(panel_in(first, 0, "running"))
    with contextlib.suppress(Error):  # nobody is left to answer
        killed.new_browser_cdp_session().send("Browser.crash")
    second = notebook.show_in(notebook.page.context.new_page())
    assert not killed.is_connected()
    second.run(1)
    second.wait_output(1, "running")


def test_a_page_that_is_killed_costs_nothing_soon(lab: Lab, browser: Browser, tmp_path: Path) -> None:
    """It says no Bye, and a cell keeps the kernel from hearing anything by the first road."""
    killed = browser.browser_type.launch(executable_path=ensure(), args=list(CHROMIUM_ARGS))
    counted = COUNTED.replace("NAME", "killed").replace("0.001", "0.5").replace("2000", "8000") + "panel"
    cells = [counted, FORGETTING.replace("PLACE", str(tmp_path))]
    notebook = Notebook(killed.new_page(), lab, tmp_path.name, cells)
    notebook.run(0)
    panel = panel_in(notebook, 0, "planned")
    notebook.run(1)
    wait_news(panel)
    wait_for(tmp_path / "heard")
    with contextlib.suppress(Error):
        killed.new_browser_cdp_session().send("Browser.crash")
    (tmp_path / "dead").touch()
    before, after, state = json.loads(wait_for(tmp_path / "sent"))
    assert state == "running"
    assert before == after


def test_after_a_kernel_restart_open_shows_what_is_recorded(open_notebook: Callable[..., Notebook]) -> None:
    opened = "from ipybatch import BatchSession; session = BatchSession.open('restarted'); session"
    notebook = open_notebook(
        [
            SESSION.replace("NAME", "restarted"),
            "print(done := session.counts.completed, 'recorded')",
            opened,
            "print('recorded', session.counts.completed)",
        ]
    )
    notebook.run(0)
    wait_news(panel_in(notebook, 0, "running"))
    notebook.run(1)
    known = int(notebook.wait_output(1, "recorded").inner_text().split()[0])
    notebook.restart_kernel()
    left = notebook.output(0).locator(".ipybatch")
    expect(left.locator(".ib-state").first).to_contain_text(GONE)
    expect(left.locator(".ib-cancel")).to_be_hidden()
    expect(left.locator(".ib-reopen")).to_have_text("BatchSession.open('restarted')")
    shown = left.inner_text()
    notebook.run(2)
    panel = notebook.output(2).locator(".ipybatch")
    expect(panel).to_contain_text("restarted", timeout=LOAD_S * 1000)
    notebook.run(3)
    recorded = int(notebook.wait_output(3, "recorded").inner_text().split()[1])
    assert recorded >= known > 0
    expect(panel).to_contain_text(f"{recorded:,}")
    assert left.inner_text() == shown, "its clocks stand"


def test_a_panel_that_was_never_shown_is_sent_nothing(open_notebook: Callable[..., Notebook]) -> None:
    """The final state is left for a page that opens later: one message."""
    counted = COUNTED.replace("NAME", "unseen").replace("HELLO_S = 0.2", "HELLO_S = 0.0")
    notebook = open_notebook([counted, "await asyncio.sleep(0.5); sent.clear()", RUN, "panel"])
    for cell in range(3):
        notebook.run(cell)
        notebook.wait_done(cell, LOAD_S)
    notebook.wait_output(2, "2000/2000 successful, 0 failed, 0 skipped {'update': 1}")
    notebook.run(3)
    panel_in(notebook, 3, "completed")


def test_a_panel_whose_output_was_cleared_is_sent_nothing_more(open_notebook: Callable[..., Notebook]) -> None:
    notebook = open_notebook([COUNTED.replace("NAME", "cleared") + "panel", "print(dict(sent))", RUN])
    notebook.run(0)
    panel_in(notebook, 0, "planned")
    notebook.run(1)
    notebook.wait_output(1, "custom")
    notebook.call("panel.content.activeCellIndex = 0; await app.commands.execute('notebook:clear-cell-output')")
    expect(notebook.output(0).locator(".ipybatch")).to_have_count(0)
    notebook.run(2)
    notebook.wait_output(2, "2000/2000 successful, 0 failed, 0 skipped {'update': 1}")


def test_the_panel_keeps_its_tab_at_the_end(open_notebook: Callable[..., Notebook]) -> None:
    """The kernel has the output drawn anew then, for the saved notebook; who looks at the panel notices nothing."""
    notebook = open_notebook([SESSION.replace("NAME", "tabs")])
    notebook.run(0)
    panel = panel_in(notebook, 0, "running")
    panel.get_by_role("tab", name="Log").click()
    panel.locator(".ib-cancel").click()
    expect(panel.locator(".ib-log")).to_contain_text("Cancelled")
    expect(panel.locator(".ib-resume")).to_be_visible()
    wait_drawn_anew = "() => document.querySelectorAll('.jp-OutputArea-output .ipybatch').length === 1"
    notebook.page.wait_for_function(wait_drawn_anew)
    expect(panel.get_by_role("tab", name="Log")).to_have_attribute("aria-selected", "true")
    expect(panel).to_have_count(1)
