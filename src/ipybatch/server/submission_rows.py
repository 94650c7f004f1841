"""Submission rows: what the journal tells of submissions, and what is written of them within a transaction.

`submission_store` says who may do what, and when.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from ipybatch.engine.data.masking import mask
from ipybatch.engine.store import history, lease, schema
from ipybatch.engine.store.journal import Journal
from ipybatch.engine.store.network_copy import home_of
from ipybatch.errors import InputError
from ipybatch.server.notify_request import put_failed
from ipybatch.server.wire import SubmissionRequest, UrgencyWord

PRIORITIES: tuple[UrgencyWord, ...] = ("high", "medium", "low")

T = TypeVar("T")
Ended = Literal["COMPLETED", "FAILED", "CANCELLED", "ROLLED_BACK"]
RowState = Literal["PENDING", "RUNNING", "CANCELLING", "COMPLETED", "FAILED", "CANCELLED", "ROLLED_BACK"]
ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "ROLLED_BACK"})


class Conflict(InputError):
    """It cannot be done now, as somebody else is doing something with it."""


class NoSuchSubmission(InputError):
    """There is none with this id."""


class KeyUsed(InputError):
    """An idempotency key was used for another request."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be created.

    Attributes:
        label: The name that the request has for the template; "" for its own.
        name: Of the session; "" for one that follows the id.
        request: The request as JSON, canonical; ``digest`` is a hash of it.
        requests: How many items it has.
        idempotency: Of a request that may come again; "" for none.
        priority: An index of `PRIORITIES`.
        start_at_s: Not before then, Unix; None for at once.
        account: The credit account that pays; ``operation``: what for, ``credits``: how many; None for nothing.
    """

    template: str
    label: str = ""
    name: str
    request: bytes
    digest: str
    requests: int
    idempotency: str = ""
    priority: int = 1
    start_at_s: float | None = None
    account: str = ""
    operation: str = ""
    credits: Decimal | None = None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A submission on record.

    Attributes:
        number: The order in which they came.
        state: "CANCELLING" where a cancel was asked of one that runs.
        starts: How often it was started since it came into the queue, without those that its server ended.
        epoch: How often it was ever started.
        owner: Whoever starts or runs it, as with a run; None for nobody.
        kernel: The id of the kernel of its latest start.
        run: The number of its session's run; None until that has begun.
        verb: "retry_failed" where failed items run again; else "".
        queued_s: When it came into the queue, at first or once more.
        reservation: Of the credits, open or not; None for none.
    """

    number: int
    id: str
    name: str
    template: str
    requests: int
    state: RowState
    reason: str
    priority: int
    created_s: float
    start_at_s: float | None
    ended_s: float | None
    starts: int
    epoch: int
    owner: str | None
    beat_s: float
    kernel: str
    run: int | None
    verb: str
    queued_s: float
    account: str
    credits: Decimal | None
    reservation: int | None

    def as_created(self) -> Row:
        """Return it as it was when it came: what the same request is answered again."""
        return msgspec.structs.replace(
            self, state="PENDING", reason="", ended_s=None, starts=0, owner=None, kernel="", run=None
        )

    @property
    def this(self) -> tuple[int, int]:
        """Which start of which row it is: the values of `THIS`."""
        return self.number, self.epoch


_FIELDS = Row.__struct_fields__
COLUMNS = ", ".join(_FIELDS)


THIS = "number = ? AND epoch = ? AND state IN ('RUNNING', 'CANCELLING')"
MINE = f"{THIS} AND owner = ?"
DUE = (
    f"SELECT {COLUMNS} FROM submission WHERE state = 'PENDING' AND coalesce(start_at_s, 0) <= ?"  # noqa: S608
    " ORDER BY priority, number"
)


def waits_for(database: sqlite3.Connection, row: Row, most: int, now_s: float) -> int | None:
    """Return how many others must end before one can begin that waits; None for one that does not wait.

    Args:
        most: How many may run at the same time.
    """
    if row.state != "PENDING":
        return None
    first = "state = 'PENDING' AND coalesce(start_at_s, 0) <= ? AND (priority, number) < (?, ?)"
    (before,) = database.execute(
        f"SELECT count(*) FROM submission WHERE state IN ('RUNNING', 'CANCELLING') OR {first}",  # noqa: S608
        (max(now_s, row.start_at_s or 0.0), row.priority, row.number),
    ).fetchone()
    return max(0, int(before) + 1 - most)


def queue(database: sqlite3.Connection) -> list[tuple[str, RowState]]:
    """Return those that have not ended: which, and how each stands."""
    asked = "SELECT id, state FROM submission WHERE state IN ('PENDING', 'RUNNING', 'CANCELLING') ORDER BY number"
    return database.execute(asked).fetchall()


def waiting(database: sqlite3.Connection) -> list[Row]:
    """Return those that wait, in the order in which they came."""
    asked = f"SELECT {COLUMNS} FROM submission WHERE state = 'PENDING' ORDER BY number"  # noqa: S608
    return list(read(database.execute(asked)))


def reference_of(submission: str) -> str:
    """Return what the movements of an account say that they are for."""
    return f"submission {submission}"


def find(database: sqlite3.Connection, submission: str) -> Row | None:
    """Return a submission by its id."""
    found = database.execute(f"SELECT {COLUMNS} FROM submission WHERE id = ?", (submission,))  # noqa: S608
    return next(read(found), None)


def of_run(database: sqlite3.Connection, run: int) -> Row | None:
    """Return the latest submission of a run; None for none."""
    asked = f"SELECT {COLUMNS} FROM submission WHERE run = ? ORDER BY number DESC LIMIT 1"  # noqa: S608
    return next(read(database.execute(asked, (run,))), None)


def has_table(database: sqlite3.Connection) -> bool:
    """Say whether a journal has submissions as this version knows them."""
    columns = {column for _, column, *_ in database.execute("PRAGMA table_info(submission)")}
    return columns.issuperset(_FIELDS)


def is_any_open(path: Path) -> bool:
    """Say whether a journal has submissions that have not ended: nothing is loaded and nothing made for that.

    Raises:
        JournalError: It cannot be read.
    """
    asked = "SELECT 1 FROM submission WHERE state IN ('PENDING', 'RUNNING', 'CANCELLING') LIMIT 1"
    return ask(path, lambda database: database.execute(asked).fetchone() is not None, False)


def ask(path: Path, question: Callable[[sqlite3.Connection], T], nothing: T) -> T:
    """Return the answer to a question; ``nothing`` where there is no journal, or one before there were submissions.

    Raises:
        JournalError: It cannot be read.
    """
    if not path.exists() and not home_of(path).exists():
        return nothing
    return history.look(path, lambda database, _: question(database) if has_table(database) else nothing)


def read(cursor: sqlite3.Cursor) -> Iterator[Row]:
    """Yield rows of which `COLUMNS` were asked."""
    for values in cursor:
        told: dict[str, Any] = dict(zip(_FIELDS, values, strict=True))
        told["credits"] = None if told["credits"] is None else Decimal(told["credits"])
        yield Row(**told)


def get(database: sqlite3.Connection, submission: str) -> Row:
    """Return a submission that is there."""
    row = find(database, submission)
    assert row is not None  # rows are never deleted
    return row


def held(database: sqlite3.Connection) -> Iterator[Row]:
    """Yield those that run, or did when their process died."""
    asked = f"SELECT {COLUMNS} FROM submission WHERE state IN ('RUNNING', 'CANCELLING') ORDER BY number"  # noqa: S608
    return read(database.execute(asked))


def uploads(database: sqlite3.Connection) -> dict[str, set[RowState]]:
    """Return how the latest submissions stand that an upload was made for, by upload."""
    found: dict[str, set[RowState]] = {}
    asked = "SELECT request, state FROM submission WHERE template = 'forecast' ORDER BY number DESC LIMIT 1000"
    for request, state in database.execute(asked):
        upload = msgspec.json.decode(request, type=SubmissionRequest).upload
        found.setdefault(upload or "", set()).add(state)
    return found


def repeated(database: sqlite3.Connection, idempotency: str, digest: str) -> Row | KeyUsed | None:
    """Return what a request with this idempotency key has made; None for nothing."""
    asked = "SELECT id, digest FROM submission WHERE idempotency = ?"
    found = database.execute(asked, (idempotency,)).fetchone()
    if found is None:
        return None
    if found[1] != digest:
        return KeyUsed("this Idempotency-Key was used for another request: send a new one")
    return get(database, found[0])


def why_busy(database: sqlite3.Connection, journal: Journal, name: str) -> Conflict | None:
    """Return why a name is not free; None when it is."""
    asked = "SELECT id FROM submission WHERE name = ? AND state IN ('PENDING', 'RUNNING', 'CANCELLING')"
    found = database.execute(asked, (name,)).fetchone()
    if found is not None:
        return Conflict(f"session {name!r} belongs to submission {found[0]}, which has not ended: cancel that, or wait")
    asked = "SELECT id, owner, beat_s FROM run WHERE name = ? AND owner IS NOT NULL"
    for run, owner, beat_s in database.execute(asked, (name,)):
        if lease.is_live(journal, run, owner, beat_s):
            where = lease.where(owner)
            return Conflict(
                f"session {name!r} is already running {where}: cancel it there first, or choose another name"
            )
    return None


def end(  # noqa: PLR0917  # what is written
    database: sqlite3.Connection, row: Row, state: Ended, reason: str, now_s: float, used: Decimal | None = None
) -> None:
    """Record an end, and close the reservation: the credits that were used are taken, the rest is free."""
    database.execute(
        "UPDATE submission SET state = ?, reason = ?, ended_s = ?, owner = NULL WHERE number = ?",
        (state, mask(reason), now_s, row.number),
    )
    if state == "FAILED":
        put_failed(database, row.number, row.name, row.run, row.queued_s, reason, now_s)
    if row.reservation is None:
        return
    from ipybatch.gemini.money.credits import close_in  # half a second, once

    close_in(database, row.account, row.reservation, by_items(database, row) if used is None else used, now_s)


def by_items(database: sqlite3.Connection, row: Row) -> Decimal:
    """Return the credits of the items that have completed since it was queued: nobody is there to tell more exactly."""
    completed = 0
    if row.run is not None:
        (completed,) = database.execute(
            "SELECT count(*) FROM item WHERE id >= ? AND id < ? AND status = 'completed' AND ended_s >= ?",
            (*schema.ids(row.run), row.queued_s),
        ).fetchone()
    used = (row.credits or Decimal(0)) * min(completed, row.requests) / max(1, row.requests)
    return used.quantize(Decimal("0.000001"))


def silent(owner: str | None) -> str:
    """Say why one whose process is gone was not ended."""
    return "its process is gone" if owner is None else f"{lease.process_of(owner)} ended without letting go"
