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
import hashlib
import itertools
import pickle
import threading
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ipybatch.backends.dask import protocol
from ipybatch.backends.dask.link import Link, Told
from ipybatch.backends.dask.protocol import Frame, Handed, Kind, WorkerLost
from ipybatch.backends.dask.worker import WorkerOptions, do_nothing
from ipybatch.backends.process.backend import encode_call, result_of
from ipybatch.backends.process.protocol import Ended as ProcessEnd
from ipybatch.backends.process.protocol import Killed
from ipybatch.backends.process.worker_main import encode_error
from ipybatch.backends.threads import Threads
from ipybatch.engine.data.policy import check
from ipybatch.engine.data.spec import StillRunning, is_coroutine
from ipybatch.engine.rules import classify
from ipybatch.engine.rules.limiter import Permit
from ipybatch.engine.run.attempt import Attempt
from ipybatch.errors import InputError, MissingExtra, Permanent

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")

_ANSWER_S = 20.0
_CANCEL_S = 10.0  # for a cancelled attempt to end on its worker
_LOOK_S = 1.0  # from one look for new workers to the next
_NONE_S = 60.0  # without any worker
_MOST_WORKS = 64  # functions that are kept for the next attempt
_ALONE = "memory_mb= is for processes of their own: leave it out, or give a plain function"


class Defined(msgspec.Struct, eq=False):
    """A work function as it is sent, once to each worker.

    Attributes:
        number: Its name; 0 where it goes with each attempt, to a process.
        calls: Attempts that have not ended.
    """

    work: Callable[..., Any]
    kind: Kind
    number: int = 0
    frame: bytes = b""
    calls: int = 0


class Call(msgspec.Struct, eq=False):
    """An attempt.

    Attributes:
        ended: The last that its worker said of it, with the frames of its answer; or why there is none.
        left: Done when its worker said that it cannot be ended.
        grants: The tasks that wait for its further permits, and have them.
        link: Where it runs; None while it waits for a worker.
    """

    number: int
    defined: Defined
    frames: list[Frame]
    loop: asyncio.AbstractEventLoop
    ended: asyncio.Future[_End]
    attempt: Attempt | None = None
    handed: Handed | None = None
    left: asyncio.Future[None] | None = None
    grants: dict[int, asyncio.Task[Permit | None]] = msgspec.field(default_factory=dict)
    link: Link | None = None

    @property
    def is_isolated(self) -> bool:
        """Whether it runs in a process of its own."""
        return self.defined.kind == "process"


_End = tuple[protocol.Ended, list[Frame]] | Exception
_Posted = tuple[str, Call, Any, Sequence[Frame]]


class Dask:
    """Run attempts on the workers of a Dask cluster: coroutines side by side, plain functions in processes.

    Coroutine functions run in the workers' event loops, hundreds at a time; a worker's threads are no limit for them,
    ``Limits(concurrency=)`` is. Plain functions run in a process of their own each, as many on a worker as it has
    threads. Every attempt goes to the worker that runs the fewest. Limits, retries and the journal stay here.

    Work that is an async context manager is entered on each worker, once. The attempt that work is handed does
    there what it does here, but for ``add``; in a process of its own there is none.

    A worker that is lost costs an attempt of each item that it ran (kind "worker_lost"); the first loss of an item
    does not count for ``Retry(attempts=)``. Workers that join are used.

    The workers need the same version of this package. A worker's own memory limit (the nanny's) does not count
    processes of attempts: set ``memory_mb``. Dask's own tasks and adaptive scaling know nothing of attempts.

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
        for field, value in (("memory_mb", memory_mb), ("timeout_s", timeout_s)):
            if value is not None:
                check(field, value, low=0, above=True)
                if not isolate:
                    msg = f"{field} cannot hold for threads, got {value!r}: leave it out, or isolate=False"
                    raise InputError(msg)
        self.client: Any = client  # half of its methods have no types
        self.memory_mb, self.timeout_s, self.preload, self.isolate = memory_mb, timeout_s, tuple(preload), isolate
        self._options = WorkerOptions(f"ipybatch-{uuid.uuid4().hex[:12]}", memory_mb, timeout_s, self.preload)
        self._users = 0
        self._threads = Threads()
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._works: OrderedDict[int, Defined] = OrderedDict()  # by id; the functions are kept
        self._posted: deque[_Posted] = deque()
        self._is_woken = False
        # In the client's loop
        self._links: dict[str, Link] = {}
        self._opening: set[str] = set()
        self._refused: dict[str, str] = {}  # workers that cannot be used, and why
        self._waiting: dict[bool, deque[Call]] = {True: deque(), False: deque()}  # in a process or not
        self._losses: dict[bytes, int] = {}  # of items that have not succeeded since
        self._watching: asyncio.Task[None] | None = None
        self._wanted: Any = None  # the task that has ended once there is a worker
        self._none_timer: asyncio.TimerHandle | None = None

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
            Killed: The client is closed.
        """
        if not self._users:
            try:
                await asyncio.wait_for(self._in_client_loop(self._start()), _ANSWER_S)
            except TimeoutError:
                msg = (
                    f"client must answer within {_ANSWER_S:g} s, got no answer: await the session where the client is"
                    " asynchronous, or see whether its scheduler is up"
                )
                raise InputError(msg) from None
        self._users += 1

    async def run(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Call ``work`` on one of the workers, and return its result.

        After a cancel, the attempt has ended on its worker before this returns.

        Raises:
            Overrun: The attempt took longer than ``timeout_s``.
            OutOfMemory: The attempt needed more than ``memory_mb``, or more than the machine has.
            WorkerLost: The worker was lost, or there is none.
            Killed: The process ended without an answer, the worker was lost again, or the client is closed.
            Permanent: The item or the result cannot be sent from one process to another.
            Judged: The work cannot be sent, or not be read or entered on a worker.
            MissingExtra: cloudpickle is not installed.
            StillRunning: The attempt was cancelled, and its thread or coroutine goes on.
        """
        if self.client.status not in ("running", "connecting"):
            msg = f"The Dask client is {self.client.status}"
            raise Killed(msg)
        call = await self._prepare(work, arguments)
        call.defined.calls += 1
        try:
            self._post("run", call)
            try:
                end = await call.ended
            except asyncio.CancelledError:
                end = await self._cancel(call)
        finally:
            call.defined.calls -= 1
            for grant in call.grants.values():
                grant.cancel()
        if isinstance(end, Exception):
            raise end
        return await self._result_of(call, *end)

    async def close(self) -> None:
        """End the attempts that the workers still run; the client stays open."""
        self._users -= 1
        if self._users == 0:
            if self.client.status == "running":
                await self._in_client_loop(self._stop())
            await self._threads.close()
        self._users = max(0, self._users)

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
        return Call(next(self._numbers), defined, frames, loop, loop.create_future(), attempt, handed)

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
        idle = [one for one in self._works.values() if not one.calls][: max(0, len(self._works) - _MOST_WORKS)]
        for one in idle:
            del self._works[id(one.work)]
            nobody: Any = None
            self._post("forget", nobody, one.number)

    async def _cancel(self, call: Call) -> _End:
        """Cancel an attempt, and wait until it has ended where it runs.

        Raises:
            CancelledError: It has.
            StillRunning: It goes on by itself.
        """
        if not call.ended.cancelled():
            raise asyncio.CancelledError  # it had ended
        call.ended, call.left = call.loop.create_future(), call.loop.create_future()
        either: list[asyncio.Future[Any]] = [call.ended, call.left]
        self._post("cancel", call)
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

    def _hear(self, told: list[Told]) -> None:
        """Hear what workers say of attempts."""
        for call, message, frames in told:
            if isinstance(message, protocol.Ended):
                if not call.ended.done():
                    call.ended.set_result((message, frames))
            elif isinstance(message, protocol.GoesOn):
                if call.left is not None and not call.left.done():
                    call.left.set_result(None)
            elif call.attempt is not None and not call.attempt._is_over:
                self._hear_attempt(call, call.attempt, message)

    def _hear_attempt(self, call: Call, attempt: Attempt, message: protocol.Request) -> None:
        engine = attempt._engine
        match message:
            case protocol.Ask():
                call.grants[message.ask] = call.loop.create_task(self._grant(call, attempt, message))
            case protocol.Release():
                grant = call.grants.pop(message.ask, None)
                if grant is not None and not grant.done():
                    grant.cancel()
                elif grant is not None and (permit := grant.result()) is not None:
                    engine.release(permit)
            case protocol.Join():
                engine.join(message.group)
            case protocol.Heed():
                engine.heed(message.headers)
            case protocol.Stand():
                engine.stand(message.change)
            case protocol.GiveUp():
                engine.give_up()
            case protocol.Billed():
                attempt.is_billed = message.is_billed

    async def _grant(self, call: Call, attempt: Attempt, asked: protocol.Ask) -> Permit | None:
        try:
            permit = await attempt._acquire(asked.cost)
        except Exception as error:
            frames = [bytes(part) for part in encode_error(error)[1:]]
            self._post("send", call, protocol.Denied(call.number, asked.ask, len(frames)), frames)
            return None
        self._post("send", call, protocol.Granted(call.number, asked.ask))
        return permit

    def _end(self, call: Call, error: Exception) -> None:
        """End an attempt that has no answer."""
        if not call.ended.done():
            call.ended.set_result(error)

    def _post(self, what: str, call: Call, message: Any = None, frames: Sequence[Frame] = ()) -> None:
        """Hand something to the client's loop, with one call for all that is there by then."""
        self._posted.append((what, call, message, frames))
        if not self._is_woken:
            self._is_woken = True
            with contextlib.suppress(RuntimeError):  # the loop is closed, and `_fail_all` has told of it
                self.client.loop.asyncio_loop.call_soon_threadsafe(self._take)

    def _in_client_loop(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Run a coroutine in the client's loop, and return its result as a future of this one."""
        if self.client.status != "running":
            coroutine.close()
            msg = f"The Dask client is {self.client.status}"
            raise Killed(msg)
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.client.loop.asyncio_loop))

    # From here on in the client's loop

    async def _start(self) -> None:
        self._refused.clear()
        await self._look()
        if self._refused:
            why = next(iter(self._refused.values()))
            msg = f"client must connect to workers with this version of ipybatch, got {why}: install it there"
            raise InputError(msg)
        self._watching = asyncio.ensure_future(self._watch())

    async def _stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        self._want_worker(False)
        links, self._links = [*self._links.values()], {}
        await asyncio.gather(*[link.close() for link in links])
        with self._lock:
            self._works.clear()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            if self.client.status == "running":
                with contextlib.suppress(Exception):  # the scheduler is away: the next look tells
                    await self._look()
            elif self.client.status != "connecting":
                self._fail_all()
                return

    async def _look(self) -> None:
        """Open lines to new workers, and take those that are gone for lost."""
        listed: dict[str, int] = await self.client.scheduler.ncores_running()
        there = {**listed, **(await self.client.scheduler.ncores() if self._links.keys() - listed.keys() else {})}
        for address in self._links.keys() - there.keys():
            self._links[address].lose()
        for address, link in self._links.items():
            link.takes = address in listed  # not one that is being closed, or that has paused
        new = listed.keys() - self._links.keys() - self._opening - self._refused.keys()
        await asyncio.gather(*[self._open(address, listed[address]) for address in new])
        self._place()

    async def _open(self, address: str, threads: int) -> None:
        link = Link(self.client, address, threads, self._options, on_told=self._tell, on_lost=self._lose)
        self._opening.add(address)
        try:
            await link.open()
        except (ImportError, AttributeError) as error:  # the package, or this function, is not there
            self._refused[address] = str(error)
        except OSError:  # it has gone again, or the next look finds it
            pass
        else:
            self._links[address] = link
        finally:
            self._opening.discard(address)

    def _take(self) -> None:
        """Take what was posted."""
        self._is_woken = False
        while self._posted:
            what, call, message, frames = self._posted.popleft()
            match what:
                case "run":
                    self._waiting[call.is_isolated].append(call)
                case "cancel":
                    self._cancel_here(call)
                case "send":
                    if call.link is not None:
                        call.link.send(message, frames)
                case "forget":
                    for link in self._links.values():
                        if message in link.defined:
                            link.defined.discard(message)
                            link.send(protocol.Forget(message))
        self._place()

    def _cancel_here(self, call: Call) -> None:
        if call.link is not None:
            call.link.send(protocol.Cancel(call.number))
            return
        with contextlib.suppress(ValueError):
            self._waiting[call.is_isolated].remove(call)
            self._tell([(call, protocol.Ended(call.number, 0, None, {}), [])])

    def _place(self) -> None:
        """Send what waits to the workers that run the fewest."""
        links = [link for link in self._links.values() if link.is_open and link.takes]
        for is_isolated, waiting in self._waiting.items():
            while waiting and (link := _freest(links, is_isolated)) is not None:
                link.run(waiting.popleft())
        self._want_worker(any(self._waiting.values()) and not self._links)

    def _want_worker(self, is_wanted: bool) -> None:
        """Ask the cluster for a worker, where there is none; tell what waits when none has come for long."""
        if is_wanted and self._wanted is None:
            self._wanted = self.client.submit(do_nothing, pure=False)  # adaptive clusters start a worker for it
            self._none_timer = asyncio.get_running_loop().call_later(_NONE_S, self._tell_none)
        elif not is_wanted and self._none_timer is not None:
            self._wanted = None
            self._none_timer.cancel()
            self._none_timer = None

    def _tell_none(self) -> None:
        why = (
            f", and {len(self._refused)} cannot be used: {next(iter(self._refused.values()))}" if self._refused else ""
        )
        self._end_waiting(lambda: WorkerLost(f"The cluster has had no worker for {_NONE_S:g} s{why}"))
        self._want_worker(False)

    def _end_waiting(self, error: Callable[[], Exception]) -> None:
        for waiting in self._waiting.values():
            while waiting:
                self._end_there(waiting.popleft(), error())

    def _fail_all(self) -> None:
        """End everything: the client was closed."""
        self._end_waiting(lambda: Killed(_CLOSED))
        for link in [*self._links.values()]:
            link.lose()

    def _lose(self, link: Link) -> None:
        self._links.pop(link.address, None)
        is_closed = self.client.status not in ("running", "connecting")
        for call in link.running.values():
            self._end_there(call, Killed(_CLOSED) if is_closed else self._lost_error(call, link))
        link.running.clear()
        if is_closed:
            self._fail_all()
        else:
            self._place()

    def _lost_error(self, call: Call, link: Link) -> Killed:
        """Return the error of an attempt whose worker was lost: by what ran beside it, unless that happens again."""
        name = _name_of(call)
        losses = self._losses[name] = self._losses.get(name, 0) + 1
        if losses == 1:
            return WorkerLost(f"The worker {link.address} was lost")
        error = Killed(f"The worker was lost {'twice' if losses == 2 else f'{losses} times'}")
        error.kind = WorkerLost.kind
        return error

    def _end_there(self, call: Call, error: Exception) -> None:
        with contextlib.suppress(RuntimeError):  # its loop is closed
            call.loop.call_soon_threadsafe(self._end, call, error)

    def _tell(self, told: list[Told]) -> None:
        """Hand what workers said to the loops of the attempts."""
        by_loop: dict[asyncio.AbstractEventLoop, list[Told]] = {}
        for one in told:
            call, message, _ = one
            by_loop.setdefault(call.loop, []).append(one)
            if self._losses and isinstance(message, protocol.Ended):
                self._losses.pop(_name_of(call), None)
        for loop, ones in by_loop.items():
            with contextlib.suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(self._hear, ones)
        self._place()


_CLOSED = "The Dask client was closed"


def _freest(links: list[Link], is_isolated: bool) -> Link | None:
    free = [link for link in links if link.isolated < link.threads] if is_isolated else links
    return min(free, key=lambda link: len(link.running), default=None)


def _name_of(call: Call) -> bytes:
    digest = hashlib.blake2b(b"%d" % call.defined.number, digest_size=16)
    for frame in call.frames:
        digest.update(frame)
    return digest.digest()


def _encode(work: Callable[..., Any], arguments: tuple[Any, ...]) -> list[Frame]:
    return [bytes(part) for part in encode_call(work, arguments)]


def _encode_work(work: Callable[..., Any]) -> bytes:
    try:
        import cloudpickle
    except ImportError:
        raise MissingExtra("dask") from None
    try:
        pickled: bytes = cloudpickle.dumps(work, protocol=5)
    except Exception as error:
        msg = f"the work cannot be sent to a worker: {type(error).__name__}: {error}"
        raise classify.Judged(msg, classify.Verdict(classify.Kind.SETUP)) from error
    return pickled
