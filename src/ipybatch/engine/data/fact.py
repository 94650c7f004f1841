"""Fact: one figure of the row above a session's table, and how such figures are written.

    workload --`facts`, as often as they are looked at--> live record --> head of the panel, static forms, REST

A figure that runs on by itself is told as a moment, so that whoever draws it counts, in step with its other clocks,
and nothing is sent while nothing else changes::

    "2026-12-02T08:10:00.250Z so far"     drawn as "12 s so far"
    "in 2026-12-02T08:10:00Z"             drawn as "in 47 h 59 m", and as "expired" from then on
"""

from __future__ import annotations

import re
import time
from typing import Literal

import msgspec

Tone = Literal["", "good", "warn", "bad"]

NONE = "\u2013"  # a figure that is not known, or not yet
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400
_MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"
_SINCE, _EXPIRY = re.compile(rf"({_MOMENT}) so far"), re.compile(rf"\bin ({_MOMENT})")


class Fact(msgspec.Struct, frozen=True):
    """A figure, with what it is of.

    Attributes:
        title: What it is, in one or two words.
        value: The figure, with its unit.
        aside: What stands beside it, such as "of 2,048 MB".
        foot: What stands below it; a text may hold moments, see above.
        share: How full a bar below it is, 0 to 1; None for no bar.
        tone: Whether it is good or bad as it is.
        is_live: Whether it holds only while the session runs: nobody knows it of one whose process is gone.
    """

    title: str
    value: str
    aside: str = ""
    foot: str = ""
    share: float | None = None
    tone: Tone = ""
    is_live: bool = False


def moment(at_s: float) -> str:
    """Return a Unix time as it stands in a text that is counted from or to it."""
    milliseconds = int(at_s % 1 * 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at_s))}.{milliseconds:03}Z"


def standing(text: str, now_s: float) -> str:
    """Return a text with its moments as they are at a time, for where nothing counts on."""
    text = _SINCE.sub(lambda found: f"{span(now_s - _unix_s(found[1]))} so far", text)
    return _EXPIRY.sub(lambda found: f"on {found[1][:10]} at {found[1][11:16]} UTC", text)


def _unix_s(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


def span(seconds: float) -> str:
    """Return a duration as the panel's clocks have it: `48 s`, `1 m 48 s`, `2 h 05 m`, `3 d 04 h`."""
    whole = max(0, int(seconds))
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} m {whole % _MINUTE_S:02} s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S:02} m"
    return f"{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S:02} h"


def took(seconds: float) -> str:
    """Return how long something took, as the panel has it: with tenths below a minute."""
    return f"{seconds:.1f} s" if seconds < _MINUTE_S - 0.05 else span(round(seconds))


def usd(value: float) -> str:
    """Return an amount, with four digits where two would be nothing."""
    return f"${value:,.4f}" if value and abs(value) < 0.1 else f"${value:,.2f}"


def counted(count: int, word: str) -> str:
    """Return how many, such as "1 partition"."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"
