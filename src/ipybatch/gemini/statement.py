"""The statement of a session: what was sent, billed there, kept here and lost, by job and model.

    sent       requests that left, or may have left
    billed     answers that the service made, as far as is known
    kept       of these, the answers that are on record here
    waiting    of these, the answers that can still be fetched, until ``expires``
    lost       of these, the answers that can not
    unknown    requests of which it is not known whether they were billed: no answer came

No request is sent for it: it says what the journal knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipybatch.engine.store.journal import Journal
from ipybatch.gemini.batch.jobs import Job, jobs_of
from ipybatch.gemini.money import usage
from ipybatch.gemini.money.usage import ANSWERED

if TYPE_CHECKING:
    import sqlite3

    import pandas as pd

COLUMNS = (
    *("job", "lane", "model", "state", "sent", "billed", "kept", "waiting", "lost", "unknown"),
    *("usd", "usd_unknown", "expires", "reason"),
)
UNANSWERED = (usage.SENT, usage.UNANSWERED)


def statement(journal: Journal, session: str, now_s: float) -> pd.DataFrame:
    """Return one row per batch job, and one per lane and model of calls without a job.

    Args:
        now_s: The present, Unix time.

    Returns:
        job (its number; NA for calls without a job), lane, model, state, sent, billed, kept, waiting, lost, unknown
        (numbers of requests), usd (of what is kept; NaN if no price is known), usd_unknown (most that the unknown ones
        may cost; NaN if that is not known), expires (UTC, when what waits is deleted), reason.
    """
    import pandas as pd

    with journal.reader() as database:
        jobs = [job for job in jobs_of(database, session) if job.sent and job.state != "intent"]
        used = _used(database, session)
    rows = [_of_job(job, used.pop(job.display_name, {}), now_s) for job in jobs]
    rows += [_of_calls(lane, model, found) for (lane, model), found in _by_lane(used).items()]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    frame["expires"] = pd.to_datetime(frame["expires"].astype("float64"), unit="s", utc=True)
    counts = dict.fromkeys(("sent", "billed", "kept", "waiting", "lost", "unknown"), "int64")
    return frame.astype({**counts, "job": "Int64", "usd": "float64", "usd_unknown": "float64"})


_Used = dict[tuple[str, str, str], tuple[int, float | None, float | None]]


def _used(database: sqlite3.Connection, session: str) -> dict[str, _Used]:
    """Return number, cost and bound of a session's calls by job, then by lane, model and status."""
    found: dict[str, _Used] = {}
    query = (
        "SELECT job, lane, model, status, count(*), sum(usd), sum(bound_usd) FROM usage WHERE session = ?"
        " GROUP BY job, lane, model, status"
    )
    for job, lane, model, status, count, usd, bound_usd in database.execute(query, (session,)):
        found.setdefault(job, {})[lane, model, status] = (count, usd, bound_usd)
    return found


def _by_lane(used: dict[str, _Used]) -> dict[tuple[str, str], _Used]:
    found: dict[tuple[str, str], _Used] = {}
    for calls in used.values():
        for (lane, model, status), counted in calls.items():
            found.setdefault((lane, model), {})[lane, model, status] = counted
    return found


def _of_job(job: Job, used: _Used, now_s: float) -> tuple[Any, ...]:
    kept = _count(used, ANSWERED)
    billed = max(job.answers or 0, kept)
    is_kept_there = job.expires_s is not None and now_s < job.expires_s
    missing = billed - kept
    # What the service tells nothing of may be billed; of a job that failed or expired it tells too little.
    is_untold = job.answers is None or (job.state == "cancelled" and job.rows is None)
    is_unsure = job.state in ("unknown", "failed", "expired") or (job.ended and is_untold)
    unsure = job.requests - billed if is_unsure else 0
    is_open = not job.ended or is_kept_there
    return (
        job.number,
        "batch",
        job.model,
        job.state,
        job.requests,
        billed,
        kept,
        missing if is_open else 0,
        0 if is_open else missing,
        unsure,
        _sum(used, ANSWERED, 1),
        _bound(job, unsure),
        job.expires_s if is_kept_there else None,
        job.look or job.reason,
    )


def _bound(job: Job, unsure: int) -> float | None:
    if not unsure:
        return 0.0
    return None if job.bound_usd is None else job.bound_usd * unsure / job.requests


def _of_calls(lane: str, model: str, used: _Used) -> tuple[Any, ...]:
    kept, unknown = _count(used, ANSWERED), _count(used, UNANSWERED)
    sent = sum(count for (_, _, status), (count, _, _) in used.items() if status != usage.NOT_SENT)
    usd_unknown = _sum(used, UNANSWERED, 2) if unknown else 0.0
    return None, lane, model, "", sent, kept, kept, 0, 0, unknown, _sum(used, ANSWERED, 1), usd_unknown, None, ""


def _count(used: _Used, statuses: tuple[str, ...]) -> int:
    return sum(counted[0] for (_, _, status), counted in used.items() if status in statuses)


def _sum(used: _Used, statuses: tuple[str, ...], at: int) -> float | None:
    """Return a sum over calls; None where there are some and nothing is known of any."""
    found = [counted for (_, _, status), counted in used.items() if status in statuses]
    known = [counted[at] for counted in found if counted[at] is not None]
    return float(sum(known)) if known or not found else None  # type: ignore[arg-type]  # no None is left
