"""Schedule: what users do with schedules from Python; `server/schedule_store` does it."""

from __future__ import annotations

import builtins
import datetime as dt
import itertools
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from ipybatch.engine.data.policy import check_count
from ipybatch.errors import InputError
from ipybatch.server.wire import ScheduleRequest, ScheduleTiming, SubmissionRequest

if TYPE_CHECKING:
    import pandas as pd

    from ipybatch.server.schedule_rows import Ran, Row
    from ipybatch.server.schedule_store import Schedules

T = TypeVar("T", bound=ScheduleTiming)
_ALL = 1 << 30
_COLUMNS = ("name", "state", "when", "zone", "next", "last", "last_state", "question", "note", "template")


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule, as it stands.

    Attributes:
        when: In words, such as "every 1d at 22:00" or "cron 0 22 * * 1-5".
        zone: Whose clocks count, by name.
        state: "asking": it waits for an answer to ``question``; "ended": no time is left.
        next_times: The next five times, in ``zone``.
        question: What to do about times that were missed; "" for none. `answer` answers.
        last: The name of the session that it ran last; "" for none yet.
        last_state: How that stands: "PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED" or "ROLLED_BACK"; "" for
            none yet.
        note: What became of the latest time, where that is not plain: that it was skipped, or could not be submitted.
        template: What is submitted.
    """

    name: str
    when: str
    zone: str
    state: Literal["waiting", "paused", "asking", "ended"]
    next_times: builtins.list[dt.datetime]
    question: str
    last: str
    last_state: str
    note: str
    template: str


def add(
    name: str,
    template: str,
    *,
    requests: Sequence[Any] | None = None,
    upload: str | None = None,
    params: dict[str, Any] | None = None,
    priority: Literal["high", "medium", "low"] | None = None,
    notify: Any = None,
    every: str | None = None,
    at: str | None = None,
    cron: str | None = None,
    zone: str | None = None,
    start_at: str | dt.datetime | None = None,
    until: str | dt.date | None = None,
    misfire: Literal["run", "skip", "ask"] = "run",
    grace: str = "15m",
    paused: bool = False,
    replace: bool = False,
    journal: Path | str | None = None,
) -> Schedule:
    """Make a schedule: the same work is submitted again and again.

    A time is skipped while the run before it has not ended, and ``note`` says so.

    Args:
        template: "refresh", "forecast", "text" or another of those that can be submitted.
        requests: What is submitted, as the template takes it: prompts, or ids of games; of "refresh" everything that
            the library holds when it is left out.
        upload: Of "forecast": the id of a table that a server keeps; it is kept as long as the schedule is there.
        params: Arguments of the template.
        notify: Channels that are told how each run ends, and of times that became no run.
        every: "30m", "6h", "1d", "1w". Days are of the calendar, at the same time of the clock; hours are time that
            passes.
        at: With whole days: the time of the clock, "22:00". Default: that of ``start_at``, or of now.
        cron: In place of ``every``: minute, hour, day, month, weekday; through changes of the clocks as Debian's cron.
        zone: Whose clocks count, "Europe/Berlin". Default: this machine's, recorded by name.
        start_at: Not before then: "22:00" (the next one), ISO 8601, or a datetime.
        until: Not after then: ISO 8601, a datetime, or a date: all of that day.
        misfire: What to do about times that passed while nothing was there to submit: "run" once for all of them,
            "skip" them, or "ask".
        grace: How late a time may be and is not missed yet.
        paused: Submit nothing until `resume`.
        replace: Change the one of this name, if there is one.
        journal: Default: the default one, where servers look.

    Raises:
        InputError: A field is not what it must be, or there is one of this name.
        BatchError: What is submitted cannot be, as its template tells it.
        JournalError: The journal cannot be written.
    """
    if isinstance(requests, str | bytes | Mapping) or not isinstance(requests, Iterable | None):
        msg = f"requests must be a list, got a {type(requests).__name__}"
        raise InputError(msg)
    from ipybatch.server.submission_order import without_server

    store = _store(journal)
    request = ScheduleRequest(
        submission=SubmissionRequest(
            template=template,
            requests=None if requests is None else [*requests],
            upload=upload,
            params={} if params is None else params,
            priority=priority,
            notify=notify,
        ),
        every=every,
        at=at,
        cron=cron,
        zone=zone,
        start_at=_text(start_at),
        until=_text(until),
        misfire=misfire,
        grace=grace,
        paused=paused,
    )
    before = _found(store, name)
    if before is not None and not replace:
        msg = f"name must be a new one, got {name!r}: pass replace=True to change that schedule, or choose another name"
        raise InputError(msg)
    request = _checked(request)
    return _now(store, store.put(name, request, without_server(request.submission), before))


def list(journal: Path | str | None = None) -> pd.DataFrame:  # noqa: A001  # ipybatch.schedules.list()
    """Return one row per schedule, by name: its state, when it comes again, what it ran last, what it asks.

    Columns: name, state, when, zone, next (in its zone), last, last_state, question, note, template.

    Raises:
        JournalError: The journal cannot be read.
    """
    import pandas as pd

    store = _store(journal)
    found = [_told(row, last) for row, last in store.page(_ALL)]
    rows = [{**msgspec.structs.asdict(told), "next": next(iter(told.next_times), None)} for told in found]
    return pd.DataFrame(rows, columns=builtins.list(_COLUMNS))


def next_times(
    name: str | None = None,
    count: int = 5,
    *,
    every: str | None = None,
    at: str | None = None,
    cron: str | None = None,
    zone: str | None = None,
    start_at: str | dt.datetime | None = None,
    until: str | dt.date | None = None,
    journal: Path | str | None = None,
) -> builtins.list[dt.datetime]:
    """Return the next times of a schedule, or of a rule before a schedule is made of it; each in its zone.

    Args:
        name: Of a schedule; leave it out to ask about ``every`` or ``cron``, which are as in `add`.
        count: How many, >= 0.

    Raises:
        InputError: There is no such schedule, or the rule does not say when; names the field.
        JournalError: The journal cannot be read.
    """
    from ipybatch.engine.data.local_time import zone_of
    from ipybatch.server.schedule_timing import read_timing
    from ipybatch.server.schedule_view import next_times_of

    count = check_count("count", count, low=0)
    if name is not None:
        store = _store(journal)
        row = store.find(name)
        return _in_zone(row, next_times_of(row, time.time(), count))
    now_s = time.time()
    given = ScheduleTiming(every=every, at=at, cron=cron, zone=zone, start_at=_text(start_at), until=_text(until))
    timing = read_timing(_checked(given), now_s)
    its_zone = zone_of(timing.given.zone)
    times = itertools.islice(timing.recurrence.times(math.nextafter(now_s, math.inf)), count)
    return [dt.datetime.fromtimestamp(at_s, its_zone) for at_s in times]


def remove(name: str, *, journal: Path | str | None = None) -> None:
    """Remove a schedule; what it has submitted stays, and runs on.

    Raises:
        InputError: There is none of this name, or it changes just then.
        JournalError: The journal cannot be written.
    """
    store = _store(journal)
    store.remove(store.find(name))


def pause(name: str, *, journal: Path | str | None = None) -> Schedule:
    """Submit nothing until `resume`; what passes meanwhile is not missed.

    Raises:
        InputError: There is none of this name.
        JournalError: The journal cannot be written.
    """
    store = _store(journal)
    return _now(store, store.command(name, "pause"))


def resume(name: str, *, journal: Path | str | None = None) -> Schedule:
    """Go on after a pause, with the next time to come.

    Raises:
        InputError: There is none of this name.
        JournalError: The journal cannot be written.
    """
    store = _store(journal)
    return _now(store, store.command(name, "resume"))


def run_now(name: str, *, journal: Path | str | None = None) -> Schedule:
    """Submit it once now; its times stay as they are.

    Raises:
        InputError: There is none of this name, or its latest run has not ended.
        BatchError: What is submitted cannot be, as its template tells it.
        JournalError: The journal cannot be written.
    """
    store = _store(journal)
    return _now(store, store.command(name, "run_now"))


def answer(name: str, answer: Literal["run", "skip"], *, journal: Path | str | None = None) -> Schedule:
    """Answer what a schedule asks about times that were missed.

    Args:
        answer: "run": once, now, for all of them; "skip": go on with the next time to come.

    Raises:
        InputError: There is none of this name, it asks nothing, or its latest run has not ended.
        BatchError: What is submitted cannot be, as its template tells it.
        JournalError: The journal cannot be written.
    """
    store = _store(journal)
    return _now(store, store.command(name, "answer", answer))


def run_due(journal: Path | str | None = None) -> pd.DataFrame:
    """Submit what is due, run it in this process, and wait for its end: without a Jupyter server.

    It may be called every minute, by several processes: each time is run once. Runs whose process died go on.

    Returns:
        One row per run: submission, name, state, reason.

    Raises:
        JournalError: The journal cannot be read or written.
    """
    import pandas as pd

    from ipybatch.server import schedule_run

    ended = [(row.id, row.name, row.state, row.reason) for row in schedule_run.run_due(_store(journal))]
    return pd.DataFrame(ended, columns=["submission", "name", "state", "reason"])


def _store(journal: Path | str | None) -> Schedules:
    from ipybatch.server.schedule_store import Schedules

    return Schedules(None if journal is None else Path(journal))


def _found(store: Schedules, name: str) -> Row | None:
    from ipybatch.server import schedule_rows

    return store.read(lambda database: schedule_rows.find(database, name), None)


def _checked(request: T) -> T:
    """Return a request whose fields are of the types that they must be, as one that came over HTTP.

    Raises:
        InputError: One is not, or cannot be written as JSON.
    """
    try:
        return msgspec.json.decode(msgspec.json.encode(request), type=type(request))
    except (msgspec.MsgspecError, TypeError, OverflowError, RecursionError, UnicodeEncodeError) as error:
        said, _, where = str(error).partition(" - at ")
        msg = f"{where.strip('`').removeprefix('$').lstrip('.') or _unwritable(request)} cannot be recorded: {said}"
        raise InputError(msg) from None


def _unwritable(request: Any) -> str:
    """Return the field of a request that is not to be written as JSON."""
    for struct in (request, getattr(request, "submission", request)):
        for name in struct.__struct_fields__:
            try:
                msgspec.json.encode(getattr(struct, name))
            except (msgspec.MsgspecError, TypeError, OverflowError, RecursionError, UnicodeEncodeError):
                if name != "submission":
                    return str(name)
    return "what is submitted"


def _text(moment: Any) -> Any:
    return moment.isoformat() if isinstance(moment, dt.date) else moment


def _now(store: Schedules, row: Row) -> Schedule:
    return _told(row, store.last(row))


def _told(row: Row, last: Ran | None) -> Schedule:
    from ipybatch.server.schedule_view import next_times_of, tell

    told = tell(row, last, time.time())
    at = f" at {told.at}" if told.at else ""
    return Schedule(
        name=row.name,
        when=f"cron {told.cron}" if told.cron else f"every {told.every}{at}",
        zone=told.zone or "",
        state=told.state,
        next_times=_in_zone(row, next_times_of(row, time.time())),
        question=told.question,
        last=told.last.name if told.last else "",
        last_state=told.last.state if told.last else "",
        note=told.note,
        template=told.submission.template,
    )


def _in_zone(row: Row, times: builtins.list[float]) -> builtins.list[dt.datetime]:
    from ipybatch.engine.data.local_time import zone_of
    from ipybatch.server.schedule_timing import timing_of

    zone = zone_of(timing_of(row).zone)
    return [dt.datetime.fromtimestamp(at_s, zone) for at_s in times]
