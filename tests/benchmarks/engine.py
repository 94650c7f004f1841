"""Engine: CPU per item, with journal and events on and each slot waiting for its commit.

From the first call to the result of the last item, all threads counted.  The peers record nothing, and each does
a part of the work only: aiometer bounds concurrency, tenacity retries, aiolimiter paces.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import Any

from .measure import Case, Figures, Runs, turns
from .table import Row

ITEMS = 100_000
CONCURRENCY = 20
GOALS_US = {"no-op": 25.0, "yields": 40.0}

Work = Callable[[int], Coroutine[Any, Any, None]]


async def nothing(item: int) -> None:
    """Do nothing."""


async def yielding(item: int) -> None:
    """Give the loop one turn, as work that waits for anything does."""
    await asyncio.sleep(0)


async def answering(item: int) -> dict[str, Any]:
    """Return what a small record looks like."""
    return {"name": f"Game {item}", "price": 9.99, "tags": ["one", "two"]}


WORKS: dict[str, Work] = {"no-op": nothing, "yields": yielding}


def ours(work: Callable[[int], Any], draw: Callable[[int], Iterable[int]], n: int) -> Figures:
    """Run a whole session, its making included."""
    from ipybatch import BatchSession, Limits

    items = draw(n)
    started_s = time.process_time()
    session = BatchSession("bench", work, items, limits=Limits(concurrency=CONCURRENCY))
    summary = session.run()
    return {"cpu_s": time.process_time() - started_s, "done": summary.counts.completed}


def drawn(n: int) -> Iterable[int]:
    """Return a generator, which has no length and is drawn once."""
    return (item for item in range(n))


def listed(n: int) -> Iterable[int]:
    """Return a list."""
    return list(range(n))


def peer(run: Callable[[Work, int], Awaitable[None]], work: Work, n: int) -> Figures:
    """Run a peer in a loop of its own; it counts what it did."""
    done = 0

    async def counted(item: int) -> None:
        nonlocal done
        await work(item)
        done += 1

    asyncio.run(run(work, 0))  # its imports, which ours has behind it as well
    started_s = time.process_time()
    asyncio.run(run(counted, n))
    return {"cpu_s": time.process_time() - started_s, "done": done}


async def plain(work: Work, n: int) -> None:
    """Await one after the other: the floor."""
    for item in range(n):
        await work(item)


async def task_group(work: Work, n: int) -> None:
    """Start a task per item, behind a semaphore."""
    free = asyncio.Semaphore(CONCURRENCY)

    async def bounded(item: int) -> None:
        async with free:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for item in range(n):
            group.create_task(bounded(item))


async def with_aiometer(work: Work, n: int) -> None:
    """Let aiometer bound the concurrency."""
    import aiometer

    await aiometer.run_on_each(work, list(range(n)), max_at_once=CONCURRENCY)


async def with_tenacity(work: Work, n: int) -> None:
    """Wrap the work into tenacity's retry, one after the other."""
    import tenacity

    retried = tenacity.retry(stop=tenacity.stop_after_attempt(3))(work)
    for item in range(n):
        await retried(item)


async def with_aiolimiter(work: Work, n: int) -> None:
    """Acquire a limiter that never makes anyone wait, one after the other."""
    from aiolimiter import AsyncLimiter

    limiter = AsyncLimiter(1e12, 1)
    for item in range(n):
        async with limiter:
            await work(item)


OURS: dict[str, Callable[[int], Iterable[int]]] = {"ipybatch, list": listed, "ipybatch, generator": drawn}
PEERS: dict[str, Callable[[Work, int], Awaitable[None]]] = {
    "aiometer": with_aiometer,
    "TaskGroup + Semaphore": task_group,
    "tenacity": with_tenacity,
    "aiolimiter": with_aiolimiter,
    "plain await": plain,
}
NOTES = {
    "aiometer": "no journal, no retry",
    "TaskGroup + Semaphore": "no journal, no retry",
    "tenacity": "retry alone",
    "aiolimiter": "one acquire alone",
    "plain await": "the floor",
}
RECORD = "ipybatch, list, a record of 3 fields as result"

CASES: dict[str, Case] = {
    **{f"{name}: {word}": partial(ours, work, draw) for word, work in WORKS.items() for name, draw in OURS.items()},
    RECORD: partial(ours, answering, listed),
    **{f"{name}: {word}": partial(peer, run, work) for word, work in WORKS.items() for name, run in PEERS.items()},
}


def ask(rounds: int, scale: float) -> tuple[Runs, int]:
    """Run all cases; return their figures and the number of items."""
    n = int(ITEMS * scale)
    return turns("engine", CASES, n=n, rounds=rounds), n


def check(runs: Runs, n: int) -> None:
    """Every run did every item."""
    assert {figures["done"] for of_case in runs.values() for figures in of_case} == {n}


def rows(runs: Runs, n: int) -> list[Row]:
    """Return microseconds of CPU per item."""
    us = {case: [figures["cpu_s"] / n * 1e6 for figures in of_case] for case, of_case in runs.items()}
    made = []
    for word in WORKS:
        what = f"CPU per item, us, {n:,} items, {CONCURRENCY} at a time, {word}"
        made += [Row(what=what, name=name, values=us[f"{name}: {word}"], goal=GOALS_US[word]) for name in OURS]
        if word == "no-op":
            made.append(Row(what=what, name=RECORD, values=us[RECORD]))
        base = us[f"ipybatch, list: {word}"]
        made += [Row(what=what, name=name, values=us[f"{name}: {word}"], ours=base, note=NOTES[name]) for name in PEERS]
    return made
