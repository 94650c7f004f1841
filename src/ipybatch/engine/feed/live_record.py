"""Live record: what the journal keeps of the moment, so that other processes show a session as its own does.

    runner, snapshot --`live_record`, once a second and at the end--> run.live --`recalled`--> another's snapshot

Rule: counts of items that have ended are the run's row, never this record: it
may be a second old, or that of a process that died.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.fact import Fact
from ipybatch.engine.data.policy import Breaker, Limits, Rate
from ipybatch.engine.data.spec import Spec
from ipybatch.engine.feed.session_view import LiveStatus
from ipybatch.engine.feed.snapshot import BreakerSnapshot, Group, Snapshot

LIFTED_S = 60.0  # what is left of a cool-down that is worth a button
GROUPS = 500  # the latest that changed, at most
_LIMIT_GROUPS = 20
_UNENDED = ("pending", "running")


class LiveRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Facts of the moment of one run.

    Attributes:
        running: Attempts in flight.
        is_cooling: Whether the service asked to slow down, for long enough to lift that.
        total: Items in all; None until a generator is exhausted.
        breaker_policy: (failures, give_up_after); None for no breaker.
        rates: (limit, limit as declared, per_s, unit) of each rate.
        groups: Those that have a name or columns of their own, and those that have not ended.
        facts: What the work tells of itself.
        hours: Working hours, by the clocks of ``zone``; "" for none.
        adjourned: Until when nothing starts by the clock on the wall, Unix, and why; None for nothing of the kind.
    """

    running: int = 0
    total: int | None = None
    status: LiveStatus = LiveStatus()
    breaker: BreakerSnapshot = msgspec.field(default_factory=BreakerSnapshot)
    breaker_policy: tuple[int, int] | None = None
    concurrency: int = 1
    most_concurrency: int = 1
    rates: list[tuple[float, float, float, str]] = []
    groups: list[Group] = []
    last_error: str = ""
    is_cooling: bool = False
    budget_usd: float | None = None
    facts: list[Fact] = []
    hours: str = ""
    zone: str | None = None
    adjourned: tuple[float, str] | None = None

    def counts(self, on_record: events.Counts) -> events.Counts:
        """Return the counts of what has ended, and of what is in flight: no more than is left, as this may be older."""
        total = on_record.total if self.total is None else max(self.total, on_record.total or 0)
        left = None if total is None else max(0, total - on_record.ended)
        running = self.running if left is None else min(self.running, left)
        pending = on_record.pending if left is None else left - running
        return msgspec.structs.replace(on_record, total=total, running=running, pending=pending)

    def limits(self, *, declared: bool = False) -> Limits:
        """Return the limits that hold, or those that the session was made with."""
        rates = [Rate(most if declared else limit, per_s, unit) for limit, most, per_s, unit in self.rates]
        at_once = self.most_concurrency if declared else self.concurrency
        return Limits(concurrency=at_once, rates=rates, hours=self.hours or None, zone=self.zone)

    @property
    def policy(self) -> Breaker | None:
        """The policy of its breaker."""
        if self.breaker_policy is None:
            return None
        failures, give_up_after = self.breaker_policy
        return Breaker(failures=failures, give_up_after=give_up_after)


_decoder = msgspec.json.Decoder(LiveRecord)


def decode(live: bytes | None) -> LiveRecord | None:
    """Return what is on record; None for nothing, or for what a later version wrote."""
    if live is None:
        return None
    try:
        return _decoder.decode(live)
    except (msgspec.MsgspecError, ValueError):
        return None


def live_record(  # noqa: PLR0917  # what is known of the moment, each of another type
    snapshot: Snapshot, status: LiveStatus, spec: Spec, declared: Limits, now_s: float, facts: Sequence[Fact] = ()
) -> LiveRecord:
    """Return what is to be recorded; on the engine's thread while it runs."""
    rates, paced = spec.limits.rates, spec.limits.all_rates[len(spec.limits.rates) :]
    busiest = sorted(status.limit_groups, key=lambda group: -group.waiting)[:_LIMIT_GROUPS]
    pairs = zip((*rates, *paced), (*declared.rates, *paced), strict=True)
    return LiveRecord(
        running=snapshot.counts.running,
        total=snapshot.counts.total,
        status=msgspec.structs.replace(status, limit_groups=busiest),
        breaker=snapshot.breaker,
        breaker_policy=None if spec.breaker is None else (spec.breaker.failures, spec.breaker.give_up_after),
        concurrency=spec.limits.concurrency,
        most_concurrency=declared.concurrency,
        rates=[(rate.limit, most.limit, rate.per_s, rate.unit) for rate, most in pairs],
        groups=_groups(snapshot, spec.group_word),
        last_error=snapshot.last_error,
        is_cooling=snapshot.cooling(now_s + LIFTED_S) is not None,
        budget_usd=snapshot.budget_usd,
        facts=list(facts),
        hours="" if spec.limits.hours is None else str(spec.limits.hours),
        zone=spec.limits.zone,
        adjourned=None if (waits := snapshot.adjourned) is None else (waits.until_s, waits.reason),
    )


def _groups(snapshot: Snapshot, word: str) -> list[Group]:
    """Return the groups that the items on record do not tell, in order."""
    kept = []
    for number in reversed(snapshot.moved):
        group = snapshot.groups.get(number)
        if group is None:
            continue
        if group.status in _UNENDED or group.extra or group.name != f"{word} {number}":
            kept.append(group)
            if len(kept) == GROUPS:
                break
        elif len(kept) == 0 and snapshot.moves - snapshot.moved[number] > GROUPS:
            break  # plain batches that ended long ago: nothing of theirs is left to tell
    return sorted(kept, key=lambda group: group.number)


def recalled(
    on_record: Iterable[events.GroupRecalled], record: LiveRecord | None, at_s: float, *, is_live: bool
) -> Iterator[events.GroupRecalled]:
    """Yield groups as they are on record, each as its own process last told it, in no order.

    Args:
        on_record: What the items tell.
        is_live: Whether that process is still there: else nothing of it runs.
    """
    told = {} if record is None else {group.number: group for group in record.groups}
    for event in on_record:
        group = told.pop(event.group, None)
        yield event if group is None else _merged(event, group, is_live=is_live)
    for group in told.values():
        nothing = events.GroupRecalled(at_s, group.number, group.name, 0, 0, group.started_s, group.ended_s, "")
        yield _merged(nothing, group, is_live=is_live)


def _merged(event: events.GroupRecalled, group: Group, *, is_live: bool) -> events.GroupRecalled:
    done, failed = max(event.items, group.done), max(event.failed, group.failed)
    is_stale = not is_live and group.status in _UNENDED
    ended: events.Status = "failed" if failed and failed == done else "completed"
    status = (ended if done >= group.items else "pending") if is_stale else group.status
    return events.GroupRecalled(
        event.at_s,
        group.number,
        group.name,
        max(group.items, event.items),
        failed,
        group.started_s or event.started_s,
        group.ended_s or (event.ended_s if status not in _UNENDED else 0.0),
        group.error or event.error,
        status=status,
        done=done,
        extra=group.extra,
        lasts=group.lasts,
    )
