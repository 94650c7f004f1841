"""Live status: what the views show beside the snapshot, read off the running parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ipybatch.engine.data.policy import Limits, Paced
from ipybatch.engine.feed.session_view import LimitGroupStatus, LiveStatus
from ipybatch.engine.feed.snapshot import Snapshot
from ipybatch.engine.run.runner import Runner

_WAITING = {
    "batch": "next batch in {}",
    "limit": "the limits allow the next request in {}",
    "breaker": "the service fails: next probe in {}",
    "probe": "one probe is asking whether the service is back",
    "retry": "next retry in {}",
}


def read(runner: Runner | None, limits: Limits, snapshot: Snapshot, now_s: float, unix_s: float) -> LiveStatus:
    """Return the live status; on the engine's thread while it runs."""
    if runner is None or runner.state is not None:
        return LiveStatus(allowed_per_s=allowed_per_s(limits), lingering=runner.lingering if runner else 0)
    active = runner.resource.limiter.windows
    shown = [active[rate] for rate in limits.rates if rate in active]
    return LiveStatus(
        _why(runner, snapshot, now_s, unix_s),
        _windows([*shown, *_paced(limits)], now_s),
        allowed_per_s(limits),
        _eta_s(snapshot, limits, unix_s),
        runner.lingering,
        _limit_groups(runner, now_s),
        None if runner.scheduler.queued is None else tuple(runner.scheduler.queued),
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
    return [
        LimitGroupStatus(
            limit_group.name,
            len(limit_group.tasks),
            _windows(limit_group.limiter.own.windows.values(), now_s),
            max(0.0, limit_group.limiter.own.cool_until_s - now_s),
        )
        for limit_group in (() if limit_groups is None else limit_groups.by_name.values())
    ]


def _paced(limits: Limits) -> Sequence[Paced]:
    return () if limits.pacer is None else limits.pacer.windows


def _why(runner: Runner, snapshot: Snapshot, now_s: float, unix_s: float) -> str:
    if snapshot.state == "paused":
        running = snapshot.counts.running
        return f"{running} in flight finish first" if running else ""
    cool_s = snapshot.cool_until_s - unix_s
    if cool_s > 0:
        return f"the service asked us to slow down: {cool_s:.0f} s left"
    scheduler = runner.scheduler
    left_s = runner.next_start_s - now_s
    if scheduler.why in _WAITING and (left_s > 0.5 or scheduler.why == "probe"):
        return _WAITING[scheduler.why].format(f"{left_s:.0f} s")
    return ""


def _eta_s(snapshot: Snapshot, limits: Limits, unix_s: float) -> tuple[float, float] | None:
    counts, elapsed_s = snapshot.counts, snapshot.elapsed_s(unix_s)
    if counts.total is None or snapshot.ended_here < 3 or elapsed_s < 1:
        return None
    left = counts.pending + counts.running
    overall = snapshot.ended_here / elapsed_s
    lately = overall if limits.batch_pause_s else snapshot.rate_per_s(unix_s) or overall
    fastest, slowest = max(overall, lately), min(overall, lately)
    allowed = allowed_per_s(limits)
    if allowed is not None:
        fastest = min(fastest, allowed)
        slowest = min(slowest, fastest)
    return left / fastest, left / slowest * 1.1
