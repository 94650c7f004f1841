"""Commands from elsewhere: what other processes ask the owner of a run to do, as rows of the journal.

Rule: a command belongs to the start that it was asked of, and is acknowledged
in the commit of what it changed.

    asker   `ask`          a row, if that owner still holds the run
    owner   `Inbox.new`    every `POLL_S`: what was asked since; it acts, and `acknowledge`s
            `refuse`       what is left when the run is let go, or taken by the next owner
    asker   `answer`       what became of it
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from ipybatch.engine.data.plan import as_json
from ipybatch.engine.store.journal import PATIENCE_S, Journal
from ipybatch.errors import JournalError

POLL_S = 0.2
OVER = "the session had ended by then"

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Command(msgspec.Struct, frozen=True):
    """One command.

    Attributes:
        verb: What to do: "pause", "resume", "cancel", "lift", "start_now", "retry_failed", "adjust" or "prioritize";
            others may come from a later version.
        arguments: By name; None when they are not what they must be.
        asked_by: The name of the asker, as that of an owner of a lease.
    """

    id: int
    verb: str
    arguments: dict[str, Any] | None
    asked_by: str


def ask(  # noqa: PLR0917  # the row
    journal: Journal, run: int, epoch: int, verb: str, arguments: Mapping[str, Any], asked_s: float, asked_by: str
) -> int:
    """Ask the owner of a run, and return the command's id; 0 when that start is over.

    Args:
        epoch: Of the lease that the owner holds.

    Raises:
        JournalError: It was not written; says why.
    """
    values = (verb, msgspec.json.encode(as_json(arguments)).decode(), asked_s, asked_by, run, epoch)
    journal.check_there()
    asked: int = journal.write(lambda database: insert(database, *values), patience_s=PATIENCE_S)
    return asked


def insert(  # noqa: PLR0917  # the row
    database: sqlite3.Connection, verb: str, arguments: str, asked_s: float, asked_by: str, run: int, epoch: int
) -> int:
    """Write a command, as part of a transaction, and return its id; 0 when that start is over.

    Args:
        arguments: As JSON.
    """
    asked = database.execute(
        "INSERT INTO command (run, verb, arguments, asked_s, asked_by) SELECT id, ?, ?, ?, ? FROM run"
        " WHERE id = ? AND epoch = ? AND owner IS NOT NULL",
        (verb, arguments, asked_s, asked_by, run, epoch),
    )
    return asked.lastrowid or 0 if asked.rowcount == 1 else 0


def answer(database: sqlite3.Connection, command: int) -> str | None:
    """Return what was said of a command, "" when it was done; None while it is not taken."""
    found = database.execute("SELECT taken_s, reply FROM command WHERE id = ?", (command,)).fetchone()
    if found is None:
        return "the session was deleted"
    taken_s, reply = found
    return None if taken_s is None else str(reply)


def acknowledge(database: sqlite3.Connection, taken: Iterable[tuple[int, str]], now_s: float) -> None:
    """Record which commands were taken, each with what is said of it, as part of a transaction under the lease."""
    database.executemany(
        "UPDATE command SET taken_s = ?, reply = ? WHERE id = ? AND taken_s IS NULL",
        ((now_s, reply, command) for command, reply in taken),
    )


def refuse(database: sqlite3.Connection, run: int, now_s: float) -> None:
    """Let nobody act any more on what was asked of a start that is over, as part of a transaction."""
    database.execute("UPDATE command SET taken_s = ?, reply = ? WHERE run = ? AND taken_s IS NULL", (now_s, OVER, run))


class Inbox:
    """What is asked of a run that this process holds.

    It has a connection of its own: SQLite says in some microseconds whether another one has changed the file.

    Args:
        obey: Acts on a command, and returns why it did not, "" if it did.
        looked: Called after each look with the ids of the commands that were taken, each with what was said of it.
    """

    def __init__(
        self,
        journal: Journal,
        run: int,
        obey: Callable[[Command], str],
        looked: Callable[[list[tuple[int, str]]], None],
    ) -> None:
        self._journal, self._run = journal, run
        self._obey, self._looked = obey, looked
        self._database: sqlite3.Connection | None = None
        self._version = self._latest = 0
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look every `POLL_S`, on the loop's thread, until it is closed."""
        self._timer = loop.call_later(POLL_S, self.watch, loop)
        self._looked([(command.id, self._obey(command)) for command in self.new()])

    def new(self) -> list[Command]:
        """Return what was asked since the last call, each command once; nothing while the journal cannot be read."""
        try:
            database = self._database
            if database is None:
                database = self._database = self._journal.connect()
                database.execute("PRAGMA busy_timeout = 0")  # the engine's loop waits for it
            (version,) = database.execute("PRAGMA data_version").fetchone()
            if version == self._version:
                return []
            rows = database.execute(
                "SELECT id, verb, arguments, asked_by FROM command WHERE run = ? AND id > ? AND taken_s IS NULL"
                " ORDER BY id",
                (self._run, self._latest),
            ).fetchall()
        except (sqlite3.Error, JournalError):  # the lease's beat notices what is wrong, and ends the run
            return []
        self._version = version
        if rows:
            self._latest = rows[-1][0]
        return [Command(id_, verb, _arguments(arguments), asked_by) for id_, verb, arguments, asked_by in rows]

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._database is not None:
            self._database.close()


def _arguments(text: str) -> dict[str, Any] | None:
    try:
        return _decode(text)
    except (msgspec.MsgspecError, TypeError, ValueError):
        return None
