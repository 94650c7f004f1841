"""Batch jobs by hand, from a cell or a script.

The same call again is the same batch: it is found in the journal, and only requests that were never sent are sent.  So
a cell may be run again, also after a crash.
"""

from __future__ import annotations

import asyncio
import builtins
import hashlib
from collections.abc import Coroutine, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ipybatch.engine.data.clock import SystemClock
from ipybatch.engine.data.masking import mask_registered
from ipybatch.engine.data.plan import key_value
from ipybatch.engine.data.policy import check, check_count
from ipybatch.engine.run.engine_thread import engine_thread
from ipybatch.engine.store.journal import open_journal
from ipybatch.errors import InputError
from ipybatch.gemini.batch import results
from ipybatch.gemini.batch.jobs import Job, JobStore, digest_of
from ipybatch.gemini.batch.spool import MAX_REQUESTS, BatchRequest, Chunk, chunks, spooled
from ipybatch.gemini.batch.submission import GRACE_S, Submission
from ipybatch.gemini.batch.tables import RowReader, history, joined, table
from ipybatch.gemini.images import ImageStore
from ipybatch.gemini.money.budget import Budget, Money
from ipybatch.gemini.money.prices import Prices, check_prices
from ipybatch.gemini.money.usage import spent_by_job
from ipybatch.gemini.prompts import Prompt, to_prompts
from ipybatch.gemini.service.api import Api, Operation
from ipybatch.gemini.service.client import connect
from ipybatch.gemini.service.request_config import RequestConfig, Schema

if TYPE_CHECKING:
    import pandas as pd


T = TypeVar("T")


_canonical = msgspec.json.Encoder(order="deterministic").encode


class GeminiBatches:
    """Submits, follows, collects and deletes batch jobs.

    A batch has a name and is one job, or several if its prompts do not fit into one.  Every argument ``name`` may also
    be a job's display name or ``batches/ID``.

    Args:
        api_key: Default: ``GEMINI_API_KEY``, else ``GOOGLE_API_KEY``.
        base_url: Address of another server, such as a simulator.
        client: A `google.genai.Client` of the user's own.
        journal: Path of the journal of jobs; default: the common one.
        prices: Your own prices, USD per million tokens; see `ipybatch.gemini.price_of`.
        grace_s: Time for which a job is looked up whose submission was not answered, seconds, >= 0.

    Raises:
        InputError: An argument is invalid, or there is no key.
        MissingExtra: google-genai is not installed.
    """

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        client: Any = None,
        journal: str | Path | None = None,
        *,
        prices: Prices | None = None,
        grace_s: float = GRACE_S,
    ) -> None:
        grace_s = check("grace_s", grace_s, low=0)
        self._own_client = client is None
        self._client = connect(api_key, base_url, client)
        self._journal = open_journal(journal)
        self._money = Money(Budget(None), check_prices(prices) or None)
        self._store = JobStore(self._journal)
        self._api = Api(self._client)
        self._submission = Submission(self._api, self._store, grace_s=grace_s)

    def __repr__(self) -> str:
        return "GeminiBatches()"

    def __enter__(self) -> GeminiBatches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the client, unless it is the user's own."""
        if self._own_client:
            _wait_for(self._client.aio.aclose())
            self._client.close()

    def create_text(
        self,
        prompts: Iterable[Any],
        *,
        model: str,
        name: str | None = None,
        system: str | None = None,
        template: str | None = None,
        schema: Any = None,
        max_requests_per_job: int = MAX_REQUESTS,
        **config: Any,
    ) -> str:
        """Submit prompts for text, and return the batch's name.

        Args:
            prompts: Prompts in a form that `generate` accepts: texts, dicts, or a DataFrame with ``template``.
            model: Name of the model.
            name: Name of the batch; default: a hash of the requests, so that the same call again finds the batch.
            system: The system instruction.
            template: A text with columns in braces.
            schema: The schema of answers.
            max_requests_per_job: Most prompts in one job, >= 1.
            config: Generation config, with the field names of `GenerateContentConfig`.

        Raises:
            InputError: A prompt or a setting is invalid, or ``name`` has other prompts.
            ItemError: The service rejected a job.
        """
        request_config = RequestConfig(system=system, config=config, schema=schema, lane="batch")
        return self._create(to_prompts(prompts, template=template), request_config, model, name, max_requests_per_job)

    def create_image(
        self,
        prompts: Iterable[Any],
        *,
        model: str,
        name: str | None = None,
        system: str | None = None,
        template: str | None = None,
        max_requests_per_job: int = MAX_REQUESTS,
        **config: Any,
    ) -> str:
        """Submit prompts for images, and return the batch's name; arguments as for `create_text`.

        Raises:
            InputError: A prompt or a setting is invalid, or ``name`` has other prompts.
            ItemError: The service rejected a job.
        """
        request_config = RequestConfig(system=system, config=config, modalities=("TEXT", "IMAGE"), lane="batch")
        made = to_prompts(prompts, template=template, operation="image")
        return self._create(made, request_config, model, name, max_requests_per_job)

    def status(self, name: str) -> pd.DataFrame:
        """Request the present state of a batch: one row per job, with the columns of `history` and counts.

        Raises:
            InputError: There is no such batch.
            ItemError: There is no answer.
        """
        jobs = self._jobs(name)
        return table(_wait_for(_each(self._submission.refresh, jobs)))

    def wait(self, name: str, poll_s: float = 30.0, wait_s: float = 7200.0) -> pd.DataFrame:
        """Wait until every job of a batch has ended, or ``wait_s`` is over; then jobs are left running.

        Args:
            name: Name of the batch.
            poll_s: Time between the first two polls, seconds, > 0; grows to 300.
            wait_s: Longest wait, seconds, >= 0.

        Raises:
            InputError: An argument is invalid.
            ItemError: The service rejects the key.
        """
        poll_s, wait_s = check("poll_s", poll_s, low=0, above=True), check("wait_s", wait_s, low=0)
        return table(_wait_for(self._submission.wait(self._jobs(name), poll_s=poll_s, wait_s=wait_s)))

    def results(self, name: str, folder: str | Path | None = None, schema: Any = None) -> pd.DataFrame:
        """Return one row per prompt, in the order sent: key, status, error, and the columns of the result.

        Status is "completed", "failed", or "pending" while its job runs; what was received of one that failed stands
        in its row, and ``dropped`` names what came beside an answer.  What the answers cost is recorded, once; see
        `ipybatch.gemini.usage`.

        Args:
            name: Name of the batch.
            folder: Where images are saved; without it they are not saved.
            schema: The schema of answers, whose data then replaces their text.

        Raises:
            InputError: An argument is invalid.
            ItemError: The results could not be fetched.
        """
        import pandas as pd

        images = None if folder is None else ImageStore(folder)
        reader = RowReader(self._journal, self._money, images, None if schema is None else Schema.of(schema))
        rows = _wait_for(self._results(self._jobs(name), reader))
        return pd.DataFrame(rows, columns=None if rows else ["key", "status", "error"])

    def cancel(self, name: str) -> pd.DataFrame:
        """Cancel the running jobs of a batch; they may run on for a while, and have no results.

        Raises:
            InputError: There is no such batch.
            ItemError: The request failed.
        """
        return table(_wait_for(_each(self._cancel, self._jobs(name))))

    def delete(self, name: str, *, force: bool = False) -> None:
        """Delete the jobs of a batch, their files, and their records in the journal.

        Deleting does not cancel: a running job would run on unseen, and be billed.  So it is not deleted.

        Args:
            name: Name of the batch.
            force: Cancel running jobs first, and forget those in doubt.

        Raises:
            InputError: There is no such batch, or a job of it runs, or may.
            ItemError: A request failed.
        """
        jobs = _wait_for(_each(self._submission.refresh, self._jobs(name)))
        busy = [job for job in jobs if not job.ended and job.sent]
        if busy and not force:
            msg = (
                f"{busy[0].display_name} is {busy[0].state}, and deleting does not cancel it: it would run on and be"
                " billed; cancel() it first, or delete(..., force=True) to do both"
            )
            raise InputError(msg)
        _wait_for(_each(self._delete, jobs))

    def forget(self, name: str) -> None:
        """Forget the ``unknown`` jobs of a batch: the same call then sends their prompts again.

        They are looked up once more before; a job that is found is kept.

        Raises:
            InputError: There is no such batch.
            ItemError: There is no answer.
        """
        for job in _wait_for(_each(self._submission.refresh, self._jobs(name))):
            if job.state == "unknown":
                _wait_for(self._store.withdraw(job))

    def list(self) -> pd.DataFrame:
        """Return one row per job at the service or in the journal; ``ours`` says whether it is in the journal.

        Raises:
            ItemError: There is no answer.
        """
        return joined(self._store.find(), _wait_for(self._listed()))

    def history(self) -> pd.DataFrame:
        """Return one row per job in the journal, those of sessions too, oldest first; no request is sent.

        Columns: name, display_name, remote, number, model, state, requests, successful and failed (of jobs that ended,
        as last reported), created (UTC), ended, reason, collected, usd and credits (of the answers that were read;
        credits where the operation has a price in them).
        """
        return history(self._store.find(), spent_by_job(self._journal))

    def _create(
        self, prompts: Sequence[Prompt], request_config: RequestConfig, model: str, name: str | None, most: int
    ) -> str:
        if not prompts:
            msg = "prompts must hold at least one prompt, got none"
            raise InputError(msg)
        most = check_count("max_requests_per_job", most, low=1)
        requests: builtins.list[BatchRequest] = []
        seen: dict[str, int] = {}
        for number, prompt in enumerate(prompts):
            key = mask_registered(_canonical(prompt.id).decode())  # a text may be its own key, and keys are recorded
            first = seen.setdefault(key, number)
            if first != number:
                msg = f"prompts {first} and {number} have the same key {prompt.id!r}: give each an id of its own"
                raise InputError(msg)
            requests.append(BatchRequest.of(key, prompt, request_config))
        called = name or _name_of(prompts[0].operation, model, requests)
        _wait_for(self._submit(called, model, list(chunks(requests, max_requests=most))))
        return called

    async def _submit(self, name: str, model: str, cut: Sequence[Chunk]) -> None:
        known = {job.number: job for job in self._store.of_session(name) if job.sent}
        sent = [digest_of(model, (request.sent() for request in chunk.requests)) for chunk in cut]
        if any(number >= len(cut) or job.digest != sent[number] for number, job in known.items()):
            msg = f"name must be new for other prompts, got {name!r}, which has jobs already: choose another name="
            raise InputError(msg)
        for number, chunk in enumerate(cut):
            if number not in known:
                await self._send(name, number, model, chunk)
            elif known[number].state == "unknown":
                await self._submission.adopt(known[number])

    async def _send(self, name: str, number: int, model: str, chunk: Chunk) -> None:
        async with spooled(model, chunk, SystemClock()) as written:
            for error in written.failed.values():
                raise error
            job = await self._submission.upload(name, number, model, written, once=True)
        await self._submission.wait_for_file(job)
        await self._submission.create(job)

    async def _results(self, jobs: Sequence[Job], reader: RowReader) -> builtins.list[dict[str, Any]]:
        rows: builtins.list[dict[str, Any]] = []
        for job in await _each(self._submission.refresh, jobs):
            status = "failed" if job.ended and job.state != "succeeded" else "pending"
            found = {key: {"key": key_value(key), "status": status, "error": _why(job)} for key in job.keys}
            if job.ended and job.remote:
                places = {key: place for place, key in enumerate(job.keys)}
                async with results.fetch(self._api, job) as output:
                    async for block in output.blocks(is_last=True):
                        found |= await asyncio.to_thread(reader.rows, job, places, block)
                    is_whole = output.is_whole
                if is_whole:
                    await self._submission.tidy(await self._store.collect(job))
            rows += [found[key] for key in job.keys]
        return rows

    async def _cancel(self, job: Job) -> Job:
        if job.remote and not job.ended:
            await self._api.cancel(job.remote)
        return await self._submission.refresh(job)

    async def _delete(self, job: Job) -> Job:
        if job.remote and not job.ended:
            await self._api.cancel(job.remote)
        for name in (job.remote, job.file):
            if name:
                await self._api.delete(name)
        await self._store.withdraw(job)
        return job

    async def _listed(self) -> builtins.list[Operation]:
        return [operation async for operation in self._api.list()]

    def _jobs(self, name: str) -> builtins.list[Job]:
        found = self._store.of_session(name)
        one = self._store.named(name) if not found else None
        if one is not None:
            return [one]
        if not found:
            msg = f"name must be that of a batch or a job, got {name!r}: see history() for those in the journal"
            raise InputError(msg)
        return found


def _wait_for(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the engine's thread and wait for it; the notebook's own loop does not matter."""
    return engine_thread().wait(coroutine)


def _why(job: Job) -> str:
    return job.reason or ("results incomplete: it has no answer yet" if job.state == "succeeded" else "")


async def _each(what: Any, jobs: Iterable[Job]) -> list[Job]:
    return [await what(job) for job in jobs]


def _name_of(operation: str, model: str, requests: Sequence[BatchRequest]) -> str:
    found = hashlib.blake2b(model.encode(), digest_size=5)
    for request in requests:
        found.update(request.sent())
    return f"{operation}-{found.hexdigest()}"
