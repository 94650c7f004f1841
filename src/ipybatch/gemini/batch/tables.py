"""Tables of jobs, and of the answers in them, for `GeminiBatches`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from ipybatch.engine.data.plan import key_value
from ipybatch.engine.store.journal import Journal
from ipybatch.errors import ItemError, Permanent
from ipybatch.gemini.batch.jobs import Job
from ipybatch.gemini.batch.results import Result, Unanswered, Unmatched
from ipybatch.gemini.images import ImageStore
from ipybatch.gemini.money.budget import Money
from ipybatch.gemini.money.credits import find_credits
from ipybatch.gemini.money.usage import Call, record_calls
from ipybatch.gemini.service.api import Operation
from ipybatch.gemini.service.reply import Answer, Tokens, read_answer, result_of
from ipybatch.gemini.service.request_config import Schema
from ipybatch.gemini.service.whole_reply import IMAGES, names_beside

if TYPE_CHECKING:
    import pandas as pd


class RowReader(msgspec.Struct, frozen=True):
    """Reads answers as rows, and records what they cost.

    Attributes:
        journal: Where the usage is recorded.
        money: The prices.
        images: Where images are saved; None: nowhere.
        schema: The schema of answers; None: any text.
    """

    journal: Journal
    money: Money
    images: ImageStore | None = None
    schema: Schema | None = None

    def rows(self, job: Job, places: Mapping[str, int], block: Iterable[Result]) -> dict[str, dict[str, Any]]:
        """Return the rows of those items of which there is an answer or an error, by key, and record their usage.

        Args:
            places: Place of each item in the job, by key.
        """
        rows, calls = {}, []
        for key, body in block:
            if isinstance(body, Unanswered):
                continue
            rows[key], call = self._read(job, places[key], key, body)
            calls += [] if call is None else [call]
        record_calls(self.journal, *calls)
        return rows

    def _read(
        self, job: Job, place: int, key: str, body: Mapping[str, Any] | ItemError
    ) -> tuple[dict[str, Any], Call | None]:
        """Return an item's row, and its answer's usage; nothing is billed for an error of the service."""
        row = {"key": key_value(key), "status": "completed", "error": ""}
        billed = body.body if isinstance(body, Unmatched) else body
        if isinstance(billed, ItemError):
            return {**row, "status": "failed", "error": str(billed)}, None
        try:
            answer = read_answer(dict(billed))
        except ItemError as error:  # of one item: the others' answers are read all the same
            return {**row, "status": "failed", "error": str(error)}, None
        usd = self.money.usd(job.model, answer.tokens, "batch")
        status, data, unusable = self._judge(answer) if billed is body else ("unmatched", msgspec.UNSET, body)
        files, dropped = list[str](), names_beside(answer.body)
        try:
            if answer.images and self.images is not None:
                files = self.images.save(key if billed is body else f"{key} unmatched", answer.images)
        except ItemError as error:
            unusable = unusable or error
        if len(files) < len(answer.images):
            dropped.append(IMAGES)
        result = result_of(answer, usd=usd, data=data, files=files)
        if billed is not body:  # in no column where anybody looks for an answer
            result = {"unmatched": result.pop("text"), **result}
        row |= result
        if dropped:
            row["dropped"] = ", ".join(dropped)
        if unusable is not None:
            row |= {"status": "failed", "error": str(unusable)}
        return row, _call(job, place, key, status, answer.tokens, usd)

    def _judge(self, answer: Answer) -> tuple[str, Any, ItemError | None]:
        """Return an answer's status in the usage, its data under the schema, and the error of one that is unusable."""
        if answer.verdict != "ok":
            return answer.verdict, msgspec.UNSET, Permanent(answer.reason)
        try:
            return "ok", msgspec.UNSET if self.schema is None else self.schema.parse(answer.text), None
        except Permanent as error:
            return "invalid", msgspec.UNSET, error


def _call(job: Job, place: int, key: str, status: str, tokens: Tokens, usd: Decimal | None) -> Call:  # noqa: PLR0917
    labels = job.labels or (("text", ""),)
    operation, project = labels[place] if len(labels) > 1 else labels[0]
    return Call(
        at_s=job.ended_s or job.updated_s,  # the same, whenever it is read
        session=job.session,
        lane="batch",
        model=job.model,
        operation=operation,
        project=project,
        status=status,
        tokens=tokens,
        usd=usd,
        credits=find_credits(operation, 1, "batch") if status == "ok" else None,
        job=job.display_name,
        item=key,
    )


def joined(jobs: Sequence[Job], listed: Iterable[Operation]) -> pd.DataFrame:
    """Return a `table` of the jobs in the journal and all others that the service lists, with a column ``ours``."""
    by_name = {operation.name: operation for operation in listed}
    known = {job.remote for job in jobs}
    mine = [_with_counts(job, by_name.get(job.remote)) for job in jobs]
    others = [_foreign(operation) for name, operation in by_name.items() if name not in known]
    return table([*mine, *others]).assign(ours=[True] * len(mine) + [False] * len(others))


def table(jobs: Sequence[Job]) -> pd.DataFrame:
    """Return one row per job.

    Columns: name, display_name, remote, number, model, state, requests, successful, failed, pending (as last reported
    by the service), created and ended (UTC), reason, collected.
    """
    import pandas as pd

    columns: dict[str, Any] = {
        "name": [job.session for job in jobs],
        **{
            name: [getattr(job, name) for job in jobs]
            for name in ("display_name", "remote", "number", "model", "state")
        },
        "requests": [job.requests or job.counts.get("requests", 0) for job in jobs],
        **{name: [job.counts.get(name) for job in jobs] for name in ("successful", "failed", "pending")},
        "created": _times([job.created_s or None for job in jobs]),
        "ended": _times([job.ended_s for job in jobs]),
        "reason": [job.reason for job in jobs],
        "collected": [job.collected for job in jobs],
    }
    return pd.DataFrame(columns)


def history(jobs: Sequence[Job], spent: Mapping[str, tuple[float | None, Decimal]]) -> pd.DataFrame:
    """Return a `table` of jobs with what came of them.

    Args:
        spent: USD and credits of a job's answers, by its display name.
    """
    made = [job.answers if job.ended else None for job in jobs]
    costs = [spent.get(job.display_name, (None, None)) for job in jobs]
    columns: dict[str, Any] = {
        "successful": made,
        "failed": [None if count is None else job.requests - count for job, count in zip(jobs, made, strict=True)],
        "usd": [usd for usd, _ in costs],
        "credits": [taken for _, taken in costs],
    }
    return table(jobs).drop(columns="pending").assign(**columns)


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
