"""Viewed: what a view needs of a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from ipybatch.engine import events
from ipybatch.engine.drive import Order
from ipybatch.engine.gauges import Gauges
from ipybatch.engine.snapshot import Snapshot
from ipybatch.engine.summary import Summary

T = TypeVar("T")


class Viewed(Protocol):
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

    def ask(self, question: Callable[[], T]) -> T | None:
        """Answer a question where nothing moves meanwhile; None when the engine is too busy."""
        ...

    def on(self, listener: Callable[[events.Event], None]) -> Callable[[], None]:
        """Call ``listener`` with every event; return a function that ends that."""
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
