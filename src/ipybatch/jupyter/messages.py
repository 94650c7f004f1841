"""Messages between the two halves of a view, and how the kernel makes them from a session.

Rule: `widgets/src/schema.ts` is generated from these types (``make schema``); names are the same on both sides,
snake_case, with no mapping layer.

    kernel  -> browser   Update (the whole state, or the changes), Beat, Ack, Rows, Errors
    browser -> kernel    Hello, Here, Bye, Resync, Command

A message to the browser is JSON in the one buffer of a custom message.  Updates carry a sequence number; a browser
that misses one sends Resync and gets an update with ``whole`` set.  A command's id holds all of the command, and it
is executed once, however often and on whichever channel it arrives.  All types are in this one file: it is what the
two sides agree on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import islice, takewhile
from typing import Literal, cast

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.error_groups import FailureList
from ipybatch.engine.data.events import BreakerState, Counts, Mark, State, Status
from ipybatch.engine.data.fact import Fact
from ipybatch.engine.data.masking import mask
from ipybatch.engine.data.outcome import RecordedItem
from ipybatch.engine.feed import event_text
from ipybatch.engine.feed.event_text import LogLine
from ipybatch.engine.feed.live_record import LIFTED_S
from ipybatch.engine.feed.session_view import LiveStatus, SessionView
from ipybatch.engine.feed.snapshot import Group, Snapshot

CommandName = Literal[
    "pause", "resume", "cancel", "lift", "start_now", "retry_failed", "adjust", "items", "errors", "open"
]
ViewName = Literal["panel", "progress", "table", "breaker", "timeline", "log"]


class Item(msgspec.Struct, kw_only=True, frozen=True):
    """An ended item."""

    key: str
    group: int
    status: Status
    attempts: int
    seconds: float
    error: str


class BreakerMove(msgspec.Struct, kw_only=True, frozen=True):
    """A change of the breaker's state; with limit groups, of the breaker of one of them."""

    at_s: float
    state: BreakerState
    failures: int
    openings: int
    limit_group: str


class BreakerFact(msgspec.Struct, kw_only=True):
    """The breaker, with its policy beside it; ``threshold`` 0 means there is none.

    Attributes:
        probe_in_s: Seconds to the next probe; 0.0 unless open.
        limit_group: Whose it is: the limit group that is worst off; "" for that of all, and while all are well.
    """

    state: BreakerState
    failures: int
    threshold: int
    openings: int
    give_up_after: int
    probe_in_s: float
    limit_group: str


class WindowFact(msgspec.Struct, kw_only=True):
    """One sliding window: ``used`` of ``limit`` in the last ``per_s`` seconds.

    Attributes:
        most: The limit that the session was made with, which the form does not exceed.
    """

    used: float
    limit: float
    most: float
    per_s: float
    unit: str


class LimitGroupFact(msgspec.Struct, kw_only=True):
    """Items with limits of their own, such as those of one region.

    Attributes:
        waiting: Number of waiting items.
        windows: One for each of its rates.
        cool_s: Seconds left of its cool-down.
    """

    name: str
    waiting: int
    windows: list[WindowFact]
    cool_s: float


class Head(msgspec.Struct, kw_only=True):
    """Everything above the table.

    Attributes:
        at_s: Unix time of the kernel when the update was sent.
        waiting: Why nothing can start now, in words; "" when something can.  ``outside_hours``: it is for its hours.
        started_s: Unix time of the latest start; 0.0 before.
        elapsed_s: Seconds since the start, up to the end.
        eta_low_s: Seconds left, at best and (``eta_high_s``) at worst; None when unknown or ended.
        rate_per_s: Items ended per second, in the last seconds; the average when the session has ended.
        allowed_per_s: The rate that the limits allow; None for no rate.
        windows: One for each rate, also while nothing runs.
        limit_groups: The busiest limit groups; ``more_limit_groups`` is the number of others.
        queued: Numbers of items of high, medium and low priority that have not started; empty where all have the same.
        concurrency: Maximum of concurrent attempts; ``most_concurrency`` is that which the session was made with.
        cool_down_s: Seconds of cool-down left; ``cool_why`` says why, also that of a limit group alone.
        sharing: Who else uses the resource: sessions of other processes; ``running_elsewhere``: attempts of theirs.
        spent_usd: None for work that costs nothing.
        recorded: Outcomes in the journal, including those of earlier runs.
        facts: What the work tells of itself.
        where: Where it runs, such as "in process 42 on host", when that is another process; else "".
        untold: Whether its limits and breaker are those of another process, and not on record.
        can: The commands that are possible now.
        reopen: The expression that opens it again in another kernel, as it stands on record; "" when nothing does.
    """

    at_s: float
    name: str
    state: State
    reason: str
    waiting: str
    outside_hours: bool
    counts: Counts
    started_s: float
    elapsed_s: float
    eta_low_s: float | None
    eta_high_s: float | None
    rate_per_s: float
    allowed_per_s: float | None
    breaker: BreakerFact
    windows: list[WindowFact]
    limit_groups: list[LimitGroupFact]
    more_limit_groups: int
    queued: list[int]
    concurrency: int
    most_concurrency: int
    cool_down_s: float
    cool_why: str
    sharing: list[str]
    running_elsewhere: int
    spent_usd: float | None
    budget_usd: float | None
    recorded: int
    facts: list[Fact]
    notes: list[str]
    where: str
    untold: bool
    can: list[CommandName]
    reopen: str


class Update(msgspec.Struct, kw_only=True, tag_field="kind", tag="update"):
    """The head, and the changes since the last update (everything when ``whole``).

    A view is sent the parts that it shows; the others are empty.

    Attributes:
        seq: Counts updates from 1, for each view.
        pages: The views that it answers: a whole update all that are open, any other those that said Here.
        always: Those of ``pages`` that are heard while a cell runs, too.
        group_word: The name of a row: "Batch", "Job", "Partition".
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
    always: list[str]
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


class Beat(msgspec.Struct, kw_only=True, tag_field="kind", tag="beat"):
    """The kernel is there: once a second while the engine cannot be asked for a head, and where there is no news.

    Attributes:
        at_s: Unix time of the kernel.
        pages: The views that said Here.
        always: Those of ``pages`` that are heard while a cell runs, too.
    """

    at_s: float
    pages: list[str]
    always: list[str]


class Ack(msgspec.Struct, kw_only=True, tag_field="kind", tag="ack"):
    """The answer to a command; ``text`` is its result, in words for the panel.

    Attributes:
        done: False when the engine was only asked; a second answer with the same id follows.
    """

    id: str
    ok: bool
    done: bool
    text: str


class Rows(msgspec.Struct, kw_only=True, tag_field="kind", tag="rows"):
    """The answer to the command "items": some of a group's items, failed ones first.

    Attributes:
        total: Number of recorded items of the group.
    """

    id: str
    group: int
    offset: int
    total: int
    items: list[RecordedItem]


class ErrorCount(msgspec.Struct, kw_only=True, frozen=True):
    """A message, and how many items failed with it."""

    message: str
    status: Status
    scope: str
    count: int


class Errors(msgspec.Struct, kw_only=True, tag_field="kind", tag="errors"):
    """The answer to the command "errors": what failed, by message, and some of these items, in the groups' order.

    Attributes:
        version: Tells this list from a later one: pages of one list fit together.
        total: Number of items that match; ``of`` is the number of all that failed.
        groups: The most frequent first; ``more_groups`` is the number of others, whose items come last.
        offset: The place of the first of ``items`` among all that match.
    """

    id: str
    search: str
    version: int
    total: int
    of: int
    groups: list[ErrorCount]
    more_groups: int
    offset: int
    items: list[RecordedItem]


class Hello(msgspec.Struct, kw_only=True, tag_field="kind", tag="hello"):
    """A view was opened, or is visible again.

    Attributes:
        view: A random name of the view: a widget may be displayed many times.
    """

    view: str


class Here(msgspec.Struct, kw_only=True, tag_field="kind", tag="here"):
    """A view is still shown; of a page that the kernel does not know it is a Hello."""

    view: str


class Bye(msgspec.Struct, kw_only=True, tag_field="kind", tag="bye"):
    """A view was closed, or its page is hidden."""

    view: str


class Resync(msgspec.Struct, kw_only=True, tag_field="kind", tag="resync"):
    """A view missed an update and needs the whole state."""

    view: str


class Command(msgspec.Struct, kw_only=True, tag_field="kind", tag="command"):
    """A button was pressed, or items were requested.

    Attributes:
        id: ``<panel id>/<random>/<name>``, and the arguments, each after a slash: ``items/<group>/<offset>``,
            ``adjust/<concurrency>/<limit of the first rate>/...``, ``errors/<offset>/<search>/<limit>/<version>`` and
            ``retry_failed/<search>``, the search encoded as part of an address.
    """

    id: str
    name: CommandName


FromBrowser = Hello | Here | Bye | Resync | Command
FromKernel = Update | Beat | Ack | Rows | Errors


Parts = frozenset[Literal["rows", "pace", "moves", "log"]]

LINES_AT_ONCE = 25
MESSAGES_SHOWN = 300
LIMIT_GROUPS_SHOWN = 8

_CAN: dict[events.State, list[CommandName]] = {
    "planned": ["resume"],
    "running": ["pause", "cancel", "adjust"],
    "paused": ["resume", "cancel", "adjust"],
    "completed": [],
    "failed": ["resume"],
    "cancelled": ["resume"],
    "rolled_back": ["resume"],
    "interrupted": ["resume"],
}


class Cursor(msgspec.Struct):
    """How much of a session's state a view has been sent.

    Attributes:
        seq: Number of the latest update.
        groups: Number of changes of groups; ``running``: the groups that had not ended.
        marks: Number of marks of the progress curve, after it was thinned ``thinned`` times.
        moves: Number of changes of the breaker; ``lines``: number of the latest line of the log.
        is_whole_wanted: The next update must contain everything.
    """

    seq: int = 0
    groups: int = 0
    running: set[int] = msgspec.field(default_factory=set)
    marks: int = 0
    thinned: int = 0
    moves: int = 0
    lines: int = 0
    is_whole_wanted: bool = True


def whole_update(session: SessionView, sent: Cursor, parts: Parts) -> Update:
    """Return an update with the whole state; on the engine's thread while the session runs."""
    sent.marks = sent.moves = sent.lines = sent.groups = 0
    sent.is_whole_wanted = False
    return _update(session, sent, parts, is_whole=True)


def next_update(session: SessionView, sent: Cursor, parts: Parts) -> Update:
    """Return an update with the changes; on the engine's thread while the session runs."""
    sent.seq += 1
    return whole_update(session, sent, parts) if sent.is_whole_wanted else _update(session, sent, parts)


def _update(session: SessionView, sent: Cursor, parts: Parts, *, is_whole: bool = False) -> Update:
    snapshot = session.snapshot
    has_rows = "rows" in parts
    pace_at, pace = _pace(snapshot, sent) if "pace" in parts else (0, [])
    return Update(
        seq=sent.seq,
        whole=is_whole,
        pages=[],
        always=[],
        head=head(session),
        group_word=session.policy.group_word,
        columns=list(next(iter(snapshot.groups.values())).extra) if has_rows and snapshot.groups else [],
        groups=_groups(snapshot, sent) if has_rows else [],
        items=_items(snapshot.recent) if has_rows and not snapshot.groups else [],
        failures=_items(snapshot.failures.values()) if has_rows else [],
        pace_at=pace_at,
        pace=pace,
        moves=_moves(snapshot, sent) if "moves" in parts else [],
        log=_lines(snapshot, sent) if "log" in parts else [],
    )


def errors_of(id_: str, search: str, offset: int, found: FailureList, items: list[RecordedItem]) -> Errors:
    """Return a page of what failed; the messages come with the first."""
    groups = () if offset else found.groups[:MESSAGES_SHOWN]
    return Errors(
        id=id_,
        search=search,
        version=found.version,
        total=len(found.ids),
        of=found.of,
        groups=[
            ErrorCount(
                message=mask(group.message), status=cast("Status", group.status), scope=group.scope, count=group.count
            )
            for group in groups
        ],
        more_groups=max(0, len(found.groups) - MESSAGES_SHOWN),
        offset=offset,
        items=items,
    )


def head(session: SessionView) -> Head:
    """Return everything above the table."""
    snapshot, status, now_s, limits = session.snapshot, session.live_status, time.time(), session.policy.limits
    low_s, high_s = status.eta_s or (None, None)
    return Head(
        at_s=now_s,
        name=mask(snapshot.name),
        state=snapshot.state,
        reason=snapshot.reason,
        waiting=status.waiting,
        outside_hours=status.outside_hours,
        counts=snapshot.counts,
        started_s=snapshot.started_s,
        elapsed_s=snapshot.elapsed_s(now_s),
        eta_low_s=low_s,
        eta_high_s=high_s,
        rate_per_s=_rate(snapshot, now_s),
        allowed_per_s=status.allowed_per_s,
        breaker=_breaker(session, now_s),
        windows=_windows(session, status),
        limit_groups=_limit_groups(status),
        more_limit_groups=max(0, len(status.limit_groups) - LIMIT_GROUPS_SHOWN),
        queued=list(status.queued or ()),
        concurrency=limits.concurrency,
        most_concurrency=session.declared.concurrency,
        cool_down_s=max(0.0, snapshot.cool_until_s - now_s),
        cool_why=_cool_why(snapshot, now_s),
        sharing=list(status.sharing),
        running_elsewhere=status.running_elsewhere,
        spent_usd=snapshot.spent_usd,
        budget_usd=snapshot.budget_usd,
        recorded=0 if snapshot.state == "rolled_back" else snapshot.counts.ended - snapshot.left,
        facts=facts_of(session),
        notes=snapshot.notes,
        where="" if session.elsewhere is None else session.elsewhere.where,
        untold=is_untold(session),
        can=_can(session, status, now_s),
        reopen=mask(session.reopen),
    )


def facts_of(session: SessionView) -> list[Fact]:
    """Return what a session's work tells of itself: of one that runs no more, what still holds."""
    is_over = session.snapshot.state in events.ENDED
    return [_masked(fact) for fact in session.facts if not (is_over and fact.is_live)]


def _masked(fact: Fact) -> Fact:
    return msgspec.structs.replace(fact, value=mask(fact.value), aside=mask(fact.aside), foot=mask(fact.foot))


def _cool_why(snapshot: Snapshot, now_s: float) -> str:
    event = snapshot.cooling(now_s)
    if event is None:
        return ""
    return mask(f"{event.limit_group}: {event.reason}" if event.limit_group else event.reason)


def _limit_groups(status: LiveStatus) -> list[LimitGroupFact]:
    busiest = sorted(status.limit_groups, key=lambda group: (-group.waiting, group.name))[:LIMIT_GROUPS_SHOWN]
    return [
        LimitGroupFact(
            name=mask(group.name),
            waiting=group.waiting,
            windows=[
                WindowFact(used=used, limit=limit, most=limit, per_s=per_s, unit=unit)
                for used, limit, per_s, unit in group.windows
            ],
            cool_s=group.cool_s,
        )
        for group in sorted(busiest, key=lambda group: group.name)
    ]


def _windows(session: SessionView, status: LiveStatus) -> list[WindowFact]:
    limits, declared = session.policy.limits, session.declared
    used = {(per_s, unit): used for used, _, per_s, unit in status.windows}
    paced = limits.all_rates[len(limits.rates) :]
    pairs = zip((*limits.rates, *paced), (*declared.rates, *paced), strict=True)
    return [
        WindowFact(
            used=used.get((rate.per_s, rate.unit), 0.0),
            limit=rate.limit,
            most=most.limit,
            per_s=rate.per_s,
            unit=rate.unit,
        )
        for rate, most in pairs
    ]


def _groups(snapshot: Snapshot, sent: Cursor) -> list[Group]:
    """Return the groups that ran at the last update, and those that changed since: no others can."""
    groups, moved = snapshot.groups, snapshot.moved
    numbers = {*sent.running, *takewhile(lambda number: moved[number] > sent.groups, reversed(moved))}
    shown = [groups[number] for number in sorted(numbers) if number in groups]
    sent.running = {group.number for group in shown if group.status in ("pending", "running")}
    sent.groups = snapshot.moves
    return shown


def _pace(snapshot: Snapshot, sent: Cursor) -> tuple[int, list[Mark]]:
    """Return the number of unchanged marks, and the marks after them; the latest mark may still change."""
    pace = snapshot.pace
    at = 0 if sent.thinned != pace.thinned else max(0, sent.marks - 2)
    sent.marks, sent.thinned = len(pace.marks), pace.thinned
    return at, pace.marks[at:]


def _moves(snapshot: Snapshot, sent: Cursor) -> list[BreakerMove]:
    new = min(snapshot.breaker_moved - sent.moves, len(snapshot.breaker_moves))
    sent.moves = snapshot.breaker_moved
    return [
        BreakerMove(
            at_s=move.at_s,
            state=move.state,
            failures=move.failures,
            openings=move.openings,
            limit_group=mask(move.limit_group),
        )
        for move in list(snapshot.breaker_moves)[len(snapshot.breaker_moves) - new :]
    ]


def _lines(snapshot: Snapshot, sent: Cursor) -> list[LogLine]:
    new = min(snapshot.told - sent.lines, LINES_AT_ONCE, len(snapshot.story))
    sent.lines = snapshot.told
    return event_text.lines(reversed(list(islice(reversed(snapshot.story), new))), snapshot.groups)


def _rate(snapshot: Snapshot, now_s: float) -> float:
    if snapshot.state in events.ENDED:
        return snapshot.average_per_s(now_s)
    return snapshot.rate_per_s(now_s) if snapshot.state == "running" else 0.0


def is_untold(session: SessionView) -> bool:
    """Say whether a session's limits and breaker are those of another process, which has not recorded them."""
    if session.elsewhere is not None:
        return not session.elsewhere.is_told
    return bool(session.lacks)


def _can(session: SessionView, status: LiveStatus, now_s: float) -> list[CommandName]:
    snapshot = session.snapshot
    can = list(_CAN[snapshot.state])
    if snapshot.state in ("running", "paused") and snapshot.cooling(now_s + LIFTED_S) is not None:
        can.append("lift")
    if snapshot.state in ("running", "paused") and status.starts_s:
        can.append("start_now")
    if session.elsewhere is not None:
        return can if session.elsewhere.is_told else [name for name in can if name != "adjust"]
    if session.lacks:
        return []
    is_over = snapshot.state in events.ENDED and snapshot.state != "rolled_back"  # there is nothing but all to run
    if is_over and snapshot.counts.failed + snapshot.counts.timeout:
        can.append("retry_failed")
    return can


def _breaker(session: SessionView, now_s: float) -> BreakerFact:
    breaker, policy = session.snapshot.breaker, session.policy.breaker
    return BreakerFact(
        state=breaker.state,
        failures=breaker.failures,
        threshold=0 if policy is None else policy.failures,
        openings=breaker.openings,
        give_up_after=0 if policy is None else policy.give_up_after,
        probe_in_s=max(0.0, breaker.probe_at_s - now_s) if breaker.state == "open" else 0.0,
        limit_group=mask(breaker.limit_group),
    )


def _items(ended: Iterable[events.ItemEnded]) -> list[Item]:
    return [
        Item(
            key=event.key,
            group=event.group,
            status=event.status,
            attempts=event.attempts,
            seconds=event.seconds,
            error=event.error,
        )
        for event in ended
    ]
