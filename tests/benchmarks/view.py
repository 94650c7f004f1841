"""View: what listening and showing add to the engine at full speed, in CPU and in messages.

No front end is there: what the browser does with the messages is measured in the browser's own tests.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from .engine import CONCURRENCY, listed, nothing
from .measure import Case, Figures, Runs, turns
from .table import Row

ITEMS = 100_000
BATCH = 15
GOAL_PER_S = 10.0

Watch = Callable[[Any], Callable[[], int]]


def watched(watch: Watch, batch_size: int | None, n: int) -> Figures:
    """Run a session with something that listens."""
    from ipybatch import BatchSession, Limits

    limits = Limits(concurrency=CONCURRENCY, batch_size=batch_size)
    session = BatchSession("bench", nothing, listed(n), limits=limits)
    heard = watch(session)
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    summary = session.run()
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    return {"wall_s": wall_s, "cpu_s": cpu_s, "done": summary.counts.completed, "heard": heard()}


def nobody(session: Any) -> Callable[[], int]:
    """Listen not at all."""
    return lambda: 0


def listener(session: Any) -> Callable[[], int]:
    """Count events."""
    heard = 0

    def hear(event: Any) -> None:
        nonlocal heard
        heard += 1

    session.on(hear)
    return lambda: heard


def panel(session: Any) -> Callable[[], int]:
    """Show the panel, and count its messages."""
    warnings.simplefilter("ignore")  # of ipywidgets, about the kernel that is not there
    from ipybatch.jupyter.panel import Panel

    sent = 0

    class Counted(Panel):
        def send(self, *content: Any, **more: Any) -> None:
            nonlocal sent
            sent += 1
            super().send(*content, **more)

    shown = Counted(session)
    return lambda: sent if shown.panel_id else 0


WATCHES: dict[str, Watch] = {"nobody listens": nobody, "session.on(listener)": listener, "Panel": panel}
SIZES = {"": None, f", batches of {BATCH}": BATCH}
CASES: dict[str, Case] = {
    f"{name}{word}": partial(watched, watch, size) for word, size in SIZES.items() for name, watch in WATCHES.items()
}


def ask(rounds: int, scale: float) -> tuple[Runs, int]:
    """Run with and without, with and without groups."""
    n = int(ITEMS * scale)
    return turns("view", CASES, n=n, rounds=rounds), n


def check(runs: Runs, n: int) -> None:
    """Every item was run, and a listener heard of each start and end."""
    for name, of_case in runs.items():
        assert {figures["done"] for figures in of_case} == {n}
        if name.startswith("session.on"):
            assert min(figures["heard"] for figures in of_case) >= 2 * n


def rows(runs: Runs, n: int) -> list[Row]:
    """Return CPU per item, beside the run that nobody listens to, and the panel's messages a second."""
    made = []
    us = {case: [figures["cpu_s"] / n * 1e6 for figures in of_case] for case, of_case in runs.items()}
    for word in SIZES:
        base = us[f"nobody listens{word}"]
        what = f"view: CPU per item, us, {n:,} no-op items"
        for name in WATCHES:
            case = f"{name}{word}"
            made.append(Row(what=what, name=case, values=us[case], ours=() if name == "nobody listens" else base))
    for word in SIZES:
        case = f"Panel{word}"
        values = [figures["heard"] / figures["wall_s"] for figures in runs[case]]
        made.append(Row(what="view: messages a second at full speed", name=case, values=values, goal=GOAL_PER_S))
    return made
