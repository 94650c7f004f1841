"""Outbox: what is to be told, as rows of the journal, from the transaction that made it true to its delivery.

Rule: a message is on record in the commit of what it tells, or that did not
happen; and it is sent at least once, by one process at a time.

    `put`      within the transaction of a state change, once for each (run, epoch, kind, detail, channel)
    `claim`    whoever delivers: one that is due, and that no living process is sending; an attempt more, of `MOST`
    `settle`   sent; or to be tried again later, with a growing wait; or given up after `MOST` attempts
    `drop`     what it was to tell is not so any more

A process that dies between sending and `settle` has its message sent once
more, with the same id: receivers tell them apart by that.  Addresses are never
here: rows name channels.  Prior art: the transactional outbox of message
queues (https://microservices.io/patterns/data/transactional-outbox.html).
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from ipybatch.engine.data.events import Counts
from ipybatch.engine.data.masking import mask
from ipybatch.engine.data.notice import Kind, Notice, Notify, decode_notify, kind_of_end
from ipybatch.engine.store import lease
from ipybatch.engine.store.history import UNENDED
from ipybatch.engine.store.journal import Journal
from ipybatch.engine.store.schema import has, ids

MOST = 8  # attempts
WAITS_S = (10.0, 60.0, 300.0, 1800.0, 7200.0, 21600.0, 43200.0)  # between them: 21 hours in all
LEASE_S = 180.0  # how long one attempt may take
KEPT_S = 30 * 86400.0  # how long what was sent, or given up, is kept
SILENT_S = 600.0  # a process of another machine that was silent for so long is taken for dead

DeliveryState = Literal["waiting", "sent", "given up"]
_COLUMNS = "number, id, run, epoch, kind, channel, notice, state, created_s, due_s, ended_s, attempts, error"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Notice).decode


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A row: one notice to one channel.

    Attributes:
        number: The order in which they came.
        id: What receivers know a repeated one by.
        run: The number of the session's run; 0 for a submission that never had one, and of a schedule.
        due_s: Not before then, Unix.
        ended_s: When it was sent or given up; None before.
        attempts: How often it was tried.
        error: Why the last attempt failed.
    """

    number: int
    id: str
    run: int
    epoch: int
    kind: Kind
    channel: str
    notice: Notice
    state: DeliveryState
    created_s: float
    due_s: float
    ended_s: float | None
    attempts: int
    error: str


def _no_deliverer(path: Path) -> None:
    """Stand where `ipybatch.notify` is told that a journal has something to deliver; without it a server finds it."""


on_written: Callable[[Path], None] = _no_deliverer


def announce(journal: Journal) -> None:
    """Let whoever delivers know that a journal's outbox was written, by the path that the journal was asked for by."""
    on_written(journal.path if journal.network_copy is None else journal.network_copy.asked)


def put(  # the row
    database: sqlite3.Connection,
    run: int,
    epoch: int,
    notify: Notify,
    notice: Notice,
    *,
    due_s: float,
    detail: str = "",
) -> bool:
    """Put a notice into the outbox for each channel, as part of a transaction; return whether any was new.

    Args:
        epoch: Of the start that it is told of; 0 for what is told once a run.
        detail: What tells several of a kind apart, such as outages or jobs.
    """
    if notice.kind not in notify.on:
        return False
    told = _encode(masked(msgspec.structs.replace(notice, attach_mb=notify.attach_mb)))
    written = 0
    for channel in notify.channels:
        written += database.execute(
            "INSERT OR IGNORE INTO outbox (id, run, epoch, kind, detail, channel, notice, state, created_s, due_s)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, 'waiting', ?, ?)",
            (secrets.token_hex(12), run, epoch, notice.kind, detail, channel, told, notice.at_s, due_s),
        ).rowcount
    return written > 0


def masked(notice: Notice) -> Notice:
    """Return a notice without secrets."""
    texts = {field: mask(getattr(notice, field)) for field in ("name", "reason", "error", "limit_group")}
    return msgspec.structs.replace(notice, **texts)


def foresee(database: sqlite3.Connection, session: str, notice: Notice, detail: str) -> None:
    """Put a notice of what will be, as part of a transaction, where the latest run of a session asks for it.

    Args:
        notice: Of kind "expiring".
        detail: What it is dropped by.
    """
    asked = "SELECT id, notify FROM run WHERE name = ? ORDER BY id DESC LIMIT 1"
    run, recorded = database.execute(asked, (session,)).fetchone() or (0, None)
    notify = decode_notify(recorded)
    if notify is not None:
        due_s = notice.expires_s - notify.expiring_h * 3600
        put(database, run, 0, notify, notice, due_s=due_s, detail=detail)


def drop(database: sqlite3.Connection, kind: Kind, detail: str) -> None:
    """Let something be told no more that was to be told, as part of a transaction."""
    gone = "DELETE FROM outbox WHERE kind = ? AND detail = ? AND state = 'waiting'"
    database.execute(gone, (kind, detail))


def has_table(database: sqlite3.Connection) -> bool:
    """Say whether a journal, which may be older, has an outbox."""
    return has(database, "outbox", "channel")


def next_s(
    database: sqlite3.Connection, skipped: Collection[str] = (), rests: Mapping[str, float] | None = None
) -> float | None:
    """Return when the next message is due, Unix; None for none that waits.

    Args:
        skipped: Channels that this process cannot send to.
        rests: Until when which channels are left alone, Unix.
    """
    asked = f"SELECT channel, min(due_s) FROM outbox WHERE state = 'waiting'{_but(skipped)} GROUP BY channel"  # noqa: S608  # a constant
    found = database.execute(asked, tuple(skipped))
    return min((max(float(due_s), (rests or {}).get(channel, 0.0)) for channel, due_s in found), default=None)


def claim(database: sqlite3.Connection, now_s: float, skipped: Collection[str] = ()) -> Message | None:
    """Take the next message that is due, as part of a transaction; None for none.

    Args:
        skipped: Channels that nothing is sent to now.
    """
    due = f"state = 'waiting' AND due_s <= ?{_but(skipped)} ORDER BY due_s, number"
    asked = f"SELECT {_COLUMNS}, owner, beat_s FROM outbox WHERE {due}"  # noqa: S608  # constants
    useless: list[tuple[int, Message | None]] = []
    taken = None
    for *values, owner, beat_s in database.execute(asked, (now_s, *skipped)):  # one by one: thousands may be due
        message = _read(values)
        if message is None:
            useless.append((values[0], None))
        elif owner is not None and _is_sending(owner, beat_s, now_s):
            continue
        elif message.attempts >= MOST:
            useless.append((message.number, message))
        else:
            taken = message
            break
    for number, message in useless:
        error = "it cannot be read" if message is None else "no attempt came to an end"
        give_up = "UPDATE outbox SET state = 'given up', ended_s = ?, error = ?, owner = NULL WHERE number = ?"
        database.execute(give_up, (now_s, error, number))
        if message is not None:
            _note(database, message.run, given_up(message, error))
    if taken is None:
        return None
    database.execute(
        "UPDATE outbox SET owner = ?, beat_s = ?, attempts = attempts + 1 WHERE number = ?",
        (lease.me(), now_s, taken.number),
    )
    return msgspec.structs.replace(taken, attempts=taken.attempts + 1)


def _but(skipped: Collection[str]) -> str:
    return f" AND channel NOT IN ({', '.join('?' * len(skipped))})" if skipped else ""


def _is_sending(owner: str, beat_s: float, now_s: float) -> bool:
    """Say whether a process may be sending just now: one of this machine that is gone is not.

    A beat from far ahead is as old as one from long ago: the clock was set back since.
    """
    return abs(now_s - beat_s) < LEASE_S and (owner == lease.me() or lease.may_live(owner))


def settle(
    database: sqlite3.Connection,
    message: Message,
    now_s: float,
    error: str = "",
    *,
    wait_s: float = 0.0,
    reached: Sequence[str] = (),
) -> DeliveryState:
    """Record how an attempt came out, as part of a transaction; nothing is written over what another process did.

    Args:
        error: Why it failed; "" when it was sent.
        wait_s: How long its receiver wants to be left alone.
        reached: Marks of those of its receivers that have it.

    Returns:
        How it stands now. One that was given up is noted in its session.
    """
    mine = "number = ? AND owner = ? AND attempts = ?", (message.number, lease.me(), message.attempts)
    state: DeliveryState = "sent" if not error else "waiting" if message.attempts < MOST else "given up"
    ended_s = None if state == "waiting" else now_s
    again_s = now_s + max(wait_s, WAITS_S[min(message.attempts, len(WAITS_S)) - 1]) if state == "waiting" else now_s
    notice = msgspec.structs.replace(message.notice, reached=tuple(reached))
    changed = database.execute(
        f"UPDATE outbox SET state = ?, ended_s = ?, due_s = ?, error = ?, notice = ?, owner = NULL WHERE {mine[0]}",  # noqa: S608
        (state, ended_s, again_s if state == "waiting" else message.due_s, mask(error), _encode(notice), *mine[1]),
    ).rowcount
    if changed and state == "given up":
        _note(database, message.run, given_up(message, error))
    database.execute("DELETE FROM outbox WHERE state <> 'waiting' AND ended_s < ?", (now_s - KEPT_S,))
    return state


def given_up(message: Message, error: str) -> str:
    """Say that a message was not sent."""
    return (
        f"nobody could be told by {message.channel!r} that it {_WORDS[message.kind]}: given up after"
        f" {message.attempts} attempts ({mask(error)}); ipybatch.notify.outbox() lists it"
    )


_WORDS: dict[Kind, str] = {
    "finished": "finished",
    "failed": "failed",
    "cancelled": "was cancelled",
    "breaker": "waits for its service",
    "budget": "has nearly spent its budget",
    "expiring": "has results that expire",
    "skipped": "has no run at one of its times",
    "asks": "asks about times that were missed",
    "test": "was tried",
}


def _note(database: sqlite3.Connection, run: int, text: str) -> None:
    """Add a note to a run that nobody holds: whoever does holds its notes, too."""
    found = database.execute("SELECT notes FROM run WHERE id = ? AND owner IS NULL", (run,)).fetchone()
    if found is not None:
        notes = msgspec.json.decode(found[0] or "[]", type=list[str])
        database.execute("UPDATE run SET notes = ? WHERE id = ?", (_encode([*notes, text]).decode(), run))


def read(database: sqlite3.Connection, *, limit: int = 1000) -> list[Message]:
    """Return the latest messages, oldest first."""
    asked = f"SELECT {_COLUMNS} FROM outbox ORDER BY number DESC LIMIT ?"  # noqa: S608  # constants
    found = map(_read, database.execute(asked, (limit,)).fetchall())
    return [message for message in found if message is not None][::-1]


def is_awaited(database: sqlite3.Connection) -> bool:
    """Say whether a run has not ended that asks for notice."""
    asked = "SELECT 1 FROM run WHERE notify IS NOT NULL AND state IN (?, ?) LIMIT 1"
    return database.execute(asked, UNENDED).fetchone() is not None


_LEFT = (  # by a process that did not end it; and nothing begins it again by itself, and nobody was told of it yet
    "SELECT id, owner, beat_s FROM run WHERE notify IS NOT NULL AND state IN (?, ?) AND name <> '' AND beat_s > ?"
    " AND NOT EXISTS (SELECT 1 FROM submission WHERE submission.name = run.name"
    " AND submission.state IN ('PENDING', 'RUNNING', 'CANCELLING'))"
    " AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.run = run.id AND outbox.epoch = run.epoch AND kind = 'failed')"
)


def find_interrupted(database: sqlite3.Connection, now_s: float) -> list[int]:
    """Return the runs that ask for notice, and that a process left which is gone; nothing begins them by itself."""
    found = database.execute(_LEFT, (*UNENDED, now_s - KEPT_S / 2)).fetchall()
    return [run for run, owner, beat_s in found if _is_gone(owner, beat_s, now_s)]


def put_interrupted(database: sqlite3.Connection, run: int, now_s: float) -> None:
    """Put into the outbox that a run's process left it, as part of a transaction, once for each of its starts."""
    if run not in find_interrupted(database, now_s):
        return  # it went on, or somebody else was quicker
    asked = (
        "SELECT name, epoch, owner, beat_s, begun_s, seconds, total, completed, failed, timeout, cancelled, skipped,"
        " usd, notebook, notify FROM run WHERE id = ?"
    )
    row = database.execute(asked, (run,)).fetchone()
    name, epoch, owner, beat_s, begun_s, seconds, total, *ended, usd, notebook, recorded = row
    notify = decode_notify(recorded)
    if notify is None:
        return
    words = ("completed", "failed", "timeout", "cancelled", "skipped")
    counts = Counts(total=total, pending=max(0, (total or 0) - sum(ended)), **dict(zip(words, ended, strict=True)))
    process = "its process" if owner is None else lease.process_of(owner)
    notice = Notice(
        kind=kind_of_end("interrupted"),
        name=name,
        state="interrupted",
        at_s=now_s,
        counts=counts,
        reason=f"{process} ended without letting go",
        seconds=seconds + max(0.0, beat_s - (begun_s or beat_s)),
        usd=usd,
        error=first_error(database, run),
        notebook=notebook,
    )
    put(database, run, epoch, notify, notice, due_s=now_s)


def _is_gone(owner: str | None, beat_s: float, now_s: float) -> bool:
    if owner is None:
        return True
    if owner == lease.me():
        return False  # its own engine tells how it ends
    is_there = lease.find_process(owner)
    return not is_there if is_there is not None else now_s - beat_s > SILENT_S


def first_error(database: sqlite3.Connection, run: int) -> str:
    """Return the error of the first item of a run that failed; "" for none."""
    asked = "SELECT error FROM item WHERE id >= ? AND id < ? AND status IN ('failed', 'timeout') LIMIT 1"
    found = database.execute(asked, ids(run)).fetchone()
    return "" if found is None else str(found[0])


def _read(values: Sequence[Any]) -> Message | None:
    """Return a row; None for one that is not as it was written."""
    told = dict(zip(_COLUMNS.split(", "), values, strict=True))
    try:
        told["notice"] = _decode(told["notice"])
        return msgspec.convert(told, Message)
    except (msgspec.MsgspecError, TypeError):
        return None
