"""The settings of a Gemini session, and its parts, which are made on the event loop that uses them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ipybatch.engine.data.clock import Clock, in_thread
from ipybatch.engine.data.events import Event, State
from ipybatch.engine.data.policy import check, keep
from ipybatch.engine.data.spec import Backend
from ipybatch.engine.store import run_store
from ipybatch.engine.store.journal import Journal
from ipybatch.errors import InputError
from ipybatch.gemini.batch.farewell import Farewell
from ipybatch.gemini.batch.gatherer import Gatherer
from ipybatch.gemini.batch.jobs import JobGroups, JobStore
from ipybatch.gemini.batch.pending import BatchPolicy
from ipybatch.gemini.batch_call import BatchCaller, BatchFunds
from ipybatch.gemini.images import ImageStore
from ipybatch.gemini.lanes import Deadline, Lane, Lanes, assumed_latency_s, plan
from ipybatch.gemini.money import usage
from ipybatch.gemini.money.budget import Budget, Money
from ipybatch.gemini.money.credits import CreditAccount
from ipybatch.gemini.money.prices import Prices
from ipybatch.gemini.money.tokens import OUTPUT_TOKENS, estimate_call
from ipybatch.gemini.online_call import Caller
from ipybatch.gemini.prompts import Prompt
from ipybatch.gemini.service.api import Api
from ipybatch.gemini.service.client import TIMEOUT_S, connect
from ipybatch.gemini.service.pacer import GeminiPacer, Model
from ipybatch.gemini.service.remote import RemoteTransport, check_remote
from ipybatch.gemini.service.request_config import RequestConfig
from ipybatch.gemini.tries import Tries

if TYPE_CHECKING:
    from google.genai import Client


FEW = 2  # most prompts for which a batch is not worth the wait
MEASURED_S = 86_400.0  # age of the oldest answers of which the latency is measured


class Connection(msgspec.Struct):
    """How to connect to the service, by a new client or one of the user's own, which is not closed.

    Attributes:
        backend: Where single requests are sent from; None: from here.
    """

    api_key: str | None = None
    base_url: str | None = None
    client: Any = None
    timeout_s: float = TIMEOUT_S
    backend: Backend | None = None
    _prepared: Client | None = None

    def prepare(self) -> None:
        """Make the client ahead of time: the first one takes a second, too long on the engine's thread.

        Raises:
            InputError: There is no key, or an argument is invalid.
            MissingExtra: google-genai is not installed.
        """
        check_remote(self.backend)
        self._prepared = connect(self.api_key, self.base_url, self.client, timeout_s=self.timeout_s)
        if self.backend is not None:
            RemoteTransport(self._prepared, {}, self.backend)  # one that cannot be is refused before anything is sent

    def open(self) -> Client:
        """Return a client: the prepared one, on the first call."""
        if self._prepared is None:
            self.prepare()
        client, self._prepared = self._prepared, None
        assert client is not None
        return client

    async def close(self, client: Client) -> None:
        """Close a client that `open` made."""
        if self.client is None:
            await client.aio.aclose()


class GeminiSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a session; see `generate` for those that a user gives.

    Attributes:
        models: Models by priority.
        request_configs: Settings of requests, by lane.
        at_once: Requests in flight.
        deadline_s: Time from the start to the deadline, seconds; None: there is no deadline.
        output_tokens: Expected tokens of an answer, > 0.
        flex_tries: Tries by flex, >= 1.
        again: How often an unusable answer is sent again, by its verdict.
        fallback: The model for what was blocked; None: none is.
        images: Where images of answers are saved; None: nowhere.
        keeps_reply: Whether the whole reply is kept in the item's result.

    Raises:
        InputError: A field is invalid; the message names it.
    """

    name: str
    lane: Lane
    prompts: list[Prompt]
    models: list[Model]
    request_configs: dict[str, RequestConfig]
    policy: BatchPolicy
    connection: Connection
    pacer: GeminiPacer
    at_once: int
    journal: Journal
    clock: Clock
    prices: Prices | None = None
    budget_usd: float | None = None
    account: CreditAccount | None = None
    deadline_s: float | None = None
    output_tokens: float = OUTPUT_TOKENS
    flex_tries: int = 3
    flex_fallback: Literal["online", "batch"] | None = "online"
    images: ImageStore | None = None
    keeps_reply: bool = False
    again: dict[str, int] = {}
    fallback: str | None = None

    def __post_init__(self) -> None:
        keep(self, output_tokens=check("output_tokens", self.output_tokens, low=0, above=True))
        if self.account is not None and not isinstance(self.account, CreditAccount):
            msg = f"account must be a CreditAccount or None, got {self.account!r}"
            raise InputError(msg)

    @property
    def has_batch(self) -> bool:
        """Whether prompts may go by batch."""
        if self.lane == "auto":
            return len(self.prompts) > FEW
        return self.lane == "batch" or (self.lane == "flex" and self.flex_fallback == "batch")

    @property
    def has_open_jobs(self) -> bool:
        """Whether an earlier process left jobs, in whatever lane, whose answers are not all recorded."""
        jobs = JobStore(self.journal, self.clock).of_session(self.name)
        return any(job.sent and not job.collected for job in jobs)

    def expected_usd(self, lane: str) -> Decimal | None:
        """Return the expected cost of all prompts, or None if no price is known."""
        money = Money(Budget(None), self.prices)
        total = Decimal(0)
        config = self.request_configs[lane]
        calls = Counter(estimate_call(prompt, config, self.output_tokens) for prompt in self.prompts)
        for tokens, count in calls.items():
            usd = money.usd(self.models[0].name, tokens, lane)
            if usd is None:
                return None
            total += count * usd
        return total

    def check_budget(self, lane: str) -> None:
        """Check that the budget allows one call, and that what it may cost is known.

        Raises:
            InputError: It is not so; the message says what to give.
        """
        if self.budget_usd is None:
            return
        keep(self, budget_usd=check("budget_usd", self.budget_usd, low=0, above=True))
        money = Money(Budget(self.budget_usd), self.prices, output_tokens=self.output_tokens)
        asked = [(model.name, lane) for model in self.models]
        for name, way in asked if self.fallback is None else [*asked, (self.fallback, "online")]:
            if money.rates(name, way, 0) is None:
                msg = (
                    f"budget_usd needs a price for {name}, and none is known:"
                    f' give it as prices={{"{name}": {{"in": ..., "out": ...}}}}'
                )
                raise InputError(msg)
        config, name = self.request_configs[lane], self.models[0].name
        bounds = [money.bound(prompt, name, lane, config) for prompt in self.prompts]
        least = min((bound.likely_usd for bound in bounds if bound is not None), default=None)
        if least is not None:
            money.budget.check(least)

    async def settle(self) -> None:
        """Settle the calls that an earlier process left without an answer: in a thread, as another may be writing.

        Raises:
            JournalError: The journal cannot be written.
        """
        await in_thread(self.clock, usage.settle_interrupted, self.journal, self.name)

    def open(self, stack: AsyncExitStack, tell: Callable[[Event], None], state: Callable[[], State]) -> Lanes:
        """Return the lanes; to be called after `settle`.

        Args:
            stack: Closes the client in the end.
            tell: Function that publishes an event.
            state: Function that returns the session's state: a paused session submits no job, a cancelled one
                cancels its jobs.
        """
        client, connection, farewell = (
            self.connection.open(),
            AsyncExitStack(),
            Farewell((self.journal.path, self.name)),
        )
        stack.push_async_callback(farewell.close, connection)
        connection.push_async_callback(self.connection.close, client)
        api = Api(client, self.clock, timeout_s=self.connection.timeout_s, backend=self.connection.backend)
        connection.push_async_callback(api.close)
        with self.journal.reader() as database:
            run = run_store.find(database, self.name)
        assert run is not None
        budget = Budget(self.budget_usd)
        spent_usd = usage.spent_usd(self.journal, self.name, run.created_s)
        budget.spend(spent_usd, spent_usd - usage.confirmed_usd(self.journal, self.name, run.created_s))
        log = usage.CallLog(self.journal, self.clock)
        stack.callback(log.close)
        caller = Caller(
            session=self.name,
            api=api,
            request_configs=self.request_configs,
            pacer=self.pacer,
            money=Money(budget, self.prices, self.account, self.output_tokens, self._credits_held()),
            journal=self.journal,
            clock=self.clock,
            tell=tell,
            log=log,
            images=self.images,
            keeps_reply=self.keeps_reply,
        )
        for model, lane, usd in usage.usd_of_lanes(self.journal, self.name, run.created_s):
            caller.money.save(model, lane, usd)
        caller.tell_spent()
        self.pacer.refresh(self.clock.unix_s())
        return Lanes(
            lane=self.lane,
            caller=caller,
            batch=self._batch(caller, state, run.created_s, farewell) if self.has_batch or self.has_open_jobs else None,
            has_batch=self.has_batch,
            flex_tries=self.flex_tries,
            flex_fallback=self.flex_fallback,
            deadline=self._deadline(),
            tries=self._tries(state, run.created_s) if self.again or self.fallback else None,
            fallback=self.fallback,
        )

    def _batch(self, caller: Caller, state: Callable[[], State], since_s: float, farewell: Farewell) -> BatchCaller:
        funds = BatchFunds(caller, usage.uncollected_usd(self.journal, self.name, since_s))
        gatherer = Gatherer(
            self.name,
            [model.name for model in self.models],
            self.request_configs["batch"],
            self.policy,
            caller.api,
            JobStore(self.journal, self.clock),
            JobGroups(caller.tell, self.clock),
            self.clock,
            state,
            since_s,
            funds,
            farewell,
        )
        return BatchCaller(caller, gatherer, funds)

    def _tries(self, state: Callable[[], State], since_s: float) -> Tries:
        return Tries(
            self.again | ({} if self.fallback is None else {"blocked": 1}),
            self.journal,
            self.name,
            self.models[0].name,
            self.request_configs["online"],
            self.clock,
            state,
            since_s,
        )

    def _credits_held(self) -> dict[tuple[str, Decimal], int]:
        """Return what earlier processes reserved for jobs that are not collected; all else is refunded."""
        if self.account is None:
            return {}
        ours = [held for held in self.account.open_reservations() if held.reference.startswith(f"{self.name}: ")]
        if any(job.sent and not job.collected for job in JobStore(self.journal).of_session(self.name)):
            return {(held.reference, held.credits): held.id for held in ours}
        for held in ours:
            self.account.refund(held.id)
        return {}

    def _deadline(self) -> Deadline | None:
        if self.deadline_s is None:
            return None
        measured_s = usage.latency_s(self.journal, self.models[0].name, self.clock.unix_s() - MEASURED_S)
        return plan(
            self.clock.now_s(),
            self.deadline_s,
            len(self.prompts),
            measured_s or assumed_latency_s(self.output_tokens),
            is_measured=measured_s is not None,
            at_once=self.at_once,
        )
