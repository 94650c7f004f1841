"""Wire: what the panel's two halves say to each other.

Rule: `widgets/src/schema.ts` is generated from these types (``make schema``);
names are the same on both sides, snake_case, with no mapping layer.

    kernel  -> browser   Update (the whole state, or what changed), Ack
    browser -> kernel    Hello, Bye, Resync, Command

Updates carry a sequence number; a browser that misses one asks for a Resync
and gets an update with ``whole`` set.  A command carries an id that contains
its name, and is acted on once however often and by whatever road it arrives.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ipybatch.engine.events import BreakerState, Counts, State, Status
from ipybatch.engine.snapshot import Group

CommandName = Literal["pause", "resume", "cancel", "retry_failed"]


class Item(msgspec.Struct, kw_only=True, frozen=True):
    """An item that ended."""

    key: str
    group: int
    status: Status
    attempts: int
    seconds: float
    error: str


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
    """One sliding window: ``used`` of ``limit`` in the last ``per_s`` seconds."""

    used: float
    limit: float
    per_s: float
    unit: str


class Head(msgspec.Struct, kw_only=True):
    """Everything above the table.

    Attributes:
        waiting: Why nothing starts just now, in words; "" when something may.
        elapsed_s: Seconds since the start, up to the end.
        eta_low_s: Seconds left, at best and (``eta_high_s``) at worst; None when unknown or ended.
        rate_per_s: Items ended per second lately, on average when it has ended.
        allowed_per_s: What the limits allow; None for no rate.
        cool_down_s: Seconds of cool-down left.
        spent_usd: None for work that costs nothing.
        recorded: Outcomes in the journal, of earlier runs too.
        can: The commands that make sense now.
    """

    name: str
    state: State
    reason: str
    waiting: str
    counts: Counts
    elapsed_s: float
    eta_low_s: float | None
    eta_high_s: float | None
    rate_per_s: float
    allowed_per_s: float | None
    breaker: BreakerFact
    windows: list[WindowFact]
    cool_down_s: float
    spent_usd: float | None
    budget_usd: float | None
    recorded: int
    notes: list[str]
    can: list[CommandName]


class Update(msgspec.Struct, kw_only=True, tag_field="kind", tag="update"):
    """The head, and the rows that changed since the last update (all of them when ``whole``).

    Attributes:
        seq: Counts updates from 1, for each panel.
        group_word: What a row is called: "Batch", "Job", "Partition".
        groups: Changed rows, by number.
        items: The latest items that ended, newest last: shown when there are no groups.
        failures: The latest items that did not complete, newest last.
    """

    seq: int
    whole: bool
    head: Head
    group_word: str
    groups: list[Group]
    items: list[Item]
    failures: list[Item]


class Ack(msgspec.Struct, kw_only=True, tag_field="kind", tag="ack"):
    """A command was acted on; ``text`` says how, in words for the panel."""

    id: str
    ok: bool
    text: str


class Hello(msgspec.Struct, kw_only=True, tag_field="kind", tag="hello"):
    """A view was opened."""


class Bye(msgspec.Struct, kw_only=True, tag_field="kind", tag="bye"):
    """A view was closed."""


class Resync(msgspec.Struct, kw_only=True, tag_field="kind", tag="resync"):
    """A view missed an update and wants the whole state."""


class Command(msgspec.Struct, kw_only=True, tag_field="kind", tag="command"):
    """A button was pressed.

    Attributes:
        id: ``<model id>/<random>/<name>``: unique, and enough to act on.
    """

    id: str
    name: CommandName


FromBrowser = Hello | Bye | Resync | Command
FromKernel = Update | Ack
