"""`Dask`: attempts on the workers of a Dask cluster, while the driver decides what starts.

    session -- client == scheduler == worker -- coroutines in its event loop
                                            `-- supervisor -- one process an attempt

Limits, retries, breaker, budget and journal are the driver's; a worker runs what it is sent.  Dask carries the line
(`protocol`), and schedules nothing: its own tasks run again when a worker is lost, which for a request that is
rationed or paid would be a second one.  Here an attempt starts once.  That its worker is lost is an error
(`WorkerLost`), after which the engine tries the item again, with a new permit.

Rule: what concerns the cluster happens in the client's own event loop, which is not the engine's.  The two hand each
other lists, with one call for as many attempts as there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import pickle
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ipybatch.backends.dask import protocol
from ipybatch.backends.dask.call import Call, Defined, End
from ipybatch.backends.dask.cluster import Cluster
from ipybatch.backends.dask.protocol import ClientClosed, Frame, Handed, Kind
from ipybatch.backends.dask.worker import WorkerOptions
from ipybatch.backends.process.backend import encode_call, result_of
from ipybatch.backends.process.protocol import Ended as ProcessEnd
from ipybatch.backends.process.protocol import dumps
from ipybatch.backends.threads import Threads
from ipybatch.engine.data.policy import check_bound
from ipybatch.engine.data.spec import StillRunning, is_coroutine
from ipybatch.engine.rules import classify
from ipybatch.engine.run.attempt import Attempt
from ipybatch.errors import InputError, MissingExtra, Permanent

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")

_ANSWER_S = 20.0
_LOOK_S = 1.0  # from one look at the client to the next
_CANCEL_S = 10.0  # for a cancelled attempt to end on its worker
_MOST_WORKS = 64  # functions that are kept for the next attempt
_SENT = "Let the work make clients, locks and files in __aenter__, which each worker calls once, and not hold any here."
_ALONE = "memory_mb= is for processes of their own: leave it out, or give a plain function"


class Dask:
    """Run attempts on the workers of a Dask cluster: coroutines side by side, plain functions in processes.

    Coroutine functions run in the workers' event loops, hundreds at a time; a worker's threads are no limit for them,
    ``Limits(concurrency=)`` is. Plain functions run in a process of their own each, as many on a worker as it has
    threads. Every attempt goes to the worker that runs the fewest. Limits, retries and the journal stay here.

    Work that is an async context manager is entered on each worker, once. The attempt that work is handed does
    there what it does here, but for ``add``; in a process of its own there is none.

    A worker that is lost costs an attempt of each item that it ran (kind "worker_lost"). An item that ran on two lost
    workers runs alone on a worker from then on, and only what it loses there counts for ``Retry(attempts=)``: work
    that kills its workers fails, and not what runs beside it. Workers that join are used.

    The workers need the same version of this package. A worker's own memory limit (the nanny's) does not count
    processes of attempts: set ``memory_mb``. Dask's own tasks and adaptive scaling know nothing of attempts: a cluster
    that adapts closes workers that run nothing else after some seconds, so give it as many as the session is to have
    (``cluster.adapt(minimum=4)``).

    Args:
        client: A `distributed.Client`. An asynchronous one works while its event loop is free: ``await session``, not
            ``session.run()``.
        memory_mb: Memory of one attempt and of the processes it starts, beyond the preloaded modules; None for no
            limit. For plain functions in processes only.
        timeout_s: Time of one attempt, from when it has read its item on the worker; None for no limit.
        preload: Modules that each worker imports once, shared by its attempts.
        isolate: Whether plain functions run in processes. False: in threads of the workers, as many as there are
            attempts, which cannot be ended, and are handed their attempt.

    Raises:
        InputError: ``client`` is not a Dask client, or a number is out of its range, or cannot hold for threads.
        MissingExtra: distributed is not installed.
    """

    def __init__(
        self,
        client: Client,
        *,
        memory_mb: float | None = None,
        timeout_s: float | None = None,
        preload: Sequence[str] = (),
        isolate: bool = True,
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
        for field, value in (("memory_mb", memory_mb), ("timeout_s", timeout_s)):
            if value is not None and not isolate:
                msg = f"{field} cannot hold for threads, got {value!r}: leave it out, or isolate=False"
                raise InputError(msg)
        self.preload, self.isolate = tuple(preload), isolate
        self._options = WorkerOptions(f"ipybatch-{uuid.uuid4().hex[:12]}", self.memory_mb, self.timeout_s, self.preload)
        self._users = 0
        self._threads = Threads()
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._works: OrderedDict[int, Defined] = OrderedDict()  # by id; the functions are kept
        self._cluster = Cluster(client, self._options)
        self._running: dict[asyncio.AbstractEventLoop, set[Call]] = {}

    @property
    def workers(self) -> int:
        """The threads of all workers that the client knows: so many plain functions run at a time."""
        if self.client.status != "running":
            return 1
        told = self.client.scheduler_info()
        return told.get("total_threads") or sum(one["nthreads"] for one in told["workers"].values()) or 1

    def within(self, *, memory_mb: float | None, timeout_s: float | None, preload: Sequence[str]) -> Dask:
        """Return a copy of this backend that takes these limits and modules where it has none of its own."""
        return Dask(
            self.client,
            memory_mb=memory_mb if self.memory_mb is None and self.isolate else self.memory_mb,
            timeout_s=timeout_s if self.timeout_s is None and self.isolate else self.timeout_s,
            preload=self.preload or preload,
            isolate=self.isolate,
        )

    def enters(self, work: Any) -> bool:
        """Say whether work that is a context manager is entered on the workers, not here."""
        return self._kind_of(work) != "process"

    def _kind_of(self, work: Any) -> Kind:
        if is_coroutine(work):
            return "coroutine"
        return "process" if self.isolate else "thread"

    async def open(self, slots: int) -> None:
        """Check that the cluster answers and that its workers have this package.

        Raises:
            InputError: The cluster does not answer, or a worker lacks this package.
            ClientClosed: The client is closed.
        """
        self._users += 1
        if self.client.status != "running":
            msg = f"The Dask client is {self.client.status}"
            raise ClientClosed(msg)
        try:
            await asyncio.wait_for(self._in_client_loop(self._cluster.start()), _ANSWER_S)
        except TimeoutError:
            msg = (
                f"client must answer within {_ANSWER_S:g} s, got no answer: await the session where the client is"
                " asynchronous, or see whether its scheduler is up"
            )
            raise InputError(msg) from None

    async def run(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Call ``work`` on one of the workers, and return its result.

        After a cancel, the attempt has ended on its worker before this returns.

        Raises:
            Overrun: The attempt took longer than ``timeout_s``.
            OutOfMemory: The attempt needed more than ``memory_mb``, or more than the machine has.
            WorkerLost: The worker was lost, or there is none.
            ClientClosed: The client is closed.
            Killed: The process ended without an answer, or the worker was lost again.
            Permanent: The item or the result cannot be sent from one process to another.
            Judged: The work cannot be sent, or not be read or entered on a worker.
            MissingExtra: cloudpickle is not installed.
            StillRunning: The attempt was cancelled, and its thread or coroutine goes on.
        """
        if not self._is_connected:
            msg = f"The Dask client is {self.client.status}"
            raise ClientClosed(msg)
        call = await self._prepare(work, arguments)
        call.defined.calls += 1
        self._watch(call)
        try:
            self._cluster.run(call)
            try:
                end = await call.ended
            except asyncio.CancelledError:
                end = await self._cancel(call)
        finally:
            call.defined.calls -= 1
            self._running.get(call.loop, set()).discard(call)
            call.close()
        if isinstance(end, Exception):
            raise end
        return await self._result_of(call, *end)

    async def close(self) -> None:
        """End the attempts that the workers still run; the client stays open."""
        self._users -= 1
        if self._users == 0:
            if self._is_connected:
                with contextlib.suppress(TimeoutError):  # its loop stands, or was closed: leases end what runs
                    await asyncio.wait_for(self._in_client_loop(self._cluster.stop()), _ANSWER_S)
            await self._threads.close()
            with self._lock:
                self._works.clear()
        self._users = max(0, self._users)

    @property
    def _is_connected(self) -> bool:
        return self.client.status in ("running", "connecting")

    # In the engine's loop

    async def _prepare(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Call:
        loop = asyncio.get_running_loop()
        defined = self._define(work)
        attempt, handed, frames = None, None, list[Frame]()
        if defined.kind == "process":
            frames = await self._threads.run(_encode, (work, arguments))
        else:
            plain = list(arguments)
            for place, argument in enumerate(arguments):
                if isinstance(argument, Attempt):
                    attempt, handed, plain[place] = argument, Handed(place, argument.key, argument.number), None
            try:
                frames += protocol.pack(plain)
            except Exception as error:
                msg = f"the item cannot be sent to a worker: {type(error).__name__}: {error}"
                raise Permanent(msg) from error
        call = Call(next(self._numbers), defined, frames, loop, loop.create_future(), attempt, handed)
        if attempt is not None:
            call.say = lambda message, frames: self._cluster.send(call, message, frames)
        return call

    def _define(self, work: Callable[..., Any]) -> Defined:
        """Return a function as it is sent: the same for all attempts.

        Raises:
            Judged: It cannot be sent, or not with these limits.
            MissingExtra: cloudpickle is not installed.
        """
        with self._lock:
            found = self._works.get(id(work))
            if found is None:
                kind = self._kind_of(work)
                if kind == "process":
                    return Defined(work, kind)
                if self.memory_mb is not None:
                    raise classify.Judged(_ALONE, classify.Verdict(classify.Kind.SETUP))
                found = self._works[id(work)] = Defined(work, kind, next(self._numbers), _encode_work(work))
                self._forget_oldest()
            else:
                self._works.move_to_end(id(work))
        return found

    def _forget_oldest(self) -> None:
        idle = [one for one in [*self._works.values()][:-1] if not one.calls]
        idle = idle[: max(0, len(self._works) - _MOST_WORKS)]
        for one in idle:
            del self._works[id(one.work)]
            self._cluster.forget(one.number)

    def _watch(self, call: Call) -> None:
        """End an attempt when the client is closed: its loop ends with it, and tells nothing any more."""
        if call.loop not in self._running:
            self._running[call.loop] = set()
            call.loop.call_later(_LOOK_S, self._look, call.loop)
        self._running[call.loop].add(call)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        running = self._running[loop]
        if running and self._is_connected:
            loop.call_later(_LOOK_S, self._look, loop)
            return
        del self._running[loop]
        for call in running:
            call.end(ClientClosed())

    async def _cancel(self, call: Call) -> End:
        """Cancel an attempt, and wait until it has ended where it runs.

        Raises:
            CancelledError: It has.
            StillRunning: It goes on by itself.
        """
        if not call.ended.cancelled():
            raise asyncio.CancelledError  # it had ended
        call.ended, call.left = call.loop.create_future(), call.loop.create_future()
        either: list[asyncio.Future[Any]] = [call.ended, call.left]
        self._cluster.cancel(call)
        ends_s = call.loop.time() + _CANCEL_S
        while not (call.ended.done() or call.left.done()) and call.loop.time() < ends_s:
            with contextlib.suppress(asyncio.CancelledError):  # once more: it is on its way
                left_s = ends_s - call.loop.time()
                await asyncio.wait(either, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        if not call.ended.done():
            raise StillRunning(call.ended)
        if call.attempt is not None and call.attempt.is_billed:
            return call.ended.result()
        raise asyncio.CancelledError

    async def _result_of(self, call: Call, ended: protocol.Ended, frames: list[Frame]) -> Any:
        if call.attempt is not None and ended.actual:
            call.attempt._actual = ended.actual
        answer: Any = frames
        if ended.end is not None:
            return await result_of(answer or None, ended.end, self.timeout_s, self._threads)
        if not frames:
            raise asyncio.CancelledError  # not by us
        if protocol.is_small(frames):
            result, error = pickle.loads(frames[0])  # noqa: S301  # plain data
            if error is not None:
                raise error
            return result
        return await result_of(answer, ProcessEnd(0, 0), None, self._threads)

    def _in_client_loop(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Run a coroutine in the client's loop, and return its result as a future of this one."""
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.client.loop.asyncio_loop))


def _encode(work: Callable[..., Any], arguments: tuple[Any, ...]) -> list[Frame]:
    return [bytes(part) for part in encode_call(work, arguments)]


def _encode_work(work: Callable[..., Any]) -> bytes:
    try:
        return dumps(work)
    except MissingExtra:
        raise
    except Exception as error:
        msg = f"the work cannot be sent to a worker: {type(error).__name__}: {error}"
        raise classify.Judged(msg, classify.Verdict(classify.Kind.SETUP, advice=_SENT)) from error
