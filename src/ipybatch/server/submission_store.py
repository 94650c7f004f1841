"""Submission store: what was submitted, as rows of the default journal, and which of them runs next.

Rule: credits are reserved, taken and given back in the transaction that says
why, and whoever writes to a row is who holds it, or has taken it over.

    `create`   one transaction: the idempotency key, the name, the credits, the row            --> PENDING
    `claim`    a server: the next one by priority and number, unless enough run                --> RUNNING, a start more
    `take`     the kernel that it started, or `python -m ipybatch run`: the row is that process's from now on
    `beat`     whoever holds it; without that, and once its process is gone, it is claimed again
    `link`     its session has begun: the run's number
    `end`      COMPLETED, FAILED, CANCELLED or ROLLED_BACK; the credits that were used are taken, the rest is free
    `cancel`   one that waits has ended with that; of one that runs it is on record, so that nobody starts it again

Owners and their beats are those of `lease`; each start is an epoch.  After
`STARTS` of them it has failed, whoever died.  Reading opens no journal and
makes none.  One subject, hence its length: the life of a submission.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from ipybatch.engine.data.masking import mask
from ipybatch.engine.store import journal as journals
from ipybatch.engine.store import journal_file, lease
from ipybatch.engine.store.journal import BUSY_S, PATIENCE_S, Journal, open_journal, to_disk
from ipybatch.engine.store.network_copy import home_of
from ipybatch.errors import BatchError
from ipybatch.gemini.money.credits import Fold, InsufficientCredits, advanced, reserve_in, used_for
from ipybatch.server import submission_rows as rows
from ipybatch.server.submission_rows import ENDED, Conflict, Ended, KeyUsed, NoSuchSubmission, Order, Row, RowState

STARTS = 3

T = TypeVar("T")


class Submissions:
    """The submissions of one journal.

    Args:
        journal: Its path; default: the default one, where servers look.
        unix_s: What tells the time.
    """

    def __init__(self, journal: Path | None = None, *, unix_s: Callable[[], float] = time.time) -> None:
        self.path = journals.resolved(journal or journals.default_path())
        self._unix_s = unix_s
        self._folds: dict[tuple[Any, ...], Fold] = {}  # states of accounts, some time ago
        self._silence: lease.Silence | None = None
        self._held: set[tuple[int, int]] = set()  # by this process
        self._lock = threading.Lock()

    # What is on record

    def read(self, question: Callable[[sqlite3.Connection], T], nothing: T) -> T:
        """Return the answer to a question; ``nothing`` where there is no journal, or one before there were submissions.

        Raises:
            JournalError: It cannot be read.
        """
        return rows.ask(self.path, question, nothing)

    def find(self, submission: str) -> Row:
        """Return one by its id.

        Raises:
            NoSuchSubmission: There is none.
            JournalError: The journal cannot be read.
        """
        found = self.read(lambda database: rows.find(database, submission), None)
        if found is None:
            msg = f"there is no submission {submission[:40]!r}"
            raise NoSuchSubmission(msg)
        return found

    def page(self, limit: int, before: int | None = None, *, waiting: bool = False) -> list[Row]:
        """Return some, the latest first.

        Args:
            before: Only those with a smaller number; None for all.
            waiting: Only those that wait.

        Raises:
            JournalError: The journal cannot be read.
        """
        only = "state = 'PENDING' AND " if waiting else ""
        asked = f"SELECT {rows.COLUMNS} FROM submission WHERE {only}number < ? ORDER BY number DESC LIMIT ?"  # noqa: S608
        values = (1 << 62 if before is None else before, limit)
        return self.read(lambda database: list(rows.read(database.execute(asked, values))), [])

    def request(self, submission: str) -> bytes:
        """Return the request as it came, as canonical JSON.

        Raises:
            NoSuchSubmission: There is none.
            JournalError: The journal cannot be read.
        """
        asked = "SELECT request FROM submission WHERE id = ?"
        found = self.read(lambda database: database.execute(asked, (submission,)).fetchone(), None)
        if found is None:
            msg = f"there is no submission {submission[:40]!r}"
            raise NoSuchSubmission(msg)
        return bytes(found[0])

    def balance(self, account: str) -> tuple[Decimal, Decimal]:
        """Return the credits of an account, and how many of them are not reserved.

        Raises:
            JournalError: The journal cannot be read.
        """
        fold = self._fold(account)
        return fold.balance, fold.available

    # From a request to the queue

    def repeated(self, idempotency: str, digest: str) -> Row | None:
        """Return what a request with this idempotency key has made; None for nothing.

        Raises:
            KeyUsed: That was another request.
            JournalError: The journal cannot be read.
        """
        found = self.read(lambda database: rows.repeated(database, idempotency, digest), None)
        if isinstance(found, KeyUsed):
            raise found
        return found

    def create(self, order: Order) -> Row:
        """Put a submission into the queue, and return it; the same one where its idempotency key comes again.

        Raises:
            InsufficientCredits: The account has too few; nothing is created.
            KeyUsed: The idempotency key was another request's.
            Conflict: A session of this name runs, or will.
            JournalError: The journal cannot be written.
        """
        fold = self.fold_of(order)
        journal = open_journal(self.path)
        row = self.written(lambda database: self.insert(database, journal, order, fold))
        if row.reservation is not None:
            to_disk(journal.path)  # before anything is bought with it
        return row

    def insert(self, database: sqlite3.Connection, journal: Journal, order: Order, fold: Fold) -> Row | BatchError:
        """Do as `create` does, within a transaction: return what it refuses, of which nothing is written.

        Args:
            fold: Of `fold_of`, from before the transaction.
        """
        now_s, made = self._unix_s(), secrets.token_hex(8)
        name = order.name or f"{order.label or order.template}-{made[:8]}"
        if order.idempotency and (before := rows.repeated(database, order.idempotency, order.digest)) is not None:
            return before
        if busy := rows.why_busy(database, journal, name):
            return busy
        reservation: int | None = None
        if order.credits:
            what = (order.account, order.credits, order.operation, rows.reference_of(made), now_s, fold)
            reserved = reserve_in(database, *what)
            if isinstance(reserved, InsufficientCredits):
                return reserved
            reservation = reserved
        database.execute(
            "INSERT INTO submission (id, name, template, request, requests, digest, idempotency, state, priority,"
            " created_s, queued_s, start_at_s, account, credits, reservation)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, 'PENDING', ?, ?, ?, ?, ?, ?, ?)",
            (
                made,
                name,
                order.template,
                order.request,
                order.requests,
                order.digest,
                order.idempotency or None,
                order.priority,
                now_s,
                now_s,
                order.start_at_s,
                order.account if order.credits else "",
                None if order.credits is None else str(order.credits),
                reservation,
            ),
        )
        return rows.get(database, made)

    def fold_of(self, order: Order) -> Fold:
        """Return the state of the account that pays an order, some time ago.

        Raises:
            JournalError: The journal cannot be read.
        """
        return self._fold(order.account) if order.credits else Fold()

    def requeue(self, run: int, verb: str) -> Row | None:
        """Put the submission of a session that has ended into the queue again; None for a session of none.

        What it has not used of its credits is reserved again.

        Args:
            run: Of the session.
            verb: "retry_failed", or "resume": only what is left.

        Raises:
            InsufficientCredits: The account has too few; it is as it was.
            Conflict: It is in the queue, or runs.
            JournalError: The journal cannot be written.
        """
        if self.read(lambda database: rows.of_run(database, run), None) is None:
            return None

        def unit(database: sqlite3.Connection) -> Row | BatchError | None:
            row = rows.of_run(database, run)
            if row is None:
                return None
            if busy := rows.why_busy(database, journal, row.name):
                return busy
            now_s, reservation = self._unix_s(), None
            if row.credits:
                used = used_for(database, row.account, rows.reference_of(row.id))
                left = max(Decimal(0), row.credits - used)
                what = (row.account, left, row.template, rows.reference_of(row.id), now_s, Fold())
                reserved = reserve_in(database, *what)
                if isinstance(reserved, InsufficientCredits):
                    return reserved
                reservation = reserved
            database.execute(
                "UPDATE submission SET state = 'PENDING', reason = '', verb = ?, queued_s = ?, start_at_s = NULL,"
                " ended_s = NULL, starts = 0, owner = NULL, kernel = '', reservation = ?"
                " WHERE number = ?",
                (verb if verb == "retry_failed" else "", now_s, reservation, row.number),
            )
            return rows.get(database, row.id)

        journal = open_journal(self.path)
        return self.written(unit)

    def cancel(self, submission: str) -> Row:
        """Let nobody start it, or start it again, and return it: one that runs is to be told itself.

        Raises:
            NoSuchSubmission: There is none.
            JournalError: The journal cannot be written.
        """
        self.find(submission)

        def unit(database: sqlite3.Connection) -> Row:
            row = rows.get(database, submission)
            if row.state == "PENDING":
                rows.end(database, row, "CANCELLED", "it was cancelled before it began", self._unix_s())
            elif row.state == "RUNNING" and self.is_live(row) is False:
                rows.end(database, row, "CANCELLED", "it was cancelled, and its process has ended", self._unix_s())
            elif row.state == "RUNNING":
                database.execute("UPDATE submission SET state = 'CANCELLING' WHERE number = ?", (row.number,))
            return rows.get(database, submission)

        return self.written(unit)

    # From the queue to its end

    def claim(self, most: int) -> Row | None:
        """Take the next one, to start a kernel for it; None for nothing to do now.

        Those whose process is gone for the third time, or after they were cancelled, end here.

        Args:
            most: How many may run at the same time, over all servers.

        Raises:
            JournalError: The journal cannot be read or written.
        """
        if not self.read(lambda database: self._is_due(database, most), False):
            return None

        def unit(database: sqlite3.Connection) -> Row | None:
            silence = self._look()
            live, lapsed = 0, []
            for row in rows.held(database):
                if self._may_be_held(row, silence):
                    live += 1
                else:
                    lapsed.append(row)
            left = [row for row in lapsed if not self._give_up(database, row)]
            if live >= most:
                return None
            waiting = rows.read(database.execute(f"{rows.DUE} LIMIT 1", (self._unix_s(),)))  # a constant
            chosen = min([*left, *waiting], key=lambda row: (row.priority, row.number), default=None)
            return None if chosen is None else self._begin(database, chosen)

        claimed = self.written(unit, patience_s=BUSY_S)
        if claimed is not None:
            self._keep(claimed)
        return claimed

    def started(self, claimed: Row, kernel: str) -> None:
        """Record which kernel is to take it.

        Raises:
            JournalError: The journal cannot be written.
        """
        asked = f"UPDATE submission SET kernel = ? WHERE {rows.THIS}"  # noqa: S608  # a constant
        self.written(lambda database: database.execute(asked, (kernel, *claimed.this)).rowcount)

    def take(self, submission: str, kernel: str = "") -> Row:
        """Hold it as this process, which is about to run it.

        Args:
            kernel: The id of this kernel: a start that was made for it goes over to it. "" for no kernel.

        Raises:
            NoSuchSubmission: There is none.
            Conflict: It has ended, or runs in another process.
            JournalError: The journal cannot be written.
        """
        self.find(submission)

        def unit(database: sqlite3.Connection) -> Row | BatchError | None:
            row, silence = rows.get(database, submission), self._look()
            if row.state in ENDED:
                reason = f" ({row.reason})" if row.reason else ""
                return Conflict(f"submission {row.id} has ended: {row.state}{reason}")
            if row.state == "CANCELLING" and (kernel == row.kernel or not self._is_live(row)):
                rows.end(database, row, "CANCELLED", "it was cancelled before it began", self._unix_s())
                return Conflict(f"submission {row.id} was cancelled")
            if row.state == "RUNNING" and kernel and kernel == row.kernel:
                values = (lease.me(), self._unix_s(), *row.this)
                database.execute(f"UPDATE submission SET owner = ?, beat_s = ? WHERE {rows.THIS}", values)  # noqa: S608
                return rows.get(database, submission)
            if row.state != "PENDING" and self._is_live(row):
                return Conflict(f"submission {row.id} is already running {lease.where(row.owner or '')}")
            if row.state != "PENDING" and self._may_be_held(row, silence):
                return None  # too soon to tell
            return self._begin(database, row)

        while (taken := self.written(unit)) is None:
            time.sleep(lease.LOOK_S)
        self._keep(taken)
        return taken

    def beat(self, held: Row) -> RowState | None:
        """Say that this process still holds it, and return its state; None where it does not any more.

        Raises:
            JournalError: The journal cannot be written.
        """

        def unit(database: sqlite3.Connection) -> RowState | None:
            values = (self._unix_s(), *held.this, lease.me())
            if not database.execute(f"UPDATE submission SET beat_s = ? WHERE {rows.MINE}", values).rowcount:  # noqa: S608
                return None
            return rows.get(database, held.id).state

        return self.written(unit)

    def link(self, held: Row, run: int) -> RowState | None:
        """Record what its session's run is, and return its state as `beat` does.

        Raises:
            JournalError: The journal cannot be written.
        """

        def unit(database: sqlite3.Connection) -> RowState | None:
            values = (run, self._unix_s(), *held.this, lease.me())
            linked = database.execute(f"UPDATE submission SET run = ?, beat_s = ? WHERE {rows.MINE}", values)  # noqa: S608
            return rows.get(database, held.id).state if linked.rowcount else None

        return self.written(unit)

    def end(self, held: Row, state: Ended, reason: str = "", used: Decimal | None = None) -> bool:
        """Record how it ended, and settle its credits, each once; return whether this call did.

        Args:
            held: A start of it: nothing happens where there was another one since.
            used: The credits that its session has used since `queued_s`; None for by the items that have completed.

        Raises:
            JournalError: The journal cannot be written.
        """

        def unit(database: sqlite3.Connection) -> bool:
            row = rows.get(database, held.id)
            if row.state in ENDED or row.this != held.this:
                return False
            rows.end(database, row, state, reason, self._unix_s(), used)
            return True

        try:
            return self.written(unit)
        finally:
            self._let_go(held)  # not before: a claim that comes between would find it free

    def release(self, held: Row, reason: str, *, counted: bool = True) -> None:
        """Let it be started again: its process is gone.

        Args:
            counted: Whether this start is one of `STARTS`; not where it was ended together with its server.

        Raises:
            JournalError: The journal cannot be written.
        """
        values = (mask(reason), 0 if counted else 1, *held.this)
        asked = f"UPDATE submission SET owner = NULL, reason = ?, starts = starts - ? WHERE {rows.THIS}"  # noqa: S608
        patience_s = PATIENCE_S if counted else BUSY_S  # without that it is found gone
        try:
            self.written(lambda database: database.execute(asked, values).rowcount, patience_s=patience_s)
        finally:
            self._let_go(held)

    def stands(self, held: Row) -> Literal["ours", "theirs", "ended", "over", "gone"]:
        """Return how a start stands that this process has claimed.

        Returns:
            "ours" until its kernel has taken it, then "theirs"; "ended" when it has; "over" when it was started anew;
            "gone" when the process of whoever has taken it is.

        Raises:
            JournalError: The journal cannot be read.
        """
        row = self.find(held.id)
        if row.this != held.this or row.owner != lease.me():
            self._let_go(held)
        if row.this != held.this:
            return "over"
        if row.state in ENDED:
            return "ended"
        if row.owner is None or (row.owner != lease.me() and lease.find_process(row.owner) is False):
            return "gone"
        return "ours" if row.owner == lease.me() else "theirs"

    def is_live(self, row: Row) -> bool | None:
        """Say whether somebody holds it; None where that cannot be known: it is silent, and may live."""
        if self._is_live(row):
            return True
        return None if row.owner is not None and lease.may_live(row.owner) else False

    # Within a transaction

    def _is_due(self, database: sqlite3.Connection, most: int) -> bool:
        """Say whether there is anything to claim or to end, as far as a reader can tell."""
        held = list(rows.held(database))
        if any(not self._is_live(row) for row in held):
            return True
        return len(held) < most and database.execute(f"{rows.DUE} LIMIT 1", (self._unix_s(),)).fetchone() is not None

    def _begin(self, database: sqlite3.Connection, row: Row) -> Row:
        database.execute(
            "UPDATE submission SET state = 'RUNNING', starts = starts + 1, epoch = epoch + 1, owner = ?, beat_s = ?,"
            " kernel = '' WHERE number = ?",
            (lease.me(), self._unix_s(), row.number),
        )
        return rows.get(database, row.id)

    def _give_up(self, database: sqlite3.Connection, row: Row) -> bool:
        """End one whose process is gone, if it is not to be started again; say whether it was."""
        now_s = self._unix_s()
        if row.state == "CANCELLING":
            rows.end(database, row, "CANCELLED", "it was cancelled, and its process has ended", now_s)
            return True
        if row.starts < STARTS:
            return False
        why = row.reason or rows.silent(row.owner)
        rows.end(database, row, "FAILED", f"it was started {STARTS} times, and ended each time: {why}", now_s)
        return True

    def _look(self) -> lease.Silence:
        """Count the time since the look before this one: the journal can be written."""
        silence = self._silence
        if silence is None:
            silence = self._silence = lease.Silence(open_journal(self.path), self._unix_s())
        silence.now_s = self._unix_s()
        silence.look()
        return silence

    def _is_live(self, row: Row) -> bool:
        if row.owner is None:
            return False
        if row.owner == lease.me():
            return row.this in self._held
        return lease.may_live(row.owner) and self._unix_s() - row.beat_s < lease.LEASE_S

    def _may_be_held(self, row: Row, silence: lease.Silence) -> bool:
        if self._is_live(row):
            return True
        owner = row.owner
        return owner is not None and lease.may_live(owner) and not silence.is_over(row.number, owner, row.beat_s)

    # What this process does

    def _keep(self, row: Row) -> None:
        with self._lock:
            self._held.add(row.this)

    def _let_go(self, row: Row) -> None:
        with self._lock:
            self._held.discard(row.this)

    def _fold(self, account: str) -> Fold:
        """Return the state of an account some time ago: what is new since then is few rows."""
        which = account, journal_file.inode(home_of(self.path))  # a file that was deleted has other movements
        before = self._folds.get(which, Fold())
        fold = self._folds[which] = self.read(lambda database: advanced(database, account, before), before)
        return fold

    def written(self, unit: Callable[[sqlite3.Connection], T | BatchError], *, patience_s: float = PATIENCE_S) -> T:
        """Run a unit that returns what it refuses: what one raises would be told as the journal's fault.

        Raises:
            BatchError: What it refused.
            JournalError: The journal cannot be written.
        """
        journal = open_journal(self.path)
        journal.check_there()
        result = journal.write(unit, patience_s=patience_s)
        if isinstance(result, BatchError):
            raise result
        return cast("T", result)
