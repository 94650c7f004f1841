"""Movements: an account of credits, folded from what was written of it.

    kind      credits         the balance    what is held
    grant     granted              +
    reserve   held                                 +
    settle    taken                -               - (all that was held)
    refund    let go                               - (all that was held)

Rule: no clock, no transaction of its own; whoever writes folds first, in the same transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = "id at kind credits reserved balance available reservation operation reference note"


class Reservation(msgspec.Struct, frozen=True):
    """Credits held for work that is not settled yet.

    Attributes:
        id: For `CreditAccount.settle` and `CreditAccount.refund`.
        at_s: When it was made, Unix time.
        credits: How many it holds.
        operation: The work, in the words of whoever reserved.
        reference: What it is for: an item's key, a job's name.
    """

    id: int
    at_s: float
    credits: Decimal
    operation: str
    reference: str


class Movement(msgspec.Struct, frozen=True):
    """A row of the journal; ``credits`` is what is granted, held, taken or let go."""

    id: int
    at_s: float
    kind: str
    credits: Decimal
    reservation: int | None
    operation: str
    reference: str
    note: str


class Fold(msgspec.Struct):
    """An account after the movement ``last``."""

    last: int = 0
    balance: Decimal = Decimal(0)
    held: Decimal = Decimal(0)
    open: dict[int, Reservation] = {}

    @property
    def available(self) -> Decimal:
        """What no reservation holds."""
        return self.balance - self.held

    def add(self, movement: Movement) -> Reservation | None:
        """Take one movement in, and return the reservation that it makes or closes."""
        self.last = movement.id
        if movement.kind == "grant":
            self.balance += movement.credits
            return None
        if movement.kind == "reserve":
            about = Reservation(movement.id, movement.at_s, movement.credits, movement.operation, movement.reference)
            self.held += about.credits
            self.open[about.id] = about
            return about
        about = self.open.pop(movement.reservation or 0)
        self.held -= about.credits
        if movement.kind == "settle":
            self.balance -= movement.credits
        return about


def advanced(database: sqlite3.Connection, account: str, fold: Fold) -> Fold:
    """Return an account with what was written since; ``fold`` stays as it is."""
    later = Fold(fold.last, fold.balance, fold.held, dict(fold.open))
    for movement in _read(database, account, fold.last):
        later.add(movement)
    return later


def statement(database: sqlite3.Connection, account: str) -> pd.DataFrame:
    """Return one row per movement, in order, with the columns that `CreditAccount.statement` tells."""
    import pandas as pd

    lines, fold = [], Fold()
    for movement in _read(database, account, 0):
        balance, held = fold.balance, fold.held
        about = fold.add(movement)
        lines.append(
            (
                movement.id,
                movement.at_s,
                movement.kind,
                *(Decimal(plain(each)) for each in (fold.balance - balance, fold.held - held)),
                fold.balance,
                fold.available,
                about and about.id,
                about.operation if about else "",
                about.reference if about else "",
                movement.note,
            )
        )
    frame = pd.DataFrame(lines, columns=_COLUMNS.split())
    frame["at"] = pd.to_datetime(frame["at"].astype(float), unit="s", utc=True)
    return frame.astype({"id": "int64", "reservation": "Int64"})


def was_made(database: sqlite3.Connection, account: str, reservation: int) -> bool:
    """Say whether there ever was such a reservation."""
    found = database.execute(
        "SELECT 1 FROM credit WHERE id = ? AND account = ? AND kind = 'reserve'", (reservation, account)
    )
    return found.fetchone() is not None


def _read(database: sqlite3.Connection, account: str, after: int) -> Iterator[Movement]:
    rows = database.execute(
        "SELECT id, at_s, kind, credits, reservation, operation, reference, note FROM credit"
        " WHERE account = ? AND id > ? ORDER BY id",
        (account, after),
    )
    return (Movement(row[0], row[1], row[2], Decimal(row[3]), *row[4:]) for row in rows)


def plain(amount: Decimal) -> str:
    """Return an amount without an exponent and without noughts at its end."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
