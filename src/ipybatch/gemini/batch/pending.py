"""Items that wait for their answers, and in which jobs these are."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from ipybatch.engine.data.clock import Clock
from ipybatch.engine.rules.limiter import MOST_COOL_S
from ipybatch.engine.run.attempt import Attempt
from ipybatch.errors import InputError, ItemError, Permanent, Transient, Withheld
from ipybatch.gemini.batch.jobs import Job, JobIndex
from ipybatch.gemini.batch.spool import BatchRequest, check_size
from ipybatch.gemini.prompts import Prompt
from ipybatch.gemini.service.pacer import IN_A_ROW, LONGEST_REST_S
from ipybatch.gemini.service.reply import midnight_pacific_s, read_refusal
from ipybatch.gemini.service.request_config import RequestConfig

Body = dict[str, Any]


# Most prompts that wait for jobs at the same time.  Each takes 5 KB; and a cancel, or a pass of the garbage collector,
# goes through all of them: with 100,000 it held the loop for 0.9 s, and the jobs were cancelled 3.6 s later.
WAITING = 20_000


class BatchPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a session's jobs.

    Attributes:
        max_requests: Most requests in a job.
        max_active: Most jobs at the same time.
        poll_s: Time to the first poll of a job, seconds; grows.
        wait_s: Longest wait for results, seconds; then jobs are left running.
    """

    max_requests: int
    max_active: int
    poll_s: float
    wait_s: float

    @property
    def prompts(self) -> int:
        """Most prompts in jobs at the same time."""
        return self.max_requests * self.max_active

    def fitted(self, prompts: int) -> BatchPolicy:
        """Return these limits with smaller jobs where not all prompts can wait, so that all active jobs are used."""
        if prompts <= WAITING:
            return self
        return msgspec.structs.replace(self, max_requests=min(self.max_requests, max(1, WAITING // self.max_active)))

    def left_running(self, jobs: int, look: str) -> str:
        """Return the reason why a session ends while jobs are running.

        Args:
            look: Why the last look at one of them failed; "" if it did not.
        """
        which = "1 job is" if jobs == 1 else f"{jobs} jobs are"
        failed = f" (the last look failed: {look})" if look else ""
        return f"{which} still running at Gemini after {self.wait_s:g} s{failed}: run it again to pick up the results"


class TooLate(ItemError):
    """The batch is not back in time: the item takes another lane."""


class OtherModel(ItemError):
    """Its job was refused, and nothing was sent: the item goes into a job of another model."""


class BatchModels:
    """The models of a session's jobs: a job is for the first of them that is not left out.

    One for which the service refuses jobs is left out until its day is over; for as long as it told, if that is an
    hour or more; for an hour, if it goes on without a word; but not the last one, which is asked again and again.

    Attributes:
        names: All of them.
    """

    def __init__(self, names: Sequence[str], clock: Clock) -> None:
        self.names = tuple(names)
        self._clock = clock
        self._out: dict[str, float] = {}  # Unix time until which each is left out

    @property
    def first(self) -> str:
        """The model of the next job."""
        return self._left()[0]

    def leave_out(self, name: str, error: ItemError, tried: int) -> bool:
        """Leave a model out after a refusal, if there is another and that is likely to help; return whether it is.

        Args:
            tried: How often it was asked for this job.
        """
        refusal, now_s = read_refusal(getattr(error.__cause__, "details", None)), self._clock.unix_s()
        told_s = refusal.retry_s or 0.0
        if not refusal.is_daily and (told_s < LONGEST_REST_S if told_s else tried < IN_A_ROW):
            return False
        if name in self._left() and len(self._left()) > 1:
            rest_s = min(max(told_s, LONGEST_REST_S), MOST_COOL_S)
            self._out[name] = midnight_pacific_s(now_s) if refusal.is_daily else now_s + rest_s
        return name not in self._left()

    def _left(self) -> list[str]:
        now_s = self._clock.unix_s()
        return [name for name in self.names if self._out.get(name, 0.0) <= now_s]


class Stake(msgspec.Struct):
    """What is reserved for an item, and whether it may be billed.

    Attributes:
        bound_usd: The most that it can cost, USD; None if that is not known.
        is_sent: Whether its job may have been accepted.
        is_refused: Whether the service did not process it: then it costs nothing.
    """

    bound_usd: Decimal | None = None
    is_sent: bool = False
    is_refused: bool = False

    @property
    def is_unanswered(self) -> bool:
        """Whether it may be billed without an answer."""
        return self.is_sent and not self.is_refused


class Funds:
    """What pays for jobs; without a class of its own nothing does."""

    async def fund(self, prompts: list[Prompt]) -> int:
        """Reserve the credits of prompts that are about to be sent, and return for how many they suffice, the first."""
        return len(prompts)

    def on_record(self, job: Job) -> set[str]:
        """Return the keys of a job's items whose answers are on record."""
        return set()

    def give_up(self, job: Job, items: Mapping[str, PendingItem | None], unseen: int) -> None:
        """Count items that a job did not answer, by key: so many may be billed unseen, the others cost nothing."""


class Received(msgspec.Struct, frozen=True):
    """The answer to an item.

    Attributes:
        body: The reply.
        job: Its job.
        key: The item's key in the job.
    """

    body: Body
    job: Job
    key: str


class PendingItem(msgspec.Struct, frozen=True):
    """An item that waits for its answer.

    Attributes:
        key: Its key in a job.
        model: The model of that job.
        prompt: The item.
        attempt: The session's attempt.
        answer: Resolved with the answer, or with an error: `OtherModel` where no job was made of it, as the service
            refuses its model; `Withheld` where its job is left running, or its state is unknown; `Held` where its job
            ended without its answer, which may come yet or has been paid for; else one whose type says what to do.
        stake: What is reserved for it.
    """

    key: str
    model: str
    prompt: Prompt
    attempt: Attempt
    answer: asyncio.Future[Received]
    stake: Stake

    def request(self, request_config: RequestConfig) -> BatchRequest | None:
        """Return its request; None if it fails alone, since it is too large."""
        request = BatchRequest.of(self.key, self.prompt, request_config)
        try:
            check_size(request)
        except InputError as error:
            self.fail(Permanent(str(error)))
            return None
        return request

    def succeed(self, received: Received) -> None:
        """Resolve it with its answer, unless it is resolved."""
        if not self.answer.done():
            self.answer.set_result(received)

    def fail(self, error: ItemError) -> None:
        """Resolve it with an error, which the breaker does not count, unless it is resolved."""
        if not self.answer.done():
            self.answer.set_exception(Transient(str(error), counts=False) if isinstance(error, Transient) else error)


def key_of(model: str, request_config: RequestConfig, prompt: Prompt, key: str, again: int = 0) -> str:
    """Return an item's key in a job: a hash of its key, of all that is sent, and of how often it was sent again."""
    about: tuple[Any, ...] = model, key, request_config.settings(), prompt._ipybatch_sent_
    sent = msgspec.json.encode((*about, f"again {again}") if again else about, order="deterministic")
    return hashlib.blake2b(sent, digest_size=12).hexdigest()


class PendingItems:
    """The items of a session that wait; to be used on one event loop.

    Attributes:
        by_key: The items, by their keys in a job.
        index: In which jobs they are.
        closed: Error of items that come too late; None before.
    """

    def __init__(self) -> None:
        self.by_key: dict[str, PendingItem] = {}
        self.index = JobIndex()
        self.closed: ItemError | None = None

    def of(self, job: Job) -> list[PendingItem]:
        """Return the items of a job that have no answer yet."""
        at = self.index.of
        found = [self.by_key[key] for key in job.keys if key in self.by_key and at(key) == job.number]
        return [item for item in found if not item.answer.done()]

    def turn_away(self, items: Iterable[PendingItem], error: ItemError) -> None:
        """Resolve items with an error; one that ends the session is that of all later items too."""
        items = list(items)
        if isinstance(error, Withheld) and items:
            self.closed = self.closed or error
        for item in items:
            item.fail(error)

    def fail(self, items: Iterable[PendingItem]) -> None:
        """Resolve items that are not sent any more."""
        for item in list(items):
            item.fail(self.closed or Permanent("its job was not submitted"))
