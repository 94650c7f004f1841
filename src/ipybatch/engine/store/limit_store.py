"""Limit stores: where processes that share a resource agree on what may start.

Rule: one exchange, one decision.  A process reports what it has in flight and
what was answered since its last report, and asks for one permit; the store
counts all of that together, by its own clock, in one transaction.

    process A --Report: 2 in flight, 1 answered 0.03 s ago, wants 1--> store
    process A <--Answer: granted; or seconds to wait--------------------+
                                                                        |
    used(window) = in flight of all owners + answered within per_s -----+

What is in flight is reported whole, not as a change, so a report whose answer
was lost does no harm when it is made again.  An owner that is silent for
longer than its lease may have sent what it had in flight until then: it counts
as answered at that moment.

Who asks in vain has a claim: places among the ``concurrency`` go to who has
fewest of them, and all else, after `TURN_S`, to who has waited longest.  So
none waits for the end of the others, and what costs much is not passed over.

Prior art: a sliding-window log with running totals, so that a window costs two
lookups whatever its length; leases (Gray and Cheriton, 1989).
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Protocol, TypeVar

import msgspec

from ipybatch.engine.data.masking import describe
from ipybatch.engine.data.policy import Rate
from ipybatch.engine.rules.limiter import Cost, Counted, Spent, Window, cost_in, count_start, held_s
from ipybatch.errors import JournalError

T = TypeVar("T")

GROUP = "\x1f"  # the unit separator: JSON writes it otherwise, so that no name of a group holds it
PRIVATE = "\x1e"  # the record separator: no name of a resource holds it, before what only one session uses

LEASE_S = 15.0
KEPT_S = 3600.0  # in memory: what was answered is kept for so long, or for the longest window that anybody had
PULSE_S, POLL_MOST_S = 1.0, 0.1  # who asked in vain asks again so soon: at a time that was told; after a response
HEED_S = 0.25  # how much later it may be with that
ROUND_MOST_S = 1.0  # and how much more, at most, where the store is a network away
TURN_S = 1.0  # who has waited for longer goes first
YIELD_S = 0.01  # who could start asks again so long after it let another go first


class StoreBusy(Exception):  # no error: the next try is a moment later
    """Another process holds the store just now."""


class Bounds(msgspec.Struct, frozen=True):
    """The limits that an owner holds to.

    Attributes:
        concurrency: Attempts at a time; None for any number.
        spacing_s: Seconds between two starts.
        rates: Sliding windows that all hold.
    """

    concurrency: int | None = None
    spacing_s: float = 0.0
    rates: tuple[Rate, ...] = ()


def strictest(bounds: Iterable[Bounds]) -> Bounds:
    """Return limits that satisfy all of the given ones."""
    every = tuple(bounds)
    return Bounds(
        min((one.concurrency for one in every if one.concurrency is not None), default=None),
        max((one.spacing_s for one in every), default=0.0),
        tuple(dict.fromkeys(rate for one in every for rate in one.rates)),
    )


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one owner says of one resource, and asks for.

    Attributes:
        resource: Its name.
        owner: Who reports; "" only looks.
        label: What people call the owner: its sessions' names.
        bounds: The limits that the owner holds to; None when it leaves.
        running: Attempts that have a place among the ``concurrency``.
        in_flight: What its unanswered requests cost, by unit.
        spent: What was answered since the last report: seconds ago, unit, cost.
        wanted: The cost of one more request; None for none.
        slot: Whether that takes a place among the ``concurrency``.
        more: How many further ones of that cost, at once: as far as they fit, where nobody waits and none are spaced.
        lease_s: For how long the report holds, seconds.
        cool_s: Let nothing start for so long; 0.0 ends a cool-down; None leaves it as it is.
        why: Why it cools down.
        counted: What the service says is used: so much counts, beside what is in flight and was answered.
        cool_most_s: Cut what is left of a cool-down to so long, unless another owner is there; None for as it is.
        round_s: How long an exchange takes: who asked in vain asks again so much later.
        number: Of the report, rising, where one may come late or twice: what is not above the last one that the store
            has of this owner is not heeded, and grants nothing. 0: none can.
        said: With a number, how many entries of ``spent`` the owner reported before the first one here: those of them
            that the store has counted are not counted again.
    """

    resource: str
    owner: str = ""
    label: str = ""
    bounds: Bounds | None = None
    running: int = 0
    in_flight: Cost = msgspec.field(default_factory=dict)
    spent: Sequence[Spent] = ()
    wanted: Cost | None = None
    slot: bool = True
    more: int = 0
    lease_s: float = LEASE_S
    cool_s: float | None = None
    why: str = ""
    counted: Sequence[Counted] = ()
    cool_most_s: float | None = None
    round_s: float = 0.0
    number: int = 0
    said: int = 0


class Owner(msgspec.Struct, frozen=True):
    """Another owner of a resource.

    Attributes:
        name: As it reports.
        label: What people call it.
        running: Its attempts.
    """

    name: str
    label: str
    running: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """How a resource stands after a report.

    Attributes:
        wait_s: 0.0 when what was wanted is granted; else seconds until it may be; inf: after a response only.
        more: How many further ones were granted with it.
        used: How much of each rate of all owners is taken, what was granted included.
        owners: The others that share the resource.
        cool_s: Seconds until nothing cools down any more; 0.0 when nothing does.
        why: Why it cools down; "" when it does not.
        is_common: Whether that holds for all limit groups of the resource, for a reason that they have in common.
        is_stranger: Whether somebody else's requests were counted since this owner's last report.
        is_anew: Whether the store has lost what was answered before: what the owner knows is to be reported again.
    """

    wait_s: float = 0.0
    more: int = 0
    used: Mapping[Rate, float] = msgspec.field(default_factory=dict)
    owners: tuple[Owner, ...] = ()
    cool_s: float = 0.0
    why: str = ""
    is_common: bool = False
    is_stranger: bool = False
    is_anew: bool = False


class Claim(msgspec.Struct, frozen=True):
    """What an owner is owed that asked in vain.

    Attributes:
        since_s: When it first did so.
        asks_s: When it was told to ask again; inf: after a response.
        until_s: Whether it asks again is seen until then.
        of_slot: Whether it waits for a place among the ``concurrency``.
        running: Its attempts.
    """

    since_s: float
    asks_s: float
    until_s: float
    of_slot: bool
    running: int = 0


def claim(now_s: float, before: Claim | None, wait_s: float, report: Report, *, of_slot: bool) -> Claim:
    """Return what an owner is owed that is to wait, and was owed something before."""
    since_s = before.since_s if before is not None and now_s < before.until_s else now_s
    again_s = POLL_MOST_S if wait_s == math.inf else min(wait_s, PULSE_S)
    late_s = HEED_S + min(report.round_s, ROUND_MOST_S)
    return Claim(since_s, now_s + wait_s, now_s + again_s + late_s, of_slot)


def further(  # noqa: PLR0917  # what is known of a resource, each of another type
    now_s: float, others: Iterable[Claim], report: Report, bounds: Bounds, used: Mapping[Rate, float], running: float
) -> int:
    """Return how many more requests are granted with one that is.

    Args:
        used: How much of each rate is taken, that one included.
        running: The attempts of all owners, that one included.
    """
    wanted, fits = report.wanted, float(report.more)
    if not fits or wanted is None or apart_s(bounds, wanted) > 0.0 or any(now_s < other.until_s for other in others):
        return 0
    if report.slot and bounds.concurrency is not None:
        fits = min(fits, bounds.concurrency - running)
    for rate, taken in used.items():
        cost = cost_in(rate.unit, wanted)
        if cost > 0.0:
            fits = min(fits, (rate.limit - taken + 1e-9) // cost)
    return max(0, int(fits))


def give_way_s(
    now_s: float, others: Iterable[Claim], mine: Claim | None, running: int, *, slot: bool
) -> tuple[float, bool]:
    """Return how long an owner that could start is to let others go first; and whether to a place of an attempt.

    A further request of an attempt never waits for somebody's place: the attempt may have to end to free one.

    Args:
        running: The owner's attempts.
    """
    wait_s, of_slot = 0.0, False
    since_s = mine.since_s if mine is not None and now_s < mine.until_s else now_s
    for other in others:
        if now_s >= other.until_s:
            continue
        is_older = other.since_s < min(since_s, now_s - TURN_S)
        if not other.of_slot:
            if is_older:
                wait_s = max(wait_s, YIELD_S, other.asks_s - now_s)
        elif slot and (other.running < running or (is_older and other.running == running)):
            wait_s, of_slot = max(wait_s, YIELD_S), True
    return wait_s, of_slot


def apart_s(bounds: Bounds, wanted: Cost) -> float:
    """Return how long after the last start another may be: what sends no request itself waits for none."""
    return bounds.spacing_s if cost_in("requests", wanted) else -math.inf


def last_start_s(now_s: float, before_s: float, bounds: Bounds, granted: Cost) -> float:
    """Return when the last start is taken to have been, after one that was granted."""
    return count_start(now_s, before_s + bounds.spacing_s) if cost_in("requests", granted) else before_s


def found_at_s(now_s: float, counted: Counted) -> float:
    """Return when what the service counts is taken to have been answered, so that it is free again when it says so."""
    return now_s + min(counted.reset_s - held_s(counted.rate), 0.0)


def asked(ask: Callable[[], T]) -> T:
    """Ask a store, which may be anybody's and raise anything.

    Raises:
        StoreBusy: Another process holds it.
        JournalError: It failed.
    """
    try:
        return ask()
    except (StoreBusy, JournalError):
        raise
    except Exception as error:
        raise failed(error) from error


def failed(error: Exception) -> JournalError:
    """Return what a store that is anybody's raised, as the error that it is to the engine."""
    return JournalError(f"the limit store failed: {describe(error)}")


class LimitStore(Protocol):
    """Where the use of resources is counted; `ipybatch.testing.check_limit_store` says what each must do.

    One that is a network away has an attribute ``is_remote`` that is True: it is called in threads, several at a time,
    and heeds `Report.number`, since a report may come late, twice, or without that its owner hears of it.
    """

    def exchange(self, report: Report) -> Answer:
        """Count what an owner reports, and decide on what it wants, at once.

        Raises:
            StoreBusy: Another process holds the store just now: report again in a moment.
            JournalError: The store cannot be read or written; says why.
        """

    def history(self, resource: str, since_s: float) -> list[Spent]:
        """Return what was answered within the last ``since_s`` seconds: seconds ago, unit, cost; the oldest first.

        Raises:
            StoreBusy: See `exchange`.
            JournalError: See `exchange`.
        """


class _Member(msgspec.Struct):
    label: str
    bounds: Bounds
    until_s: float
    running: int
    in_flight: Cost
    number: int  # of its last report
    said: int  # entries of what was answered, in all of them


class _Resource(msgspec.Struct):
    members: dict[str, _Member] = msgspec.field(default_factory=dict)
    claims: dict[str, Claim] = msgspec.field(default_factory=dict)
    spent: deque[Spent] = msgspec.field(default_factory=deque)  # at, unit, cost; in order of each unit
    last_s: dict[str, float] = msgspec.field(default_factory=dict)  # of them, by unit
    windows: dict[Rate, Window] = msgspec.field(default_factory=dict)
    started_s: float = -math.inf
    cool_until_s: float = -math.inf
    why: str = ""
    spender: str = ""


class MemoryLimits:
    """A store for sessions of one process, and the plainest statement of what a store does.

    Args:
        now_s: The store's clock.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._resources: dict[str, _Resource] = {}

    def exchange(self, report: Report) -> Answer:
        """Count what an owner reports, and decide on what it wants, at once."""
        now_s, resource = self._now_s(), self._resources.setdefault(report.resource, _Resource())
        self._lapse(resource, now_s, besides=report.owner)
        is_stranger = resource.spender not in ("", report.owner)
        known = resource.members.get(report.owner)
        if known is not None and 0 < report.number <= known.number:  # a later one has come before it
            return self._answer(resource, _bounds(resource), report, now_s, math.inf)
        counted = max(0, known.said - report.said) if known is not None and report.number else 0
        for ago_s, unit, cost in report.spent[counted:]:
            self._spend(resource, (now_s - ago_s, unit, cost), report.owner)
        if report.cool_s is not None:
            resource.cool_until_s = max(resource.cool_until_s, now_s + report.cool_s) if report.cool_s else -math.inf
            resource.why = report.why
        if report.cool_most_s is not None and not resource.members.keys() - {report.owner}:
            resource.cool_until_s = min(resource.cool_until_s, now_s + report.cool_most_s)
        member = self._enter(resource, report, now_s)
        for one in report.counted:
            self._fill(resource, now_s, one, report.owner)
        bounds, wait_s, more = _bounds(resource), 0.0, 0
        if report.wanted is not None and member is not None:
            wait_s, more = self._decide(resource, bounds, report, now_s)
        return self._answer(resource, bounds, report, now_s, wait_s, more, is_stranger=is_stranger)

    def _decide(self, resource: _Resource, bounds: Bounds, report: Report, now_s: float) -> tuple[float, int]:
        """Grant what an owner wants, or say how long it is to wait; return how many more are granted with it."""
        member, wanted = resource.members[report.owner], report.wanted
        assert wanted is not None
        before = resource.claims.pop(report.owner, None)
        others = [
            msgspec.structs.replace(one, running=resource.members[name].running)
            for name, one in resource.claims.items()
        ]
        wait_s, of_slot = self._wait_s(resource, bounds, report, now_s)
        if wait_s == 0.0:
            wait_s, of_slot = give_way_s(now_s, others, before, report.running, slot=report.slot)
        if wait_s > 0.0:
            resource.claims[report.owner] = claim(now_s, before, wait_s, report, of_slot=of_slot)
            return wait_s, 0
        resource.started_s = last_start_s(now_s, resource.started_s, bounds, wanted)
        _fly(member, wanted, 1, slot=report.slot)
        if not report.more:
            return 0.0, 0
        running = sum(one.running for one in resource.members.values())
        more = further(now_s, others, report, bounds, self._used(resource, bounds, now_s), running)
        _fly(member, wanted, more, slot=report.slot)
        return 0.0, more

    def _answer(  # noqa: PLR0917  # what is known by then, each of another type
        self,
        resource: _Resource,
        bounds: Bounds,
        report: Report,
        now_s: float,
        wait_s: float,
        more: int = 0,
        *,
        is_stranger: bool = False,
    ) -> Answer:
        cool_s = max(0.0, resource.cool_until_s - now_s)
        return Answer(
            wait_s=wait_s,
            more=more,
            used=self._used(resource, bounds, now_s),
            owners=tuple(
                Owner(name, one.label, one.running) for name, one in resource.members.items() if name != report.owner
            ),
            cool_s=cool_s,
            why=resource.why if cool_s else "",
            is_stranger=is_stranger,
        )

    def history(self, resource: str, since_s: float) -> list[Spent]:
        """Return what was answered within the last ``since_s`` seconds: seconds ago, unit, cost; the oldest first."""
        now_s, known = self._now_s(), self._resources.get(resource, _Resource())
        spent = sorted(known.spent, key=itemgetter(0))
        return [(now_s - at_s, unit, cost) for at_s, unit, cost in spent if at_s > now_s - since_s]

    def _lapse(self, resource: _Resource, now_s: float, *, besides: str) -> None:
        for name, member in list(resource.members.items()):
            if name != besides and member.until_s <= now_s:
                del resource.members[name]
                resource.claims.pop(name, None)
                for unit, cost in member.in_flight.items():
                    self._spend(resource, (now_s, unit, cost), name)

    def _spend(self, resource: _Resource, spent: Spent, spender: str) -> None:
        at_s, unit, cost = spent
        at_s = resource.last_s[unit] = max(at_s, resource.last_s.get(unit, -math.inf))
        resource.spent.append((at_s, unit, cost))
        for rate, window in resource.windows.items():
            if rate.unit == unit:
                window.spend(at_s, cost)
        kept_s = max([KEPT_S, *map(held_s, resource.windows)])
        while resource.spent[0][0] < at_s - kept_s:
            resource.spent.popleft()
        resource.spender = spender

    def _fill(self, resource: _Resource, now_s: float, counted: Counted, spender: str) -> None:
        rate = counted.rate
        more = counted.used - self._window(resource, rate).used(now_s)
        if more <= 0.0:
            return
        at_s = found_at_s(now_s, counted)
        resource.spent = deque(sorted((*resource.spent, (at_s, rate.unit, more)), key=itemgetter(0)))
        for known, window in resource.windows.items():
            if known.unit == rate.unit:
                window.fill(now_s, window.used(now_s) + more, at_s + held_s(known) - now_s)
        resource.spender = spender

    def _enter(self, resource: _Resource, report: Report, now_s: float) -> _Member | None:
        if not report.owner:
            return None
        if report.bounds is None:
            resource.members.pop(report.owner, None)
            resource.claims.pop(report.owner, None)
            return None
        until_s, said = now_s + report.lease_s, report.said + len(report.spent)
        member = _Member(
            report.label, report.bounds, until_s, report.running, dict(report.in_flight), report.number, said
        )
        resource.members[report.owner] = member
        return member

    def _wait_s(self, resource: _Resource, bounds: Bounds, report: Report, now_s: float) -> tuple[float, bool]:
        running = sum(member.running for member in resource.members.values())
        if report.slot and bounds.concurrency is not None and running >= bounds.concurrency:
            return math.inf, True
        assert report.wanted is not None
        wait_s = max(0.0, resource.started_s + apart_s(bounds, report.wanted) - now_s, resource.cool_until_s - now_s)
        for rate in bounds.rates:
            cost = cost_in(rate.unit, report.wanted)
            wait_s = max(wait_s, self._window(resource, rate).wait_s(now_s, cost))
        return wait_s, False

    def _used(self, resource: _Resource, bounds: Bounds, now_s: float) -> dict[Rate, float]:
        return {rate: self._window(resource, rate).used(now_s) for rate in bounds.rates}

    def _window(self, resource: _Resource, rate: Rate) -> Window:
        window = resource.windows.get(rate)
        if window is None:
            window = resource.windows[rate] = Window(rate)
            window.refill(resource.spent)
        window.in_flight = self._in_flight(resource, rate.unit)
        return window

    def _in_flight(self, resource: _Resource, unit: str) -> float:
        return sum(member.in_flight.get(unit, 0.0) for member in resource.members.values())


def _bounds(resource: _Resource) -> Bounds:
    return strictest(one.bounds for one in resource.members.values())


def _fly(member: _Member, granted: Cost, times: int, *, slot: bool) -> None:
    """Count what was granted as in flight."""
    flying = member.in_flight
    units = {"requests", *granted, *flying}
    member.in_flight = {unit: flying.get(unit, 0.0) + times * cost_in(unit, granted) for unit in units}
    member.running += times * slot
