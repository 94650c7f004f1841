"""Collects the results of ended jobs, and hands each to the item that waits for it.

Rule: no item is paid for twice unasked.  What an ended job did not answer

    job succeeded, fewer results than requests    is looked at again, and then held
    job expired or failed                         goes into another job, once; after that it is held
    cancelled by us                               goes into another job, or another lane
    cancelled by somebody else                    fails

A held item is skipped: the next start looks at its job again, which costs nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any

import msgspec

from ipybatch.engine.data.clock import Clock
from ipybatch.errors import Held, ItemError, Permanent, Transient
from ipybatch.gemini.batch.jobs import KEPT_S, Job, JobGroups, JobStore
from ipybatch.gemini.batch.pending import BatchPolicy, Funds, PendingItem, PendingItems, Received
from ipybatch.gemini.batch.results import Output, Unanswered, Unmatched, Unreadable, fetch
from ipybatch.gemini.batch.submission import Submission, polls
from ipybatch.gemini.service.api import Api, Missing

LOOKS = 8  # at the results of an ended job, at growing intervals
TIDY_S = 5.0  # longest wait for the deletion of files
ASK = "the next run looks again, and sends it again only after session.resend()"


class Collector:
    """Collects the results of a session's jobs; to be used on one event loop.

    Args:
        items: The items that wait.
        pause: Function that sleeps for so many seconds, or less.
        funds: What pays for the jobs.

    Attributes:
        cancelling: Numbers of jobs that we cancelled.
        lost: Number of jobs that failed or expired without an answer to an item; by key.
    """

    def __init__(  # noqa: PLR0917  # its collaborators, each of another type
        self,
        items: PendingItems,
        policy: BatchPolicy,
        api: Api,
        store: JobStore,
        groups: JobGroups,
        submission: Submission,
        clock: Clock,
        pause: Callable[[float], Awaitable[None]],
        funds: Funds,
    ) -> None:
        self._items, self._policy, self._api, self._store, self._groups = items, policy, api, store, groups
        self._submission, self._clock, self._pause, self._funds = submission, clock, pause, funds
        self.cancelling: set[int] = set()
        self.lost: Counter[str] = Counter()
        self._delivered: dict[str, asyncio.Future[None]] = {}  # resolved when the answer was taken; by key
        self._turn = asyncio.Lock()  # of the job that hands out a block
        self._handing: set[asyncio.Future[Any]] = set()  # done when a job's results are handed out
        self.writes: set[asyncio.Task[Any]] = set()
        self._tidying: set[asyncio.Task[Any]] = set()

    def taken(self, key: str) -> None:
        """Note that the answer to an item was taken, or that nobody waits for it any more."""
        if (taken := self._delivered.pop(key, None)) is not None and not taken.done():
            taken.set_result(None)

    def lose(self, job: Job, keys: Iterable[str]) -> None:
        """Note that an ended job gave no answer to items."""
        if job.state in ("failed", "expired") and not job.is_released:
            self.lost.update(keys)

    async def finish(self) -> None:
        """Wait until results that are being handed out are: their last answers may be on disk before that is noted."""
        if self._handing:
            await asyncio.wait(tuple(self._handing), timeout=TIDY_S)

    async def close(self, *, at_once: bool) -> None:
        """Wait a moment for the deletion of files, unless it is to be ``at_once``."""
        if self._tidying and not at_once:
            await asyncio.wait(tuple(self._tidying), timeout=TIDY_S)
        for task in self._tidying:
            task.cancel()
        await asyncio.gather(*self._tidying, return_exceptions=True)

    async def hand_out(self, job: Job) -> None:
        """Resolve the pending items of an ended job with its results; keep the other results."""
        handed = asyncio.get_running_loop().create_future()
        self._handing.add(handed)
        try:
            await self._resolve(job)
        finally:
            self._handing.discard(handed)
            handed.cancel()

    async def _resolve(self, job: Job) -> None:
        self._groups.show(job)
        try:
            is_due = bool(job.remote) and (job.state != "succeeded" or bool(self._items.of(job)))
            job, lacking = await self._fetch(job) if is_due else (job, [] if job.state == "succeeded" else job.keys)
        except ItemError as error:
            self._items.index.retain(job)
            self._items.turn_away(self._items.of(job), error)
            return
        self._turn_back(job, lacking)
        self._items.index.handed_out(job)
        self.end_settled()

    async def _fetch(self, job: Job) -> tuple[Job, Sequence[str]]:
        """Hand out the results of a job, and return it with the keys of items that it did not answer.

        As long as there are fewer than there must be, or they cannot be fetched, it is looked at again.

        Raises:
            Transient: They could not be fetched.
            Refused: The service rejects the key or the account.
        """
        deadline_s = self._clock.now_s() + self._policy.wait_s
        for look, pause_s in enumerate(polls(self._policy.poll_s), 1):
            is_last = look == LOOKS or self._clock.now_s() >= deadline_s
            try:
                async with fetch(self._api, job, self._clock) as output:
                    lacking = await self._deliver(job, output, is_last=is_last)
                why = "" if output.is_whole else f"results incomplete: {output.rows:,} of {job.requests:,}"
                if job.rows != output.rows:
                    reason = why if job.state == "succeeded" else job.reason
                    job = await self._store.put(
                        msgspec.structs.replace(job, reason=reason, rows=output.rows, answers=output.answers)
                    )
                if output.is_whole or is_last:
                    return job, lacking
            except Missing as error:
                is_gone = self._clock.unix_s() > (job.ended_s or 0.0) + KEPT_S
                why = f"{'its results are gone' if is_gone else 'results incomplete'}: {error}"
                if is_gone or is_last:
                    job = await self._store.put(msgspec.structs.replace(job, reason=why, rows=job.rows or 0))
                    if is_gone or job.is_released:
                        return job, job.keys
                    raise Held(f"job {job.number}: {why}; {ASK}") from error
            except Transient as error:
                why = f"its results could not be fetched: {error}"
                if is_last:
                    raise
            self._groups.note(job, f"{why}, looked at again")
            await self._pause(pause_s)
        raise AssertionError

    async def _deliver(self, job: Job, output: Output, *, is_last: bool) -> list[str]:
        """Hand out what an output holds, and return the keys of those items of which it holds nothing.

        A block is handed out once the answers of the one before are taken, of whatever job: else large ones would pile
        up, and those of ten jobs that end together come in one turn of the loop.
        """
        number = job.number
        lacking: list[str] = []
        async for block in output.blocks(is_last=is_last or output.is_whole):
            async with self._turn:
                delivered: list[asyncio.Future[None]] = []
                for key, body in block:
                    item = self._items.by_key.get(key)
                    if item is not None and (self._items.index.of(key) != number or item.answer.done()):
                        item = None
                    if isinstance(body, Unanswered):
                        lacking.append(key)
                    elif isinstance(body, ItemError) and not isinstance(body, Unmatched):
                        self._items.index.release(number, key)  # its next attempt goes into another job
                        self._funds.give_up(job, {key: item}, unseen=isinstance(body, Unreadable))
                        if item is not None:
                            item.fail(body)
                    elif item is not None:
                        self._items.index.owe(number, key, item.attempt.key)
                        delivered.append(self._delivered.setdefault(key, asyncio.get_running_loop().create_future()))
                        if isinstance(body, Unmatched):
                            item.fail(body)
                        else:
                            item.succeed(Received(body, job, key))
                if delivered:
                    await asyncio.wait(delivered)
        return lacking

    def _turn_back(self, job: Job, lacking: Iterable[str]) -> None:
        """Decide about the items that an ended job did not answer: none is paid for twice unasked."""
        why = f"job {job.number} {job.reason or job.state}"
        was_ours = job.number in self.cancelling or job.was_cancelled_here
        is_elsewhere = job.state == "cancelled" and not was_ours and not job.is_released
        # What the job may bill without telling.
        is_told = job.state == "cancelled" and job.answers is not None
        unseen = max(0, (job.answers or 0) - (job.rows or 0)) if is_told else job.requests
        left: dict[str, PendingItem | None] = {}
        for key in lacking:
            self.lose(job, [key])
            is_due = job.is_released or was_ours or (job.state != "succeeded" and self.lost[key] <= 1)
            item = self._items.by_key.get(key) if self._items.index.of(key) == job.number else None
            if is_due or is_elsewhere:
                self._items.index.release(job.number, key)
                left[key] = item
            elif item is not None:
                item.fail(Held(f"{why}; {ASK}"))
        self._funds.give_up(job, left, unseen if job.sent else 0)
        error = Permanent(why) if is_elsewhere else self._items.closed or Transient(why)
        for item in left.values():
            if item is not None:
                item.fail(error)

    def end_settled(self) -> None:
        """End the jobs whose results are all on disk."""
        for job, is_whole in self._items.index.settled():
            if is_whole:
                self._groups.collect(job)
            if job.state == "succeeded":
                self._groups.end(job.number, "skipped" if job.lacks_answers else "completed")
            if is_whole:
                task = asyncio.get_running_loop().create_task(self._collect(job))
                self.writes.add(task)
                task.add_done_callback(self.writes.discard)

    async def collect_rest(self) -> None:
        """Collect the jobs of whose items none has to be asked for any more; to be used when all items are settled.

        An earlier process recorded some, so that they did not ask in this one.
        """
        index = self._items.index
        for job in tuple(index.kept.values()):
            left = [key for key in job.keys if index.of(key) == job.number]
            if not left or self._funds.on_record(job).issuperset(left):
                index.drop(job)
                self._groups.collect(job)
                if job.state == "succeeded":
                    self._groups.end(job.number, "completed")
                await self._collect(job)

    async def _collect(self, job: Job) -> None:
        """Record that all results of a job are recorded; then the file of its requests is needed no more."""
        self.tidy(await self._store.collect(job))

    def tidy(self, job: Job) -> None:
        """Delete the file of a job's requests."""
        if job.file:
            self.later(self._submission.tidy(job))

    def later(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Do what nobody waits for for long."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)
