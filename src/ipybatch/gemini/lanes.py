"""Lanes: the work of a Gemini session, one prompt at a time through the lanes it may take.

An attempt's own permit is its first request online or by flex; every further
one asks for its own.  A batch takes none: its jobs are paced by themselves.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import msgspec

from ipybatch.engine.rules.limiter import NOTHING, Cost
from ipybatch.engine.run.permits import Attempt
from ipybatch.errors import Transient
from ipybatch.gemini.answers import read_answer
from ipybatch.gemini.batching import CONFIRM_S, Batching
from ipybatch.gemini.calling import Caller, UsedUp, input_tokens
from ipybatch.gemini.prompts import Prompt
from ipybatch.gemini.routes import Deadline
from ipybatch.gemini.waiting import TooLate

Lane = Literal["online", "flex", "batch", "auto"]

CONFIRM_SHARE = 0.25  # of what is left until the deadline: a job that says it is cancelled bills nothing
SHED_PAUSE_S = 2.0  # before flex is tried again; doubles


class Lanes(msgspec.Struct):
    """Send prompts.

    Attributes:
        batching: None for sessions without a batch.
        flex_tries: How often flex is tried before a prompt goes another way.
        flex_fallback: Which way.
        deadline: When all has to be done; None for whenever.
    """

    lane: Lane
    caller: Caller
    batching: Batching | None = None
    flex_tries: int = 3
    flex_fallback: Literal["online", "batch"] | None = "online"
    deadline: Deadline | None = None
    chance: random.Random = msgspec.field(default_factory=random.Random)
    _leaving: asyncio.Task[None] | None = None

    async def send(self, prompt: Prompt, attempt: Attempt) -> dict[str, Any]:
        """Return the item's result."""
        permits = Permits(prompt, attempt, is_free=self.lane in ("batch", "auto"))
        if self.lane == "batch":
            return await self._batch(prompt, attempt)
        if self.lane == "flex":
            return await self._flex(permits, self.flex_tries)
        if self.lane == "auto":
            return await self._auto(permits)
        return await self._online(permits)

    async def __aenter__(self) -> Lanes:
        """Watch the deadline."""
        if self.batching is not None:
            await self.batching.__aenter__()
            if self.deadline is not None:
                self._leaving = asyncio.get_running_loop().create_task(self._leave(self.deadline, self.batching))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave jobs as they are to be left."""
        if self._leaving is not None:
            self._leaving.cancel()
            await asyncio.gather(self._leaving, return_exceptions=True)
        if self.batching is not None:
            await self.batching.__aexit__()

    async def _auto(self, permits: Permits) -> dict[str, Any]:
        if self.batching is not None:
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
        if self.flex_fallback == "batch" and self.batching is not None and self.lane == "flex":
            return await self._batch(permits.prompt, permits.attempt)
        return await self._online(permits)

    async def _batch(self, prompt: Prompt, attempt: Attempt) -> dict[str, Any]:
        assert self.batching is not None
        caller, model = self.caller, self.batching.model
        money, sending = caller.money, caller.sending["batch"]
        reserved = caller.expected_usd(prompt, model, "batch")
        await money.budget.reserve(reserved)
        try:
            with money.credits_for(prompt, "batch", caller.session):
                body = await self.batching.answer(prompt, attempt)
                answer = read_answer(body, image=sending.wants_image(prompt.config))
                return await caller.finish(prompt, answer, model, "batch", 0.0)
        finally:
            money.budget.free(reserved)
            caller.tell_spent()

    async def _leave(self, deadline: Deadline, batching: Batching) -> None:
        left_s = deadline.batch_until_s - self.caller.clock.now_s()
        await asyncio.sleep(max(0.0, left_s))
        left_s = deadline.at_s - self.caller.clock.now_s()
        await batching.give_up("it was not back in time", min(CONFIRM_S, CONFIRM_SHARE * left_s))

    def _flex_left_s(self) -> float:
        return math.inf if self.deadline is None else self.deadline.flex_until_s - self.caller.clock.now_s()


class Permits:
    """The permits of one attempt, one for each request it sends.

    Args:
        is_free: Whether the attempt started without a request of its own.
    """

    def __init__(self, prompt: Prompt, attempt: Attempt, *, is_free: bool) -> None:
        self.prompt, self.attempt = prompt, attempt
        self._has_own = not is_free

    @asynccontextmanager
    async def next(self) -> AsyncIterator[None]:
        """Wait for the next request's permit."""
        if self._has_own:
            self._has_own = False
            yield
            return
        async with self.attempt.permit(cost_of(self.prompt)):
            yield


def cost_of(prompt: Prompt) -> Cost:
    """Return what a request costs in the windows."""
    return {"requests": 1.0, "tokens": float(input_tokens(prompt))}


def start_cost(lane: Lane) -> Callable[[Prompt], Cost]:
    """Return what the start of an attempt costs: a batch and auto send nothing by then."""
    return (lambda prompt: NOTHING) if lane in ("batch", "auto") else cost_of


def is_shed(error: Transient) -> bool:
    """Say whether flex had no room for a request."""
    return getattr(error.__cause__, "code", None) == 503
