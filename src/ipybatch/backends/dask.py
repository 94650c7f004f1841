"""`Dask`: each attempt in a process of its own, on the workers of a Dask cluster.

    session -- client == scheduler == worker -- supervisor -- one process an attempt

A worker runs what `Processes` runs on one machine, so limits, statuses and
errors are the same.  Dask carries the call to the worker and the answer back,
and runs it again, once, when the worker is lost.

Rule: every request to the cluster runs in the client's own event loop, which is
not the engine's; the engine's loop stays free meanwhile.

On the worker an attempt is a coroutine in the worker's event loop; the heavy part
runs in a process below the worker.  The supervisor starts with the first attempt.
It ends when the session says so, or after `_IDLE_S` without an attempt: a kernel
that was killed says nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ipybatch.backends.process.backend import Processes, encode_call, result_of
from ipybatch.backends.process.protocol import Answer, Ended, Killed, Parts
from ipybatch.backends.threads import Threads
from ipybatch.engine.data.policy import check_bound
from ipybatch.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from distributed import Client, Future, Worker

T = TypeVar("T")

_ANSWER_S = 20.0
_GONE_S = 5.0  # a worker that is silent for so long counts as lost, and its processes with it
_STARTS = 2  # of one attempt: one worker may be lost
_LOST = "The worker was lost twice"

# On a worker
_TICK_S = 0.1
_IDLE_S = 30.0
_NO_LIMIT = 1_000_000  # the worker's threads are the limit, and Dask keeps it


class _Submission:
    """One attempt, as the client's loop knows it."""

    def __init__(self, future: Future[Any]) -> None:
        self.future = future
        self.starts = 0
        self.is_cancelled = False


class Dask:
    """Run each attempt in a process of its own, on a worker of a Dask cluster.

    The workers need the same version of this package. A worker runs as many attempts at a time as it has threads. Its
    own memory limit (the nanny's) does not count attempts, which are processes beside the worker: set ``memory_mb``.

    Args:
        client: A `distributed.Client`. An asynchronous one works while its event loop is free: ``await session``, not
            ``session.run()``.
        memory_mb: Memory of one attempt and of the processes it starts, beyond the preloaded modules; None for no
            limit.
        timeout_s: Time of one attempt, from when it has read its item on the worker; None for no limit.
        preload: Modules that each worker imports once, shared by its attempts.

    Raises:
        InputError: ``client`` is not a Dask client, or a number is out of its range.
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
        try:
            from distributed import Client
        except ImportError:
            raise MissingExtra("dask") from None
        if not isinstance(client, Client):
            msg = f"client must be a distributed.Client, got {client!r}: make one with Client(address) or Client()"
            raise InputError(msg)
        self.client: Any = client  # half of its methods have no types
        self.memory_mb, self.timeout_s = check_bound("memory_mb", memory_mb), check_bound("timeout_s", timeout_s)
        self.preload = tuple(preload)
        self._options = WorkerOptions(f"ipybatch-{uuid.uuid4().hex[:12]}", self.memory_mb, self.timeout_s, self.preload)
        self._users = 0
        self._submissions: dict[str, _Submission] = {}
        self._threads = Threads()

    @property
    def workers(self) -> int:
        """Attempts at a time: the threads of all workers that the client knows."""
        if self.client.status != "running":
            return 1
        told = self.client.scheduler_info()
        return told.get("total_threads") or sum(one["nthreads"] for one in told["workers"].values()) or 1

    def within(self, *, memory_mb: float | None, timeout_s: float | None, preload: Sequence[str]) -> Dask:
        """Return a copy of this backend that takes these limits and modules where it has none of its own."""
        return Dask(
            self.client,
            memory_mb=memory_mb if self.memory_mb is None else self.memory_mb,
            timeout_s=timeout_s if self.timeout_s is None else self.timeout_s,
            preload=self.preload or preload,
        )

    async def open(self, slots: int) -> None:
        """Check that the cluster answers and that its workers have this package.

        Raises:
            InputError: The cluster does not answer, or a worker lacks this package.
            Killed: The client is closed.
        """
        if not self._users:
            try:
                await asyncio.wait_for(self._in_client_loop(self._check_workers()), _ANSWER_S)
            except TimeoutError:
                msg = (
                    f"client must answer within {_ANSWER_S:g} s, got no answer: await the session where the client is"
                    " asynchronous, or see whether its scheduler is up"
                )
                raise InputError(msg) from None
        self._users += 1

    async def run(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Call ``work`` in a process of its own on one of the workers, and return its result.

        After a cancel, the process and all that it started have ended before this returns.

        Raises:
            Overrun: The attempt took longer than ``timeout_s``.
            OutOfMemory: The attempt needed more than ``memory_mb``, or more than the machine has.
            Killed: The process ended without an answer, the worker was lost twice, or the client is closed.
            Permanent: The work or its result cannot be sent from one process to another.
            MissingExtra: cloudpickle is not installed.
        """
        parts = await self._threads.run(_encode, (work, arguments))
        answer, ended = await self._finish(f"{self._options.backend}-{uuid.uuid4().hex}", parts)
        return await result_of(answer, ended, self.timeout_s, self._threads)

    async def close(self) -> None:
        """End the attempts that the workers still run; the client stays open."""
        self._users -= 1
        if self._users == 0:
            if self.client.status == "running":
                await self._in_client_loop(self._end_all())
            await self._threads.close()
        self._users = max(0, self._users)

    async def _finish(self, key: str, parts: list[bytes]) -> tuple[Answer, Ended]:
        exchange = self._in_client_loop(self._exchange(key, parts))
        waits: set[asyncio.Future[Any]] = {exchange}
        cancelled: asyncio.CancelledError | None = None
        while not all(one.done() for one in waits):
            try:
                await asyncio.wait(waits)
            except asyncio.CancelledError as error:
                cancelled = error
                if self.client.status == "running":
                    waits.add(self._in_client_loop(self._end(key)))
        if cancelled is not None:
            for one in waits:
                one.exception()
            raise cancelled
        return exchange.result()

    def _in_client_loop(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Run a coroutine in the client's loop, and return its result as a future of this one."""
        if self.client.status != "running":
            coroutine.close()
            msg = f"The Dask client is {self.client.status}"
            raise Killed(msg)
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.client.loop.asyncio_loop))

    # From here on in the client's loop

    async def _check_workers(self) -> None:
        try:
            await self.client.run(check_worker)
        except (ImportError, AttributeError) as error:  # the package, or this function, is not there
            msg = f"client must connect to workers with this version of ipybatch, got {error}: install it there"
            raise InputError(msg) from error
        self.client.subscribe_topic(self._options.backend, self._count_start)

    async def _exchange(self, key: str, parts: list[bytes]) -> tuple[Answer, Ended]:
        import dask
        from distributed import KilledWorker
        from distributed.comm.core import CommClosedError

        # Dask warns of large items; there is nothing better to do with one that a single attempt needs.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
            future = self.client.submit(run_attempt, self._options, key, parts, key=key, pure=False)
        submission = self._submissions[key] = _Submission(future)
        try:
            answer_and_end: tuple[Answer, Ended] = await future
        except KilledWorker:
            raise Killed(_LOST) from None
        except (CancelledError, CommClosedError) as error:
            if submission.is_cancelled:
                return None, Ended(0, 0, "cancel")
            raise Killed(_LOST if submission.starts > _STARTS else self._give_up_reason(error)) from error
        finally:
            del self._submissions[key]
        return answer_and_end

    def _give_up_reason(self, error: Exception) -> str:
        if self.client.status != "running":
            return "The Dask client was closed"
        return f"The cluster cancelled the attempt: {getattr(error, 'reason', error)}".replace("-", " ")

    async def _count_start(self, event: tuple[float, str]) -> None:
        """Count the start of an attempt; cancel it at the third."""
        submission = self._submissions.get(event[1])
        if submission is not None:
            submission.starts += 1
            if submission.starts > _STARTS:
                await self.client.cancel([submission.future], force=True)

    async def _end(self, key: str) -> None:
        submission = self._submissions.get(key)
        if submission is not None:
            submission.is_cancelled = True
            await self.client.cancel([submission.future], force=True)
        await self._run_on_all(end_attempt, key)

    async def _end_all(self) -> None:
        self.client.unsubscribe_topic(self._options.backend)
        await self._run_on_all(close_attempts)

    async def _run_on_all(self, act: Callable[..., Any], *arguments: str) -> None:
        # A worker that cannot be reached is lost, and its processes end with it.
        with contextlib.suppress(TimeoutError, OSError):
            asked = self.client.run(act, self._options.backend, *arguments, on_error="ignore")
            await asyncio.wait_for(asked, _GONE_S)


def _encode(work: Callable[..., Any], arguments: tuple[Any, ...]) -> list[bytes]:
    return [bytes(part) for part in encode_call(work, arguments)]


# On a worker


class WorkerOptions(msgspec.Struct, frozen=True):
    """What a `Dask` backend asks of every worker.

    Attributes:
        backend: Name of the backend, unique in the cluster; also the topic under which workers report starts.
    """

    backend: str
    memory_mb: float | None
    timeout_s: float | None
    preload: tuple[str, ...]


class BackendAttempts:
    """The attempts of one `Dask` backend on one worker."""

    def __init__(self, options: WorkerOptions) -> None:
        self._processes = Processes(_NO_LIMIT, options.memory_mb, options.timeout_s, preload=options.preload)
        self._attempts: dict[str, asyncio.Task[tuple[Answer, Ended]]] = {}
        self._is_open = False
        self._closing_timer: asyncio.TimerHandle | None = None

    async def run(self, worker: Worker, key: str, parts: Parts) -> tuple[Answer, Ended]:
        """Run one attempt; end it once the cluster no longer waits for it."""
        if self._closing_timer is not None:
            self._closing_timer.cancel()
        if not self._is_open:
            self._is_open = True
            await self._processes.open(_NO_LIMIT)
        attempt = self._attempts[key] = asyncio.ensure_future(self._processes.exchange(parts))
        try:
            while not attempt.done():
                await asyncio.wait({attempt}, timeout=_TICK_S)
                task = worker.state.tasks.get(key)
                if task is None or task.state != "executing":  # after a cancel, or once its client is gone
                    attempt.cancel()
        finally:  # also when the worker is closed: then it is lost, and Dask runs the attempt elsewhere
            await self.end(key)
            del self._attempts[key]
            if not self._attempts:
                loop = asyncio.get_running_loop()
                self._closing_timer = loop.call_later(_IDLE_S, lambda: _closing.add(loop.create_task(self.close())))
        return (None, Ended(0, 0, "cancel")) if attempt.cancelled() else attempt.result()

    async def end(self, key: str) -> None:
        """End an attempt of this worker; return once its processes have ended."""
        attempt = self._attempts.get(key)
        if attempt is not None:
            attempt.cancel()
            await asyncio.wait({attempt})

    async def close(self) -> None:
        """End all attempts and the supervisor."""
        if self._closing_timer is not None:
            self._closing_timer.cancel()
        for key in list(self._attempts):
            await self.end(key)
        if self._is_open:
            self._is_open = False
            await self._processes.close()


_backends: dict[str, BackendAttempts] = {}
_closing: set[asyncio.Task[None]] = set()  # a loop keeps weak references only


# Called from the client, by name: the first as a task, the others on every worker at once


async def run_attempt(options: WorkerOptions, key: str, parts: Parts) -> tuple[Answer, Ended]:
    """Run one attempt in a process of its own; return its encoded answer, and how the process ended."""
    from distributed import get_worker

    worker = get_worker()
    worker.log_event(options.backend, key)
    attempts = _backends.setdefault(options.backend, BackendAttempts(options))
    return await attempts.run(worker, key, parts)


async def end_attempt(backend: str, key: str) -> None:
    """End an attempt of this worker, if it runs here; return once its processes have ended."""
    if backend in _backends:
        await _backends[backend].end(key)


async def close_attempts(backend: str) -> None:
    """End all attempts of a backend on this worker."""
    with contextlib.suppress(KeyError):
        await _backends.pop(backend).close()


def check_worker() -> None:
    """Do nothing: a worker that can import this function can run attempts."""
