"""Source: a service that records come from.

A new service is a new module with a class of this shape; `refresh` needs nothing else of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from ipybatch.engine.data.policy import Breaker, Limits, Retry
from ipybatch.engine.run.permits import Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a record is known by in the `Library`.

    Attributes:
        kind: "game", "guild", "character".
        key: What JSON can hold, and `Source.identify` takes as an item.
        place: Where the record holds, a country or a region: the same game has another price elsewhere.
        turn: Kinds with a lower one are fetched first: guilds before characters.
    """

    kind: str
    key: Any
    place: str = ""
    turn: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """How a service is refreshed unless the user says otherwise.

    Attributes:
        name: Of the session.
        resource: What is rationed; sessions that name the same one share its windows.
        settings: What is sent with every item.
        timeout_s: For one attempt, seconds; None for no limit.
        expands: What ``expand=`` of `refresh` may ask for; then the source is an `Expanding` one.
    """

    name: str
    resource: str
    settings: dict[str, Any]
    limits: Limits
    retry: Retry
    breaker: Breaker
    timeout_s: float | None
    expands: tuple[str, ...] = ()


class Source(AbstractAsyncContextManager[Any], Protocol):
    """A service that records come from, entered on the engine's loop, so that its HTTP client is born there."""

    def defaults(self) -> Defaults:
        """Return how it wants to be refreshed."""
        ...

    def identify(self, item: Any) -> Identity:
        """Return what the item's record is known by.

        Raises:
            InputError: There can be no such item; names field, value, range and next step.
        """
        ...

    async def fetch(
        self, item: Any, attempt: Attempt, kept: dict[str, Any] | None = None, expand: str = ""
    ) -> dict[str, Any]:
        """Return the item's record, by one request; each further one asks ``attempt`` for its permit.

        Args:
            kept: What the library has of it, None for nothing: where the service says that it is still so, return it.
            expand: Fetch that too, one of `Defaults.expands`.

        Raises:
            ItemError: It could not be fetched; the type says what to do.
        """
        ...


class Expanding(Source, Protocol):
    """A source some of whose records name further items: a guild its members."""

    def can_expand(self, what: str, kind: str) -> bool:
        """Say whether records of this kind name further items."""
        ...

    def expand(self, what: str, data: Mapping[str, Any]) -> list[Any] | None:
        """Return the items that a record names; None when it does not hold them.

        Raises:
            ItemError: They cannot be read.
        """
        ...
