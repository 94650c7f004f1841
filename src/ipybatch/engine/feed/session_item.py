"""Session item: a session as others are told it, by the REST API, in events and in webhooks.

Names are snake_case, times ISO 8601 in UTC, durations seconds.
"""

from __future__ import annotations

import datetime as dt
from contextlib import suppress
from typing import Any, Literal

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.events import BreakerState, Counts, State, Status
from ipybatch.engine.data.masking import mask, printable

Verb = Literal["pause", "resume", "cancel", "retry_failed", "adjust", "lift", "start_now"]


class SessionItem(msgspec.Struct, kw_only=True):
    """A session in a list.

    Attributes:
        id: Opaque.
        seconds: How long it has run, over all its starts.
        eta_s: Seconds left, at worst; None when unknown or ended.
        usd: None for what costs nothing, or where nothing is known.
        reason: Why it ended early, or why it waits.
        workload: "refresh", "gemini", "forecast" or another plug-in's; "" for plain work.
        kernel: The id of the kernel of this server that runs it, or last did; None where that is not known.
        notebook: The notebook of that kernel, below the server's root; None where there is none.
        breaker: None where it is not on record.
        waiting: Why nothing can start now; "" when something can.
        outside_hours: Whether it waits for its working hours, and nothing runs.
        where: Where it runs, such as "in process 42 on host"; "" where nobody runs it.
        can: The commands that are possible now.
        untaken: Commands that were not taken a second after they were asked.
        submission: The id of the submission that it belongs to; None for one that was started in code.
        group_word: What a group is called: "Batch", "Job", "Partition".
    """

    id: str
    name: str
    state: State
    counts: Counts
    started: str
    seconds: float
    eta_s: float | None
    usd: float | None
    reason: str
    workload: str
    kernel: str | None
    notebook: str | None
    breaker: BreakerState | None
    waiting: str
    outside_hours: bool
    where: str
    can: list[Verb]
    untaken: list[Verb]
    submission: str | None
    group_word: str


class GroupItem(msgspec.Struct, kw_only=True):
    """A row of the partition table: a batch, a remote job or a partition."""

    number: int
    name: str
    status: Status
    items: int
    done: int
    failed: int
    started: str | None
    seconds: float
    error: str
    extra: dict[str, Any]


class Breaker(msgspec.Struct, kw_only=True):
    """The circuit breaker; with limit groups, that of the one that is worst off."""

    state: BreakerState
    failures: int
    openings: int
    limit_group: str


class Window(msgspec.Struct, kw_only=True):
    """One sliding window: ``used`` of ``limit`` in the last ``per_s`` seconds."""

    used: float
    limit: float
    per_s: float
    unit: str


class Session(SessionItem, kw_only=True):
    """One session, with its groups (the first hundred) and its breaker.

    Attributes:
        breaker_detail: None where it is not on record.
        windows: Empty where they are not on record.
    """

    groups: list[GroupItem]
    breaker_detail: Breaker | None
    windows: list[Window]
    notes: list[str]
    links: dict[str, str]


def group_item(event: events.GroupRecalled) -> GroupItem:
    """Return a group on record."""
    done = event.items if event.done is None else event.done
    status = event.status or ("failed" if event.failed == event.items else "completed")
    end_s = event.ended_s or event.at_s
    return GroupItem(
        number=event.group,
        name=printable(event.name),
        status=status,
        items=event.items,
        done=done,
        failed=event.failed,
        started=iso(event.started_s) if event.started_s else None,
        seconds=round(max(0.0, end_s - event.started_s), 3) if event.started_s else 0.0,
        error=mask(event.error),
        extra=event.extra,
    )


def iso(unix_s: float) -> str:
    """Return a time as ISO 8601 in UTC."""
    with suppress(ValueError, OverflowError, OSError):  # a clock that was never set
        return dt.datetime.fromtimestamp(unix_s, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return "1970-01-01T00:00:00.000Z"
