"""Arguments of `refresh`: the checks, and the policy that holds.

The source's own policy holds where the user gives no other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ipybatch.engine.data.items import read_whole
from ipybatch.errors import InputError
from ipybatch.library.records import Library
from ipybatch.library.source import Defaults, Identity, Source
from ipybatch.session.arguments import SessionArguments


def check_source(source: Any, library: Any) -> None:
    """Refuse what is no service, and what is no library.

    Raises:
        InputError: Names it.
    """
    if not callable(getattr(source, "fetch", None)) or isinstance(source, type):
        msg = f"source must be a service such as SteamStore(), got {source!r}"
        raise InputError(msg)
    if library is not None and not isinstance(library, Library):
        msg = f"library must be Library(path) or None, got {library!r}"
        raise InputError(msg)


def check_expand(expand: Any, defaults: Defaults) -> None:
    """Refuse to expand what the service does not list.

    Raises:
        InputError: Names what it lists.
    """
    if expand is not None and expand not in defaults.expands:
        allowed = ", ".join([*map(repr, defaults.expands), "None"])
        msg = f"expand must be {'one of ' if defaults.expands else ''}{allowed} for this source, got {expand!r}"
        raise InputError(msg)


def choose(defaults: Defaults, arguments: SessionArguments) -> dict[str, Any]:
    """Return the arguments of the session: those of the user, else those of the service."""
    chosen: dict[str, Any] = {
        "limits": defaults.limits,
        "retry": defaults.retry,
        "breaker": defaults.breaker,
        "timeout_s": defaults.timeout_s,
        "resource": defaults.resource,
        "journal": None,
        "clock": None,
        "fresh": False,
    }
    given = {field: value for field, value in arguments.items() if value is not None or field == "breaker"}
    return chosen | given


def identify_all(source: Source, items: Iterable[Any]) -> list[Identity]:
    """Return the keys of all items' records.

    Raises:
        InputError: An item is invalid; names it and its place in the list.
    """
    found, given = [], read_whole(items)
    for at, item in enumerate(given.items if given.keys is None else given.keys):  # of a table: its "id" or "key"
        try:
            found.append(source.identify(item))
        except InputError as error:
            msg = f"item {at}: {error}"
            raise InputError(msg) from None
    return found
