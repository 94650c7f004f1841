"""One prompt in the batch lane, with its cost.

    reserve --> wait for its job --> read the answer --> record usage, settle --> result or error
                     `--> no answer: what was sent may be billed, and counts at what was reserved

A prompt that is in a job already, of this process or an earlier one, reserves nothing: its job counts at its bound
until the answer tells what it cost.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from ipybatch.engine.data.clock import in_thread
from ipybatch.engine.run.attempt import Attempt
from ipybatch.errors import ItemError, Permanent
from ipybatch.gemini.batch.gatherer import Gatherer
from ipybatch.gemini.batch.jobs import Job
from ipybatch.gemini.batch.pending import Body, Funds, OtherModel
from ipybatch.gemini.batch.results import Unmatched
from ipybatch.gemini.money import usage
from ipybatch.gemini.online_call import Caller, Ticket
from ipybatch.gemini.prompts import Prompt
from ipybatch.gemini.service.reply import UNTOLD, read_answer

_NO_USD = Decimal(0)


class BatchFunds(Funds):
    """Pays for jobs from the session's account, and records what they cost.

    Args:
        caller: What reserves and records, as for other calls.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def fund(self, prompts: list[Prompt]) -> int:
        """Reserve the credits of prompts that are about to be sent, and return of how many, the first ones."""
        caller = self._caller
        return await in_thread(caller.clock, caller.money.reserve_credits, prompts, "batch", caller.session)

    def on_record(self, job: Job) -> set[str]:
        """Return the keys of a job's items whose answers are on record."""
        return usage.answered_in(self._caller.journal, job.display_name)

    def book(self, job: Job, prompts: dict[str, Prompt | None]) -> None:
        """Record that items of a job may be billed, though it does not tell of them; by key."""
        share = None if job.bound_usd is None else Decimal(str(job.bound_usd)) / job.requests
        calls = [
            usage.Call(
                at_s=self._caller.clock.unix_s(),
                session=self._caller.session,
                lane="batch",
                model=job.model,
                operation="" if prompt is None else prompt.operation,
                project="" if prompt is None else prompt.project,
                status=usage.UNANSWERED,
                tokens=UNTOLD,
                usd=share,
                job=job.display_name,
                item=key,
                bound_usd=share,
            )
            for key, prompt in prompts.items()
        ]
        usage.record_calls(self._caller.journal, *calls)


class BatchCaller(msgspec.Struct):
    """Sends prompts by batch.

    Attributes:
        caller: What reserves, records and settles, as for other calls.
        gatherer: The jobs.
        prepaid: What counts as spent of jobs of earlier processes, beyond what is on record, USD; by display name.
    """

    caller: Caller
    gatherer: Gatherer
    prepaid: dict[str, Decimal]
    _booked: dict[str, Decimal] = {}  # by key in a job: calls without an answer that count at what was reserved

    async def call(self, prompt: Prompt, attempt: Attempt, again: int) -> dict[str, Any]:
        """Send a prompt in a job and return the item's result.

        Args:
            again: How many answers to it were of no use.

        Raises:
            TooLate: The batch is not back in time.
            Held: Its job ended without its answer.
            Withheld: The budget or the account does not allow it, or its job is left running.
            ItemError: There is no result; the type says what to do.
        """
        while True:
            try:
                return await self._send(prompt, attempt, again)
            except OtherModel:
                continue

    async def _send(self, prompt: Prompt, attempt: Attempt, again: int) -> dict[str, Any]:
        model, key = place = self.gatherer.place_of(prompt, attempt, again)
        if self.gatherer.has(key):
            self.caller.money.budget.hold(_NO_USD)
            ticket = Ticket()
        else:
            ticket = await self.caller.reserve(prompt, model, "batch")
        try:
            async with self.gatherer.reply(prompt, attempt, again, ticket, place) as received:
                return await self._finish(prompt, ticket, received.body, received.job, received.key)
        except Unmatched as error:
            ticket.unmatched = error
            return await self._finish(prompt, ticket, error.body, error.job, error.key)
        finally:
            if ticket.is_unanswered and not ticket.is_settled:
                self._booked[key] = ticket.reserved
                self.caller.settle(ticket, ticket.reserved, is_told=False)
            self.caller.settle(ticket, None)
            self.caller.tell_spent()

    async def _finish(self, prompt: Prompt, ticket: Ticket, body: Body, job: Job, key: str) -> dict[str, Any]:
        caller, lane = self.caller, "batch"
        ticket.job, ticket.item = job.display_name, key
        if not ticket.is_sent:
            ticket.prepaid = ticket.bound_usd = self._prepaid(job, key)
        try:
            answer = read_answer(body, image=caller.request_configs[lane].wants_image(prompt.config))
        except ItemError as error:  # it is billed: nothing is sent again because it cannot be read
            raise Permanent(str(error)) from error
        with caller.money.credits_for(prompt, lane, caller.session):
            return await caller.finish(prompt, answer, job.model, lane, 0.0, ticket)

    def _prepaid(self, job: Job, key: str) -> Decimal:
        """Return what counts as spent of an item already."""
        if (booked := self._booked.pop(key, None)) is not None:
            return booked
        left = self.prepaid.get(job.display_name, _NO_USD)
        share = min(left, Decimal(str(job.bound_usd or 0.0)) / max(1, job.requests))
        self.prepaid[job.display_name] = left - share
        return share
