"""Schedule timing: what a schedule says of when, and what is to be done about it now; no clock and no journal.

    read_timing   what was given --> checked, by field, with the zone's name and moments as Unix seconds
    judge         a row and the present --> wait | submit a time | skip or ask about what was missed | reckon anew

Rule: whatever passed while nothing was there to submit comes to one decision, not to one for each time.  The time that
passed last is missed when it is older than `grace`.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from ipybatch.engine.data.local_time import read_start, unix_s, zone_of
from ipybatch.engine.rules.recurrence import MOST_COUNTED, Recurrence, read_span
from ipybatch.errors import InputError
from ipybatch.server.schedule_rows import BACK_S, Row
from ipybatch.server.templates import WrongField
from ipybatch.server.wire import ScheduleTiming

_NOT_WHEN: dict[str, object] = {"misfire": "run", "grace": "", "paused": False}
_NOT_COUNTED = {**_NOT_WHEN, "until": None}  # what times are not counted from
_UNTIL = "a time to come in ISO 8601, such as 2030-01-31T22:00 or 2030-01-31"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When, as it was read.

    Attributes:
        given: As it was said, with the name of the zone.
        recurrence: The rule.
    """

    given: ScheduleTiming
    recurrence: Recurrence


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is to be done about a schedule now.

    Attributes:
        what: "again": work out anew when it is due.
        due_s: The time that it is about, Unix; ``from_s``: the first of those that were missed.
        missed: How many were missed; 0 for a time that is not late.
    """

    what: Literal["wait", "submit", "skip", "ask", "again"]
    due_s: float = 0.0
    from_s: float = 0.0
    missed: int = 0


def read_timing(given: ScheduleTiming, now_s: float, before: Row | None = None) -> Timing:
    """Return when, checked.

    Args:
        before: The schedule that is changed: where it says the same of when, it goes on as it was.

    Raises:
        WrongField: Something is not what it must be.
    """
    with _naming("zone", given.zone):
        zone = zone_of(given.zone)
        name = str(getattr(zone, "key", None) or zone)
        zone_of(name)  # this machine's own may have none
    given = _only_timing(given, zone=name)
    with _naming("grace", given.grace):
        read_span(given.grace, "grace", least_s=0.0)
    if before is not None and _only_timing(given, **_NOT_WHEN) == _only_timing(timing_of(before), **_NOT_WHEN):
        return Timing(given=given, recurrence=recurrence_of(before))
    start_s = until_s = None
    anchor_s = float(math.floor(now_s))  # a time of the clock is not rounded to a moment after it, and due at once
    if before is not None and _only_timing(given, **_NOT_COUNTED) == _only_timing(timing_of(before), **_NOT_COUNTED):
        start_s, anchor_s = before.start_s, before.anchor_s  # another end does not begin it anew
    elif given.start_at is not None:
        with _naming("start_at", given.start_at):
            start_s = read_start(given.start_at, now_s, zone)
    if given.until is not None:
        until_s = _until(given.until, now_s, zone)
    with _naming("every", given.every if given.cron is None else given.cron):
        recurrence = Recurrence(
            every=given.every or "",
            cron=given.cron or "",
            at=given.at or "",
            zone=name,
            anchor_s=anchor_s,
            start_s=start_s,
            until_s=until_s,
        )
    if recurrence.next_s(now_s) is None:
        field = "until" if given.until is not None else "start_at"
        value = getattr(given, field)
        raise WrongField(field, f"{field} must leave a time, got {value!r}", value=value)
    return Timing(given=given, recurrence=recurrence)


def timing_of(row: Row) -> ScheduleTiming:
    """Return what a schedule says of when."""
    return msgspec.structs.replace(msgspec.json.decode(row.timing, type=ScheduleTiming), paused=bool(row.is_paused))


def recurrence_of(row: Row) -> Recurrence:
    """Return the rule of a schedule."""
    given = timing_of(row)
    return Recurrence(
        every=given.every or "",
        cron=given.cron or "",
        at=given.at or "",
        zone=given.zone or "UTC",
        anchor_s=row.anchor_s,
        start_s=row.start_s,
        until_s=row.until_s,
    )


def judge(row: Row, now_s: float) -> Verdict:
    """Return what is to be done about a schedule that is not paused."""
    if row.moved_s > now_s + BACK_S:
        return Verdict(what="again")
    if row.question_s is not None or row.next_s is None or now_s < row.next_s:
        return Verdict(what="wait")
    given, rule = timing_of(row), recurrence_of(row)
    before_s = math.nextafter(row.next_s, -math.inf)
    due_s = rule.latest_s(before_s, now_s) or row.next_s  # none: the rules of its zone have changed
    if now_s - due_s <= read_span(given.grace, "grace", least_s=0.0):
        return Verdict(what="submit", due_s=due_s)
    what: Literal["submit", "skip", "ask"] = "submit" if given.misfire == "run" else given.misfire
    return Verdict(what=what, due_s=due_s, from_s=row.next_s, missed=max(1, rule.count(before_s, now_s)))


def local(at_s: float, zone: str, form: str = "%Y-%m-%d %H:%M") -> str:
    """Return a moment as the clocks of a zone show it."""
    return dt.datetime.fromtimestamp(at_s, zone_of(zone)).strftime(form)


def missed_words(missed: int, from_s: float, due_s: float, zone: str) -> str:
    """Return what was missed, in words: the subject of a sentence."""
    if missed <= 1:
        return f"{local(due_s, zone)} was missed"
    count = f"{MOST_COUNTED:,} times or more" if missed >= MOST_COUNTED else f"{missed:,} times"
    return f"{count}, {local(from_s, zone)} to {local(due_s, zone)}, were missed"


def question_of(row: Row) -> str:
    """Return what a schedule asks; "" for nothing."""
    if row.question_s is None:
        return ""
    said = missed_words(row.missed, row.question_from_s or row.question_s, row.question_s, timing_of(row).zone or "UTC")
    return f"{said}: run once now, or skip?"


def _only_timing(given: ScheduleTiming, **changes: object) -> ScheduleTiming:
    fields = {name: getattr(given, name) for name in ScheduleTiming.__struct_fields__}
    return ScheduleTiming(**{**fields, **changes})


def _until(text: str, now_s: float, zone: ZoneInfo) -> float:
    """Return a moment; of a date, the end of that day.

    Raises:
        WrongField: It is none, or past.
    """
    try:
        try:
            day = dt.date.fromisoformat(text.strip())
        except ValueError:
            at = dt.datetime.fromisoformat(text.strip())
            until_s = at.timestamp() if at.tzinfo else unix_s(at.date(), at.time(), zone)
        else:
            ends_s = unix_s(day + dt.timedelta(1), dt.time(), zone)
            until_s = math.nextafter(ends_s, -math.inf)
    except (ValueError, OverflowError):
        raise WrongField("until", f"until must be {_UNTIL}, got {text!r}", value=text, allowed=_UNTIL) from None
    if until_s <= now_s:
        raise WrongField("until", f"until must be to come, got {text!r}: it is past", value=text, allowed=_UNTIL)
    return until_s


@contextmanager
def _naming(field: str, value: object) -> Iterator[None]:
    """Say which field is not what it must be: the one that a message begins with, if it is one.

    Raises:
        WrongField: One is not.
    """
    try:
        yield
    except InputError as error:
        first = str(error).partition(" ")[0].rstrip(":")
        named = first if first in ScheduleTiming.__struct_fields__ else field
        raise WrongField(named, str(error), value=value if named == field else None) from None
