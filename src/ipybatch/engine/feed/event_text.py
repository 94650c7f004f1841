"""Logged: events in words, for the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.masking import mask
from ipybatch.engine.feed.snapshot import Group

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
        level, text = _WORDS[type(event)](event)
        if isinstance(event, events.GroupEnded | events.GroupChanged) and event.group in groups:
            text = text.replace(f"Group {event.group}", groups[event.group].name, 1)
        group = getattr(event, "group", 0)
        made.append(LogLine(number=number, at_s=event.at_s, level=level, text=mask(text), group=group))
    return made


def _planned(event: events.Planned) -> Words:
    total, ended = event.counts.total, event.counts.ended
    items = "items from a generator" if total is None else _items(total)
    return "info", f"Planned: {items}" + (f", {ended:,} recorded before" if ended else "")


def _state_changed(event: events.StateChanged) -> Words:
    levels: dict[str, Level] = {"completed": "good", "failed": "bad", "cancelled": "warn", "rolled_back": "bad"}
    word = event.state.replace("_", " ").capitalize()
    return levels.get(event.state, "info"), f"{word}: {event.reason}" if event.reason else word


def _group_started(event: events.GroupStarted) -> Words:
    return "info", f"{event.name} began: {_items(event.items)}"


def _group_ended(event: events.GroupEnded) -> Words:
    return "good" if event.status == "completed" else "warn", f"Group {event.group} {event.status}"


def _group_changed(event: events.GroupChanged) -> Words:
    said = f"Group {event.group} {event.status}"
    return ("bad", f"{said}: {event.error}") if event.error else ("info", said)


def _attempt_failed(event: events.AttemptFailed) -> Words:
    again = f"; again in {event.wait_s:.1f} s" if event.wait_s else ""
    return "warn", f"{event.key}: attempt {event.attempt} failed{again}: {event.error}"


def _item_ended(event: events.ItemEnded) -> Words:
    times = "" if event.attempts == 1 else f" after {event.attempts} attempts"
    level: Level = "bad" if event.status in ("failed", "timeout") else "info"
    error = "" if event.error in ("", event.status) else f": {event.error}"
    return level, f"{event.key} {_SAID.get(event.status, event.status)}{times}{error}"


def _items_left(event: events.ItemsLeft) -> Words:
    return "info", f"{_items(event.items)} {event.status}; a later run does {'it' if event.items == 1 else 'them'}"


def _breaker_moved(event: events.BreakerMoved) -> Words:
    if event.state == "open":
        failures = "1 failure" if event.failures == 1 else f"{event.failures:,} failures"
        return "bad", f"Breaker open after {failures} in a row; opening {event.openings:,}"
    return ("warn", "Breaker half open: one probe is out") if event.state == "half_open" else ("good", "Breaker closed")


def _cooled_down(event: events.CooledDown) -> Words:
    what = f"Cooling down {event.limit_group}" if event.limit_group else "Cooling down"
    return "warn", f"{what} for {max(0.0, event.until_s - event.at_s):.1f} s: {event.reason}"


def _tallied(event: events.Tallied) -> Words:
    return "info", ", ".join(f"{name} {times:,}" for name, times in event.times.items() if times)


def _items_added(event: events.ItemsAdded) -> Words:
    skipped = f", and {event.skipped:,} that need not run" if event.skipped else ""
    return "info", f"{_items(event.items)} added{skipped}"


def _commanded(event: events.Commanded) -> Words:
    return "info", f"Command: {event.command.replace('_', ' ')}"


def _noted(event: events.Noted) -> Words:
    return "info", event.text


def _items(items: int) -> str:
    return "1 item" if items == 1 else f"{items:,} items"


_SAID = {"timeout": "timed out"}


_WORDS: dict[type, Callable[[Any], Words]] = {
    events.Planned: _planned,
    events.StateChanged: _state_changed,
    events.GroupStarted: _group_started,
    events.GroupChanged: _group_changed,
    events.GroupEnded: _group_ended,
    events.AttemptFailed: _attempt_failed,
    events.ItemEnded: _item_ended,
    events.ItemsLeft: _items_left,
    events.BreakerMoved: _breaker_moved,
    events.CooledDown: _cooled_down,
    events.ItemsAdded: _items_added,
    events.Tallied: _tallied,
    events.Commanded: _commanded,
    events.Noted: _noted,
}
