"""Attempt: what a work function asks of the engine, from whatever thread or loop it runs in.

    Attempt.permit, add, join, settle --checked here--> executed on the engine's loop --> AttemptEngine

A permit that another thread asks for is granted or withdrawn, never both.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import numbers
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar

from ipybatch.engine.data.items import ItemList, read_whole
from ipybatch.engine.data.loop_call import post
from ipybatch.engine.data.masking import is_encodable
from ipybatch.engine.data.plan import short
from ipybatch.engine.data.policy import check_count
from ipybatch.engine.rules.limiter import NO_COST, Cost, Permit
from ipybatch.errors import InputError, Withheld

S = TypeVar("S")
T = TypeVar("T")

_LAST_GROUP = 2**31 - 1


class AttemptEngine(Protocol):
    """What an attempt may ask of the engine. All of it is called on the engine's loop."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Its loop."""

    async def acquire(self, cost: Cost) -> Permit:
        """Wait for a permit of one further request."""

    def release(self, permit: Permit) -> None:
        """Count the response to its request."""

    def join(self, group: int) -> None:
        """Put the attempt's item into a group."""

    def add(self, given: ItemList) -> int:
        """Take further items into the session; return how many are to run."""

    def heed(self, headers: Any) -> None:
        """Hold to what an answer's headers say of the service's limits."""

    def stand(self, change: int) -> None:
        """Let the attempt's clock stand (+1), or go on (-1)."""

    def withdraw(self) -> None:
        """Turn away what the attempt still waits for."""

    def give_up(self) -> None:
        """Note that the work stopped waiting by itself; from any thread."""


class Attempt:
    """One run of a task, from the work function's side.

    The attempt itself holds one permit: its first request.  Every further one
    asks for its own with `permit`.

    Every method may be called from any thread or loop: it is executed on the engine's, one after the other.  After
    the attempt has ended, because it returned or was given up, nothing can be asked any more.

    Attributes:
        key: The item's key, as JSON.
        number: 1 for the first try.
        is_billed: Whether what runs now is paid for, whatever becomes of us: a cancel lets it finish. The work says so.
    """

    def __init__(self, key: str, number: int, engine: AttemptEngine) -> None:
        self.key = key
        self.number = number
        self._requests = 1
        self.is_billed = False
        self._actual: Cost = NO_COST
        self._engine = engine
        self._thread = threading.get_ident()
        self._is_over = False

    @property
    def requests(self) -> int:
        """Permits taken so far."""
        return self._requests

    def permit(self, cost: Cost = NO_COST) -> Request:
        """Wait until one more request may start; leave the block when its response is there.

        ``async with attempt.permit():`` in a coroutine, ``with attempt.permit():`` in a plain function. Ask when the
        attempt's own first request has been answered, or open one permit for each request.

        Args:
            cost: What it costs beside one request, by unit: ``{"tokens": 500}``.

        Raises:
            InputError: ``cost`` is not a finite number >= 0 of each unit, or the block would wait in the engine's
                thread.
            Permanent: The cost is more than a rate can ever allow.
            Withheld: The session ends, and nothing more is sent; or the attempt has ended.
        """
        return Request(self, _checked("cost", cost))

    def join(self, group: int) -> None:
        """Belong to a group of the workload's own from now on: a remote job, a partition.

        Raises:
            InputError: It is not a whole number >= 0 and < 2**31.
            Withheld: The attempt has ended.
        """
        number = check_count("group", group, low=0, high=_LAST_GROUP)
        self._on_loop(self._engine.join, number)

    def add(self, items: Iterable[Any]) -> int:
        """Bring further items into the session, as the members of a guild; return how many of them are to run.

        They are read as those of the session are: of a DataFrame each row is one, with its key.
        They are in the plan when this returns: a resume knows them. Those whose keys are there already are left out.

        Raises:
            InputError: An item has no key that JSON can hold, or they are no list of items; none is added.
            Permanent: The session's items come from a generator.
            Withheld: The attempt has ended.
        """
        given = read_whole(items)  # here: a generator of the user's may block
        return self._on_loop(self._engine.add, given)

    def heed(self, answer: Any) -> None:
        """Hold to what a good answer's headers say of the service's limits: hand over the answer, or its headers.

        X-RateLimit-Remaining and -Reset, RateLimit and their like: what is used up holds the resource (the item's limit
        group) until it begins anew; where less is left than we know of, another tool has used it, and our window is
        filled to that. Never looser than ``limits``. What an error's answer says is heeded without a word.

        Args:
            answer: A response of httpx, httpx2, requests, aiohttp, urllib or http.client, or a mapping of headers.

        Raises:
            InputError: It has no headers.
            Withheld: The attempt has ended.
        """
        headers = getattr(answer, "headers", answer)
        if not hasattr(headers, "items"):
            msg = f"heed() must be given a response or a mapping of headers, got {short(answer)}"
            raise InputError(msg)
        self._on_loop(self._engine.heed, headers)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait in this block for what is no fault of the service: it counts neither as ``seconds`` nor for timeouts.

        Raises:
            Withheld: The attempt has ended.
        """
        self._on_loop(self._engine.stand, +1)
        try:
            yield
        finally:
            if not self._is_over:
                self._on_loop(self._engine.stand, -1)

    def settle(self, **actual: float) -> None:
        """Say what the attempt really cost, by unit: ``attempt.settle(tokens=731)``.

        Raises:
            InputError: It is not a finite number >= 0.
            Withheld: The attempt has ended.
        """
        checked = _checked("", actual)
        self._refuse_after_end()
        self._actual = checked

    def _close(self) -> None:
        """Ask for nothing more: the attempt has its outcome."""
        self._is_over = True
        self._engine.withdraw()

    def _refuse_after_end(self) -> None:
        if self._is_over:
            msg = f"the attempt at {self.key} has ended: nothing can be asked for it any more"
            raise Withheld(msg)

    def _on_loop(self, function: Callable[[S], T], argument: S) -> T:
        """Call a function on the engine's loop and return its result."""
        if threading.get_ident() == self._thread:
            self._refuse_after_end()
            return function(argument)

        def guarded() -> T:
            self._refuse_after_end()
            return function(argument)

        return _result_of(post(self._engine.loop, guarded), self._engine.loop)

    async def _acquire(self, cost: Cost) -> Permit:
        self._refuse_after_end()
        self._requests += 1
        permit = await self._engine.acquire(cost)
        if self._is_over:  # it was given up meanwhile
            self._engine.release(permit)
            self._refuse_after_end()
        return permit


class Request:
    """One more request of an attempt: enter it to wait for its permit, leave it when the response is there."""

    def __init__(self, attempt: Attempt, cost: Cost) -> None:
        self._attempt, self._cost = attempt, cost
        self._permit: Permit | None = None

    async def __aenter__(self) -> None:
        attempt = self._attempt
        self._refuse_twice()
        if threading.get_ident() == attempt._thread:
            self._permit = await attempt._acquire(self._cost)
            return
        asked = _Asked(attempt, self._cost)  # from another loop, in a thread of the user's
        try:
            self._permit = await asyncio.wrap_future(asked.granted)
        except asyncio.CancelledError:
            attempt._engine.give_up()
            asked.withdraw()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._release()

    def __enter__(self) -> None:
        if threading.get_ident() == self._attempt._thread:
            msg = "with attempt.permit() would block the engine's thread: use async with in a coroutine"
            raise InputError(msg)
        self._refuse_twice()
        self._permit = _result_of(_Asked(self._attempt, self._cost).granted, self._attempt._engine.loop)

    def __exit__(self, *_: object) -> None:
        self._release()

    def _refuse_twice(self) -> None:
        if self._permit is not None:
            msg = "this permit is taken already: ask attempt.permit() for one more for each request"
            raise InputError(msg)

    def _release(self) -> None:
        permit, self._permit = self._permit, None
        if permit is None:
            return
        attempt = self._attempt
        if threading.get_ident() == attempt._thread:
            attempt._engine.release(permit)
        else:
            with suppress(RuntimeError):  # the loop is closed: nobody counts any more
                attempt._engine.loop.call_soon_threadsafe(attempt._engine.release, permit)


class _Asked:
    """A permit that was asked for from another thread: it is granted or withdrawn, never both, else it would be lost.

    Attributes:
        granted: The permit, once the engine's loop has it.
    """

    def __init__(self, attempt: Attempt, cost: Cost) -> None:
        self.granted: concurrent.futures.Future[Permit] = concurrent.futures.Future()
        self._attempt, self._cost = attempt, cost
        self._loop = attempt._engine.loop
        self._asking: asyncio.Task[None] | None = None
        try:
            self._loop.call_soon_threadsafe(self._begin)
        except RuntimeError:  # the loop is closed
            raise Withheld(_OVER) from None

    def withdraw(self) -> None:
        """Want it no more; from the thread that asked."""
        with suppress(RuntimeError):  # the loop is closed: nobody counts any more
            if self.granted.cancel():
                self._loop.call_soon_threadsafe(self._cancel)
            elif self.granted.exception() is None:
                self._loop.call_soon_threadsafe(self._attempt._engine.release, self.granted.result())

    def _begin(self) -> None:
        if not self.granted.cancelled():
            self._asking = self._loop.create_task(self._ask())

    def _cancel(self) -> None:
        if self._asking is not None:
            self._asking.cancel()

    async def _ask(self) -> None:
        try:
            permit = await self._attempt._acquire(self._cost)
        except BaseException as error:  # handed to the thread, whatever it is
            with suppress(concurrent.futures.InvalidStateError):
                self.granted.set_exception(error)
            return
        try:
            self.granted.set_result(permit)
        except concurrent.futures.InvalidStateError:  # withdrawn as it was granted
            self._attempt._engine.release(permit)


_OVER = "the session ended"
_MOST = 1e100  # of a unit: sums of such are finite


def _result_of(asked: concurrent.futures.Future[T], loop: asyncio.AbstractEventLoop) -> T:
    """Wait in a thread of the user's for what the engine's loop was asked.

    Raises:
        Withheld: The loop was closed.
    """
    while not asked.done():
        concurrent.futures.wait([asked], timeout=1.0)
        if loop.is_closed() and not asked.done():
            raise Withheld(_OVER)
    return asked.result()


def _checked(field: str, cost: Any) -> Cost:
    """Return a cost whose amounts are floats.

    Raises:
        InputError: An amount is not a finite number >= 0.
    """
    if not isinstance(cost, Mapping):
        msg = f'{field} must be amounts by unit, such as {{"tokens": 500}}, got {cost!r}'
        raise InputError(msg)
    for unit, amount in cost.items():
        if not isinstance(unit, str) or not is_encodable(unit):
            msg = f"{field or 'settle()'} must name each unit by text, got {unit!r}"
            raise InputError(msg)
        if type(amount) is float and 0 <= amount <= _MOST:
            continue
        if isinstance(amount, bool) or not isinstance(amount, numbers.Real) or not _is_amount(amount):
            name = unit if not field else f"{field}[{unit!r}]"
            msg = f"{name} must be a finite number >= 0, got {amount!r}"
            raise InputError(msg)
    return {unit: float(amount) for unit, amount in cost.items()}


def _is_amount(number: numbers.Real) -> bool:
    try:
        return 0 <= float(number) <= _MOST
    except OverflowError:
        return False
