"""Dask: each attempt in a process of its own, on the workers of a Dask cluster.

What runs on a worker is what `Processes` runs on one machine, so limits,
statuses and reasons are the same.  Dask carries the work there and its answer
back, and runs it again, once, when its worker is lost.

Rule: whatever asks the cluster runs in the client's own event loop, which is
not the engine's; the engine waits for it without standing still.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, TypeVar

from ipybatch.backends import hosted
from ipybatch.backends.endings import Killed
from ipybatch.backends.processes import encode, result_of
from ipybatch.backends.threads import Threads
from ipybatch.backends.wire import Ended
from ipybatch.engine.data.policy import check
from ipybatch.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from distributed import Client, Future

T = TypeVar("T")

_ANSWER_S = 20.0
_GONE_S = 5.0  # a worker that is silent for so long is lost, and what it runs with it
_STARTS = 2  # of one attempt: a worker may be lost once
_LOST = "Its worker was lost, and so was the next"


class _Run:
    """An attempt, as the client's loop knows it."""

    def __init__(self, future: Future[Any]) -> None:
        self.future = future
        self.starts = 0
        self.is_cancelled = False


class Dask:
    """Run each attempt in a process of its own, on a worker of a Dask cluster.

    The workers need the same version of this package. Each runs as many attempts at a time as it has threads. Its own
    memory limit (the nanny's) does not see attempts, which are processes beside it: give ``memory_mb`` for those.

    Args:
        client: A `distributed.Client`. An asynchronous one works while its event loop is free: ``await session``, not
            ``session.run()``.
        memory_mb: For one attempt and all that it starts, beyond what is preloaded; None for no limit.
        timeout_s: For one attempt, from when it has read its item on the worker; None for no limit.
        preload: Modules that are imported once a worker, and shared by all its attempts.

    Raises:
        InputError: The client is none, or a number is out of its range.
        MissingExtra: distributed is not installed.
    """

    def __init__(
        self,
        client: Client,
        *,
        memory_mb: float | None = None,
        timeout_s: float | None = None,
        preload: Sequence[str] = (),
    ) -> None:
        _check_client(client)
        for field, value in (("memory_mb", memory_mb), ("timeout_s", timeout_s)):
            if value is not None:
                check(field, value, low=0, above=True)
        self.client: Any = client  # half of its methods have no types
        self.memory_mb, self.timeout_s, self.preload = memory_mb, timeout_s, tuple(preload)
        self._order = hosted.Order(f"ipybatch-{uuid.uuid4().hex[:12]}", memory_mb, timeout_s, self.preload)
        self._users = 0
        self._runs: dict[str, _Run] = {}
        self._threads = Threads()

    @property
    def workers(self) -> int:
        """Attempts at a time: the threads of the cluster, as far as the client knows them."""
        if self.client.status != "running":
            return 1
        told = self.client.scheduler_info()
        return told.get("total_threads") or sum(one["nthreads"] for one in told["workers"].values()) or 1

    def within(self, *, memory_mb: float | None, timeout_s: float | None, preload: Sequence[str]) -> Dask:
        """Return a backend with these limits and modules, where this one has none of its own."""
        return Dask(
            self.client,
            memory_mb=memory_mb if self.memory_mb is None else self.memory_mb,
            timeout_s=timeout_s if self.timeout_s is None else self.timeout_s,
            preload=self.preload or preload,
        )

    async def open(self, slots: int) -> None:
        """See that the cluster answers, and that its workers have this package.

        Raises:
            InputError: It does not, or they have not.
        """
        if not self._users:
            try:
                await asyncio.wait_for(self._ask(self._greet()), _ANSWER_S)
            except TimeoutError:
                msg = (
                    f"client must answer within {_ANSWER_S:g} s, got no answer: await the session where the client is"
                    " asynchronous, or see whether its scheduler is up"
                )
                raise InputError(msg) from None
        self._users += 1

    async def run(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Call ``work`` in a process of its own on some worker.

        When it is cancelled, the process and all that it started are gone before this returns.

        Raises:
            Overrun: It took longer than ``timeout_s``.
            OutOfMemory: It needed more than ``memory_mb``, or than there is.
            Killed: Its process ended without an answer, or its worker was lost twice.
            Permanent: The work, or its result, cannot be sent from one process to another.
        """
        parts = await self._threads.run(_encode, (work, arguments))
        answer, ended = await self._see_through(f"{self._order.kernel}-{uuid.uuid4().hex}", parts)
        return await result_of(answer, ended, self.timeout_s, self._threads)

    async def close(self) -> None:
        """End what the workers still run for us; the client stays as it is."""
        self._users -= 1
        if self._users == 0:
            if self.client.status == "running":
                await self._ask(self._leave())
            await self._threads.close()
        self._users = max(0, self._users)

    async def _see_through(self, key: str, parts: list[bytes]) -> hosted.Answered:
        exchange = self._ask(self._exchange(key, parts))
        waits: set[asyncio.Future[Any]] = {exchange}
        cancelled: asyncio.CancelledError | None = None
        while not all(one.done() for one in waits):
            try:
                await asyncio.wait(waits)
            except asyncio.CancelledError as error:
                cancelled = error
                if self.client.status == "running":
                    waits.add(self._ask(self._end(key)))
        if cancelled is not None:
            for one in waits:
                one.exception()
            raise cancelled
        return exchange.result()

    def _ask(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Run a coroutine in the client's loop, and return its result as a future of this one."""
        if self.client.status != "running":
            coroutine.close()
            msg = f"The Dask client is {self.client.status}"
            raise Killed(msg)
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.client.loop.asyncio_loop))

    # From here on in the client's loop

    async def _greet(self) -> None:
        try:
            await self.client.run(hosted.greet)
        except ImportError as error:
            msg = f"client must lead to workers that have this version of ipybatch, got {error}: install it there"
            raise InputError(msg) from error
        self.client.subscribe_topic(self._order.kernel, self._hear)

    async def _exchange(self, key: str, parts: list[bytes]) -> hosted.Answered:
        import dask
        from distributed import KilledWorker
        from distributed.comm.core import CommClosedError

        # Dask warns of large items; there is nothing better to do with one that a single attempt needs.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
            future = self.client.submit(hosted.attempt, self._order, key, parts, key=key, pure=False)
        run = self._runs[key] = _Run(future)
        try:
            answered: hosted.Answered = await future
        except KilledWorker:
            raise Killed(_LOST) from None
        except (CancelledError, CommClosedError) as error:
            if run.is_cancelled:
                return None, Ended(0, 0, "cancel")
            raise Killed(_LOST if run.starts > _STARTS else self._why(error)) from error
        finally:
            del self._runs[key]
        return answered

    def _why(self, error: Exception) -> str:
        if self.client.status != "running":
            return "The Dask client was closed"
        return f"The cluster gave it up: {getattr(error, 'reason', error)}".replace("-", " ")

    async def _hear(self, event: tuple[float, str]) -> None:
        """Hear that an attempt starts, and give it up when that is once too often."""
        run = self._runs.get(event[1])
        if run is not None:
            run.starts += 1
            if run.starts > _STARTS:
                await self.client.cancel([run.future], force=True)

    async def _end(self, key: str) -> None:
        run = self._runs.get(key)
        if run is not None:
            run.is_cancelled = True
            await self.client.cancel([run.future], force=True)
        await self._tell_all(hosted.end, key)

    async def _leave(self) -> None:
        self.client.unsubscribe_topic(self._order.kernel)
        await self._tell_all(hosted.close)

    async def _tell_all(self, act: Callable[..., Any], *arguments: str) -> None:
        # A worker that cannot be reached is lost, and its processes end with it.
        with contextlib.suppress(TimeoutError, OSError):
            asked = self.client.run(act, self._order.kernel, *arguments, on_error="ignore")
            await asyncio.wait_for(asked, _GONE_S)


def _encode(work: Callable[..., Any], arguments: tuple[Any, ...]) -> list[bytes]:
    return [bytes(part) for part in encode(work, arguments)]


def _check_client(client: object) -> None:
    try:
        from distributed import Client
    except ImportError:
        raise MissingExtra("dask") from None
    if not isinstance(client, Client):
        msg = f"client must be a distributed.Client, got {client!r}: make one with Client(address) or Client()"
        raise InputError(msg)
