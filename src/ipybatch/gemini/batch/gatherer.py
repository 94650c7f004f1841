"""Gathers the items of a session into batch jobs, and follows these.

Each item is an attempt of the session that waits here:

    items --gather--> chunk --write--> file --upload--> job --poll--> results --> each item its own
      ^                                                  |
      |                                                  +--> failed items are gathered again, without the others
      +-- jobs of an earlier process are picked up: their items wait for them, and are not sent again

Rule: a request that may have been sent is never sent again by itself.

Rule: nothing here holds the loop for long: items are cut into chunks in portions, and one chunk at a time is written,
in a thread, and uploaded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import msgspec

from ipybatch.engine.data.clock import Clock
from ipybatch.engine.data.events import State
from ipybatch.engine.data.masking import describe
from ipybatch.engine.data.outcome import Outcome
from ipybatch.engine.run.attempt import Attempt
from ipybatch.errors import BatchError, ItemError, Permanent, RateLimited, Refused, Transient, Withheld
from ipybatch.gemini.batch import results
from ipybatch.gemini.batch.jobs import CANCELLING, Job, JobGroups, JobIndex, JobStore
from ipybatch.gemini.batch.results import BatchPolicy, Body, PendingItem, TooLate, key_of
from ipybatch.gemini.batch.spool import BatchRequest, Chunk, chunks, spooled
from ipybatch.gemini.batch.submission import Submission, polls
from ipybatch.gemini.prompts import Prompt
from ipybatch.gemini.service.api import Api, NotReady, StoreFull
from ipybatch.gemini.service.request_config import RequestConfig

T = TypeVar("T")

LINGER_S = 0.2  # longest time between two items that are gathered together
PORTION = 200  # items that are cut into chunks between two turns of the loop
TRIES = 5  # of a submission that was not accepted, and of fetching results
PAUSE_S = 2.0  # before the second try; doubles
LONGEST_PAUSE_S = 300.0
CONFIRM_S = 30.0  # longest wait for jobs to confirm their cancellation
TIDY_S = 5.0  # longest wait for the deletion of files
CANCEL_S = 5.0  # longest wait for the service to accept cancellations
HURRY_S = 0.5  # between polls after `Gatherer.give_up`
HELD_S = 0.2  # between checks whether a paused session goes on


class Gatherer:
    """The batch jobs of one session; to be used on one event loop.

    Args:
        session: Name of the session.
        model: Name of the model.
        state: Function that returns the session's state: a paused session submits no job, a cancelled one cancels its
            jobs.
        since_s: Start of the session's run, Unix time: jobs that ended before belong to another run.
    """

    def __init__(  # noqa: PLR0917  # its collaborators, each of another type
        self,
        session: str,
        model: str,
        request_config: RequestConfig,
        policy: BatchPolicy,
        api: Api,
        store: JobStore,
        groups: JobGroups,
        clock: Clock,
        state: Callable[[], State],
        since_s: float = 0.0,
    ) -> None:
        self._session, self.model, self._request_config, self._policy = session, model, request_config, policy
        self._api, self._store, self._groups, self._clock = api, store, groups, clock
        self._state, self._since_s = state, since_s
        self._submission = Submission(api, store, clock=clock)
        self._room = asyncio.Semaphore(policy.max_active)
        self._gathered: list[PendingItem] = []
        self._gathering: asyncio.TimerHandle | None = None
        self._quiet_at_s = 0.0  # when no more items are expected, by the loop's clock
        self._uploading = asyncio.Lock()
        self._jobs: dict[int, Job] = {}  # at the service, by number
        self._index = JobIndex()
        self._pending: dict[str, PendingItem] = {}  # by key
        self._wanted: set[int] = set()  # kept jobs with pending items
        self._cancelling: set[int] = set()  # jobs that we cancelled
        self._tasks: set[asyncio.Task[None]] = set()
        self._writes: set[asyncio.Task[Any]] = set()
        self._tidying: set[asyncio.Task[Any]] = set()
        self._cut_short: set[asyncio.Future[Job]] = set()  # submissions whose task was cancelled
        self._number = 0
        self._closed: ItemError | None = None  # error of items that come too late
        self._hurried = asyncio.Event()

    async def __aenter__(self) -> Gatherer:
        """Pick up jobs that an earlier process left running or did not record."""
        for job in self._store.of_session(self._session):
            self._number = max(self._number, job.number)
            if job.state == "intent":
                if not job.file:  # otherwise the same requests may use it
                    await self._store.withdraw(job)
                continue
            if not job.ended:
                self._groups.show(job)
                self._track(job)
                self._start(self._pick_up(job))
                continue
            if job.collected or job.state != "succeeded":
                self._tidy(job)  # what was left of an earlier time
            if job.created_s >= self._since_s:
                self._groups.recall(job)
                if job.state == "succeeded" and not job.collected:
                    self._index.keep(job)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cancel the jobs if the session was cancelled; otherwise leave them running."""
        jobs = list(self._jobs.values())
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._writes, return_exceptions=True)
        if self._state() == "cancelled":
            if self._cut_short:  # they may be submitted in a moment
                done, _late = await asyncio.wait(self._cut_short, timeout=CANCEL_S)
                jobs += [one.result() for one in done if not one.cancelled() and one.exception() is None]
            await self._ask_to_cancel(jobs)
        if self._state() == "completed":  # no more requests that might use an upload
            for job in self._store.find("WHERE session = ? AND state = 'intent'", (self._session,)):
                self._later(self._submission.discard(job))
        if self._tidying and self._state() != "cancelled":
            await asyncio.wait(tuple(self._tidying), timeout=TIDY_S)
        unfinished: list[asyncio.Future[Any]] = [*self._cut_short, *self._tidying]
        for each in unfinished:
            each.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)

    async def reply(self, prompt: Prompt, attempt: Attempt, again: int = 0) -> Body:
        """Wait for a prompt's job, and return the reply.

        Args:
            again: How many answers were read already, each of another job, and were of no use.

        Raises:
            TooLate: `give_up` was called.
            Withheld: Its job is left running, or its state is unknown.
            ItemError: There is no reply; the type says what to do.
        """
        if self._closed is not None:
            raise self._closed
        key, *earlier = [
            key_of(self.model, self._request_config, prompt, attempt.key, times) for times in range(again, -1, -1)
        ]
        for read in earlier:  # the last process read them: their jobs end with this item
            if (number := self._index.of(read)) is not None:
                self._index.owe(number, read, attempt.key)
                self._want(number)
        answer: asyncio.Future[Body] = asyncio.get_running_loop().create_future()
        item = self._pending[key] = PendingItem(key, prompt, attempt, answer)
        number = self._index.of(key)
        if number is None:
            self._gathered.append(item)
        else:
            attempt.join(number)
            self._want(number)
        self._gather_soon()
        try:
            return await answer
        finally:
            if self._pending.get(key) is item:
                del self._pending[key]

    def recorded(self, outcomes: Iterable[Outcome]) -> None:
        """Handle outcomes that are on disk: end the jobs whose results are all recorded."""
        self._index.recorded(outcomes)
        self._end_settled()

    async def give_up(self, why: str, within_s: float = CONFIRM_S) -> None:
        """Cancel all jobs, and release their items; results that arrive meanwhile count.

        Args:
            why: Reason, for the items' errors.
            within_s: Longest wait for jobs to confirm their cancellation, seconds.
        """
        self._closed = self._closed or TooLate(why)
        self._fail(self._gathered)
        self._gathered = []
        self._hurried.set()
        await self._ask_to_cancel(self._jobs.values())
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=within_s)
        self._fail(self._pending.values())

    def _gather_soon(self) -> None:
        """Gather when no item has come for a moment, and full jobs at once."""
        loop = asyncio.get_running_loop()
        self._quiet_at_s = loop.time() + LINGER_S
        if self._gathering is None:
            self._gathering = loop.call_at(self._quiet_at_s, self._gather)
        elif len(self._gathered) >= self._policy.max_requests and self._gathering.when() > loop.time():
            self._gathering.cancel()
            self._gathering = loop.call_at(loop.time(), self._gather)

    def _gather(self) -> None:
        loop = asyncio.get_running_loop()
        rest = 0 if loop.time() >= self._quiet_at_s else len(self._gathered) % self._policy.max_requests
        count = len(self._gathered) - rest
        gathered, self._gathered = self._gathered[:count], self._gathered[count:]
        self._gathering = loop.call_at(self._quiet_at_s, self._gather) if rest else None
        wanted, self._wanted = self._wanted, set()
        for number in wanted & self._index.kept.keys():
            self._start(self._hand_out(self._index.kept[number]))
        if gathered:
            self._start(self._cut(gathered))

    async def _cut(self, gathered: list[PendingItem]) -> None:
        """Cut items into chunks, and start a job for each."""
        requests: list[BatchRequest] = []
        for portion in _portions(gathered):
            await asyncio.sleep(0)
            made = [item.request(self._request_config) for item in portion if not item.answer.done()]
            requests += [request for request in made if request is not None]
        for chunk in chunks(requests, max_requests=self._policy.max_requests):
            self._number += 1
            number = self._number
            self._groups.queue(number, len(chunk.requests))
            for keys in _portions(chunk.keys):
                await asyncio.sleep(0)
                for key in keys:
                    if key in self._pending:
                        self._pending[key].attempt.join(number)
            self._start(self._run(number, chunk))

    async def _run(self, number: int, chunk: Chunk) -> None:
        async with self._room:
            while self._state() == "paused":  # noqa: ASYNC110  # the engine has no event for it, and jobs are long
                await asyncio.sleep(HELD_S)
            items = [self._pending[key] for key in chunk.keys if key in self._pending]
            if self._closed is not None or not items:
                self._groups.refuse(number, str(self._closed or "cancelled"), "skipped")
                self._fail(items)
                return
            try:
                job = await self._submit(number, chunk)
            except ItemError as error:
                self._groups.refuse(
                    number, str(error), "skipped" if isinstance(error, Withheld | TooLate) else "failed"
                )
                self._turn_away(items, error)
                return
            del chunk, items
            self._track(job)
            await self._await(job)

    async def _submit(self, number: int, chunk: Chunk) -> Job:
        """Write a chunk to a file, upload it, and create its job; only the last is not done one after the other."""
        async with self._uploading, spooled(self.model, chunk, self._clock) as written:
            for key, error in written.failed.items():
                if key in self._pending:
                    self._pending[key].fail(error)
            if not written.keys:
                msg = "no request of it could be written"
                raise Permanent(msg)
            # From here on the items of the job are known: `written.keys`.
            upload = partial(self._submission.upload, self._session, number, self.model, written)
            job = await self._patiently(number, upload)
        return await self._patiently(number, partial(self._create, job))

    async def _patiently(self, number: int, step: Callable[[], Awaitable[Job]]) -> Job:
        """Take a step of a submission, again and again while the service does not let us."""
        deadline_s = self._clock.now_s() + self._policy.wait_s
        tried = 0
        while True:
            tried += 1
            try:
                return await step()
            except StoreFull as error:
                if not self._jobs:  # none that makes room when it is collected
                    raise Withheld(str(error)) from error
                last: Transient = error
            except Transient as error:
                if tried == TRIES and isinstance(error, NotReady):  # its file is: so it is the account
                    msg = f"Gemini serves nothing here ({error}): see the region and the billing of the key"
                    raise Refused(msg) from error
                if tried == TRIES and not isinstance(error, RateLimited):
                    raise
                last = error
            pause_s = last.retry_after_s or min(PAUSE_S * 2.0 ** (tried - 1), LONGEST_PAUSE_S)
            if self._clock.now_s() + pause_s > deadline_s:
                msg = f"Gemini accepts no more jobs for now ({last}): run it again for the rest"
                raise Withheld(msg) from last
            self._groups.hold(number, str(last))
            await self._pause(pause_s)
            if self._closed is not None:
                raise self._closed

    async def _create(self, job: Job) -> Job:
        await self._submission.wait_for_file(job)
        creating = asyncio.ensure_future(self._submission.create(job))
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            self._cut_short.add(creating)  # its job is cancelled as well, should it be created
            raise

    def _track(self, job: Job) -> None:
        self._jobs[job.number] = job
        self._index.add(job)
        if job.reason == CANCELLING:
            self._cancelling.add(job.number)

    async def _pick_up(self, job: Job) -> None:
        async with self._room:
            await self._await(job, is_picked_up=True)

    async def _await(self, job: Job, *, is_picked_up: bool = False) -> None:
        """Poll a job until it has ended, and hand out its results."""
        try:
            if is_picked_up:
                await self._look(job)
            if self._hurried.is_set():  # `give_up` was called during the submission
                await self._ask_to_cancel([self._jobs[job.number]])
            job = await self._look_until_ended(job.number)
        except ItemError as error:
            self._turn_away(self._pending_in(job), error)
            return
        finally:
            self._jobs.pop(job.number, None)
        if job.state == "succeeded":
            await self._hand_out(job)
            return
        self._tidy(job)
        why = f"job {job.number} {job.reason or job.state}"
        is_final = job.state == "cancelled" and job.number not in self._cancelling
        self._send_back(job, self._closed or (Permanent(why) if is_final else Transient(why)))

    async def _look_until_ended(self, number: int) -> Job:
        deadline_s = self._clock.now_s() + self._policy.wait_s
        for pause_s in polls(self._policy.poll_s):
            job = self._jobs[number]
            self._groups.show(job)
            if job.ended:
                break
            if job.state == "unknown":
                raise Withheld(job.reason)
            left_s = deadline_s - self._clock.now_s()
            if left_s <= 0:
                raise Withheld(self._policy.left_running(len(self._jobs)))
            await self._pause(min(pause_s, left_s))
            await self._look(job)
        return job

    async def _look(self, job: Job) -> None:
        with suppress(Transient):
            look = self._submission.adopt if job.state == "unknown" else self._submission.refresh
            self._jobs[job.number] = await look(job)

    async def _pause(self, seconds: float) -> None:
        """Sleep; after `give_up` only for a moment."""
        if self._hurried.is_set():
            await asyncio.sleep(min(seconds, self._policy.poll_s, HURRY_S))
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurried.wait(), seconds)

    async def _hand_out(self, job: Job) -> None:
        """Resolve the pending items of a job with its results; keep the other results."""
        self._groups.show(job)
        try:
            if self._pending_in(job):
                await self._fetch(job)
        except Permanent as error:  # the results are gone; their items are sent again only on request
            await self._store.put(msgspec.structs.replace(job, state="failed", reason=str(error)))
            self._send_back(job, error)
            return
        except ItemError as error:
            self._index.keep(job)
            self._turn_away(self._pending_in(job), error)
            return
        self._index.handed_out(job)
        self._end_settled()
        if self._pending_in(job):  # new ones since the fetch
            self._want(job.number)
            self._gather_soon()

    async def _fetch(self, job: Job) -> None:
        for left in reversed(range(TRIES)):
            try:
                async for key, body in results.results(self._api, job):
                    self._deliver(job.number, key, body)
            except Transient:
                if not left:
                    raise
            else:
                return
            await self._pause(self._policy.poll_s)

    def _deliver(self, number: int, key: str, body: Body | ItemError) -> None:
        item = self._pending.get(key)
        if isinstance(body, ItemError):
            if item is not None and self._index.of(key) == number:
                item.fail(body)
            self._index.release(number, key)  # its next attempt goes into another job
        elif item is not None and self._index.of(key) == number:
            self._index.owe(number, key, item.attempt.key)
            item.succeed(body)

    def _end_settled(self) -> None:
        for job, is_whole in self._index.settled():
            self._groups.end(job.number, "completed")
            if is_whole:
                task = asyncio.get_running_loop().create_task(self._collect(job))
                self._writes.add(task)
                task.add_done_callback(self._writes.discard)

    async def _collect(self, job: Job) -> None:
        """Record that all results of a job are recorded; then the file of its requests is needed no more."""
        self._tidy(await self._store.collect(job))

    def _tidy(self, job: Job) -> None:
        """Delete the file of a job's requests."""
        if job.file:
            self._later(self._submission.tidy(job))

    def _later(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Tidy up, for which nobody waits for long."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)

    def _want(self, number: int) -> None:
        if number not in self._jobs:
            self._wanted.add(number)

    def _pending_in(self, job: Job) -> list[PendingItem]:
        """Return the pending items of a job."""
        at = self._index.of
        found = [self._pending[key] for key in job.keys if key in self._pending and at(key) == job.number]
        return [item for item in found if not item.answer.done()]

    def _send_back(self, job: Job, error: ItemError) -> None:
        """Fail the items of a job without results; their next attempts go into another job."""
        items = self._pending_in(job)
        self._index.drop(job)
        self._turn_away(items, error)

    def _turn_away(self, items: Iterable[PendingItem], error: ItemError) -> None:
        items = list(items)
        if isinstance(error, Withheld) and items:
            self._closed = self._closed or error
        for item in items:
            item.fail(error)

    async def _ask_to_cancel(self, jobs: Iterable[Job]) -> None:
        """Request the cancellation of jobs, after recording it in the journal."""

        async def ask(job: Job) -> None:
            self._cancelling.add(job.number)
            with suppress(BatchError):
                asked = await self._store.put(msgspec.structs.replace(job, reason=CANCELLING))
                if job.number in self._jobs:
                    self._jobs[job.number] = asked
                self._groups.show(asked)
                await self._api.cancel(job.remote)

        running = [job for job in jobs if job.remote and not job.ended]
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*map(ask, running)), CANCEL_S)

    def _fail(self, items: Iterable[PendingItem]) -> None:
        for item in list(items):
            item.fail(self._closed or Permanent("its job was not submitted"))

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:  # of the journal, or a bug
            self._closed = Withheld(f"a batch job could not be followed: {describe(error)}")
            self._fail(self._pending.values())


def _portions(things: Sequence[T]) -> Iterator[Sequence[T]]:
    for at in range(0, len(things), PORTION):
        yield things[at : at + PORTION]
