"""Recurrence: when something comes again: every so often, each day at a time of the clock, or by a rule of cron.

Rule: hours and minutes are time that passes; days and weeks are days of the calendar, at the same time of a zone's
clocks.  A wall time that the clocks leave out comes at the first moment after the gap, one that they show twice comes
once, at the first of both; a day that a zone left out has none.  A cron rule does as Debian's cron: one with a fixed
minute and hour comes once, one with a star in either follows the time that passes.

    every="6h"               anchor + 6 h, + 12 h, ...
    every="1d", at="22:00"   each day, 22:00 of the zone
    cron="0 22 * * 1-5"      `cronsim`

Source: https://manpages.debian.org/bookworm/cron/cron.8.en.html, "Daylight Saving Time and other time changes"
(2026-11-30)
"""

from __future__ import annotations

import datetime as dt
import itertools
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from ipybatch.engine.data.local_time import next_s, unix_s, zone_of
from ipybatch.errors import InputError

MOST_COUNTED = 1000  # times between two moments; that there are more is known without counting them
_DAY_S = 86_400.0
_END_S = dt.datetime(9999, 12, 31, tzinfo=dt.UTC).timestamp()  # later ones have no date in some zone
_UNITS_S = {"m": 60.0, "h": 3600.0, "d": _DAY_S, "w": 7 * _DAY_S}
_SPAN = re.compile(r"([0-9]{1,6})\s*([mhdw])")
_MOST_S = 3660 * _DAY_S
_SPANS = "such as '30m', '6h', '1d' or '1w'"
_CRON = "five fields: minute hour day month weekday, such as '0 22 * * 1-5'"


def read_span(text: object, field: str, *, least_s: float = 60.0) -> float:
    """Return a span such as "30m", "6h", "1d" or "1w" in seconds.

    Raises:
        InputError: It is none, shorter than ``least_s``, or longer than ten years.
    """
    found = _SPAN.fullmatch(text.strip()) if isinstance(text, str) else None
    seconds = float(found[1]) * _UNITS_S[found[2]] if found else -1.0
    if not least_s <= seconds <= _MOST_S:
        least = f", of at least {least_s / 60:g} minutes" if least_s and seconds >= 0 else ""
        msg = f"{field} must be a span {_SPANS}{least}, got {text!r}"
        raise InputError(msg)
    return seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence:
    """When something comes again.

    Attributes:
        every: A span, such as "6h" or "1d"; "" where it is ``cron`` that says when.
        at: With whole days: the time of the clock, such as "22:00"; "" for that of the anchor.
        zone: Whose clocks count, by name.
        anchor_s: What spans are counted from, Unix.
        start_s: Nothing comes before it; None for no start. It is the anchor too.
        until_s: Nothing comes after it; None for no end.

    Raises:
        InputError: It does not say when; names the field.
    """

    every: str = ""
    cron: str = ""
    at: str = ""
    zone: str = "UTC"
    anchor_s: float = 0.0
    start_s: float | None = None
    until_s: float | None = None

    def __post_init__(self) -> None:
        """Refuse what does not say when."""
        zone = zone_of(self.zone)
        if bool(self.every) == bool(self.cron):
            msg = f"every or cron must say when, and only one of them, got every={self.every!r}, cron={self.cron!r}"
            raise InputError(msg)
        if self.every:
            read_span(self.every, "every")
        if self.at and not _has_days(self.every):
            msg = f"at goes with every= of whole days, such as every='1d', got {self.every or self.cron!r}"
            raise InputError(msg)
        if self.at:
            try:
                next_s(self.at, 0.0, zone)
            except InputError as error:
                msg = f"at: {error}"
                raise InputError(msg) from None
        if self.cron:
            _check_cron(self.cron, zone)

    def next_s(self, after_s: float) -> float | None:
        """Return the first time after a moment, Unix; None when there is none any more."""
        return next(self.times(after_s), None)

    def times(self, after_s: float, until_s: float = math.inf) -> Iterator[float]:
        """Yield the times after a moment, in order, up to another one."""
        if self.start_s is not None and after_s < self.start_s:
            after_s = math.nextafter(self.start_s, -math.inf)
        until_s = until_s if self.until_s is None else min(until_s, self.until_s)
        before_s = after_s
        for at_s in _in_calendar(lambda: self._endless(after_s)):
            if at_s > until_s:
                return
            if at_s > before_s:  # two days may have the same first moment after a gap
                before_s = at_s
                yield at_s

    def latest_s(self, after_s: float, until_s: float) -> float | None:
        """Return the last time after a moment and up to another one; None when there is none."""
        latest_s = next(self.times(after_s, until_s), None)
        if latest_s is None:
            return None
        while until_s - latest_s > _DAY_S:  # by halves: years of minutes are not walked through
            half_s = (latest_s + until_s) / 2
            found_s = next(self.times(half_s, until_s), None)
            latest_s, until_s = (latest_s, half_s) if found_s is None else (found_s, until_s)
        return [latest_s, *self.times(latest_s, until_s)][-1]

    def count(self, after_s: float, until_s: float) -> int:
        """Return how many times there are after a moment and up to another one, at most `MOST_COUNTED`."""
        return sum(1 for _, _ in zip(range(MOST_COUNTED), self.times(after_s, until_s), strict=False))

    def _endless(self, after_s: float) -> Iterator[float]:
        zone = zone_of(self.zone)
        if self.cron:
            return _by_cron(self.cron, after_s, zone)
        every_s = read_span(self.every, "every")
        anchor_s = self.anchor_s if self.start_s is None else self.start_s
        if not _has_days(self.every):
            return _by_seconds(anchor_s, every_s, after_s)
        return _by_days(anchor_s, round(every_s / _DAY_S), self.at, after_s, zone)


def _has_days(every: str) -> bool:
    """Say whether a span is of days of the calendar: "24h" is time that passes."""
    return every.strip().endswith(("d", "w"))


def _in_calendar(endless: Callable[[], Iterator[float]]) -> Iterator[float]:
    try:
        yield from itertools.takewhile(lambda at_s: at_s < _END_S, endless())
    except (OverflowError, ValueError):  # the calendar ends
        return


def _by_seconds(anchor_s: float, every_s: float, after_s: float) -> Iterator[float]:
    number = math.floor((after_s - anchor_s) / every_s)
    while True:
        yield anchor_s + number * every_s
        number += 1


def _by_days(anchor_s: float, every: int, at: str, after_s: float, zone: ZoneInfo) -> Iterator[float]:
    first = dt.datetime.fromtimestamp(next_s(at, math.nextafter(anchor_s, -math.inf), zone) if at else anchor_s, zone)
    wall_time = first.time() if not at else dt.time.fromisoformat(at.strip().zfill(5 if at.count(":") == 1 else 8))
    since = (dt.datetime.fromtimestamp(after_s, zone).date() - first.date()).days
    number = math.floor(since / every) - 1
    while True:
        day = first.date() + dt.timedelta(number * every)
        if unix_s(day, dt.time(), zone) < unix_s(day + dt.timedelta(1), dt.time(), zone):
            yield unix_s(day, wall_time, zone)
        number += 1


def _by_cron(rule: str, after_s: float, zone: ZoneInfo) -> Iterator[float]:
    # `times` drops what is not after it: cronsim counts a moment of the second double hour as one of the first.
    return (at.timestamp() for at in CronSim(rule, dt.datetime.fromtimestamp(math.floor(after_s), zone)))


def _check_cron(rule: str, zone: ZoneInfo) -> None:
    if len(rule.split()) != 5:
        hint = ": a word such as '@daily' is none; say every='1d'" if rule.lstrip().startswith("@") else ""
        msg = f"cron must have {_CRON}, got {rule!r}{hint}"
        raise InputError(msg)
    try:
        is_there = next(CronSim(rule, dt.datetime.fromtimestamp(0.0, zone)), None) is not None
    except CronSimError as error:
        msg = f"cron must be a rule of {_CRON}, got {rule!r}: {str(error).lower()}"
        raise InputError(msg) from None
    if not is_there:
        msg = f"cron must name a day that there is, got {rule!r}"
        raise InputError(msg)
