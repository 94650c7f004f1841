"""Checks: what a user hands to a session, refused early and by name."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ipybatch.engine.policy import Breaker, Limits, Retry, check, check_count
from ipybatch.errors import InputError

_ON_FAILURE = ("continue", "stop", "rollback")


def check_name(name: Any) -> None:
    """Refuse a name that is no text.

    Raises:
        InputError: Says what it must be.
    """
    if not isinstance(name, str) or not name.strip() or len(name) > 200:
        msg = f"name must be a text of 1 to 200 characters, got {name!r}"
        raise InputError(msg)


def check_session(
    timeout_s: Any, on_failure: Any, limits: Limits | None, retry: Retry | None, breaker: Breaker | None
) -> None:
    """Refuse arguments of `BatchSession` that are out of range or of another type.

    Raises:
        InputError: Names field, range and value.
    """
    if timeout_s is not None:
        check("timeout_s", timeout_s, low=0, above=True)
    if on_failure not in _ON_FAILURE:
        msg = f"on_failure must be one of {', '.join(map(repr, _ON_FAILURE))}, got {on_failure!r}"
        raise InputError(msg)
    for field, value, kind in (("limits", limits, Limits), ("retry", retry, Retry), ("breaker", breaker, Breaker)):
        if value is not None and not isinstance(value, kind):
            msg = f"{field} must be {kind.__name__}(...) or None, got {value!r}"
            raise InputError(msg)


def check_items(items: Any) -> Iterable[Any]:
    """Return a list for what can be looked at whole, else what is drawn from.

    Raises:
        InputError: They cannot be drawn one by one.
    """
    if isinstance(items, str | bytes | Mapping):
        msg = (
            f"items must be a list or a generator of items, got {type(items).__name__}: pass list(...) of what you mean"
        )
        raise InputError(msg)
    if isinstance(items, AsyncIterable) or inspect.iscoroutine(items):
        msg = f"items must be a list or a plain generator, got {type(items).__name__}: collect them first"
        raise InputError(msg)
    if isinstance(items, list):
        return items
    if isinstance(items, Sequence | set | frozenset) or hasattr(items, "tolist"):
        return list(items.tolist() if hasattr(items, "tolist") else items)
    if not isinstance(items, Iterable):
        msg = f"items must be a list or a generator, got {items!r}"
        raise InputError(msg)
    return items


def encode_settings(settings: Any) -> bytes:
    """Return what is sent with every item as canonical JSON, b"" for nothing.

    Raises:
        InputError: JSON cannot hold it.
    """
    if settings is None:
        return b""
    try:
        return msgspec.json.Encoder(order="deterministic").encode(settings)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        msg = f"settings must be what JSON can hold, got {settings!r}: {error}"
        raise InputError(msg) from None


def check_estimate(n: Any, latency_s: Any, left: int | None) -> int:
    """Return how many items an estimate is for.

    Raises:
        InputError: ``n`` or ``latency_s`` is out of range, or ``n`` is needed.
    """
    check("latency_s", latency_s, low=0)
    if n is None:
        if left is None:
            msg = "n must be given: the items come from a generator, which an estimate does not draw from"
            raise InputError(msg)
        return left
    check_count("n", n, low=0)
    return int(n)
