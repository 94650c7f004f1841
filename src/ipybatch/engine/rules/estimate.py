"""Estimate: the engine's own scheduler, run dry in virtual time."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from ipybatch.engine.data.plan import Task
from ipybatch.engine.data.policy import Limits
from ipybatch.engine.rules.limit_groups import GroupLimiter, LimitGroup, LimitGroups, each_of
from ipybatch.engine.rules.limiter import Cost, Limiter
from ipybatch.engine.rules.scheduler import Scheduler, Ticket

SIMULATED_AT_MOST = 100_000
_RETRIED = 20  # in the high estimate one request in so many is sent twice


class Estimate(msgspec.Struct, frozen=True):
    """What a run would take.

    Attributes:
        seconds: Expected, with every request answered in ``latency_s`` and none failing.
        low_s: With half the latency.
        high_s: With twice the latency, and 5 % of the requests sent twice.
        requests: Requests of the expected case.
        batches: Batches; 0 without ``batch_size``.
        usd: None for work that costs nothing.
        extrapolated: Whether only the first 100,000 items were simulated.
    """

    seconds: float
    low_s: float
    high_s: float
    requests: int
    batches: int
    usd: float | None = None
    extrapolated: bool = False

    def __str__(self) -> str:
        text = f"about {_words(self.seconds)} ({_words(self.low_s)} to {_words(self.high_s)})"
        text += f", {self.requests:,} requests"
        if self.batches:
            text += f" in {self.batches:,} batches"
        if self.usd is not None:
            text += f", ${self.usd:.2f}"
        if self.extrapolated:
            text += f" (first {SIMULATED_AT_MOST:,} items simulated, the rest extrapolated)"
        return text


def estimate(  # noqa: PLR0917  # one caller
    limits: Limits,
    items: int,
    latency_s: float,
    cost: Callable[[Task], Cost] | None,
    tasks: Iterator[Task] | None = None,
    per: Callable[[Any], Any] | None = None,
) -> Estimate:
    """Return what ``items`` items take under ``limits``.

    Args:
        tasks: The tasks themselves, for ``cost`` and ``per``; without them, numbered ones of one limit group, or of
            one of each kind.
        per: Which limit group an item is in.
    """
    simulated = min(items, SIMULATED_AT_MOST)
    is_known = tasks is not None and (cost is not None or per is not None)
    known = list(_some(tasks, simulated)) if is_known else None
    runs = [
        _simulate(limits, simulated, latency_s * factor, retried, cost, known, per)
        for factor, retried in ((1.0, 0), (0.5, 0), (2.0, _RETRIED))
    ]
    scale = items / simulated if simulated else 1.0
    seconds, low_s, high_s = (run[0] * scale for run in runs)
    requests, batches = (round(figure * scale) for figure in runs[0][1:])
    return Estimate(seconds, low_s, high_s, requests, batches, extrapolated=simulated < items)


def _simulate(  # noqa: PLR0917  # one private caller
    limits: Limits,
    items: int,
    latency_s: float,
    retried: int,
    cost: Callable[[Task], Cost] | None,
    tasks: list[Task] | None,
    per: Callable[[Any], Any] | None,
) -> tuple[float, int, int]:
    limiter = Limiter()
    if limits.pacer is not None:
        limits = replace(limits, pacer=limits.pacer.anew())
    limiter.join("estimate", limits)
    source = _some(iter(tasks) if tasks else None, items)
    limit_groups = None if limits.each is None else _limit_groups(limits.each, limiter, per if tasks else None)
    scheduler = Scheduler(source, limits, limiter, cost=cost if tasks else None, limit_groups=limit_groups)
    running: list[tuple[float, int, Ticket]] = []
    now_s, requests, started = 0.0, 0, 0
    while not scheduler.finished:
        ticket = scheduler.next(now_s)
        if ticket is not None:
            requests += not ticket.refused
            started += 1
            heapq.heappush(running, (now_s if ticket.refused else now_s + latency_s, started, ticket))
            continue
        if scheduler.finished:
            break
        ends_s = running[0][0] if running else float("inf")
        now_s = min(now_s + scheduler.wait_s, ends_s)
        while running and running[0][0] <= now_s:
            _, number, ticket = heapq.heappop(running)
            _end(scheduler, now_s, ticket, again=bool(retried) and number % retried == 0)
    return now_s, requests, scheduler.batch.number


def _limit_groups(
    each: Limits | Mapping[Any, Limits], common: Limiter, per: Callable[[Any], Any] | None
) -> LimitGroups:
    def open_group(name: str) -> LimitGroup:
        own, limits = Limiter(), each_of(each, name)
        own.join("estimate", limits)
        return LimitGroup(name, GroupLimiter(common, own))

    unknown: Any = "all" if isinstance(each, Limits) else list(each)
    return LimitGroups(
        per=per or (lambda item: unknown), open=open_group, nameless=LimitGroup("", GroupLimiter(common, Limiter()))
    )


def _end(scheduler: Scheduler, now_s: float, ticket: Ticket, *, again: bool) -> None:
    ticket.limiter.respond(now_s, ticket.permit)
    ticket.limiter.free()
    if again:
        scheduler.retry(now_s, ticket.task)
    else:
        scheduler.settle(now_s, ticket.task)


def _some(tasks: Iterator[Task] | None, items: int) -> Iterator[Task]:
    for seq in range(items):
        known = None if tasks is None else next(tasks, None)
        item: Any = None if known is None else known.item
        yield Task(seq, str(seq), item)


def _words(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
