"""Credits: the credits per operation, and accounts that cannot be overdrawn.

An account is a ledger of movements:

    grant    balance +                     available = balance - reserved
    reserve             reserved +         refused if it exceeds what is available
    settle   balance -  reserved -         the credits really used leave the balance, the rest is available again
    refund              reserved -         the whole reservation is available again

Rule: movements are only ever added.  The state of an account is the fold of its movements, computed inside the
transaction that adds the next one, so that several processes see one account.

One subject, hence its length: a ledger, and who may add to it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from ipybatch.engine.data.masking import mask
from ipybatch.engine.data.policy import check_count
from ipybatch.engine.store.journal import Journal, open_journal, to_disk
from ipybatch.errors import BatchError, InputError
from ipybatch.gemini.money.prices import HALF, check_lane
from ipybatch.session.arguments import check_name

if TYPE_CHECKING:
    import pandas as pd

CREDITS: Mapping[str, tuple[str, Decimal]] = {
    "character": ("pose", Decimal(4)),
    "food": ("style", Decimal(4)),
    "product": ("pose", Decimal(5)),
    "text-to-image": ("image", Decimal(4)),
}
BATCH_SIZES: Mapping[str, tuple[int, int]] = {"character": (5, 10), "food": (5, 20), "product": (5, 10)}
GENERAL_BATCH = (10, 20)
_STATEMENT_COLUMNS = "id at kind credits reserved balance available reservation operation reference note"
_MOST = Decimal(10) ** 12  # so that sums stay exact in the 28 digits of a Decimal
T = TypeVar("T")
Amount = Decimal | int | float | str


class InsufficientCredits(BatchError):
    """A reservation exceeds the available credits; nothing was reserved.

    Attributes:
        balance: Credits in the account.
        available: Credits in the account that are not reserved.
        need: Credits requested.
        shortfall: Credits to grant before the reservation is possible.
    """

    def __init__(self, account: str, balance: Decimal, available: Decimal, need: Decimal) -> None:
        self.balance, self.available, self.need, self.shortfall = balance, available, need, need - available
        held = f", of which {plain(balance - available)} are reserved" if balance != available else ""
        super().__init__(
            f"account {account!r} has a balance of {plain(balance)} credits{held}; {plain(need)} are needed:"
            f" {plain(self.shortfall)} short. Grant them, or ask for less"
        )


def credits_of(operation: str, units: int = 1, lane: str = "online") -> Decimal:
    """Return the credits of an operation, exact: 2.5 for a product's pose by batch.

    Args:
        operation: "character", "food", "product" or "text-to-image".
        units: Number of poses, styles or images, >= 0.
        lane: "online", "flex" (as online) or "batch" (half).

    Raises:
        InputError: The operation is unknown, or another argument is out of range.
    """
    found = find_credits(operation, units, lane)
    if found is None:
        msg = f"operation must be one of {', '.join(map(repr, CREDITS))}, got {operation!r}"
        raise InputError(msg)
    return found


def find_credits(operation: str, units: int = 1, lane: str = "online") -> Decimal | None:
    """Return the credits of an operation as `credits_of` does, or None for an operation without credits.

    Raises:
        InputError: ``units`` or ``lane`` is out of range.
    """
    check_lane(lane)
    count = check_count("units", units, low=0)
    if operation not in CREDITS:
        return None
    _, each = CREDITS[operation]
    return count * each * (HALF if lane == "batch" else 1)


def batch_size_of(operation: str) -> tuple[int, int]:
    """Return the recommended size of a batch of this operation: fewest and most items."""
    return BATCH_SIZES.get(operation, GENERAL_BATCH)


def plain(amount: Decimal) -> str:
    """Return an amount as text, without an exponent and without trailing zeros."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


class Reservation(msgspec.Struct, frozen=True):
    """Credits reserved for work in progress.

    Attributes:
        id: Argument of `CreditAccount.settle` and `CreditAccount.refund`.
        at_s: Time of the reservation, Unix time.
        credits: Reserved credits.
        operation: Kind of work, as given to `CreditAccount.reserve`.
        reference: An item's key or a job's name, as given to `CreditAccount.reserve`.
    """

    id: int
    at_s: float
    credits: Decimal
    operation: str
    reference: str


class Movement(msgspec.Struct, frozen=True):
    """A movement in the journal; ``credits`` are those granted, reserved, used or refunded."""

    id: int
    at_s: float
    kind: str
    credits: Decimal
    reservation: int | None
    operation: str
    reference: str
    note: str


class Fold(msgspec.Struct):
    """State of an account after the movement ``last``."""

    last: int = 0
    balance: Decimal = Decimal(0)
    held: Decimal = Decimal(0)
    open: dict[int, Reservation] = {}

    @property
    def available(self) -> Decimal:
        """Credits that are not reserved."""
        return self.balance - self.held

    def add(self, movement: Movement) -> Reservation | None:
        """Apply a movement, and return the reservation that it makes or closes."""
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
    """Return ``fold`` advanced by the movements since; ``fold`` itself is not changed."""
    later = Fold(fold.last, fold.balance, fold.held, dict(fold.open))
    for movement in _movements(database, account, fold.last):
        later.add(movement)
    return later


def statement(database: sqlite3.Connection, account: str) -> pd.DataFrame:
    """Return one row per movement, in order; columns as in `CreditAccount.statement`."""
    import pandas as pd

    lines, fold = [], Fold()
    for movement in _movements(database, account, 0):
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
    frame = pd.DataFrame(lines, columns=_STATEMENT_COLUMNS.split())
    frame["at"] = pd.to_datetime(frame["at"].astype(float), unit="s", utc=True)
    return frame.astype({"id": "int64", "reservation": "Int64"})


def was_made(database: sqlite3.Connection, account: str, reservation: int) -> bool:
    """Say whether a reservation was ever made."""
    found = database.execute(
        "SELECT 1 FROM credit WHERE id = ? AND account = ? AND kind = 'reserve'", (reservation, account)
    )
    return found.fetchone() is not None


def add_movement(
    database: sqlite3.Connection,
    account: str,
    kind: str,
    amount: Decimal,
    *,
    at_s: float,
    reservation: int | None = None,
    operation: str = "",
    reference: str = "",
    note: str = "",
) -> int:
    """Add a movement as part of a transaction, and return its id; whoever adds it has read the account in there."""
    added = database.execute(
        "INSERT INTO credit (at_s, account, kind, credits, reservation, operation, reference, note)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (at_s, account, kind, plain(amount), reservation, operation, reference, note),
    )
    return int(added.lastrowid or 0)


def reserve_in(  # noqa: PLR0917  # the movement
    database: sqlite3.Connection, account: str, amount: Decimal, operation: str, reference: str, at_s: float, fold: Fold
) -> int | InsufficientCredits:
    """Reserve credits as part of a transaction, which is about what they are for; return the reservation's id.

    Args:
        fold: A state of the account, at any time before; a new `Fold` where none is known.

    Returns:
        Why not, where the available credits are fewer; nothing is reserved.
    """
    now = advanced(database, account, fold)
    if amount > now.available:
        return InsufficientCredits(account, now.balance, now.available, amount)
    return add_movement(database, account, "reserve", amount, at_s=at_s, operation=operation, reference=reference)


def close_in(database: sqlite3.Connection, account: str, reservation: int, used: Decimal, at_s: float) -> bool:
    """Close a reservation as part of a transaction: take the credits that were used, at most those reserved.

    Returns:
        Whether this call closed it; a closed one is not changed.
    """
    held = database.execute(
        "SELECT credits FROM credit WHERE id = ? AND account = ? AND kind = 'reserve' AND NOT EXISTS"
        " (SELECT 1 FROM credit AS after WHERE after.account = credit.account AND after.id > credit.id"
        " AND after.reservation = credit.id)",
        (reservation, account),
    ).fetchone()
    if held is None:
        return False
    kind, amount = ("settle", min(used, Decimal(held[0]))) if used > 0 else ("refund", Decimal(held[0]))
    add_movement(database, account, kind, amount, at_s=at_s, reservation=reservation)
    return True


def used_for(database: sqlite3.Connection, account: str, reference: str) -> Decimal:
    """Return the credits that were taken of reservations with this reference."""
    rows = database.execute(
        "SELECT taken.credits FROM credit AS held JOIN credit AS taken ON taken.account = held.account"
        " AND taken.id > held.id AND taken.reservation = held.id"
        " WHERE held.account = ? AND held.kind = 'reserve' AND held.reference = ? AND taken.kind = 'settle'",
        (account, reference),
    )
    return sum((Decimal(row[0]) for row in rows), Decimal(0))


def _movements(database: sqlite3.Connection, account: str, after: int) -> Iterator[Movement]:
    rows = database.execute(
        "SELECT id, at_s, kind, credits, reservation, operation, reference, note FROM credit"
        " WHERE account = ? AND id > ? ORDER BY id",
        (account, after),
    )
    return (Movement(row[0], row[1], row[2], Decimal(row[3]), *row[4:]) for row in rows)


class CreditAccount:
    """An account of credits in a journal; the same name is the same account, in every process.

    Args:
        name: Name of the account.
        journal: Path of the journal; default: the common one.
        unix_s: Function that returns the Unix time.

    Raises:
        InputError: The name is invalid.
        JournalError: The journal cannot be used.
    """

    def __init__(
        self, name: str = "default", journal: str | Path | None = None, *, unix_s: Callable[[], float] = time.time
    ) -> None:
        check_name(name)
        self.name = name
        self._path = journal
        self._unix_s = unix_s
        self._known: tuple[Journal, Fold] | None = None
        self._journal()  # a faulty file raises here

    def grant(self, amount: Amount, note: str = "") -> Decimal:
        """Add credits and return the balance.

        Args:
            amount: Credits, > 0, with at most 6 decimals; a Decimal or a text where a float is not exact.
            note: Remark in the statement.

        Raises:
            InputError: An argument is invalid.
        """
        granted, said = _amount(amount, above=True), _text("note", note)

        def unit(database: sqlite3.Connection, fold: Fold) -> Decimal:
            self._add(database, "grant", granted, note=said)
            return fold.balance + granted

        return self._write(unit)

    def reserve(self, amount: Amount, operation: str = "", reference: str = "") -> int:
        """Reserve credits for work that is about to start, and return the id of the reservation.

        Raises:
            InsufficientCredits: The available credits are fewer; nothing is reserved.
            InputError: An argument is invalid.
        """
        wanted = _amount(amount)
        work, what_for = _text("operation", operation), _text("reference", reference)

        def unit(database: sqlite3.Connection, fold: Fold) -> int | BatchError:
            if wanted > fold.available:
                return InsufficientCredits(self.name, fold.balance, fold.available, wanted)
            return self._add(database, "reserve", wanted, operation=work, reference=what_for)

        reservation = self._write(unit)
        to_disk(self._journal().path)  # before anything is bought with it
        return reservation

    def reserve_all(self, wanted: Sequence[tuple[Decimal, str, str]]) -> list[int]:
        """Reserve credits for several pieces of work in one commit, and return the ids of as many as they suffice for.

        Args:
            wanted: Amount, operation and reference of each, as for `reserve`.

        Raises:
            InputError: An argument is invalid.
        """
        asked = [(_amount(amount), _text("operation", work), _text("reference", what)) for amount, work, what in wanted]

        def unit(database: sqlite3.Connection, fold: Fold) -> list[int] | BatchError:
            left, made = fold.available, []
            for amount, work, what in asked:
                if amount > left:
                    break
                left -= amount
                made.append(self._add(database, "reserve", amount, operation=work, reference=what))
            return made

        reserved = self._write(unit)
        to_disk(self._journal().path)  # before anything is bought with it
        return reserved

    def settle(self, reservation: int, amount: Amount) -> bool:
        """Take the credits really used, at most those reserved; the rest is available again.

        Returns:
            Whether this call closed the reservation; a closed one is not changed.

        Raises:
            InputError: There is no such reservation, or ``amount`` exceeds it.
        """
        return self._close(reservation, "settle", _amount(amount))

    def refund(self, reservation: int) -> bool:
        """Make the whole reservation available again.

        Returns:
            Whether this call closed the reservation; a closed one is not changed.

        Raises:
            InputError: There is no such reservation.
        """
        return self._close(reservation, "refund", None)

    @property
    def balance(self) -> Decimal:
        """Credits granted and not used, including reserved ones."""
        return self._read().balance

    @property
    def available(self) -> Decimal:
        """Credits that are not reserved."""
        return self._read().available

    def open_reservations(self) -> list[Reservation]:
        """Return the open reservations, oldest first: of work in progress, or left by a crash.

        Raises:
            JournalError: The journal cannot be read.
        """
        return list(self._read().open.values())

    def statement(self) -> pd.DataFrame:
        """Return one row per movement, in order.

        Columns: id, at (UTC), kind ("grant", "reserve", "settle", "refund"), credits (change of the balance),
        reserved (change of the reserved credits), balance, available, reservation, operation, reference, note.
        Amounts are Decimal; the sum of ``credits`` is the balance.

        Raises:
            JournalError: The journal cannot be read.
        """
        with self._journal().reader() as database:
            return statement(database, self.name)

    def __repr__(self) -> str:
        fold = self._read()
        return f"CreditAccount({mask(self.name)!r}: balance {plain(fold.balance)}, available {plain(fold.available)})"

    def _close(self, reservation: int, kind: str, taken: Decimal | None) -> bool:
        reservation = check_count("reservation", reservation, low=1)

        def unit(database: sqlite3.Connection, fold: Fold) -> bool | BatchError:
            held = fold.open.get(reservation)
            if held is None:
                return False if was_made(database, self.name, reservation) else _unknown(self.name, reservation)
            if taken is not None and taken > held.credits:
                return InputError(f"credits must be <= {plain(held.credits)}, which are reserved, got {plain(taken)}")
            self._add(database, kind, held.credits if taken is None else taken, reservation=reservation)
            return True

        return self._write(unit)

    def _add(
        self,
        database: sqlite3.Connection,
        kind: str,
        amount: Decimal,
        *,
        reservation: int | None = None,
        operation: str = "",
        reference: str = "",
        note: str = "",
    ) -> int:
        return add_movement(
            database,
            self.name,
            kind,
            amount,
            at_s=self._unix_s(),
            reservation=reservation,
            operation=operation,
            reference=reference,
            note=note,
        )

    def _write(self, unit: Callable[[sqlite3.Connection, Fold], T | BatchError]) -> T:
        journal = self._journal()
        known = self._fold_in(journal)

        def write(database: sqlite3.Connection) -> tuple[T | BatchError, Fold]:
            fold = advanced(database, self.name, known)
            return unit(database, fold), fold

        result, fold = journal.write(write)
        self._known = journal, fold  # only now: a transaction that is rolled back adds no movement
        if isinstance(result, BatchError):
            raise result
        return cast("T", result)

    def _read(self) -> Fold:
        journal = self._journal()
        with journal.reader() as database:
            fold = advanced(database, self.name, self._fold_in(journal))
        self._known = journal, fold
        return fold

    def _fold_in(self, journal: Journal) -> Fold:
        """Return the known state of the account; an empty one if the journal was replaced."""
        return self._known[1] if self._known is not None and self._known[0] is journal else Fold()

    def _journal(self) -> Journal:
        return open_journal(self._path)


def _unknown(account: str, reservation: int) -> InputError:
    return InputError(
        f"reservation must be one of account {account!r}, got {reservation}: open_reservations() lists the open ones"
    )


def _amount(value: Any, *, above: bool = False) -> Decimal:
    """Return an exact amount.

    Raises:
        InputError: It is no number, is out of range, or has too many decimals.
    """
    try:
        amount = Decimal("NaN") if isinstance(value, bool) else Decimal(str(value))
    except InvalidOperation:
        amount = Decimal("NaN")
    in_range = amount.is_finite() and (amount > 0 if above else amount >= 0) and amount < _MOST
    if in_range and amount == amount.quantize(Decimal("0.000001")):
        return amount
    sign = ">" if above else ">="
    msg = f"credits must be {sign} 0 and < {_MOST:,}, with at most 6 decimals, got {value!r}"
    raise InputError(msg)


def _text(field: str, value: Any) -> str:
    if not isinstance(value, str):
        msg = f"{field} must be text, got {value!r}"
        raise InputError(msg)
    return mask(value)
