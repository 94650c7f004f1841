"""The ledger of the simulated Gemini: what it accepted, billed and delivered, row by row and in sums.

A client's statement is right when it agrees with this one.  One row for each accepted call, and for each item of a job
that has ended:

    accepted --> billed, or not (an error, an item that was never processed) --> delivered, or never

An answer is delivered when the whole reply that holds it has left the service: not when the line broke, when the client
had gone, or when a result file was cut before it.
"""

from __future__ import annotations

from array import array
from bisect import insort
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict, cast

from .bill import BilledTokens, usd_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .generation import ContentRequest

Lane = Literal["online", "flex", "batch"]
LANES: tuple[Lane, ...] = ("online", "flex", "batch")


class LedgerRow(TypedDict):
    """One accepted call, or one item of a job that has ended.

    `at_s` is the time of billing, seconds since the start; `key` the API key, and `item` the item's own key in its job;
    `job` the job's name, None outside of batch.  `finish_reason` is that of the answer, or of the blocked prompt;
    "ERROR" for an item that failed, "NOT_PROCESSED" for one that its job never came to.  `tokens_in` include cached
    tokens, sound and images, `tokens_out` those of images, and exclude thoughts; `queries` are those of a search; all
    are 0 where nothing was billed.  `usd` is the bill for them, None if no price is public.  `told` says whether the
    answer carries usageMetadata.
    """

    at_s: float
    key: str
    model: str
    lane: Lane
    job: str | None
    item: str | None
    prompt: str
    finish_reason: str
    billed: bool
    tokens_in: int
    tokens_out: int
    tokens_thoughts: int
    tokens_cached: int
    tokens_audio: int
    tokens_drawn: int
    tokens_image: int
    queries: int
    usd: float | None
    told: bool
    delivered: bool


class Work(NamedTuple):
    """Whose generation it is: the key that pays, the model, the lane, and the job and its item in the batch lane."""

    at_s: float
    key: str
    model: str
    lane: Lane
    job: str | None = None
    item: str | None = None


class PromptCounts(TypedDict):
    """One prompt: requests sent online or flex, those accepted, and generations billed by lane."""

    requests: int
    accepted: int
    online: int
    flex: int
    batch: int


class LaneTokens(TypedDict):
    """Tokens billed in one lane: `prompt` includes cached tokens, `out` excludes thoughts."""

    generations: int
    prompt: int
    out: int
    thoughts: int
    cached: int


class Truth(TypedDict):
    """The server's ledger in sums, ready for JSON; `GeminiSimulator.ledger` has its rows.

    `prompts` by the text of the last turn; `billed_twice` the prompts that were billed more than once with the same
    contents and settings, in any lane and model; `jobs` the states of all jobs by display name; `submitted_twice` the
    display names of jobs created while another with the same requests was active or had succeeded; `refused` the
    number of replies 429; `in_flight` and `most_in_flight` the numbers of concurrent generations, now and at most;
    `arrivals` the times of online and flex requests by model, seconds since the start, sorted.
    """

    prompts: dict[str, PromptCounts]
    billed: dict[str, LaneTokens]
    billed_twice: list[str]
    jobs: dict[str, list[str]]
    submitted_twice: list[str]
    refused: int
    in_flight: int
    most_in_flight: int
    arrivals: dict[str, list[float]]


class BillingLedger:
    """The record of requests, accepted requests, billed generations and delivered answers."""

    def __init__(self) -> None:
        self._arrivals: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self._requests: Counter[str] = Counter()
        self._accepted: Counter[str] = Counter()
        self._billed: dict[Lane, Counter[str]] = {lane: Counter() for lane in LANES}
        self._tokens: dict[Lane, LaneTokens] = {
            lane: LaneTokens(generations=0, prompt=0, out=0, thoughts=0, cached=0) for lane in LANES
        }
        self._same: Counter[str] = Counter()
        self._twice: dict[str, None] = {}
        self._from_s = array("d")
        self._to_s = array("d")
        self._rows: list[tuple[Work, str, str, bool, BilledTokens, bool]] = []
        self._delivered = bytearray()
        self._by_key: Counter[str] = Counter()

    def arrive(self, asked: ContentRequest, model: str, now_s: float) -> None:
        """Record the arrival of a request."""
        self._requests[asked.prompt] += 1
        insort(self._arrivals[model], now_s)

    def accept(self, asked: ContentRequest, from_s: float, to_s: float) -> None:
        """Record an accepted request and the time span of its generation."""
        self._accepted[asked.prompt] += 1
        self._from_s.append(from_s)
        self._to_s.append(to_s)

    def bill(self, work: Work, asked: ContentRequest, billed: BilledTokens, body: Mapping[str, Any]) -> int:
        """Record a billed generation and its answer; return the number of its row."""
        self._billed[work.lane][asked.prompt] += 1
        self._by_key[work.key] += 1
        self._same[asked.fingerprint] += 1
        if self._same[asked.fingerprint] > 1:
            self._twice[asked.prompt] = None
        tokens = self._tokens[work.lane]
        tokens["generations"] += 1
        tokens["prompt"] += billed.prompt
        tokens["out"] += billed.out
        tokens["thoughts"] += billed.thoughts
        tokens["cached"] += billed.cached
        return self._write(work, asked.prompt, _finish_reason(body), True, billed, "usageMetadata" in body)

    def skip(self, work: Work, asked: ContentRequest, finish_reason: str) -> int:
        """Record an item that costs nothing: "ERROR" or "NOT_PROCESSED"; return the number of its row."""
        return self._write(work, asked.prompt, finish_reason, False, BilledTokens(), False)

    def deliver(self, rows: Iterable[int]) -> None:
        """Record that the answers of these rows have left the service."""
        for row in rows:
            self._delivered[row] = True

    def billed_to(self, key: str) -> int:
        """Return the number of generations billed to a key."""
        return self._by_key[key]

    def rows(self) -> list[LedgerRow]:
        """Return all rows, in the order of billing."""
        names = tuple(LedgerRow.__annotations__)
        rows = []
        for (work, prompt, reason, is_billed, billed, told), delivered in zip(self._rows, self._delivered, strict=True):
            usd = usd_of(work.model, work.lane, billed) if is_billed else 0.0
            row = (*work, prompt, reason, is_billed, *billed, usd, told, bool(delivered))
            rows.append(cast("LedgerRow", dict(zip(names, row, strict=True))))
        return rows

    def truth(self, jobs: dict[str, list[str]], submitted_twice: Sequence[str], refused: int, now_s: float) -> Truth:
        """Return the whole ledger in sums, as of ``now_s``."""
        names = dict.fromkeys([*self._requests, *self._billed["batch"]])
        return Truth(
            prompts={name: self._prompt(name) for name in names},
            billed={lane: self._tokens[lane].copy() for lane in LANES},
            billed_twice=list(self._twice),
            jobs=jobs,
            submitted_twice=list(submitted_twice),
            refused=refused,
            in_flight=sum(a <= now_s < b for a, b in zip(self._from_s, self._to_s, strict=True)),
            most_in_flight=self._most(),
            arrivals={model: times.tolist() for model, times in self._arrivals.items()},
        )

    def _write(  # noqa: PLR0917  # the fields of a row, in order
        self, work: Work, prompt: str, finish_reason: str, is_billed: bool, billed: BilledTokens, told: bool
    ) -> int:
        self._rows.append((work, prompt, finish_reason, is_billed, billed, told))
        self._delivered.append(False)
        return len(self._rows) - 1

    def _prompt(self, name: str) -> PromptCounts:
        return PromptCounts(
            requests=self._requests[name],
            accepted=self._accepted[name],
            online=self._billed["online"][name],
            flex=self._billed["flex"][name],
            batch=self._billed["batch"][name],
        )

    def _most(self) -> int:
        steps = [(at_s, 1) for at_s in self._from_s] + [(at_s, -1) for at_s in self._to_s]
        running = most = 0
        for _, step in sorted(steps):  # an end before a start at the same moment
            running += step
            most = max(most, running)
        return most


def _finish_reason(body: Mapping[str, Any]) -> str:
    if "candidates" in body:
        return str(body["candidates"][0]["finishReason"])
    return str(body["promptFeedback"]["blockReason"])
