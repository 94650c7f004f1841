"""Promise 6 on every kernel and front end: a press acts whatever the kernel does, once, and interrupts no cell."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.matrix.measured import BAR_MS, Case
from tests.matrix.setups import SETUPS, Setup

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Locator

    from tests.browser.lab import Notebook

# Work that would take minutes: whoever sees it end early, stopped it.
SESSION = """
import asyncio, json, time
import ipykernel
from ipybatch import BatchSession, Limits

async def fetch(item):
    await asyncio.sleep(0.2)
    return {"item": item}

session = BatchSession("NAME", fetch, list(range(4000)), limits=Limits(concurrency=4, batch_size=10))
session.start()
print("ipykernel", ipykernel.__version__)
session
"""
FOREIGN_S = 8
DOING = {
    "idle": "",
    "`await session`": "print('begun'); summary = await session; print(summary)",
    "`session.run()`": "print('begun'); summary = session.run(); print(summary)",
    "`time.sleep` in a cell": f"print('begun'); time.sleep({FOREIGN_S}); print('whole')",
    "a Python loop in a cell": (
        f"print('begun'); end = time.time() + {FOREIGN_S}\nwhile time.time() < end: pass\nprint('whole')"
    ),
}
PRESSED = """
log = session.log()
print(json.dumps({"pressed": log.loc[log.event == "commanded", "command"].tolist()}))
"""
STATES = {"pause": "paused", "cancel": "cancelled"}
LOAD_S = 90


def press(panel: Locator, button: str) -> tuple[float, float]:
    """Press a button; return the milliseconds until the panel says something, and until it shows the state."""
    found = panel.evaluate(
        """(panel, [button, state]) => new Promise((resolve, reject) => {
            let said = 0;
            const begun = performance.now();
            const look = () => {
                const since = performance.now() - begun;
                if (!said && panel.querySelector(".ib-said").textContent) said = since;
                if (panel.querySelector(".ib-state").textContent.includes(state)) resolve([said || since, since]);
                else if (since > 20000) reject(new Error("never " + state));
                else setTimeout(look, 5);
            };
            panel.querySelector(".ib-" + button).click();
            look();
        })""",
        [button, STATES[button]],
    )
    return found[0], found[1]


def presses(doing: str, first: str) -> list[str]:
    """Return the buttons to press: after Pause also Cancel, as long as a cell of others still runs."""
    is_foreign = "cell" in doing
    return ["pause"] if first == "pause" and is_foreign else list(dict.fromkeys([first, "cancel"]))


def is_wanted(setup: Setup, doing: str) -> bool:
    """Notebook 7 shares JupyterLab's kernel connection: what differs is the page."""
    return not setup.is_notebook or doing in ("idle", "`session.run()`", "`time.sleep` in a cell")


@pytest.mark.parametrize("first", ["pause", "cancel"])
@pytest.mark.parametrize("doing", DOING)
@pytest.mark.parametrize("setup", SETUPS, ids=str)
def test_press(
    open_in: Callable[..., Notebook],
    cases: list[Case],
    setup: Setup,
    doing: str,
    first: str,
) -> None:
    if not is_wanted(setup, doing):
        pytest.skip("the same connection as in JupyterLab")
    cell = DOING[doing]
    notebook = open_in(setup, [SESSION.replace("NAME", f"{setup} {doing} {first}"), cell, PRESSED])
    if not setup.is_notebook:
        assert notebook.call("return panel.sessionContext.session.kernel.commsOverSubshells") == setup.comms
    notebook.run(0)
    panel = notebook.output(0).locator(".ipybatch")
    expect(panel.locator(".ib-state").first).to_contain_text("running", timeout=LOAD_S * 1000)
    notebook.wait_output(0, f"ipykernel {setup.ipykernel}")
    if cell:
        notebook.run(1)
        notebook.wait_output(1, "begun")
    pressed = presses(doing, first)
    for number, button in enumerate(pressed):
        said_ms, acted_ms = press(panel, button)
        words = f"{button.capitalize()}{' after Pause' if number else ''}"
        cases.append(Case(setup=str(setup), doing=doing, press=words, said_ms=said_ms, acted_ms=acted_ms))
        print(f"{setup}, {doing}, {words}: {acted_ms:.0f} ms")
    if cell:
        notebook.wait_done(1)
        notebook.wait_output(1, "whole" if "cell" in doing else "cancelled: ")
        expect(notebook.output(1)).not_to_contain_text("Error")
    notebook.run(2)
    notebook.wait_done(2)
    notebook.wait_output(2, json.dumps({"pressed": pressed}))
    assert [case.acted_ms for case in cases[-len(pressed) :] if case.acted_ms > BAR_MS] == []
