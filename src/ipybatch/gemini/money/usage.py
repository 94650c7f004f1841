"""Usage: the calls of all sessions, with their tokens and cost, in the journal.

A call online or by flex is on record before it is sent, and again, in the same row, when it has ended:

    sent --answered--> ok, blocked, cut, empty, invalid      its cost; its bound, if the service told no tokens
      |--refused-----> 429, 503, ...                         nothing
      |--no answer---> unanswered                            its bound: it may have been billed
      `--(kill -9)---> stays "sent", until the session goes on: unanswered

A call of a job is on record when its answer is: once, however often the answer is fetched.

A call is handed to the journal's writer before its item's outcome, so a completed item is never without its cost.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ipybatch.engine.data.after_turns import AfterTurns
from ipybatch.engine.data.clock import Clock
from ipybatch.engine.store.commit_queue import TURNS, Committed
from ipybatch.engine.store.journal import Journal, Submission, Unit, open_journal, tell_nobody
from ipybatch.errors import InputError, JournalError
from ipybatch.gemini.service.reply import Tokens

if TYPE_CHECKING:
    import pandas as pd

SENT, UNANSWERED = "sent", "unanswered"  # status of calls that may be billed
NOT_SENT = "notsent"  # status of calls that never left: there was no connection
ANSWERED = ("ok", "blocked", "cut", "empty", "invalid", "unmatched")  # status of calls that are billed
_COLUMNS = (
    "at_s, session, lane, model, operation, project, status,"
    " tokens_in, tokens_out, tokens_thoughts, tokens_cached, usd, credits, ms, job, item, bound_usd, at_once"
)
# A row of a job replaces the one of the same item.  One without an answer does not: the item was answered before.
_INSERT = f"INSERT OR REPLACE INTO usage ({_COLUMNS}) VALUES ({', '.join('?' * 18)})"  # noqa: S608  # constants
_ADD = _INSERT.replace("REPLACE", "IGNORE", 1)
_END = (  # without at_s, which has an index: three times as quick
    "UPDATE usage SET status = ?, tokens_in = ?, tokens_out = ?, tokens_thoughts = ?, tokens_cached = ?,"
    " usd = ?, credits = ?, ms = ? WHERE id = ?"
)
_GROUPS = ("operation", "model", "lane")
_BY = ("project", "session")
_SUMS = "requests failed tokens_in tokens_out tokens_thoughts tokens_cached usd credits ms"
_MORE = "at_once seconds unanswered untold usd_unconfirmed"
USAGE_COLUMNS = f"{' '.join(_GROUPS)} {_SUMS} {_MORE}"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call, or one request of a batch job.

    Attributes:
        at_s: When it was sent, or when the answer of a batch job was read, Unix time.
        status: "ok"; "blocked", "cut", "empty" or "invalid" (all billed); "sent"; "unanswered" (it may be billed); else
            the error, such as "429" (not billed).
        usd: Cost, or the most that it may be; None if no price is known, or nothing is billed.
        credits: Credits taken; None for an operation without credits.
        ms: Time from request to answer, milliseconds; 0.0 in a batch job.
        job: Display name of the batch job; "" for none.
        item: Key in the job; None for none.
        bound_usd: What was reserved for it, USD; None if no price is known.
        at_once: Requests in flight when it was sent, itself included; None in a batch job.
    """

    at_s: float
    session: str
    lane: str
    model: str
    operation: str
    project: str
    status: str
    tokens: Tokens = Tokens()
    usd: Decimal | None = None
    credits: Decimal | None = None
    ms: float = 0.0
    job: str = ""
    item: str | None = None
    bound_usd: Decimal | None = None
    at_once: int | None = None


def record_calls(journal: Journal, *calls: Call) -> None:
    """Hand calls to the journal's writer, which keeps their order among all records.

    A call of the same ``job`` and ``item`` as one on record takes its place; but an answer stays on record.
    """
    rows = [(_ADD if call.status == UNANSWERED else _INSERT, _row(call)) for call in calls]

    def unit(database: sqlite3.Connection) -> None:
        for query, row in rows:
            database.execute(query, row)

    _write(journal, unit)


def _write(journal: Journal, unit: Unit) -> None:
    """Hand a unit to the journal's writer, which waits for as long as another program is writing: so do outcomes."""
    journal.submit(unit, tell_nobody, patience_s=math.inf)


def _row(call: Call) -> tuple[Any, ...]:
    return (
        call.at_s,
        call.session,
        call.lane,
        call.model,
        call.operation,
        call.project,
        call.status,
        *_told(call.tokens),
        _float(call.usd),
        None if call.credits is None else str(call.credits),
        call.ms,
        call.job,
        call.item,
        _float(call.bound_usd),
        call.at_once,
    )


def _told(tokens: Tokens) -> tuple[int | None, ...]:
    return tokens.in_, tokens.out, tokens.thoughts, tokens.cached if tokens.in_ is not None else None


def _float(usd: Decimal | None) -> float | None:
    return None if usd is None else float(usd)


class _Begun:
    """A call that is about to be sent, and its row once that is on disk."""

    __slots__ = ("id", "is_dropped", "row")

    def __init__(self, row: tuple[Any, ...]) -> None:
        self.row, self.id, self.is_dropped = row, 0, False


class CallLog:
    """Calls of a session in the journal, each before it is sent; to be used on one event loop.

    Calls that begin or end within a few turns of the loop share one commit, that of outcomes where some come meanwhile.
    The ends are on record no later than whatever is submitted after them; what the journal refuses of them is tried
    again with what comes next.
    """

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal, self._clock = journal, clock
        self._thread = threading.get_ident()
        self._begun: list[_Begun] = []
        self._committed: Committed | None = None
        self._ended: deque[tuple[Any, ...]] = deque()
        self._soon = AfterTurns(asyncio.get_running_loop(), TURNS + 1, journal.flush)
        journal.before.append(self._take)

    def close(self) -> None:
        """Write what waits."""
        self._soon.cancel()
        self._journal.flush()
        self._journal.before.remove(self._take)

    async def begin(self, call: Call) -> int:
        """Record a call that is about to be sent, and return the number of its row.

        Raises:
            JournalError: It is not on record: it must not be sent.
        """
        begun = _Begun(_row(call))
        self._begun.append(begun)
        if (committed := self._committed) is None:
            committed = self._committed = Committed()
            self._clock.hold(+1)
            self._soon.ask()
        try:
            await committed
        except asyncio.CancelledError:
            begun.is_dropped = True
            if begun.id:
                self._drop([begun])
            raise
        return begun.id

    def end(self, number: int, call: Call) -> None:
        """Record the end of a call, a few turns of the loop after this one, or before what is submitted till then."""
        credits_ = None if call.credits is None else str(call.credits)
        values = (call.status, *_told(call.tokens), _float(call.usd), credits_, call.ms, number)
        self._ended.append(values)
        self._soon.ask()

    def _take(self) -> list[Submission]:
        """Return what waits to be written: the ends on any thread, the calls that begin on the loop's."""
        taken, ended = [], []
        while self._ended:
            try:
                ended.append(self._ended.popleft())
            except IndexError:  # another thread has taken it
                break
        if ended:
            taken.append(self._ending(ended))
        if self._committed is not None and threading.get_ident() == self._thread:
            begun, committed = [one for one in self._begun if not one.is_dropped], self._committed
            self._begun, self._committed = [], None
            taken.append(self._beginning(begun, committed))
        return taken

    def _ending(self, ended: list[tuple[Any, ...]]) -> Submission:
        def tell(result: Any, error: JournalError | None) -> None:
            if error is not None:  # such as a full disk: what each has cost is known nowhere else
                self._ended.extendleft(reversed(ended))

        return Submission(lambda database: database.executemany(_END, ended), tell)

    def _beginning(self, begun: list[_Begun], committed: Committed) -> Submission:
        def insert(database: sqlite3.Connection) -> list[int]:
            return [database.execute(_INSERT, one.row).lastrowid or 0 for one in begun]

        def tell(ids: list[int] | None, error: JournalError | None) -> None:
            if threading.get_ident() == self._thread:
                answer(ids, error)
            else:
                committed.get_loop().call_soon_threadsafe(answer, ids, error)

        def answer(ids: list[int] | None, error: JournalError | None) -> None:
            self._clock.hold(-1)
            if error is not None:
                committed.set_exception(error)
                return
            for one, number in zip(begun, ids or (), strict=True):
                one.id = number
            self._drop([one for one in begun if one.is_dropped])
            committed.set_result(None)

        return Submission(insert, tell)  # waits while another program is writing: nothing is sent meanwhile

    def _drop(self, begun: Iterable[_Begun]) -> None:
        """Take calls that were never sent off the record."""
        numbers = [(one.id,) for one in begun]
        if numbers:
            _write(self._journal, lambda database: database.executemany("DELETE FROM usage WHERE id = ?", numbers))


def settle_interrupted(journal: Journal, session: str) -> None:
    """Record that the calls of a session that were sent by a process that is gone have no answer.

    Raises:
        JournalError: It was not written.
    """
    journal.write(
        lambda database: database.execute(
            "UPDATE usage SET status = ?, usd = bound_usd WHERE session = ? AND status = ?", (UNANSWERED, session, SENT)
        )
    )


def spent_usd(journal: Journal, session: str, since_s: float) -> Decimal:
    """Return what a session's calls have cost since a Unix time, and may have cost, USD.

    Calls without an answer count at their bound, and so does what is not on record of each job that is not collected.
    """
    with journal.reader() as database:
        (usd,) = database.execute(
            "SELECT coalesce(sum(CASE status WHEN ? THEN bound_usd ELSE usd END), 0) FROM usage"
            " WHERE session = ? AND at_s >= ?",
            (SENT, session, since_s),
        ).fetchone()
    return Decimal(str(usd)) + sum(uncollected_usd(journal, session, since_s).values())


def confirmed_usd(journal: Journal, session: str, since_s: float) -> Decimal:
    """Return what a session's calls have cost since a Unix time by what their answers tell, USD."""
    with journal.reader() as database:
        (usd,) = database.execute(
            "SELECT coalesce(sum(usd), 0) FROM usage WHERE session = ? AND at_s >= ?"
            " AND tokens_in + tokens_out + tokens_thoughts IS NOT NULL AND status NOT IN (?, ?)",
            (session, since_s, SENT, UNANSWERED),
        ).fetchone()
    return Decimal(str(usd))


def usd_of_lanes(journal: Journal, session: str, since_s: float) -> list[tuple[str, str, Decimal]]:
    """Return model, lane and USD of a session's answers since a Unix time that came by flex and batch."""
    with journal.reader() as database:
        rows = database.execute(
            f"SELECT model, lane, sum(usd) FROM usage WHERE session = ? AND at_s >= ? AND lane != 'online'"  # noqa: S608
            f" AND status IN {ANSWERED} AND usd IS NOT NULL GROUP BY model, lane",
            (session, since_s),
        ).fetchall()
    return [(model, lane, Decimal(str(usd))) for model, lane, usd in rows]


def uncollected_usd(journal: Journal, session: str, since_s: float) -> dict[str, Decimal]:
    """Return the most that each job of a session may still cost, by display name: its bound less those on record.

    Jobs that are collected, were never sent, or have no bound, are left out.
    """
    known = "SELECT sum(max(coalesce(usage.bound_usd, 0), coalesce(usd, 0))) FROM usage WHERE job = display_name"
    with journal.reader() as database:
        rows = database.execute(
            f"SELECT display_name, job.bound_usd - coalesce(({known}), 0) FROM job"  # noqa: S608  # constants
            " WHERE session = ? AND created_s >= ? AND NOT collected AND bound_usd IS NOT NULL"
            " AND NOT (remote = '' AND state IN ('intent', 'failed') AND NOT is_released)",
            (session, since_s),
        ).fetchall()
    return {name: Decimal(str(usd)) for name, usd in rows if usd > 0}


def spent_by_job(journal: Journal) -> dict[str, tuple[float | None, Decimal]]:
    """Return USD (None if no price is known) and credits of the answers on record of each batch job, by its name."""
    with journal.reader() as database:
        rows = database.execute(
            "SELECT job, sum(usd), group_concat(credits, ' ') FROM usage WHERE job != '' GROUP BY job"
        ).fetchall()
    return {job: (usd, sum(map(Decimal, (taken or "").split()), Decimal(0))) for job, usd, taken in rows}


def credits_since(journal: str | Path, session: str, since_s: float) -> Decimal:
    """Return the credits of a session's answers that came since a Unix time.

    Raises:
        JournalError: The journal cannot be read.
    """
    with open_journal(journal).reader() as database:
        rows = database.execute(
            "SELECT credits FROM usage WHERE session = ? AND at_s >= ? AND credits IS NOT NULL", (session, since_s)
        ).fetchall()
    return sum((Decimal(taken) for (taken,) in rows), Decimal(0))


def answered_in(journal: Journal, job: str) -> set[str]:
    """Return the keys of the items of a job whose answers are on record."""
    with journal.reader() as database:
        rows = database.execute("SELECT item FROM usage WHERE job = ? AND status != ?", (job, UNANSWERED))
        return {item for (item,) in rows}


def latency_s(journal: Journal, model: str, since_s: float) -> float | None:
    """Return the mean time to a model's online answers since a Unix time, seconds; None if there were none."""
    with journal.reader() as database:
        (ms,) = database.execute(
            "SELECT avg(ms) FROM usage WHERE model = ? AND lane = 'online' AND status = 'ok' AND at_s >= ?",
            (model, since_s),
        ).fetchone()
    return None if ms is None else float(ms) / 1000


class MeasuredTokens(msgspec.Struct, frozen=True):
    """Tokens of recorded calls, of which the service told the tokens.

    Attributes:
        calls: Number of calls.
        mean: Mean tokens of one, each rounded up.
        p95: Of 95 % of them at most so many: input, and the answer with its thoughts, of which a share is thoughts.
    """

    calls: int
    mean: Tokens
    p95: Tokens


def measured_tokens(journal: Journal, model: str, operation: str, session: str | None = None) -> MeasuredTokens | None:
    """Return the tokens of a model's calls for an operation, in one session or in all; None if there are none.

    Raises:
        JournalError: The journal cannot be read.
    """
    where = (
        f"FROM usage WHERE model = :model AND operation = :operation AND status IN {ANSWERED}"
        " AND tokens_in + tokens_out + tokens_thoughts > 0 AND (:session IS NULL OR session = :session)"
    )
    values: dict[str, Any] = {"model": model, "operation": operation, "session": session}
    answered = "tokens_out + tokens_thoughts"
    with journal.reader() as database:
        means = "avg(tokens_in), avg(tokens_out), avg(tokens_thoughts), avg(tokens_cached)"
        calls, *mean = database.execute(f"SELECT count(*), {means} {where}", values).fetchone()
        if not calls:
            return None
        values["before"] = math.ceil(0.95 * calls) - 1  # the nearest rank
        p95 = [
            database.execute(f"SELECT {each} {where} ORDER BY 1 LIMIT 1 OFFSET :before", values).fetchone()[0]
            for each in ("tokens_in", answered)
        ]
    in_, out, thoughts, cached = (math.ceil(each or 0) for each in mean)
    thought = p95[1] * thoughts // (out + thoughts) if out + thoughts else 0
    return MeasuredTokens(
        calls,
        Tokens(in_, out, thoughts, min(cached, in_)),
        Tokens(p95[0], p95[1] - thought, thought, min(cached, p95[0])),
    )


def usage(
    last_s: float | None = None,
    *,
    session: str | None = None,
    project: str | None = None,
    by: str | Iterable[str] = (),
    journal: str | Path | None = None,
    now_s: float | None = None,
) -> pd.DataFrame:
    """Return requests, tokens and cost, one row per (operation, model, lane), sorted.

    Args:
        last_s: Length of the time up to now, seconds; None: all time.
        session: Name of a session; None: all sessions.
        project: A project, as given to `generate`; None: all projects.
        by: "project", "session", or both: a row for each of them, and a column at the end that names it.
        journal: Path of the journal; default: the common one.
        now_s: Unix time that counts as now; default: the present.

    Returns:
        operation, model, lane, requests, failed (with another end than "ok"), tokens_in, tokens_out, tokens_thoughts,
        tokens_cached (each of what the service told; None if it told none), usd (None if no price is known), credits
        (Decimal), ms (mean over requests outside batch jobs), at_once (mean number of requests in flight when one was
        sent, itself included), seconds (mean time to an answer, as ms), unanswered (requests without an answer: in
        flight, cut off or interrupted), untold (answers without their tokens), usd_unconfirmed (the part of usd that is
        the most which those two may have cost).

    Raises:
        InputError: ``by`` names something else.
        JournalError: The journal is damaged or cannot be read.
    """
    import pandas as pd

    also = [by] if isinstance(by, str) else list(by)
    for name in also:
        if name not in _BY:
            msg = f"by must be {', '.join(map(repr, _BY))} or both, got {name!r}"
            raise InputError(msg)
    since_s = 0.0 if last_s is None else (time.time() if now_s is None else now_s) - last_s
    where, values = "at_s >= :since_s", {"since_s": since_s, "session": session, "project": project}
    for name in _BY:
        if values[name] is not None:
            where += f" AND {name} = :{name}"
    groups = ", ".join([*_GROUPS, *also])
    cost = f"CASE WHEN status = '{SENT}' THEN bound_usd ELSE usd END"
    untold = f"(status IN {ANSWERED} AND (tokens_in IS NULL OR tokens_out IS NULL OR tokens_thoughts IS NULL))"
    unanswered = f"status IN ('{SENT}', '{UNANSWERED}')"
    with open_journal(journal).reader() as database:
        rows = database.execute(
            f"SELECT {groups}, count(*), sum(status NOT IN ('ok', '{SENT}')), sum(tokens_in), sum(tokens_out),"  # noqa: S608  # constants
            f" sum(tokens_thoughts), sum(tokens_cached), sum({cost}), group_concat(credits, ' '), avg(nullif(ms, 0)),"
            f" avg(at_once), avg(nullif(ms, 0)) / 1000, sum({unanswered}), sum({untold}),"
            f" coalesce(sum(CASE WHEN {unanswered} OR {untold} THEN {cost} END), 0.0)"
            f" FROM usage WHERE {where} GROUP BY {groups} ORDER BY {groups}",
            values,
        ).fetchall()
    columns = [*_GROUPS, *also, *_SUMS.split(), *_MORE.split()]
    summed = [dict(zip(columns, row, strict=True)) for row in rows]
    for row in summed:
        row["credits"] = sum(map(Decimal, (row["credits"] or "").split()), Decimal(0))
    return pd.DataFrame(summed, columns=[*USAGE_COLUMNS.split(), *also])
