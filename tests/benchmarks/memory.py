"""Memory: the most that was resident at any time, over the process with the package imported and idle."""

from __future__ import annotations

import asyncio
import resource
import sys
from pathlib import Path

import psutil

from .engine import CONCURRENCY, drawn, nothing, ours, peer, task_group
from .measure import Case, Figures, Runs, turns
from .table import Row

ITEMS = 1_000_000
PEER_SHARE = 5  # a task per item: a fifth of the items is enough to tell, and fits into small machines
MB = 1024 * 1024
GOAL_MB = 50.0


def session(n: int) -> Figures:
    """Draw items from a generator."""
    import ipybatch  # noqa: F401  # what is measured against

    idle = psutil.Process().memory_info().rss
    done = ours(nothing, drawn, n)["done"]
    return {"mb": (peak() - idle) / MB, "done": done}


def tasks(n: int) -> Figures:
    """Make a task per item."""
    asyncio.run(asyncio.sleep(0))
    idle = psutil.Process().memory_info().rss
    done = peer(task_group, nothing, n // PEER_SHARE)["done"]
    return {"mb": (peak() - idle) / MB * PEER_SHARE, "done": done * PEER_SHARE}


def peak() -> float:
    """Return the most bytes that were resident at any time.

    Linux: of this program, where getrusage would count what the parent had before exec as well.
    """
    status = Path("/proc/self/status")
    if status.exists():
        high = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return float(high.split()[1]) * 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


OURS, PEER = "ipybatch, generator", "TaskGroup + Semaphore"
CASES: dict[str, Case] = {OURS: session, PEER: tasks}


def ask(rounds: int, scale: float) -> tuple[Runs, int]:
    """Run both; return their figures and the number of items."""
    n = int(ITEMS * scale)
    return turns("memory", CASES, n=n, rounds=rounds), n


def check(runs: Runs, n: int) -> None:
    """Every run did every item."""
    assert {figures["done"] for of_case in runs.values() for figures in of_case} == {n}


def rows(runs: Runs, n: int) -> list[Row]:
    """Return MB over idle."""
    mb = {case: [figures["mb"] for figures in of_case] for case, of_case in runs.items()}
    what = f"resident MB over an idle import, {n:,} items, {CONCURRENCY} at a time"
    note = f"measured at {n // PEER_SHARE:,}, times {PEER_SHARE}"
    return [
        Row(what=what, name=OURS, values=mb[OURS], goal=GOAL_MB),
        Row(what=what, name=PEER, values=mb[PEER], ours=mb[OURS], note=note),
    ]
