"""Batch jobs as the Gemini Batch API has them: created, waiting, running, and done in one way or another.

Rule: a job's state follows from its times and ``now_s``; there are no timers.  `settle` bills the jobs whose end
has come, and is asked before every request is answered.

    PENDING --pending_s--> RUNNING --running_s--> SUCCEEDED | FAILED | EXPIRED
       +----------- cancel, cancel_s ----------> CANCELLED

Creating is not idempotent, results come in the order of the requests, deleting does not cancel: as the real ones.

Source: https://ai.google.dev/gemini-api/docs/batch-api and https://ai.google.dev/api/batch-api, read 2026-11-22.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from .faults import uniforms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

EXPIRES_S = 48 * 3600.0
ENDS = {"fail": "FAILED", "expire": "EXPIRED"}
FINAL = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")


class Item(NamedTuple):
    """One request of a job: its key, or None, and its request as compact JSON."""

    key: str | None
    request: bytes


@dataclass(slots=True, kw_only=True)
class Job:
    """One job.

    Attributes:
        number: From 1, in the order of creation.
        name: ``batches/...``.
        display_name: What the client called it; not unique.
        file: The uploaded input, or None for an inline job.
        end: What it comes to at ``ends_s`` when nobody cancels it.
        items: Its requests, until they are settled.
        results: Each item's result as JSON, in order, when it has succeeded.
        failed: How many of them are errors.
    """

    number: int
    name: str
    display_name: str
    model: str
    file: str | None
    end: str
    created_s: float
    running_s: float
    ends_s: float
    count: int
    digest: str
    items: list[Item] = field(default_factory=list)
    cancelled_s: float = math.inf
    deleted: bool = False
    settled: bool = False
    results: list[bytes] = field(default_factory=list)
    failed: int = 0

    def state(self, now_s: float) -> str:
        """Return PENDING, RUNNING, or how it ended."""
        if now_s >= min(self.ends_s, self.cancelled_s):
            return self.end if self.ends_s <= self.cancelled_s else "CANCELLED"
        return "RUNNING" if now_s >= self.running_s else "PENDING"

    def ended_s(self) -> float:
        """Return when it ends, or ended."""
        return min(self.ends_s, self.cancelled_s)


class Jobs:
    """All jobs, deleted ones included: those run on."""

    def __init__(
        self,
        *,
        seed: int,
        delay_s: float | tuple[float, float] | None,
        faults: Mapping[str, float | str] | Sequence[str | None],
        cancel_s: float,
        most: int,
        work: Callable[[Item, str], tuple[bytes, bool]],
    ) -> None:
        """Take the rules.

        Args:
            seed: Decides which jobs go wrong.
            delay_s: Time until a job ends, half of it waiting; or (waiting, running); None never ends.
            faults: How jobs go wrong, "fail" or "expire": by share, by display name or the start of one, or in the
                order of creation.
            cancel_s: How long a cancelled job goes on.
            most: Jobs that may be alive at once.
            work: Does one item for a model: its result as JSON, and whether it is an answer.

        Raises:
            ValueError: A value is outside its range.
        """
        pending_s, running_s = delay_s if isinstance(delay_s, tuple) else ((delay_s or 0.0) / 2,) * 2
        for name, ok, allowed, value in (
            ("batch_delay_s", min(pending_s, running_s) >= 0, ">= 0, a pair of such, or None", delay_s),
            ("cancel_s", cancel_s >= 0, ">= 0 seconds", cancel_s),
            ("max_active_jobs", most >= 1, ">= 1", most),
        ):
            if not ok:
                msg = f"{name} must be {allowed}, got {value!r}"
                raise ValueError(msg)
        _check_faults(faults)
        self._seed = seed
        self._pending_s = pending_s
        self._running_s = EXPIRES_S if delay_s is None else running_s
        self._endless = delay_s is None
        self._faults = faults
        self._cancel_s = cancel_s
        self._most = most
        self._work = work
        self._jobs: list[Job] = []
        self._active: list[Job] = []
        self._by_name: dict[str, Job] = {}
        self._tries: dict[str, int] = {}
        self.submitted_twice: list[str] = []

    def is_full(self) -> bool:
        """Say whether one more job would be too many."""
        return len(self._active) >= self._most

    def create(self, model: str, display_name: str, items: list[Item], now_s: float, *, file: str | None = None) -> Job:
        """Accept a job."""
        digest = hashlib.blake2b(b"\n".join(item.request for item in items), digest_size=16).hexdigest()
        nth = self._tries[digest] = self._tries.get(digest, 0) + 1
        number = len(self._jobs) + 1
        running_s = now_s + self._pending_s
        job = Job(
            number=number,
            name=f"batches/{hashlib.blake2b(f'{self._seed} {number}'.encode(), digest_size=10).hexdigest()}",
            display_name=display_name,
            model=model,
            file=file,
            end=self._end(number, display_name, digest, nth),
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
        return job

    def find(self, name: str) -> Job | None:
        """Return the job of that name that is not deleted."""
        job = self._by_name.get(name)
        return None if job is None or job.deleted else job

    def page(self, size: int, token: str) -> tuple[list[Job], str]:
        """Return up to ``size`` jobs, latest first, and the token of the next page or an empty one."""
        before = int(token) if token else math.inf
        found = [job for job in reversed(self._jobs) if job.number < before and not job.deleted]
        more = str(found[size - 1].number) if 0 < size < len(found) else ""
        return found[:size], more

    def cancel(self, job: Job, now_s: float) -> None:
        """Begin to cancel; a job that has ended, or is being cancelled, stays as it is."""
        if now_s < job.ended_s():
            job.cancelled_s = min(job.cancelled_s, now_s + self._cancel_s)

    def settle(self, now_s: float) -> None:
        """Do the work of the jobs that have ended by now, and forget the requests of the others that have."""
        for job in [job for job in self._active if now_s >= job.ended_s()]:
            if job.state(now_s) == "SUCCEEDED":
                for item in job.items:
                    result, is_answer = self._work(item, job.model)
                    job.results.append(result)
                    job.failed += not is_answer
            job.items = []
            job.settled = True
            self._active.remove(job)

    def states(self, now_s: float) -> dict[str, list[str]]:
        """Return the states of all jobs by display name."""
        states: dict[str, list[str]] = {}
        for job in self._jobs:
            states.setdefault(job.display_name, []).append(job.state(now_s))
        return states

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs)

    def _end(self, number: int, display_name: str, digest: str, nth: int) -> str:
        if self._endless:
            return "EXPIRED"
        if not hasattr(self._faults, "items"):
            kind = self._faults[number - 1] if number <= len(self._faults) else None
            return ENDS.get(kind or "", "SUCCEEDED")
        draw = uniforms("job", self._seed, digest, nth)[0]
        for name, how in self._faults.items():
            if name in ENDS and isinstance(how, float | int):
                if draw < how:
                    return ENDS[name]
                draw -= how
            elif display_name.startswith(name):
                return ENDS[str(how)]
        return "SUCCEEDED"

    def _is_same(self, other: Job, job: Job, now_s: float) -> bool:
        """Say whether ``other`` asks the same and may still deliver, or has."""
        if other.digest != job.digest:
            return False
        state = other.state(now_s)
        return state in ("PENDING", "RUNNING") or (state == "SUCCEEDED" and other.failed < other.count)


def _check_faults(faults: Mapping[str, float | str] | Sequence[str | None]) -> None:
    pairs = faults.items() if hasattr(faults, "items") else [("", how) for how in faults]
    for name, how in pairs:
        is_share = name in ENDS and isinstance(how, float | int) and 0 <= how <= 1
        if not (is_share or how in ENDS or (how is None and not name)):
            msg = f"job_faults must be shares in [0, 1] of fail and expire, or those words, got {name!r}: {how!r}"
            raise ValueError(msg)
