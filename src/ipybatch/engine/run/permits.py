"""Permits: those of attempts that are under way, handed out and given back.

An attempt's first request has the permit it was started with.  Work that
sends more asks for further permits here, and goes before attempts that have
not started yet.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from ipybatch.engine.data.clock import Clock
from ipybatch.engine.data.items import ItemList
from ipybatch.engine.data.spec import Spec
from ipybatch.engine.rules.limit_groups import GroupLimiter
from ipybatch.engine.rules.limiter import Cost, Limiter, Permit, cost_in
from ipybatch.engine.rules.opening import Opening
from ipybatch.engine.rules.rate_headers import read_headers
from ipybatch.engine.rules.scheduler import Ticket
from ipybatch.engine.run.attempt import Attempt
from ipybatch.engine.store.resources import Resource
from ipybatch.errors import Permanent, Withheld

CLOSED_S = 60.0  # of a wait by the clock on the wall, before it is looked at again: clocks are set, machines sleep


class Asking(msgspec.Struct, frozen=True):
    """A request that waits for its permit.

    Attributes:
        is_first: Whether its attempt, which started without one, has sent nothing so far.
    """

    cost: Cost
    granted: asyncio.Future[Permit]
    is_first: bool
    ticket: Ticket


class Permits(msgspec.Struct):
    """Hand out permits for further requests, and give all of them back.

    Attributes:
        waiting: The requests that wait for a permit.
        opening: When requests may start by the clock on the wall.
        is_held: Whether first requests wait on: nothing is to start.
        closed: Why there are no first requests any more; None while there are.
        holds_all: Whether one waits for what all attempts need: then none starts before it.
        held_back: Limiters of the limit groups in which one waits for what the group alone needs: none starts there.
    """

    resource: Resource
    clock: Clock
    spec: Spec
    add: Callable[[ItemList], int]
    waiting: deque[Asking] = msgspec.field(default_factory=deque)
    opening: Opening = msgspec.field(default_factory=Opening)
    is_held: bool = False
    closed: str | None = None
    holds_all: bool = False
    held_back: set[Limiter] = msgspec.field(default_factory=set)
    loop: asyncio.AbstractEventLoop = msgspec.field(default_factory=asyncio.get_running_loop)

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
        if limits.also or limits.asked is not None:
            return self._run_limited(ticket, arguments)
        return spec.backend.run(work.call, arguments)

    async def _run_limited(self, ticket: Ticket, arguments: tuple[Any, ...]) -> Any:
        while True:
            async with AsyncExitStack() as stack:
                ticket.count(self.clock.now_s(), waits=+1)
                try:
                    for limiter in self.spec.limits.also:
                        await stack.enter_async_context(limiter)
                    await self._ask_shared()
                finally:
                    ticket.count(self.clock.now_s(), waits=-1)
                if self.opening.wait_s(self.clock.now_s()) <= 0.0:
                    return await self.spec.backend.run(self.spec.work.call, arguments)
            # What they let through is too late: they are asked again when something may start.
            ticket.count(self.clock.now_s(), waits=+1)
            try:
                await self._until_open()
            finally:
                ticket.count(self.clock.now_s(), waits=-1)

    def serve(self, now_s: float) -> float:
        """Hand out what fits now, in turn; return seconds until the next one may fit, 0.0 when nobody waits."""
        soonest_s, held_back = 0.0, self.held_back
        self.holds_all = False
        held_back.clear()
        if self.waiting and (closed_s := self.opening.wait_s(now_s)) > 0.0:
            return closed_s
        for asking in tuple(self.waiting):
            if asking.granted.done():
                self.waiting.remove(asking)
                continue
            # What the pause keeps back takes nothing from those that may go on.
            limiter = asking.ticket.limiter
            parts = limiter.own.parts if isinstance(limiter, GroupLimiter) else ()
            if (asking.is_first and self.is_held) or not held_back.isdisjoint(parts):
                continue
            permit = limiter.start(now_s, asking.cost, slot=False)
            if permit is not None:
                asking.granted.set_result(permit)
                self.waiting.remove(asking)
                continue
            wait_s = limiter.wait_s(now_s, asking.cost, slot=False)
            soonest_s = min(soonest_s or wait_s, wait_s)
            short = [part for part in parts if part.wait_s(now_s, asking.cost, slot=False) > 0.0]
            if short:
                held_back.update(short)
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
        if ticket.handed is None:
            ticket.limiter.respond(now_s, ticket.permit, slot=True)
        elif ticket.further:
            for permit in ticket.open:  # the work left their blocks without a word
                self.release(ticket, permit)
            ticket.limiter.free()
        else:
            ticket.limiter.respond(now_s, ticket.permit, ticket.handed._actual, slot=True)
        if self.waiting or len(self.resource.wakers) > 1:
            self.resource.changed()

    def _attempt(self, ticket: Ticket) -> Attempt:
        attempt = ticket.handed = Attempt(ticket.task.key, ticket.task.attempts, _EngineSide(self, ticket))
        return attempt

    async def acquire(self, ticket: Ticket, cost: Cost) -> Permit:
        """Wait until a further request of an attempt may start.

        Raises:
            Permanent: It costs more than a rate can ever allow.
            Withheld: Nothing more is sent.
        """
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
        granted: asyncio.Future[Permit] = self.loop.create_future()
        self.waiting.append(Asking(cost, granted, is_first, ticket))
        ticket.count(self.clock.now_s(), waits=+1)
        try:
            self.resource.changed()
            permit = await granted
            await self._ask_shared()
            while self.opening.wait_s(self.clock.now_s()) > 0.0:  # they took their time
                await self._until_open()
                await self._ask_shared()
        except BaseException as error:
            ticket.gave_up = ticket.gave_up or isinstance(error, asyncio.CancelledError)
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                limiter.respond(self.clock.now_s(), granted.result())
                self.resource.changed()
            raise
        finally:
            ticket.count(self.clock.now_s(), waits=-1)
        ticket.count(self.clock.now_s(), in_flight=+1)
        ticket.open += (permit,)
        return permit

    def release(self, ticket: Ticket, permit: Permit) -> None:
        """Count the response to a further request."""
        still_open = tuple(other for other in ticket.open if other is not permit)
        if len(still_open) == len(ticket.open):
            return  # it was given back when the attempt ended
        ticket.open = still_open
        now_s = self.clock.now_s()
        ticket.count(now_s, in_flight=-1)
        ticket.limiter.respond(now_s, permit)
        self.resource.changed()

    def heed(self, ticket: Ticket, headers: Any) -> None:
        """Hold to what an answer's headers say of the service's limits."""
        ticket.limiter.heed(self.clock.now_s(), read_headers(headers, self.clock.unix_s()))

    async def _ask_shared(self) -> None:
        if self.spec.limits.asked is not None:
            await self.spec.limits.asked.try_acquire_async(self.spec.resource, 1)

    async def _until_open(self) -> None:
        while (closed_s := self.opening.wait_s(self.clock.now_s())) > 0.0:  # noqa: ASYNC110  # a time, and no event
            await asyncio.sleep(min(closed_s, CLOSED_S))


class _EngineSide(msgspec.Struct):
    """An attempt's ticket, for the `Attempt` that the work is handed."""

    permits: Permits
    ticket: Ticket

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self.permits.loop

    async def acquire(self, cost: Cost) -> Permit:
        return await self.permits.acquire(self.ticket, cost)

    def release(self, permit: Permit) -> None:
        self.permits.release(self.ticket, permit)

    def join(self, group: int) -> None:
        self.ticket.task.group = group

    def add(self, given: ItemList) -> int:
        return self.permits.add(given)

    def heed(self, headers: Any) -> None:
        self.permits.heed(self.ticket, headers)

    def stand(self, change: int) -> None:
        self.ticket.count(self.permits.clock.now_s(), waits=change)

    def give_up(self) -> None:
        self.ticket.gave_up = True

    def withdraw(self) -> None:
        for asking in self.permits.waiting:
            if asking.ticket is self.ticket and not asking.granted.done():
                asking.granted.set_exception(Withheld("the attempt has ended"))
