"""Lanes: the work of a Gemini session, one prompt at a time through the lanes it may take.

An attempt's own permit is its first request online or by flex; every further
one asks for its own.  A batch takes none: its jobs are paced by themselves.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Literal

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.clock import Clock
from ipybatch.engine.data.events import Event, Status
from ipybatch.engine.data.outcome import Outcome
from ipybatch.engine.data.plan import key_value
from ipybatch.engine.rules.limiter import NOTHING, Cost
from ipybatch.engine.run.permits import Attempt
from ipybatch.errors import Transient
from ipybatch.gemini.batch.gatherer import CONFIRM_S, Gatherer
from ipybatch.gemini.batch.results import TooLate
from ipybatch.gemini.money.tokens import estimate_input
from ipybatch.gemini.online_call import Caller, UsedUp
from ipybatch.gemini.prompts import Prompt
from ipybatch.gemini.service.reply import read_answer
from ipybatch.gemini.service.request_config import RequestConfig

Lane = Literal["online", "flex", "batch", "auto"]
CONFIRM_SHARE = 0.25  # of what is left until the deadline: a job that says it is cancelled bills nothing
SHED_PAUSE_S = 2.0  # before flex is tried again; doubles
ASSUMED_LATENCY_S = 0.5  # before the first token, until one has been measured
ASSUMED_TOKENS_PER_S = 200.0
IN_A_HURRY = 50  # requests at once, when a deadline is near
SAFETY = 1.5
FLEX_LEAD = 2.5  # how much earlier than to online one leaves the batch, to try flex before
BATCH_SHARE = 0.4  # of the deadline goes to the batch at least, while the latency is a guess
GROUP = 50


class Deadline(msgspec.Struct, frozen=True):
    """When a session has to be done, and what it may wait for until then.

    Attributes:
        at_s: By the clock.
        batch_until_s: When what is not back by batch goes another way; -inf when there is no time for a batch.
        flex_until_s: When flex is tried no more.
    """

    at_s: float
    batch_until_s: float
    flex_until_s: float


class Lanes(msgspec.Struct):
    """Send prompts.

    Attributes:
        gatherer: None for sessions without a batch.
        flex_tries: How often flex is tried before a prompt goes another way.
        flex_fallback: Which way.
        deadline: When all has to be done; None for whenever.
    """

    lane: Lane
    caller: Caller
    gatherer: Gatherer | None = None
    flex_tries: int = 3
    flex_fallback: Literal["online", "batch"] | None = "online"
    deadline: Deadline | None = None
    chance: random.Random = msgspec.field(default_factory=random.Random)
    _leaving: asyncio.Task[None] | None = None

    async def send(self, prompt: Prompt, attempt: Attempt) -> dict[str, Any]:
        """Return the item's result."""
        cost = cost_of(prompt, self.caller.request_configs["online"])
        permits = Permits(prompt, attempt, cost, is_free=self.lane in ("batch", "auto"))
        if self.lane == "batch":
            return await self._batch(prompt, attempt)
        if self.lane == "flex":
            return await self._flex(permits, self.flex_tries)
        if self.lane == "auto":
            return await self._auto(permits)
        return await self._online(permits)

    async def __aenter__(self) -> Lanes:
        """Watch the deadline."""
        if self.gatherer is not None:
            await self.gatherer.__aenter__()
            if self.deadline is not None:
                self._leaving = asyncio.get_running_loop().create_task(self._leave(self.deadline, self.gatherer))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave jobs as they are to be left."""
        if self._leaving is not None:
            self._leaving.cancel()
            await asyncio.gather(self._leaving, return_exceptions=True)
        if self.gatherer is not None:
            await self.gatherer.__aexit__()

    async def _auto(self, permits: Permits) -> dict[str, Any]:
        if self.gatherer is not None:
            try:
                return await self._batch(permits.prompt, permits.attempt)
            except TooLate:
                pass
        tries = self.flex_tries if self._flex_left_s() > 0 else 0
        return await self._flex(permits, tries)

    async def _online(self, permits: Permits) -> dict[str, Any]:
        while True:
            try:
                async with permits.next():
                    return await self.caller.call(permits.prompt, "online", permits.attempt)
            except UsedUp:
                continue  # with the next model

    async def _flex(self, permits: Permits, tries: int) -> dict[str, Any]:
        pause_s = SHED_PAUSE_S
        while tries:
            try:
                async with permits.next():
                    return await self.caller.call(permits.prompt, "flex", permits.attempt)
            except UsedUp:
                continue  # with the next model
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
        if self.flex_fallback == "batch" and self.gatherer is not None and self.lane == "flex":
            return await self._batch(permits.prompt, permits.attempt)
        return await self._online(permits)

    async def _batch(self, prompt: Prompt, attempt: Attempt) -> dict[str, Any]:
        assert self.gatherer is not None
        caller, model = self.caller, self.gatherer.model
        money, request_config = caller.money, caller.request_configs["batch"]
        reserved = caller.expected_usd(prompt, model, "batch")
        await money.budget.reserve(reserved)
        try:
            with money.credits_for(prompt, "batch", caller.session):
                body = await self.gatherer.answer(prompt, attempt)
                answer = read_answer(body, image=request_config.wants_image(prompt.config))
                return await caller.finish(prompt, answer, model, "batch", 0.0)
        finally:
            money.budget.free(reserved)
            caller.tell_spent()

    async def _leave(self, deadline: Deadline, gatherer: Gatherer) -> None:
        left_s = deadline.batch_until_s - self.caller.clock.now_s()
        await asyncio.sleep(max(0.0, left_s))
        left_s = deadline.at_s - self.caller.clock.now_s()
        await gatherer.give_up("it was not back in time", min(CONFIRM_S, CONFIRM_SHARE * left_s))

    def _flex_left_s(self) -> float:
        return math.inf if self.deadline is None else self.deadline.flex_until_s - self.caller.clock.now_s()


class Permits:
    """The permits of one attempt, one for each request it sends.

    Args:
        is_free: Whether the attempt started without a request of its own.
    """

    def __init__(self, prompt: Prompt, attempt: Attempt, cost: Cost, *, is_free: bool) -> None:
        self.prompt, self.attempt, self._cost = prompt, attempt, cost
        self._has_own = not is_free

    @asynccontextmanager
    async def next(self) -> AsyncIterator[None]:
        """Wait for the next request's permit."""
        if self._has_own:
            self._has_own = False
            yield
            return
        async with self.attempt.permit(self._cost):
            yield


def cost_of(prompt: Prompt, request_config: RequestConfig) -> Cost:
    """Return the cost of a request in the pacer's windows."""
    return {"requests": 1.0, "tokens": float(estimate_input(prompt, request_config))}


def start_cost(lane: Lane, request_config: RequestConfig) -> Callable[[Prompt], Cost]:
    """Return a function for the cost of an attempt's start, which sends a request in lanes online and flex only."""
    return lambda prompt: NOTHING if lane in ("batch", "auto") else cost_of(prompt, request_config)


def is_shed(error: Transient) -> bool:
    """Say whether flex had no room for a request."""
    return getattr(error.__cause__, "code", None) == 503


def plan(now_s: float, deadline_s: float, items: int, latency_s: float, *, is_measured: bool, at_once: int) -> Deadline:
    """Return when to leave the cheaper lanes.

    Args:
        deadline_s: From now.
        latency_s: Of a request online.
        is_measured: Whether that is known; a guess never costs the batch its chance.
        at_once: How many run at the same time.
    """
    online_s = SAFETY * (math.ceil(items / at_once) + 2) * latency_s
    at_s = now_s + deadline_s
    flex_until_s = max(at_s - online_s, now_s if is_measured else now_s + BATCH_SHARE * deadline_s)
    batch_until_s = flex_until_s - (FLEX_LEAD - 1) * online_s
    if not is_measured:
        batch_until_s = max(batch_until_s, now_s + BATCH_SHARE * deadline_s)
    return Deadline(at_s, min(batch_until_s, flex_until_s), flex_until_s)


def assumed_latency_s(output_tokens: float) -> float:
    """Return how long an answer of so many tokens is likely to take."""
    return ASSUMED_LATENCY_S + output_tokens / ASSUMED_TOKENS_PER_S


class PromptGroups:
    """Count prompts into groups as they start.

    Args:
        items: How many are to come.
        before: Groups that there were before.
    """

    def __init__(self, items: int, before: int, tell: Callable[[Event], None], clock: Clock) -> None:
        self._items, self._before, self._tell, self._clock = items, before, tell, clock
        self._group: dict[Any, int] = {}  # by key
        self._left: Counter[int] = Counter()
        self._completed: Counter[int] = Counter()

    def join(self, attempt: Attempt) -> None:
        """Put an item into its group, unless it is in one."""
        key = key_value(attempt.key)
        if key not in self._group:
            at = len(self._group)
            number = self._before + at // GROUP + 1
            self._group[key] = number
            if at % GROUP == 0:
                self._begin(number, max(1, min(GROUP, self._items - at)))
        attempt.join(self._group[key])

    def recorded(self, outcomes: Iterable[Outcome]) -> None:
        """End groups whose items have all ended."""
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

    def _begin(self, number: int, items: int) -> None:
        self._left[number] = items
        self._tell(events.GroupStarted(self._clock.unix_s(), number, f"Group {number}", items))
