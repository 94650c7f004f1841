"""The truth about a client of the simulated Gemini: what was asked, billed, and billed or submitted twice.

Rule: this is the server's own book.  A client is right when its own book agrees with this one.
"""

from __future__ import annotations

from array import array
from collections import Counter
from typing import TYPE_CHECKING, Literal, TypedDict

from .traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .gemini_answers import Billed
    from .gemini_requests import Asked

Lane = Literal["online", "flex", "batch"]
LANES: tuple[Lane, ...] = ("online", "flex", "batch")


class Prompt(TypedDict):
    """One prompt: requests sent online or flex, those accepted, and generations billed by lane."""

    requests: int
    accepted: int
    online: int
    flex: int
    batch: int


class LaneTokens(TypedDict):
    """What one lane has billed: `prompt` includes cached tokens, `out` excludes thoughts."""

    generations: int
    prompt: int
    out: int
    thoughts: int
    cached: int


class Truth(TypedDict):
    """What really happened, ready for JSON.

    `prompts` by the text of the last turn; `billed_twice` the prompts that were billed more than once with the same
    contents and settings, whatever the lane or the model; `jobs` the states of the jobs by display name, one for
    each job created; `submitted_twice` the display names of jobs created while another with the same requests was
    alive or had delivered; `refused` the answers 429; `in_flight` and `most_in_flight` generations under way;
    `arrivals` of online and flex requests by model, seconds since the start, sorted.
    """

    prompts: dict[str, Prompt]
    billed: dict[str, LaneTokens]
    billed_twice: list[str]
    jobs: dict[str, list[str]]
    submitted_twice: list[str]
    refused: int
    in_flight: int
    most_in_flight: int
    arrivals: dict[str, list[float]]


class Ledger:
    """Write down what was asked and what was billed."""

    def __init__(self) -> None:
        self.arrivals: dict[str, Traffic] = {}
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

    def arrive(self, asked: Asked, model: str, now_s: float) -> None:
        """Count a request that arrived, whatever becomes of it."""
        self._requests[asked.prompt] += 1
        self.arrivals.setdefault(model, Traffic()).arrive(now_s)

    def accept(self, asked: Asked, from_s: float, to_s: float) -> None:
        """Count a request that is being worked on."""
        self._accepted[asked.prompt] += 1
        self._from_s.append(from_s)
        self._to_s.append(to_s)

    def bill(self, lane: Lane, asked: Asked, billed: Billed) -> None:
        """Count a generation that costs."""
        self._billed[lane][asked.prompt] += 1
        self._same[asked.fingerprint] += 1
        if self._same[asked.fingerprint] > 1:
            self._twice[asked.prompt] = None
        tokens = self._tokens[lane]
        tokens["generations"] += 1
        tokens["prompt"] += billed.prompt
        tokens["out"] += billed.out
        tokens["thoughts"] += billed.thoughts
        tokens["cached"] += billed.cached

    def truth(self, jobs: dict[str, list[str]], submitted_twice: Sequence[str], refused: int, now_s: float) -> Truth:
        """Return the whole book as of ``now_s``."""
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
            arrivals={model: traffic.arrivals.tolist() for model, traffic in self.arrivals.items()},
        )

    def _prompt(self, name: str) -> Prompt:
        return Prompt(
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
