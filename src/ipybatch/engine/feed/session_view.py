"""What a view needs of a session."""

from __future__ import annotations

import datetime as dt
import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeVar

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.error_groups import FailureList
from ipybatch.engine.data.fact import Fact
from ipybatch.engine.data.outcome import RecordedItem, Summary
from ipybatch.engine.data.policy import Limits
from ipybatch.engine.data.spec import Spec
from ipybatch.engine.feed.feed import Listener
from ipybatch.engine.feed.snapshot import Snapshot

T = TypeVar("T")

_made: weakref.WeakValueDictionary[int, SessionView] = weakref.WeakValueDictionary()
_numbers = itertools.count()

Reply = Literal["asked", "done"]  # "asked": the engine was too busy to answer and executes the command later


class LimitGroupStatus(msgspec.Struct, frozen=True):
    """One limit group.

    Attributes:
        waiting: Items that wait in it.
        windows: (used, limit, per_s, unit) of each of its rates.
        cool_s: Seconds of its cool-down that are left.
    """

    name: str
    waiting: int
    windows: list[tuple[float, float, float, str]]
    cool_s: float


class LiveStatus(msgspec.Struct, frozen=True):
    """Facts of the moment.

    Attributes:
        waiting: Why nothing starts just now, in words; "" when something may, or when it is clear.
        windows: (used, limit, per_s, unit) of each rate.
        allowed_per_s: Starts per second that the limits allow in the long run; None without rates and spacing.
        eta_s: Seconds left, at best and at worst; None when unknown.
        limit_groups: Limits of each limit group, in the order in which they came.
        queued: How many items of high, medium and low priority have yet to start; None where all have the same.
        lingering: Given-up attempts that go on by themselves.
        sharing: Who else uses the resource: sessions of other processes, as people call them.
        running_elsewhere: Attempts of theirs that run.
        starts_s: The start that it waits for, Unix time; 0.0 for none.
        outside_hours: Whether it waits for its working hours, and nothing runs.
    """

    waiting: str = ""
    windows: list[tuple[float, float, float, str]] = msgspec.field(default_factory=list)
    allowed_per_s: float | None = None
    eta_s: tuple[float, float] | None = None
    lingering: int = 0
    limit_groups: list[LimitGroupStatus] = msgspec.field(default_factory=list)
    queued: tuple[int, ...] | None = None
    sharing: tuple[str, ...] = ()
    running_elsewhere: int = 0
    starts_s: float = 0.0
    outside_hours: bool = False


class Elsewhere(msgspec.Struct, frozen=True):
    """What another process runs, and this one only follows.

    Attributes:
        where: Such as "in process 42 on host".
        untaken: Verbs of the commands that it was asked, and has not taken yet.
        is_told: Whether its limits, its breaker and what is in flight are on record.
    """

    where: str
    untaken: frozenset[str] = frozenset()
    is_told: bool = False


class SessionView(Protocol):
    """A session as the views see it: properties to read, questions to ask, commands to give."""

    @property
    def snapshot(self) -> Snapshot:
        """The state, as the sum of all events."""

    @property
    def live_status(self) -> LiveStatus:
        """The live status: facts of the moment."""

    @property
    def facts(self) -> list[Fact]:
        """What its work tells of itself; while it runs always as many, so that nothing moves."""

    @property
    def policy(self) -> Spec:
        """Limits, retry and breaker, as they hold now."""

    @property
    def declared(self) -> Limits:
        """The limits that the session was made with, which `adjust` does not exceed."""

    @property
    def summary(self) -> Summary:
        """State and counts so far."""

    @property
    def elsewhere(self) -> Elsewhere | None:
        """Where it runs, when another process runs it."""

    @property
    def lacks(self) -> str:
        """Why it can only be read here; "" when it can run."""

    @property
    def reopen(self) -> str:
        """The expression that opens it again in another kernel; "" when it is not on record."""

    def note(self, text: str, kind: events.NoteKind = "") -> None:
        """Tell the user something, once."""

    def on(self, name: Listener) -> Callable[[], None]:
        """Call a listener with every event; return a function that ends that."""

    def look(self) -> None:
        """Look whether another process has gone on with it, once it has ended.

        Raises:
            JournalError: The journal cannot be read.
        """

    def ask(self, question: Callable[[], T]) -> T:
        """Call ``question`` on the engine's thread and return its result.

        Raises:
            EngineBusy: The engine did not answer within a second; the question is called later all the same.
        """

    def recall(self) -> None:
        """Add how items ended in earlier processes to the snapshot.

        Raises:
            EngineBusy: The engine did not answer within a second.
        """

    def items_of(self, group: int, *, offset: int, limit: int) -> tuple[int, list[RecordedItem]]:
        """Return the number of recorded items of a group, and some of them."""

    def failures(
        self, search: str = "", *, offset: int = 0, limit: int = 100, version: int = 0
    ) -> tuple[FailureList, list[RecordedItem]]:
        """Return what failed and matches, and some of these items."""

    def retry_matching(self, search: str) -> Reply:
        """Run the failed items again that match."""

    def adjust(
        self,
        *,
        concurrency: int | None = None,
        rates: Sequence[float] | None = None,
        start_at: str | dt.datetime | None = None,
    ) -> Reply:
        """Change concurrency, and the limit of each rate; or when it starts."""

    def pause(self) -> Reply:
        """Start no further attempts."""

    def resume(self) -> Reply:
        """Continue after a pause or an end."""

    def cancel(self) -> Reply:
        """End the running attempts, and the session."""

    def lift(self) -> Reply:
        """End the cool-down of its resource."""

    def retry_failed(self) -> Reply:
        """Run failed items again."""


def enlist(session: SessionView) -> None:
    """Count a session among those that were made in this process."""
    _made[next(_numbers)] = session


def made_here() -> list[SessionView]:
    """Return the sessions that were made in this process and still exist, in the order in which they were made."""
    return [session for _, session in sorted(_made.items())]
