"""Wire: what the two halves of a view say to each other.

Rule: `widgets/src/schema.ts` is generated from these types (``make schema``);
names are the same on both sides, snake_case, with no mapping layer.

    kernel  -> browser   Update (the whole state, or what changed), Ack, Rows
    browser -> kernel    Hello, Bye, Resync, Command

What goes to the browser is JSON in the one buffer of a custom message.
Updates carry a sequence number; a browser that misses one asks for a Resync
and gets an update with ``whole`` set.  A command carries an id that says all
of it, and is acted on once however often and by whatever road it arrives.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ipybatch.engine.data.events import BreakerState, Counts, State, Status
from ipybatch.engine.data.progress_curve import Mark
from ipybatch.engine.feed.event_text import LogLine
from ipybatch.engine.feed.snapshot import Group
from ipybatch.engine.store.rows import RecordedItem

CommandName = Literal["pause", "resume", "cancel", "retry_failed", "adjust", "items"]
ViewName = Literal["panel", "progress", "table", "breaker", "timeline", "log"]


class Item(msgspec.Struct, kw_only=True, frozen=True):
    """An item that ended."""

    key: str
    group: int
    status: Status
    attempts: int
    seconds: float
    error: str


class BreakerMove(msgspec.Struct, kw_only=True, frozen=True):
    """A time that the breaker changed its state."""

    at_s: float
    state: BreakerState
    failures: int
    openings: int


class BreakerFact(msgspec.Struct, kw_only=True):
    """The breaker, with its policy beside it; ``threshold`` 0 means there is none.

    Attributes:
        probe_in_s: Seconds to the next probe; 0.0 unless open.
    """

    state: BreakerState
    failures: int
    threshold: int
    openings: int
    give_up_after: int
    probe_in_s: float


class WindowFact(msgspec.Struct, kw_only=True):
    """One sliding window: ``used`` of ``limit`` in the last ``per_s`` seconds.

    Attributes:
        most: What the session was made with: the form goes no further.
    """

    used: float
    limit: float
    most: float
    per_s: float
    unit: str


class LaneFact(msgspec.Struct, kw_only=True):
    """Items that have limits of their own, such as those of one region.

    Attributes:
        waiting: Items that wait in it.
        windows: Of each of its rates.
        cool_s: Seconds of its cool-down that are left.
    """

    name: str
    waiting: int
    windows: list[WindowFact]
    cool_s: float


class Head(msgspec.Struct, kw_only=True):
    """Everything above the table.

    Attributes:
        at_s: Unix time of the kernel, when it was sent.
        waiting: Why nothing starts just now, in words; "" when something may.
        started_s: Unix time of the latest start; 0.0 before.
        elapsed_s: Seconds since the start, up to the end.
        eta_low_s: Seconds left, at best and (``eta_high_s``) at worst; None when unknown or ended.
        rate_per_s: Items ended per second lately, on average when it has ended.
        allowed_per_s: What the limits allow; None for no rate.
        windows: Of each rate, also while nothing runs.
        lanes: The busiest of those that have limits of their own; ``more_lanes`` is how many there are besides.
        queued: How many items of high, medium and low priority have yet to start; empty where all have the same.
        concurrency: Attempts at the same time; ``most_concurrency`` is what the session was made with.
        cool_down_s: Seconds of cool-down left.
        spent_usd: None for work that costs nothing.
        recorded: Outcomes in the journal, of earlier runs too.
        can: The commands that make sense now.
    """

    at_s: float
    name: str
    state: State
    reason: str
    waiting: str
    counts: Counts
    started_s: float
    elapsed_s: float
    eta_low_s: float | None
    eta_high_s: float | None
    rate_per_s: float
    allowed_per_s: float | None
    breaker: BreakerFact
    windows: list[WindowFact]
    lanes: list[LaneFact]
    more_lanes: int
    queued: list[int]
    concurrency: int
    most_concurrency: int
    cool_down_s: float
    spent_usd: float | None
    budget_usd: float | None
    recorded: int
    notes: list[str]
    can: list[CommandName]


class Update(msgspec.Struct, kw_only=True, tag_field="kind", tag="update"):
    """The head, and what changed since the last update (everything when ``whole``).

    A view is sent the parts that it shows; the others are empty.

    Attributes:
        seq: Counts updates from 1, for each view.
        pages: Of a whole update, the views that are known to be open: whose Hello it answers.
        group_word: What a row is called: "Batch", "Job", "Partition".
        columns: Titles of the workload's own columns, in order.
        groups: Changed rows, by number.
        items: The latest items that ended, newest last: shown when there are no groups.
        failures: The latest items that did not complete, newest last.
        pace_at: How many of the marks of `Mark` stand; ``pace`` comes after them.
        moves: New moves of the breaker, newest last.
        log: New lines, newest last.
    """

    seq: int
    whole: bool
    pages: list[str]
    head: Head
    group_word: str
    columns: list[str]
    groups: list[Group]
    items: list[Item]
    failures: list[Item]
    pace_at: int
    pace: list[Mark]
    moves: list[BreakerMove]
    log: list[LogLine]


class Ack(msgspec.Struct, kw_only=True, tag_field="kind", tag="ack"):
    """A command was acted on; ``text`` says how, in words for the panel."""

    id: str
    ok: bool
    text: str


class Rows(msgspec.Struct, kw_only=True, tag_field="kind", tag="rows"):
    """The answer to the command "items": some of a group's items, those that did not complete first.

    Attributes:
        total: How many of the group are recorded.
    """

    id: str
    group: int
    offset: int
    total: int
    items: list[RecordedItem]


class Hello(msgspec.Struct, kw_only=True, tag_field="kind", tag="hello"):
    """A view was opened, or is in sight again.

    Attributes:
        view: A random name of the view: a widget may be displayed many times.
    """

    view: str


class Bye(msgspec.Struct, kw_only=True, tag_field="kind", tag="bye"):
    """A view was closed, or its page is out of sight."""

    view: str


class Resync(msgspec.Struct, kw_only=True, tag_field="kind", tag="resync"):
    """A view missed an update and wants the whole state."""

    view: str


class Command(msgspec.Struct, kw_only=True, tag_field="kind", tag="command"):
    """A button was pressed, or a question asked.

    Attributes:
        id: ``<panel id>/<random>/<name>``, and the arguments, each after a slash: ``items/<group>/<offset>``,
            ``adjust/<concurrency>/<limit of the first rate>/...``.
    """

    id: str
    name: CommandName


FromBrowser = Hello | Bye | Resync | Command
FromKernel = Update | Ack | Rows
