"""Allowance: what the store has counted as in flight for a limiter, and has not started yet.

Permits that were granted, or an amount that was set apart for who runs ahead.
While a report is under way that makes it more, only what it was before may
start; one that makes it less, only what it will be: the store may have the
report already, or not yet, or never get it.
"""

from __future__ import annotations

import math

from ipybatch.engine.rules.limiter import Cost, cost_in


class Allowance:
    """What may start without an exchange.

    Attributes:
        left: Requests.
        left_of: What is left of the other units.
        slots: Places among the ``concurrency``; inf: as many as requests.
        given: What it was, by unit, when nothing of it had started since the last report.
        low: With fewer requests left it is time to ask for more.
        kept_until_s: What has not started then goes back.
        used: Requests that started lately, between two reports.
        epoch: Counts how often all of it was given up.
    """

    __slots__ = ("epoch", "given", "kept_until_s", "left", "left_of", "low", "slots", "used")

    def __init__(self) -> None:
        self.left, self.slots, self.low = 0.0, 0.0, 1.0
        self.left_of: dict[str, float] = {}
        self.given: dict[str, float] = {}
        self.kept_until_s = -math.inf
        self.used = 0.0
        self.epoch = 0

    @property
    def used_since(self) -> float:
        """Requests that started since the last report."""
        return self.given.get("requests", 0.0) - self.left

    @property
    def goes_back_s(self) -> float:
        """When what is left of it goes back; inf where nothing is."""
        return self.kept_until_s if self.left or self.slots else math.inf

    def allows(self, cost: Cost, *, slot: bool) -> bool:
        """Say whether a request of that cost may start."""
        if slot and self.slots < 1.0:
            return False
        if not cost:
            return self.left >= 1.0
        return self.left >= cost_in("requests", cost) and all(
            amount <= self.left_of.get(unit, 0.0) for unit, amount in cost.items() if unit != "requests"
        )

    def draw(self, cost: Cost, *, slot: bool) -> None:
        """Let a request start."""
        self.left -= cost_in("requests", cost) if cost else 1.0
        self.slots -= slot
        for unit in self.left_of:
            self.left_of[unit] -= cost_in(unit, cost)

    def add(self, cost: Cost, times: int = 1, *, slot: bool) -> None:
        """Let so many more requests of a cost start: the store has counted them."""
        self.slots += times * slot
        if cost:
            self.gain({unit: times * cost_in(unit, cost) for unit in {"requests", *cost}})
        else:
            self.left += times
            self.given["requests"] = self.given.get("requests", 0.0) + times

    def gain(self, amounts: Cost) -> None:
        """Let so much more start: the store has counted it."""
        for unit, amount in amounts.items():
            self.given[unit] = self.given.get(unit, 0.0) + amount
            if unit == "requests":
                self.left += amount
            else:
                self.left_of[unit] = self.left_of.get(unit, 0.0) + amount

    def give_up(self) -> None:
        """Start nothing more of it; the next report gives it back."""
        self.left, self.slots, self.low = 0.0, 0.0, 1.0
        self.left_of, self.given = {}, {}
        self.epoch += 1

    def report(self, anew: Cost | None) -> tuple[dict[str, float], Cost | None]:
        """Return what a report says of it, by unit, and what more of it may start after the answer.

        Args:
            anew: What the report makes of it; None: it stays.
        """
        self.low, more = 1.0, None
        said: dict[str, float] = {**self.left_of, "requests": self.left} if self.left_of else {"requests": self.left}
        if anew is not None:
            more = {unit: max(0.0, amount - said.get(unit, 0.0)) for unit, amount in anew.items()}
            self.left = min(self.left, anew["requests"])
            for unit, amount in self.left_of.items():
                self.left_of[unit] = min(amount, anew.get(unit, 0.0))
        self.given = {**self.left_of, "requests": self.left} if self.left_of else {"requests": self.left}
        return said if anew is None else dict(anew), more

    def look(self, *, is_recent: bool) -> None:
        """Remember how much of it started since the last report, and lately."""
        self.used = max(self.used_since, self.used / 2 if is_recent else 0.0)

    def twice(self, cost: Cost, least: float) -> Cost:
        """Return twice what was used of it since the last report; enough for some requests of a cost."""
        twice = {"requests": 2.0 * max(least, self.used_since)}
        for unit in {*self.given, *cost} - {"requests"}:
            used = self.given.get(unit, 0.0) - self.left_of.get(unit, 0.0)
            twice[unit] = 2.0 * max(least * cost.get(unit, 0.0), used)
        return twice

    def more(self, cost: Cost, places: float) -> int:
        """Return how many further requests to ask for beside one, so that twice as many are left as started lately.

        Args:
            places: That are free for them, that one included.
        """
        each = cost_in("requests", cost)
        return max(0, int(min((2 * self.used - self.left) / each, places)) - 1) if each else 0
