"""Gauges: what the views show beside the snapshot, read off the running parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from ipybatch.engine.data.policy import Limits, Paced
from ipybatch.engine.feed.snapshot import Snapshot
from ipybatch.engine.run.runner import Runner

_WAITING = {
    "batch": "next batch in {}",
    "limit": "the limits allow the next request in {}",
    "breaker": "the service fails: next probe in {}",
    "probe": "one probe is asking whether the service is back",
    "retry": "next retry in {}",
}


class LaneGauge(msgspec.Struct, frozen=True):
    """One lane.

    Attributes:
        waiting: Items that wait in it.
        windows: (used, limit, per_s, unit) of each of its rates.
        cool_s: Seconds of its cool-down that are left.
    """

    name: str
    waiting: int
    windows: list[tuple[float, float, float, str]]
    cool_s: float


class Gauges(msgspec.Struct, frozen=True):
    """Facts of the moment.

    Attributes:
        waiting: Why nothing starts just now, in words; "" when something may, or when it is clear.
        windows: (used, limit, per_s, unit) of each rate.
        allowed_per_s: Starts per second that the limits allow in the long run; None without rates and spacing.
        eta_s: Seconds left, at best and at worst; None when unknown.
        lanes: Limits of each lane, in the order in which they came.
        queued: How many items of high, medium and low priority have yet to start; None where all have the same.
        lingering: Given-up attempts that go on by themselves.
    """

    waiting: str = ""
    windows: list[tuple[float, float, float, str]] = msgspec.field(default_factory=list)
    allowed_per_s: float | None = None
    eta_s: tuple[float, float] | None = None
    lingering: int = 0
    lanes: list[LaneGauge] = msgspec.field(default_factory=list)
    queued: tuple[int, ...] | None = None


def read(runner: Runner | None, limits: Limits, snapshot: Snapshot, now_s: float, unix_s: float) -> Gauges:
    """Return the gauges; on the engine's thread while it runs."""
    if runner is None or runner.state is not None:
        return Gauges(allowed_per_s=allowed_per_s(limits), lingering=runner.lingering if runner else 0)
    active = runner.resource.limiter.windows
    shown = [active[rate] for rate in limits.rates if rate in active]
    return Gauges(
        _why(runner, snapshot, now_s, unix_s),
        _windows([*shown, *_paced(limits)], now_s),
        allowed_per_s(limits),
        _eta_s(snapshot, limits, unix_s),
        runner.lingering,
        _lanes(runner, now_s),
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


def _lanes(runner: Runner, now_s: float) -> list[LaneGauge]:
    lanes = runner.scheduler.lanes
    return [
        LaneGauge(
            lane.name,
            len(lane.tasks),
            _windows(lane.limiter.own.windows.values(), now_s),
            max(0.0, lane.limiter.own.cool_until_s - now_s),
        )
        for lane in (() if lanes is None else lanes.by_name.values())
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
