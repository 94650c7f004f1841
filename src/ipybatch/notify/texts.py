"""Texts: what people read of a notice: a line that says it, and some that say what to do."""

from __future__ import annotations

import datetime as dt
from contextlib import suppress
from pathlib import PurePath

from ipybatch.engine.data.local_time import zone_of
from ipybatch.engine.data.masking import mask, printable
from ipybatch.engine.data.notice import Kind, Notice
from ipybatch.engine.data.outcome import Summary
from ipybatch.errors import InputError


def title_of(notice: Notice) -> str:
    """Return one line that says it all."""
    return mask(printable(_title(notice)))


def body_of(notice: Notice) -> str:
    """Return what belongs to it, a fact a line, and what to do next."""
    lines = [*_facts(notice), _next(notice)]
    return mask("\n".join(printable(line) for line in lines if line))


def _title(notice: Notice) -> str:
    name, group = notice.name, f" of {notice.limit_group}" if notice.limit_group else ""
    if notice.kind == "test":
        return f"{name}: a test of this channel"
    if notice.kind == "breaker":
        return f"{name}: the service{group} has not answered for {duration(notice.at_s - notice.since_s)}"
    if notice.kind == "budget":
        usd, budget_usd = notice.usd or 0.0, notice.budget_usd or 0.0
        share = f"{usd / budget_usd:.0%}" if budget_usd else "most"
        return f"{name}: {share} of the budget is spent, {usd:.2f} of {budget_usd:.2f} USD"
    if notice.kind == "expiring":
        return f"{name}: the results of job {notice.job} expire at {moment(notice.expires_s)}"
    if notice.kind in ("skipped", "asks"):
        return f"schedule {name}: {notice.reason}"
    return str(Summary(name, notice.state, notice.counts, notice.reason, notice.seconds))


def _facts(notice: Notice) -> list[str]:
    counts, facts = notice.counts, []
    if notice.kind in ("breaker", "budget"):
        total = "?" if counts.total is None else f"{counts.total:,}"
        facts.append(f"So far: {counts.ended:,} of {total} items")
    if notice.kind == "breaker":
        facts.append(f"Since: {moment(notice.since_s)}")
    if notice.kind == "expiring":
        facts.append(f"Not collected: {notice.requests:,} requests")
    if notice.kind == "skipped":
        facts.append(f"Next time: {_in_zone(notice.next_s, notice.zone) if notice.next_s else 'none'}")
    if notice.seconds >= 0.1:
        facts.append(f"Duration: {duration(notice.seconds)}")
    if notice.usd is not None:
        budget = f" of {notice.budget_usd:.2f}" if notice.budget_usd else ""
        facts.append(f"Cost: {notice.usd:.4g}{budget} USD" if notice.kind != "budget" else "")
    if notice.notebook:
        facts.append(f"Notebook: {PurePath(notice.notebook).name}")
    if notice.error:
        word = "Last error" if notice.kind == "breaker" else "First error"
        facts.append(f"{word}: {notice.error}")
    return facts


def _next(notice: Notice) -> str:
    if (said := _NEXT.get(notice.kind)) is not None:
        return said
    if notice.kind == "asks":
        answer = f"ipybatch.schedules.answer({notice.name!r}, 'run')"
        return f"Next: answer in the side bar, or {answer}, or 'skip': nothing of it runs until then."
    opened = f"BatchSession.open({notice.name!r})"
    if notice.kind == "finished":
        lists = f"{opened}.errors() lists why items failed, and .retry_failed() runs them again."
        return f"Next: {lists if notice.counts.failed + notice.counts.timeout else f'{opened}.results()'}"
    if notice.state == "rolled_back":
        return f"Next: nothing was kept; {opened}.errors() says what failed, and the same call starts anew."
    return "Next: run the same call again: it goes on with what is left, and does nothing twice."


_NEXT: dict[Kind, str] = {
    "test": "Whatever reads this is told of sessions that name the channel.",
    "breaker": "Next: nothing, it goes on by itself as soon as the service answers; cancel it if that is not wanted.",
    "budget": "Next: raise budget_usd and run the same call again, or let it end when the budget is spent.",
    "skipped": "Next: nothing where that is as you want it; ipybatch.schedules.list() shows how each schedule stands.",
    "expiring": "Next: run the same call again before then: it collects them, and sends nothing twice.",
}


def duration(seconds: float) -> str:
    """Return a length of time in words."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"


def moment(unix_s: float) -> str:
    """Return a time as whoever reads it elsewhere understands it, too."""
    return dt.datetime.fromtimestamp(unix_s, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _in_zone(unix_s: float, zone: str) -> str:
    with suppress(InputError):  # this machine does not know it
        return f"{dt.datetime.fromtimestamp(unix_s, zone_of(zone)):%Y-%m-%d %H:%M} {zone}"
    return moment(unix_s)
