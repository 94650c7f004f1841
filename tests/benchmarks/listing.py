"""Listing: `ipybatch.history()` of a journal with many sessions, some of them left by processes that died."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from .measure import Case, Figures, Runs, turns
from .table import Row

SESSIONS = 1_000
GOAL_S = 0.05
LOOKS = 15

_LISTED = b"x" * 80_000  # every tenth came from a generator that gave 10,000 items in another order
_INSERT = (
    "INSERT INTO run (name, resource, group_word, state, created_s, started_s, seconds, total, completed, owner,"
    " beat_s, listing) VALUES (?, 'r', 'Batch', ?, ?, ?, 3.0, 100, 100, ?, ?, ?)"
)


def _look(everywhere: bool, n: int) -> Figures:
    """Look often; the first look loads pandas and is not counted."""
    import ipybatch
    from ipybatch.engine.store.journal import open_journal

    states = [("running", "elsewhere/1/dead"), ("completed", None)]
    values = [
        (f"night {at}", states[at % 2][0], at, at, states[at % 2][1], at + 3, b"" if at % 10 else _LISTED)
        for at in range(n)
    ]
    journal = open_journal()
    journal.write(lambda database: database.executemany(_INSERT, values).rowcount)
    seconds = []
    for _ in range(LOOKS):
        began_s = time.perf_counter()
        frame = ipybatch.history(Path(journal.path), everywhere=everywhere)
        seconds.append(time.perf_counter() - began_s)
    told = frame[frame["name"].str.startswith("night ")]
    interrupted = int((told["state"] == "interrupted").sum())
    return {"wall_s": statistics.median(seconds[1:]), "rows": len(told), "interrupted": interrupted}


CASES: dict[str, Case] = {
    "history()": lambda n: _look(False, n),
    "history(everywhere=True)": lambda n: _look(True, n),
}


def ask(rounds: int, scale: float) -> tuple[Runs, int]:
    """Look at a journal of each process's own."""
    n = int(SESSIONS * scale)
    return turns("listing", CASES, n=n, rounds=rounds), n


def check(runs: Runs, n: int) -> None:
    """All sessions are listed, and the dead ones are told."""
    assert {(f["rows"], f["interrupted"]) for of_case in runs.values() for f in of_case} == {(n, (n + 1) // 2)}


def rows(runs: Runs, n: int) -> list[Row]:
    """Return seconds on the clock."""
    what = f"{n:,} sessions listed, s"
    return [Row(what=what, name=name, values=[f["wall_s"] for f in runs[name]], goal=GOAL_S) for name in CASES]
