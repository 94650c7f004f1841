"""Resume: from making a session whose items are all recorded to its summary, in a fresh process."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path

from .engine import CONCURRENCY, drawn, listed
from .measure import Case, Figures, Runs, turns
from .table import Row

ITEMS = 100_000
GOAL_S = 0.3
RECORDED = "BENCH_RECORDED"  # the folder of a journal that has all items

calls = 0


async def work(item: int) -> dict[str, int]:
    """Count the call."""
    global calls
    calls += 1
    return {"double": 2 * item}


def record(n: int) -> Figures:
    """Record all items, from a list."""
    _run(listed, n)
    with (  # a plain copy may meet a checkpoint half-way
        closing(sqlite3.connect(os.environ["IPYBATCH_JOURNAL"])) as journal,
        closing(sqlite3.connect(Path(os.environ[RECORDED], "journal.db"))) as copy,
    ):
        journal.backup(copy)
    return {"done": n}


def resume(draw: Callable[[int], Iterable[int]], n: int) -> Figures:
    """Go on where all is done."""
    shutil.copytree(os.environ[RECORDED], os.environ["BENCH_FOLDER"], dirs_exist_ok=True)
    import ipybatch  # noqa: F401  # its import has a question of its own

    return _run(draw, n)


def _run(draw: Callable[[int], Iterable[int]], n: int) -> Figures:
    from ipybatch import BatchSession, Limits

    items = draw(n)
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    summary = BatchSession("bench", work, items, limits=Limits(concurrency=CONCURRENCY)).run()
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    return {"wall_s": wall_s, "cpu_s": cpu_s, "done": summary.counts.completed, "calls": calls}


RESUMED = {"ipybatch, list": listed, "ipybatch, generator": drawn}
CASES: dict[str, Case] = {"record": record, **{name: partial(resume, draw) for name, draw in RESUMED.items()}}


def ask(rounds: int, scale: float) -> tuple[Runs, int]:
    """Record once, resume often."""
    n = int(ITEMS * scale)
    with tempfile.TemporaryDirectory(prefix="ipybatch-recorded-") as folder:
        os.environ[RECORDED] = str(Path(folder))
        turns("resume", ["record"], n=n, rounds=1)
        return turns("resume", RESUMED, n=n, rounds=rounds), n


def check(runs: Runs, n: int) -> None:
    """All items count as completed, and none was run again."""
    assert {(figures["done"], figures["calls"]) for of_case in runs.values() for figures in of_case} == {(n, 0)}


def rows(runs: Runs, n: int) -> list[Row]:
    """Return seconds on the clock and of CPU."""
    return [
        Row(what=f"resume of {n:,} recorded items, {word}", name=name, values=[f[unit] for f in runs[name]], goal=goal)
        for word, unit, goal in (("s", "wall_s", GOAL_S), ("CPU s", "cpu_s", None))
        for name in RESUMED
    ]
