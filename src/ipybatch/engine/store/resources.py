"""Resource: what is rationed, shared by the sessions that name it.

All of them run on one engine loop, so a limiter needs no lock; whoever frees
a permit wakes the others.

@@ Joined: the limiters that a session has joined: that of its resource, and those of its lanes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from ipybatch.engine.data.clock import Clock
from ipybatch.engine.data.policy import Limits
from ipybatch.engine.rules.limit_groups import Both, Lane
from ipybatch.engine.rules.limiter import CLOCK_DRIFT, Limiter, Spent
from ipybatch.engine.store.journal import Journal
from ipybatch.engine.store.run_store import LEASE_S, me
from ipybatch.engine.store.schema import lane_of
from ipybatch.errors import JournalError


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
    """Return the process's one Resource of that name in this journal."""
    return _resources.setdefault((journal.path, name), Resource(name))


class History(msgspec.Struct, frozen=True):
    """What the journal knows of a resource's recent use, in Unix time.

    Attributes:
        spent: What responses cost, oldest first.
        cool_until_s: End of the last cool-down; 0.0 for none.
    """

    spent: list[Spent]
    cool_until_s: float


def read_history(journal: Journal, name: str, limits: Limits, now_s: float, *, lane: str = "") -> History:
    """Return what still counts in the windows, requests in flight at a crash included; forget what does not.

    Args:
        lane: Whose windows are asked for; "" for those that all lanes share.
    """
    name, base = lane_of(name, lane), name
    longest_s = max((rate.per_s * CLOCK_DRIFT for rate in limits.all_rates), default=0.0)

    def unit(database: sqlite3.Connection) -> History:
        spent = database.execute(
            "SELECT responded_s, unit, cost FROM window WHERE resource = ? AND responded_s > ? ORDER BY responded_s",
            (name, now_s - longest_s),
        ).fetchall()
        spent += _in_flight_at_a_crash(database, base, now_s)
        database.execute(
            "DELETE FROM window WHERE resource = ? AND responded_s < ?", (name, now_s - max(longest_s, KEPT_S))
        )
        if lane:  # so that what is in flight at a crash is counted in it too
            database.execute("INSERT OR IGNORE INTO resource VALUES (?, 0.0)", (name,))
        row = database.execute("SELECT cool_until_s FROM resource WHERE name = ?", (name,)).fetchone()
        return History(sorted((min(at_s, now_s), unit, cost) for at_s, unit, cost in spent), row[0] if row else 0.0)

    history: History = journal.write(unit)
    return history


def record_cool_down(journal: Journal, name: str, until_s: float) -> None:
    """Let a cool-down outlive the kernel."""

    def unit(database: sqlite3.Connection) -> None:
        database.execute("INSERT OR REPLACE INTO resource VALUES (?, ?)", (name, until_s))

    journal.submit(unit, lambda result, error: None)


def _in_flight_at_a_crash(database: sqlite3.Connection, name: str, now_s: float) -> list[Spent]:
    rows = database.execute(
        "SELECT beat_s, concurrency FROM run WHERE resource = ? AND owner IS NOT NULL AND owner <> ?", (name, me())
    )
    # The owner renewed its lease until LEASE_S before its end at the earliest.
    return [(min(now_s, beat_s + LEASE_S), "requests", float(concurrency)) for beat_s, concurrency in rows]


class Joined(msgspec.Struct, eq=False):
    """What one start of a session holds to, in its windows what was used before.

    Attributes:
        name: Of the resource.
    """

    journal: Journal
    name: str
    clock: Clock
    _limiters: list[Limiter] = msgspec.field(default_factory=list)

    @property
    def resource(self) -> Resource:
        """What all lanes share."""
        return resource_of(self.journal, self.name)

    def join(self, limits: Limits, declared: Limits | None, history: History) -> None:
        """Hold to limits; ``declared`` are those that it was made with, if they were changed since."""
        with suppress(JournalError):  # what others sent since `history` was read counts as well
            history = read_history(self.journal, self.name, limits, self.clock.unix_s())
        self._join(self.resource.limiter, declared or limits, history)
        if declared is not None:
            self.resource.limiter.change(self, limits)

    def open_lane(self, name: str, each: Limits) -> Lane:
        """Hold to the limits of one lane as well."""
        limiter = resource_of(self.journal, lane_of(self.name, name)).limiter
        history = read_history(self.journal, self.name, each, self.clock.unix_s(), lane=name)
        self._join(limiter, each, history)
        return Lane(name, Both(self.resource.limiter, limiter))

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
        now_s = self.clock.now_s()
        offset_s = now_s - self.clock.unix_s()
        spent = [(at_s + offset_s, unit, cost) for at_s, unit, cost in history.spent]
        limiter.join(self, limits, now_s=now_s, spent=spent)
        limiter.cool_until_s = max(limiter.cool_until_s, history.cool_until_s + offset_s)
        self._limiters.append(limiter)
