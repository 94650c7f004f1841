"""Usage: the recorded calls with their tokens and cost, and the budget of a session.

A call is handed to the journal's writer before its item's outcome, so a completed item is never without its cost.

Money is reserved before a call and released after it, so that a budget cannot be overspent:

    free --reserve--> reserved --free--> free
                          |
                          +---spend----> spent

A call that does not fit waits for the calls in flight, which may turn out cheaper.  If none is in flight, the call is
withheld, and the session ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ipybatch.engine.store.journal import Journal, open_journal
from ipybatch.errors import InputError, Withheld
from ipybatch.gemini.money.credits import CreditAccount, InsufficientCredits, find_credits
from ipybatch.gemini.money.prices import Prices, find_price
from ipybatch.gemini.prompts import Prompt
from ipybatch.gemini.service.reply import Tokens

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = (
    "at_s, session, lane, model, operation, project, status,"
    " tokens_in, tokens_out, tokens_thoughts, tokens_cached, usd, credits, ms"
)
_INSERT = f"INSERT INTO usage ({_COLUMNS}) VALUES ({', '.join('?' * 14)})"  # noqa: S608  # constants
USAGE_COLUMNS = "operation model lane requests failed tokens_in tokens_out tokens_thoughts tokens_cached usd credits ms"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call, or one request of a batch job.

    Attributes:
        at_s: End of the call, Unix time.
        status: "ok"; "blocked", "cut", "empty" or "invalid" (all billed); else the error, such as "429".
        usd: Cost; None if no price is known.
        credits: Credits taken; None for an operation without credits.
        ms: Time from request to answer, milliseconds; 0.0 in a batch job.
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


def record_calls(journal: Journal, *calls: Call) -> None:
    """Hand calls to the journal's writer, which keeps their order among all records."""
    rows = [
        (
            call.at_s,
            call.session,
            call.lane,
            call.model,
            call.operation,
            call.project,
            call.status,
            call.tokens.in_,
            call.tokens.out,
            call.tokens.thoughts,
            call.tokens.cached,
            None if call.usd is None else float(call.usd),
            None if call.credits is None else str(call.credits),
            call.ms,
        )
        for call in calls
    ]
    journal.submit(lambda database: database.executemany(_INSERT, rows), lambda result, error: None)


def spent_usd(journal: Journal, session: str, since_s: float) -> Decimal:
    """Return the cost of a session's calls since a Unix time."""
    with journal.reader() as database:
        (usd,) = database.execute(
            "SELECT coalesce(sum(usd), 0) FROM usage WHERE session = ? AND at_s >= ?", (session, since_s)
        ).fetchone()
    return Decimal(str(usd))


def latency_s(journal: Journal, model: str, since_s: float) -> float | None:
    """Return the mean time to a model's online answers since a Unix time, seconds; None if there were none."""
    with journal.reader() as database:
        (ms,) = database.execute(
            "SELECT avg(ms) FROM usage WHERE model = ? AND lane = 'online' AND status = 'ok' AND at_s >= ?",
            (model, since_s),
        ).fetchone()
    return None if ms is None else float(ms) / 1000


def usage(
    last_s: float | None = None,
    *,
    session: str | None = None,
    journal: str | Path | None = None,
    now_s: float | None = None,
) -> pd.DataFrame:
    """Return requests, tokens and cost, one row per (operation, model, lane), sorted.

    Args:
        last_s: Length of the time up to now, seconds; None: all time.
        session: Name of a session; None: all sessions.
        journal: Path of the journal; default: the common one.
        now_s: Unix time that counts as now; default: the present.

    Returns:
        operation, model, lane, requests, failed (status other than "ok"), tokens_in, tokens_out, tokens_thoughts,
        tokens_cached, usd (None if no price is known), credits (Decimal), ms (mean over requests outside batch jobs).

    Raises:
        JournalError: The journal is damaged or cannot be read.
    """
    import pandas as pd

    since_s = 0.0 if last_s is None else (time.time() if now_s is None else now_s) - last_s
    where, values = "at_s >= ?", [since_s]
    if session is not None:
        where, values = where + " AND session = ?", [*values, session]  # type: ignore[list-item]  # a name
    with open_journal(journal).reader() as database:
        rows = database.execute(
            "SELECT operation, model, lane, count(*), sum(status <> 'ok'), sum(tokens_in), sum(tokens_out),"  # noqa: S608  # constants
            " sum(tokens_thoughts), sum(tokens_cached), sum(usd), group_concat(credits, ' '),"
            f" avg(nullif(ms, 0)) FROM usage WHERE {where} GROUP BY operation, model, lane ORDER BY 1, 2, 3",
            values,
        ).fetchall()
    summed = [[*row, sum(map(Decimal, (taken or "").split()), Decimal(0)), ms] for *row, taken, ms in rows]
    return pd.DataFrame(summed, columns=USAGE_COLUMNS.split())


class Budget:
    """The budget of a session, in USD; to be used on one event loop.

    Attributes:
        limit_usd: The budget; None: unlimited.
        spent_usd: Cost so far, in this run.
    """

    def __init__(self, limit_usd: float | Decimal | None) -> None:
        self.limit_usd = None if limit_usd is None else Decimal(str(limit_usd))
        self.spent_usd = Decimal(0)
        self._reserved = Decimal(0)
        self._waiting: list[asyncio.Future[None]] = []

    def check(self, least: Decimal) -> None:
        """Check that the budget allows one call.

        Raises:
            InputError: It does not; the message says what one call may cost.
        """
        if self.limit_usd is not None and self.limit_usd < least:
            msg = f"budget_usd must be >= {least:.6f}, which one call may take, got {self.limit_usd}"
            raise InputError(msg)

    async def reserve(self, usd: Decimal) -> None:
        """Reserve the expected cost of a call; wait while calls in flight may make room.

        Raises:
            Withheld: The call does not fit, and none is in flight.
        """
        while self.limit_usd is not None and self.spent_usd + self._reserved + usd > self.limit_usd:
            if not self._reserved:
                msg = (
                    f"budget_usd is {self.limit_usd:f}: {self.spent_usd:.4f} is spent, and the next call may take"
                    f" {usd:.4f}. Raise it, and run again for the rest"
                )
                raise Withheld(msg)
            freed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(freed)
            await freed
        self._reserved += usd

    def spend(self, usd: Decimal) -> None:
        """Count the actual cost of a call."""
        self.spent_usd += usd

    def free(self, usd: Decimal) -> None:
        """Release a reservation."""
        self._reserved -= usd
        waiting, self._waiting = self._waiting, []
        for freed in waiting:
            if not freed.done():
                freed.set_result(None)


class Money(msgspec.Struct):
    """Budget, prices and credits of a session.

    Attributes:
        budget: The budget in USD.
        prices: The user's own prices.
        account: The credit account; None: credits are not counted.
    """

    budget: Budget
    prices: Prices | None = None
    account: CreditAccount | None = None

    def usd(self, model: str, tokens: Tokens, lane: str) -> Decimal | None:
        """Return the cost of tokens, or None if no price is known."""
        found = find_price(model, tokens, lane, prices=self.prices)
        return None if found is None else found.usd

    @contextmanager
    def credits_for(self, prompt: Prompt, lane: str, session: str) -> Iterator[None]:
        """Reserve the credits of a call; take them if it succeeds, refund them if it fails.

        Raises:
            Withheld: The account has too few credits.
        """
        amount = find_credits(prompt.operation, 1, lane)
        if self.account is None or amount is None:
            yield
            return
        try:
            reservation = self.account.reserve(amount, prompt.operation, f"{session}: {prompt.id}")
        except InsufficientCredits as error:
            raise Withheld(str(error)) from error
        try:
            yield
        except BaseException:
            self.account.refund(reservation)
            raise
        self.account.settle(reservation, amount)
