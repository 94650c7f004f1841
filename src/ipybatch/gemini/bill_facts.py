"""Bill facts: what a session of prompts tells of itself: what it saved against online, and its batch jobs.

What it spent is no fact of these: the head of every session that costs something has that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from ipybatch.engine.data.fact import NONE, Fact, usd
from ipybatch.engine.feed.snapshot import Group, Snapshot
from ipybatch.gemini.batch.jobs import EXPIRES
from ipybatch.gemini.money.budget import Money

_SOON_S = 6 * 3600.0  # to the end of results that nobody has fetched
_SAVED = "Saved"


def bill_facts(
    snapshot: Snapshot, money: Money | None, now_s: float, *, is_cheaper: bool, has_jobs: bool, is_over: bool
) -> list[Fact]:
    """Return what can vary in a session: nothing of one that sends all its prompts online.

    Args:
        money: None before its lanes are open.
        is_cheaper: Whether prompts may go by flex or batch.
        has_jobs: Whether there may be batch jobs.
    """
    saved = [_saved(snapshot, money)] if is_cheaper else []
    if not has_jobs:
        return saved
    jobs = list(snapshot.groups.values())
    expiry = _expiry(jobs, now_s)
    if expiry is None and not is_over:
        expiry = Fact("Results expire", NONE, foot="none waits to be fetched")
    return [*saved, _jobs(jobs, is_over=is_over), *([] if expiry is None else [expiry])]


def _saved(snapshot: Snapshot, money: Money | None) -> Fact:
    if money is None:
        return Fact(_SAVED, NONE, foot="against online")
    if not money.has_prices:
        return Fact(_SAVED, NONE, foot="no price is known")
    saved, spent = float(money.saved_usd), snapshot.spent_usd or 0.0
    share = f"{100 * saved / (saved + spent):.0f} % less" if saved > 0 else ""
    return Fact(
        _SAVED, usd(saved), share, f"online it would be {usd(saved + spent)}" if saved > 0 else "against online"
    )


def _jobs(jobs: Sequence[Group], *, is_over: bool) -> Fact:
    """Return how many jobs run, wait and are done."""
    many = Counter("failed" if job.status in ("failed", "timeout") else job.status for job in jobs)
    running, waiting, done, failed = many["running"], many["pending"], many["completed"], many["failed"]
    lost = f"{failed:,} failed" if failed else ""
    if is_over:
        left = f"{running + waiting:,} left at the service" if running + waiting else ""
        return Fact("Batch jobs", f"{done:,}", f"of {len(jobs):,} done", ", ".join(filter(None, [left, lost])))
    told = [f"{waiting:,} waiting", f"{done:,} done", lost]
    return Fact("Batch jobs", f"{running:,}", "running", ", ".join(filter(None, told)))


def _expiry(jobs: Iterable[Group], now_s: float) -> Fact | None:
    """Return when the first results go that nobody has fetched; None while there are none."""
    found = [(str(job.extra[EXPIRES]), job.name) for job in jobs if job.extra.get(EXPIRES)]
    if not found:
        return None
    expires, job = min(found)
    is_soon = datetime.fromisoformat(expires).timestamp() - now_s < _SOON_S
    return Fact("Results expire", f"in {expires}", "", f"{job}, not fetched yet", None, "warn" if is_soon else "")
