"""Worker: runs the attempts of drivers inside a worker of Dask.

    Lines (one a worker) -- Line (one a driver's backend) -- _Running (one an attempt)

==========  ==============================================================  ==========================================
work        where it runs                                                   what a cancel does
==========  ==============================================================  ==========================================
coroutine   in the worker's event loop, hundreds side by side               cancels it, again and again for 5 s
plain       in a process below the worker, as many as it has threads        kills it, and all that it started
the same,   in a thread of the worker                                       leaves it to itself, and says so
not apart
==========  ==============================================================  ==========================================

Rule: everything here is called in the worker's event loop.

A driver that is killed says nothing.  So a line that nobody asks for `LEASE_S` ends all that runs for it; time in
which the worker's loop did not turn counts for little.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import pickle
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec

from ipybatch.backends.dask import protocol
from ipybatch.backends.dask.protocol import Frame, Frames, Handed, Kind
from ipybatch.backends.process.backend import Processes
from ipybatch.backends.process.protocol import Ended as ProcessEnd
from ipybatch.backends.process.protocol import Overrun
from ipybatch.backends.process.worker_main import encode_error
from ipybatch.backends.threads import Threads
from ipybatch.engine.data.spec import StillRunning
from ipybatch.engine.rules import classify
from ipybatch.engine.rules.limiter import Cost, Permit
from ipybatch.engine.run.attempt import Attempt
from ipybatch.engine.run.slots import AGAIN_S, CANCELS
from ipybatch.errors import InputError, Permanent

if TYPE_CHECKING:
    from distributed import Worker

    from ipybatch.engine.data.items import ItemList

_TICK_S = 0.5
_TICKS = int(protocol.LEASE_S / _TICK_S)
_SETUP = "Every worker needs what the work imports, and opens for itself what an async context manager opens."
_NO_LIMIT = 1_000_000  # of a backend's own processes: those of all backends share the worker's threads


class WorkerOptions(msgspec.Struct, frozen=True):
    """What a `Dask` backend asks of every worker.

    Attributes:
        backend: Its name, unique in the cluster.
    """

    backend: str
    memory_mb: float | None
    timeout_s: float | None
    preload: tuple[str, ...]


class Lines:
    """The lines of all drivers to one worker."""

    def __init__(self, worker: Worker) -> None:
        self._lines: dict[str, Line] = {}
        self._free = asyncio.Semaphore(worker.state.nthreads)

    @staticmethod
    def of(worker: Worker) -> Lines:
        """Return those of a worker, which answers requests for them from now on."""
        handlers: dict[str, Any] = worker.handlers
        if protocol.OPERATION not in handlers:
            lines = Lines(worker)
            handlers[protocol.OPERATION] = lines.answer
            plugins: dict[str, Any] = worker.plugins
            plugins[protocol.OPERATION] = lines
        return cast("Lines", handlers[protocol.OPERATION].__self__)

    async def teardown(self, worker: Worker) -> None:
        """End everything: the worker is being closed, and calls this as that of a plugin."""
        await asyncio.gather(*[line.close() for line in list(self._lines.values())])

    def open(self, name: str, options: WorkerOptions) -> None:
        """Open a line."""
        self._lines[name] = Line(options, self._free, on_end=lambda: self._lines.pop(name, None))

    async def answer(self, line: str, act: str, number: int = 0, body: bytes = b"", large: Sequence[Any] = ()) -> Any:
        """Answer a request of a driver; with None where there is no such line, or not any more."""
        found = self._lines.get(line)
        if found is None:
            return None
        match act:
            case "push":
                found.push(number, (body, list(large)))
                return True
            case "pull":
                return await found.pull(number)
        await found.close()
        return True


class Line:
    """What runs for one backend of one driver, and what its driver has to be told.

    Args:
        free: A place for each process that the worker may run.
        on_end: Called when it is closed.
    """

    def __init__(self, options: WorkerOptions, free: asyncio.Semaphore, on_end: Callable[[], object]) -> None:
        self.options, self.free = options, free
        self.threads = Threads()
        self.running: dict[int, _Running] = {}
        self._on_end = on_end
        self._works: dict[int, _Work] = {}
        self._processes: Processes | None = None
        self._pushed = self._pulled = 0
        self._messages: list[msgspec.Raw] = []
        self._frames: list[Frame] = []
        self._unconfirmed: Any = None  # the latest batch: it is sent again where its reply was lost
        self._news = asyncio.Event()
        self._is_closed = False
        self._silent = 0  # ticks since the driver was heard
        self._watching = asyncio.ensure_future(self._watch())

    # Asked by the driver

    def push(self, number: int, batch: protocol.Batch) -> None:
        """Do what a driver says, unless it was said before."""
        self._silent = 0
        if number <= self._pushed:
            return
        self._pushed = number
        messages, frames = protocol.read_push(batch)
        given = iter(frames)
        for message in messages:
            match message:
                case protocol.Run():
                    _Running(self, message, [next(given) for _ in range(message.frames)])
                case protocol.Define():
                    self._works[message.work] = _Work(message.kind, next(given), self.options.preload)
                case protocol.Forget():
                    self._works.pop(message.work).forget()
                case protocol.Denied() | protocol.Granted() | protocol.Cancel():
                    error = [next(given) for _ in range(getattr(message, "frames", 0))]
                    if (running := self.running.get(message.number)) is not None:
                        running.hear(message, error)

    async def pull(self, number: int) -> Any:
        """Return the batch of this number: one that was there before, or what there is to say, soon or after a wait."""
        self._silent = 0
        if number == self._pulled and self._unconfirmed is not None:
            return self._unconfirmed
        if not self._messages:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), protocol.HOLD_S)
            await asyncio.sleep(protocol.GATHER_S)
        if number <= self._pulled or self._is_closed:  # asked twice, and the other had it; or over
            return self._unconfirmed
        self._pulled = number
        messages, frames = self._messages, self._frames
        self._messages, self._frames = [], []
        self._news.clear()
        self._unconfirmed = protocol.as_message(protocol.encode_batch(messages, frames))
        return self._unconfirmed

    async def close(self) -> None:
        """End all that runs, and leave the work."""
        self._watching.cancel()
        await self._end()

    async def _watch(self) -> None:
        while self._silent < _TICKS:
            await asyncio.sleep(_TICK_S)
            self._silent += 1
        await self._end()

    async def _end(self) -> None:
        self._on_end()
        self._is_closed, self._unconfirmed = True, None
        self._news.set()
        running = list(self.running.values())
        for one in running:
            one.cancel()
        waits = [one.task for one in running if not one.goes_on]
        if waits:
            await asyncio.wait(waits, timeout=AGAIN_S * CANCELS)
        if self._processes is not None:
            processes, self._processes = self._processes, None
            await processes.close()
        await self.threads.close()
        for work in self._works.values():
            await work.leave()
        self._works.clear()

    # Asked by attempts

    def say(self, message: protocol.FromWorker, frames: Frames = ()) -> None:
        """Tell the driver something, with the next pull."""
        self._messages.append(protocol.encode(message))
        self._frames += frames
        self._news.set()

    def work(self, name: int) -> _Work:
        """Return a work function."""
        return self._works[name]

    async def processes(self) -> Processes:
        """Return the supervisor of the processes, which starts with the first."""
        if self._processes is None:
            options = self.options
            processes = self._processes = Processes(
                _NO_LIMIT, options.memory_mb, options.timeout_s, preload=options.preload
            )
            await processes.open(_NO_LIMIT)
        return self._processes


class _Work:
    """A work function, read and entered once, by the first attempt that needs it."""

    def __init__(self, kind: Kind, frame: Frame, preload: Sequence[str]) -> None:
        self.kind = kind
        self._frame, self._preload = frame, preload
        self._entered: asyncio.Task[tuple[Any, str]] | None = None
        self._exits = contextlib.AsyncExitStack()

    async def get(self) -> Callable[..., Any]:
        """Return the function.

        Raises:
            Judged: It cannot be read or entered here: nothing of the session can run.
        """
        if self._entered is None:
            self._entered = asyncio.ensure_future(self._enter())
        work, refused = await asyncio.shield(self._entered)
        if refused:
            raise classify.Judged(refused, classify.Verdict(classify.Kind.SETUP, advice=_SETUP))
        return cast("Callable[..., Any]", work)

    async def _enter(self) -> tuple[Any, str]:
        """Return the function, and why it is of no use."""
        for name in self._preload:
            with contextlib.suppress(ImportError):  # work that needs it raises the error itself
                importlib.import_module(name)
        try:
            work = pickle.loads(self._frame)  # noqa: S301  # from the driver, as all that Dask runs
        except Exception as error:
            return None, f"the work cannot be read on a worker: {type(error).__name__}: {error}"
        self._frame = b""
        try:
            if hasattr(work, "__aenter__"):
                await self._exits.enter_async_context(work)
            elif hasattr(work, "__enter__") and hasattr(work, "__exit__"):
                self._exits.enter_context(work)
        except Exception as error:
            return None, f"the work could not be opened on a worker: {type(error).__name__}: {error}"
        return work, ""

    def forget(self) -> None:
        """Leave it, when nobody needs it any more."""
        self._leaving = asyncio.ensure_future(self.leave())

    async def leave(self) -> None:
        """Leave it, where it was entered."""
        if self._entered is not None:
            with contextlib.suppress(Exception):  # of the user's, and nobody is there to be told
                await asyncio.wait([self._entered])
                await self._exits.aclose()


class _Running:
    """An attempt that runs.

    Attributes:
        task: Done when it has ended.
        goes_on: Whether it was cancelled, and cannot be ended.
    """

    def __init__(self, line: Line, run: protocol.Run, frames: list[Frame]) -> None:
        self.number = run.number
        self.goes_on = False
        self._line = line
        self._handed: WorkerAttempt | None = None
        self._asks: dict[int, asyncio.Future[None]] = {}
        self._cancels = 0
        self._has_begun = self._is_unwanted = False
        line.running[self.number] = self
        self.task = asyncio.ensure_future(self._run(run, frames))

    async def _run(self, run: protocol.Run, frames: list[Frame]) -> None:
        end: ProcessEnd | None = None
        answer: Frames = ()
        self._has_begun = True
        try:
            if self._is_unwanted:
                pass
            elif run.work:
                answer = await self._call(self._line.work(run.work), run.handed, frames)
            else:
                answer, end = await self._call_in_process(frames)
        except asyncio.CancelledError as error:
            if isinstance(error, StillRunning):
                self._go_on()
                while not error.ended.done():
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.wait([error.ended])
        except BaseException as error:  # the answer, whatever it is
            answer = [bytes(part) for part in encode_error(error)[1:]]
        del self._line.running[self.number]
        handed = self._handed
        actual: Mapping[str, float] = {}
        if handed is not None:
            actual = handed._actual
            handed._close()
        self._line.say(protocol.Ended(self.number, len(answer), end, dict(actual)), answer)

    async def _call(self, defined: _Work, handed: Handed | None, frames: list[Frame]) -> Frames:
        work = await defined.get()
        arguments = _read_arguments(frames)
        if handed is not None:
            self._handed = WorkerAttempt(handed.key, handed.number, _EngineThere(self._line, self, self._asks))
            arguments[handed.place] = self._handed
        result = await self._within_time(
            self._line.threads.run(work, tuple(arguments)) if defined.kind == "thread" else work(*arguments)
        )
        try:
            return protocol.pack((result, None))
        except Exception as error:
            msg = f"the result cannot be sent back: {type(error).__name__}: {error}"
            raise Permanent(msg) from error

    async def _within_time(self, work: Coroutine[Any, Any, Any]) -> Any:
        timeout_s = self._line.options.timeout_s
        if timeout_s is None:
            return await work
        bound = asyncio.timeout(timeout_s)
        try:
            async with bound:
                return await work
        except TimeoutError:
            if not bound.expired():
                raise  # its own
            msg = f"Exceeded {timeout_s:g}s"
            raise Overrun(msg) from None

    async def _call_in_process(self, frames: list[Frame]) -> tuple[Frames, ProcessEnd]:
        async with self._line.free:
            processes = await self._line.processes()
            answer, end = await processes.exchange([_plain(frame) for frame in frames])
        return answer or (), end

    def cancel(self) -> None:
        """End it; one that ignores that is cancelled again and again, and in the end left to itself."""
        if self.task.done() or self.goes_on:
            return
        if not self._has_begun:  # a task that is cancelled before its first step never has one
            self._is_unwanted = True
            return
        if self._cancels == CANCELS:
            self._go_on()
            return
        self._cancels += 1
        self.task.cancel()
        asyncio.get_running_loop().call_later(AGAIN_S, self._cancel_again)

    def _cancel_again(self) -> None:
        if self._line.running.get(self.number) is self:
            self.cancel()

    def _go_on(self) -> None:
        self.goes_on = True
        self._line.say(protocol.GoesOn(self.number))

    def hear(self, message: protocol.Denied | protocol.Granted | protocol.Cancel, error: list[Frame]) -> None:
        """Hear what the driver says of it. A permit that nobody waits for any more was given back by then."""
        if isinstance(message, protocol.Cancel):
            self.cancel()
            return
        asked = self._asks.pop(message.ask, None)
        if asked is None or asked.done():
            return
        if error:
            asked.set_exception(pickle.loads(error[0], buffers=error[1:])[1])  # noqa: S301  # from the driver
        else:
            asked.set_result(None)


def _read_arguments(frames: list[Frame]) -> list[Any]:
    try:
        return list(pickle.loads(frames[0], buffers=frames[1:]))  # noqa: S301  # from the driver, as all that Dask runs
    except Exception as error:
        msg = f"the item cannot be read on a worker: {type(error).__name__}: {error}"
        raise Permanent(msg) from error


def _plain(frame: Frame) -> bytes | memoryview:
    return frame if isinstance(frame, bytes) else memoryview(frame)


class WorkerAttempt(Attempt):
    """An attempt, where it runs: what the work asks of it is asked of the engine through the driver."""

    def __init__(self, key: str, number: int, engine: _EngineThere) -> None:
        self._there = engine
        self._is_paid = False
        super().__init__(key, number, cast("Any", engine))

    @property
    def is_billed(self) -> bool:
        """Whether what runs now is paid for, whatever becomes of us: a cancel lets it finish. The work says so."""
        return self._is_paid

    @is_billed.setter
    def is_billed(self, is_billed: bool) -> None:
        if is_billed is not self._is_paid:
            self._is_paid = is_billed
            self._on_loop(self._there.bill, is_billed)

    def add(self, items: Any) -> int:
        """Refuse: the plan is the driver's, and this would wait for it in the worker's loop.

        Raises:
            InputError: Always.
        """
        msg = "attempt.add() cannot be asked from a Dask worker: return what is to be added, and add it to a session"
        raise InputError(msg)


class _EngineThere(msgspec.Struct):
    """The engine, as an attempt on a worker reaches it: an `AttemptEngine`."""

    line: Line
    running: _Running
    asks: dict[int, asyncio.Future[None]]
    granted: list[tuple[Permit, int]] = []
    asked: int = 0
    loop: asyncio.AbstractEventLoop = msgspec.field(default_factory=asyncio.get_running_loop)

    async def acquire(self, cost: Cost) -> Permit:
        self.asked += 1
        ask, waits = self.asked, self.loop.create_future()
        self.asks[ask] = waits
        self.line.say(protocol.Ask(self.running.number, ask, dict(cost)))
        try:
            await waits
        except asyncio.CancelledError:
            self.asks.pop(ask, None)
            self.line.say(protocol.GiveUp(self.running.number))
            self.line.say(protocol.Release(self.running.number, ask))
            raise
        permit = Permit(0.0, cost)
        self.granted.append((permit, ask))
        return permit

    def release(self, permit: Permit) -> None:
        for one in self.granted:
            if one[0] is permit:
                self.granted.remove(one)
                self.line.say(protocol.Release(self.running.number, one[1]))
                return

    def join(self, group: int) -> None:
        self.line.say(protocol.Join(self.running.number, group))

    def add(self, given: ItemList) -> int:
        raise NotImplementedError

    def heed(self, headers: Any) -> None:
        self.line.say(protocol.Heed(self.running.number, protocol.headers_of(headers)))

    def stand(self, change: int) -> None:
        self.line.say(protocol.Stand(self.running.number, change))

    def withdraw(self) -> None:
        for ask, waits in self.asks.items():
            if not waits.done():
                waits.cancel()
                self.line.say(protocol.Release(self.running.number, ask))
        self.asks.clear()

    def give_up(self) -> None:
        self.loop.call_soon_threadsafe(self.line.say, protocol.GiveUp(self.running.number))

    def bill(self, is_billed: bool) -> None:
        self.line.say(protocol.Billed(self.running.number, is_billed))


# Called from the client, by name


async def open_line(name: str, version: str, options: WorkerOptions, dask_worker: Worker) -> None:
    """Open a line on this worker.

    Raises:
        ImportError: It has another version of this package.
    """
    if version != protocol.VERSION:
        msg = f"a version of ipybatch with other messages on {dask_worker.address}"
        raise ImportError(msg)
    Lines.of(dask_worker).open(name, options)


def do_nothing() -> None:
    """Do nothing, as a task: it has ended once there is a worker."""
