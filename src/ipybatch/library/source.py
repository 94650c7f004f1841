"""`Source`: the Protocol of a service that gives records; and settings from the environment.

A new service is a new module with such a class; `refresh` needs nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from ipybatch.engine.data.policy import Breaker, Limits, Retry
from ipybatch.engine.rules.limiter import NO_COST, Cost
from ipybatch.engine.run.attempt import Attempt, Request
from ipybatch.errors import InputError, ItemError, Permanent, Transient

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SettingsT = TypeVar("SettingsT", bound="DataclassInstance")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The key of a record in the `Library`.

    Attributes:
        kind: "game", "guild" or "character".
        key: A JSON value that `Source.identify` also accepts as an item.
        place: Country or region of the record: a game has another price in another country.
        turn: Order of the kinds; those with a lower number are fetched first, such as guilds before characters.
    """

    kind: str
    key: Any
    place: str = ""
    turn: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """The policy of a service, where the user gives no other.

    Attributes:
        name: Name of the session.
        resource: Name of what the service limits; sessions with the same resource share its windows.
        settings: Parameters of every request; an unfinished run with other settings fetches again.
        limits: Rate limits and concurrency.
        retry: Retry policy.
        breaker: Circuit breaker.
        timeout_s: Time of one attempt, seconds; None for no limit.
        shares_requests: Whether one request may serve several items: an item then takes no permit of its own, and the
            source takes one for each request, from any of the attempts that it serves.
        items_per_request: How many at most.
        expands: Allowed values of ``expand=`` in `refresh`; if there are any, the source is an `Expanding` one.
    """

    name: str
    resource: str
    settings: dict[str, Any]
    limits: Limits
    retry: Retry
    breaker: Breaker
    timeout_s: float | None
    expands: tuple[str, ...] = ()
    shares_requests: bool = False
    items_per_request: int = 1


class NotThere(Permanent):
    """Say that the service has no such thing, or shows it no more: the library remembers it, and asks again later.

    Attributes:
        is_certain: Whether the answer itself says so; a bare 404 may come from a wrong address, or from a service that
            is overloaded.
    """

    kind = "not_there"

    def __init__(self, message: str = "there is no such thing", *, is_certain: bool = True) -> None:
        super().__init__(message)
        self.is_certain = is_certain


class Source(AbstractAsyncContextManager[Any], Protocol):
    """A service that gives records; entered on the engine's event loop, so its HTTP client belongs to that loop."""

    def defaults(self) -> Defaults:
        """Return the policy of the service."""

    def identify(self, item: Any) -> Identity:
        """Return the key of an item's record.

        Raises:
            InputError: The item is invalid; names field, value, range and next step.
        """

    async def fetch(
        self, item: Any, attempt: Attempt, kept: dict[str, Any] | None = None, expand: str = ""
    ) -> dict[str, Any]:
        """Fetch the data of an item's record with one request; take a permit from ``attempt`` for each further one.

        Args:
            kept: Data in the library, None for none; to be returned when the service answers that it is current.
            expand: Further data to fetch, one of `Defaults.expands`.

        Raises:
            NotThere: The service has no such thing, or shows it no more.
            ItemError: The fetch failed; the class says whether it is tried again.
        """


class Expanding(Source, Protocol):
    """A source with records that list further items, as a guild lists its members."""

    def can_expand(self, what: str, kind: str) -> bool:
        """Return whether records of this kind list further items."""

    def expand(self, what: str, data: Mapping[str, Any]) -> list[Any] | None:
        """Return the items that a record lists; None when the record does not hold the list.

        Raises:
            ItemError: The list cannot be read.
        """


class Answered(ItemError):
    """A probe that would send more has its answer."""


class OneRequest(Attempt):
    """An attempt that takes part in nothing, and has no permit for more than one request.

    Args:
        further: How many requests need a permit; 0 where the first has the attempt's own.
    """

    def __init__(self, key: str, *, further: int = 0) -> None:
        super().__init__(key, 1, cast("Any", _Nobody()))
        self._left, self._shares = further, further > 0

    def permit(self, cost: Cost = NO_COST) -> Request:
        """Return a permit that nobody counts.

        Raises:
            Answered: The probe has its answer.
            Transient: It has none: the request that others shared failed.
        """
        self._left -= 1
        if self._left < 0:
            raise Transient("a request for several items failed") if self._shares else Answered
        return cast("Request", nullcontext())


class _Nobody:
    """The engine of such an attempt: whatever it is told is of no consequence."""

    def __getattr__(self, name: str) -> Callable[..., int]:
        return lambda *_: 0


def read_environment(
    kind: type[SettingsT], prefix: str, environment: Mapping[str, str], given: Mapping[str, Any]
) -> SettingsT:
    """Return settings from arguments, else from the environment, else from their defaults.

    Args:
        kind: A frozen dataclass with a default for every field, which checks its fields in ``__post_init__``.
        prefix: Prefix of the variables, followed by the name of the field in capitals.
        environment: Values of variables.
        given: Arguments by field.

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
    """Return a number where the text is one; other text is rejected by the check of its field."""
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text
