"""Event types: everything that happens in a session, as frozen data.

One set of types is the live feed, what listeners get, and what the
TypeScript types are generated from.  `snapshot.Snapshot` is their fold.
"""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["planned", "running", "paused", "completed", "failed", "cancelled", "rolled_back", "interrupted"]
NoteKind = Literal["", "listener", "passing", "over"]
Status = Literal["pending", "running", "completed", "failed", "timeout", "cancelled", "skipped"]
BreakerState = Literal["closed", "open", "half_open"]

# A workload's own columns of a group, by their titles.  A text such as 2026-12-02T08:10:00Z is a deadline, of which the
# panel shows what is left.
Extra = dict[str, str | int | float]

ENDED: frozenset[State] = frozenset({"completed", "failed", "cancelled", "rolled_back", "interrupted"})


class Counts(msgspec.Struct, kw_only=True):
    """How many items stand where.

    Attributes:
        total: Items of the plan; None while a generator is not exhausted.
    """

    pending: int = 0
    running: int = 0
    completed: int = 0
    failed: int = 0
    timeout: int = 0
    cancelled: int = 0
    skipped: int = 0
    total: int | None = 0

    @property
    def ended(self) -> int:
        """Items that have an outcome."""
        return self.completed + self.failed + self.timeout + self.cancelled + self.skipped

    @property
    def tried(self) -> int:
        """Items that were tried to the end."""
        return self.completed + self.failed + self.timeout

    def add(self, status: Status, items: int = 1) -> None:
        """Count ``items`` more of a status."""
        setattr(self, status, getattr(self, status) + items)


MARKS = 240  # in a progress curve, however long the session takes


class Mark(msgspec.Struct, frozen=True, gc=False):
    """What had happened by a moment, counted from the beginning.

    Attributes:
        at_s: Unix time.
        started: Attempts.
        ended: Items that had an outcome; ``failed`` of them did not complete.
    """

    at_s: float
    started: int
    ended: int
    failed: int


class Event(msgspec.Struct, frozen=True, tag_field="type", gc=False):
    """Base of all events.

    Attributes:
        at_s: Unix time, seconds.
    """

    at_s: float


class Planned(Event, frozen=True, gc=False, tag="planned"):
    """The plan was made, or made anew by `retry_failed`; ``counts`` is where it starts from."""

    name: str
    counts: Counts


class Drawn(Event, frozen=True, gc=False, tag="drawn"):
    """Items that are to run came out of a generator.

    Attributes:
        was: How many of them were recorded, and counted so far, by status.
    """

    items: int = 1
    was: dict[Status, int] = msgspec.field(default_factory=dict)


class Exhausted(Event, frozen=True, gc=False, tag="exhausted"):
    """The generator gave its last item: the total is known.

    Attributes:
        unlisted: Recorded items that it no longer gave, by status; they are counted no more.
    """

    total: int
    unlisted: dict[Status, int] = msgspec.field(default_factory=dict)


class StateChanged(Event, frozen=True, gc=False, tag="state_changed"):
    """The session entered ``state``."""

    state: State
    reason: str


class GroupStarted(Event, frozen=True, gc=False, tag="group_started"):
    """A batch, a remote job or a partition began; or it is there, and has yet to begin.

    Attributes:
        extra: What the workload says of it.
        lasts: Whether it goes on when the session ends, as a remote job does.
        status: Another than "running" for one that does not run now.
    """

    group: int
    name: str
    items: int
    extra: Extra = msgspec.field(default_factory=dict)
    lasts: bool = False
    status: Status = "running"


class GroupChanged(Event, frozen=True, gc=False, tag="group_changed"):
    """Something became known of a group that goes on.

    Attributes:
        extra: What changed of what the workload says of it.
    """

    group: int
    status: Status
    extra: Extra
    error: str = ""


class GroupEnded(Event, frozen=True, gc=False, tag="group_ended"):
    """All items of the group have an outcome."""

    group: int
    status: Status


class GroupRecalled(Event, frozen=True, gc=False, tag="group_recalled"):
    """A group of another process, as the journal tells it.

    Attributes:
        items: Those that are recorded, or all of them where ``done`` says how many have ended; ``failed`` of these did
            not complete.
        status: None for what follows from that.
        extra: The workload's own columns, by title. ``lasts``: whether it goes on when the session ends.
    """

    group: int
    name: str
    items: int
    failed: int
    started_s: float
    ended_s: float
    error: str
    status: Status | None = None
    done: int | None = None
    extra: Extra = {}
    lasts: bool = False


class PaceRecalled(Event, frozen=True, gc=False, tag="pace_recalled"):
    """How items ended in earlier processes, as the journal tells it; nothing when there were none."""

    marks: list[Mark]


class AttemptStarted(Event, frozen=True, gc=False, tag="attempt_started"):
    """An item is being tried."""

    key: str
    group: int
    attempt: int


class AttemptFailed(Event, frozen=True, gc=False, tag="attempt_failed"):
    """An attempt failed and the item waits for its next one, ``wait_s`` from now at the earliest."""

    key: str
    group: int
    attempt: int
    error: str
    wait_s: float


class ItemEnded(Event, frozen=True, gc=False, tag="item_ended"):
    """An item's outcome is on disk.

    Attributes:
        kind: One word for how it failed, such as "permanent" or "timeout"; "" when it did not.
    """

    key: str
    group: int
    status: Status
    attempts: int
    seconds: float
    error: str
    kind: str = ""


class Counted(Event, frozen=True, gc=False, tag="counted"):
    """What another process has on record by now, of a session that is followed; no events of its items come."""

    counts: Counts


class ItemsLeft(Event, frozen=True, gc=False, tag="items_left"):
    """The session ended before ``items`` pending items: they are ``status``, and run again on a resume."""

    items: int
    status: Status


class Depleted(Event, frozen=True, gc=False, tag="depleted"):
    """The limits are used up: the next attempt waits for them."""


class Tallied(Event, frozen=True, gc=False, tag="tallied"):
    """How often what happened, by the names of `ipybatch.events.NAMES`."""

    times: dict[str, int]


class ItemsAdded(Event, frozen=True, gc=False, tag="items_added"):
    """The work brought further items.

    Attributes:
        items: How many are to run.
        skipped: How many need not.
    """

    items: int
    skipped: int = 0


class BreakerMoved(Event, frozen=True, gc=False, tag="breaker_moved"):
    """The circuit breaker changed its state or its count of failures in a row.

    Attributes:
        probe_at_s: Unix time of the next probe; 0.0 unless open.
        limit_group: Whose breaker it is, with ``per=``; "" for that of all.
    """

    state: BreakerState
    failures: int
    openings: int
    probe_at_s: float
    limit_group: str = ""


class CooledDown(Event, frozen=True, gc=False, tag="cooled_down"):
    """The service asked us to slow down: nothing starts before ``until_s`` (Unix time).

    With an ``until_s`` of 0.0 the one before is over: somebody lifted it.

    Attributes:
        limit_group: What alone cools down; "" for all.
        resource: What `ipybatch.lift` knows it by.
    """

    until_s: float
    reason: str
    limit_group: str = ""
    resource: str = ""


class Adjourned(Event, frozen=True, gc=False, tag="adjourned"):
    """Nothing starts before ``until_s`` (Unix time): the session's start is to come, or its working hours are over.

    With an ``until_s`` of 0.0 the one before holds no more: the start was changed.
    """

    until_s: float
    reason: str


class Spent(Event, frozen=True, gc=False, tag="spent"):
    """Something was paid.

    Attributes:
        usd: All of it so far, in this run.
        budget_usd: None for no budget.
    """

    usd: float
    budget_usd: float | None = None


class Commanded(Event, frozen=True, gc=False, tag="commanded"):
    """Somebody pressed a button or called a method.

    Attributes:
        by: In which other process, such as "process 42 on host"; "" for this one.
    """

    command: str
    by: str = ""


class Noted(Event, frozen=True, gc=False, tag="noted"):
    """Something the user should know.

    Attributes:
        kind: "listener" for a listener that raised and was dropped, "passing" for what holds until the session begins
            or ends at the latest, "over" for what was noted and holds no more; "" for anything else.
    """

    text: str
    kind: NoteKind = ""


AnyEvent = (
    Planned
    | Drawn
    | Exhausted
    | StateChanged
    | GroupStarted
    | GroupChanged
    | GroupEnded
    | GroupRecalled
    | PaceRecalled
    | AttemptStarted
    | AttemptFailed
    | ItemEnded
    | Counted
    | ItemsLeft
    | BreakerMoved
    | CooledDown
    | Adjourned
    | ItemsAdded
    | Depleted
    | Tallied
    | Spent
    | Commanded
    | Noted
)
