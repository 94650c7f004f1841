"""Arguments: what a session and its workloads take, and the checks that refuse bad input early and by name."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from ipybatch.engine.data.clock import Clock
from ipybatch.engine.data.events import Counts
from ipybatch.engine.data.masking import is_encodable, printable
from ipybatch.engine.data.notice import Notify, read_notify
from ipybatch.engine.data.plan import PRIORITIES, Plan, Priority, short
from ipybatch.engine.data.policy import Breaker, Limits, Retry, check, check_bound, check_count
from ipybatch.engine.data.spec import OnFailure
from ipybatch.errors import InputError


class Arguments(TypedDict, total=False):
    """Arguments of `BatchSession`; what is left out, or None, is the workload's default."""

    limits: Limits | None
    retry: Retry | None
    breaker: Breaker | None  # None for none, as everywhere
    journal: str | Path | None
    fresh: bool
    on_failure: OnFailure
    resource: str | None
    on_progress: Callable[[int, int | None], None] | None
    start_at: str | dt.datetime | None
    verbose: bool
    notify: str | Sequence[str] | Notify | None
    clock: Clock | None


class SessionArguments(Arguments, total=False):
    """Those, the time that one attempt may take, and what goes first."""

    timeout_s: float | None
    priority: Callable[[Any], Priority] | None
    per: Callable[[Any], Any] | None


_ON_FAILURE = ("continue", "stop", "rollback")


def check_name(name: Any, field: str = "name") -> None:
    """Refuse a name that is no text, that no file can hold, or that would act on a terminal it is shown in.

    Raises:
        InputError: Says what it must be.
    """
    if not isinstance(name, str) or not name.strip() or len(name) > 200:
        msg = f"{field} must be a text of 1 to 200 characters, got {short(name)}"
        raise InputError(msg)
    if printable(name) != name or "\u2068" in name:  # the isolate that `printable` leaves, too
        msg = f"{field} must have no control characters or escape codes, got {name!r}"
        raise InputError(msg)
    if not is_encodable(name):
        msg = f"{field} must be a text that UTF-8 can hold, got {name!r}: a part of it is half a character"
        raise InputError(msg)


def check_functions(**functions: Any) -> None:
    """Refuse what is no function of an item, nor None.

    Raises:
        InputError: Names the field.
    """
    for field, function in functions.items():
        if function is not None and not callable(function):
            msg = f"{field} must be a function or None, got {short(function)}"
            raise InputError(msg)


def check_session(
    timeout_s: Any, on_failure: Any, limits: Limits | None, retry: Retry | None, breaker: Breaker | None
) -> float | None:
    """Return the timeout; refuse arguments of `BatchSession` that are out of range or of another type.

    Raises:
        InputError: Names field, range and value.
    """
    bound = check_bound("timeout_s", timeout_s)
    if on_failure not in _ON_FAILURE:
        msg = f"on_failure must be one of {', '.join(map(repr, _ON_FAILURE))}, got {on_failure!r}"
        raise InputError(msg)
    for field, value, kind in (("limits", limits, Limits), ("retry", retry, Retry), ("breaker", breaker, Breaker)):
        if value is not None and not isinstance(value, kind):
            msg = f"{field} must be {kind.__name__}(...) or None, got {value!r}"
            raise InputError(msg)
    return bound


def check_notify(notify: Any) -> Notify | None:
    """Return who is told what; refuse channels that there are not, before anything starts.

    Raises:
        InputError: There is no such channel, or it is not what it must be.
        MissingExtra: What a channel needs is not installed.
    """
    found = read_notify(notify)
    if found is not None:
        from ipybatch.notify import channel_list, delivery

        channel_list.check_channels(found.channels)
        delivery.begin()
    return found


def check_per(per: Any, limits: Limits | None) -> None:
    """Refuse limit groups without limits of their own, and such limits without limit groups.

    Raises:
        InputError: Says what is missing.
    """
    has_each = limits is not None and limits.each is not None
    if per is not None and not callable(per):
        msg = f"per must be a function of an item, such as lambda item: item['region'], got {per!r}"
        raise InputError(msg)
    if (per is not None) != has_each:
        missing = "limits=Limits(each=Limits(...))" if per is not None else "per=, a function of an item"
        msg = f"per and Limits(each=) must be given together, got one of them: add {missing}"
        raise InputError(msg)


def as_place(priority: Callable[[Any], Any]) -> Callable[[Any], int]:
    """Return a function that gives the place of an item's priority among all."""
    return lambda item: place_of(priority(item))


def place_of(priority: Any) -> int:
    """Return the place of a priority among all: the lowest goes first.

    Raises:
        InputError: There is none of that name.
    """
    if priority not in PRIORITIES:
        msg = f"priority must be one of {', '.join(map(repr, PRIORITIES))}, got {priority!r}"
        raise InputError(msg)
    return PRIORITIES.index(priority)


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
    return check_count("n", n, low=0)


def items_left(counts: Counts, plan: Plan | None, skip: Callable[[Any], str] | None) -> int | None:
    """Return how many items are still to do; None for unknown.

    Args:
        skip: Says which of a plan that has not begun will be left out; None where that is counted already.
    """
    if skip is not None and plan is not None and not counts.ended:
        return sum(not skip(task.item) for task in plan)
    return None if counts.total is None else counts.pending + counts.running


def check_forget(name: str, live_state: str, *, is_drawn: bool) -> None:
    """Refuse to forget what runs, or could not begin anew.

    Args:
        live_state: How it stands if it is live; "" if it is not.
        is_drawn: Whether a generator was begun.

    Raises:
        InputError: Says what to do.
    """
    if live_state:
        msg = f"session {name!r} is {live_state}: cancel it before you forget it"
        raise InputError(msg)
    if is_drawn:
        msg = f"the items of {name!r} were drawn from a generator, which cannot start anew: use ipybatch.prune()"
        raise InputError(msg)


def adjusted(declared: Limits, before: Limits, concurrency: int | None, rates: Sequence[float] | None) -> Limits:
    """Return limits with another concurrency and other rates, no faster than those the session was made with.

    Raises:
        InputError: They are faster, no numbers, or there are more or fewer rates.
    """
    if rates is not None and (isinstance(rates, str) or not isinstance(rates, Iterable)):
        msg = f"rates must be a list of limits, one for each rate, got {rates!r}: pass [{rates!r}]"
        raise InputError(msg)
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
