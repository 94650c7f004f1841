"""Schedule view: a schedule as its readers are told of it."""

from __future__ import annotations

import itertools
import math
from contextlib import suppress
from urllib.parse import quote

import msgspec

from ipybatch.engine.data.masking import printable
from ipybatch.engine.feed.session_item import iso
from ipybatch.errors import InputError
from ipybatch.server.schedule_rows import Ran, Row
from ipybatch.server.schedule_timing import question_of, recurrence_of, timing_of
from ipybatch.server.wire import (
    Schedule,
    ScheduledRun,
    ScheduleState,
    ScheduleTiming,
    SubmissionRequest,
    SubmissionState,
)

NEXT = 5  # times that are told


def tell(row: Row, last: Ran | None, now_s: float, base: str = "") -> Schedule:
    """Return a schedule as it stands.

    Args:
        last: What its latest time became.
        base: Where the API is, for links; "" for none.
    """
    links = {}
    if base:
        here = f"{base}/schedules/{quote(row.name, '')}"
        links = {"self": here, "commands": f"{here}/commands"}
        if row.submission:
            links["last"] = f"{base}/submissions/{row.submission}"
    timing = timing_of(row)
    told = {name: getattr(timing, name) for name in ScheduleTiming.__struct_fields__}
    return Schedule(
        **told,
        name=row.name,
        submission=msgspec.json.decode(row.request, type=SubmissionRequest),
        state=_state(row),
        question=question_of(row),
        next=[iso(at_s) for at_s in next_times_of(row, now_s)],
        last=None if last is None or row.last_s is None else _run(row.last_s, last),
        note=printable(row.note),
        created=iso(row.created_s),
        links=links,
    )


def next_times_of(row: Row, now_s: float, count: int = NEXT) -> list[float]:
    """Return the next times of a schedule, Unix, whether it is paused or not; none where that cannot be said."""
    is_waiting = _state(row) == "waiting" and row.next_s is not None
    after_s = math.nextafter(row.next_s or 0.0, -math.inf) if is_waiting else now_s
    with suppress(InputError):  # this machine does not know its zone; the look at what is due says so
        return list(itertools.islice(recurrence_of(row).times(after_s), count))
    return []


def _state(row: Row) -> ScheduleState:
    if row.is_paused:
        return "paused"
    if row.question_s is not None:
        return "asking"
    return "ended" if row.next_s is None else "waiting"


def _run(at_s: float, last: Ran) -> ScheduledRun:
    made = last.submission
    state: SubmissionState = "RUNNING" if made.state == "CANCELLING" else made.state
    return ScheduledRun(at=iso(at_s), submission=made.id, name=printable(made.name), state=state, failed=last.failed)
