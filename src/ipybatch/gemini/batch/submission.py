"""Submission of batch jobs: each chunk uploaded once and submitted once, whatever fails.

Rule: only an intent is sent, and it is marked as sent before.  Whether a job was accepted in doubt is looked up in the
service's list, and never found out by sending it again.

    intend --> upload --> wait until ACTIVE --> mark as sent --> create --> accepted: pending, running ...
                 ^                                  ^              |------> refused for now, and the list, which can
                 |                                  `--------------|          be read, has none: an intent with its file
                 `-- not again while its file is there, also      |------> rejected: failed, the error is raised
                     not by another process                        `------> in doubt: list until found --> adopted
                                                                              `--> not found in time: unknown

The service has no idempotency key; a unique display name is the only handle.

Source: https://ai.google.dev/gemini-api/docs/files (2026-11-30): files are removed after 48 hours.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress

import msgspec

from ipybatch.engine.data.clock import Clock, SystemClock
from ipybatch.errors import BatchError, Permanent, RateLimited, Refused, Transient
from ipybatch.gemini.batch.jobs import ENDED, Job, JobStore, display_name
from ipybatch.gemini.batch.spool import Spooled
from ipybatch.gemini.service.api import Api, Missing, NotReady, NotSent, Operation

GRACE_S = 120.0
FIRST_PAUSE_S = 0.5
LONGEST_POLL_S = 300.0
LONGEST_FILE_PAUSE_S = 30.0
FILE_WAIT_S = 1800.0  # for a file to become ACTIVE
FILE_LEFT_S = 3600.0  # least time until a file is removed: the job has to be created, and its requests read


class FileLost(Transient):
    """The file of an intent cannot be used: the journal keeps no trace of the intent, and the requests need another."""


class Unseen(msgspec.Struct, frozen=True):
    """A job that a look at the service did not find.

    Attributes:
        why: Why, in one line.
        is_told: Whether the service told that it has none; else it could not be asked.
    """

    why: str
    is_told: bool


class Submission:
    """Submits jobs and follows them.

    Args:
        api: The service.
        store: Where jobs are recorded.
        grace_s: Time for which a job in doubt is looked up before it is unknown, seconds.
        clock: The clock.
    """

    def __init__(self, api: Api, store: JobStore, *, grace_s: float = GRACE_S, clock: Clock | None = None) -> None:
        self._api = api
        self._store = store
        self._grace_s = grace_s
        self._clock = clock or SystemClock()
        self._active: set[str] = set()  # files that are ready

    async def upload(
        self,
        session: str,
        number: int,
        model: str,
        spooled: Spooled,
        *,
        once: bool = False,
        bound_usd: float | None = None,
    ) -> Job:
        """Upload a chunk, unless an earlier intent of the session has its file, and return the intent of a job.

        Raises:
            ItemError: The upload failed; the journal keeps no trace of it.
            Fenced: Another process submits it.
            InputError: With ``once``, a job of this session and number was submitted before.
        """
        name = display_name(session, number, spooled.digest)
        job = Job(
            display_name=name,
            session=session,
            number=number,
            model=model,
            keys=spooled.keys,
            account=self._api.account,
            labels=spooled.labels,
            bound_usd=bound_usd,
        )
        held = self._held(session, spooled)
        if held is not None and await self._is_there(held):
            job = msgspec.structs.replace(job, file=held.file)
        job = await self._store.intend(job, once=once, instead_of=held)
        if job.file:
            return job
        try:
            file = await self._api.upload(spooled.path, name)
            if file.state == "ACTIVE":
                self._active.add(file.name)
            return await self._store.put(msgspec.structs.replace(job, file=file.name))
        except Exception:
            await self._store.withdraw(job)
            raise

    async def wait_for_file(self, job: Job) -> None:
        """Wait until the service has processed the file of an intent.

        Raises:
            FileLost: The file is gone, or could not be processed.
            Transient: It is not ready in time.
            ItemError: There is no answer.
        """
        deadline_s, pause_s = self._clock.now_s() + FILE_WAIT_S, FIRST_PAUSE_S
        while job.file not in self._active:
            try:
                state, why = (file := await self._api.file(job.file)).state, file.reason
            except Missing as error:
                state, why = "gone", str(error)
            if state == "ACTIVE":
                self._active.add(job.file)
            elif state in ("FAILED", "gone"):
                await self.discard(job)
                what = "has lost" if state == "gone" else "could not process"
                msg = f"Gemini {what} the uploaded requests: {why}"
                raise FileLost(msg)
            elif self._clock.now_s() >= deadline_s:
                msg = f"Gemini has not processed the uploaded requests within {FILE_WAIT_S:g} s: {job.file} is {state}"
                raise Transient(msg)
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_FILE_PAUSE_S)

    async def create(self, job: Job) -> Job:
        """Create the job of an intent with a file, and return it in a remote state, or ``unknown`` with the reason.

        Raises:
            Permanent: The service rejects the job.
            Refused: The service rejects the key or the account.
            RateLimited: The service rejects the job for now, and lists none; it is an intent again.
            Transient: The job was not sent, or its file is not ready; it is an intent again.
            Fenced: Another process submits it.
        """
        job = await self._store.send(job)
        self._active.discard(job.file)  # should the job be refused: by the next time it may be gone
        try:
            accepted = await self._api.create(job.model, job.display_name, job.file)
        except (NotSent, NotReady) as error:
            await self._store.hold(job, str(error))
            raise
        except RateLimited as error:
            # As far as we know it then accepts nothing; a look-up is free, and a second job is not.
            found = await self._find(job, is_refused=True)
            if isinstance(found, Operation) or not found.is_told:
                return await self._adopt(job, found)
            await self._store.hold(job, str(error))
            raise
        except (Permanent, Refused) as error:
            job = await self._store.put(msgspec.structs.replace(job, state="failed", reason=f"not accepted: {error}"))
            await self.tidy(job)
            raise
        except Transient:
            return await self.adopt(job)
        return await self._store.put(reported(job, accepted), only="unknown")

    async def tidy(self, job: Job) -> Job:
        """Delete the file of a job that has ended, if the service lets us; what is left can be tried again later."""
        if not job.file:
            return job
        try:
            await self._api.delete(job.file)
            return await self._store.put(msgspec.structs.replace(job, file=""))
        except BatchError:
            return job

    async def discard(self, job: Job) -> None:
        """Delete an intent, and its file if the service lets us."""
        if job.file:
            with suppress(BatchError):
                await self._api.delete(job.file)
        await self._store.withdraw(job)

    async def adopt(self, job: Job) -> Job:
        """Look a job in doubt up in the service's list, repeatedly within the grace time.

        Raises:
            Fenced: The job is no longer in the journal.
        """
        return await self._adopt(job, await self._find(job))

    async def _adopt(self, job: Job, found: Operation | Unseen) -> Job:
        if isinstance(found, Operation):
            return await self._store.put(reported(job, found))
        return await self._store.put(
            msgspec.structs.replace(job, state="unknown", reason=self._why_lost(job, found.why))
        )

    async def _find(self, job: Job, *, is_refused: bool = False) -> Operation | Unseen:
        """Look a job up repeatedly within the grace time.

        Args:
            is_refused: The service has said that it does not accept it: to be told that there is none is enough.
        """
        deadline_s, pause_s = self._clock.now_s() + self._grace_s, FIRST_PAUSE_S
        while isinstance(found := await self._look(job), Unseen) and not (is_refused and found.is_told):
            left_s = deadline_s - self._clock.now_s()
            if left_s <= 0:
                break
            await asyncio.sleep(min(pause_s, left_s))
            pause_s *= 2
        return found

    async def refresh(self, job: Job) -> Job:
        """Request and record a job's present state, once; a job in doubt is looked up once.

        Raises:
            Transient: There is no answer; the job is unchanged.
            Refused: The service rejects the key or the account.
            Fenced: The job is no longer in the journal.
        """
        if job.ended or job.state == "intent":
            return job
        if not job.remote:
            found = await self._look(job)
            return job if isinstance(found, Unseen) else await self._store.put(reported(job, found))
        try:
            return await self._store.put(reported(job, await self._api.get(job.remote)))
        except Missing as error:  # the list may show it all the same; and to another key it shows nothing
            found = await self._look(job)
            return await self._adopt(job, Unseen(str(error), is_told=True) if isinstance(found, Unseen) else found)

    async def wait(self, jobs: Sequence[Job], *, poll_s: float, wait_s: float) -> list[Job]:
        """Poll until all jobs have ended, or ``wait_s`` is over; a poll without an answer is repeated.

        Args:
            jobs: The jobs.
            poll_s: Time between the first two polls, seconds; grows to 300.
            wait_s: Longest wait, seconds.

        Raises:
            Refused: The service rejects the key or the account.
            Fenced: A job is no longer in the journal.
        """
        deadline_s = self._clock.now_s() + wait_s
        for pause_s in polls(poll_s):
            jobs = [await self._try(job) for job in jobs]
            left_s = deadline_s - self._clock.now_s()
            if left_s <= 0 or all(job.ended or not job.sent for job in jobs):
                break
            await asyncio.sleep(min(pause_s, left_s))
        return list(jobs)

    async def _try(self, job: Job) -> Job:
        try:
            return await self.refresh(job)
        except Transient:
            return job

    async def _look(self, job: Job) -> Operation | Unseen:
        """Return the job as the service shows or lists it."""
        try:
            if job.remote:
                with suppress(Missing):
                    return await self._api.get(job.remote)
            found = await self._api.find(job.display_name)
        except BatchError as error:
            return Unseen(f"the service could not be asked: {error}", is_told=False)
        return found or Unseen("the service does not list it", is_told=True)

    def _held(self, session: str, spooled: Spooled) -> Job | None:
        """Return the intent that has the file of these requests already."""
        found = self._store.find("WHERE session = ? AND state = 'intent' AND file != ''", (session,))
        same = [job for job in found if job.digest == spooled.digest and job.keys == spooled.keys]
        return same[-1] if same else None

    async def _is_there(self, held: Job) -> bool:
        """Say whether the file of an intent can still be used."""
        try:
            file = await self._api.file(held.file)
        except Missing:
            return False
        left_s = math.inf if file.expires_s is None else file.expires_s - self._clock.unix_s()
        return file.state != "FAILED" and left_s > FILE_LEFT_S

    def _why_lost(self, job: Job, why: str) -> str:
        """Return what is said of a job that the service does not show."""
        if job.account and job.account != self._api.account:
            return (
                f"job {job.number} belongs to another key: the one in use shows nothing of it ({why}). Nothing is sent;"
                " use the key that sent it, or session.resend() to pay for it again, of jobs by hand forget()"
            )
        return _lost(job, why) if job.remote else _unanswered(job, why)


def _unanswered(job: Job, why: str) -> str:
    """Return what is said of a job that was sent, and may not have arrived."""
    return (
        f"unknown: {job.display_name} was sent and no answer came; {why}. It is not sent again by itself: run it again"
        " to look for it, or give it up with session.resend(), of jobs by hand with forget()"
    )


def _lost(job: Job, why: str) -> str:
    """Return what is said of a job that was there, and that the service does not show any more."""
    return (
        f"unknown: the service shows no job {job.number} to this key ({why}). It may belong to another key, or be"
        " deleted. It is not sent again by itself: run it again to look for it, or give it up with session.resend(), of"
        " jobs by hand with forget()"
    )


def reported(job: Job, operation: Operation) -> Job:
    """Return a job updated by the service's report."""
    found = msgspec.structs.replace(
        job,
        remote=operation.name,
        state=operation.state,
        counts=operation.counts,
        look="",
        answers=job.told_answers(operation.counts) or job.answers,
        reason=operation.reason,
        ended_s=operation.ended_s if job.ended_s is None and operation.state in ENDED else job.ended_s,
    )
    # Who cancelled it decides what becomes of its items, in a later process too.
    return found.as_cancelled_here() if job.was_cancelled_here else found


def polls(poll_s: float, chance: random.Random | None = None) -> Iterator[float]:
    """Yield the pauses between polls, seconds: growing by half up to 300, with a jitter of a tenth."""
    chance = chance or random.Random()
    wait_s = poll_s
    while True:
        yield wait_s * chance.uniform(0.9, 1.1)
        wait_s = min(wait_s * 1.5, max(LONGEST_POLL_S, poll_s))
