"""Local time: what a clock on the wall says, as Unix seconds: zones, the next 22:00, working hours.

Rule: a wall time that the clocks leave out stands for the first moment after
the gap; one that they show twice for the first of both.  A day that a zone left
out (Apia, 30 December 2011) has no wall times.  All that asks for a wall clock
asks here, and hands in the moment it asks at.
"""

from __future__ import annotations

import datetime as dt
import itertools
import math
import re
import zoneinfo
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from ipybatch.errors import InputError

LATE_S = 5.0  # a start that was to be so long ago is taken for now: clocks differ
DAY_MIN = 24 * 60
_LAST_S = dt.datetime(9999, 1, 1, tzinfo=dt.UTC).timestamp()  # the hours after a start are still of the calendar
_ALL_DAYS = frozenset(range(7))
_NAMES = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LONG_NAMES = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_WALL_TIME = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?", re.ASCII)
_PART = re.compile(r"(?:([A-Za-z]+)(?:\s*-\s*([A-Za-z]+))?)?\s*(?:(\d{1,2}:\d\d)\s*-\s*(\d{1,2}:\d\d))?", re.ASCII)
_HOURS = "such as '01:00-07:00', '22:00-06:00' or 'Mon-Fri 20:00-07:00, Sat-Sun'"
_START = "'22:00' (the next one), or a time to come in ISO 8601, such as 2030-01-31T22:00:00Z"


def zone_of(name: str | None) -> ZoneInfo:
    """Return a zone by its name, such as "Europe/Berlin"; None: this machine's own.

    Raises:
        InputError: There is no such zone; the message names those that are spelled alike.
    """
    if name is None:
        import tzlocal

        try:
            return tzlocal.get_localzone()
        except zoneinfo.ZoneInfoNotFoundError as error:
            msg = f"zone must be given, such as 'Europe/Berlin': this machine's own is not known ({error})"
            raise InputError(msg) from None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, TypeError, OSError):  # also what is a folder, or no path at all
        msg = f"zone must be {_zone_words(name)}"
        raise InputError(msg) from None


def _zone_words(name: Any) -> str:
    import difflib

    known = zoneinfo.available_timezones()
    if not known:
        return f"known to this system, which has no zones at all, got {name!r}. Run: pip install tzdata"
    by_small = {zone.lower(): zone for zone in known}
    small = name.strip().lower() if isinstance(name, str) else ""
    within = sorted(zone for zone in by_small if small and zone.rpartition("/")[2] == small)
    near = dict.fromkeys([*within, *difflib.get_close_matches(small, by_small, n=3)])
    hint = f": did you mean {' or '.join(repr(by_small[zone]) for zone in [*near][:3])}?" if near else ""
    return f"the name of a zone, such as 'Europe/Berlin', got {name!r}{hint}"


def unix_s(day: dt.date, wall_time: dt.time, zone: ZoneInfo) -> float:
    """Return when the clocks of a zone show this time of this day, Unix seconds.

    In a gap that is the first moment after it; of a double hour, the first of both.
    """
    asked = dt.datetime.combine(day, wall_time.replace(tzinfo=None, fold=0), zone)
    at_s = asked.timestamp()
    if dt.datetime.fromtimestamp(at_s, zone).replace(tzinfo=None) == asked.replace(tzinfo=None):
        return at_s
    # In a gap fold=0 counts with the offset before it, so it comes after the change, and fold=1 before it (PEP 495).
    before_s, after_s = math.floor(asked.replace(fold=1).timestamp()), math.ceil(at_s)
    after = _offset(after_s, zone)
    while after_s - before_s > 1:
        middle_s = (before_s + after_s) // 2
        if _offset(middle_s, zone) == after:
            after_s = middle_s
        else:
            before_s = middle_s
    return float(after_s)


def _offset(at_s: float, zone: ZoneInfo) -> dt.timedelta | None:
    return dt.datetime.fromtimestamp(at_s, zone).utcoffset()


def next_s(wall_time: str, after_s: float, zone: ZoneInfo) -> float:
    """Return when the clocks of a zone show a time such as "22:00" next, Unix seconds, after ``after_s``.

    Raises:
        InputError: It is no time of a day.
    """
    at = _wall_time(wall_time)
    if at is None:
        msg = f"a time of day must be such as '22:00', got {wall_time!r}"
        raise InputError(msg)
    found = (unix_s(day, at, zone) for day in _days(after_s, zone, before=1))
    return next(at_s for at_s in found if at_s > after_s)


def _wall_time(text: str) -> dt.time | None:
    found = _WALL_TIME.fullmatch(text.strip())
    if found is None:
        return None
    hour, minute, second = (int(part or 0) for part in found.groups())
    return dt.time(hour, minute, second) if hour < 24 and minute < 60 and second < 60 else None


def _days(at_s: float, zone: ZoneInfo, *, before: int) -> Iterator[dt.date]:
    """Return the days that a zone has, from some days before a moment on."""
    day = dt.datetime.fromtimestamp(at_s, zone).date() - dt.timedelta(before)
    while True:
        after = day + dt.timedelta(1)
        if unix_s(day, dt.time(), zone) < unix_s(after, dt.time(), zone):
            yield day
        day = after


def is_time_of_day(value: Any) -> bool:
    """Say whether something is a text such as "22:00"."""
    return isinstance(value, str) and _wall_time(value) is not None


def read_start(value: Any, now_s: float, zone: ZoneInfo) -> float:
    """Return when something is to start, Unix seconds.

    Args:
        value: "22:00" (the next one), a time in ISO 8601, or a `datetime.datetime`; of ``zone``, without an offset.
        now_s: Unix seconds.

    Raises:
        InputError: It is none of these, or past.
    """
    if is_time_of_day(value):
        return next_s(value, now_s, zone)
    at = value
    if isinstance(value, str):
        try:
            at = dt.datetime.fromisoformat(value.strip())
        except ValueError:
            at = None
    if not isinstance(at, dt.datetime):
        msg = f"start_at must be {_START}, got {value!r}"
        raise InputError(msg)
    try:
        at_s = at.timestamp() if at.tzinfo else unix_s(at.date(), at.time(), zone)
    except (OverflowError, ValueError, OSError):
        at_s = math.inf
    if at_s >= _LAST_S:
        msg = f"start_at must be {_START}, got {value!r}: so far away no clock goes"
        raise InputError(msg)
    if at_s < now_s - LATE_S:
        msg = f"start_at must be to come, got {value!r}: it is past; pass {_START}"
        raise InputError(msg)
    return at_s


def moment_words(at_s: float, now_s: float, zone: ZoneInfo) -> str:
    """Return a moment as the clocks of a zone show it: "22:00 (Europe/Berlin)", with its day if that is not soon.

    Soon is today, and within twelve hours: at 22:01 the next 22:00 is not.
    """
    at = dt.datetime.fromtimestamp(at_s, zone)
    is_soon = at_s - now_s < 43_200 or at.date() == dt.datetime.fromtimestamp(now_s, zone).date()
    day = "" if is_soon else f" on {at:%Y-%m-%d}"
    return f"{at:%H:%M}{day} ({zone.key or 'local time'})"


@dataclass(frozen=True, slots=True)
class Span:
    """Some hours of a day, on some days of the week.

    Attributes:
        days: On which it begins: 0 is Monday.
        start_min: Minutes since midnight, 0 to 1439.
        end_min: The same, 1 to 1440; one that is not above ``start_min`` is of the day after.
    """

    days: frozenset[int]
    start_min: int
    end_min: int

    def of(self, day: dt.date, zone: ZoneInfo) -> tuple[float, float]:
        """Return from when to when it lasts that begins on this day, Unix seconds."""
        ends = day if self.end_min > self.start_min else day + dt.timedelta(1)
        return _moment(day, self.start_min, zone), _moment(ends, self.end_min, zone)


def _moment(day: dt.date, minutes: int, zone: ZoneInfo) -> float:
    days, minutes = divmod(minutes, DAY_MIN)
    return unix_s(day + dt.timedelta(days), dt.time(minutes // 60, minutes % 60), zone)


@dataclass(frozen=True, slots=True, repr=False)
class Hours:
    """Working hours of a week, by the clocks of a zone.

    Attributes:
        text: As they were given.
    """

    spans: tuple[Span, ...]
    text: str = field(compare=False)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return repr(self.text)

    @classmethod
    def parse(cls, given: str | Sequence[str] | Hours) -> Hours:
        """Read hours such as "01:00-07:00, 12:00-13:00" or "Mon-Fri 20:00-07:00, Sat-Sun"; or a list of such.

        Hours that end at or before they start end on the day after; days are those on which they start, and without
        any it is every day. Days without hours are whole days.

        Raises:
            InputError: They are not understood, or could mean two things; the message names the part.
        """
        if isinstance(given, Hours):
            return given
        texts = [given] if isinstance(given, str) else list(given) if isinstance(given, Iterable) else []
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            msg = f"hours must be {_HOURS}, got {given!r}"
            raise InputError(msg)
        spans = [span for text in texts for span in _spans(text)]
        return cls(tuple(dict.fromkeys(spans)), ", ".join(text.strip() for text in texts))

    def window(self, at_s: float, zone: ZoneInfo) -> tuple[float, float]:
        """Return from when to when they last that hold at a moment, or else come next, Unix seconds.

        Hours that touch each other are one; of hours without an end, the end is inf.
        """
        found = sorted(
            (start_s, end_s)
            for day, _ in zip(_days(at_s, zone, before=8), range(24), strict=False)
            for span in self.spans
            if day.weekday() in span.days
            for start_s, end_s in [span.of(day, zone)]
            if end_s > start_s
        )
        opens_s = closes_s = -math.inf
        for start_s, end_s in found:
            if start_s <= closes_s:
                closes_s = max(closes_s, end_s)
            elif closes_s > at_s:
                return opens_s, closes_s
            else:
                opens_s, closes_s = start_s, end_s
        return opens_s, closes_s if closes_s - opens_s < 20 * 86_400 else math.inf


def _spans(text: str) -> list[Span]:
    """Return the hours of one text.

    Raises:
        InputError: It is not understood, or could mean two things.
    """
    parts = [part.strip().replace("\u2013", "-") for part in text.split(",")]
    found = [_PART.fullmatch(part) for part in parts]
    spans = []
    for part, match in zip(parts, found, strict=True):
        if match is None or not part:
            msg = f"hours must be {_HOURS}, got {part!r} in {text!r}"
            raise InputError(msg)
        spans.append(_span(part, match))
    has_days = [match is not None and match[1] is not None for match in found]
    has_times = [match is not None and match[3] is not None for match in found]
    is_mixed = any(has_days) and not all(has_days)
    leads = any(not first and second for first, second in itertools.pairwise(has_times))
    if is_mixed or leads:
        msg = (
            f"hours must name the days of each part, or of none, got {text!r}: say 'Mon 20:00-07:00, Wed 20:00-07:00'"
            " for hours of several days, and days that are whole last; or pass a list"
        )
        raise InputError(msg)
    return spans


def _span(part: str, match: re.Match[str]) -> Span:
    first, last, start, end = match.groups()
    days = _ALL_DAYS if first is None else _week_days(part, first, last or first)
    if start is None:
        return Span(days, 0, DAY_MIN)
    start_min, end_min = _minutes(part, start), _minutes(part, end)
    if start_min in (end_min, DAY_MIN):
        msg = f"hours must start before 24:00 and end at another time, got {part!r}: a day is 00:00-24:00"
        raise InputError(msg)
    return Span(days, start_min, end_min or DAY_MIN)


def _week_days(part: str, first: str, last: str) -> frozenset[int]:
    found = []
    for name in (first, last):
        small = name.lower()
        day = [number for number, long in enumerate(_LONG_NAMES) if len(small) > 2 and long.startswith(small)]
        if not day:
            msg = f"hours must name days as {', '.join(_NAMES)}, got {name!r} in {part!r}"
            raise InputError(msg)
        found.append(day[0])
    return frozenset((found[0] + step) % 7 for step in range((found[1] - found[0]) % 7 + 1))


def _minutes(part: str, text: str) -> int:
    hour, _, minute = text.partition(":")
    minutes = int(hour) * 60 + int(minute)
    if int(minute) > 59 or minutes > DAY_MIN:
        msg = f"hours must be of a day, 00:00 to 24:00, got {text!r} in {part!r}"
        raise InputError(msg)
    return minutes
