"""Lanes: the way of one prompt through the lanes of its session.

    online   online
    flex     flex, a few times --> online or batch
    batch    batch
    auto     batch --> flex --> online, each left early enough to meet the deadline

An attempt's own permit is for its first request online or by flex; each further request takes a permit of its own.  A
batch takes none: its jobs are paced separately.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import Any, Literal

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.clock import Clock
from ipybatch.engine.data.events import Event, Status
from ipybatch.engine.data.outcome import Outcome
from ipybatch.engine.data.plan import key_value
from ipybatch.engine.rules.limiter import NOTHING, Cost
from ipybatch.engine.run.attempt import Attempt
from ipybatch.errors import ItemError, Transient
from ipybatch.gemini.batch.gatherer import CONFIRM_S, Gatherer
from ipybatch.gemini.batch.pending import TooLate
from ipybatch.gemini.batch_call import BatchCaller
from ipybatch.gemini.money.tokens import estimate_input
from ipybatch.gemini.online_call import Caller, NextModel
from ipybatch.gemini.prompts import Prompt
from ipybatch.gemini.service.api import NotReady
from ipybatch.gemini.service.request_config import RequestConfig
from ipybatch.gemini.tries import Tries

Lane = Literal["online", "flex", "batch", "auto"]
CONFIRM_SHARE = 0.25  # of the time to the deadline, for jobs to confirm their cancellation, which bills nothing
SHED_PAUSE_S = 2.0  # before the next try by flex; doubles
ASSUMED_LATENCY_S = 0.5  # to the first token, until a latency has been measured
ASSUMED_TOKENS_PER_S = 200.0
IN_A_HURRY = 50  # requests in flight for a session with a deadline
SAFETY = 1.5
FLEX_LEAD = 2.5  # online durations between the end of the batch and the deadline, for flex and online
BATCH_SHARE = 0.4  # of the time to the deadline, at least for the batch while the latency is an assumption
GROUP = 50


class Deadline(msgspec.Struct, frozen=True):
    """The deadline of a session, and the times at which it leaves the slower lanes; all by the session's clock.

    Attributes:
        at_s: The deadline.
        batch_until_s: When prompts without an answer leave the batch; in the past if there is no time for a batch.
        flex_until_s: When flex is tried for the last time.
    """

    at_s: float
    batch_until_s: float
    flex_until_s: float


class Lanes(msgspec.Struct):
    """The lanes of a session.

    Attributes:
        lane: The session's lane.
        caller: Sends requests online and by flex.
        batch: Sends prompts by batch; None for a session without jobs.
        has_batch: Whether prompts go into jobs; otherwise only those that an earlier process sent are waited for.
        flex_tries: Tries by flex before a prompt takes ``flex_fallback``.
        flex_fallback: The next lane; None: the prompt fails.
        deadline: The deadline; None: there is none.
        tries: Billed answers that were of no use, of which some are sent again; None: none is.
        fallback: The model for what was blocked, asked online in every lane; None: none is.
        chance: Source of random numbers for pauses.
    """

    lane: Lane
    caller: Caller
    batch: BatchCaller | None = None
    has_batch: bool = True
    flex_tries: int = 3
    flex_fallback: Literal["online", "batch"] | None = "online"
    deadline: Deadline | None = None
    tries: Tries | None = None
    fallback: str | None = None
    chance: random.Random = msgspec.field(default_factory=random.Random)
    _leaving: asyncio.Task[None] | None = None

    def send(self, prompt: Prompt, attempt: Attempt) -> Awaitable[dict[str, Any]]:
        """Send a prompt; await it for the item's result.

        Thousands wait for a job, and a cancel goes through each of their coroutines: there are no more than needed.

        Raises:
            ItemError: There is no result; the type says what to do.
        """
        request_config = self.caller.request_configs["online"]
        permits = RequestPermits(prompt, attempt, request_config, is_free=self.lane in ("auto", "batch"))
        return self._send(permits) if self.tries is None else self._send_again(permits, self.tries)

    async def _send_again(self, permits: RequestPermits, tries: Tries) -> dict[str, Any]:
        """Send a prompt, again where its answer was of no use."""
        attempt = permits.attempt
        item = tries.of(permits.prompt, attempt)
        while True:
            try:
                if item.count("blocked"):
                    result = await self._online(permits, self.fallback)
                else:
                    result = await self._send(permits, len(item.tries))
            except ItemError as error:
                await tries.follow(item, attempt, error)
            else:
                return tries.succeed(item, attempt, result)

    @property
    def gatherer(self) -> Gatherer | None:
        """The batch jobs; None for a session without jobs."""
        return None if self.batch is None else self.batch.gatherer

    async def __aenter__(self) -> Lanes:
        """Open the batch, and watch the deadline."""
        if self.gatherer is not None:
            await self.gatherer.__aenter__()
            if self.deadline is not None:
                self._leaving = asyncio.get_running_loop().create_task(self._leave(self.deadline, self.gatherer))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the batch."""
        if self._leaving is not None:
            self._leaving.cancel()
            await asyncio.gather(self._leaving, return_exceptions=True)
        if self.gatherer is not None:
            await self.gatherer.__aexit__()
            if not self.gatherer.has_open_jobs:
                self.caller.money.release_credits()

    def recorded(self, outcomes: list[Outcome]) -> None:
        """Handle outcomes that are on disk."""
        if self.gatherer is not None:
            self.gatherer.recorded(outcomes)
        if self.tries is not None:
            self.tries.recorded(outcomes)

    def _send(self, permits: RequestPermits, again: int = 0) -> Awaitable[dict[str, Any]]:
        if self.lane == "batch":
            return self._batch(permits, again)
        if self.lane == "auto" and self.has_batch:
            return self._first_by_batch(permits, again)
        if self.batch is not None and self.batch.holds(permits.prompt, permits.attempt, again):
            return self._first_by_batch(permits, again)
        return self._beside(permits, again)

    async def _first_by_batch(self, permits: RequestPermits, again: int) -> dict[str, Any]:
        with suppress(TooLate):
            return await self._batch(permits, again)
        return await self._beside(permits, again)

    def _beside(self, permits: RequestPermits, again: int) -> Awaitable[dict[str, Any]]:
        """Send a prompt that is not for a batch, or not any more."""
        if self.lane == "flex":
            return self._flex(permits, self.flex_tries, again)
        if self.lane == "auto":
            return self._flex(permits, self.flex_tries if self._flex_left_s() > 0 else 0, again)
        return self._online(permits)

    async def _online(self, permits: RequestPermits, model: str | None = None) -> dict[str, Any]:
        files = None
        while True:
            try:
                async with permits.next():
                    return await self.caller.call(permits.prompt, "online", permits.attempt, model)
            except NextModel:
                continue  # with the next model
            except NotReady as error:
                files = files or self.caller.files_of(permits.prompt)
                await files.wait(error)

    async def _flex(self, permits: RequestPermits, tries: int, again: int) -> dict[str, Any]:
        pause_s, files = SHED_PAUSE_S, self.caller.files_of(permits.prompt)
        while tries:
            try:
                async with permits.next():
                    return await self.caller.call(permits.prompt, "flex", permits.attempt)
            except NextModel:
                continue  # with the next model
            except NotReady as error:
                await files.wait(error)
                continue
            except Transient as error:
                if not is_shed(error):
                    raise
                tries -= 1
                if not tries and self.flex_fallback is None:
                    raise Transient(str(error), counts=False) from error
            if tries and pause_s >= self._flex_left_s():
                break
            if tries:
                await asyncio.sleep(self.chance.uniform(0.5, 1.0) * pause_s)
                pause_s *= 2
        if self.flex_fallback == "batch" and self.has_batch and self.lane == "flex":
            return await self._batch(permits, again)
        return await self._online(permits)

    def _batch(self, permits: RequestPermits, again: int) -> Awaitable[dict[str, Any]]:
        assert self.batch is not None
        return self.batch.call(permits.prompt, permits.attempt, again)

    async def _leave(self, deadline: Deadline, gatherer: Gatherer) -> None:
        await asyncio.sleep(max(0.0, deadline.batch_until_s - self.caller.clock.now_s()))
        left_s = deadline.at_s - self.caller.clock.now_s()
        await gatherer.give_up("it was not back in time", min(CONFIRM_S, CONFIRM_SHARE * left_s))

    def _flex_left_s(self) -> float:
        return math.inf if self.deadline is None else self.deadline.flex_until_s - self.caller.clock.now_s()


class RequestPermits:
    """The permits of one attempt, one for each of its requests.

    Args:
        request_config: Settings of the requests, for their cost.
        is_free: Whether the attempt started without a permit.
    """

    def __init__(self, prompt: Prompt, attempt: Attempt, request_config: RequestConfig, *, is_free: bool) -> None:
        self.prompt, self.attempt, self._request_config = prompt, attempt, request_config
        self._has_own = not is_free

    def next(self) -> AbstractAsyncContextManager[None]:
        """Return what waits for the permit of the next request, and holds it."""
        if self._has_own:
            self._has_own = False
            return _AT_ONCE
        return self.attempt.permit(cost_of(self.prompt, self._request_config))


_AT_ONCE = nullcontext()


def cost_of(prompt: Prompt, request_config: RequestConfig) -> Cost:
    """Return the cost of a request in the pacer's windows."""
    return {"requests": 1.0, "tokens": float(estimate_input(prompt, request_config))}


def start_cost(lane: Lane, request_config: RequestConfig) -> Callable[[Prompt], Cost]:
    """Return a function for the cost of an attempt's start, which sends a request in lanes online and flex only."""
    return lambda prompt: NOTHING if lane in ("batch", "auto") else cost_of(prompt, request_config)


def is_shed(error: Transient) -> bool:
    """Say whether a request was rejected because flex had no room."""
    return getattr(error.__cause__, "code", None) == 503


def plan(now_s: float, deadline_s: float, items: int, latency_s: float, *, is_measured: bool, at_once: int) -> Deadline:
    """Return when to leave the cheaper lanes.

    Args:
        now_s: Time by the session's clock.
        deadline_s: Time to the deadline, seconds.
        items: Number of prompts.
        latency_s: Time to an online answer, seconds.
        is_measured: Whether ``latency_s`` was measured; otherwise the batch has at least 40 % of the time.
        at_once: Requests in flight.
    """
    online_s = SAFETY * (math.ceil(items / at_once) + 2) * latency_s
    at_s = now_s + deadline_s
    flex_until_s = max(at_s - online_s, now_s if is_measured else now_s + BATCH_SHARE * deadline_s)
    batch_until_s = flex_until_s - (FLEX_LEAD - 1) * online_s
    if not is_measured:
        batch_until_s = max(batch_until_s, now_s + BATCH_SHARE * deadline_s)
    return Deadline(at_s, min(batch_until_s, flex_until_s), flex_until_s)


def assumed_latency_s(output_tokens: float) -> float:
    """Return the assumed time to an answer of so many tokens, seconds."""
    return ASSUMED_LATENCY_S + output_tokens / ASSUMED_TOKENS_PER_S


class PromptGroups:
    """Groups of 50 prompts, by their start: rows of the panel's table, for display only.

    A group may start before the previous one has ended.

    Args:
        items: Number of prompts still to start.
        before: Number of the last group of an earlier start.
        tell: Function that publishes an event.
        clock: The session's clock.
    """

    def __init__(self, items: int, before: int, tell: Callable[[Event], None], clock: Clock) -> None:
        self._items, self._before, self._tell, self._clock = items, before, tell, clock
        self._group: dict[Any, int] = {}  # by key
        self._left: Counter[int] = Counter()
        self._completed: Counter[int] = Counter()

    def join(self, attempt: Attempt) -> None:
        """Assign an item to a group when it first starts."""
        key = key_value(attempt.key)
        if key not in self._group:
            at = len(self._group)
            number = self._before + at // GROUP + 1
            self._group[key] = number
            if at % GROUP == 0:
                items = self._left[number] = max(1, min(GROUP, self._items - at))
                self._tell(events.GroupStarted(self._clock.unix_s(), number, f"Group {number}", items))
        attempt.join(self._group[key])

    def recorded(self, outcomes: Iterable[Outcome]) -> None:
        """End the groups whose items are all recorded."""
        for outcome in outcomes:
            number = self._group.get(outcome.key, 0)
            if not number:
                continue
            self._left[number] -= 1
            self._completed[number] += outcome.status == "completed"
            if not self._left[number]:
                del self._left[number]
                status: Status = "completed" if self._completed[number] else "failed"
                self._tell(events.GroupEnded(self._clock.unix_s(), number, status))
