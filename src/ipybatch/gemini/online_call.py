"""One request of generate_content, with its cost.

reserve money --> send once --> read the answer --> record usage --> settle money --> result or error
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import msgspec

from ipybatch.engine.data.clock import Clock
from ipybatch.engine.data.events import Event, Noted, Spent
from ipybatch.engine.rules.limiter import cut_words
from ipybatch.engine.run.attempt import Attempt
from ipybatch.engine.store.journal import Journal
from ipybatch.errors import ItemError, Permanent, RateLimited, Withheld
from ipybatch.gemini.images import ImageStore
from ipybatch.gemini.money import usage
from ipybatch.gemini.money.credits import find_credits
from ipybatch.gemini.money.tokens import OUTPUT_TOKENS, estimate_call
from ipybatch.gemini.money.usage import Money
from ipybatch.gemini.prompts import Prompt
from ipybatch.gemini.service.api import Api
from ipybatch.gemini.service.pacer import REST_S, GeminiPacer
from ipybatch.gemini.service.reply import Answer, midnight_pacific_s, read_answer, read_refusal, result_of
from ipybatch.gemini.service.request_config import RequestConfig
from ipybatch.gemini.tries import Unusable

_NO_USD = Decimal(0)


class NextModel(RateLimited):
    """A model refused, and another one may be asked in its place."""


class Caller(msgspec.Struct):
    """Sends prompts one by one.

    Attributes:
        session: Name of the session.
        request_configs: Settings of requests, by lane.
        tell: Function that publishes an event.
        images: Where images of answers are saved.
        output_tokens: Expected tokens of an answer, for the reservation; a moving average of those received.
    """

    session: str
    api: Api
    request_configs: dict[str, RequestConfig]
    pacer: GeminiPacer
    money: Money
    journal: Journal
    clock: Clock
    tell: Callable[[Event], None]
    images: ImageStore | None = None
    output_tokens: float = OUTPUT_TOKENS
    _resting: set[str] = msgspec.field(default_factory=set)

    async def call(self, prompt: Prompt, lane: str, attempt: Attempt) -> dict[str, Any]:
        """Send one request and return the item's result.

        Raises:
            Withheld: The budget or the account does not allow it.
            ItemError: There is no result; the type says what to do.
        """
        model = self.pacer.take()
        reserved = self.expected_usd(prompt, model, lane)
        await self.money.budget.reserve(reserved)
        attempt.is_billed = True
        try:
            with self.money.credits_for(prompt, lane, self.session):
                answer, ms = await self._send(prompt, model, lane, attempt)
                return await self.finish(prompt, answer, model, lane, ms)
        finally:
            attempt.is_billed = False
            self.money.budget.free(reserved)
            self.tell_spent()

    def expected_usd(self, prompt: Prompt, model: str, lane: str) -> Decimal:
        """Return the expected cost of a call, for the reservation; 0 if no price is known, or there is no budget."""
        if self.money.budget.limit_usd is None:
            return _NO_USD
        expected = estimate_call(prompt, self.request_configs[lane], self.output_tokens)
        return self.money.usd(model, expected, lane) or _NO_USD

    async def finish(self, prompt: Prompt, answer: Answer, model: str, lane: str, ms: float) -> dict[str, Any]:
        """Record an answer's usage, save its images, and return the item's result.

        Args:
            ms: Time to the answer, milliseconds; 0.0 in a batch job.

        Raises:
            Unusable: The answer's verdict is not "ok", or it does not match the schema; it is billed all the same, and
                the error has it as its result.
            Permanent: An image cannot be saved; the error has the rest as its result.
        """
        usd = self.money.usd(model, answer.tokens, lane)
        status, data, unusable = self._read(answer, lane)
        self.record(prompt, model, lane, status, ms, tokens=answer.tokens, usd=usd)
        self.money.budget.spend(usd or _NO_USD)
        self.output_tokens += 0.1 * (answer.tokens.out + answer.tokens.thoughts - self.output_tokens)
        files: list[str] = []
        if answer.images and self.images is not None:
            try:
                with self._time_stands():
                    files = await asyncio.to_thread(self.images.save, prompt.id, answer.images)
            except Permanent as error:
                unusable = unusable or error
        result = result_of(answer, usd=usd, data=data, files=files)
        result["model"] = result["model"] or model
        if unusable is not None:
            unusable.result = result
            raise unusable
        return result

    def _read(self, answer: Answer, lane: str) -> tuple[str, Any, Permanent | None]:
        """Return an answer's status in the usage, its data under the schema, and the error of one that is unusable."""
        if answer.verdict != "ok":
            return answer.verdict, msgspec.UNSET, Unusable(answer.reason, answer.verdict)
        schema = self.request_configs[lane].schema
        if schema is None:
            return "ok", msgspec.UNSET, None
        try:
            return "ok", schema.parse(answer.text), None
        except Permanent as error:
            return "invalid", msgspec.UNSET, Unusable(str(error), "invalid")

    def record(self, prompt: Prompt, model: str, lane: str, status: str, ms: float, **used: Any) -> None:
        """Record one call.

        Args:
            used: Fields of `Call`: tokens, usd.
        """
        call = usage.Call(
            at_s=self.clock.unix_s(),
            session=self.session,
            lane=lane,
            model=model,
            operation=prompt.operation,
            project=prompt.project,
            status=status,
            ms=ms,
            credits=find_credits(prompt.operation, 1, lane) if status == "ok" else None,
            **used,
        )
        usage.record_calls(self.journal, call)

    def tell_spent(self) -> None:
        """Publish the amount spent so far."""
        budget = self.money.budget
        limit = None if budget.limit_usd is None else float(budget.limit_usd)
        self.tell(Spent(self.clock.unix_s(), float(budget.spent_usd), limit))

    async def _send(self, prompt: Prompt, model: str, lane: str, attempt: Attempt) -> tuple[Answer, float]:
        started_s = self.clock.now_s()
        request_config = self.request_configs[lane]
        try:
            answer = read_answer(
                await self.api.generate(model, await self._body(prompt, request_config)),
                image=request_config.wants_image(prompt.config),
            )
        except ItemError as error:
            told = self._refused(error, model, started_s) if isinstance(error, RateLimited) else None
            status = str(getattr(error.__cause__, "code", "") or type(error).__name__).lower()
            self.record(prompt, model, lane, status, (self.clock.now_s() - started_s) * 1000)
            if told is not None:
                raise told from error
            raise
        seconds = self.clock.now_s() - started_s
        pace = self.pacer.of(model)
        pace.answered(seconds)
        self._resting.discard(model)
        if advice := pace.advice():
            self.tell(Noted(self.clock.unix_s(), advice))
        attempt.settle(tokens=float(answer.tokens.in_))
        return answer, seconds * 1000

    async def _body(self, prompt: Prompt, request_config: RequestConfig) -> bytes:
        if not prompt.images:
            return prompt.body(request_config)
        with self._time_stands():
            return await asyncio.to_thread(prompt.body, request_config)  # it reads files

    @contextmanager
    def _time_stands(self) -> Iterator[None]:
        """Hold virtual time while a thread is awaited."""
        self.clock.hold(+1)
        try:
            yield
        finally:
            self.clock.hold(-1)

    def _refused(self, error: RateLimited, model: str, started_s: float) -> ItemError:
        """Learn from a 429, and return the error for the prompt."""
        now_s, refusal = self.clock.now_s(), read_refusal(getattr(error.__cause__, "details", None))
        pacer, pace = self.pacer, self.pacer.of(model)
        pace.refused(now_s, started_s, refusal)
        until_s = midnight_pacific_s(self.clock.unix_s())
        hours = (until_s - self.clock.unix_s()) / 3600
        if refusal.is_daily:
            pace.used_up_until_s = until_s
        elif pacer.is_alone(model):
            return RateLimited(str(error), retry_after_s=refusal.retry_s)
        else:
            rest_s = pace.rest(now_s, started_s, refusal.retry_s)
            if rest_s >= REST_S:
                told = f" for {rest_s / 60:,.0f} min{cut_words(refusal.retry_s or 0.0)}"
                self._note_rest(model, f"{model} is not asked{told}: {error}")
        rest_s = pacer.rest_s(now_s)
        if rest_s == math.inf:
            return Withheld(
                f"the quota of every model for today is used up: run again after midnight Pacific, in {hours:.1f} h"
            )
        if refusal.is_daily:
            self._note_rest(model, f"the quota of {model} for today is used up, for {hours:.1f} h")
        if rest_s:
            return RateLimited(f"no model may be asked now; {error}", retry_after_s=rest_s)
        return NextModel(str(error), retry_after_s=0.0)

    def _note_rest(self, model: str, text: str) -> None:
        """Publish that a model is not asked for a while, once until it answers again."""
        if model not in self._resting:
            self._resting.add(model)
            self.tell(Noted(self.clock.unix_s(), f"{text}. The other models go on; ipybatch.lift() asks it at once"))
