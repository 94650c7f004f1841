"""Bottleneck: events by the names that users of Bottleneck (npm) know.

    received    items came: the list, what a generator gave, what the work added
    queued      items wait: those that were received, and those that are to be tried again
    scheduled   the limits let an attempt start
    executing   it runs; both are one moment here
    done        an item is completed, and recorded
    failed      an attempt failed, the last one of an item too
    retry       it is to be tried again
    error       a listener raised
    depleted    the limits are used up, told once a window
    empty       the last item that waited has started
    idle        and the last that ran has ended

Source: https://github.com/SGrondin/bottleneck#events (2026-11-22).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

from ipybatch.engine.data import events
from ipybatch.engine.feed.feed import DROPPED, Listener
from ipybatch.engine.feed.snapshot import Snapshot
from ipybatch.errors import InputError

Name = Literal[
    "received", "queued", "scheduled", "executing", "done", "failed", "retry", "error", "depleted", "empty", "idle"
]
NAMES: tuple[Name, ...] = get_args(Name)

Test = Callable[[Any, Snapshot], bool]


def named(name: Any, listener: Any, snapshot: Callable[[], Snapshot]) -> Listener:
    """Return a listener that hears only the events of that name.

    Raises:
        InputError: There is none of that name, or the listener is not a function.
    """
    if not callable(listener):
        msg = f"listener must be a function of an event, got {listener!r}"
        raise InputError(msg)
    if name not in NAMES:
        msg = f"the event must be one of {', '.join(map(repr, NAMES))}, got {name!r}"
        raise InputError(msg)

    def hear(event: events.Event) -> None:
        test = _TESTS[name].get(type(event))
        if test is not None and test(event, snapshot()):
            listener(event)

    return hear


def tally(snapshot: Snapshot) -> dict[str, int]:
    """Return how often each happened, in this process."""
    counts = snapshot.counts
    received = counts.ended + counts.pending + counts.running if counts.total is None else counts.total
    ended_attempts = snapshot.started_here - counts.running
    done = snapshot.ended_here - snapshot.failed_here
    return {
        "received": received,
        "queued": received + ended_attempts - snapshot.ended_here,
        "scheduled": snapshot.started_here,
        "executing": snapshot.started_here,
        "done": done,
        "failed": ended_attempts - done,
        "retry": ended_attempts - snapshot.ended_here,
        "error": sum(note.startswith(DROPPED) for note in snapshot.notes),
        "depleted": snapshot.depleted,
        "empty": snapshot.emptied,
        "idle": snapshot.idled,
    }


def _always(event: events.Event, snapshot: Snapshot) -> bool:
    return True


def _is_empty(event: events.Event, snapshot: Snapshot) -> bool:
    return snapshot.counts.total is not None and not snapshot.counts.pending


def _is_idle(event: events.Event, snapshot: Snapshot) -> bool:
    return _is_empty(event, snapshot) and not snapshot.counts.running


def _is_completed(event: events.ItemEnded, snapshot: Snapshot) -> bool:
    return event.status == "completed"


def _is_failed(event: events.ItemEnded, snapshot: Snapshot) -> bool:
    return event.status in ("failed", "timeout")


def _is_of_listener(event: events.Noted, snapshot: Snapshot) -> bool:
    return event.text.startswith(DROPPED)


_TESTS: dict[Name, dict[type, Test]] = {
    "received": {events.Planned: _always, events.Drawn: _always, events.ItemsAdded: _always},
    "queued": {
        events.Planned: _always,
        events.Drawn: _always,
        events.ItemsAdded: _always,
        events.AttemptFailed: _always,
    },
    "scheduled": {events.AttemptStarted: _always},
    "executing": {events.AttemptStarted: _always},
    "done": {events.ItemEnded: _is_completed},
    "failed": {events.AttemptFailed: _always, events.ItemEnded: _is_failed},
    "retry": {events.AttemptFailed: _always},
    "error": {events.Noted: _is_of_listener},
    "depleted": {events.Depleted: _always},
    "empty": {events.AttemptStarted: _is_empty},
    "idle": {events.ItemEnded: _is_idle},
}
