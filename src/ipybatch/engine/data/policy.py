"""Policies: what a user asks for, checked when it is made.

Frozen data only.  The state machines that follow them live in `limiter`,
`retry` and `breaker`.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from ipybatch.engine.data.deprecation import SHARED, warn_of
from ipybatch.engine.data.local_time import Hours, zone_of
from ipybatch.engine.data.masking import mask
from ipybatch.engine.data.store_url import check_url, is_url
from ipybatch.errors import InputError


def check(field: str, value: Any, *, low: float, high: float = math.inf, above: bool = False) -> float:
    """Return a number within its range as Python's; refuse any other, naming field, range and value.

    Args:
        value: Anything that is a real number: also numpy's and `fractions.Fraction`, of which JSON holds none.

    Raises:
        InputError: ``value`` is no number, or not within ``[low, high]`` (``(low, high]`` if ``above``).
    """
    number = _number(value)
    if number is not None and (number > low if above else number >= low) and number <= high:
        return number
    sign = ">" if above else ">="
    end = "" if high == math.inf else f" and <= {high:g}"
    msg = f"{field} must be {sign} {low:g}{end}, got {value!r}"
    raise InputError(msg)


def check_count(field: str, value: Any, *, low: int, high: float = math.inf) -> int:
    """Return a whole number within ``[low, high]`` as Python's; refuse any other.

    Args:
        value: Anything that counts, as indices do: also numpy's integers; no bool, no float.

    Raises:
        InputError: The message names the field, the range and the value.
    """
    count = as_count(value)
    if count is None or not low <= count <= high:
        end = "" if high == math.inf else f" and <= {high}"
        msg = f"{field} must be a whole number >= {low}{end}, got {value!r}"
        raise InputError(msg)
    return count


def check_bound(field: str, value: Any) -> float | None:
    """Return a limit above zero as Python's number, or None for none.

    Raises:
        InputError: It is no number, or not above zero.
    """
    return None if value is None else check(field, value, low=0, above=True)


def as_count(value: Any) -> int | None:
    """Return a whole number as Python's; None for what is none."""
    if type(value) is int:
        return value
    if isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool":  # numpy 1 counts with its own, too
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def keep(owner: Any, **checked: Any) -> None:
    """Set fields of a frozen object that is being made, to what was checked."""
    put = msgspec.structs.force_setattr if isinstance(owner, msgspec.Struct) else object.__setattr__
    for field, value in checked.items():
        put(owner, field, value)


def _number(value: Any) -> float | None:
    """Return a real number as Python's: an int or a float; None for what is none."""
    if (count := as_count(value)) is not None:
        return count
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else None


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``limit`` in every sliding window of ``per_s`` seconds, as the server counts.

    Attributes:
        limit: Requests (or ``unit``) per window, >= 1.
        per_s: Length of the window, seconds, > 0.
        unit: What is counted: "requests", or e.g. "tokens", reserved through ``cost=``.

    Raises:
        InputError: A value is outside its range; the message names the field.
    """

    limit: float
    per_s: float
    unit: str = "requests"

    def __post_init__(self) -> None:
        keep(self, limit=check("limit", self.limit, low=1))
        keep(self, per_s=check("per_s", self.per_s, low=0, above=True, high=1e9))
        if not self.unit or not isinstance(self.unit, str):
            msg = f"unit must be a word such as 'requests' or 'tokens', got {self.unit!r}"
            raise InputError(msg)

    def __str__(self) -> str:
        unit = "" if self.unit == "requests" else f" {self.unit}"
        return f"{self.limit:g}{unit} per {self.per_s:g} s"


class Paced(Protocol):
    """A window of a pacer, as views and restarts know it."""

    rate: Rate

    def used(self, now_s: float) -> float:
        """Return how much of it is taken."""

    def spend(self, responded_s: float, cost: float) -> None:
        """Count what was used before."""


class Pacer(Protocol):
    """Says when a request may start, beside the limits: a pure state machine, asked on the engine's thread."""

    @property
    def windows(self) -> Sequence[Paced]:
        """What it holds to just now."""

    def wait_s(self, now_s: float, cost: Mapping[str, float]) -> float:
        """Return seconds until a request of ``cost`` may start; inf: after a response at the earliest."""

    def start(self, now_s: float, cost: Mapping[str, float]) -> None:
        """Count a request that starts."""

    def end(self, now_s: float, started_s: float, cost: Mapping[str, float], actual: Mapping[str, float]) -> None:
        """Count the response to what started at ``started_s``, and what it really cost where that differs."""

    def lift(self, now_s: float) -> bool:
        """Forget how long the service asked it to wait; return whether that held something."""

    def anew(self) -> Pacer:
        """Return one that holds to the same and has seen nothing: `estimate` runs on a clock of its own."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How fast work may start; a start satisfies every limit at once.

    Attributes:
        concurrency: Attempts at the same time, >= 1.
        spacing_s: Seconds between two starts on the whole resource, >= 0.
        batch_size: Items a batch; None for no batches. A batch ends when all its items have settled.
        batch_pause_s: Seconds between the end of a batch and the next one, >= 0.
        rates: Sliding windows that all hold.
        also: Async context managers entered around every attempt, such as ``aiolimiter.AsyncLimiter``.
        store: Where the use of the resource is counted; default: the file ``limits.sqlite3`` beside the journal, by
            which the kernels of a user share what they name alike. Another such file by its path, for kernels whose
            journals lie apart; a Redis that several machines share, by its address, ``redis://host/0``, with TLS
            ``rediss://``, or ``unix:///path/of/the/socket``, with ``?ssl_ca_certs=`` and its like; an object with
            ``exchange()`` and ``history()``, see `ipybatch.testing.check_limit_store`; or what has pyrate-limiter's
            ``try_acquire_async(name, weight)``, which is awaited before every request, beside the file.
        shared: Deprecated, ``store`` takes its place: what has ``try_acquire_async``.
        pacer: Another voice in when a request may start, for services that tell their limits as they go.
        each: What holds beside all this for the items of each limit group, such as a region: ``per=`` of the session
            says which group an item is in, or which several. One for every group, or a mapping: by a group's name, or
            by the kind of its ``("kind", name)`` pair, ``each={"user": Limits(...), "app": Limits(...)}``. Only
            concurrency, spacing_s and rates.
        hours: Working hours: attempts, retries, probes and further permits start within them only, and what runs
            finishes. "01:00-07:00", "22:00-06:00" over midnight, several as "01:00-07:00, 12:00-13:00", by days as
            "Mon-Fri 20:00-07:00, Sat-Sun", or a list of such. Those who share a resource keep each to their own.
        zone: Whose clocks ``hours`` are by, and ``start_at`` of the session, such as "Europe/Berlin"; None for this
            machine's own.

    Raises:
        InputError: A value is outside its range, or of another type; the message names the field.
        MissingExtra: ``store`` is the address of a Redis, and the redis package is not installed.
    """

    concurrency: int = 10
    spacing_s: float = 0.0
    batch_size: int | None = None
    batch_pause_s: float = 0.0
    rates: Sequence[Rate] = ()
    also: Sequence[AbstractAsyncContextManager[Any]] = ()
    store: Any = None
    shared: Any = None
    pacer: Pacer | None = None
    each: Limits | Mapping[Any, Limits] | None = None
    hours: str | Sequence[str] | Hours | None = None
    zone: str | None = None

    def __post_init__(self) -> None:
        keep(self, concurrency=check_count("concurrency", self.concurrency, low=1))
        keep(self, spacing_s=check("spacing_s", self.spacing_s, low=0, high=1e9))
        keep(self, batch_pause_s=check("batch_pause_s", self.batch_pause_s, low=0, high=1e9))
        if self.batch_size is not None:
            keep(self, batch_size=check_count("batch_size", self.batch_size, low=1))
        elif self.batch_pause_s:
            msg = f"batch_pause_s needs batch_size, got batch_pause_s={self.batch_pause_s!r} and batch_size=None"
            raise InputError(msg)
        object.__setattr__(self, "rates", _all_rates(self.rates))
        object.__setattr__(self, "also", _all("also", self.also))
        _check_plugs(self.also, self.store, self.shared)
        if isinstance(self.each, Mapping):
            object.__setattr__(self, "each", dict(self.each))
        _check_each(self.each)
        if self.hours is not None:
            keep(self, hours=Hours.parse(self.hours))
        if self.hours is not None or self.zone is not None:
            zone_of(self.zone)

    def __repr__(self) -> str:
        told = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in fields(self))
        return f"Limits({mask(told)})"

    @property
    def asked(self) -> Any:
        """The limiter that is awaited before every request, such as one of pyrate-limiter; None for none."""
        if self.shared is not None:
            return self.shared
        return self.store if hasattr(self.store, "try_acquire_async") else None

    @property
    def units(self) -> set[str]:
        """What the rates count, those of the limit groups too."""
        each = self.each.values() if isinstance(self.each, Mapping) else () if self.each is None else (self.each,)
        return {rate.unit for limits in (self, *each) for rate in limits.rates}

    @property
    def all_rates(self) -> tuple[Rate, ...]:
        """The rates that hold just now, the pacer's too."""
        own = () if self.pacer is None else tuple(window.rate for window in self.pacer.windows)
        return (*self.rates, *own)


def _all_rates(rates: Sequence[Rate]) -> tuple[Rate, ...]:
    if isinstance(rates, Rate):
        return (rates,)
    rates = _all("rates", rates)
    for rate in rates:
        if not isinstance(rate, Rate):
            msg = f"rates must hold Rate(limit, per_s=...), got {rate!r}"
            raise InputError(msg)
    return tuple(rates)


def _all(field: str, given: Any) -> tuple[Any, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        msg = f"{field} must be a list, got {given!r}: pass [{given!r}]"
        raise InputError(msg)
    return tuple(given)


def _check_each(each: Any) -> None:
    if each is None:
        return
    if isinstance(each, dict) and each:
        for key, limits in each.items():
            is_name = isinstance(key, str | tuple) or as_count(key) is not None
            if not is_name or not isinstance(limits, Limits):
                msg = f"each must map names or kinds of limit groups to Limits(...), got {{{key!r}: {limits!r}}}"
                raise InputError(msg)
            _check_each(limits)
        return
    if not isinstance(each, Limits):
        msg = f"each must be Limits(...), a mapping of limit groups to such, or None, got {each!r}"
        raise InputError(msg)
    for field in ("batch_size", "also", "store", "shared", "pacer", "each", "hours", "zone"):
        if getattr(each, field):
            msg = f"each must have only concurrency, spacing_s and rates, got {field}={getattr(each, field)!r}"
            raise InputError(msg)


def _check_plugs(also: Sequence[Any], store: Any, shared: Any) -> None:
    for limiter in also:
        if not hasattr(limiter, "__aenter__"):
            msg = f"also must hold async context managers such as aiolimiter.AsyncLimiter, got {limiter!r}"
            raise InputError(msg)
    is_store = hasattr(store, "exchange") and hasattr(store, "history")
    is_path = isinstance(store, str | Path) and bool(str(store)) and "://" not in str(store)
    if is_url(store):
        check_url(store)
    elif not (store is None or is_store or is_path or hasattr(store, "try_acquire_async")):
        msg = (
            "store must be the path of a file, the address of a Redis, a limit store with exchange() and history(), or"
            f" a limiter with try_acquire_async(name, weight), got {store!r}"
        )
        raise InputError(msg)
    if shared is None:
        return
    if not hasattr(shared, "try_acquire_async"):
        msg = f"shared must have an async try_acquire_async(name, weight), got {shared!r}"
        raise InputError(msg)
    warn_of(SHARED, stacklevel=3)  # past __post_init__, and the __init__ that is made


@dataclass(frozen=True, slots=True)
class Retry:
    """How often an item is tried, and how long it waits between.

    Attributes:
        attempts: Tries in all that count, >= 1. A 429, and what an outage of the service cost, do not.
        initial_s: Longest wait before the second try, seconds; doubles with each further one.
        max_s: Longest wait of all, seconds. A service's own Retry-After is never cut.
        on: Exception types, or a function of the exception, that are transient as well.
        strategy: "exponential" waits a random time up to the back-off (full jitter);
            after a 429 that names no time, "next_second" waits until 50 ms after the next full second instead.

    Raises:
        InputError: A value is outside its range, or of another type; the message names the field.

    Source: full jitter, https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ (2026-11-22).
    """

    attempts: int = 3
    initial_s: float = 1.0
    max_s: float = 60.0
    on: type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool] | None = None
    strategy: Literal["exponential", "next_second"] = "exponential"

    def __post_init__(self) -> None:
        keep(self, attempts=check_count("attempts", self.attempts, low=1))
        keep(self, initial_s=check("initial_s", self.initial_s, low=0))
        keep(self, max_s=check("max_s", self.max_s, low=self.initial_s))
        kinds = self.on if isinstance(self.on, tuple) else (Exception if callable(self.on) else self.on,)
        if self.on is not None and not all(
            isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds
        ):
            msg = f"on must be exception types or a function of the exception, got {self.on!r}"
            raise InputError(msg)
        if self.strategy not in ("exponential", "next_second"):
            msg = f"strategy must be 'exponential' or 'next_second', got {self.strategy!r}"
            raise InputError(msg)

    def also_transient(self, error: BaseException) -> bool:
        """Say whether the user calls this error transient; a question that raises is a no."""
        if self.on is None:
            return False
        if isinstance(self.on, type | tuple):
            return isinstance(error, self.on)
        try:
            return bool(self.on(error))
        except Exception:
            return False


@dataclass(frozen=True, slots=True)
class Breaker:
    """When to leave a failing service alone, and for how long.

    Attributes:
        failures: Transient failures in a row that open it, >= 1.
        break_s: Seconds before the first probe; doubles with each failed probe.
        max_break_s: Longest break, seconds, >= break_s.
        give_up_after: Openings in a row, without a success between, that end the session, >= 1.

    Raises:
        InputError: A value is outside its range; the message names the field.
    """

    failures: int = 3
    break_s: float = 60.0
    max_break_s: float = 600.0
    give_up_after: int = 5

    def __post_init__(self) -> None:
        keep(self, failures=check_count("failures", self.failures, low=1))
        keep(self, break_s=check("break_s", self.break_s, low=0))
        keep(self, max_break_s=check("max_break_s", self.max_break_s, low=self.break_s))
        keep(self, give_up_after=check_count("give_up_after", self.give_up_after, low=1))
