"""Updates: a session's state as the panel's messages."""

from __future__ import annotations

import time
from collections.abc import Iterable

from ipybatch.engine import events
from ipybatch.engine.masking import mask
from ipybatch.engine.snapshot import Snapshot
from ipybatch.jupyter.viewed import Viewed
from ipybatch.jupyter.wire import BreakerFact, CommandName, Head, Item, Update, WindowFact

_CAN: dict[events.State, list[CommandName]] = {
    "planned": ["resume"],
    "running": ["pause", "cancel"],
    "paused": ["resume", "cancel"],
    "completed": [],
    "failed": ["resume"],
    "cancelled": ["resume"],
    "rolled_back": ["resume"],
}


def whole(session: Viewed, seq: int) -> Update:
    """Return the whole state; on the engine's thread while the session runs."""
    return changed(session, seq, session.snapshot.groups, is_whole=True)


def changed(session: Viewed, seq: int, groups: Iterable[int], *, is_whole: bool = False) -> Update:
    """Return the head and some groups; on the engine's thread while the session runs."""
    snapshot = session.snapshot
    return Update(
        seq=seq,
        whole=is_whole,
        head=head(session),
        group_word=session.policy.opening.group_word,
        groups=[snapshot.groups[number] for number in groups if number in snapshot.groups],
        items=[] if snapshot.groups else _items(snapshot.recent),
        failures=_items(snapshot.failures.values()),
    )


def head(session: Viewed) -> Head:
    """Return everything above the table."""
    snapshot, gauges, now_s = session.snapshot, session.gauges, time.time()
    low_s, high_s = gauges.eta_s or (None, None)
    return Head(
        name=mask(snapshot.name),
        state=snapshot.state,
        reason=snapshot.reason,
        waiting=gauges.waiting,
        counts=snapshot.counts,
        elapsed_s=snapshot.elapsed_s(now_s),
        eta_low_s=low_s,
        eta_high_s=high_s,
        rate_per_s=_rate(snapshot, now_s),
        allowed_per_s=gauges.allowed_per_s,
        breaker=_breaker(session, now_s),
        windows=[
            WindowFact(used=used, limit=limit, per_s=per_s, unit=unit) for used, limit, per_s, unit in gauges.windows
        ],
        cool_down_s=max(0.0, snapshot.cool_until_s - now_s),
        spent_usd=None,
        budget_usd=None,
        recorded=snapshot.counts.ended - snapshot.left,
        notes=snapshot.notes,
        can=_can(snapshot),
    )


def _rate(snapshot: Snapshot, now_s: float) -> float:
    if snapshot.state in events.ENDED:
        return snapshot.ended_here / max(snapshot.elapsed_s(now_s), 0.001)
    return snapshot.rate_per_s(now_s) if snapshot.state == "running" else 0.0


def _can(snapshot: Snapshot) -> list[CommandName]:
    can = list(_CAN[snapshot.state])
    if snapshot.state in events.ENDED and snapshot.counts.failed + snapshot.counts.timeout:
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
