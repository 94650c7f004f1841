"""Updates: a session's state as messages to a view."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import islice, takewhile
from typing import Literal

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.masking import mask
from ipybatch.engine.data.progress_curve import Mark
from ipybatch.engine.feed import event_text
from ipybatch.engine.feed.event_text import LogLine
from ipybatch.engine.feed.session_view import Viewed
from ipybatch.engine.feed.snapshot import Group, Snapshot
from ipybatch.engine.run.live_status import Gauges
from ipybatch.jupyter.wire import (
    BreakerFact,
    BreakerMove,
    CommandName,
    Head,
    Item,
    LaneFact,
    Update,
    WindowFact,
)

Part = Literal["rows", "pace", "moves", "log"]
Parts = frozenset[Part]

LINES_AT_ONCE = 25
LANES_SHOWN = 8

_CAN: dict[events.State, list[CommandName]] = {
    "planned": ["resume"],
    "running": ["pause", "cancel", "adjust"],
    "paused": ["resume", "cancel", "adjust"],
    "completed": [],
    "failed": ["resume"],
    "cancelled": ["resume"],
    "rolled_back": ["resume"],
}


class Sent(msgspec.Struct):
    """What a view has been sent so far.

    Attributes:
        seq: Of the latest update.
        marks: How many of the pace's, after it was thinned ``thinned`` times.
        moves: How many of the breaker's; ``lines``: the number of the latest one of the log.
        groups: How many moves of groups; ``running``: the groups that were not at their end.
        is_whole_wanted: The next update is to tell everything.
    """

    seq: int = 0
    groups: int = 0
    running: set[int] = msgspec.field(default_factory=set)
    marks: int = 0
    thinned: int = 0
    moves: int = 0
    lines: int = 0
    is_whole_wanted: bool = True


def whole(session: Viewed, sent: Sent, parts: Parts) -> Update:
    """Return the whole state; on the engine's thread while the session runs."""
    sent.marks = sent.moves = sent.lines = sent.groups = 0
    sent.is_whole_wanted = False
    return _update(session, sent, parts, is_whole=True)


def changed(session: Viewed, sent: Sent, parts: Parts) -> Update:
    """Return the head and what is new; on the engine's thread while the session runs."""
    sent.seq += 1
    return whole(session, sent, parts) if sent.is_whole_wanted else _update(session, sent, parts)


def _update(session: Viewed, sent: Sent, parts: Parts, *, is_whole: bool = False) -> Update:
    snapshot = session.snapshot
    has_rows = "rows" in parts
    pace_at, pace = _pace(snapshot, sent) if "pace" in parts else (0, [])
    return Update(
        seq=sent.seq,
        whole=is_whole,
        pages=[],
        head=head(session),
        group_word=session.policy.opening.group_word,
        columns=_columns(snapshot.groups) if has_rows else [],
        groups=_groups(snapshot, sent) if has_rows else [],
        items=_items(snapshot.recent) if has_rows and not snapshot.groups else [],
        failures=_items(snapshot.failures.values()) if has_rows else [],
        pace_at=pace_at,
        pace=pace,
        moves=_moves(snapshot, sent) if "moves" in parts else [],
        log=_lines(snapshot, sent) if "log" in parts else [],
    )


def head(session: Viewed) -> Head:
    """Return everything above the table."""
    snapshot, gauges, now_s, limits = session.snapshot, session.gauges, time.time(), session.policy.limits
    low_s, high_s = gauges.eta_s or (None, None)
    return Head(
        at_s=now_s,
        name=mask(snapshot.name),
        state=snapshot.state,
        reason=snapshot.reason,
        waiting=gauges.waiting,
        counts=snapshot.counts,
        started_s=snapshot.started_s,
        elapsed_s=snapshot.elapsed_s(now_s),
        eta_low_s=low_s,
        eta_high_s=high_s,
        rate_per_s=_rate(snapshot, now_s),
        allowed_per_s=gauges.allowed_per_s,
        breaker=_breaker(session, now_s),
        windows=_windows(session),
        lanes=_lanes(gauges),
        more_lanes=max(0, len(gauges.lanes) - LANES_SHOWN),
        queued=list(gauges.queued or ()),
        concurrency=limits.concurrency,
        most_concurrency=session.declared.concurrency,
        cool_down_s=max(0.0, snapshot.cool_until_s - now_s),
        spent_usd=snapshot.spent_usd,
        budget_usd=snapshot.budget_usd,
        recorded=0 if snapshot.state == "rolled_back" else snapshot.counts.ended - snapshot.left,
        notes=snapshot.notes,
        can=_can(snapshot),
    )


def _lanes(gauges: Gauges) -> list[LaneFact]:
    busiest = sorted(gauges.lanes, key=lambda lane: (-lane.waiting, lane.name))[:LANES_SHOWN]
    return [
        LaneFact(
            name=mask(lane.name),
            waiting=lane.waiting,
            windows=[
                WindowFact(used=used, limit=limit, most=limit, per_s=per_s, unit=unit)
                for used, limit, per_s, unit in lane.windows
            ],
            cool_s=lane.cool_s,
        )
        for lane in sorted(busiest, key=lambda lane: lane.name)
    ]


def _windows(session: Viewed) -> list[WindowFact]:
    limits, declared = session.policy.limits, session.declared
    used = {(per_s, unit): used for used, _, per_s, unit in session.gauges.windows}
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


def _groups(snapshot: Snapshot, sent: Sent) -> list[Group]:
    """Return the groups that ran when the view was last told, and those that moved since: no others change."""
    groups, moved = snapshot.groups, snapshot.moved
    numbers = {*sent.running, *takewhile(lambda number: moved[number] > sent.groups, reversed(moved))}
    shown = [groups[number] for number in sorted(numbers) if number in groups]
    sent.running = {group.number for group in shown if group.status in ("pending", "running")}
    sent.groups = snapshot.moves
    return shown


def _pace(snapshot: Snapshot, sent: Sent) -> tuple[int, list[Mark]]:
    """Return how many marks stand, and those after them; the latest mark may still change."""
    pace = snapshot.pace
    at = 0 if sent.thinned != pace.thinned else max(0, sent.marks - 2)
    sent.marks, sent.thinned = len(pace.marks), pace.thinned
    return at, pace.marks[at:]


def _moves(snapshot: Snapshot, sent: Sent) -> list[BreakerMove]:
    new = min(snapshot.breaker_moved - sent.moves, len(snapshot.breaker_moves))
    sent.moves = snapshot.breaker_moved
    return [
        BreakerMove(at_s=move.at_s, state=move.state, failures=move.failures, openings=move.openings)
        for move in list(snapshot.breaker_moves)[len(snapshot.breaker_moves) - new :]
    ]


def _lines(snapshot: Snapshot, sent: Sent) -> list[LogLine]:
    new = min(snapshot.told - sent.lines, LINES_AT_ONCE, len(snapshot.story))
    sent.lines = snapshot.told
    return event_text.lines(reversed(list(islice(reversed(snapshot.story), new))), snapshot.groups)


def _columns(groups: dict[int, Group]) -> list[str]:
    return list(next(iter(groups.values())).extra) if groups else []


def _rate(snapshot: Snapshot, now_s: float) -> float:
    if snapshot.state in events.ENDED:
        return snapshot.ended_here / max(snapshot.elapsed_s(now_s), 0.001)
    return snapshot.rate_per_s(now_s) if snapshot.state == "running" else 0.0


def _can(snapshot: Snapshot) -> list[CommandName]:
    can = list(_CAN[snapshot.state])
    is_over = snapshot.state in events.ENDED and snapshot.state != "rolled_back"  # there is nothing but all to run
    if is_over and snapshot.counts.failed + snapshot.counts.timeout:
        can.append("retry_failed")
    return can


def _breaker(session: Viewed, now_s: float) -> BreakerFact:
    breaker, policy = session.snapshot.breaker, session.policy.breaker
    return BreakerFact(
        state=breaker.state,
        failures=breaker.failures,
        threshold=0 if policy is None else policy.failures,
        openings=breaker.openings,
        give_up_after=0 if policy is None else policy.give_up_after,
        probe_in_s=max(0.0, breaker.probe_at_s - now_s) if breaker.state == "open" else 0.0,
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
