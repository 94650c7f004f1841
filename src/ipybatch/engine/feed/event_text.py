"""Event text: what events are called and how they read, in the log, in a terminal, and for `BatchSession.on`.

The names are those that users of Bottleneck (npm) know:

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

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.fact import counted
from ipybatch.engine.data.masking import isolated, mask
from ipybatch.engine.feed.feed import Listener
from ipybatch.engine.feed.snapshot import Group, Snapshot
from ipybatch.engine.rules.limiter import LONG_COOL_S
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
        "error": snapshot.dropped,
        "depleted": snapshot.depleted,
        "empty": snapshot.emptied,
        "idle": snapshot.idled,
    }


def _always(event: events.Event, snapshot: Snapshot) -> bool:
    return True


def _is_empty(event: events.Event, snapshot: Snapshot) -> bool:
    return snapshot.counts.total is not None and not snapshot.counts.pending


_RECEIVED: dict[type, Test] = {events.Planned: _always, events.Drawn: _always, events.ItemsAdded: _always}
_TESTS: dict[Name, dict[type, Test]] = {
    "received": _RECEIVED,
    "queued": {**_RECEIVED, events.AttemptFailed: _always},
    "scheduled": {events.AttemptStarted: _always},
    "executing": {events.AttemptStarted: _always},
    "done": {events.ItemEnded: lambda event, _: event.status == "completed"},
    "failed": {
        events.AttemptFailed: _always,
        events.ItemEnded: lambda event, _: event.status in ("failed", "timeout"),
    },
    "retry": {events.AttemptFailed: _always},
    "error": {events.Noted: lambda event, _: event.kind == "listener"},
    "depleted": {events.Depleted: _always},
    "empty": {events.AttemptStarted: _is_empty},
    "idle": {events.ItemEnded: lambda event, snapshot: _is_empty(event, snapshot) and not snapshot.counts.running},
}


Level = Literal["info", "good", "warn", "bad"]


class LogLine(msgspec.Struct, kw_only=True, frozen=True):
    """Something that happened, in words.

    Attributes:
        number: Of the event in its session, from 1: newer lines have higher ones.
        at_s: Unix time.
        group: What group it is about; 0 for none.
    """

    number: int
    at_s: float
    level: Level
    text: str
    group: int


Words = tuple[Level, str]


def lines(told: Iterable[tuple[int, events.Event]], groups: Mapping[int, Group]) -> list[LogLine]:
    """Return numbered events as lines, in their order; groups are called by their names."""
    made = []
    for number, event in told:
        group = getattr(event, "group", 0)
        if isinstance(event, events.GroupEnded | events.GroupChanged):
            name = isolated(groups[group].name) if group in groups else f"Group {group}"
            level, text = _group_ended(event, name) if isinstance(event, events.GroupEnded) else _changed(event, name)
        else:
            level, text = _WORDS[type(event)](event)
        made.append(LogLine(number=number, at_s=event.at_s, level=level, text=mask(text), group=group))
    return made


_LEVELS: dict[str, Level] = {  # of a state
    "completed": "good",
    "failed": "bad",
    "cancelled": "warn",
    "interrupted": "warn",
    "rolled_back": "bad",
}


def _planned(event: events.Planned) -> Words:
    total, ended = event.counts.total, event.counts.ended
    items = "items from a generator" if total is None else _items(total)
    return "info", f"Planned: {items}" + (f", {ended:,} recorded before" if ended else "")


def _state_changed(event: events.StateChanged) -> Words:
    word = event.state.replace("_", " ").capitalize()
    return _LEVELS.get(event.state, "info"), f"{word}: {isolated(event.reason)}" if event.reason else word


def _group_ended(event: events.GroupEnded, name: str) -> Words:
    return "good" if event.status == "completed" else "warn", f"{name} {event.status}"


def _changed(event: events.GroupChanged, name: str) -> Words:
    return (
        ("bad", f"{name} {event.status}: {isolated(event.error)}")
        if event.error
        else ("info", f"{name} {event.status}")
    )


def _attempt_failed(event: events.AttemptFailed) -> Words:
    again = f"; again in {event.wait_s:.1f} s" if event.wait_s else ""
    return "warn", f"{isolated(event.key)}: attempt {event.attempt} failed{again}: {isolated(event.error)}"


def _item_ended(event: events.ItemEnded) -> Words:
    times = "" if event.attempts == 1 else f" after {event.attempts} attempts"
    level: Level = "bad" if event.status in ("failed", "timeout") else "info"
    error = "" if event.error in ("", event.status) else f": {isolated(event.error)}"
    return level, f"{isolated(event.key)} {_SAID.get(event.status, event.status)}{times}{error}"


def _items_left(event: events.ItemsLeft) -> Words:
    return "info", f"{_items(event.items)} {event.status}; a later run does {'it' if event.items == 1 else 'them'}"


def _breaker_moved(event: events.BreakerMoved) -> Words:
    breaker = f"Breaker of {isolated(event.limit_group)}" if event.limit_group else "Breaker"
    if event.state == "open":
        failures = "1 failure" if event.failures == 1 else f"{event.failures:,} failures"
        return "bad", f"{breaker} open after {failures} in a row; opening {event.openings:,}"
    return (
        ("warn", f"{breaker} half open: one probe attempt runs")
        if event.state == "half_open"
        else ("good", f"{breaker} closed")
    )


def _cooled_down(event: events.CooledDown) -> Words:
    what = f"Cooling down {isolated(event.limit_group)}" if event.limit_group else "Cooling down"
    if not event.until_s:
        return "info", f"{what} ended: {isolated(event.reason)}"
    return "warn", f"{what} for {max(0.0, event.until_s - event.at_s):.1f} s: {isolated(event.reason)}{_way_out(event)}"


def why_waiting(snapshot: Snapshot, now_s: float) -> str:
    """Return why a session waits that is to do so for long, until when, and the way out; "" while it does not."""
    if snapshot.state != "running":
        return ""
    if adjourned := why_adjourned(snapshot, now_s):
        return adjourned
    event = snapshot.cooling(now_s)
    if event is None or not _way_out(event):
        return ""
    if event.limit_group and snapshot.counts.running:  # others go on
        return ""
    what = f"{isolated(event.limit_group)} cools down" if event.limit_group else "cooling down"
    until = time.strftime("%H:%M on %Y-%m-%d", time.localtime(event.until_s))
    return f"{what} until {until}: {isolated(event.reason)}{_way_out(event)}"


def why_adjourned(snapshot: Snapshot, now_s: float) -> str:
    """Return why nothing starts by the clock on the wall, and until when; "" where that is not so."""
    waits = snapshot.adjourned
    return "" if waits is None or snapshot.state != "running" or waits.until_s <= now_s else waits.reason


def _way_out(event: events.CooledDown) -> str:
    """Return what ends a long cool-down, to be said after its reason."""
    is_long = event.until_s - event.at_s >= LONG_COOL_S - 1.0 and event.resource
    return f"; ipybatch.lift({event.resource!r}) ends it" if is_long else ""


def _tallied(event: events.Tallied) -> Words:
    times = event.times
    again, left = times["retry"], max(0, times["failed"] - times["retry"])  # what failed and was not tried again
    words = [f"{_items(times['done'])} completed", f"{left:,} did not" if left else ""]
    words.append(f"{again:,} tried again" if again else "")
    return "info", f"{counted(times['scheduled'], 'attempt')}: {', '.join(filter(None, words))}"


def _items_added(event: events.ItemsAdded) -> Words:
    skipped = f", and {event.skipped:,} that need not run" if event.skipped else ""
    return "info", f"{_items(event.items)} added{skipped}"


def _items(items: int) -> str:
    return "1 item" if items == 1 else f"{items:,} items"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _from(asker: str) -> str:
    return f", from {asker}" if asker else ""


_SAID = {"timeout": "timed out"}


_WORDS: dict[type, Callable[[Any], Words]] = {
    events.Planned: _planned,
    events.StateChanged: _state_changed,
    events.GroupStarted: lambda event: ("info", f"{isolated(event.name)} began: {_items(event.items)}"),
    events.AttemptFailed: _attempt_failed,
    events.ItemEnded: _item_ended,
    events.ItemsLeft: _items_left,
    events.BreakerMoved: _breaker_moved,
    events.CooledDown: _cooled_down,
    events.Adjourned: lambda event: ("info", _capital(event.reason)),
    events.ItemsAdded: _items_added,
    events.Tallied: _tallied,
    events.Commanded: lambda event: ("info", f"Command: {event.command.replace('_', ' ')}{_from(event.by)}"),
    events.Noted: lambda event: ("info", event.text),
}


def line_of(event: events.Event) -> str:
    """Return an event as one line for people; "" for one they need not see."""
    match event:
        case events.ItemEnded():
            line = f"{isolated(event.key)} {event.status} in {event.seconds:.2f} s{_because(event.error)}"
        case events.AttemptFailed():
            again = f"again in {event.wait_s:.1f} s"
            line = f"{isolated(event.key)} attempt {event.attempt} failed, {again}{_because(event.error)}"
        case events.BreakerMoved(state="open" | "half_open"):
            breaker = f"breaker of {isolated(event.limit_group)}" if event.limit_group else "breaker"
            line = f"{breaker} {event.state.replace('_', '-')} after {event.failures} failures in a row"
        case events.CooledDown(until_s=0.0):
            line = f"cooling down ended: {isolated(event.reason)}"
        case events.CooledDown():
            line = f"cooling down for {event.until_s - event.at_s:.1f} s: {isolated(event.reason)}{_way_out(event)}"
        case events.Adjourned():
            line = event.reason
        case events.Noted(kind="over"):
            line = ""
        case events.Noted():
            line = event.text
        case events.StateChanged() if event.state != "running":
            line = f"{event.state}{_because(event.reason)}"
        case _:
            line = ""
    return line


def _because(reason: str) -> str:
    return f": {isolated(reason)}" if reason else ""
