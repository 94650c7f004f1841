"""Notices: what a run has to tell whoever asked to be notified, from its events to the outbox.

    events --`hear`--> an outage of N minutes, a budget that is nearly spent --`RunStore.tell`--> outbox
    end --`ending`--> what `RunStore.close` puts there in the transaction that records it

Rule: one outage is told once, from the first opening of a breaker until it is
closed; a budget once a run; an end once a start.  A start that found all done
and had nothing to do tells nothing: running a finished notebook again is no
news.
"""

from __future__ import annotations

import asyncio
import sqlite3

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.clock import Clock
from ipybatch.engine.data.events import State
from ipybatch.engine.data.notice import Kind, Notice, Notify, kind_of_end
from ipybatch.engine.data.spec import Spec
from ipybatch.engine.feed.feed import Feed
from ipybatch.engine.store import outbox
from ipybatch.engine.store.lease import Lease
from ipybatch.engine.store.run_store import RunStore, Tell


class Notices:
    """What one start of a session tells; on its loop.

    Args:
        notify: Who is told what.
    """

    def __init__(self, notify: Notify, spec: Spec, store: RunStore, feed: Feed) -> None:
        self._notify, self._spec, self._store, self._feed = notify, spec, store, feed
        self._clock: Clock = feed.clock
        self._loop = asyncio.get_running_loop()
        self._outages: dict[str, asyncio.TimerHandle] = {}  # by limit group
        self._number = 0
        self._started_before = feed.snapshot.started_here
        self._seconds_before = 0.0 if store.found is None else store.found.seconds
        self._was_completed = store.found is not None and store.found.state == "completed"
        self._stop = feed.on(self.hear)

    def hear(self, event: events.Event) -> None:
        """Look at an event."""
        if isinstance(event, events.BreakerMoved):
            self._look_at_breaker(event)
        elif isinstance(event, events.Spent):
            self._look_at_budget(event)

    def ending(self, state: State, reason: str, counts: events.Counts) -> Tell | None:
        """Return what puts the end into the outbox; None for nothing to tell. Nothing more is looked at."""
        self.close()
        started = self._feed.snapshot.started_here - self._started_before
        if state == "completed" and self._was_completed and not started:
            return None
        return self._putting(self._notice(kind_of_end(state), state, reason=reason, counts=counts))

    def close(self) -> None:
        """Look at nothing more."""
        self._stop()
        for timer in self._outages.values():
            timer.cancel()
        self._outages.clear()

    def _look_at_breaker(self, event: events.BreakerMoved) -> None:
        group = event.limit_group
        if event.state == "closed":
            if (timer := self._outages.pop(group, None)) is not None:
                timer.cancel()
        elif group not in self._outages:  # a probe that fails is the same outage
            self._number += 1
            wait_s = self._notify.breaker_min * 60
            self._outages[group] = self._loop.call_later(wait_s, self._tell_outage, group, self._number, event.at_s)

    def _tell_outage(self, group: str, number: int, since_s: float) -> None:
        error = self._feed.snapshot.last_error
        notice = self._notice("breaker", self._feed.snapshot.state, limit_group=group, since_s=since_s, error=error)
        self._store.tell(self._putting(notice, detail=f"{group} {number}".strip()), self._clock.unix_s())

    def _look_at_budget(self, event: events.Spent) -> None:
        budget_usd = event.budget_usd
        if budget_usd and event.usd >= budget_usd * self._notify.budget_share:
            notice = self._notice("budget", self._feed.snapshot.state, budget_usd=budget_usd)
            self._store.tell(self._putting(notice, epoch=0, detail=f"{budget_usd:g}"), self._clock.unix_s())

    def _notice(self, kind: Kind, state: State, **facts: object) -> Notice:
        snapshot, now_s = self._feed.snapshot, self._clock.unix_s()
        first = next(iter(snapshot.failures.values()), None)
        told = {
            "counts": msgspec.structs.replace(snapshot.counts),  # as it is now: it is written later
            "error": "" if first is None else first.error,
            "usd": snapshot.spent_usd,
            "budget_usd": snapshot.budget_usd,
            "seconds": self._seconds_before + snapshot.this_start_s(now_s),
            "notebook": self._spec.notebook,
            **facts,
        }
        return Notice(kind=kind, name=self._spec.name, state=state, at_s=now_s, **told)  # type: ignore[arg-type]  # by name

    def _putting(self, notice: Notice, *, epoch: int | None = None, detail: str = "") -> Tell:
        def put(database: sqlite3.Connection, lease: Lease) -> None:
            at, told = lease.epoch if epoch is None else epoch, notice
            if not told.error and told.counts.failed + told.counts.timeout:  # in an earlier process
                told = msgspec.structs.replace(told, error=outbox.first_error(database, lease.run))
            outbox.put(database, lease.run, at, self._notify, told, due_s=told.at_s, detail=detail)

        return put
