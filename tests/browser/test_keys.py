"""Keys that are pressed in the panel stay there: the notebook around it is neither cut, nor moved, nor run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Locator

    from tests.browser.lab import Notebook

LOAD_S = 60
SESSION = """
import asyncio, os
from ipybatch import BatchSession, Limits, Rate
from ipybatch.jupyter import Panel, Sessions

async def fetch(item):
    await asyncio.sleep(0.005 if item < 90 else 3600)
    if item % 7 == 3:
        raise ValueError("404 no such game")

limits = Limits(concurrency=4, batch_size=10, rates=[Rate(1000, per_s=2)])
session = BatchSession(f"keys {os.getpid()}", fetch, range(200), limits=limits, fresh=True)
for number in range(5):
    session.note(f"note {number}")
session.start()
session
"""
CELLS = ["'before'", SESSION, "Panel(session, compact=True)", "Sessions([session])", "'after'"]
# What JupyterLab takes in command mode: cut, delete, merge, add above and below, change the type, undo, restart;
# then what moves it. On a control they may do what they do there: type, sort, scroll.
KEYS = ["x", "d", "d", "m", "Shift+m", "b", "a", "y", "z", "0", "0", "ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"]
# What there is to focus, by the tab that it is in.
CONTROLS = {
    "Batches": [
        ".ib-chip:visible",
        ".ib-filter",
        ".ib-copy",
        ".ib-head button:visible",
        ".ib-rows .ib-row[tabindex='0']",
        ".ib-entries-of",
        ".ib-details .ib-close",
    ],
    "Errors": [".ib-filter", ".ib-rows .ib-row[tabindex='0']", "button:visible"],
    "Timeline": [],
    "Limits and breaker": [".ib-gauges", ".ib-field input", ".ib-settings button:enabled"],
    "Log": [".ib-switch", ".ib-lines"],
}
STATE = """
    const cells = panel.content.widgets.map((cell) => [cell.model.type, cell.model.id, cell.model.sharedModel.source]);
    return [cells, panel.content.activeCellIndex, panel.content.mode];
"""
HOLDS_FOCUS = "node => node.closest('.ipybatch').contains(document.activeElement)"


class Watched:
    """A notebook, and all of it that a key could change."""

    def __init__(self, notebook: Notebook) -> None:
        self.notebook, self.keyboard = notebook, notebook.page.keyboard
        self.before: Any = None

    def state(self) -> Any:
        return self.notebook.call(STATE)

    def press_all(self, control: Locator) -> None:
        """Press what the notebook would act on, with the focus on `control`."""
        control.focus()
        self.before = self.state()  # the focus makes its cell the active one
        for key in KEYS:
            self.keyboard.press(key)
        self.check(str(control))
        assert control.evaluate(HOLDS_FOCUS), control

    def check(self, where: str = "") -> None:
        assert self.state() == self.before, where


def use_own_keys(watched: Watched, panel: Locator) -> None:
    """Press what the controls do act on."""
    page = panel.page
    panel.get_by_role("tab", name="Batches").click()
    page.keyboard.press("ArrowRight")
    expect(panel.get_by_role("tab", name="Errors")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    body = panel.locator(".ib-tab:not([hidden])")
    body.locator(".ib-details .ib-close").click()
    expect(body.locator(".ib-rows .ib-row:focus")).to_have_count(1)
    for key in ("Enter", "Space"):
        page.keyboard.press(key)
        expect(body.locator(".ib-details")).to_be_visible()
        page.keyboard.press("Escape")
        expect(body.locator(".ib-details")).to_be_hidden()
    panel.locator(".ib-buttons .ib-pause").focus()
    page.keyboard.press("Enter")
    expect(panel.locator(".ib-buttons .ib-resume")).to_be_focused()
    watched.check()


def walk(shown: Locator) -> None:
    """Go through a line with Tab, out of it, and back; open and close it."""
    page, walked = shown.page, []
    shown.locator(".ib-fold").focus()
    for key in ["Tab"] * 3 + ["Shift+Tab"] * 3:
        page.keyboard.press(key)
        walked.append(page.locator(":focus").get_attribute("class"))
    assert walked == ["ib-fails", "ib-resume", "ib-cancel", "ib-resume", "ib-fails", "ib-fold"]
    shown.locator(".ib-compact .ib-cancel").focus()
    page.keyboard.press("Tab")
    assert not shown.evaluate("node => node.contains(document.activeElement)")
    shown.locator(".ib-fold").focus()
    page.keyboard.press("Enter")
    expect(shown.locator(".ib-rows .ib-row").first).to_be_visible()
    page.keyboard.press("Enter")
    expect(shown.locator(".ib-compact").first).to_be_visible()


def test_no_key_leaves_a_control(open_notebook: Callable[..., Notebook]) -> None:
    """`x` on Cancel cuts no cell; each control's own keys work; Escape gives the notebook its keys back."""
    notebook = open_notebook(CELLS)
    for index in range(1, 4):
        notebook.run(index)
        notebook.wait_done(index)
    panel, line, several = [notebook.output(index).locator(".ipybatch").first for index in range(1, 4)]
    expect(panel.locator(".ib-done b")).to_have_text("90", timeout=LOAD_S * 1000)
    watched, page = Watched(notebook), notebook.page
    for control in (".ib-pause", ".ib-cancel"):
        watched.press_all(panel.locator(f".ib-buttons {control}"))
    for tab, controls in CONTROLS.items():
        panel.get_by_role("tab", name=tab).click()
        watched.press_all(panel.locator("[role=tab][aria-selected=true]"))
        body = panel.locator(".ib-tab:not([hidden])")
        for selector in controls:
            if selector == ".ib-rows .ib-row[tabindex='0']":
                body.locator(".ib-filter").fill("")
                body.locator(".ib-rows .ib-row").first.dispatch_event("click")  # it may lie below the titles
            watched.press_all(body.locator(selector).first)
    watched.press_all(panel.locator(".ib-notes"))
    expect(panel.locator(".ib-state")).to_contain_text("running")
    use_own_keys(watched, panel)

    # Out of it: the hint is seen, and Escape gives the notebook its keys back. It saves from anywhere.
    expect(panel.locator(".ib-leave:visible")).to_have_text("Esc back to the notebook")
    assert notebook.call("return panel.context.model.dirty")
    page.keyboard.press("Control+s")
    page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")
    page.keyboard.press("Escape")
    expect(notebook.cell(1)).to_be_focused()
    expect(panel.locator(".ib-leave:visible")).to_have_count(0)

    for shown, cell in ((line, 2), (several, 3)):
        for control in (".ib-fold", ".ib-fails", ".ib-resume"):
            watched.press_all(shown.locator(f"{control}:visible"))
        walk(shown)
        page.keyboard.press("Escape")
        expect(notebook.cell(cell)).to_be_focused()
    page.keyboard.press("ArrowDown")
    assert watched.state()[1] == 4
    page.keyboard.press("b")
    assert len(watched.state()[0]) == len(CELLS) + 1
