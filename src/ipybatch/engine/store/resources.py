"""Resources: what is rationed, shared by the sessions that name it, and what the journal knows of its use.

All sessions run on one engine loop, so a limiter needs no lock; whoever frees
a permit wakes the others.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec

from ipybatch.engine.data.clock import Clock
from ipybatch.engine.data.policy import Limits
from ipybatch.engine.rules.limiter import CLOCK_DRIFT, GroupLimiter, Limiter, LimitGroup, Spent
from ipybatch.engine.store.journal import Journal
from ipybatch.engine.store.lease import LEASE_S, me
from ipybatch.engine.store.schema import group_resource


class Resource(msgspec.Struct):
    """A limiter and who waits for it.

    Attributes:
        wakers: Called when something of the limiter came free.
    """

    name: str
    limiter: Limiter = msgspec.field(default_factory=Limiter)
    wakers: list[Callable[[], None]] = msgspec.field(default_factory=list)

    def changed(self) -> None:
        """Wake everyone who may start something now."""
        for wake in tuple(self.wakers):
            wake()


KEPT_S = 86_400.0  # responses are kept for a day, or for the longest window of whoever looks

_resources: dict[tuple[Path, str], Resource] = {}


def resource_of(journal: Journal, name: str) -> Resource:
    """Return the process's one Resource of that name in this journal; on the engine's thread."""
    known = _resources.get((journal.path, name))
    if known is None:
        known = _resources[journal.path, name] = Resource(name)
    return known


class History(msgspec.Struct, frozen=True):
    """What the journal knows of a resource's recent use, in Unix time.

    Attributes:
        spent: What responses cost, oldest first.
        cool_until_s: End of the last cool-down; 0.0 for none.
    """

    spent: list[Spent]
    cool_until_s: float


def read_history(journal: Journal, name: str, limits: Limits, now_s: float, *, group: str = "") -> History:
    """Return what still counts in the windows, requests in flight at a crash included.

    Args:
        group: The limit group whose windows are asked for; "" for those that all groups share.

    Raises:
        JournalError: The journal cannot be read.
    """
    of_group = group_resource(name, group)
    with journal.reader() as database:
        spent = database.execute(
            "SELECT responded_s, unit, cost FROM window WHERE resource = ? AND responded_s > ? ORDER BY responded_s",
            (of_group, now_s - _longest_s(limits)),
        ).fetchall()
        spent += _in_flight_at_a_crash(database, name, now_s)
        row = database.execute("SELECT cool_until_s FROM resource WHERE name = ?", (of_group,)).fetchone()
    return History(sorted((min(at_s, now_s), unit, cost) for at_s, unit, cost in spent), row[0] if row else 0.0)


def kept_since_s(limits: Limits, now_s: float) -> float:
    """Return since when responses are kept, Unix time: for a day, or for the longest window."""
    return now_s - max(_longest_s(limits), KEPT_S)


def record_cool_down(journal: Journal, name: str, until_s: float) -> None:
    """Let a cool-down outlive the kernel."""

    def unit(database: sqlite3.Connection) -> None:
        database.execute("INSERT OR REPLACE INTO resource VALUES (?, ?)", (name, until_s))

    journal.submit(unit, lambda result, error: None)


def _record_group(journal: Journal, name: str) -> None:
    """Let a limit group be known by its name, so that what is in flight at a crash counts in its windows too."""

    def unit(database: sqlite3.Connection) -> None:
        database.execute("INSERT OR IGNORE INTO resource VALUES (?, 0.0)", (name,))

    journal.submit(unit, lambda result, error: None)


def _longest_s(limits: Limits) -> float:
    return max((rate.per_s * CLOCK_DRIFT for rate in limits.all_rates), default=0.0)


def _in_flight_at_a_crash(database: sqlite3.Connection, name: str, now_s: float) -> list[Spent]:
    rows = database.execute(
        "SELECT beat_s, concurrency FROM run WHERE resource = ? AND owner IS NOT NULL AND owner <> ?", (name, me())
    )
    # The owner renewed its lease until LEASE_S before its end at the earliest.
    return [(min(now_s, beat_s + LEASE_S), "requests", float(concurrency)) for beat_s, concurrency in rows]


class Membership:
    """The limits that one start of a session holds to: those of its resource, and those of its limit groups.

    Each window begins with what was used before, as the journal tells.

    Attributes:
        resource: What all limit groups share.
    """

    def __init__(self, journal: Journal, name: str, clock: Clock) -> None:
        self.resource = resource_of(journal, name)
        self._journal, self._clock = journal, clock
        self._limiters: list[Limiter] = []

    def join(self, limits: Limits, declared: Limits) -> None:
        """Hold to limits.

        Args:
            declared: Those that the session was made with.

        Raises:
            JournalError: The journal cannot be read.
        """
        history = read_history(self._journal, self.resource.name, limits, self._clock.unix_s())
        self._join(self.resource.limiter, declared, history)
        if declared is not limits:
            self.resource.limiter.change(self, limits)

    def open_group(self, name: str, each: Limits) -> LimitGroup:
        """Hold to the limits of one group as well.

        Raises:
            JournalError: The journal cannot be read.
        """
        of_group = group_resource(self.resource.name, name)
        limiter = resource_of(self._journal, of_group).limiter
        history = read_history(self._journal, self.resource.name, each, self._clock.unix_s(), group=name)
        _record_group(self._journal, of_group)
        self._join(limiter, each, history)
        return LimitGroup(name, GroupLimiter(self.resource.limiter, limiter))

    def change(self, limits: Limits) -> None:
        """Hold to others from now on."""
        self.resource.limiter.change(self, limits)
        self.resource.changed()

    def leave(self) -> None:
        """Let others start."""
        for limiter in self._limiters:
            limiter.leave(self)
        self._limiters.clear()
        self.resource.changed()

    def _join(self, limiter: Limiter, limits: Limits, history: History) -> None:
        now_s = self._clock.now_s()
        offset_s = now_s - self._clock.unix_s()
        spent = [(at_s + offset_s, unit, cost) for at_s, unit, cost in history.spent]
        limiter.join(self, limits, now_s=now_s, spent=spent)
        limiter.cool_until_s = max(limiter.cool_until_s, history.cool_until_s + offset_s)
        self._limiters.append(limiter)
