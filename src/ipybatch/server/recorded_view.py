"""Recorded view: a session of any process as its journal tells it, for the panel's own messages.

    run row, live record, items --`look`--> feed --> snapshot --> jupyter.messages.Update

Rule: it reads.  It is made when a tab opens, looks whenever that tab asks, and
goes when nobody has asked for a while.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import cast

import msgspec

from ipybatch.backends import choose
from ipybatch.engine.data import events
from ipybatch.engine.data.clock import SystemClock
from ipybatch.engine.data.fact import Fact
from ipybatch.engine.data.plan import Keying, label_of
from ipybatch.engine.data.policy import Limits, Retry
from ipybatch.engine.data.spec import Spec, inspect_work
from ipybatch.engine.feed import live_record
from ipybatch.engine.feed.feed import Feed
from ipybatch.engine.feed.live_record import LiveRecord
from ipybatch.engine.feed.session_view import Elsewhere, LiveStatus, SessionView
from ipybatch.engine.feed.snapshot import RECENT_ITEMS, Snapshot
from ipybatch.engine.store import history, rows, run_store
from ipybatch.engine.store import journal as journals
from ipybatch.engine.store.journal import Journal
from ipybatch.engine.store.journal_errors import translated
from ipybatch.engine.store.network_copy import place_of
from ipybatch.engine.store.rows import read_kind
from ipybatch.engine.store.run_store import Found
from ipybatch.engine.store.schema import has, ids
from ipybatch.errors import InputError
from ipybatch.jupyter import messages
from ipybatch.jupyter.messages import Cursor, Update
from ipybatch.session.follower import Follower

VIEWS = 16  # at most; the one that was asked for least lately goes
PARTS: messages.Parts = frozenset({"rows", "pace", "moves", "log"})


class ReadOnlyJournal:
    """What a follower reads of a journal, without opening it as an engine does."""

    def __init__(self, asked: Path) -> None:
        self.path = place_of(journals.resolved(asked))

    @contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """Give a connection that reads; nothing is made or migrated."""
        with translated(self.path), closing(journals.connect(self.path, history.read_mode(self.path))) as database:
            yield database


class RecordedView:
    """One run as its journal tells it; a `SessionView` as far as `messages` reads one."""

    lacks = reopen = ""

    def __init__(self, path: Path, run: int) -> None:
        """Read a run.

        Raises:
            InputError: There is no such run.
            JournalError: The journal cannot be read.
        """
        readable = ReadOnlyJournal(path)
        self._journal, self._run = journals.opened(readable.path) or cast("Journal", readable), run
        self._feed = Feed(SystemClock())
        self._lock = threading.Lock()
        found = self._find()
        self._spec = _unknown(found, self._name)
        self._record: LiveRecord | None = None
        go_on = f"in a notebook, BatchSession.open({self._name!r}) goes on"
        self._follower, self._epoch = Follower(self._name, self._feed, self._journal, found, go_on), found.epoch
        self._begin(found)

    @property
    def is_outdated(self) -> bool:
        """Whether the run was begun again since."""
        return self._follower.is_over and self._find().epoch != self._epoch

    def update(self, sent: Cursor) -> Update:
        """Return what is new since an update, and move the cursor on."""
        with self._lock:
            self._follower.look()
            return messages.next_update(cast("SessionView", self), sent, PARTS)

    @property
    def snapshot(self) -> Snapshot:
        """How it stands."""
        return self._feed.snapshot

    @property
    def live_status(self) -> LiveStatus:
        """Facts of the moment, as its process told them."""
        told = self._follower.record
        return LiveStatus() if told is None else told.status

    @property
    def facts(self) -> list[Fact]:
        """What its work told of itself."""
        return self._feed.snapshot.facts

    @property
    def policy(self) -> Spec:
        """Limits and breaker, as they hold or held."""
        told = self._follower.record or self._record
        if told is None:
            return self._spec
        return msgspec.structs.replace(self._spec, limits=told.limits(), breaker=told.policy)

    @property
    def declared(self) -> Limits:
        """The limits that it was made with."""
        told = self._follower.record or self._record
        return self._spec.limits if told is None else told.limits(declared=True)

    @property
    def elsewhere(self) -> Elsewhere | None:
        """Where it runs."""
        return self._follower.elsewhere

    def _find(self) -> Found:
        with self._journal.reader() as database, history.understood(self._journal.path):
            row = database.execute("SELECT name FROM run WHERE id = ? AND name <> ''", (self._run,)).fetchone()
            found = None if row is None else run_store.find(database, row[0], self._run)
        if row is None or found is None:
            msg = "there is no such session"
            raise InputError(msg)
        self._name = str(row[0])
        return found

    def _begin(self, found: Found) -> None:
        """Show it as it stands."""
        feed, at_s = self._feed, self._feed.clock.unix_s()
        feed.emit(events.Planned(at_s, self._name, found.counts))
        self._record = live_record.decode(found.live)
        with self._journal.reader() as database, history.understood(self._journal.path):
            read = list(rows.read_groups(database, self._run, found.group_word, at_s))
            feed.recall(rows.read_pace(database, self._run, at_s))
            failed = found.counts.failed + found.counts.timeout
            for event in _failures(database, self._run, at_s) if failed else ():
                feed.snapshot.failures[event.key] = event
        groups = live_record.recalled(read, self._record, at_s, is_live=found.owner is not None)
        for group in sorted(groups, key=lambda group: group.group):
            feed.emit(group)
        feed.snapshot.ended_before = found.counts.tried
        feed.snapshot.facts = [] if self._record is None else self._record.facts
        if found.usd is not None:
            feed.emit(events.Spent(at_s, found.usd, None if self._record is None else self._record.budget_usd))
        if found.state in events.ENDED:
            feed.snapshot.started_s = (found.ended_s or at_s) - found.seconds
            feed.emit(events.StateChanged(found.ended_s or at_s, found.state, found.reason))


class Views:
    """The views that tabs ask for, each with its age in uses."""

    def __init__(self) -> None:
        self._views: OrderedDict[tuple[Path, int], tuple[float, RecordedView]] = OrderedDict()
        self._lock = threading.Lock()

    def update(self, path: Path, run: int, sent: tuple[float, Cursor] | None) -> tuple[Update, tuple[float, Cursor]]:
        """Return what is new of a run for a tab, and where that tab then stands.

        Args:
            sent: Where it stood; None, or that of a view which is there no more, for everything.

        Raises:
            InputError: There is no such run.
            JournalError: The journal cannot be read.
        """
        with self._lock:
            made_s, view = self._views.get((path, run)) or (0.0, None)
        if view is None or view.is_outdated:
            with self._lock:
                self._views.pop((path, run), None)
            made_s, view = time.time(), RecordedView(path, run)
        with self._lock:
            made_s, view = self._views.setdefault((path, run), (made_s, view))
            self._views.move_to_end((path, run))
            while len(self._views) > VIEWS:
                self._views.popitem(last=False)
        cursor = sent[1] if sent is not None and sent[0] == made_s else Cursor()
        return view.update(cursor), (made_s, cursor)


def _failures(database: sqlite3.Connection, run: int, at_s: float) -> list[events.ItemEnded]:
    """Return the latest items that failed, oldest first."""
    kind = "kind" if has(database, "item", "kind") else "''"
    found = database.execute(
        f"SELECT key, grp, status, attempts, seconds, substr(error, 1, 500), {kind} FROM item WHERE id >= ? AND id < ?"  # noqa: S608
        " AND status IN ('failed', 'timeout') ORDER BY ended_s DESC LIMIT ?",
        (*ids(run), RECENT_ITEMS),
    ).fetchall()
    return [
        events.ItemEnded(at_s, label_of(key), group, status, attempts, seconds, error, read_kind(status, kind)[0])
        for key, group, status, attempts, seconds, error, kind in reversed(found)
    ]


def _unknown(found: Found, name: str) -> Spec:
    """Return a spec for a run whose own is not on record."""
    work = inspect_work(lambda item: item)
    return Spec(
        name=name,
        work=work,
        backend=choose(None, is_coroutine=False),
        limits=Limits(),
        retry=Retry(),
        breaker=None,
        timeout_s=None,
        on_failure="continue",
        resource=found.resource,
        keying=Keying(None, b""),
        group_word=found.group_word,
    )
