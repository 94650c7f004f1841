"""Permits: what a work function asks of the engine, and the permits of attempts that are under way.

An attempt's first request has the permit it was started with.  Work that
sends more asks for further permits here, and goes before attempts that have
not started yet.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec

from ipybatch.engine.data.clock import Clock
from ipybatch.engine.data.spec import Spec
from ipybatch.engine.rules.limiter import NO_COST, Cost, GroupLimiter, Limiter, Permit, cost_in
from ipybatch.engine.rules.scheduler import Ticket
from ipybatch.engine.store.resources import Resource, record_cool_down
from ipybatch.engine.store.run_store import RunStore
from ipybatch.engine.store.schema import group_resource
from ipybatch.errors import JournalError, Permanent, Withheld


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

        Raises:
            Permanent: The cost is more than a rate can ever allow.
            Withheld: The session ends, and nothing more is sent.
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


class Asking(msgspec.Struct, frozen=True):
    """A request that waits for its permit.

    Attributes:
        is_first: Whether its attempt, which started without one, has sent nothing so far.
    """

    cost: Cost
    granted: asyncio.Future[Permit]
    is_first: bool
    limiter: Limiter | GroupLimiter
    limit_group: str


class Permits(msgspec.Struct):
    """Hand out permits for further requests, and give all of them back.

    Attributes:
        places: Attempts at a time, at most, however the limits are changed.
        waiting: The requests that wait for a permit.
        is_held: Whether first requests wait on: nothing is to start.
        closed: Why there are no first requests any more; None while there are.
        holds_all: Whether one waits for what all attempts need: then none starts before it.
        held_back: Names of the limit groups in which one waits for what the group alone needs: none starts there.
    """

    resource: Resource
    store: RunStore
    clock: Clock
    spec: Spec
    places: int
    add: Callable[[Iterable[Any]], int]
    waiting: deque[Asking] = msgspec.field(default_factory=deque)
    is_held: bool = False
    closed: str | None = None
    holds_all: bool = False
    held_back: set[str] = msgspec.field(default_factory=set)
    _most: int = 1  # requests of one attempt: what a restart must assume to be in flight

    def run(self, ticket: Ticket) -> Awaitable[Any]:
        """Run one attempt inside everything that limits it; await it for its result.

        Raises:
            Permanent: The item was refused, when the plan was made or for what the user's functions say of it.
        """
        task = ticket.task
        if ticket.refused:
            raise Permanent(ticket.refused)
        spec = self.spec
        work, limits = spec.work, spec.limits
        arguments = (task.item, self._attempt(ticket)) if work.takes_attempt else (task.item,)
        if limits.also or limits.shared is not None:
            return self._run_limited(arguments)
        return spec.backend.run(work.call, arguments)

    async def _run_limited(self, arguments: tuple[Any, ...]) -> Any:
        async with AsyncExitStack() as stack:
            for limiter in self.spec.limits.also:
                await stack.enter_async_context(limiter)
            await self._ask_shared()
            return await self.spec.backend.run(self.spec.work.call, arguments)

    def serve(self, now_s: float) -> float:
        """Hand out what fits now, in turn; return seconds until the next one may fit, 0.0 when nobody waits."""
        soonest_s, held_back = 0.0, self.held_back
        self.holds_all = False
        held_back.clear()
        for asking in tuple(self.waiting):
            if asking.granted.done():
                self.waiting.remove(asking)
                continue
            # What the pause keeps back takes nothing from those that may go on.
            if (asking.is_first and self.is_held) or asking.limit_group in held_back:
                continue
            wait_s = asking.limiter.wait_s(now_s, asking.cost, slot=False)
            if wait_s == 0.0:
                asking.granted.set_result(asking.limiter.acquire(now_s, asking.cost, slot=False))
                self.waiting.remove(asking)
                continue
            soonest_s = min(soonest_s or wait_s, wait_s)
            limiter = asking.limiter
            if isinstance(limiter, GroupLimiter) and limiter.own.wait_s(now_s, asking.cost, slot=False) > 0:
                held_back.add(asking.limit_group)
            else:  # who comes after it must wait as well, whatever group it is in
                self.holds_all = True
                break
        return soonest_s

    def close(self, reason: str) -> None:
        """Turn away attempts that have sent nothing so far, and will not any more."""
        self.closed = reason or "the session ended"
        for asking in self.waiting:
            if asking.is_first and not asking.granted.done():
                asking.granted.set_exception(Withheld(self.closed))

    def end(self, now_s: float, ticket: Ticket) -> None:
        """Give the attempt's place back, and its first permit unless a further request has done so."""
        resource, limiter = self.resource, ticket.limiter
        if not ticket.further:
            limiter.respond(now_s, ticket.permit, NO_COST if ticket.handed is None else ticket.handed.actual)
        limiter.free()
        if self.waiting or len(resource.wakers) > 1:
            resource.changed()

    def spent(self, ticket: Ticket) -> Cost:
        """Return what an attempt cost in all, by each unit that the resource has a rate for."""
        first = ticket.permit.cost
        if ticket.handed is not None and not ticket.further:
            first = {**first, **ticket.handed.actual}
        return {unit: sum(cost_in(unit, cost) for cost in (first, *ticket.further)) for unit in ticket.limiter.units}

    def keep_cool(self, until_s: float, limit_group: str) -> None:
        """Let a cool-down outlive the kernel."""
        record_cool_down(self.store.journal, group_resource(self.resource.name, limit_group), until_s)

    def _attempt(self, ticket: Ticket) -> Attempt:
        async def acquire(cost: Cost, requests: int) -> Permit:
            limiter = ticket.limiter
            refused = limiter.refuse(cost)
            if refused:
                raise Permanent(refused)
            is_first = not ticket.further and not cost_in("requests", ticket.permit.cost)
            if is_first and self.closed is not None:
                raise Withheld(self.closed)
            if not ticket.further:  # the first has been answered
                limiter.respond(self.clock.now_s(), ticket.permit)
            ticket.further += (cost,)
            if requests > self._most:
                await self._expect(requests)
            granted: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
            self.waiting.append(Asking(cost, granted, is_first, limiter, ticket.limit_group))
            self.resource.changed()
            try:
                permit = await granted
                await self._ask_shared()
            except asyncio.CancelledError:
                if granted.done() and not granted.cancelled() and granted.exception() is None:
                    release(granted.result())
                raise
            return permit

        def release(permit: Permit) -> None:
            ticket.limiter.respond(self.clock.now_s(), permit)
            self.resource.changed()

        def join(group: int) -> None:
            ticket.task.group = group

        attempt = ticket.handed = Attempt(ticket.task.key, ticket.task.attempts, acquire, release, join, self.add)
        return attempt

    async def _expect(self, requests: int) -> None:
        """Record, before they are sent, how many requests a crash may leave unrecorded."""
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()

        def answer(error: JournalError | None) -> None:
            self.clock.hold(-1)
            if not written.done():
                written.set_exception(error) if error else written.set_result(None)

        def tell(error: JournalError | None) -> None:
            loop.call_soon_threadsafe(answer, error)

        self.clock.hold(+1)
        self.store.expect(
            requests * self.places,
            self.clock.unix_s(),
            tell,
        )
        await written
        self._most = max(self._most, requests)

    async def _ask_shared(self) -> None:
        if self.spec.limits.shared is not None:
            await self.spec.limits.shared.try_acquire_async(self.resource.name, 1)
