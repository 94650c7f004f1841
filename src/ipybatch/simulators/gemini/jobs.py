"""Batch jobs of the simulated Gemini: their states over time, their faults, and what they leave.

Rule: a job's state follows from its times and ``now_s``; there are no timers.  `BatchJobs.settle` runs and bills the
jobs that have ended, and is called before every request is answered.

    PENDING --pending_s--> RUNNING --running_s--> SUCCEEDED | FAILED | EXPIRED | CANCELLED
       +----------- cancel, cancel_s ----------> CANCELLED

The fault of a job is one word or several, "expire+partial":

    fail, expire, cancel   its end; without any of these it succeeds
    stuck                  it stays PENDING until it expires after 48 h
    partial                if it does not succeed: the first share of its items is processed, billed, and its output
    billed                 the same without the output
    late                   it has ended, and says nothing of its output for a while
    late_file              it names its result file, which is not found for a while
    cut, torn              for a while the output ends early and cleanly: after half the lines, or within a line
    shuffled               the output has another order
    keyless                the output has no keys, inline or in a file
    inline                 a job from a file answers inline
    error_body             for a while after its creation asking for it gives an error 503 with status 200
    error_file             for a while its result file is an error 503 with status 200
    unseen                 for a while after its creation asking for it gives 404; the list shows it

"A while" lasts until so many looks have met the fault, and so many seconds have passed.

Source: https://ai.google.dev/gemini-api/docs/batch-api, read 2026-11-22; faults as reported in public issues, read
2026-11-30.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from ipybatch.simulators.faults import check, uniforms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

EXPIRES_S = 48 * 3600.0
ENDS = {"fail": "FAILED", "expire": "EXPIRED", "cancel": "CANCELLED"}
FAULTS = (
    *(*ENDS, "stuck", "partial", "billed", "late", "late_file", "cut", "torn", "shuffled", "keyless", "inline"),
    *("unseen", "error_body", "error_file"),
)
FINAL = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")


class BatchItem(NamedTuple):
    """One request of a job: its key, or None, and its request as compact JSON."""

    key: str | None
    request: bytes


class ItemResult(NamedTuple):
    """What became of an item: its row in the ledger, its line as JSON, and whether that is an answer."""

    row: int
    line: bytes = b""
    is_answer: bool = False


@dataclass(slots=True, kw_only=True)
class BatchJob:
    """One job.

    Attributes:
        number: From 1, in the order of creation.
        name: ``batches/...``.
        key: The API key that it belongs to.
        display_name: What the client called it; not unique.
        file: The uploaded input, or None for an inline job.
        end: Its final state at ``ends_s`` unless it is cancelled.
        faults: The words of its fault.
        items: Its requests, until it is settled.
        done: Number of its items that were processed.
        first_row: Where its items stand in the ledger, once it is settled.
        results: The results that are its output as JSON, in the order of the requests.
        failed: Number of results that are errors.
        looks: How often each fault was met.
        held: The (pending, running) seconds that are left while it is kept from starting, or None.
    """

    number: int
    name: str
    key: str
    display_name: str
    model: str
    file: str | None
    end: str
    faults: frozenset[str]
    created_s: float
    running_s: float
    ends_s: float
    count: int
    digest: str
    items: list[BatchItem] = field(default_factory=list)
    cancelled_s: float = math.inf
    deleted: bool = False
    done: int = 0
    first_row: int = 0
    results: list[bytes] = field(default_factory=list)
    failed: int = 0
    looks: Counter[str] = field(default_factory=Counter)
    held: tuple[float, float] | None = None

    def state(self, now_s: float) -> str:
        """Return PENDING, RUNNING, or its final state."""
        if now_s >= self.ended_s():
            if self.ends_s > self.cancelled_s:
                return "CANCELLED"
            return "EXPIRED" if self.held else self.end
        return "RUNNING" if now_s >= self.running_s else "PENDING"

    def ended_s(self) -> float:
        """Return the time of its end, seconds."""
        return min(self.ends_s, self.cancelled_s)

    def has_output(self, now_s: float) -> bool:
        """Return whether it has ended and has an output."""
        state = self.state(now_s)
        return state == "SUCCEEDED" or (state in FINAL and "partial" in self.faults and self.done > 0)

    def order(self) -> list[int]:
        """Return the numbers of its processed items in the order of its output."""
        order = list(range(self.done))
        if "shuffled" in self.faults and self.done > 1:
            Random(self.digest).shuffle(order)
            if order[0] == 0:  # a shuffle may change nothing
                order.append(order.pop(0))
        return order

    def hold(self, now_s: float) -> None:
        """Keep it from starting."""
        self.held = (self.running_s - now_s, self.ends_s - self.running_s)
        self.running_s, self.ends_s = math.inf, self.created_s + EXPIRES_S

    def release(self, now_s: float) -> None:
        """Let it start."""
        if self.held is not None:
            pending_s, running_s = self.held
            self.running_s = now_s + pending_s
            self.ends_s = min(self.ends_s, self.running_s + running_s)
            self.held = None


class BatchJobs:
    """All jobs, including deleted ones, which continue to run."""

    def __init__(
        self,
        *,
        seed: int,
        delay_s: float | tuple[float, float] | None,
        faults: Mapping[str, float | str] | Sequence[str | None],
        looks: float,
        late_s: float,
        partial_share: float,
        cancel_s: float,
        most: int,
        stall_above: int | None,
        work: Callable[[BatchJob, BatchItem, bool], ItemResult],
    ) -> None:
        """Set the timing and the faults.

        Args:
            seed: Same seed, same failing jobs.
            delay_s: Time until a job ends, half of it pending; or (pending, running); None for jobs that never end.
            faults: Faults of jobs, see the module: by share, by display name or its prefix, or in the order of
                creation.
            looks: Number of looks that meet a fault which lasts a while, >= 0; ``math.inf`` for all.
            late_s: How long such a fault lasts at least, seconds.
            partial_share: Share of the items that "partial" and "billed" process, [0, 1].
            cancel_s: Time from a cancellation until the job has ended, seconds.
            most: Maximum number of active jobs of one key.
            stall_above: While a key has more pending jobs than this, none of them starts; None for no such limit.
            work: Processes one item of a job and bills it; or, with False, records that it was not processed.

        Raises:
            ValueError: A value is outside its range.
        """
        pending_s, running_s = delay_s if isinstance(delay_s, tuple) else ((delay_s or 0.0) / 2,) * 2
        check("batch_delay_s", min(pending_s, running_s) >= 0, ">= 0, a pair of such, or None", delay_s)
        check("cancel_s", cancel_s >= 0, ">= 0 seconds", cancel_s)
        check("max_active_jobs", most >= 1, ">= 1", most)
        check("job_looks", looks >= 0, ">= 0", looks)
        check("job_late_s", late_s >= 0, ">= 0 seconds", late_s)
        check("partial_share", 0 <= partial_share <= 1, "in [0, 1]", partial_share)
        check("stall_above", stall_above is None or stall_above >= 1, ">= 1 or None", stall_above)
        for name, how in faults.items() if hasattr(faults, "items") else [("", how) for how in faults]:
            is_share = isinstance(how, float | int) and 0 <= how <= 1 and _are_words(name)
            if not (is_share or _are_words(how) or (how is None and not name)):
                msg = f"job_faults must be shares in [0, 1] of {', '.join(FAULTS)}, or those words joined by +"
                msg += f" with at most one end, got {name!r}: {how!r}"
                raise ValueError(msg)
        self._seed = seed
        self._pending_s = pending_s
        self._running_s = EXPIRES_S if delay_s is None else running_s
        self._endless = delay_s is None
        self._faults = faults
        self._looks = looks
        self._late_s = late_s
        self._partial_share = partial_share
        self._cancel_s = cancel_s
        self._most = most
        self._stall_above = stall_above
        self._work = work
        self._jobs: list[BatchJob] = []
        self._active: list[BatchJob] = []
        self._by_name: dict[str, BatchJob] = {}
        self._tries: dict[str, int] = {}
        self.submitted_twice: list[str] = []

    def is_full(self, key: str) -> bool:
        """Return whether the maximum number of jobs of a key is active."""
        return sum(job.key == key for job in self._active) >= self._most

    def create(
        self, key: str, model: str, display_name: str, items: list[BatchItem], now_s: float, *, file: str | None = None
    ) -> BatchJob:
        """Accept a job; one without items fails."""
        digest = hashlib.blake2b(b"\n".join(item.request for item in items), digest_size=16).hexdigest()
        nth = self._tries[digest] = self._tries.get(digest, 0) + 1
        number = len(self._jobs) + 1
        faults = self._faults_of(number, display_name, digest, nth)
        running_s = math.inf if "stuck" in faults else now_s + self._pending_s
        end = "EXPIRED" if self._endless or "stuck" in faults else "SUCCEEDED"
        job = BatchJob(
            number=number,
            name=f"batches/{hashlib.blake2b(f'{self._seed} {number}'.encode(), digest_size=10).hexdigest()}",
            key=key,
            display_name=display_name,
            model=model,
            file=file,
            end=next((ENDS[word] for word in ENDS if word in faults), end) if items else "FAILED",
            faults=faults,
            created_s=now_s,
            running_s=running_s,
            ends_s=min(now_s + EXPIRES_S, running_s + self._running_s),
            count=len(items),
            digest=digest,
            items=items,
        )
        if any(self._is_same(other, job, now_s) for other in self._jobs):
            self.submitted_twice.append(display_name)
        self._jobs.append(job)
        self._active.append(job)
        self._by_name[job.name] = job
        if self._is_stalled(key, now_s):
            for other in self._pending(key, now_s):
                if other.held is None and "stuck" not in other.faults:
                    other.hold(now_s)
        return job

    def find(self, name: str) -> BatchJob | None:
        """Return the job of that name that is not deleted."""
        job = self._by_name.get(name)
        return None if job is None or job.deleted else job

    def page(self, size: int, before: int, key: str) -> tuple[list[BatchJob], int | None]:
        """Return up to ``size`` jobs of a key created before a number (0: all), latest first, and the next number."""
        found = [
            job
            for job in reversed(self._jobs)
            if job.key == key and job.number < (before or math.inf) and not job.deleted
        ]
        return found[:size], found[size - 1].number if 0 < size < len(found) else None

    def cancel(self, job: BatchJob, now_s: float) -> None:
        """Start to cancel a job, unless it has ended or is being cancelled."""
        if now_s < job.ended_s():
            job.cancelled_s = min(job.cancelled_s, now_s + self._cancel_s)

    def meets(self, job: BatchJob, fault: str, now_s: float, *, looked: bool = True) -> bool:
        """Return whether a fault that lasts a while still shows, and count the look that meets it."""
        if fault not in job.faults:
            return False
        from_s = job.created_s if fault in ("unseen", "error_body") else job.ended_s()
        if job.looks[fault] >= self._looks and now_s >= from_s + self._late_s:
            return False
        job.looks[fault] += looked
        return True

    def settle(self, now_s: float) -> None:
        """Process the items of the jobs that have ended by now, in the order of their ends, and drop their requests."""
        while ended := [job for job in self._active if now_s >= job.ended_s()]:
            job = min(ended, key=BatchJob.ended_s)
            ended_s = job.ended_s()
            state = job.state(now_s)
            share = 1.0 if state == "SUCCEEDED" else self._partial_share if job.faults & {"partial", "billed"} else 0.0
            job.done = math.ceil(job.count * share)
            results = [self._work(job, item, number < job.done) for number, item in enumerate(job.items)]
            job.first_row = results[0].row if results else 0
            job.failed = sum(not result.is_answer for result in results[: job.done])
            if job.has_output(now_s):
                job.results = [result.line for result in results[: job.done]]
            job.items = []
            self._active.remove(job)
            if not self._is_stalled(job.key, ended_s):
                for other in self._pending(job.key, ended_s):
                    other.release(ended_s)

    def states(self, now_s: float) -> dict[str, list[str]]:
        """Return the states of all jobs by display name."""
        states: dict[str, list[str]] = {}
        for job in self._jobs:
            states.setdefault(job.display_name, []).append(job.state(now_s))
        return states

    def __iter__(self) -> Iterator[BatchJob]:
        return iter(self._jobs)

    def _pending(self, key: str, now_s: float) -> list[BatchJob]:
        return [job for job in self._active if job.key == key and job.state(now_s) == "PENDING"]

    def _is_stalled(self, key: str, now_s: float) -> bool:
        return self._stall_above is not None and len(self._pending(key, now_s)) > self._stall_above

    def _faults_of(self, number: int, display_name: str, digest: str, nth: int) -> frozenset[str]:
        if not hasattr(self._faults, "items"):
            word = self._faults[number - 1] if number <= len(self._faults) else None
            return frozenset((word or "").split("+")) - {""}
        draw = uniforms("job", self._seed, digest, nth)[0]
        for name, how in self._faults.items():
            if isinstance(how, float | int):
                if draw < how:
                    return frozenset(name.split("+"))
                draw -= how
            elif display_name.startswith(name):
                return frozenset(str(how).split("+"))
        return frozenset()

    def _is_same(self, other: BatchJob, job: BatchJob, now_s: float) -> bool:
        """Return whether ``other`` has the same requests and is active or has succeeded."""
        if other.digest != job.digest:
            return False
        state = other.state(now_s)
        return state in ("PENDING", "RUNNING") or (state == "SUCCEEDED" and other.failed < other.count)


def _are_words(how: object) -> bool:
    """Return whether these are words of faults, with at most one end among them."""
    words = how.split("+") if isinstance(how, str) else [""]
    return set(words) <= set(FAULTS) and sum(word in ENDS or word == "stuck" for word in words) <= 1
