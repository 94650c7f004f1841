"""Absences: what a refresh finds not to be there, and whether that is believed.

    not there --never held--> remembered: asked for again after 1, 7, 30 days
        |
        +--held--> kept back --the call ends--> remembered, and the record stays, marked
                       |                              ^
                       +--too many--> pause --resume()+
                                        +---cancel()----> nothing is remembered

Too many: `MOST` of the records that the call asks for, and at least `FLOOR`.  A service that is overloaded, moved or
broken may answer "not there" for everything; nothing is marked before somebody says that it is true.

What is held and answered with a bare 404 is asked for once more, a moment later: Battle.net may answer 404 where it
means 429.  A 404 of what was never held may come from a wrong address: it is remembered once the service has answered
anything else in this call, or where it is one of a few.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from contextlib import suppress
from typing import Any, Literal, get_args

from ipybatch.engine.data import events
from ipybatch.engine.data.clock import Clock
from ipybatch.engine.run.attempt import Attempt
from ipybatch.errors import InputError, Refused
from ipybatch.library.records import Library
from ipybatch.library.source import Identity, NotThere
from ipybatch.session import waiting
from ipybatch.session.session import BatchSession

OnVanished = Literal["ask", "believe", "fail"]

MOST = 1 / 5  # of what is held and asked for
FLOOR = 5  # records

MOMENT_S = 2.0  # before something that is held is asked for once more

_LOOK_S = 1.0  # between two looks whether the session ends

_Found = dict[str, tuple[Identity, float]]  # by the item's key, each with the Unix time when it was asked for


def check_on_vanished(on_vanished: Any) -> None:
    """Refuse what is no answer to a mass disappearance.

    Raises:
        InputError: Says what it must be.
    """
    if on_vanished not in get_args(OnVanished):
        msg = f"on_vanished must be one of {', '.join(map(repr, get_args(OnVanished)))}, got {on_vanished!r}"
        raise InputError(msg)


class Absences:
    """What one call of `refresh` finds not to be there. All of it is called on the engine's thread.

    Args:
        library: Library that remembers it.
        on_vanished: What to do about a mass disappearance.
    """

    def __init__(self, library: Library, clock: Clock, on_vanished: OnVanished) -> None:
        self._library, self._clock, self._on_vanished = library, clock, on_vanished
        self.begin()

    def begin(self) -> None:
        """Begin a call."""
        self._held: set[str] = set()  # keys of the items that are asked for and have a record
        self._vanished: _Found = {}  # those of them that are not there, kept back
        self._unsure: _Found = {}  # never held, and not known to be the service's own word
        self._has_answered = False
        self._is_believed = self._on_vanished == "believe"
        self._question = ""
        self._answer = asyncio.Event()

    def expect(self, key: str) -> None:
        """Count a record that is asked for."""
        self._held.add(key)

    def succeed(self) -> None:
        """Count an answer: the service is there, and so is what it says of others.

        Raises:
            JournalError: The library was not written.
        """
        self._has_answered = True
        if self._unsure:
            self._remember(self._unsure)

    def doubts(self, one: Identity, error: NotThere, *, held: bool) -> bool:
        """Return whether to ask once more.

        Raises:
            JournalError: The library cannot be read.
        """
        if error.is_certain or not held or self._is_believed or self._question:
            return False
        return self._library.absence(one.kind, one.key, one.place) is None

    async def find(
        self, session: BatchSession, attempt: Attempt, one: Identity, error: NotThere, *, held: bool
    ) -> None:
        """Take in that something is not there; wait for the user's answer where too much vanished.

        Args:
            held: Whether the library has a record of it.

        Raises:
            Refused: Too much vanished, and nobody is to be asked.
            JournalError: The library was not written.
        """
        found = {attempt.key: (one, self._clock.unix_s())}
        is_known = self._library.absence(one.kind, one.key, one.place) is not None
        if held and not is_known and not self._is_believed:
            self._held.add(attempt.key)
            self._vanished |= found
            if not self._question and self._is_too_much():
                await self._ask(session, attempt)
        elif held or is_known or error.is_certain or self._has_answered:
            self._remember(found)
        else:
            self._unsure |= found

    def follow(self, event: events.Event) -> None:
        """Take the session's going on for a yes."""
        if self._question and isinstance(event, events.StateChanged) and event.state == "running":
            self._is_believed = True
            self._answer.set()

    def end(self, session: BatchSession) -> None:
        """End the call: remember what is believed.

        Raises:
            JournalError: The library was not written.
        """
        if not self._question or self._is_believed:
            self._remember(self._vanished)
        if len(self._unsure) < FLOOR:
            self._remember(self._unsure)
        else:
            session.note(
                f"none of {len(self._unsure):,} items was there, and nothing else was answered: is the address right?"
                " They are asked for again at the next call"
            )

    def _is_too_much(self) -> bool:
        return len(self._vanished) >= FLOOR and len(self._vanished) > MOST * len(self._held)

    async def _ask(self, session: BatchSession, attempt: Attempt) -> None:
        numbers = f"{len(self._vanished):,} of {len(self._held):,} records that this call asks for"
        told = f"{numbers} are said not to be there any more: too many to believe unasked"
        if self._on_vanished == "fail":
            self._question = told
            msg = f"{told}, so nothing was marked; on_vanished='believe' believes it"
            raise Refused(msg)
        self._question = f"{told}. resume() believes it and goes on, cancel() leaves the records as they are"
        self._tell(session)
        session.pause()
        with attempt.waiting():
            while not self._answer.is_set() and session.ending in ("running", "paused"):
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._answer.wait(), _LOOK_S)
        if self._is_believed:
            session.note(self._question, "over")
            self._remember(self._vanished)

    def _tell(self, session: BatchSession) -> None:
        """Note the question; on standard error too where no panel shows it: whoever waits there would not know why."""
        session.note(self._question, "passing")
        if sys.stderr is not None and not waiting.in_notebook():
            with suppress(OSError, ValueError):  # closed, or its reader is gone
                how = f"python -m ipybatch resume {shlex.quote(session.name)}, or cancel, does it from a terminal"
                sys.stderr.write(f"ipybatch: session {session.name!r} is paused: {self._question}. {how}\n")

    def _remember(self, found: _Found) -> None:
        if found:
            self._library.mark_absent(found.values())
            found.clear()
