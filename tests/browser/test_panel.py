"""The panel in a real JupyterLab: it shows the session live, and its buttons act whatever the kernel is doing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Locator

    from tests.browser.lab import Notebook

# Work that would take minutes: whoever sees it end early, stopped it.
SESSION = """
import asyncio, itertools, time
from ipybatch import BatchSession, Limits

async def fetch(item):
    await asyncio.sleep(0.2)
    if item % 7 == 3:
        raise ValueError("<b>no such game</b>")
    return {"item": item}

session = BatchSession("panel NAME", fetch, list(range(4000)), limits=Limits(concurrency=4, batch_size=10))
session.start()
session
"""
LOAD_S = 90


def open_panel(open_notebook: Callable[..., Notebook], name: str, *cells: str) -> tuple[Notebook, Locator]:
    notebook = open_notebook([SESSION.replace("NAME", name), *cells])
    notebook.run(0)
    panel = notebook.output(0).locator(".ipybatch")
    expect(panel.locator(".ib-state")).to_contain_text("running", timeout=LOAD_S * 1000)
    return notebook, panel


def press_and_time(panel: Locator, button: str, state: str) -> float:
    """Press a button and return the milliseconds until the panel shows the state."""
    return panel.evaluate(
        """(panel, [button, state]) => new Promise((resolve, reject) => {
            const begun = performance.now();
            const look = () => {
                if (panel.querySelector(".ib-state").textContent.includes(state)) resolve(performance.now() - begun);
                else if (performance.now() - begun > 20000) reject(new Error("never " + state));
                else setTimeout(look, 5);
            };
            panel.querySelector(".ib-" + button).click();
            look();
        })""",
        [button, state],
    )


@pytest.mark.parametrize(
    ("kernel", "cell"),
    [
        ("idle", ""),
        ("await session", "summary = await session; print(summary)"),
        ("session.run()", "summary = session.run(); print(summary)"),
        ("time.sleep", "time.sleep(15); print('slept')"),
    ],
)
def test_cancel_stops_it_whatever_the_kernel_does(
    open_notebook: Callable[..., Notebook], record_property: Callable[[str, object], None], kernel: str, cell: str
) -> None:
    """Promise 6: Cancel acts while any cell runs or blocks, and interrupts no cell."""
    notebook, panel = open_panel(open_notebook, kernel, cell)
    if cell:
        notebook.run(1)
        expect(notebook.cell(1).locator(".jp-InputPrompt")).to_contain_text("*")
    took_ms = press_and_time(panel, "cancel", "cancelled")
    record_property(f"cancel while {kernel}, ms", round(took_ms))
    print(f"cancel while {kernel}: {took_ms:.0f} ms")
    if cell:
        notebook.wait_done(1)
        notebook.wait_output(1, "slept" if "sleep" in cell else f"panel {kernel} cancelled: ")
        expect(notebook.output(1)).not_to_contain_text("Error")


def test_pause_resume_and_text_from_services(open_notebook: Callable[..., Notebook]) -> None:
    """Pause holds the count, Resume goes on; an error's markup is shown as text."""
    notebook, panel = open_panel(open_notebook, "pause", "session.counts.running")
    expect(panel).to_contain_text("<b>no such game</b>", timeout=15_000)
    press_and_time(panel, "pause", "paused")
    expect(panel.locator(".ib-resume")).to_be_visible()
    notebook.run(1)
    notebook.wait_done(1)
    press_and_time(panel, "resume", "running")
    press_and_time(panel, "cancel", "cancelled")


def test_a_reloaded_page_shows_the_present_state(open_notebook: Callable[..., Notebook]) -> None:
    """A second display begins with what holds now, not with what held at the start."""
    notebook, panel = open_panel(open_notebook, "again", "session")
    press_and_time(panel, "cancel", "cancelled")
    notebook.run(1)
    second = notebook.output(1).locator(".ipybatch")
    expect(second.locator(".ib-state")).to_contain_text("cancelled", timeout=LOAD_S * 1000)
