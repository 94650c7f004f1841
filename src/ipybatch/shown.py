"""Shown: what of a session is for those who look at it, and the limits that they may change."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from ipybatch import attached, checks
from ipybatch.engine import events, ledger, recorded
from ipybatch.engine.bottleneck import Name, named
from ipybatch.engine.changing import wanting
from ipybatch.engine.drive import Drive, Order
from ipybatch.engine.feed import Feed, Listener
from ipybatch.engine.journal import Journal
from ipybatch.engine.plan import Priority
from ipybatch.engine.policy import Limits
from ipybatch.engine.recorded import RecordedItem
from ipybatch.errors import InputError

if TYPE_CHECKING:
    from ipybatch.jupyter.viewed import Viewed

T = TypeVar("T")


class Shown(ABC):
    """The part of a session that views use."""

    _order: Order
    _declared: Limits
    _drive: Drive
    _feed: Feed
    _journal: Journal

    @abstractmethod
    def ask(self, question: Callable[[], T]) -> T | None:
        """Answer a question where nothing moves meanwhile."""

    def on(self, name: Name | Listener, listener: Listener | None = None) -> Callable[[], None]:
        """Call a listener with every event, or with those of one name, on the engine's thread.

        Args:
            name: Such as "done" or "retry": `ipybatch.engine.bottleneck.NAMES`. The listener, for every event.
            listener: Called with the event.

        Returns:
            A function that ends it.

        Raises:
            InputError: There is no event of that name.
        """
        if listener is None and callable(name):
            return self._feed.on(name)
        if not callable(listener):
            msg = f"listener must be a function of an event, got {listener!r}"
            raise InputError(msg)
        return self._feed.on(named(name, listener, lambda: self._feed.snapshot))

    @property
    def policy(self) -> Order:
        """Limits, retry and breaker, as they hold."""
        return self._order

    @property
    def declared(self) -> Limits:
        """The limits it was made with, which `adjust` does not exceed."""
        return self._declared

    def adjust(self, *, concurrency: int | None = None, rates: Sequence[float] | None = None) -> None:
        """Change the limits while it runs: slower at once, faster up to those it was made with.

        Args:
            concurrency: Attempts at the same time.
            rates: The limit of each rate, in the order of ``limits.rates``.

        Raises:
            InputError: More than it was made with, or nothing at all.
        """
        limits = _adjusted(self._declared, self._order.limits, concurrency, rates)
        self._order = msgspec.structs.replace(self._order, limits=limits)

        def change() -> None:
            words = ", ".join([f"{limits.concurrency} at a time", *map(str, limits.rates)])
            self._feed.emit(events.Commanded(self._feed.clock.unix_s(), f"limits: {words}"))
            self._drive.change(limits)

        self.ask(change)

    def prioritize(self, wanted: Callable[[Any], bool] | Iterable[Any], priority: Priority) -> int:
        """Let items that wait go before the others, or after them, also while it runs; return how many were meant.

        Args:
            wanted: A function of an item, or the keys of some.
            priority: "high", "medium" or "low".

        Raises:
            InputError: There is no such priority, or the items come from a generator.
        """
        place, is_wanted = checks.place_of(priority), wanting(wanted)

        def change() -> int:
            meant = self._drive.prioritize(is_wanted, place)
            items = "1 item" if meant == 1 else f"{meant:,} items"
            self._feed.emit(events.Commanded(self._feed.clock.unix_s(), f"priority {priority}: {items}"))
            return meant

        return self.ask(change) or 0

    def tell(self, event: events.Event) -> None:
        """Publish something that only the work knows; on the engine's thread while it runs."""
        self._feed.emit(event)

    def items_of(self, group: int, *, offset: int = 0, limit: int = 100) -> tuple[int, list[RecordedItem]]:
        """Return how many items of a group are recorded, and some of them with their attempts, failed ones first."""
        if self._is_fresh:
            return 0, []
        with self._journal.reader() as database:
            found = ledger.find(database, self._order.opening.name)
            if found is None:
                return 0, []
            return recorded.read_items(database, found.run, group, offset=offset, limit=limit)

    def recall(self) -> None:
        """Let the snapshot know how items ended in earlier processes."""
        if self._feed.snapshot.pace.is_whole:
            return
        opening = self._order.opening
        marks = [] if self._is_fresh else attached.earlier_pace(self._journal, opening.name, self._feed.snapshot)

        def tell() -> None:
            if not self._feed.snapshot.pace.is_whole:  # another view may have been quicker
                self._feed.emit(events.PaceRecalled(self._feed.clock.unix_s(), marks))

        self.ask(tell)

    @property
    def _is_fresh(self) -> bool:
        """Whether what is recorded under its name is another run: it has not made its own yet."""
        return self._drive.order.opening.fresh

    def export_html(self, path: str | Path) -> Path:
        """Write the panel as it stands as one HTML page that needs nothing else, and return its path."""
        from ipybatch.jupyter import page

        return page.write(cast("Viewed", self), Path(path))

    def _ipython_display_(self) -> None:
        from ipybatch.jupyter import show

        show(cast("Viewed", self))


def _adjusted(declared: Limits, before: Limits, concurrency: int | None, rates: Sequence[float] | None) -> Limits:
    at_once = before.concurrency if concurrency is None else concurrency
    wanted = [rate.limit for rate in before.rates] if rates is None else list(rates)
    if len(wanted) != len(declared.rates):
        msg = f"rates must be {len(declared.rates)} limits, one for each rate, got {len(wanted)}"
        raise InputError(msg)
    changed = tuple(replace(rate, limit=limit) for rate, limit in zip(declared.rates, wanted, strict=True))
    after = replace(before, concurrency=at_once, rates=changed)
    if at_once > declared.concurrency:
        msg = f"concurrency must be <= {declared.concurrency}, which the session was made with, got {at_once}"
        raise InputError(msg)
    for rate, most in zip(changed, declared.rates, strict=True):
        if rate.limit > most.limit:
            msg = f"limit must be <= {most.limit:g}, which the session was made with, got {rate.limit:g}"
            raise InputError(msg)
    return after
