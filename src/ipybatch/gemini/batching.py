"""Batching: items that wait for a remote job, gathered into jobs and answered together.

Each item is an attempt of the session that waits here:

    items --gather--> chunk --submit--> job --poll--> results --> each item its own
      ^                                  |
      |                                  +--> failed items come again, alone
      +-- jobs of an earlier process are picked up: their items wait for them, and are not sent again

Rule: what may have been sent is never sent again by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any

import msgspec

from ipybatch.engine.attempt import Attempt
from ipybatch.engine.clock import Clock
from ipybatch.engine.outcome import Outcome
from ipybatch.engine.plan import key_value
from ipybatch.errors import BatchError, ItemError, Permanent, Transient, Withheld
from ipybatch.gemini import collecting
from ipybatch.gemini.chunks import Chunk, Request, chunks
from ipybatch.gemini.job_groups import JobGroups
from ipybatch.gemini.jobs import Job, Store
from ipybatch.gemini.prompts import Prompt, Sending
from ipybatch.gemini.remote import Remote
from ipybatch.gemini.submission import Submission, polls

LINGER_S = 0.2  # how long the next item may take to come before jobs are made of those that came
TRIES = 5  # of a submission that the service did not take, and of results that could not be fetched
PAUSE_S = 2.0  # before the second; doubles
CONFIRM_S = 30.0  # how long a cancelled job may take to say so
HELD_S = 0.2

Body = dict[str, Any]


class TooLate(ItemError):
    """Say that the batch did not come back in time: the item goes another way."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How jobs are made and awaited.

    Attributes:
        max_requests: In one job.
        max_active: Jobs at the same time.
        poll_s: Before the first look at a job; grows.
        wait_s: How long results are awaited; then jobs are left running.
    """

    max_requests: int
    max_active: int
    poll_s: float
    wait_s: float


class Waiting(msgspec.Struct, frozen=True):
    """An item, and who waits for its answer."""

    key: str
    prompt: Prompt
    attempt: Attempt
    answer: asyncio.Future[Body]

    def fail(self, error: BatchError) -> None:
        """Answer with an error, unless there is an answer."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Batching:
    """The jobs of one session; of one event loop.

    Args:
        model: What answers.
        is_held: Whether nothing may be submitted just now.
    """

    def __init__(  # noqa: PLR0917  # its collaborators, each of another type
        self,
        session: str,
        model: str,
        sending: Sending,
        policy: Policy,
        remote: Remote,
        store: Store,
        groups: JobGroups,
        clock: Clock,
        is_held: Callable[[], bool],
    ) -> None:
        self._session, self.model, self._sending, self._policy = session, model, sending, policy
        self._remote, self._store, self._groups, self._clock = remote, store, groups, clock
        self._is_held = is_held
        self._submission = Submission(remote, store, clock=clock)
        self._room = asyncio.Semaphore(policy.max_active)
        self._gathered: list[Waiting] = []
        self._gathering: asyncio.TimerHandle | None = None
        self._jobs: dict[int, Job] = {}  # at the service, by number
        self._where: dict[str, int] = {}  # the job that an item is in, by its key
        self._waiting: dict[str, Waiting] = {}  # by key
        self._unrecorded: dict[int, set[Any]] = {}  # keys of items of finished jobs, by number
        self._tasks: set[asyncio.Task[None]] = set()
        self._writes: set[asyncio.Task[None]] = set()
        self._number = 0
        self._closed: BatchError | None = None  # what an item gets that comes too late
        self._was_cancelled = False

    async def __aenter__(self) -> Batching:
        """Pick up what an earlier process left running."""
        for job in self._store.of_session(self._session):
            self._number = max(self._number, job.number)
            if job.state == "intent":
                await self._store.withdraw(job)
            elif job.collected or job.state in ("failed", "cancelled", "expired"):
                self._groups.recall(job)
            else:
                self._groups.show(job)
                self._take(job)
                self._start(self._await(job))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cancel the jobs of a session that was cancelled; leave all others running."""
        jobs = list(self._jobs.values())
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._writes, return_exceptions=True)
        if self._was_cancelled:
            await self._ask_to_cancel(jobs)

    async def answer(self, prompt: Prompt, attempt: Attempt) -> Body:
        """Return the reply to a prompt, when its job is done.

        Raises:
            TooLate: `give_up` was called.
            Withheld: Its job is left running, or nobody knows whether it runs.
            ItemError: There is no reply; the type says what to do.
        """
        if self._closed is not None:
            raise self._closed
        key = key_of(self.model, self._sending, prompt, attempt.key)
        answer: asyncio.Future[Body] = asyncio.get_running_loop().create_future()
        waiting = self._waiting[key] = Waiting(key, prompt, attempt, answer)
        if key in self._where:
            attempt.join(self._where[key])
        else:
            self._gathered.append(waiting)
            self._gather_soon()
        try:
            return await answer
        except asyncio.CancelledError:
            self._was_cancelled = True
            raise
        finally:
            if self._waiting.get(key) is waiting:
                del self._waiting[key]

    def recorded(self, outcomes: Iterable[Outcome]) -> None:
        """Let go of finished jobs whose results are all on disk."""
        keys = {outcome.key for outcome in outcomes}
        for number, left in list(self._unrecorded.items()):
            left.difference_update(keys)
            if not left:
                del self._unrecorded[number]
                self._groups.end(number, "completed")
                task = asyncio.get_running_loop().create_task(self._collected(number))
                self._writes.add(task)
                task.add_done_callback(self._writes.discard)

    async def give_up(self, why: str) -> None:
        """Cancel what is not back, and let its items go another way; what comes back meanwhile counts."""
        self._closed = TooLate(why)
        self._fail(self._gathered)
        self._gathered = []
        jobs = list(self._jobs.values())
        await self._ask_to_cancel(jobs)
        deadline_s = self._clock.now_s() + CONFIRM_S
        while self._jobs and self._clock.now_s() < deadline_s:
            for job in list(self._jobs.values()):
                with suppress(BatchError):
                    self._heard(await self._submission.refresh(job))
            await asyncio.sleep(min(1.0, self._policy.poll_s))
        self._fail(self._waiting.values())

    def _gather_soon(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
        self._gathering = asyncio.get_running_loop().call_later(LINGER_S, self._gather)

    def _gather(self) -> None:
        gathered, self._gathered = [w for w in self._gathered if not w.answer.done()], []
        requests = [request for waiting in gathered if (request := self._request(waiting)) is not None]
        try:
            cut = list(chunks(requests, max_requests=self._policy.max_requests))
        except BatchError as error:
            for waiting in gathered:
                waiting.fail(error)
            return
        for chunk in cut:
            self._number += 1
            for key in chunk.keys:
                self._waiting[key].attempt.join(self._number)
            self._groups.queue(self._number, len(chunk.keys))
            self._start(self._run(self._number, chunk))

    def _request(self, waiting: Waiting) -> Request | None:
        prompt = waiting.prompt
        try:
            images = bool(prompt.images) or self._sending.wants_image(prompt.config)
            return Request.of(waiting.key, prompt.wire(self._sending), images=images)
        except BatchError as error:  # an image that is not what it was
            waiting.fail(error)
            return None

    async def _run(self, number: int, chunk: Chunk) -> None:
        keys = chunk.keys
        async with self._room:
            while self._is_held():  # noqa: ASYNC110  # the engine has no event for it, and jobs are long
                await asyncio.sleep(HELD_S)
            items = [self._waiting[key] for key in keys if key in self._waiting]
            if self._closed is not None or not items:
                self._groups.refuse(number, str(self._closed or "cancelled"))
                self._fail(items)
                return
            try:
                job = await self._submit(number, chunk)
            except BatchError as error:
                self._groups.refuse(number, str(error))
                for waiting in items:
                    waiting.fail(_uncounted(error))
                return
            del chunk
            self._take(job)
            await self._await(job)

    async def _submit(self, number: int, chunk: Chunk) -> Job:
        pause_s = PAUSE_S
        for _ in range(TRIES - 1):
            try:
                return await self._submission.submit(self._session, number, self.model, chunk)
            except Transient as error:
                await asyncio.sleep(error.retry_after_s or pause_s)
                pause_s *= 2
        return await self._submission.submit(self._session, number, self.model, chunk)

    def _take(self, job: Job) -> None:
        self._jobs[job.number] = job
        self._where.update(dict.fromkeys(job.keys, job.number))

    async def _await(self, job: Job) -> None:
        """Look at a job until it has ended, and hand out what it brought."""
        try:
            job = await self._look_until_ended(job)
            if job.state == "succeeded":
                await self._hand_out(job)
                return
            why = f"job {job.number} {job.reason or job.state}"
            error: ItemError = Permanent(why) if job.state == "cancelled" else Transient(why, counts=False)
        except ItemError as raised:
            error = raised
            if isinstance(raised, Withheld):
                self._closed = self._closed or raised
        finally:
            self._jobs.pop(job.number, None)
            self._forget(job.keys)
        for key in job.keys:
            if key in self._waiting:
                self._waiting[key].fail(self._closed or error)

    async def _look_until_ended(self, job: Job) -> Job:
        deadline_s = self._clock.now_s() + self._policy.wait_s
        for pause_s in polls(self._policy.poll_s):
            job = self._jobs[job.number]
            if job.state == "unknown":
                job = self._heard(await self._submission.adopt(job))
                if job.state == "unknown":
                    raise Withheld(job.reason)
            self._groups.show(job)
            if job.ended:
                break
            left_s = deadline_s - self._clock.now_s()
            if left_s <= 0:
                raise Withheld(_left_running(len(self._jobs), self._policy.wait_s))
            await asyncio.sleep(min(pause_s, left_s))
            with suppress(Transient):
                self._heard(await self._submission.refresh(self._jobs[job.number]))
        return job

    def _heard(self, job: Job) -> Job:
        if job.number in self._jobs:
            self._jobs[job.number] = job
        return job

    async def _hand_out(self, job: Job) -> None:
        items = [self._waiting[key] for key in job.keys if key in self._waiting]
        self._unrecorded[job.number] = {key_value(waiting.attempt.key) for waiting in items}
        for left in reversed(range(TRIES)):
            try:
                async for key, body in collecting.results(self._remote, job):
                    self._answer(key, body)
            except Transient:
                if not left:
                    raise
                await asyncio.sleep(self._policy.poll_s)
            else:
                return

    def _answer(self, key: str, body: Body | ItemError) -> None:
        waiting = self._waiting.get(key)
        if waiting is None:
            return
        self._where.pop(key, None)  # when it comes again, it goes into another job
        if isinstance(body, ItemError):
            waiting.fail(_uncounted(body))
        elif not waiting.answer.done():
            waiting.answer.set_result(body)

    async def _collected(self, number: int) -> None:
        for job in self._store.of_session(self._session):
            if job.number == number and job.state == "succeeded":
                await self._store.put(msgspec.structs.replace(job, collected=True))

    async def _ask_to_cancel(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            if job.remote and not job.ended:
                with suppress(BatchError):
                    await self._remote.cancel(job.remote)

    def _fail(self, items: Iterable[Waiting]) -> None:
        for waiting in list(items):
            waiting.fail(self._closed or Permanent("its job was not submitted"))

    def _forget(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._where.pop(key, None)

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def key_of(model: str, sending: Sending, prompt: Prompt, key: str) -> str:
    """Return what an item is known by in a job: a hash of its key and all that is sent."""
    sent = msgspec.json.encode((model, key, sending.settings(), prompt), order="deterministic")
    return hashlib.blake2b(sent, digest_size=12).hexdigest()


def _uncounted(error: BatchError) -> BatchError:
    """Return the error of one item as one that says nothing of the service as a whole."""
    return Transient(str(error), counts=False) if isinstance(error, Transient) else error


def _left_running(jobs: int, wait_s: float) -> str:
    which = "1 job is" if jobs == 1 else f"{jobs} jobs are"
    return f"{which} still running at Gemini after {wait_s:g} s: run it again to pick up the results"
