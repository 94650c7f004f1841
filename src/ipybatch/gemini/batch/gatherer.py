"""Gathers the items of a session into batch jobs, and follows these.

Each item is an attempt of the session that waits here:

    items --gather--> chunk --write--> file --upload--> job --poll--> results --> each item its own
      ^                                                  |
      |                                                  +--> failed items are gathered again, without the others
      +-- jobs of an earlier process are picked up: their items wait for them, and are not sent again

Rule: nothing here holds the loop for long: items are cut into chunks in portions, and one chunk at a time is written,
in a thread, and uploaded.

Rule: a request that may have been sent is never sent again by itself; see `collector` for what a job did not answer.

One subject, hence its length: the way of an item into a job, and of a job to its end.
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
from ipybatch.gemini.batch.collector import Collector
from ipybatch.gemini.batch.farewell import Farewell
from ipybatch.gemini.batch.jobs import Job, JobGroups, JobStore
from ipybatch.gemini.batch.pending import (
    BatchModels,
    BatchPolicy,
    Funds,
    OtherModel,
    PendingItem,
    PendingItems,
    Received,
    Stake,
    TooLate,
    key_of,
)
from ipybatch.gemini.batch.spool import BatchRequest, Chunk, chunks, spooled
from ipybatch.gemini.batch.submission import FileLost, Submission, polls
from ipybatch.gemini.prompts import Prompt
from ipybatch.gemini.service.api import Api, NotReady, StoreFull
from ipybatch.gemini.service.request_config import RequestConfig

T = TypeVar("T")

LINGER_S = 0.2  # longest time between two items that are gathered together
PORTION = 200  # items that are cut into chunks between two turns of the loop
TRIES = 5  # of a submission that was not accepted
PAUSE_S = 2.0  # before the second try; doubles
LONGEST_PAUSE_S = 300.0
CONFIRM_S = 30.0  # longest wait for jobs to confirm their cancellation
CANCEL_S = 5.0  # longest wait for the service to accept cancellations
HURRY_S = 0.5  # between polls after `Gatherer.give_up`
HELD_S = 0.2  # between checks whether a paused session goes on


class Gatherer:
    """The batch jobs of one session; to be used on one event loop.

    Args:
        session: Name of the session.
        models: Names of the models: a job is for the first; for the next one where the service refuses that.
        state: Function that returns the session's state: a paused session submits no job, a cancelled one cancels its
            jobs.
        since_s: Start of the session's run, Unix time: jobs that ended before belong to another run.
        funds: What pays for the jobs; None: nothing is paid.
        farewell: What is left to tell the service once a cancelled session has ended.
    """

    def __init__(  # noqa: PLR0917  # its collaborators, each of another type
        self,
        session: str,
        models: Sequence[str],
        request_config: RequestConfig,
        policy: BatchPolicy,
        api: Api,
        store: JobStore,
        groups: JobGroups,
        clock: Clock,
        state: Callable[[], State],
        since_s: float = 0.0,
        funds: Funds | None = None,
        farewell: Farewell | None = None,
    ) -> None:
        self._farewell = farewell or Farewell()
        self._session, self._request_config, self._policy = session, request_config, policy
        self._models = BatchModels(models, clock)
        self._api, self._store, self._groups, self._clock = api, store, groups, clock
        self._state, self._since_s = state, since_s
        self._funds = funds = funds or Funds()
        self._submission = Submission(api, store, clock=clock)
        self._room = asyncio.Semaphore(policy.max_active)
        self._gathered: list[PendingItem] = []
        self._gathering: asyncio.TimerHandle | None = None
        self._quiet_at_s = 0.0  # when no more items are expected, by the loop's clock
        self._uploading = asyncio.Lock()
        self._jobs: dict[int, Job] = {}  # at the service, by number
        self._items = PendingItems()
        self._wanted: set[int] = set()  # kept jobs with pending items
        self._tasks: set[asyncio.Task[None]] = set()
        self._cut_short: set[asyncio.Future[Job]] = set()  # submissions whose task was cancelled
        self._cancelled: asyncio.Task[asyncio.Future[Any]] | None = None
        self._is_over = False
        self._number = 0
        self._hurried = asyncio.Event()
        self._collector = Collector(
            self._items, policy, api, store, groups, self._submission, clock, self._pause, funds
        )

    async def __aenter__(self) -> Gatherer:
        """Pick up jobs that an earlier process left running or did not record."""
        await self._farewell.wait_for_last()
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
                self._collector.tidy(job)  # what was left of an earlier time
            if job.created_s >= self._since_s:
                self._groups.recall(job)
                if job.sent and not job.collected:
                    self._items.index.keep(job)
                elif job.remote:
                    self._collector.lose(job, job.keys)
        for job in self._items.index.kept.values():  # what is in a later job by now was lost in this one
            self._collector.lose(job, [key for key in job.keys if self._items.index.of(key) != job.number])
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cancel the jobs if the session was cancelled; otherwise leave them running."""
        if self._gathering is not None:
            self._gathering.cancel()
        if self._state() == "cancelled":
            asking = await self._cancel_all()
            await self._farewell.begin(self._tell_the_rest(asking))
        else:
            await self._collector.finish()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._collector.writes, return_exceptions=True)
        if self._state() == "completed":
            await self._collector.collect_rest()  # and there are no more requests that might use an upload
            for job in self._store.find("WHERE session = ? AND state = 'intent'", (self._session,)):
                self._collector.later(self._submission.discard(job))
        await self._collector.close(at_once=self._state() == "cancelled")
        self._is_over = True
        if self._cancelled is None:
            await self._cut_off()

    @property
    def has_open_jobs(self) -> bool:
        """Whether jobs were left running, or hold results that are not recorded."""
        return any(job.sent and not job.collected for job in self._store.of_session(self._session))

    def place_of(self, prompt: Prompt, attempt: Attempt, again: int = 0) -> tuple[str, str]:
        """Return the model that an item is sent to, and its key in a job: of the job that it is in, if it is in one."""
        models, first = self._models.names, self._models.first
        for model in models if len(models) > 1 else ():
            key = key_of(model, self._request_config, prompt, attempt.key, again)
            if self.has(key):
                return model, key
        return first, key_of(first, self._request_config, prompt, attempt.key, again)

    def has(self, key: str) -> bool:
        """Say whether an item is in a job already, and is not sent again."""
        return self._items.index.of(key) is not None

    def job_of(self, key: str) -> Job | None:
        """Return the job that an item is in; None where it is in none, or in one whose results are being fetched."""
        number = self._items.index.of(key)
        return None if number is None else self._jobs.get(number) or self._items.index.kept.get(number)

    def ask(
        self,
        prompt: Prompt,
        attempt: Attempt,
        again: int = 0,
        stake: Stake | None = None,
        place: tuple[str, str] | None = None,
    ) -> PendingItem:
        """Let a prompt go into a job, and return what waits for its answer, until `let_go`.

        No more answers are read while some are in use.

        Args:
            again: How many answers were read already, each of another job, and were of no use.
            stake: What is reserved for it; whether it was sent is noted there.
            place: As `place_of` returns it.

        Raises:
            TooLate: `give_up` was called.
            Withheld: A job was left running, or its state is unknown: nothing more is sent.
        """
        model, key = place or self.place_of(prompt, attempt, again)
        number = self._items.index.of(key)
        closed = self._items.closed
        if closed is not None and (number is None or (number in self._jobs and isinstance(closed, TooLate))):
            raise closed
        answer: asyncio.Future[Received] = asyncio.get_running_loop().create_future()
        item = self._items.by_key[key] = PendingItem(key, model, prompt, attempt, answer, stake or Stake())
        if number is None:
            self._gathered.append(item)
        else:
            attempt.join(number)
            self._want(number)
        self._gather_soon()
        return item

    def let_go(self, item: PendingItem) -> None:
        """Note that the answer to an item was taken, or that nobody waits for it any more."""
        if self._cancelled is None and self._state() == "cancelled":
            self._cancel_all()  # before the others hear of it: of thousands that takes a while
        if self._items.by_key.get(item.key) is item:
            del self._items.by_key[item.key]
        self._collector.taken(item.key)

    def _cancel_all(self) -> asyncio.Task[asyncio.Future[Any]]:
        """Cancel the jobs, and stop what is under way, once; the result is done when the service has answered."""
        if self._cancelled is None:
            self._farewell.announce()
            self._cancelled = asyncio.get_running_loop().create_task(self._stop())
        return self._cancelled

    async def _stop(self) -> asyncio.Future[Any]:
        asking = asyncio.ensure_future(self._ask_to_cancel(list(self._jobs.values())))
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return await asking

    async def _tell_the_rest(self, asking: asyncio.Future[Any]) -> None:
        """Wait for the service's answers, and cancel the jobs that it is just creating."""
        if self._cut_short:
            done, _late = await asyncio.wait(self._cut_short, timeout=CANCEL_S)
            found = [one.result() for one in done if not one.cancelled() and one.exception() is None]
            await (await self._ask_to_cancel(found))
            await self._cut_off()
        await asking

    async def _cut_off(self) -> None:
        """Wait no more for jobs that are being created: they are in doubt, and looked for at the next start."""
        for creating in self._cut_short:
            creating.cancel()
        await asyncio.gather(*self._cut_short, return_exceptions=True)

    def recorded(self, outcomes: Iterable[Outcome]) -> None:
        """Handle outcomes that are on disk: end the jobs whose results are all recorded."""
        self._items.index.recorded(outcomes)
        self._collector.end_settled()

    async def give_up(self, why: str, within_s: float = CONFIRM_S) -> None:
        """Cancel all jobs, and release their items; results that arrive meanwhile count.

        Args:
            why: Reason, for the items' errors.
            within_s: Longest wait for jobs to confirm their cancellation, seconds.
        """
        self._items.closed = self._items.closed or TooLate(why)
        self._items.fail(self._gathered)
        self._gathered = []
        self._hurried.set()
        await (await self._ask_to_cancel(self._jobs.values()))
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=within_s)
        self._items.fail(self._items.by_key.values())

    def _gather_soon(self) -> None:
        """Gather when no item has come for a moment and there is room for a job, and full jobs at once."""
        loop = asyncio.get_running_loop()
        self._quiet_at_s = loop.time() + LINGER_S
        if self._gathering is None:
            self._gathering = loop.call_at(self._quiet_at_s, self._gather)
        elif len(self._gathered) >= self._policy.max_requests and self._gathering.when() > loop.time():
            self._gathering.cancel()
            self._gathering = loop.call_at(loop.time(), self._gather)

    def _gather(self) -> None:
        loop = asyncio.get_running_loop()
        is_quiet = loop.time() >= self._quiet_at_s
        rest = 0 if is_quiet and not self._room.locked() else len(self._gathered) % self._policy.max_requests
        count = len(self._gathered) - rest
        gathered, self._gathered = self._gathered[:count], self._gathered[count:]
        self._gathering = None if is_quiet or not rest else loop.call_at(self._quiet_at_s, self._gather)
        wanted, self._wanted = self._wanted, set()
        for number in wanted & self._items.index.kept.keys():
            self._start(self._hand_out(self._items.index.kept[number]))
        if gathered:
            self._start(self._cut(gathered))

    async def _cut(self, gathered: list[PendingItem]) -> None:
        """Cut items into chunks, and start a job for each."""
        requests: dict[str, list[BatchRequest]] = {}  # by model
        for portion in _portions(gathered):
            await asyncio.sleep(0)
            for item in portion:
                request = None if item.answer.done() else item.request(self._request_config)
                if request is not None:
                    requests.setdefault(item.model, []).append(request)
        cut = [(model, chunks(of, max_requests=self._policy.max_requests)) for model, of in requests.items()]
        for model, chunk in [(model, chunk) for model, of in cut for chunk in of]:
            self._number += 1
            number = self._number
            self._groups.queue(number, len(chunk.requests))
            for keys in _portions(chunk.keys):
                await asyncio.sleep(0)
                for key in keys:
                    if key in self._items.by_key:
                        self._items.by_key[key].attempt.join(number)
            self._start(self._run(number, model, chunk))

    async def _run(self, number: int, model: str, chunk: Chunk) -> None:
        async with self._room:
            await self._unpaused()
            items = [self._items.by_key[key] for key in chunk.keys if key in self._items.by_key]
            if self._items.closed is not None or not items:
                self._groups.refuse(number, str(self._items.closed or "cancelled"), "skipped")
                self._items.fail(items)
                return
            try:
                chunk = await self._fund(chunk, items)
                job = await self._submit(number, model, chunk)
            except ItemError as error:
                self._groups.refuse(
                    number, str(error), "skipped" if isinstance(error, Withheld | TooLate | OtherModel) else "failed"
                )
                self._items.turn_away(items, error)
                return
            del chunk, items
            self._track(job)
            await self._await(job)

    async def _fund(self, chunk: Chunk, items: list[PendingItem]) -> Chunk:
        """Reserve the credits of a chunk, and return what of it they suffice for."""
        count = await self._funds.fund([item.prompt for item in items])
        if count == len(items):
            return chunk
        error = Withheld(f"the credits suffice for {count:,} of {len(items):,} prompts: grant more, and run it again")
        self._items.turn_away(items[count:], error)
        if not count:
            raise error
        kept = {item.key for item in items[:count]}
        return msgspec.structs.replace(chunk, requests=tuple(one for one in chunk.requests if one.key in kept))

    async def _submit(self, number: int, model: str, chunk: Chunk) -> Job:
        """Write a chunk to a file, upload it, and create its job; only the last is not done one after the other."""
        async with self._uploading, spooled(model, chunk, self._clock) as written:
            for key, error in written.failed.items():
                if key in self._items.by_key:
                    self._items.by_key[key].fail(error)
            if not written.keys:
                msg = "no request of it could be written"
                raise Permanent(msg)
            items = [self._items.by_key[key] for key in written.keys if key in self._items.by_key]
            bounds = [item.stake.bound_usd for item in items if item.stake.bound_usd is not None]
            bound_usd = float(sum(bounds)) if len(bounds) == len(written.keys) else None
            upload = partial(self._submission.upload, self._session, number, model, written, bound_usd=bound_usd)
            job = await self._patiently(number, model, upload)
        return await self._patiently(number, model, partial(self._create, job))

    async def _unpaused(self) -> None:
        while self._state() == "paused":  # noqa: ASYNC110  # the engine has no event for it, and jobs are long
            await asyncio.sleep(HELD_S)

    async def _patiently(self, number: int, model: str, step: Callable[[], Awaitable[Job]]) -> Job:
        """Take a step of a submission, again and again while the service does not let us."""
        deadline_s = self._clock.now_s() + self._policy.wait_s
        tried, is_alone, last = 0, False, Transient()
        while True:
            tried += 1
            try:
                return await step()
            except StoreFull as error:
                if is_alone and not self._jobs:  # nor was there a job at the last try, whose file may be deleted by now
                    raise Withheld(str(error)) from error
                is_alone, last = not self._jobs, error
            except Transient as error:
                if tried == TRIES and isinstance(error, NotReady):  # its file is: so it is the account
                    msg = f"Gemini does not serve this key ({error}): check its region and billing"
                    raise Refused(msg) from error
                if isinstance(error, FileLost) or (tried == TRIES and not isinstance(error, RateLimited)):
                    raise
                if isinstance(error, RateLimited) and self._models.leave_out(model, error, tried):
                    raise OtherModel(str(error)) from error
                last = error
            told_s = last.retry_after_s or 0.0
            pause_s = told_s if told_s >= PAUSE_S else min(PAUSE_S * 2.0 ** (tried - 1), LONGEST_PAUSE_S)
            if self._clock.now_s() + pause_s > deadline_s:
                msg = f"Gemini accepts no more jobs for now ({last}): run it again for the rest"
                raise Withheld(msg) from last
            self._groups.hold(number, str(last))
            await self._pause(pause_s)
            if self._items.closed is not None:
                raise self._items.closed

    async def _create(self, job: Job) -> Job:
        await self._submission.wait_for_file(job)
        await self._unpaused()
        if self._items.closed is not None:  # meanwhile its items have gone another way
            raise self._items.closed
        stakes = [self._items.by_key[key].stake for key in job.keys if key in self._items.by_key]
        for stake in stakes:
            stake.is_sent = True
        creating = asyncio.ensure_future(self._submission.create(job))
        try:
            return await asyncio.shield(creating)
        except ItemError:  # it was rejected, for now or for good
            for stake in stakes:
                stake.is_sent = False
            raise
        except asyncio.CancelledError:
            self._cut_short.add(creating)  # its job is cancelled as well, should it be created
            raise

    def _track(self, job: Job) -> None:
        self._jobs[job.number] = job
        self._items.index.add(job)
        if job.was_cancelled_here:
            self._collector.cancelling.add(job.number)

    async def _pick_up(self, job: Job) -> None:
        async with self._room:
            await self._await(job, is_picked_up=True)

    async def _await(self, job: Job, *, is_picked_up: bool = False) -> None:
        """Poll a job until it has ended, and hand out its results."""
        try:
            if is_picked_up:
                await self._look(job)
            if self._hurried.is_set():  # `give_up` was called during the submission
                await (await self._ask_to_cancel([self._jobs[job.number]]))
            job = await self._look_until_ended(job.number)
        except ItemError as error:
            self._items.turn_away(self._items.of(job), error)
            return
        finally:
            self._jobs.pop(job.number, None)
        await self._hand_out(job)

    async def _look_until_ended(self, number: int) -> Job:
        deadline_s = self._clock.now_s() + self._policy.wait_s
        for pause_s in polls(self._policy.poll_s):
            job = self._jobs[number]
            self._groups.show(job)
            if job.state == "unknown" and job.remote:  # it was there: it may be seen again in a moment
                job = self._jobs[number] = await self._submission.adopt(job)
                self._groups.show(job)
            if job.ended:
                break
            if job.state == "unknown" and job.is_released:
                given_up = msgspec.structs.replace(job, state="failed", reason="given up: it was not found")
                return await self._store.put(given_up)
            if job.state == "unknown":
                raise Withheld(job.reason)
            left_s = deadline_s - self._clock.now_s()
            if left_s <= 0:
                raise Withheld(self._policy.left_running(len(self._jobs), job.look))
            await self._pause(min(pause_s, left_s))
            await self._look(job)
        return job

    async def _look(self, job: Job) -> None:
        look = self._submission.adopt if job.state == "unknown" else self._submission.refresh
        try:
            found = await look(job)
        except Transient as error:
            found = await self._store.put(msgspec.structs.replace(job, look=str(error)))
        if job.number in self._collector.cancelling and found != (asked := found.as_cancelled_here()):
            found = await self._store.put(asked)  # we asked for its cancellation meanwhile
        self._jobs[job.number] = found

    async def _pause(self, seconds: float) -> None:
        """Sleep; after `give_up` only for a moment."""
        if self._hurried.is_set():
            await asyncio.sleep(min(seconds, self._policy.poll_s, HURRY_S))
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurried.wait(), seconds)

    async def _hand_out(self, job: Job) -> None:
        await self._collector.hand_out(job)
        if self._items.of(job):  # new ones since
            self._want(job.number)
            self._gather_soon()

    def _want(self, number: int) -> None:
        if number not in self._jobs:
            self._wanted.add(number)

    async def _ask_to_cancel(self, jobs: Iterable[Job]) -> asyncio.Future[Any]:
        """Record that jobs are cancelled, then request it; return what is done when the service has answered."""

        async def mark(job: Job) -> Job | None:
            self._collector.cancelling.add(job.number)
            try:
                asked = await self._store.put(job.as_cancelled_here())
            except BatchError:
                return None
            if job.number in self._jobs:
                self._jobs[job.number] = asked
            if not self._is_over:
                self._groups.show(asked)
            return asked

        async def request(marked: list[Job | None]) -> None:
            requests = [self._api.cancel(job.remote) for job in marked if job is not None]
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*requests, return_exceptions=True), CANCEL_S)

        running = [job for job in jobs if job.remote and not job.ended]
        return asyncio.ensure_future(request(await asyncio.gather(*map(mark, running))))

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._gathered and not task.cancelled():  # there may be room for a job
            self._gather_soon()
        if not task.cancelled() and (error := task.exception()) is not None:  # of the journal, or a bug
            self._items.closed = Withheld(f"a batch job could not be followed: {describe(error)}")
            self._items.fail(self._items.by_key.values())


def _portions(things: Sequence[T]) -> Iterator[Sequence[T]]:
    for at in range(0, len(things), PORTION):
        yield things[at : at + PORTION]
