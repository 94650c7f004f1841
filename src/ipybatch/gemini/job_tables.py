"""Job tables: remote jobs as DataFrames, one row each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ipybatch.gemini.jobs import Job
from ipybatch.gemini.remote import Operation

if TYPE_CHECKING:
    import pandas as pd


def joined(jobs: Sequence[Job], listed: Iterable[Operation]) -> pd.DataFrame:
    """Return our jobs beside all that the service lists, as `table`; ``ours`` tells which are in the journal."""
    by_name = {operation.name: operation for operation in listed}
    known = {job.remote for job in jobs}
    mine = [_with_counts(job, by_name.get(job.remote)) for job in jobs]
    others = [_foreign(operation) for name, operation in by_name.items() if name not in known]
    return table([*mine, *others]).assign(ours=[True] * len(mine) + [False] * len(others))


def table(jobs: Sequence[Job]) -> pd.DataFrame:
    """Return one row per job.

    Columns: name, display_name, remote, number, model, state, requests, successful, failed, pending (as the
    service last said), created and ended (UTC), reason, collected.
    """
    import pandas as pd

    columns: dict[str, Any] = {
        "name": [job.session for job in jobs],
        "display_name": [job.display_name for job in jobs],
        "remote": [job.remote for job in jobs],
        "number": [job.number for job in jobs],
        "model": [job.model for job in jobs],
        "state": [job.state for job in jobs],
        "requests": [job.requests or job.counts.get("requests", 0) for job in jobs],
        "successful": [job.counts.get("successful") for job in jobs],
        "failed": [job.counts.get("failed") for job in jobs],
        "pending": [job.counts.get("pending") for job in jobs],
        "created": _times([job.created_s or None for job in jobs]),
        "ended": _times([job.ended_s for job in jobs]),
        "reason": [job.reason for job in jobs],
        "collected": [job.collected for job in jobs],
    }
    return pd.DataFrame(columns)


def _with_counts(job: Job, operation: Operation | None) -> Job:
    if operation is None:
        return job
    return msgspec.structs.replace(job, state=operation.state, counts=operation.counts)


def _foreign(operation: Operation) -> Job:
    return Job(
        display_name=operation.display_name,
        session="",
        number=0,
        model=operation.model,
        keys=(),
        state=operation.state,
        remote=operation.name,
        reason=operation.reason,
        counts=operation.counts,
    )


def _times(unix_s: list[Any]) -> pd.Series[Any]:
    import pandas as pd

    return pd.to_datetime(pd.Series(unix_s, dtype="float64"), unit="s", utc=True)
