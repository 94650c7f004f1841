"""Live status: how a session stands at a moment, beyond what its events tell: windows, why it waits, when it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from textwrap import shorten

from ipybatch.engine.data.clock import Clock
from ipybatch.engine.data.masking import isolated
from ipybatch.engine.data.policy import Limits, Paced
from ipybatch.engine.feed.session_view import LimitGroupStatus, LiveStatus
from ipybatch.engine.feed.snapshot import Snapshot
from ipybatch.engine.rules.opening import Opening
from ipybatch.engine.run.runner import Runner
from ipybatch.engine.store.resources import who

_WAITING = {
    "batch": "next batch in {}",
    "limit": "the limits allow the next request in {}",
    "breaker": "the service fails: next probe in {}",
    "probe": "one probe is asking whether the service is back",
    "retry": "next retry in {}",
    "items": "waiting for the next items of the generator",
}


Left = Callable[[], tuple[float, float] | None]


def read_live_status(
    runner: Runner | None, limits: Limits, snapshot: Snapshot, clock: Clock, left_s: Left | None = None
) -> LiveStatus:
    """Return the live status; on the engine's thread while it runs.

    Args:
        left_s: What the work itself tells of the seconds left, at best and at worst; None where it cannot.
    """
    now_s, unix_s = clock.now_s(), clock.unix_s()
    if runner is None or runner.state is not None:
        return LiveStatus(allowed_per_s=allowed_per_s(limits), lingering=runner.lingering if runner else 0)
    shown = runner.resource.limiter.shown(limits.rates, now_s)
    opening = runner.scheduler.opening
    return LiveStatus(
        _why(runner, snapshot, now_s, unix_s),
        [*shown, *_windows(() if limits.pacer is None else limits.pacer.windows, now_s)],
        allowed_per_s(limits),
        _on_the_wall(
            (None if left_s is None else left_s()) or _eta_s(snapshot, limits, unix_s, opening), opening, unix_s
        ),
        runner.lingering,
        _limit_groups(runner, now_s),
        None if runner.scheduler.queued is None else tuple(runner.scheduler.queued),
        tuple(map(who, runner.resource.limiter.owners)),
        sum(owner.running for owner in runner.resource.limiter.owners),
        opening.start_s if opening.start_s > unix_s else 0.0,
        _waits_for_hours(opening, snapshot, unix_s),
    )


def allowed_per_s(limits: Limits) -> float | None:
    """Return how many starts per second the limits allow in the long run; None without rates and spacing."""
    bounds = [rate.limit / rate.per_s for rate in limits.all_rates if rate.unit == "requests"]
    if limits.spacing_s:
        bounds.append(1.0 / limits.spacing_s)
    return min(bounds) if bounds else None


def _windows(windows: Iterable[Paced], now_s: float) -> list[tuple[float, float, float, str]]:
    return [(w.used(now_s), w.rate.limit, w.rate.per_s, w.rate.unit) for w in windows]


def _limit_groups(runner: Runner, now_s: float) -> list[LimitGroupStatus]:
    limit_groups = runner.scheduler.limit_groups
    if limit_groups is None:
        return []
    waiting = Counter[int]()
    for limit_group in limit_groups.by_name.values():
        for part in limit_group.parts or (limit_group,):
            waiting[id(part)] += len(limit_group.tasks)
    return [
        LimitGroupStatus(
            limit_group.label,
            waiting[id(limit_group)],
            own.shown(own.windows, now_s),
            max(0.0, own.cool_until_s - now_s),
        )
        for limit_group in limit_groups.groups()
        for own in limit_group.limiter.own.parts
    ]


def _why(runner: Runner, snapshot: Snapshot, now_s: float, unix_s: float) -> str:
    if snapshot.state == "paused":
        running = snapshot.counts.running
        return f"{running} in flight finish first" if running else ""
    trouble = runner.resource.limiter.trouble
    if trouble:
        return f"nothing starts until limits can be kept: {trouble}"
    opening, counts = runner.scheduler.opening, snapshot.counts
    if opening.is_limited and (counts.pending or counts.running or counts.total is None):
        closed = opening.why(unix_s)
        if closed:
            return f"{closed}; {counts.running} in flight" if counts.running else closed
    cool_s = snapshot.cool_until_s - unix_s
    if cool_s > 0:
        return f"{isolated(snapshot.cools[''].reason)}: {cool_s:.0f} s left"
    scheduler = runner.scheduler
    left_s = runner.next_start_s - now_s
    if scheduler.why in _WAITING and (left_s > 0.5 or scheduler.why == "probe"):
        why = _WAITING[scheduler.why].format(f"{left_s:.0f} s")
        error = shorten(snapshot.last_error, 100, placeholder="...") if scheduler.why == "breaker" else ""
        return f"{why} ({error})" if error else why
    return ""


def _waits_for_hours(opening: Opening, snapshot: Snapshot, unix_s: float) -> bool:
    counts = snapshot.counts
    has_more = counts.pending > 0 or counts.total is None
    return opening.is_limited and has_more and not counts.running and opening.is_outside_hours(unix_s)


def _eta_s(snapshot: Snapshot, limits: Limits, unix_s: float, opening: Opening) -> tuple[float, float] | None:
    counts, elapsed_s = snapshot.counts, snapshot.elapsed_s(unix_s)
    if counts.total is None or snapshot.ended_here < 3 or elapsed_s < 1:
        return None
    if snapshot.breaker.state != "closed" and not snapshot.breaker.limit_group:  # nobody knows when it is back
        return None
    left = counts.pending + counts.running
    overall = snapshot.average_per_s(unix_s)
    if opening.is_limited and snapshot.this_start_s(unix_s):  # hours in which nothing may start are no slowness
        open_s = opening.open_s(snapshot.started_s, unix_s)
        overall *= snapshot.elapsed_s(unix_s) / max(1.0, snapshot.before_s + open_s)
    lately = overall if limits.batch_pause_s else snapshot.rate_per_s(unix_s) or overall
    fastest, slowest = max(overall, lately), min(overall, lately)
    allowed = allowed_per_s(limits)
    if allowed is not None:
        fastest = min(fastest, allowed)
        slowest = min(slowest, fastest)
    cool_s = max(0.0, snapshot.cool_until_s - unix_s)
    return cool_s + left / fastest, cool_s + left / slowest * 1.1


def _on_the_wall(eta_s: tuple[float, float] | None, opening: Opening, unix_s: float) -> tuple[float, float] | None:
    """Return the seconds left with the hours in which nothing may start."""
    if eta_s is None or not opening.is_limited:
        return eta_s
    low_s, high_s = eta_s
    return opening.lasts_s(unix_s, low_s), opening.lasts_s(unix_s, high_s)
