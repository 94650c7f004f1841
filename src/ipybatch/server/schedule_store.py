"""Schedule store: what is submitted again and again, as rows of the default journal; what is due becomes a submission.

Rule: a time is submitted once, whoever looks: the submission is made, and the schedule moved on, in one transaction,
by whoever finds the row still as it was read.  Its idempotency key is the schedule and the time, so that a clock that
is set back makes nothing twice.

    server, every five seconds -.
    `run_due`, from cron -------+--> `due` --> `judge` --> check the request --> one transaction: submission and next_s
    "run_now", an answer -------'

Each time is a new run, with a session of its own: "NAME 2026-12-01 22:00".  While one before has not ended, a time is
skipped.  What becomes no run by itself is told by the channels of its submission, in the transaction that notes it.

One subject, hence its length: the life of a schedule.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ipybatch.engine.data.masking import describe, mask
from ipybatch.engine.data.notice import Kind, Notice
from ipybatch.engine.data.plan import short
from ipybatch.engine.store import journal as journals
from ipybatch.engine.store import outbox
from ipybatch.engine.store.journal import open_journal, to_disk
from ipybatch.errors import BatchError, InputError, JournalError
from ipybatch.server import schedule_rows as rows
from ipybatch.server.notify_request import Unrun, put_unrun, to_notify
from ipybatch.server.options import DEFAULTS, Options
from ipybatch.server.schedule_rows import Ran, Row
from ipybatch.server.schedule_timing import (
    Verdict,
    judge,
    local,
    missed_words,
    question_of,
    read_timing,
    recurrence_of,
    timing_of,
)
from ipybatch.server.submission_order import to_order
from ipybatch.server.submission_rows import Conflict, Order
from ipybatch.server.submission_rows import Row as Submitted
from ipybatch.server.submission_store import Submissions
from ipybatch.server.templates import WrongField, resolve
from ipybatch.server.wire import ScheduleAnswer, ScheduleRequest, ScheduleTiming, ScheduleVerb, SubmissionRequest
from ipybatch.session.arguments import check_name

NAME_LENGTH = 120  # a session's is longer, by a time

_log = logging.getLogger(__name__)

T = TypeVar("T")
Teller = Callable[[sqlite3.Connection, Unrun, float, str, float | None], None]


class NoSuchSchedule(InputError):
    """There is none of this name."""


class Changed(InputError):
    """A schedule is not any more as it was read."""


class _Known(Conflict):
    """A time was submitted before: nobody has to be told."""


class Schedules:
    """The schedules of one journal.

    Args:
        journal: Its path; default: the default one, where servers look.
        unix_s: What tells the time.
    """

    def __init__(self, journal: Path | None = None, *, unix_s: Callable[[], float] = time.time) -> None:
        self.path = journals.resolved(journal or journals.default_path())
        self.submissions = Submissions(self.path, unix_s=unix_s)
        self._unix_s = unix_s

    # What is on record

    def read(self, question: Callable[[sqlite3.Connection], T], nothing: T) -> T:
        """Return the answer to a question; ``nothing`` where there is no journal, or one before there were schedules.

        Raises:
            JournalError: It cannot be read.
        """
        return rows.ask(self.path, question, nothing)

    def find(self, name: str) -> Row:
        """Return one by its name.

        Raises:
            NoSuchSchedule: There is none.
            JournalError: The journal cannot be read.
        """
        found = self.read(lambda database: rows.find(database, name), None)
        if found is None:
            msg = f"there is no schedule {short(name)}"
            raise NoSuchSchedule(msg)
        return found

    def page(self, limit: int, after: str = "") -> list[tuple[Row, Ran | None]]:
        """Return some by name, each with what its latest time became: in one look, as there may be thousands.

        Args:
            after: Only those after this name; "" for all.

        Raises:
            JournalError: The journal cannot be read.
        """

        def question(database: sqlite3.Connection) -> list[tuple[Row, Ran | None]]:
            return [(row, rows.last_of(database, row)) for row in rows.page(database, limit, after)]

        return self.read(question, [])

    def last(self, row: Row) -> Ran | None:
        """Return what the latest time of a schedule became; None for nothing yet.

        Raises:
            JournalError: The journal cannot be read.
        """
        return self.read(lambda database: rows.last_of(database, row), None)

    # What users do

    def draft(self, name: str, request: ScheduleRequest, options: Options, before: Row | None = None) -> Row:
        """Return what a schedule would be, checked; nothing is written.

        Args:
            before: The one that it is to replace.

        Raises:
            WrongField: A field is not what it must be.
            BatchError: What it submits cannot be submitted, as its template tells it.
        """
        _check_name(name)
        now_s = self._unix_s()
        timing = read_timing(request, now_s, before)
        _check_submission(request.submission, options)
        rule = timing.recurrence
        is_same = before is not None and rule == recurrence_of(before)
        goes_on = is_same and before is not None and (request.paused or not before.is_paused)
        made = Row(
            number=0,
            id=secrets.token_hex(8),
            name=name,
            request=msgspec.json.encode(request.submission, order="sorted"),
            timing=msgspec.json.encode(timing.given),
            account=options.account,
            max_requests=options.max_requests,
            created_s=now_s,
            anchor_s=rule.anchor_s,
            start_s=rule.start_s,
            until_s=rule.until_s,
            next_s=before.next_s if goes_on and before is not None else rule.next_s(now_s),
            moved_s=before.moved_s if goes_on and before is not None else now_s,
            is_paused=int(request.paused),
        )
        if before is None:
            return made
        kept = ("number", "id", "created_s", "last_s", "submission", "note", "version")
        asks: tuple[str, ...] = ()
        if is_same and before.question_s is not None:
            if request.misfire == "ask":
                asks = ("question_s", "question_from_s", "missed")
            elif goes_on:  # what it asked about is decided as it says now
                made = msgspec.structs.replace(made, next_s=before.question_from_s)
        return msgspec.structs.replace(made, **{field: getattr(before, field) for field in (*kept, *asks)})

    def put(self, name: str, request: ScheduleRequest, options: Options = DEFAULTS, before: Row | None = None) -> Row:
        """Make a schedule, or change one, and return it.

        Args:
            before: The one that is changed, as it was read; None for a new one.

        Raises:
            WrongField: A field is not what it must be.
            Changed: There is one of this name, or it is not any more as it was read.
            BatchError: What it submits cannot be submitted, as its template tells it.
            JournalError: The journal cannot be written.
        """
        made = self.draft(name, request, options, before)

        def unit(database: sqlite3.Connection) -> Row | BatchError | None:
            found = rows.find(database, name)
            if _is_other(found, before):
                return _changed(name, found)
            if before is None:
                rows.insert(database, made)
            else:
                fixed = ("number", "id", "name", "created_s", "version")
                rows.update(
                    database,
                    before,
                    **{field: getattr(made, field) for field in Row.__struct_fields__ if field not in fixed},
                )
            return rows.find(database, name)

        return self._written(unit)

    def remove(self, before: Row) -> None:
        """Remove a schedule; what it has submitted stays, and runs on.

        Raises:
            Changed: It is not any more as it was read.
            JournalError: The journal cannot be written.
        """

        def unit(database: sqlite3.Connection) -> Row | BatchError:
            found = rows.find(database, before.name)
            if found is None or _is_other(found, before):
                return _changed(before.name, found)
            rows.delete(database, found)
            return found

        self._written(unit)

    def command(self, name: str, verb: ScheduleVerb, answer: ScheduleAnswer | None = None) -> Row:
        """Pause or resume a schedule, submit it now, or answer what it asks, and return it.

        Raises:
            NoSuchSchedule: There is none of this name.
            WrongField: There is no such answer, or no question.
            Conflict: It cannot be submitted, as the one before has not ended.
            BatchError: It cannot be submitted, as its template tells it; too few credits.
            JournalError: The journal cannot be written.
        """
        if (verb == "answer") != (answer is not None):
            msg = f"answer belongs to the verb 'answer', got verb={verb!r}, answer={answer!r}"
            raise WrongField("answer", msg, value=answer, allowed=["run", "skip"])
        while True:
            row, now_s = self.find(name), self._unix_s()
            try:
                self._execute(row, verb, answer, now_s)
            except Changed:
                continue  # a server submitted it just then
            return self.find(name)

    def _execute(self, row: Row, verb: ScheduleVerb, answer: ScheduleAnswer | None, now_s: float) -> None:
        if verb == "pause":
            self._change(row, is_paused=1)
        elif verb == "resume":
            moved: dict[str, Any] = {}
            if row.is_paused:
                moved = {"next_s": recurrence_of(row).next_s(now_s), "moved_s": now_s}
            self._change(row, is_paused=0, **moved)
        elif verb == "run_now":
            self._submit(row, now_s, {}, is_asked=True)
        elif row.question_s is None:
            msg = f"schedule {row.name!r} asks nothing"
            raise WrongField("verb", msg, value=verb, allowed=["pause", "resume", "run_now"])
        elif answer == "run":
            said = missed_words(row.missed, row.question_from_s or row.question_s, row.question_s, _zone_of(row))
            self._submit(row, row.question_s, _moved_on(row, now_s), is_asked=True, note=said)
        else:
            self._skip(row, row.question_from_s or row.question_s, row.question_s, row.missed, now_s, is_asked=True)

    # What is due

    def submit_due(self) -> list[Submitted]:
        """Submit what is due, each time once, and return what was made.

        One that cannot be submitted is told in its note, and moves on.

        Raises:
            JournalError: The journal cannot be read or written: the next look finds it due.
        """
        now_s = self._unix_s()
        found: list[Row] = self.read(lambda database: list(rows.due(database, now_s)), [])
        made = []
        for row in found:
            try:
                submitted = self._move(row, judge(row, now_s), now_s)
            except Changed:  # another process was quicker
                continue
            except JournalError:
                raise
            except Exception as error:  # it keeps no other one from being submitted
                self._cannot(row, error)
                continue
            if submitted is not None:
                made.append(submitted)
        return made

    def _cannot(self, row: Row, error: Exception) -> None:
        """Tell why it cannot be said when a schedule is due: once, as every look finds the same."""
        said = mask(f"it cannot be said when it is due: {error if isinstance(error, BatchError) else describe(error)}")
        if row.note == said:
            return
        _log.warning("schedule %s: %s", row.name, said, exc_info=not isinstance(error, BatchError))
        tell, due_s = self._teller(row), row.next_s or row.moved_s
        with suppress(Changed):
            self._change(row, lambda database: tell(database, "refused", due_s, said, row.next_s), note=said)

    def _move(self, row: Row, verdict: Verdict, now_s: float) -> Submitted | None:
        """Do what is to be done about a schedule now; return what was submitted.

        Raises:
            Changed: It is not any more as it was read.
        """
        moved = _moved_on(row, now_s)
        if verdict.what == "again":
            self._change(row, **moved)
        elif verdict.what == "skip":
            self._skip(row, verdict.from_s, verdict.due_s, verdict.missed, now_s, is_asked=False)
        elif verdict.what == "ask":
            asked = {"question_s": verdict.due_s, "question_from_s": verdict.from_s, "missed": verdict.missed}
            said = question_of(msgspec.structs.replace(row, **asked))
            tell, next_s = self._teller(row), moved["next_s"]
            self._change(
                row, lambda database: tell(database, "asks", verdict.due_s, said, next_s), **{**moved, **asked}
            )
        elif verdict.what == "submit":
            words = missed_words(verdict.missed, verdict.from_s, verdict.due_s, _zone_of(row)) if verdict.missed else ""
            return self._submit(row, verdict.due_s, moved, note=words)
        return None

    def _skip(  # what was missed
        self, row: Row, from_s: float, due_s: float, missed: int, now_s: float, *, is_asked: bool
    ) -> None:
        said = f"{missed_words(missed, from_s, due_s, _zone_of(row))}, and skipped"
        tell, moved = self._teller(row), _moved_on(row, now_s)

        def also(database: sqlite3.Connection) -> None:
            if not is_asked:  # whoever said so knows it
                tell(database, "missed", due_s, said, moved["next_s"])

        self._change(row, also, note=said, **moved)

    def _teller(self, row: Row) -> Teller:
        """Return what tells that a time of a schedule becomes no run: whom its submission names, or its template."""
        request, notify = msgspec.json.decode(row.request, type=SubmissionRequest), None
        with suppress(BatchError):  # the template is gone
            request = resolve(request)
        with suppress(InputError):  # a later version wrote it
            notify = to_notify(request)
        zone, at_s = timing_of(row).zone or "UTC", self._unix_s()

        def tell(database: sqlite3.Connection, why: Unrun, due_s: float, said: str, next_s: float | None) -> None:
            if notify is None:
                return
            kind: Kind = "asks" if why == "asks" else "skipped"
            told = Notice(kind=kind, name=row.name, state="planned", at_s=at_s, reason=said)
            notice = msgspec.structs.replace(told, next_s=next_s or 0.0, zone=zone)
            put_unrun(database, row.id, notify, notice, due_s, why=why)

        return tell

    def _submit(
        self, row: Row, due_s: float, moved: Mapping[str, object], *, is_asked: bool = False, note: str = ""
    ) -> Submitted | None:
        """Make a submission of a time, and move the schedule on.

        Args:
            moved: What of the row changes, whatever comes of it.
            is_asked: A user waits: what keeps it from being submitted is raised, and nothing is written.
            note: What was missed.

        Raises:
            Changed: It is not any more as it was read.
            BatchError: It cannot be submitted, and somebody asked.
            JournalError: The journal cannot be read or written.
        """
        when = local(due_s, _zone_of(row), "%Y-%m-%d %H:%M:%S").removesuffix(":00")
        order = self._order(row, due_s, when, is_asked=is_asked)
        fold = self.submissions.fold_of(order) if isinstance(order, Order) else None
        now_s = self._unix_s()
        tell, next_s = self._teller(row), recurrence_of(row).next_s(now_s)
        began = f"{note}: submitted once, {local(now_s, _zone_of(row))}" if note else ""

        def unit(database: sqlite3.Connection) -> Submitted | BatchError | None:
            found = rows.find(database, row.name)
            if _is_other(found, row):
                return _changed(row.name, found)
            refusal = _why_not(database, row, order)
            made: Submitted | BatchError | None = None
            if refusal is None and isinstance(order, Order) and fold is not None:
                named = msgspec.structs.replace(order, name=_free_name(database, order.name))
                made = self.submissions.insert(database, journal, named, fold)
            if isinstance(made, Submitted):
                rows.update(database, row, note=mask(began), last_s=due_s, submission=made.id, **moved)
                return made
            refusal = made if made is not None else refusal
            if is_asked:
                return refusal if isinstance(refusal, BatchError) else Conflict(str(refusal))
            said = mask(_told(when, refusal))
            rows.update(database, row, note=said, **moved)
            if not isinstance(refusal, _Known):
                tell(database, "busy" if isinstance(refusal, Conflict) else "refused", due_s, said, next_s)
            return None

        journal = open_journal(self.path)
        made = self.submissions.written(unit)
        if made is None:
            outbox.announce(journal)
        if made is not None and made.reservation is not None:
            to_disk(journal.path)  # before anything is bought with it
        return made

    def _order(self, row: Row, due_s: float, when: str, *, is_asked: bool) -> Order | str:
        """Return what is to be created for a time, or why that cannot be.

        Raises:
            BatchError: It cannot be, and somebody asked.
            JournalError: The journal cannot be read: another look may do.
        """
        at = dt.datetime.fromtimestamp(due_s, dt.UTC).isoformat()
        request = msgspec.structs.replace(
            msgspec.json.decode(row.request, type=SubmissionRequest), name=f"{row.name} {when}"
        )
        options = dataclasses.replace(DEFAULTS, account=row.account, max_requests=row.max_requests)
        try:
            return to_order(request, options, idempotency=rows.key_of(row, at), at_once=True, unattended=not is_asked)
        except JournalError:
            raise
        except BatchError as error:
            if is_asked:
                raise
            return str(error)
        except Exception as error:  # of a template
            if is_asked:
                raise
            _log.exception("schedule %s cannot be submitted", row.name)
            return describe(error)

    def _change(
        self, row: Row, also: Callable[[sqlite3.Connection], None] = lambda database: None, **changes: object
    ) -> None:
        def unit(database: sqlite3.Connection) -> Row | BatchError:
            found = rows.find(database, row.name)
            if found is None or _is_other(found, row):
                return _changed(row.name, found)
            rows.update(database, found, **changes)
            also(database)
            return found

        self._written(unit)
        outbox.announce(open_journal(self.path))

    def _written(self, unit: Callable[[sqlite3.Connection], Row | BatchError | None]) -> Row:
        written = self.submissions.written(unit)
        assert isinstance(written, Row)  # what it refuses was raised
        return written


def _check_name(name: str) -> None:
    try:
        check_name(name)
    except InputError as error:
        raise WrongField("name", str(error), value=name) from None
    if name in {".", ".."}:
        msg = f"name must be another one, got {name!r}: in an address it is a folder"
        raise WrongField("name", msg, value=name)
    if len(name) > NAME_LENGTH:
        msg = f"name must be a text of 1 to {NAME_LENGTH} characters, got {len(name)}"
        raise WrongField("name", msg, value=name, allowed={"maxLength": NAME_LENGTH})


def _check_submission(request: SubmissionRequest, options: Options) -> None:
    """Check what is submitted, as POST /submissions would.

    Raises:
        WrongField: A field is not what it must be.
        BatchError: It cannot be submitted, as its template tells it.
    """
    if request.name:
        msg = "submission.name must be left out: each run has the schedule's name, and its time"
        raise WrongField("submission.name", msg, value=request.name)
    for field in ("start_at", "zone"):
        if (value := getattr(request, field)) is not None:
            msg = f"submission.{field} must be left out: {field} of the schedule says when"
            raise WrongField(f"submission.{field}", msg, value=value)
    try:
        to_order(request, options, at_once=True)
    except WrongField as error:
        error.field = f"submission.{error.field}"
        raise


def _moved_on(row: Row, now_s: float) -> dict[str, Any]:
    """Return the columns of a schedule of which nothing is open any more."""
    nothing = {"question_s": None, "question_from_s": None, "missed": 0}
    return {"next_s": recurrence_of(row).next_s(now_s), "moved_s": now_s, **nothing}


def _zone_of(row: Row) -> str:
    given: ScheduleTiming = timing_of(row)
    return given.zone or "UTC"


def _is_other(found: Row | None, before: Row | None) -> bool:
    return (found and (found.id, found.version)) != (before and (before.id, before.version))


def _changed(name: str, found: Row | None) -> Changed:
    said = "was removed" if found is None else "is not any more as it was read"
    return Changed(f"schedule {name!r} {said}")


def _why_not(database: sqlite3.Connection, row: Row, order: Order | str) -> BatchError | str | None:
    """Return why a time of a schedule becomes no submission now; None where it may."""
    before = rows.open_run(database, row)  # of any time: one that ended may run once more
    if before is not None:
        return Conflict(f"the run before it, {before!r}, has not ended")
    if isinstance(order, Order) and _is_known(database, order):
        return _Known("it was submitted before: the clock was set back")
    return order if isinstance(order, str) else None


def _is_known(database: sqlite3.Connection, order: Order) -> bool:
    asked = "SELECT 1 FROM submission WHERE idempotency = ?"
    return database.execute(asked, (order.idempotency,)).fetchone() is not None


def _free_name(database: sqlite3.Connection, name: str) -> str:
    """Return the name of a new session: a double hour, or another schedule of this name, had the same."""
    number = 1
    told = name
    while rows.is_taken(database, told):
        number += 1
        told = f"{name} ({number})"
    return told


def _told(when: str, refusal: BatchError | str | None) -> str:
    if isinstance(refusal, Conflict):
        return f"{when} was skipped: {refusal}"
    return f"{when} was not submitted: {refusal}"
