"""Tries: billed answers that were of no use, and which of them are followed by another.

    answer --empty, cut, invalid, blocked--> may it be sent again?
                                               |-- yes: it is recorded, then the prompt is sent again
                                               `-- no: the item fails with the last answer, and all that was paid

Nothing is sent again unless the user asked for it, and never more often.  A try is on record before the next one is
sent, so a restart counts on; it is forgotten when its item's outcome is on record.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from ipybatch.engine.data.clock import Clock
from ipybatch.engine.data.events import State
from ipybatch.engine.data.outcome import Outcome, decode, encode_result
from ipybatch.engine.data.plan import key_value
from ipybatch.engine.data.policy import check_count
from ipybatch.engine.run.attempt import Attempt
from ipybatch.engine.store.commit_queue import written
from ipybatch.engine.store.journal import Journal, tell_nobody
from ipybatch.errors import InputError, ItemError, JournalError, Permanent, Withheld
from ipybatch.gemini.batch.pending import key_of
from ipybatch.gemini.prompts import Prompt
from ipybatch.gemini.service.request_config import RequestConfig

WORDS = ("empty", "cut", "invalid")
MOST = 100  # times that one kind of answer is sent again
HELD_S = 0.2  # between checks whether a paused session goes on


class Unusable(Permanent):
    """An answer that was billed and is of no use; the answer is its result.

    Attributes:
        verdict: "empty", "cut", "blocked", or "invalid": it does not match the schema.
    """

    def __init__(self, message: str, verdict: str) -> None:
        super().__init__(message)
        self.verdict = verdict


def read_again(again: Any) -> dict[str, int]:
    """Return how often each kind of unusable answer is sent again.

    Args:
        again: A word or several, once each; or a number for each word; None for none.

    Raises:
        InputError: A word or a number is none of these.
    """
    words = {again: 1} if isinstance(again, str) else again or {}
    if not isinstance(words, Iterable):
        msg = f"again must be some of {', '.join(map(repr, WORDS))}, or a number for each, got {again!r}"
        raise InputError(msg)
    times: dict[str, int] = dict(words) if isinstance(words, Mapping) else dict.fromkeys(words, 1)
    for word, count in times.items():
        if word not in WORDS:
            instead = "; for what was blocked pass fallback=, another model" if word == "blocked" else ""
            msg = f"again must be some of {', '.join(map(repr, WORDS))}, got {word!r}{instead}"
            raise InputError(msg)
        times[word] = check_count(f"again[{word!r}]", count, low=1, high=MOST)
    return {word: times[word] for word in WORDS if word in times}


class Try(msgspec.Struct, frozen=True):
    """An unusable answer after which its item was sent again.

    Attributes:
        result: The item's result, had it been the last one.
    """

    verdict: str
    result: dict[str, Any]


class ItemTries(msgspec.Struct):
    """The tries of one item so far.

    Attributes:
        name: Hash of the item's key and all that is sent.
    """

    name: str
    tries: list[Try]

    def count(self, verdict: str) -> int:
        """Return how many answers of this kind were sent again."""
        return sum(one.verdict == verdict for one in self.tries)

    def whole(self, result: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Return a result with the number of its tries, and with all that was paid for them.

        Args:
            result: Of the last try; None if it has none: then that of the one before.
        """
        results = [one.result for one in self.tries] + ([] if result is None else [dict(result)])
        if not results:
            return None
        paid = [each["usd"] for each in results if each.get("usd") is not None]
        usd = math.fsum(paid) if len(paid) == len(results) else None
        return {**results[-1], "usd": usd, "tries": len(results)}


class Tries:
    """The tries of a session's items; to be used on one event loop.

    Args:
        again: How often an answer of each kind is sent again.
        since_s: Start of the session's run, Unix time: earlier tries belong to another run.
        state: Function that returns the session's state: a paused session sends nothing again, nor does one that ends.
    """

    def __init__(  # noqa: PLR0917  # its collaborators, each of another type
        self,
        again: Mapping[str, int],
        journal: Journal,
        session: str,
        model: str,
        request_config: RequestConfig,
        clock: Clock,
        state: Callable[[], State],
        since_s: float = 0.0,
    ) -> None:
        self.again = dict(again)
        self._journal, self._session, self._clock, self._state = journal, session, clock, state
        self._model, self._request_config = model, request_config
        self._items: dict[str, ItemTries] = {}
        self._ended: dict[Any, str] = {}  # names of the items that wait for their outcome to be recorded, by key
        if self.again:
            with journal.reader() as database:
                for name, verdict, result in database.execute(
                    "SELECT item, verdict, result FROM again WHERE session = ? AND at_s >= ? ORDER BY id",
                    (session, since_s),
                ):
                    item = self._items.setdefault(name, ItemTries(name, []))
                    item.tries.append(Try(verdict, decode(result)))

    def of(self, prompt: Prompt, attempt: Attempt) -> ItemTries:
        """Return the tries of an item."""
        name = key_of(self._model, self._request_config, prompt, attempt.key)
        return self._items.get(name) or ItemTries(name, [])

    async def follow(self, item: ItemTries, attempt: Attempt, error: ItemError) -> None:
        """Return if the item is to be sent again after an error, once that is on record.

        Raises:
            ItemError: It is not; the error's result holds all that was paid.
        """
        verdict = error.verdict if isinstance(error, Unusable) else ""
        received = error.result if isinstance(error.result, dict) else None
        if received is None or item.count(verdict) >= self.again.get(verdict, 0):
            error.result = item.whole(received)
            if received is not None:
                self._end(item, attempt)
            raise error
        await self._add(item, Try(verdict, received))
        while self._state() == "paused":  # noqa: ASYNC110  # the engine has no event for it
            await asyncio.sleep(HELD_S)
        if self._state() != "running":
            ended = Withheld(f"the session ended before it was sent again: {error}")
            ended.result = item.whole(None)
            raise ended

    def succeed(self, item: ItemTries, attempt: Attempt, result: dict[str, Any]) -> dict[str, Any]:
        """Return an item's result, with all that was paid."""
        self._end(item, attempt)
        return item.whole(result) or result

    def recorded(self, outcomes: Iterable[Outcome]) -> None:
        """Forget the tries of items whose outcomes are on disk."""
        if not self._ended:
            return
        names = [self._ended.pop(one.key) for one in outcomes if one.key in self._ended]
        for name in names:
            self._items.pop(name, None)
        rows = [(self._session, name) for name in names]
        query = "DELETE FROM again WHERE session = ? AND item = ?"
        if rows:
            self._journal.submit(lambda database: database.executemany(query, rows), tell_nobody)

    def _end(self, item: ItemTries, attempt: Attempt) -> None:
        if item.tries:
            self._ended[key_value(attempt.key)] = item.name

    async def _add(self, item: ItemTries, one: Try) -> None:
        row = self._clock.unix_s(), self._session, item.name, one.verdict, encode_result(one.result)
        query = "INSERT INTO again (at_s, session, item, verdict, result) VALUES (?, ?, ?, ?, ?)"

        def unit(database: sqlite3.Connection) -> None:
            database.execute(query, row)

        def write(done: Callable[[JournalError | None], object]) -> None:
            def tell(result: Any, error: JournalError | None) -> None:
                done(error)

            self._journal.submit(unit, tell)

        await written(self._clock, write)
        item.tries.append(one)
        self._items[item.name] = item
