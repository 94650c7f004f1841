"""Attempt: what a work function that takes ``attempt`` is handed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from ipybatch.engine.limiter import NO_COST, Cost, Permit


class Attempt:
    """One run of a task, from the work function's side.

    The attempt itself holds one permit: its first request.  Every further one
    asks for its own with `permit`.

    Attributes:
        key: The item's key, as JSON.
        number: 1 for the first try.
        requests: Permits taken so far.
        is_billed: Whether what runs now is paid for, whatever becomes of us: a cancel lets it finish. The work says so.
    """

    def __init__(  # noqa: PLR0917  # what it may ask of the engine
        self,
        key: str,
        number: int,
        acquire: Callable[[Cost, int], Awaitable[Permit]],
        release: Callable[[Permit], None],
        join: Callable[[int], None],
        add: Callable[[Iterable[Any]], int] = lambda items: 0,
    ) -> None:
        self.key = key
        self.number = number
        self.requests = 1
        self.is_billed = False
        self.actual: Cost = NO_COST
        self._acquire = acquire
        self._release = release
        self._join = join
        self._add = add

    @asynccontextmanager
    async def permit(self, cost: Cost = NO_COST) -> AsyncIterator[None]:
        """Wait until one more request may start; leave the block when its response is there.

        Ask when the attempt's own first request has been answered, or open one permit for each request.

        Args:
            cost: What it costs beside one request, by unit: ``{"tokens": 500}``.
        """
        self.requests += 1
        permit = await self._acquire(cost, self.requests)
        try:
            yield
        finally:
            self._release(permit)

    def join(self, group: int) -> None:
        """Belong to a group of the workload's own from now on: a remote job, a partition."""
        self._join(group)

    def add(self, items: Iterable[Any]) -> int:
        """Bring further items into the session, as the members of a guild; return how many of them are to run.

        They are in the plan when this returns: a resume knows them. Those whose keys are there already are left out.

        Raises:
            InputError: An item has no key that JSON can hold; none is added.
            Permanent: The session's items come from a generator.
        """
        return self._add(items)

    def settle(self, **actual: float) -> None:
        """Say what the attempt really cost, by unit: ``attempt.settle(tokens=731)``."""
        self.actual = actual
