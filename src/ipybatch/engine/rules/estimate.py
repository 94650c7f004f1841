"""Estimate: the engine's own scheduler, run dry in virtual time."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from ipybatch.engine.data.plan import Task
from ipybatch.engine.data.policy import Limits, Rate
from ipybatch.engine.rules.limit_groups import GroupLimiter, LimitGroup, LimitGroups, each_of, group_label
from ipybatch.engine.rules.limiter import Cost, Limiter, Spent, Window
from ipybatch.engine.rules.opening import Opening
from ipybatch.engine.rules.scheduler import Scheduler, Ticket

SIMULATED_AT_MOST = 100_000
_WORTH_A_WORD_S = 0.1  # of waiting for what is in force
_RETRIED = 20  # in the high estimate one request in so many is sent twice


class InForce(msgspec.Struct, frozen=True):
    """What a resource, or one of its limit groups, has to wait for already.

    Attributes:
        cool_s: Seconds of a cool-down that are left; ``why`` says why.
        spent: What counts in its windows: seconds ago, unit, cost.
        rates: Those of others who share it.
    """

    cool_s: float = 0.0
    why: str = ""
    spent: Sequence[Spent] = ()
    rates: tuple[Rate, ...] = ()


NOTHING_IN_FORCE = InForce()
Look = Callable[[str, Limits], InForce]  # of a limit group, or "" for the resource, with these limits


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
        begins_s: Seconds of all these until the first request may start: cool-downs and full windows are in force, or
            the clock on the wall says so.
        why: What it waits for until then; "" when it need not.
    """

    seconds: float
    low_s: float
    high_s: float
    requests: int
    batches: int
    usd: float | None = None
    extrapolated: bool = False
    begins_s: float = 0.0
    why: str = ""

    def __str__(self) -> str:
        text = f"about {_words(self.seconds)} ({_words(self.low_s)} to {_words(self.high_s)})"
        text += f", {self.requests:,} requests"
        if self.batches:
            text += f" in {self.batches:,} batches"
        if self.usd is not None:
            text += f", ${self.usd:.2f}"
        if self.why:
            text += f"; nothing starts for {_words(self.begins_s)}: {self.why}"
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
    look: Look = lambda group, limits: NOTHING_IN_FORCE,
    opening: Opening | None = None,
) -> Estimate:
    """Return what ``items`` items take under ``limits``.

    Args:
        tasks: The tasks themselves, for ``cost`` and ``per``; without them, numbered ones of one limit group, or of
            one of each kind.
        per: Which limit group an item is in, or which several.
        look: What is in force of a limit group, "" for the resource.
        opening: When something may start by the clock on the wall, which is asked in seconds from now; None for always.
    """
    opening = opening or Opening()
    simulated, seen = min(items, SIMULATED_AT_MOST), dict[str, InForce]()

    def look_once(group: str, limits: Limits) -> InForce:
        if group not in seen:
            seen[group] = look(group, limits)
        return seen[group]

    is_known = tasks is not None and (cost is not None or per is not None)
    known = list(_some(tasks, simulated)) if is_known else None
    runs = [
        _simulate(limits, simulated, latency_s * factor, retried, cost, known, per, look_once, opening)
        for factor, retried in ((1.0, 0), (0.5, 0), (2.0, _RETRIED))
    ]
    scale = items / simulated if simulated else 1.0
    begins_s = runs[0].begins_s
    seconds, low_s, high_s = (_scaled(run, scale, opening) for run in runs)
    requests, batches = round(runs[0].requests * scale), round(runs[0].batches * scale)
    why = runs[0].why if begins_s >= _WORTH_A_WORD_S else ""
    is_extrapolated = simulated < items
    return Estimate(seconds, low_s, high_s, requests, batches, None, is_extrapolated, begins_s, why)


def _scaled(run: _Run, scale: float, opening: Opening) -> float:
    """Return the seconds of all items; hours in which nothing may start do not grow with them, but come again."""
    if scale == 1.0 or not opening.is_limited:
        return run.begins_s + (run.seconds - run.begins_s) * scale
    begins_s = opening.unix_s(run.begins_s)
    return run.begins_s + opening.lasts_s(begins_s, opening.open_s(begins_s, opening.unix_s(run.seconds)) * scale)


class _Run(msgspec.Struct):
    seconds: float
    requests: int
    batches: int
    begins_s: float
    why: str


def _simulate(  # noqa: PLR0917  # one private caller
    limits: Limits,
    items: int,
    latency_s: float,
    retried: int,
    cost: Callable[[Task], Cost] | None,
    tasks: list[Task] | None,
    per: Callable[[Any], Any] | None,
    look: Look,
    opening: Opening,
) -> _Run:
    if limits.pacer is not None:
        limits = replace(limits, pacer=limits.pacer.anew())
    whys: list[tuple[float, str]] = []  # until when, and what for
    limiter = _limiter(limits, look("", limits), whys)
    source = _some(iter(tasks) if tasks else None, items)
    limit_groups = None
    if limits.each is not None:
        limit_groups = _limit_groups(limits.each, limiter, per if tasks else None, look, whys)
    scheduler = Scheduler(
        source, limits, limiter, cost=cost if tasks else None, limit_groups=limit_groups, opening=opening
    )
    if closed_s := opening.wait_s(0.0):
        whys.append((closed_s, opening.why(opening.unix_s(0.0))))
    running: list[tuple[float, int, Ticket]] = []
    now_s, requests, started, begins_s = 0.0, 0, 0, -1.0
    while not scheduler.finished:
        ticket = scheduler.next(now_s)
        if ticket is not None:
            if begins_s < 0.0 and not ticket.refused:
                begins_s = now_s
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
    begins_s = max(0.0, begins_s)
    return _Run(now_s, requests, scheduler.batch.number, begins_s, max(whys, default=(0.0, ""))[1])


def _limiter(limits: Limits, in_force: InForce, whys: list[tuple[float, str]], group: str = "") -> Limiter:
    """Return a limiter at second 0, with what is in force; note what it waits for."""
    limiter, of_group = Limiter(), f"{group}: " if group else ""
    told = [(-ago_s, unit, cost) for ago_s, unit, cost in in_force.spent]
    limiter.join("estimate", limits, spent=told)
    if in_force.rates:
        limiter.join("others", Limits(concurrency=limits.concurrency, rates=in_force.rates), spent=told)
    if in_force.cool_s:
        limiter.cool_until_s = in_force.cool_s
        whys.append((in_force.cool_s, f"{of_group}{in_force.why}"))
    for window in (*limiter.windows.values(), *(() if limits.pacer is None else limits.pacer.windows)):
        used = window.used(0.0)
        if used >= window.rate.limit:
            frees_in_s = window.wait_s(0.0, 1.0) if isinstance(window, Window) else window.rate.per_s
            whys.append((frees_in_s, f"{of_group}{used:g} of {window.rate} are used"))
    return limiter


def _limit_groups(
    each: Limits | Mapping[Any, Limits],
    common: Limiter,
    per: Callable[[Any], Any] | None,
    look: Look,
    whys: list[tuple[float, str]],
) -> LimitGroups:
    def open_group(name: str) -> LimitGroup:
        limits = each_of(each, name)
        own = _limiter(limits, look(name, limits), whys, group_label(name))
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
