"""Browser: what a view costs, in a real JupyterLab and a real Chromium, while the engine runs as fast as it can.

    kernel     CPU of all threads but the engine's and the journal's, less what it is with no view, beside theirs
    websocket  messages and bytes that the page receives
    page       from the kernel's clock in an update to the first paint after it; the longest frame

Shown are 10,000 groups of 100 items.  tqdm.notebook shows one bar; a widget for each row shows the first groups only:
with all of them the page does not come back.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .measure import Case, Figures, Runs, turns
from .table import Row

ITEMS = 1_000_000
GROUP = 100
ROWS = 200  # of the panel with a widget for each row
GOAL_PER_S = 10
GOAL_MS = 50
GOAL_SHARE = 2
LIMIT_S = 300

SETUP = """
import json, os, threading, time, warnings
from ipybatch import BatchSession, Limits
from ipybatch.engine.data import events

async def work(item):
    return None

session = BatchSession("bench", work, range(ITEMS), limits=Limits(concurrency=20, batch_size=GROUP))

def cpu_s():
    ours, others = 0.0, 0.0
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/stat") as file:
            used = sum(map(int, file.read().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")
        if names.get(int(task), "") in ("ipybatch-engine", "ipybatch-journal"):
            ours += used
        else:
            others += used
    return ours, others

def measured(start):
    begun_s, before = time.time(), cpu_s()
    start()
    after, wall_s = cpu_s(), time.time() - begun_s
    print(json.dumps({"engine_s": after[0] - before[0], "view_s": after[1] - before[1], "wall_s": wall_s}))
"""
OURS = "ipybatch, Panel"
VIEWS = {
    "nothing": "",
    OURS: "session",
    "tqdm.notebook": """
from tqdm.notebook import tqdm
bar = tqdm(total=ITEMS)
session.on_outcomes(lambda outcomes: bar.update(len(outcomes)))
""",
    "a widget for each row": """
from ipywidgets import HBox, IntProgress, Label, VBox
rows = {number: HBox([Label(f"Batch {number}"), IntProgress(max=GROUP), Label("")]) for number in range(1, ROWS + 1)}
def hear(event):
    row = rows.get(getattr(event, "group", 0))
    if row is not None and isinstance(event, events.ItemEnded):
        row.children[1].value += 1
    elif row is not None and isinstance(event, events.GroupEnded):
        row.children[2].value = event.status
session.on(hear)
VBox(list(rows.values()))
""",
}
RUN = "measured(session.run)"

# Looks at what comes through the websocket, and at the paints after it.
WATCH = """
window.seen = {messages: 0, bytes: 0, updates: 0, paints: [], frame: 0, long: 0, on: false};
const decoder = new TextDecoder();
let sent = 0, waits = false;
const Socket = window.WebSocket;
window.WebSocket = class extends Socket {
  constructor(...given) {
    super(...given);
    this.addEventListener("message", ({data}) => {
      if (!seen.on) return;
      const text = typeof data === "string" ? data : decoder.decode(data);
      seen.messages += /"comm_msg"|"update_display_data"|"stream"/.test(text);
      seen.bytes += text.length;
      const at = /"head": ?{"at_s": ?([0-9.]+)/.exec(text);
      if (at) { sent = Number(at[1]); waits = true; seen.updates += 1; }
    });
  }
};
const painted = new MessageChannel();
painted.port1.onmessage = () => { seen.paints.push(Date.now() - sent * 1000); };
const isOurs = ({target}) => (target.nodeType === 1 ? target : target.parentElement)?.closest(".ipybatch");
new MutationObserver((changes) => {
  if (!waits || !changes.some(isOurs)) return;
  waits = false;
  requestAnimationFrame(() => painted.port2.postMessage(0));
}).observe(document, {subtree: true, childList: true, characterData: true, attributes: true});
let before = 0;
const tick = (now) => {
  if (seen.on && before) seen.frame = Math.max(seen.frame, now - before);
  before = now;
  requestAnimationFrame(tick);
};
requestAnimationFrame(tick);
new PerformanceObserver((list) => {
  for (const task of list.getEntries()) if (seen.on) seen.long = Math.max(seen.long, task.duration);
}).observe({entryTypes: ["longtask"]});
"""


def shown(view: str, n: int) -> Figures:
    """Run a session in a cell under a view, and return what kernel and page measured."""
    from playwright.sync_api import sync_playwright

    from tests.browser.lab import CHROMIUM_ARGS, Lab, Notebook
    from tools.chromium import ensure

    numbers = f"ITEMS, GROUP, ROWS = {n}, {GROUP}, {ROWS}\n"
    with tempfile.TemporaryDirectory(prefix="ipybatch-lab-") as folder, sync_playwright() as playwright:
        lab = Lab.start(Path(folder))
        chromium = playwright.chromium.launch(executable_path=ensure(), args=list(CHROMIUM_ARGS))
        try:
            page = chromium.new_context(viewport={"width": 1280, "height": 900}).new_page()
            page.add_init_script(f"if (window === window.top) {{ {WATCH} }}")
            notebook = Notebook(page, lab, "bench", [numbers + SETUP, VIEWS[view], RUN])
            for cell in (0, 1):
                notebook.run(cell)
                notebook.wait_done(cell)
            page.wait_for_timeout(3000)  # what is shown first is not what is measured
            page.evaluate("() => { seen.on = true }")
            notebook.run(2)
            notebook.wait_done(2, LIMIT_S)
            seen: dict[str, Any] = page.evaluate("() => seen")
            said = notebook.wait_output(2, "engine_s").inner_text().splitlines()  # warnings of other libraries too
            kernel = json.loads(next(line for line in said if "engine_s" in line))
        finally:
            chromium.close()
            lab.stop()
    return _figures(seen, kernel)


def _figures(seen: dict[str, Any], kernel: Figures) -> Figures:
    paints = sorted(seen["paints"])
    return {
        **kernel,
        "messages": seen["messages"],
        "updates": seen["updates"],
        "bytes": seen["bytes"],
        "paint_ms": paints[int(len(paints) * 0.95)] if paints else float("nan"),
        "frame_ms": seen["frame"],
        "long_ms": seen["long"],
    }


CASES: dict[str, Case] = {view: partial(shown, view) for view in VIEWS}


def ask(rounds: int, scale: float) -> tuple[Runs, int]:
    """Run under each view."""
    n = int(ITEMS * scale)
    return turns("browser", CASES, n=n, rounds=rounds), n


def check(runs: Runs, n: int) -> None:
    """The panel was shown throughout."""
    assert all(figures["updates"] >= figures["wall_s"] for figures in runs[OURS])


def rows(runs: Runs, n: int) -> list[Row]:
    """Return messages, bytes, the kernel's CPU for the view, paints and frames."""
    idle_s = statistics.median(figures["view_s"] for figures in runs["nothing"])
    what = f"browser, {n:,} items in {n // GROUP:,} groups: "
    asked: list[tuple[str, Callable[[Figures], float], float | None]] = [
        ("messages a second", lambda f: f["messages"] / f["wall_s"], GOAL_PER_S),
        ("KB a second", lambda f: f["bytes"] / f["wall_s"] / 1e3, None),
        ("kernel CPU, % of the engine's", lambda f: 100 * max(0.0, f["view_s"] - idle_s) / f["engine_s"], GOAL_SHARE),
        ("sent to paint, ms, 95th percentile", lambda f: f["paint_ms"], GOAL_MS),
        ("longest frame, ms", lambda f: f["frame_ms"], GOAL_MS),
        ("longest task, ms", lambda f: f["long_ms"], None),
    ]
    made = []
    for word, figure, goal in asked:
        for view, of_view in runs.items():
            values = [figure(figures) for figures in of_view]
            if not any(map(math.isnan, values)):  # only our updates say when they were sent
                made.append(Row(what=what + word, name=view, values=values, goal=goal if view == OURS else None))
    return made
