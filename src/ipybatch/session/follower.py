"""Follower: a session that another process runs, as its journal tells it.

Rule: nothing is shown that the journal does not tell.  What is in flight is as
its process told it a second ago; of an earlier version's, which does not tell
it, it counts as pending.

    journal --`look`, every `FOLLOW_S`--> events --> feed --> snapshot, listeners, views
    pause(), cancel(), ... --> `command` --> a row --> the owner's engine --> acknowledged --> `look`

A run is followed until its owner lets go or is gone for certain; and again once
another process has gone on with it, if somebody who shows it asks.  An owner
that has only not been heard of for long (its machine sleeps, or is another one)
is shown as interrupted, and looked for all the same.  One thread looks for all
followed sessions of a process, and ends with the last of them; it keeps none of
them in memory.
"""

from __future__ import annotations

import concurrent.futures
import logging
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import closing
from typing import Any, TypeVar

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.background import Turns, every
from ipybatch.engine.data.clock import SystemClock
from ipybatch.engine.data.events import State
from ipybatch.engine.data.fork import after_fork
from ipybatch.engine.data.masking import mask
from ipybatch.engine.feed import live_record
from ipybatch.engine.feed.feed import Feed
from ipybatch.engine.feed.live_record import LiveRecord
from ipybatch.engine.feed.session_view import Elsewhere, Reply
from ipybatch.engine.run.engine_thread import COMMAND_S
from ipybatch.engine.store import commands, lease, resources, rows, run_store
from ipybatch.engine.store.journal import Journal
from ipybatch.engine.store.run_store import Found
from ipybatch.errors import EngineBusy, InputError, JournalError, JournalLocked

FOLLOW_S = 1.0
_HALF_A_DAY_S = 12 * 3600.0
_LOOK_S = 0.02  # between two looks for what becomes of a command
_REST = 20  # groups are read again after so many times the time that it took

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Follower:
    """One run that another process holds.

    Attributes:
        ended: Done when it runs no more, as far as is known.
    """

    def __init__(self, name: str, feed: Feed, journal: Journal, found: Found, go_on: str) -> None:
        """Follow a run once it is told to `begin`.

        Args:
            go_on: How to go on with it once its process is gone.
        """
        self.ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._feed, self._journal, self._go_on = feed, journal, go_on
        self._name, self._found = name, found
        self._meant = found  # as whoever commands it has seen it
        self._is_over = self._is_dropped = self._is_looking = False
        self._lock = threading.RLock()
        self._groups_s = 0.0  # when they may be read again
        self._live: bytes | None = None  # as `_record` was read from
        self._record: LiveRecord | None = None
        self._untaken: dict[int, tuple[str, float]] = {}  # verb, and when it was asked, by command
        self._notes: dict[str, str] = {}  # what holds now, by what it is about

    def begin(self) -> None:
        """Show how it stands, and look again every `FOLLOW_S`."""
        feed, counts = self._feed, self._found.counts
        if counts != feed.snapshot.counts:  # shown as it would go on
            feed.emit(events.Planned(feed.clock.unix_s(), self._name, counts))
        feed.snapshot.ended_before = max(0, counts.tried - feed.snapshot.ended_here)
        if self.look_again():
            _watch(self)

    @property
    def is_over(self) -> bool:
        """Whether it is followed no more."""
        return self._is_over

    @property
    def elsewhere(self) -> Elsewhere | None:
        """Where it is running; None when nobody does, as far as is known."""
        owner = self._found.owner
        if self._is_over or owner is None or self._feed.snapshot.state == "interrupted":
            return None
        untaken = tuple(self._untaken.values())  # the thread that looks changes them
        return Elsewhere(lease.where(owner), frozenset(verb for verb, _ in untaken), self._record is not None)

    @property
    def record(self) -> LiveRecord | None:
        """What its process last told of the moment; None when that is not there any more, or tells nothing."""
        return None if self.elsewhere is None else self._record

    def look_again(self) -> bool:
        """Look, as is done every `FOLLOW_S`: whoever commands it sees what was published."""
        is_followed = self.look()
        self._meant = self._found
        return is_followed

    def look(self) -> bool:
        """Publish what is new in the journal; return whether it is followed on."""
        with self._lock:
            if self._is_over or self._is_looking:  # a listener asks in the midst of it
                return not self._is_over
            self._is_looking = True
            try:
                self._look()
            finally:
                self._is_looking = False
            return not self._is_over

    def revive(self) -> None:
        """Follow it again, if another process has gone on with it since; nothing tells us, so whoever shows it asks.

        Raises:
            JournalError: The journal cannot be read.
        """
        with self._lock:
            if not self._is_over or self._is_dropped:
                return
            if run_elsewhere(self._journal, self._name, self._found.run) is None:
                return
            self._is_over = False
            self._live = None
            if self.look_again():
                _watch(self)

    def ask(self, question: Callable[[], T]) -> T:
        """Answer a question while nothing moves.

        Raises:
            EngineBusy: A listener has kept it from being answered for a second.
        """
        if not self._lock.acquire(timeout=COMMAND_S):
            msg = f"session {self._name!r} did not answer within {COMMAND_S:g} s: a listener of it takes its time"
            raise EngineBusy(msg)
        try:
            return question()
        finally:
            self._lock.release()

    def stop(self) -> None:
        """Follow it no more: it was taken over, or deleted, here."""
        with self._lock:
            self._is_over = self._is_dropped = True
            self._tell_end()

    def command(self, verb: str, **arguments: Any) -> Reply:
        """Ask the owner to do something, and wait up to `COMMAND_S` until it has.

        Returns:
            "done", also when nobody runs it any more; "asked" when the owner has not taken it, which a note says: it
            does so as soon as it can; of a cancel also when it has not ended yet.

        Raises:
            InputError: The owner refused it; says why.
            JournalError: It could not be asked; or it ended meanwhile, and another start of it is not what is meant.
        """
        begun_s = time.monotonic()
        until_s = begun_s + COMMAND_S
        while self._is_meant():
            asked = self._ask(verb, arguments)
            if not asked and time.monotonic() > until_s:
                msg = f"session {self._name!r} could not be asked: it changes hands, or its journal is locked"
                raise JournalLocked(msg)
            said = self._answer(asked, until_s) if asked else commands.OVER
            if said is None:
                self._wait_for(asked, verb, begun_s)
                return "asked"
            if said == commands.OVER:
                continue  # where its process died, whoever goes on with it is asked anew
            self.look()
            if said:
                raise InputError(said)
            return "asked" if verb == "cancel" and not self._wait() else "done"
        return "done"

    def _is_meant(self) -> bool:
        """Return whether it is followed on; refuse a start that was begun after the one that is meant had ended."""
        if not self.look():
            return False
        meant, found = self._meant, self._found
        if found.epoch != meant.epoch and (found.ended_s or 0.0) >= (meant.begun_s or 0.0) > 0.0:
            msg = f"session {self._name!r} had ended, and was begun again just now: ask again if that is meant"
            self._meant = found
            raise JournalLocked(msg)
        return True

    def _ask(self, verb: str, arguments: dict[str, Any]) -> int:
        run, epoch, at_s = self._found.run, self._found.epoch, self._feed.clock.unix_s()
        try:
            return commands.ask(self._journal, run, epoch, verb, arguments, at_s, lease.me())
        except (TypeError, msgspec.MsgspecError) as error:
            msg = f"{verb} must be given what JSON can hold: {error}"
            raise InputError(msg) from None

    def _wait_for(self, asked: int, verb: str, asked_s: float) -> None:
        """Say that a command is not taken yet, and when it is."""
        with self._lock:
            self._untaken[asked] = verb, asked_s
            process = lease.process_of(self._found.owner or "")
            why = "it may be stopped, busy with code that holds Python's lock, or run an older ipybatch"
            self._note(verb, f"{process} has not taken {_word(verb)} yet: {why}")

    def _note(self, about: str, text: str) -> None:
        """Note how something stands now, in place of how it stood; "" for nothing."""
        before = self._notes.get(about, "")
        if before != text:
            self._feed.note(before, "over")
        if text:
            self._feed.note(text, "passing")
        self._notes[about] = text

    def _wait(self) -> bool:
        """Wait for the end, up to `COMMAND_S`; return whether it has ended."""
        until_s = time.monotonic() + COMMAND_S
        while self.look() and time.monotonic() < until_s:
            time.sleep(_LOOK_S)
        return self._is_over

    def _answer(self, asked: int, until_s: float) -> str | None:
        with closing(self._journal.connect()) as database:
            while (said := commands.answer(database, asked)) is None and time.monotonic() < until_s:
                time.sleep(_LOOK_S)
        return said

    def _look(self) -> None:
        try:
            with self._journal.reader() as database:
                found = run_store.find(database, self._name, self._found.run)
                newer = run_store.find(database, self._name) if found is None or found.owner is None else None
                groups = [] if found is None else self._read_groups(database, found)
                answers = {command: commands.answer(database, command) for command in self._untaken}
        except JournalLocked:
            return  # by another program; the next look may do
        except JournalError as error:  # it ends the session there, too
            self._end("failed", str(error), self._feed.clock.unix_s())
            return
        self._tell_answers(answers)
        if found is not None and found.owner is not None:
            self._show_cool_downs(found.resource)
        if found is None:
            self._end("interrupted", "what it recorded was deleted elsewhere", self._feed.clock.unix_s())
            return
        self._show(found, groups)
        self._judge(found, newer)

    def _show(self, found: Found, groups: list[events.GroupRecalled]) -> None:
        """Publish what was recorded since the last look."""
        snapshot, at_s = self._feed.snapshot, self._feed.clock.unix_s()
        if found.live != self._live:
            self._live, self._record = found.live, live_record.decode(found.live)
        record, is_live = self._record, self._is_heard(found)
        counts = record.counts(found.counts) if record is not None and is_live else found.counts
        if counts != snapshot.counts:
            self._feed.emit(events.Counted(at_s, counts))
        self._show_breaker(found, at_s)
        self._show_wait(found, at_s)
        snapshot.facts = [] if record is None else record.facts
        groups = [*live_record.recalled(groups, self._record, at_s, is_live=is_live)]
        for group in (group for group in groups if not _is_shown(group, snapshot.groups.get(group.group))):
            self._feed.emit(group)
        for note in found.notes:
            self._feed.note(note)
        for note in self._found.notes:
            if note not in found.notes:
                self._feed.note(note, "over")
        if found.usd not in (None, snapshot.spent_usd):
            budget_usd = None if self._record is None else self._record.budget_usd
            self._feed.emit(events.Spent(at_s, found.usd, budget_usd))

    def _show_wait(self, found: Found, at_s: float) -> None:
        """Publish until when nothing starts by the clock on the wall, where that is news."""
        told = self._record.adjourned if self._record is not None and self._is_heard(found) else None
        shown = self._feed.snapshot.adjourned
        if told != (None if shown is None else (shown.until_s, shown.reason)):
            self._feed.emit(events.Adjourned(at_s, *(told or (0.0, "it waits no more"))))

    def _show_breaker(self, found: Found, at_s: float) -> None:
        """Publish how the breaker stands, where it moved."""
        record = self._record
        if record is None or not self._is_heard(found) or record.breaker == self._feed.snapshot.breaker:
            return
        told = record.breaker
        if not told.limit_group and (before := self._feed.snapshot.breaker).limit_group:
            self._feed.emit(events.BreakerMoved(at_s, "closed", 0, 0, 0.0, before.limit_group))
        self._feed.emit(
            events.BreakerMoved(at_s, told.state, told.failures, told.openings, told.probe_at_s, told.limit_group)
        )
        self._feed.snapshot.last_error = record.last_error

    def _show_cool_downs(self, resource: str) -> None:
        """Publish which cool-downs hold, that began or were lifted since the last look."""
        cooling = resources.cooling(self._journal, resource)
        if cooling is None:
            return
        snapshot, at_s = self._feed.snapshot, self._feed.clock.unix_s()
        shown = {name: event.until_s for name, event in snapshot.cools.items() if event.until_s > at_s + FOLLOW_S}
        for name, (left_s, why) in cooling.items():
            if at_s + left_s > shown.pop(name, 0.0) + FOLLOW_S:
                self._feed.emit(events.CooledDown(at_s, at_s + left_s, mask(why), name, resource))
        for name in shown:
            self._feed.emit(events.CooledDown(at_s, 0.0, "it was lifted", name, resource))

    def _judge(self, found: Found, newer: Found | None) -> None:
        """Publish how it stands, and follow it no more when nobody holds it."""
        owner, before = found.owner, self._found.owner
        if found.state not in events.ENDED:
            self._set_clock(found)
        if owner is None:  # `elsewhere` is as before until the end is told
            if found.state in ("running", "paused"):
                self._end("interrupted", self._ended_silently(before), found.beat_s)
            else:
                self._end(found.state, found.reason, found.ended_s or found.beat_s)
            if newer is not None and newer.run != found.run:
                self._feed.note(f"it was begun anew: BatchSession.open({self._name!r}) opens that")
            return
        self._found = found
        if self._is_heard(found):
            self._go_on_following(found, owner)
        elif lease.may_live(owner):
            form = "%H:%M:%S" if time.time() - found.beat_s < _HALF_A_DAY_S else "%H:%M on %Y-%m-%d"
            heard = time.strftime(form, time.localtime(found.beat_s))
            reason = f"{lease.process_of(owner)} was last heard of at {heard}: if it is gone, {self._go_on}"
            self._change("interrupted", reason, found.beat_s)
        else:
            self._end("interrupted", self._ended_silently(owner), found.beat_s)

    def _is_heard(self, found: Found) -> bool:
        """Return whether its owner is there, as far as is known: what that told of the moment holds."""
        return lease.is_live(self._journal, found.run, found.owner, found.beat_s)

    def _ended_silently(self, owner: str | None) -> str:
        process = "its process" if owner is None else lease.process_of(owner)
        return f"{process} ended without letting go: {self._go_on}"

    def _go_on_following(self, found: Found, owner: str) -> None:
        at_s = self._feed.clock.unix_s()
        self._change("paused" if found.state == "paused" else "running", "", at_s)
        self._show_breaker(found, at_s)  # one that has just begun is taken for closed
        self._note("", f"it is running {lease.where(owner)}, and is followed here")
        self._set_clock(found)  # the change has set it to now

    def _set_clock(self, found: Found) -> None:
        """Count its seconds from its own start, not since somebody looks."""
        if found.begun_s is not None:
            self._feed.snapshot.started_s, self._feed.snapshot.before_s = found.begun_s, found.seconds

    def _change(self, state: State, reason: str, at_s: float) -> None:
        snapshot = self._feed.snapshot
        if (state, reason) == (snapshot.state, snapshot.reason):
            return
        self._feed.emit(events.StateChanged(at_s, state, reason))
        if state in events.ENDED:
            self._tell_end()
        elif self.ended.done():  # it is heard of again
            self.ended = concurrent.futures.Future()

    def _end(self, state: State, reason: str, at_s: float) -> None:
        self._change(state, reason, at_s)
        self._is_over = True
        self._tell_end()

    def _tell_end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def _tell_answers(self, answers: dict[int, str | None]) -> None:
        """Say what became of commands that were not taken at once."""
        for command, said in answers.items():
            if said is None:
                continue
            verb, asked_s = self._untaken.pop(command)
            if verb not in {other for other, _ in self._untaken.values()}:
                self._note(verb, "")
            after = f"{time.monotonic() - asked_s:.0f} s after it was asked"
            self._feed.note(f"{_word(verb)} was not done: {said}" if said else f"{_word(verb)} was taken {after}")

    def _read_groups(self, database: sqlite3.Connection, found: Found) -> list[events.GroupRecalled]:
        """Return the groups that changed; reading them takes a walk over all items on record."""
        begun_s = time.monotonic()
        if begun_s < self._groups_s and found.owner is not None:
            return []
        known = self._feed.snapshot.groups
        if not known and found.owner is not None and not rows.has_groups(database, found.run):
            return []
        at_s = self._feed.clock.unix_s()
        read = list(rows.read_groups(database, found.run, found.group_word, at_s))
        self._groups_s = begun_s + _REST * (time.monotonic() - begun_s)
        return read


def _is_shown(read: events.GroupRecalled, known: Any) -> bool:
    if known is None:
        return False
    done = read.items if read.done is None else read.done
    if (known.done, known.failed, known.ended_s) != (done, read.failed, read.ended_s):
        return False
    return read.status is None or (known.status, known.extra, known.error) == (read.status, read.extra, read.error)


def _word(verb: str) -> str:
    return verb.replace("_", " ")


def run_elsewhere(journal: Journal, name: str, run: int) -> Found | None:
    """Return a run of a session if another process has it now.

    Raises:
        JournalError: The journal cannot be read.
    """
    with journal.reader() as database:
        found = run_store.find(database, name, run)
    if found is None or found.owner is None or not lease.may_live(found.owner):
        return None
    return found if lease.is_live(journal, found.run, found.owner, found.beat_s) else None


def command(journal: Journal, name: str, verb: str) -> Reply:
    """Ask whoever runs a session to do something, as `Follower.command` does; its items are not read.

    Raises:
        InputError: No session of that name is recorded.
        JournalError: It could not be asked.
    """
    with journal.reader() as database:
        found = run_store.find(database, name)
    if found is None:
        msg = f"name must be that of a recorded session, got {name!r}"
        raise InputError(msg)
    return Follower(name, Feed(SystemClock()), journal, found, "").command(verb)


_followed: weakref.WeakSet[Follower] = weakref.WeakSet()
_changing = threading.Lock()
_thread: threading.Thread | Turns | None = None


def _watch(follower: Follower) -> None:
    """Look at it from now on, as long as anybody else has it."""
    global _thread
    with _changing:
        _followed.add(follower)
        if _thread is None:
            _thread = every(FOLLOW_S, _look_at_all, "ipybatch-follow")


def _look_at_all() -> float | None:
    global _thread
    with _changing:
        followed = list(_followed)
        if not followed:
            _thread = None  # the next one that is followed starts another
            return None
    while followed:
        _look_at(followed.pop())
    return FOLLOW_S


def _look_at(follower: Follower) -> None:
    try:
        is_followed = follower.look_again()
    except Exception:  # the others are followed all the same
        _log.exception("a session could not be followed")
        is_followed = True
    if not is_followed:
        with _changing:
            _followed.discard(follower)


def _forget() -> None:
    """Follow none after a fork: the thread is the parent's, and what it may have locked stays so."""
    global _changing, _thread
    for follower in _followed:
        follower._is_over, follower._lock = True, threading.RLock()
    _followed.clear()
    _changing, _thread = threading.Lock(), None


after_fork(_forget)
