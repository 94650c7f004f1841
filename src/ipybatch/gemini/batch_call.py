"""One prompt in the batch lane, with its cost.

    reserve --> wait for its job --> read the answer --> record usage, settle --> result or error
                     `--> no answer: what was sent may be billed, and counts at what was reserved

A prompt that is in a job already, of this process or an earlier one, reserves nothing: its job counts at its bound
until the answer tells what it cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from ipybatch.engine.data.clock import in_thread
from ipybatch.engine.run.attempt import Attempt
from ipybatch.errors import ItemError, Permanent
from ipybatch.gemini.batch.gatherer import Gatherer
from ipybatch.gemini.batch.jobs import Job
from ipybatch.gemini.batch.pending import Body, Funds, OtherModel, PendingItem
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
        prepaid: What counts as spent of jobs of earlier processes, beyond what is on record, USD; by display name.
    """

    def __init__(self, caller: Caller, prepaid: dict[str, Decimal] | None = None) -> None:
        self._caller, self._prepaid = caller, prepaid or {}

    async def fund(self, prompts: list[Prompt]) -> int:
        """Reserve the credits of prompts that are about to be sent, and return of how many, the first ones."""
        caller = self._caller
        return await in_thread(caller.clock, caller.money.reserve_credits, prompts, "batch", caller.session)

    def on_record(self, job: Job) -> set[str]:
        """Return the keys of a job's items whose answers are on record."""
        return usage.answered_in(self._caller.journal, job.display_name)

    def uncounted(self, job: Job | None, prompt: Prompt) -> Decimal:
        """Return what an item may cost whose job counts for nothing yet: it is of another run, or has no bound."""
        if job is None or job.display_name in self._prepaid:
            return _NO_USD
        caller = self._caller
        bound = caller.money.bound(prompt, job.model, "batch", caller.request_configs["batch"])
        return _NO_USD if bound is None else bound.likely_usd

    def prepaid(self, job: Job, prompt: Prompt) -> Decimal:
        """Return what counts as spent of an item of an earlier process, and count it no more."""
        left = self._prepaid.get(job.display_name, _NO_USD)
        most = min(left, self.most(job, prompt) or _NO_USD)
        self._prepaid[job.display_name] = left - most
        return most

    def give_up(self, job: Job, items: Mapping[str, PendingItem | None], unseen: int) -> None:
        """Count items that a job did not answer, by key: so many may be billed unseen, the others cost nothing.

        Which of them is not known, so that it is the dearest.
        """
        most = {key: self.most(job, None if item is None else item.prompt) for key, item in items.items()}
        booked = set(sorted(most, key=lambda key: most[key] or _NO_USD, reverse=True)[:unseen])
        for key, item in items.items():
            if item is None or key in booked:
                continue
            item.stake.is_refused = True
            if not item.stake.is_sent:  # by this process
                usd = self.prepaid(job, item.prompt)
                self._caller.money.budget.spend(-usd, -usd)
        prompts = {key: item if item is None else item.prompt for key, item in items.items()}
        self.book(job, {key: prompts[key] for key in booked})

    def most(self, job: Job, prompt: Prompt | None) -> Decimal | None:
        """Return the most that an item of a job may cost: an even share, unless more is known; None without a bound."""
        if job.bound_usd is None:
            return None
        caller, total = self._caller, Decimal(str(job.bound_usd))
        if prompt is not None:
            bound = caller.money.bound(prompt, job.model, "batch", caller.request_configs["batch"])
            if bound is not None and bound.is_known:
                return min(bound.usd, total)
        return total / max(1, job.requests)

    def book(self, job: Job, prompts: Mapping[str, Prompt | None]) -> None:
        """Record that items of a job may be billed, though it does not tell of them; by key."""
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
                usd=(most := self.most(job, prompt)),
                job=job.display_name,
                item=key,
                bound_usd=most,
            )
            for key, prompt in prompts.items()
        ]
        if calls:
            usage.record_calls(self._caller.journal, *calls)


class BatchCaller(msgspec.Struct):
    """Sends prompts by batch.

    Attributes:
        caller: What reserves, records and settles, as for other calls.
        gatherer: The jobs.
        funds: What pays for the jobs.
    """

    caller: Caller
    gatherer: Gatherer
    funds: BatchFunds
    _booked: dict[str, Decimal] = {}  # by key in a job: calls without an answer that count at what was reserved

    def holds(self, prompt: Prompt, attempt: Attempt, again: int) -> bool:
        """Say whether a job has a prompt already, of this process or an earlier one: it is paid for there."""
        return self.gatherer.has(self.gatherer.place_of(prompt, attempt, again)[1])

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
        gatherer = self.gatherer
        while True:
            model, key = place = gatherer.place_of(prompt, attempt, again)
            if gatherer.has(key):
                ticket = Ticket(reserved=self.funds.uncounted(gatherer.job_of(key), prompt))
                self.caller.money.budget.hold(ticket.reserved)
            else:
                ticket = await self.caller.reserve(prompt, model, "batch")
            try:
                item = gatherer.ask(prompt, attempt, again, ticket, place)
                try:
                    received = await item.answer
                    return await self._finish(prompt, ticket, received.body, received.job, received.key)
                finally:
                    gatherer.let_go(item)
            except OtherModel:
                continue
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
            booked = self._booked.pop(key, None)
            ticket.prepaid = self.funds.prepaid(job, prompt) if booked is None else booked
            ticket.bound_usd = self.funds.most(job, prompt)
        try:
            answer = read_answer(body, image=caller.request_configs[lane].wants_image(prompt.config))
        except ItemError as error:  # it is billed: nothing is sent again because it cannot be read
            self.funds.book(job, {key: prompt})
            caller.settle(ticket, ticket.bound_usd, is_told=False)
            raise Permanent(str(error)) from error
        with caller.money.credits_for(prompt, lane, caller.session):
            return await caller.finish(prompt, answer, job.model, lane, 0.0, ticket)
