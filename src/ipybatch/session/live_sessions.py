"""Live sessions: which ones run in this process, and what the journal knows of the others."""

from __future__ import annotations

import atexit
import math
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar, cast

from ipybatch.engine.data import events
from ipybatch.engine.data.events import Mark
from ipybatch.engine.data.fork import after_fork
from ipybatch.engine.data.outcome import RecordedItem
from ipybatch.engine.data.plan import Plan, canonical
from ipybatch.engine.data.spec import Spec
from ipybatch.engine.feed import live_record
from ipybatch.engine.feed.feed import Feed
from ipybatch.engine.feed.live_record import recalled
from ipybatch.engine.feed.snapshot import Snapshot
from ipybatch.engine.store import plan_rows, rows, run_store
from ipybatch.engine.store.journal import Journal, open_journal
from ipybatch.engine.store.lease import is_live, me, where
from ipybatch.engine.store.resume import check_paid, preview
from ipybatch.engine.store.run_store import Found
from ipybatch.errors import InputError, JournalError, JournalLocked
from ipybatch.session.waiting import in_notebook
from ipybatch.session.workload import ReadOnly, Workload, find_workload, unrecorded

Session = TypeVar("Session")
GOES_ON = "start() goes on with what is not recorded"

_live: dict[tuple[Journal, str], Any] = {}
_lock = threading.Lock()
_process = os.getpid()  # a fork has the sessions of its parent in memory, not the engine


def enter(journal: Journal, name: str, session: object) -> None:
    """Count a session as running in this process."""
    with _lock:
        _live[journal, name] = session


@atexit.register
def tell_what_is_left() -> None:
    """Say on standard error, a line a session, what a script leaves that ends before its sessions do."""
    if os.getpid() != _process or in_notebook() or sys.stderr is None:
        return
    for (_, name), session in sorted(_live.items(), key=lambda entry: entry[0][1]):
        counts: events.Counts = session.snapshot.counts  # not asked of the engine, which may be busy
        left = "the rest is" if counts.total is None else f"{max(0, counts.total - counts.ended):,} are"
        with suppress(OSError, ValueError):  # closed, or its reader is gone
            sys.stderr.write(
                f"ipybatch: session {name!r} did not end: {counts.ended:,} items are recorded, {left} left;"
                " the same name goes on. session.run() waits for the end\n"
            )


def leave(journal: Journal, name: str, session: object) -> None:
    """Count it no more."""
    with _lock:
        if _live.get((journal, name)) is session:
            del _live[journal, name]


class Turn:
    """One thread at a time begins a session, and only in the process that it was made in."""

    def __init__(self, name: str) -> None:
        self._name, self._process, self._lock = name, os.getpid(), threading.RLock()

    def check(self) -> None:
        """Refuse a session that was made before a fork.

        Raises:
            JournalLocked: It belongs to the process that this one was forked from.
        """
        if self._process != os.getpid():
            whose = f"belongs to process {self._process}, which this one was forked from"
            msg = f"session {self._name!r} {whose}: make it anew here"
            raise JournalLocked(msg)

    def wait(self) -> AbstractContextManager[Any]:
        """Return the lock to begin it under: an interrupt finds no place between taking it and giving it back.

        Raises:
            JournalLocked: The session was made before a fork.
        """
        self.check()
        return self._lock

    @contextmanager
    def try_to_take(self) -> Iterator[bool]:
        """Take the lock, unless somebody has it; gives whether it was taken."""
        is_taken = self._lock.acquire(blocking=False)
        try:
            yield is_taken
        finally:
            if is_taken:
                self._lock.release()


def _forget() -> None:
    """Count none after a fork: they run in the parent."""
    global _lock
    _lock = threading.Lock()
    _live.clear()


after_fork(_forget)


def live(journal: Journal, name: str) -> object:
    """Return the session of that name that runs in this process; None if none does."""
    return _live.get((journal, name))


def reopen(  # noqa: PLR0917  # what `BatchSession.open` was given, and the class it belongs to
    wanted: type[Session],
    plain: type[Any],
    name: str,
    work: Callable[..., Any] | None,
    path: str | Path | None,
    arguments: dict[str, Any],
) -> Session:
    """Return a recorded session: the one that runs here, else one made anew, of its workload's class.

    Args:
        wanted: The class that is asked for; ``plain``: that of sessions of no workload.
        arguments: Of ``plain``, or of the workload's function.

    Raises:
        InputError: No session of that name is recorded, or it is of another class.
    """
    journal = open_journal(path)
    running = live(journal, name)
    if isinstance(running, wanted):
        return running
    found = recorded(journal, name)
    kind = find_workload(found.workload) if work is None else None
    made = plain if kind is None else kind.session_class
    if not issubclass(made, wanted):
        msg = f"session {name!r} is a {made.__name__}, not a {wanted.__name__}: open it with {plain.__name__}.open()"
        raise InputError(msg)
    items = recorded_items(journal, found, name, to_run=work is not None)
    reopening = _is_reopening.set(True)
    try:
        if kind is None:
            session = cast("type[Any]", wanted)(name, work or ReadOnly(), items, journal=path, **arguments)
        else:
            session = kind.open(name, journal.path, found, items, arguments)
    finally:
        _is_reopening.reset(reopening)
    lacks = _needed(kind, found, items) if session.lacks else None
    session._reattach(found, _how_to_go_on(lacks, name, path))
    return cast("Session", session)


def _needed(kind: type[Workload[Any]] | None, found: Found, items: Plan | Iterator[Any]) -> list[str]:
    """Return the arguments of `open` with which a session could run; none where it must be made again."""
    if kind is not None:
        return [kind.needs, *unrecorded(found)]
    return ["work"] if isinstance(items, Plan) and not any(task.refused for task in items) else []


def _how_to_go_on(lacks: list[str] | None, name: str, path: str | Path | None) -> str:
    """Return what to call to go on with a session whose process died, in words.

    Args:
        lacks: The arguments that are needed; none where it must be made again; None where it can run.
    """
    if lacks is None:
        return GOES_ON
    if not lacks:
        return "make it again with its items, which are not on record, and the same name goes on"
    given = [repr(name), *(f"{field}=..." for field in lacks), *([] if path is None else [f"journal={str(path)!r}"])]
    return f"BatchSession.open({', '.join(given)}) goes on"


def recorded(journal: Journal, name: str) -> Found:
    """Return the latest run of a session.

    Raises:
        InputError: Nothing of that name is recorded.
    """
    with journal.reader() as database:
        found = run_store.find(database, name)
    if found is None:
        msg = f"name must be that of a recorded session, got {name!r}; ipybatch.history() lists them"
        raise InputError(msg)
    return found


def recorded_items(journal: Journal, found: Found, name: str, *, to_run: bool) -> Plan | Iterator[Any]:
    """Return the recorded plan of a session; nothing to draw for one whose items came from a generator.

    Raises:
        InputError: It cannot go on from the journal alone.
    """
    with journal.reader() as database:
        plan = Plan(plan_rows.read_plan(database, found))
    if to_run and (found.plan_hash is None or any(task.refused for task in plan)):
        msg = f"session {name!r} cannot go on from the journal alone: create it again with its items"
        raise InputError(msg)
    return iter(()) if found.plan_hash is None else plan


def present_plan(journal: Journal, name: str, plan: Plan) -> Plan:
    """Return the recorded plan of a session, which was opened with this one: its work may have brought more."""
    with journal.reader() as database:
        found = run_store.find(database, name)
        if found is None or found.plan_hash is None or found.counts.total == len(plan):
            return plan
        return Plan(plan_rows.read_plan(database, found))


def show_recorded(feed: Feed, journal: Journal, spec: Spec, plan: Plan | None, *, to_read: bool) -> None:
    """Let a new session show what is recorded of it, before it starts.

    Args:
        to_read: Show it as it ended, not as it would go on.

    Raises:
        InputError: Items have paid answers to another input on record; see `resume.check_paid`.
    """
    total = None if plan is None else len(plan)
    counts = events.Counts(total=total, pending=total or 0)
    with journal.reader() as database:
        found = None if spec.fresh else run_store.find(database, spec.name)
        if found is not None and to_read:
            _show_as_it_ended(feed, database, found, spec.name, plan)
        else:
            if found is not None and plan is not None:
                check_paid(database, found, spec, plan)
                counts = preview(database, found, plan)
            feed.emit(events.Planned(feed.clock.unix_s(), spec.name, counts))
        if found is not None and not _is_reopening.get():
            _note_owner(feed, journal, found, spec.name)
    if journal.network_copy is not None:
        feed.note(journal.network_copy.note)


def known_keys(journal: Journal, spec: Spec, plan: Plan | None, keys: Any) -> frozenset[str]:
    """Return keys of items as plan and journal have them, from those that the user gives, or that `results` shows.

    Raises:
        InputError: Some are of no item, as far as is known; names them.
    """
    if isinstance(keys, str) or not isinstance(keys, Iterable):
        msg = f"keys must be a list of items' keys, got {keys!r}: pass [{keys!r}]"
        raise InputError(msg)
    if plan is not None:
        known = {task.key for task in plan}
    else:
        with journal.reader() as database:
            found = None if spec.fresh else run_store.find(database, spec.name)
            known = set() if found is None else rows.read_keys(database, found.run)
    wanted = {_spelt(key, known): key for key in keys}
    if unknown := [key for spelt, key in wanted.items() if spelt not in known]:
        more = f" and {len(unknown) - 5:,} more" if len(unknown) > 5 else ""
        msg = f"keys must be those of items of {spec.name!r}, got {', '.join(map(repr, unknown[:5]))}{more}"
        raise InputError(msg)
    return frozenset(wanted)


def _spelt(key: Any, known: set[str]) -> str:
    if isinstance(key, str) and key.startswith(("[", "{")) and key in known:
        return key  # of a list or dict, as `results` shows it
    try:
        return canonical(key)
    except (TypeError, ValueError, RecursionError):
        return repr(key)  # what JSON cannot hold is no key


def items_of(
    journal: Journal, name: str, group: int, *, offset: int, limit: int, plan: Plan | None
) -> tuple[int, list[RecordedItem]]:
    """Return how many items of a group are recorded, and some of them with their attempts, failed ones first."""
    with journal.reader() as database:
        found = run_store.find(database, name)
        if found is None:
            return 0, []
        return rows.read_items(database, found.run, group, offset=offset, limit=limit, plan=plan)


def note_if_forgotten(feed: Feed, journal: Journal, name: str, run: int) -> None:
    """Tell of a session that has ended that what it recorded is there no more."""
    with suppress(JournalError), journal.reader() as database:
        if run and run_store.find(database, name, run) is None and _FORGOTTEN not in feed.snapshot.notes:
            feed.note(_FORGOTTEN, "passing")


_FORGOTTEN = "what it recorded was deleted elsewhere since it ended: resume() or start() runs it again"


def earlier_pace(journal: Journal, name: str, snapshot: Snapshot) -> list[Mark]:
    """Return how a session's items ended before this process ran it; nothing when that is known already."""
    if snapshot.pace.is_whole:
        return []
    own = snapshot.pace.marks
    with suppress(JournalError), journal.reader() as database:  # a view goes on without it, and shows what is wrong
        found = run_store.find(database, name)
        return [] if found is None else rows.read_pace(database, found.run, own[0].at_s if own else math.inf)
    return []


_is_reopening: ContextVar[bool] = ContextVar("is_reopening", default=False)  # a session is made by `reopen`


def _note_owner(feed: Feed, journal: Journal, found: Found, name: str) -> None:
    """Tell who runs a session that was made anew, or that its process died."""
    if found.owner is not None and is_live(journal, found.run, found.owner, found.beat_s):
        if found.owner != me():
            feed.note(f"it is running {where(found.owner)}: BatchSession.open({name!r}) follows it", "passing")
    elif found.state in ("running", "paused"):
        told = "its last process ended without letting go: start() goes on with what is not recorded"
        feed.note(told, "passing")


def _show_as_it_ended(feed: Feed, database: sqlite3.Connection, found: Found, name: str, plan: Plan | None) -> None:
    at_s = feed.clock.unix_s()
    feed.emit(events.Planned(at_s, name, found.counts))
    read = rows.read_groups(database, found.run, found.group_word, at_s, plan)
    record = live_record.decode(found.live)
    groups = recalled(read, record, at_s, is_live=False)
    for group in sorted(groups, key=lambda group: group.group):
        feed.emit(group)
    if found.usd is not None:
        feed.emit(events.Spent(at_s, found.usd, None if record is None else record.budget_usd))
    feed.snapshot.facts = [] if record is None else record.facts
    for note in found.notes:
        feed.note(note)
    if found.state in events.ENDED:
        ended_s = found.ended_s or at_s
        feed.snapshot.ended_before = found.counts.tried
        feed.snapshot.started_s = ended_s - found.seconds
        feed.emit(events.StateChanged(ended_s, found.state, found.reason))
