"""Source: a service that records come from.

A new service is a new module with a class of this shape; `refresh` needs nothing else of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ipybatch.engine.data.policy import Breaker, Limits, Retry
from ipybatch.engine.run.permits import Attempt
from ipybatch.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SettingsT = TypeVar("SettingsT", bound="DataclassInstance")


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


def read_environment(
    kind: type[SettingsT], prefix: str, environment: Mapping[str, str], given: Mapping[str, Any]
) -> SettingsT:
    """Return settings: what is given, else the environment, else the defaults.

    Args:
        kind: A frozen dataclass whose fields have defaults and are checked when it is made.
        prefix: What the names of its variables begin with; the rest is the field's name in capitals.
        given: Values by field.

    Raises:
        InputError: A variable or an argument is outside its range; names it, its range and its value.
    """
    settings = kind()
    for name in [field.name for field in fields(kind) if field.name not in given]:
        variable = prefix + name.upper()
        text = environment.get(variable, "")
        if not text.strip():
            continue
        try:
            settings = replace(settings, **{name: _number(text)})
        except InputError as error:
            complaint = str(error).removeprefix(name).lstrip()
            msg = f"{variable} {complaint}: correct it in the environment, or unset it"
            raise InputError(msg) from None
    return replace(settings, **given)


def _number(text: str) -> float | str:
    """Return a number where the text is one; anything else is refused by the field it is for."""
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text
