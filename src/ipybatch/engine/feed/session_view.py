"""What a view needs of a session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from ipybatch.engine.data.outcome import Summary
from ipybatch.engine.data.policy import Limits
from ipybatch.engine.feed.snapshot import Snapshot

if TYPE_CHECKING:
    from ipybatch.engine.run.live_status import Gauges
    from ipybatch.engine.run.run import Order
    from ipybatch.engine.store.rows import RecordedItem

T = TypeVar("T")

Reply = Literal["asked", "done"]  # "asked": the engine was too busy to answer and executes the command later


class SessionView(Protocol):
    """A session as the views see it: properties to read, questions to ask, commands to give."""

    @property
    def snapshot(self) -> Snapshot:
        """The state, as the sum of all events."""
        ...

    @property
    def gauges(self) -> Gauges:
        """The live status: facts of the moment."""
        ...

    @property
    def policy(self) -> Order:
        """Limits, retry and breaker, as they hold now."""
        ...

    @property
    def declared(self) -> Limits:
        """The limits that the session was made with, which `adjust` does not exceed."""
        ...

    @property
    def summary(self) -> Summary:
        """State and counts so far."""
        ...

    def ask(self, question: Callable[[], T]) -> T:
        """Call ``question`` on the engine's thread and return its result.

        Raises:
            EngineBusy: The engine did not answer within a second; the question is called later all the same.
        """
        ...

    def recall(self) -> None:
        """Add how items ended in earlier processes to the snapshot.

        Raises:
            EngineBusy: The engine did not answer within a second.
        """
        ...

    def items_of(self, group: int, *, offset: int, limit: int) -> tuple[int, list[RecordedItem]]:
        """Return the number of recorded items of a group, and some of them."""
        ...

    def adjust(self, *, concurrency: int | None, rates: Sequence[float] | None) -> Reply:
        """Change concurrency, and the limit of each rate."""
        ...

    def pause(self) -> Reply:
        """Start no further attempts."""
        ...

    def resume(self) -> Reply:
        """Continue after a pause or an end."""
        ...

    def cancel(self) -> Reply:
        """End the running attempts, and the session."""
        ...

    def retry_failed(self) -> Reply:
        """Run failed items again."""
        ...
