"""Snapshot: the state that the events add up to.

Rule: nothing here knows where events come from.  Folding the same events
gives the same snapshot, live, after a restart and in a test.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.events import MARKS, BreakerState, Counts, Extra, Mark, State, Status
from ipybatch.engine.data.fact import Fact
from ipybatch.engine.data.masking import printable

RECENT_ITEMS = 50
RATE_SPAN_S = 20
BREAKER_MOVES = 100
STORY = 500

_telling = threading.Lock()


class Group(msgspec.Struct, kw_only=True):
    """One row of the table: a batch, a remote job or a partition.

    Attributes:
        number: Counts from 1.
        items: Items in it; ``done`` of them have an outcome, ``failed`` of these are not completed.
        started_s: Unix time, 0.0 while it has yet to begin; ``ended_s`` is 0.0 while it runs.
        extra: The workload's own columns, by title.
        lasts: Whether it goes on when the session ends.
    """

    number: int
    name: str
    status: Status
    items: int
    done: int = 0
    failed: int = 0
    started_s: float = 0.0
    ended_s: float = 0.0
    error: str = ""
    extra: Extra = msgspec.field(default_factory=dict)
    lasts: bool = False


class BreakerSnapshot(msgspec.Struct, kw_only=True):
    """What the views show of the circuit breaker; of several, that of the limit group that is worst off."""

    state: BreakerState = "closed"
    failures: int = 0
    openings: int = 0
    probe_at_s: float = 0.0
    limit_group: str = ""


class Pace(msgspec.Struct):
    """How the counts of a session grew over time, in at most `MARKS` marks however long it takes.

    A mark a second at first; when there are too many, every second one is dropped and the next ones are twice as far
    apart.

    Attributes:
        is_whole: Whether those of earlier processes are among them.
        step_s: Seconds between two of them, at least.
        thinned: How often marks were taken out: who kept a copy must take them all anew.
    """

    marks: list[Mark] = msgspec.field(default_factory=list)
    step_s: float = 1.0
    thinned: int = 0
    is_whole: bool = False

    def put_before(self, earlier: list[Mark]) -> Mark:
        """Take in the marks of earlier processes; return where those ended, which all later ones count from."""
        base = earlier[-1] if earlier else Mark(0.0, 0, 0, 0)
        own, self.marks = self.marks, []
        self.is_whole = True
        self.thinned += 1
        for mark in earlier:
            self.add(mark)
        for mark in own:
            self.add(Mark(mark.at_s, base.started + mark.started, base.ended + mark.ended, base.failed + mark.failed))
        return base

    def add(self, mark: Mark) -> None:
        """Note where the counts stand; too soon after the latest, it takes that one's place."""
        marks = self.marks
        if len(marks) > 1 and mark.at_s < marks[-2].at_s + self.step_s:
            marks[-1] = mark
        else:
            marks.append(mark)
        if len(marks) > MARKS:
            self.marks = [*marks[:-1:2], marks[-1]]
            self.step_s *= 2
            self.thinned += 1


class Snapshot(msgspec.Struct, kw_only=True):
    """Everything a view may show of one session.

    Attributes:
        started_s: Unix time of its latest start in this process; 0.0 before.
        before_s: Seconds it ran in earlier starts.
        seen_s: Unix time of its first event: whoever follows another process knows of nothing before.
        ended_s: Unix time it ended; 0.0 before.
        cool_until_s: Unix time the resource's cool-down ends; 0.0 for none.
        cools: The latest cool-down of each limit group, by its name, "" for that of the resource; without lifted ones.
        passing: Those of the notes that hold until it begins or ends at the latest.
        adjourned: Until when nothing starts by the clock on the wall, and why; None for nothing of the kind.
        last_error: Of the latest attempt that failed and is followed by another.
        recent: The last items that ended, newest last.
        failures: The last items that ended otherwise than completed, by key, newest last.
        moved: Of each group, by number, which move of all groups was its latest; in the order of these moves.
        moves: How often a group began, changed its status, ended or was recalled.
        pace: How the counts grew.
        story: The latest events that tell something, each with its number; all but starts and completed items.
        breaker_moves: The latest times that the breaker changed its state, newest last.
        breaker_moved: How often it did; ``told``: how many events the story has had.
        started_here: Attempts since it was made; of its items ``ended_here``, ``failed_here`` did not complete.
        ended_before: Items that were tried in the seconds it ran elsewhere, where these are counted.
        left: Items that the session ended before; they are not recorded.
        depleted: How often the limits were used up, once a window at most; ``emptied``: how often nothing waited any
            more; ``idled``: how often nothing ran either; ``dropped``: how many listeners raised and were dropped.
        spent_usd: In this run so far; None for work that costs nothing.
        facts: What its work told of itself last.
    """

    name: str = ""
    state: State = "planned"
    reason: str = ""
    counts: Counts = msgspec.field(default_factory=Counts)
    started_s: float = 0.0
    ended_s: float = 0.0
    groups: dict[int, Group] = msgspec.field(default_factory=dict)
    moved: dict[int, int] = msgspec.field(default_factory=dict)
    moves: int = 0
    breaker: BreakerSnapshot = msgspec.field(default_factory=BreakerSnapshot)
    cool_until_s: float = 0.0
    cools: dict[str, events.CooledDown] = msgspec.field(default_factory=dict)
    adjourned: events.Adjourned | None = None
    last_error: str = ""
    notes: list[str] = msgspec.field(default_factory=list)
    passing: set[str] = msgspec.field(default_factory=set)
    recent: deque[events.ItemEnded] = msgspec.field(default_factory=lambda: deque(maxlen=RECENT_ITEMS))
    failures: dict[str, events.ItemEnded] = msgspec.field(default_factory=dict)
    before_s: float = 0.0
    seen_s: float = 0.0
    pace: Pace = msgspec.field(default_factory=Pace)
    breaker_moves: deque[events.BreakerMoved] = msgspec.field(default_factory=lambda: deque(maxlen=BREAKER_MOVES))
    breaker_moved: int = 0
    story: deque[tuple[int, events.Event]] = msgspec.field(default_factory=lambda: deque(maxlen=STORY))
    told: int = 0
    started_here: int = 0
    ended_here: int = 0
    failed_here: int = 0
    ended_before: int = 0
    left: int = 0
    depleted: int = 0
    emptied: int = 0
    idled: int = 0
    dropped: int = 0
    spent_usd: float | None = None
    budget_usd: float | None = None
    facts: list[Fact] = msgspec.field(default_factory=list)
    _marks: deque[tuple[float, int]] = msgspec.field(default_factory=lambda: deque(maxlen=RATE_SPAN_S))
    _next_mark_s: float = 0.0
    _before: Mark = Mark(0.0, 0, 0, 0)  # of earlier processes
    _breakers: dict[str, BreakerSnapshot] = msgspec.field(default_factory=dict)  # by limit group: those with failures

    def apply(self, event: events.Event) -> None:
        """Fold one event in."""
        FOLD[type(event)](self, event)

    def cooling(self, now_s: float) -> events.CooledDown | None:
        """Return the cool-down that is in force: that of the resource, else the longest of a limit group."""
        left = [event for event in self.cools.values() if event.until_s > now_s]
        return max(left, key=lambda event: (not event.limit_group, event.until_s), default=None)

    def rate_per_s(self, now_s: float) -> float:
        """Return items ended per second over the last seconds that it saw, at most `RATE_SPAN_S` of them."""
        span_s = min(float(RATE_SPAN_S), max(now_s - max(self.started_s, self.seen_s), 1.0))
        lately = [before for at_s, before in self._marks if at_s >= now_s - span_s]
        return (self.ended_here - lately[0]) / span_s if lately else 0.0

    def average_per_s(self, now_s: float) -> float:
        """Return items ended per second, over all that it ran; 0.0 where nobody knows how long that was."""
        elapsed_s = self.elapsed_s(now_s)
        return (self.ended_before + self.ended_here) / elapsed_s if elapsed_s > 0 else 0.0

    def elapsed_s(self, now_s: float) -> float:
        """Return seconds it ran in this process, all its starts together."""
        return self.before_s + self.this_start_s(now_s)

    def this_start_s(self, now_s: float) -> float:
        """Return seconds since the latest start, up to the end."""
        return max(0.0, (self.ended_s or now_s) - self.started_s) if self.started_s else 0.0

    def _tell(self, event: events.Event) -> None:
        with _telling:  # the watchdog notes what blocks the engine's thread while it does
            self.told += 1
            self.story.append((self.told, event))

    def _planned(self, event: events.Planned) -> None:
        before = self.story[-1][1] if self.story else None
        if not isinstance(before, events.Planned) or before.counts != event.counts:  # once when made, once when begun
            self._tell(event)
        self.name, self.seen_s = event.name, self.seen_s or event.at_s
        self.counts = msgspec.structs.replace(event.counts)

    def _drawn(self, event: events.Drawn) -> None:
        self.counts.pending += event.items
        for status, items in event.was.items():
            self.counts.add(status, -items)

    def _exhausted(self, event: events.Exhausted) -> None:
        self.counts.total = event.total
        for status, items in event.unlisted.items():
            self.counts.add(status, -items)

    def _depleted(self, event: events.Depleted) -> None:
        self.depleted += 1

    def _items_added(self, event: events.ItemsAdded) -> None:
        self._tell(event)
        if self.counts.total is not None:
            self.counts.total += event.items + event.skipped
        self.counts.pending += event.items
        self.counts.skipped += event.skipped

    def _state_changed(self, event: events.StateChanged) -> None:
        self._tell(event)
        if event.state == "running" and self.state not in ("running", "paused"):
            self.before_s = self.elapsed_s(event.at_s)
            self.started_s, self.ended_s, self.left = event.at_s, 0.0, 0
            self._marks.clear()
            self._mark(event.at_s)
            self._breakers.clear()  # each start has new ones
            self.breaker = BreakerSnapshot()
            self._pass()
        if event.state in events.ENDED:
            self.ended_s = event.at_s
            self._mark(event.at_s)
            self._pass()
        self.state, self.reason = event.state, event.reason

    def _group_started(self, event: events.GroupStarted) -> None:
        if event.status == "running":
            self._tell(event)
        self.groups[event.group] = Group(
            number=event.group,
            name=printable(event.name),
            status=event.status,
            items=event.items,
            started_s=event.at_s if event.status == "running" else 0.0,
            extra=event.extra,
            lasts=event.lasts,
        )
        self._move(event.group)

    def _group_changed(self, event: events.GroupChanged) -> None:
        group = self.groups[event.group]
        if event.status != group.status or event.error:
            self._tell(event)
        group.status, group.error = event.status, event.error or group.error
        group.extra = group.extra | event.extra
        self._move(event.group)

    def _group_ended(self, event: events.GroupEnded) -> None:
        self._tell(event)
        group = self.groups[event.group]
        group.status, group.ended_s = event.status, event.at_s
        self._move(event.group)

    def _group_recalled(self, event: events.GroupRecalled) -> None:
        self.groups[event.group] = Group(
            number=event.group,
            name=printable(event.name),
            status=event.status or ("failed" if event.failed == event.items else "completed"),
            items=event.items,
            done=event.items if event.done is None else event.done,
            failed=event.failed,
            started_s=event.started_s,
            ended_s=event.ended_s,
            error=event.error,
            extra=event.extra,
            lasts=event.lasts,
        )
        self._move(event.group)

    def _move(self, group: int) -> None:
        self.moves += 1
        self.moved.pop(group, None)  # else it would keep its place in the order
        self.moved[group] = self.moves

    def _pace_recalled(self, event: events.PaceRecalled) -> None:
        self._before = self.pace.put_before(event.marks)

    def _attempt_started(self, event: events.AttemptStarted) -> None:
        self.started_here += 1
        counts = self.counts
        counts.running += 1
        counts.pending -= 1
        if not counts.pending and counts.total is not None:
            self.emptied += 1

    def _attempt_failed(self, event: events.AttemptFailed) -> None:
        self._tell(event)
        self.last_error = event.error
        if event.at_s >= self._next_mark_s:
            self._mark(event.at_s)
        self.counts.running -= 1
        self.counts.pending += 1

    def _item_ended(self, event: events.ItemEnded) -> None:
        if event.at_s >= self._next_mark_s:
            self._mark(event.at_s)
        self.ended_here += 1
        counts = self.counts
        counts.running -= 1
        if event.status == "completed":
            counts.completed += 1
        else:
            counts.add(event.status)
        if not counts.running and not counts.pending and counts.total is not None:
            self.idled += 1
        self.recent.append(event)
        if self.failures or event.status != "completed":
            self._note_failure(event)
        if event.group:
            self._count_in_group(event)

    def _counted(self, event: events.Counted) -> None:
        before, self.counts = self.counts, msgspec.structs.replace(event.counts)
        self.ended_here += max(0, self.counts.tried - before.tried)
        self.failed_here += max(0, self.counts.failed + self.counts.timeout - before.failed - before.timeout)
        if event.at_s >= self._next_mark_s:
            self._mark(event.at_s)

    def _mark(self, at_s: float) -> None:
        """Once a second: where the counts stand."""
        self._next_mark_s = int(at_s) + 1
        self._marks.append((at_s, self.ended_here))
        before = self._before
        self.pace.add(
            Mark(
                at_s,
                before.started + self.started_here,
                before.ended + self.ended_here,
                before.failed + self.failed_here,
            )
        )

    def _count_in_group(self, event: events.ItemEnded) -> None:
        group = self.groups.get(event.group)
        if group is None:
            return
        group.done += 1
        if event.status != "completed":
            group.failed += 1
            group.error = event.error or group.error
        if group.ended_s:  # its end was told first
            self._move(event.group)

    def _note_failure(self, event: events.ItemEnded) -> None:
        """Keep the latest failures; an item that completes after all is none any more."""
        self.failures.pop(event.key, None)
        if event.status != "completed":
            self.failed_here += 1
            self._tell(event)
            self.failures[event.key] = event
            if len(self.failures) > RECENT_ITEMS:
                del self.failures[next(iter(self.failures))]

    def _items_left(self, event: events.ItemsLeft) -> None:
        self._tell(event)
        self.counts.pending -= event.items
        self.left += event.items
        self.counts.add(event.status, event.items)

    def _breaker_moved(self, event: events.BreakerMoved) -> None:
        before = self._breakers.pop(event.limit_group, None)
        if event.state != ("closed" if before is None else before.state):
            self.breaker_moved += 1
            self.breaker_moves.append(event)
            self._tell(event)
        if event.state != "closed" or event.failures or event.openings:
            self._breakers[event.limit_group] = BreakerSnapshot(
                state=event.state,
                failures=event.failures,
                openings=event.openings,
                probe_at_s=event.probe_at_s,
                limit_group=event.limit_group,
            )
        self.breaker = max(self._breakers.values(), key=_badness, default=BreakerSnapshot())

    def _cooled_down(self, event: events.CooledDown) -> None:
        self._tell(event)
        self.cools.pop(event.limit_group, None)
        if event.until_s:
            self.cools[event.limit_group] = event
        if not event.limit_group:
            self.cool_until_s = max(self.cool_until_s, event.until_s) if event.until_s else 0.0

    def _adjourned(self, event: events.Adjourned) -> None:
        self.adjourned = event if event.until_s else None
        self._tell(event)

    def _spent(self, event: events.Spent) -> None:
        self.spent_usd, self.budget_usd = event.usd, event.budget_usd

    def _noted(self, event: events.Noted) -> None:
        if event.kind == "over":
            self.notes.remove(event.text)
            self.passing.discard(event.text)
            return
        self._tell(event)
        self.notes.append(event.text)
        if event.kind == "passing":
            self.passing.add(event.text)
        self.dropped += event.kind == "listener"

    def _pass(self) -> None:
        if self.passing:
            self.notes = [note for note in self.notes if note not in self.passing]
            self.passing.clear()


def _badness(breaker: BreakerSnapshot) -> tuple[int, int, int]:
    return _WORSE.index(breaker.state), breaker.openings, breaker.failures


_WORSE: tuple[BreakerState, ...] = ("closed", "half_open", "open")


FOLD: dict[type, Callable[[Snapshot, Any], None]] = {
    events.Planned: Snapshot._planned,
    events.Drawn: Snapshot._drawn,
    events.Exhausted: Snapshot._exhausted,
    events.ItemsAdded: Snapshot._items_added,
    events.Depleted: Snapshot._depleted,
    events.Tallied: Snapshot._tell,
    events.StateChanged: Snapshot._state_changed,
    events.GroupStarted: Snapshot._group_started,
    events.GroupChanged: Snapshot._group_changed,
    events.GroupEnded: Snapshot._group_ended,
    events.GroupRecalled: Snapshot._group_recalled,
    events.PaceRecalled: Snapshot._pace_recalled,
    events.AttemptStarted: Snapshot._attempt_started,
    events.AttemptFailed: Snapshot._attempt_failed,
    events.ItemEnded: Snapshot._item_ended,
    events.Counted: Snapshot._counted,
    events.ItemsLeft: Snapshot._items_left,
    events.BreakerMoved: Snapshot._breaker_moved,
    events.CooledDown: Snapshot._cooled_down,
    events.Adjourned: Snapshot._adjourned,
    events.Spent: Snapshot._spent,
    events.Commanded: Snapshot._tell,
    events.Noted: Snapshot._noted,
}
