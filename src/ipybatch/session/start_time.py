"""Start time: when a session is to start that was told to wait, such as until 22:00.

Rule: a time of day means the next one, when the session is made.  What has
begun and not ended by itself goes on at once: the process of a run that died at
23:00 need not wait for tomorrow.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from ipybatch.engine.data.events import State
from ipybatch.engine.data.local_time import is_time_of_day, moment_words, read_start, zone_of
from ipybatch.engine.data.policy import Limits
from ipybatch.engine.store import run_store
from ipybatch.engine.store.journal import Journal
from ipybatch.engine.store.run_store import Found

_GOES_ON: frozenset[State] = frozenset({"running", "paused", "interrupted", "failed", "cancelled"})


def start_of(start_at: Any, limits: Limits, journal: Journal, name: str, *, fresh: bool, now_s: float) -> float | None:
    """Return before when nothing of a session starts, Unix; None for at once.

    Args:
        start_at: As the user gave it.
        fresh: Whether it is a new run.

    Raises:
        InputError: It is no time, or past, and nothing of the session was ever begun.
        JournalError: The journal cannot be read.
    """
    if start_at is None:
        return None
    zone = zone_of(limits.zone)
    with journal.reader() as database:
        found = None if fresh else run_store.find(database, name)
    has_begun = found is not None and _has_begun(found, now_s)
    if is_time_of_day(start_at):
        goes_on = has_begun and found is not None and found.state in _GOES_ON
        return None if goes_on else read_start(start_at, now_s, zone)
    start_s = read_start(start_at, 0.0 if has_begun else now_s, zone)  # past, for the same call as before
    return start_s if start_s > now_s else None


def _has_begun(found: Found, now_s: float) -> bool:
    return found.started_s is not None and (found.start_at_s is None or found.start_at_s <= now_s)


def changed_start(start_at: Any, limits: Limits, now_s: float) -> tuple[float | None, str]:
    """Return another start of a session that runs, Unix, None for at once; and how that reads.

    Args:
        start_at: "now", or a time as the session takes it.

    Raises:
        InputError: It is no time, or past.
    """
    if start_at == "now":
        return None, "start now"
    zone = zone_of(limits.zone)
    start_s = read_start(start_at, now_s, zone)
    return start_s, f"start at {moment_words(start_s, now_s, zone)}"


def as_text(start_at: Any) -> Any:
    """Return a start as JSON can hold it."""
    return start_at.isoformat() if isinstance(start_at, dt.datetime) else start_at
