"""Whereabouts: which job each item is in, and which results are still owed to somebody.

    taken --handed out--> owed --recorded--> collected
              |
              `--> kept: some of its items have not come yet, or have to come again

Rule: an answer that was paid for stays where it can be fetched again until
the item it belongs to is on disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ipybatch.engine.data.outcome import Outcome
from ipybatch.engine.data.plan import key_value
from ipybatch.gemini.jobs import Job


class Whereabouts:
    """The jobs of a session by their items; of one event loop.

    Attributes:
        kept: Jobs that succeeded and still have answers, by number.
    """

    def __init__(self) -> None:
        self.kept: dict[int, Job] = {}
        self._where: dict[str, int] = {}  # the job that an item is in, by its key there
        self._owed: dict[int, dict[Any, str]] = {}  # answers that are not on disk: the item's key, and the one there
        self._handed: dict[int, Job] = {}

    def of(self, key: str) -> int | None:
        """Return the number of the job that an item is in; None for one that has to be sent."""
        return self._where.get(key)

    def take(self, job: Job) -> None:
        """Count a job's items as being in it; those of a later job are not in an earlier one any more."""
        self._where.update(dict.fromkeys(job.keys, job.number))

    def keep(self, job: Job) -> None:
        """Take a job whose results are there."""
        self.take(job)
        self.kept[job.number] = job

    def drop(self, job: Job) -> None:
        """Let go of a job that brings nothing: its items have to be sent again."""
        self.kept.pop(job.number, None)
        for key in job.keys:
            self.release(job.number, key)

    def release(self, number: int, key: str) -> None:
        """Let an item that was not answered go into another job."""
        if self._where.get(key) == number:
            del self._where[key]

    def owe(self, number: int, key: str, item: str) -> None:
        """Note that an item's answer was handed out."""
        self._owed.setdefault(number, {})[key_value(item)] = key

    def handed_out(self, job: Job) -> None:
        """Note that all who waited for a job were answered."""
        self.kept[job.number] = self._handed[job.number] = job

    def recorded(self, outcomes: Iterable[Outcome]) -> None:
        """Hear what is on disk; what was cancelled may ask for its answer again."""
        done = {outcome.key for outcome in outcomes if outcome.status in ("completed", "failed")}
        for number, owed in self._owed.items():
            for item in done & owed.keys():
                self.release(number, owed.pop(item))

    def settled(self) -> list[tuple[Job, bool]]:
        """Return, once, the jobs whose answers are all on disk, and whether all of their items were answered."""
        found = []
        for number in [number for number in self._handed if not self._owed.get(number)]:
            job = self._handed.pop(number)
            self._owed.pop(number, None)
            is_whole = not any(self._where.get(key) == number for key in job.keys)
            if is_whole:
                self.kept.pop(number, None)
            found.append((job, is_whole))
        return found
