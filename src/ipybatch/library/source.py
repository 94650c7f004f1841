"""Source: a service that records come from.

A new service is a new module with a class of this shape; `refresh` needs nothing else of it.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from ipybatch.engine.attempt import Attempt
from ipybatch.engine.policy import Breaker, Limits, Retry


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a record is known by in the `Library`.

    Attributes:
        kind: "game", "guild", "character".
        key: What JSON can hold, and `Source.accept` takes as an item.
        place: Where the record holds, a country or a region: the same game has another price elsewhere.
    """

    kind: str
    key: Any
    place: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """How a service is refreshed unless the user says otherwise.

    Attributes:
        name: Of the session.
        resource: What is rationed; sessions that name the same one share its windows.
        settings: What is sent with every item.
        timeout_s: For one attempt, seconds.
    """

    name: str
    resource: str
    settings: dict[str, Any]
    limits: Limits
    retry: Retry
    breaker: Breaker
    timeout_s: float


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

    async def fetch(self, item: Any, attempt: Attempt) -> dict[str, Any]:
        """Return the item's record, by one request; each further one asks ``attempt`` for its permit.

        Raises:
            ItemError: It could not be fetched; the type says what to do.
        """
        ...
