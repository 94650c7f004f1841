"""Rate: the share of the allowed rate that is used, the worst window as the server sees it, and what it costs.

Beside the peers over real HTTP, see `rate_server`; and Battle.net's two windows in virtual time, where hours take
seconds:

    100 in any second     the last of 72,000 requests cannot come before 36,000 of them have come at 100 a second,
    36,000 in any hour    and an hour after the 36,000th: 359 x (1 s + latency) + 3,600 s + latency
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from . import rate_peers as peers
from .measure import Case, Figures, Runs, turns
from .rate_server import CONCURRENCY, LIMIT, PER_S, Fetch, judged, serving
from .table import Row

if TYPE_CHECKING:
    from ipybatch import Limits

REQUESTS = 2300  # 20 s after the warm-up
HOURLY, PER_HOUR_S = 36_000, 3600.0
ITEMS = 2 * HOURLY
GOAL_PERCENT = 99.0


def ours(limits: Callable[[], Limits], n: int) -> Figures:
    """Run a session against the server."""
    from ipybatch import BatchSession

    with serving() as server:
        fetch, chosen = Fetch(server.port), limits()
        started_s = time.process_time()
        summary = BatchSession("bench", fetch, range(n), limits=chosen).run()
        cpu_s = time.process_time() - started_s
        return judged(server.arrivals(), fetch.latencies_s, summary.counts.completed, cpu_s)


def exact() -> Limits:
    """Return our own limit."""
    from ipybatch import Limits, Rate

    return Limits(concurrency=CONCURRENCY, rates=[Rate(LIMIT, per_s=PER_S)])


def both() -> Limits:
    """Return the two windows of Battle.net."""
    from ipybatch import Limits, Rate

    return Limits(concurrency=CONCURRENCY, rates=[Rate(LIMIT, per_s=PER_S), Rate(HOURLY, per_s=PER_HOUR_S)])


def defaults() -> Limits:
    """Return what `BattleNet` comes with: both windows, and 10 ms between two starts."""
    from ipybatch.library import BattleNet

    return BattleNet("simulated-id", "simulated-secret").defaults().limits


def plugged() -> Limits:
    """Return the peer's limiter as a plug, without a limit of ours."""
    from aiolimiter import AsyncLimiter

    from ipybatch import Limits

    return Limits(concurrency=CONCURRENCY, also=[AsyncLimiter(LIMIT, PER_S)])


def hours(n: int) -> Figures:
    """Run what takes more than an hour, in virtual time; a simulator's own record counts it."""
    from ipybatch import BatchSession
    from ipybatch.simulators.service import Traffic
    from ipybatch.testing import VirtualClock

    clock, chance = VirtualClock(), random.Random(7)
    traffic = Traffic([(LIMIT, PER_S), (HOURLY, PER_HOUR_S)])
    refused, latencies_s = 0, []

    async def work(item: int) -> None:
        nonlocal refused
        latency_s = chance.uniform(0.001, 0.020)
        way_in_s = latency_s * chance.random()
        await asyncio.sleep(way_in_s)
        traffic.arrive(clock.now_s())
        refused += traffic.judge(clock.now_s()) != 200
        await asyncio.sleep(latency_s - way_in_s)
        latencies_s.append(latency_s)

    started_s = time.process_time()
    summary = clock.run(BatchSession("bench", work, range(n), limits=both(), clock=clock))
    cpu_s = time.process_time() - started_s
    latency_s = statistics.fmean(latencies_s)
    soonest_s = (HOURLY // LIMIT - 1) * (PER_S + latency_s) + PER_HOUR_S + latency_s
    return {
        "percent": 100 * soonest_s / (traffic.arrivals[-1] - traffic.arrivals[0]),
        "hours": clock.now_s() / 3600,
        "cpu_s": cpu_s,
        "worst": traffic.worst(PER_S),
        "worst_hour": traffic.worst(PER_HOUR_S),
        "over": refused,
        "done": summary.counts.completed,
        "arrived": len(traffic.arrivals),
    }


EXACT, BOTH, DEFAULTS = "ipybatch, Rate", "ipybatch, also 36,000 an hour", "ipybatch, BattleNet's defaults"
PLUG, HOURS = "ipybatch, also=[AsyncLimiter]", "ipybatch, virtual time"
LIMITS = {EXACT: exact, BOTH: both, DEFAULTS: defaults, PLUG: plugged}
HELD = (EXACT, BOTH, DEFAULTS, HOURS)  # where every window is ours to hold
NOTES = dict.fromkeys(LIMITS, "journal on") | dict.fromkeys(peers.CASES, "keeps nothing")
CASES: dict[str, Case] = {name: partial(ours, limits) for name, limits in LIMITS.items()} | peers.CASES | {HOURS: hours}


def ask(rounds: int, scale: float) -> tuple[Runs, int]:
    """Run all that can be run; the number of requests is not scaled, a rate needs its windows."""
    runs = turns("rate", [*LIMITS, *peers.found()], n=REQUESTS, rounds=rounds)
    return runs | turns("rate", [HOURS], n=ITEMS, rounds=rounds), REQUESTS


def check(runs: Runs, n: int) -> None:
    """Every request arrived once, and our limits held in every window."""
    for name, of_case in runs.items():
        wanted = ITEMS if name == HOURS else n
        assert {(figures["done"], figures["arrived"]) for figures in of_case} == {(wanted, wanted)}
    assert [figures["over"] for name in HELD for figures in runs[name]] == [0] * len(HELD) * len(runs[EXACT])


def rows(runs: Runs, n: int) -> list[Row]:
    """Return the share of the rate, the worst windows and the CPU; then the same of the hours."""
    live = [name for name in runs if name != HOURS]
    share = f"% of {LIMIT} / ({PER_S:g} s + latency) used, HTTP, 1-20 ms, {CONCURRENCY} at a time"
    worst = f"requests in the worst {PER_S:g} s at the server, {LIMIT} allowed"
    cpu = "CPU s of the client, 1,000 requests"
    percent, seen = of(runs, "percent"), of(runs, "worst")
    cost = {name: [cpu_s / n * 1000 for cpu_s in values] for name, values in of(runs, "cpu_s").items()}
    goals = {name: (GOAL_PERCENT, float(LIMIT)) for name in (EXACT, BOTH)} | {DEFAULTS: (None, float(LIMIT))}
    none = (None, None)
    return [
        *(Row(what=share, name=name, values=percent[name], goal=goals.get(name, none)[0], least=True) for name in live),
        *(Row(what=worst, name=name, values=seen[name], goal=goals.get(name, none)[1]) for name in live),
        *(
            Row(what=cpu, name=name, values=cost[name], ours=() if name in LIMITS else cost[EXACT], note=NOTES[name])
            for name in live
        ),
        *of_hours(runs),
    ]


def of_hours(runs: Runs) -> list[Row]:
    """Return what two windows came to in virtual time."""
    what = f"{ITEMS:,} requests at {LIMIT} in any {PER_S:g} s and {HOURLY:,} in any hour, virtual time: "
    asked: list[tuple[str, str, float | None, bool]] = [
        ("% of what both allow used", "percent", GOAL_PERCENT, True),
        ("virtual hours", "hours", None, False),
        ("requests in the worst hour at the server", "worst_hour", float(HOURLY), False),
        ("requests in the worst second", "worst", float(LIMIT), False),
        ("CPU s", "cpu_s", None, False),
    ]
    return [
        Row(what=what + words, name=HOURS, values=[figures[figure] for figures in runs[HOURS]], goal=goal, least=least)
        for words, figure, goal, least in asked
    ]


def of(runs: Runs, figure: str) -> dict[str, list[float]]:
    """Return one figure of every run, by case."""
    return {name: [figures[figure] for figures in of_case] for name, of_case in runs.items()}
