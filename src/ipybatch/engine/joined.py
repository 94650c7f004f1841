"""Joined: the limiters that a session has joined: that of its resource, and those of its lanes."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from ipybatch.engine.clock import Clock
from ipybatch.engine.journal import Journal
from ipybatch.engine.lanes import Both, Lane
from ipybatch.engine.limiter import Limiter
from ipybatch.engine.policy import Limits
from ipybatch.engine.resource import History, Resource, read_history, resource_of
from ipybatch.engine.schema import lane_of
from ipybatch.errors import JournalError


class Joined(msgspec.Struct, eq=False):
    """What one start of a session holds to, in its windows what was used before.

    Attributes:
        name: Of the resource.
    """

    journal: Journal
    name: str
    clock: Clock
    _limiters: list[Limiter] = msgspec.field(default_factory=list)

    @property
    def resource(self) -> Resource:
        """What all lanes share."""
        return resource_of(self.journal, self.name)

    def join(self, limits: Limits, declared: Limits | None, history: History) -> None:
        """Hold to limits; ``declared`` are those that it was made with, if they were changed since."""
        with suppress(JournalError):  # what others sent since `history` was read counts as well
            history = read_history(self.journal, self.name, limits, self.clock.unix_s())
        self._join(self.resource.limiter, declared or limits, history)
        if declared is not None:
            self.resource.limiter.change(self, limits)

    def open_lane(self, name: str, each: Limits) -> Lane:
        """Hold to the limits of one lane as well."""
        limiter = resource_of(self.journal, lane_of(self.name, name)).limiter
        history = read_history(self.journal, self.name, each, self.clock.unix_s(), lane=name)
        self._join(limiter, each, history)
        return Lane(name, Both(self.resource.limiter, limiter))

    def change(self, limits: Limits) -> None:
        """Hold to others from now on."""
        self.resource.limiter.change(self, limits)
        self.resource.changed()

    def leave(self) -> None:
        """Let others start."""
        for limiter in self._limiters:
            limiter.leave(self)
        self._limiters.clear()
        self.resource.changed()

    def _join(self, limiter: Limiter, limits: Limits, history: History) -> None:
        now_s = self.clock.now_s()
        offset_s = now_s - self.clock.unix_s()
        spent = [(at_s + offset_s, unit, cost) for at_s, unit, cost in history.spent]
        limiter.join(self, limits, now_s=now_s, spent=spent)
        limiter.cool_until_s = max(limiter.cool_until_s, history.cool_until_s + offset_s)
        self._limiters.append(limiter)
