"""Estimates: what a dry run in virtual time takes."""

from __future__ import annotations

import time
from functools import partial

from .engine import nothing
from .measure import Case, Figures, Runs, turns
from .table import Row

ITEMS = 100_000
LATENCY_S = 0.2


def dry_run(arguments: str, n: int) -> Figures:
    """Estimate ``n`` items under the limits named."""
    from ipybatch import BatchSession, Limits, Rate

    limits = {
        STEAM: Limits(concurrency=3, spacing_s=1.5, batch_size=15, batch_pause_s=15, rates=[Rate(200, per_s=300)]),
        RATE: Limits(concurrency=20, rates=[Rate(100, per_s=1)]),
        NONE: Limits(concurrency=20),
    }[arguments]
    session = BatchSession("bench", nothing, iter(()), limits=limits)
    started_s = time.process_time()
    found = session.estimate(n, latency_s=LATENCY_S)
    return {"cpu_s": time.process_time() - started_s, "requests": found.requests, "seconds": found.seconds}


STEAM = "ipybatch, the Steam store's limits"
RATE = "ipybatch, 100 per 1 s"
NONE = "ipybatch, concurrency alone"
CASES: dict[str, Case] = {name: partial(dry_run, name) for name in (STEAM, RATE, NONE)}


def ask(rounds: int, scale: float) -> tuple[Runs, int]:
    """Estimate under three policies."""
    n = int(ITEMS * scale)
    return turns("estimates", CASES, n=n, rounds=rounds), n


def check(runs: Runs, n: int) -> None:
    """Each item is one request, and the same items take the same time in every run."""
    for of_case in runs.values():
        assert {figures["requests"] for figures in of_case} == {n}
        assert len({figures["seconds"] for figures in of_case}) == 1


def rows(runs: Runs, n: int) -> list[Row]:
    """Return seconds of CPU."""
    what = f"estimate(n={n:,}), CPU s"
    return [Row(what=what, name=name, values=[f["cpu_s"] for f in runs[name]]) for name in CASES]
