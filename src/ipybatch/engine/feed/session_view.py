"""What a view needs of a session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ipybatch.engine.data import events
from ipybatch.engine.data.outcome import Summary
from ipybatch.engine.data.policy import Limits
from ipybatch.engine.feed.snapshot import Snapshot

if TYPE_CHECKING:
    from ipybatch.engine.run.live_status import Gauges
    from ipybatch.engine.run.run import Order
    from ipybatch.engine.store.rows import RecordedItem

T = TypeVar("T")


class SessionView(Protocol):
    """A session, as views see it: facts to read, events to hear, four commands."""

    @property
    def snapshot(self) -> Snapshot:
        """The state that the events add up to."""
        ...

    @property
    def gauges(self) -> Gauges:
        """Facts of the moment."""
        ...

    @property
    def policy(self) -> Order:
        """Limits, retry and breaker."""
        ...

    @property
    def summary(self) -> Summary:
        """What it came to so far."""
        ...

    def ask(self, question: Callable[[], T]) -> T:
        """Answer a question where nothing moves meanwhile; raises EngineBusy when the engine does not answer."""
        ...

    def on(self, listener: Callable[[events.Event], None]) -> Callable[[], None]:
        """Call ``listener`` with every event; return a function that ends that."""
        ...

    @property
    def declared(self) -> Limits:
        """The limits that `adjust` does not exceed."""
        ...

    def recall(self) -> None:
        """Let the snapshot know how items ended in earlier processes."""
        ...

    def items_of(self, group: int, *, offset: int, limit: int) -> tuple[int, list[RecordedItem]]:
        """Return how many items of a group are recorded, and some of them."""
        ...

    def adjust(self, *, concurrency: int | None, rates: Sequence[float] | None) -> None:
        """Change concurrency, and the limit of each rate."""
        ...

    def pause(self) -> Any:
        """Start nothing more."""
        ...

    def resume(self) -> Any:
        """Go on."""
        ...

    def cancel(self) -> Any:
        """End it."""
        ...

    def retry_failed(self) -> Any:
        """Run again what failed."""
        ...
