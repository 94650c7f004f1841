"""Cluster: which attempt runs on which worker, and what becomes of those whose worker is lost.

Rule: everything here but what the engine posts is called in the client's event loop.

    posted by the engine --> waiting --> the link that runs the fewest --> told to the engine, with one call for many

Work that kills its worker takes what runs beside it along.  So an item that ran on two lost workers runs alone on a
worker from then on: a loss counts against nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
from collections import deque
from collections.abc import Callable
from typing import Any

from ipybatch.backends.dask import protocol
from ipybatch.backends.dask.call import Call, Told, hear
from ipybatch.backends.dask.link import LineLostError, Link
from ipybatch.backends.dask.protocol import ClientClosed, Frames, NoWorker, WorkerLost
from ipybatch.backends.dask.worker import WorkerOptions, do_nothing
from ipybatch.backends.process.protocol import Killed
from ipybatch.errors import InputError

_LOOK_S = 1.0  # from one look for new workers to the next
_START_S = 5.0  # for the lines to the workers that are there at the start; one that is slow is used once it is open
_OPEN_S = 15.0  # for a worker to open a line
_NONE_S = 60.0  # without any worker
_SUSPECT = 2  # lost workers that an item ran on; then it runs alone


class Cluster:
    """The workers of a cluster, as one backend uses them.

    Args:
        client: The client of Dask.
    """

    def __init__(self, client: Any, options: WorkerOptions) -> None:
        self._client, self._options = client, options
        self._posted: deque[Callable[[], object]] = deque()
        self._is_woken = False
        self._links: dict[str, Link] = {}
        self._opening: dict[str, asyncio.Task[None]] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._refused: dict[str, str] = {}  # workers that cannot be used, and why
        self._waiting: dict[bool, deque[Call]] = {True: deque(), False: deque()}  # in a process or not
        self._suspects: deque[Call] = deque()  # they wait for a worker to themselves
        self._losses: dict[bytes, int] = {}  # workers that were lost with it, by item that has not ended since
        self._turn = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None
        self._wanted: Any = None  # the task that has ended once there is a worker
        self._none_timer: asyncio.TimerHandle | None = None

    # From any thread

    def run(self, call: Call) -> None:
        """Run an attempt on the worker that runs the fewest."""
        self._post(lambda: self._enqueue(call))

    def cancel(self, call: Call) -> None:
        """End an attempt."""
        self._post(lambda: self._cancel(call))

    def send(self, call: Call, message: protocol.FromDriver, frames: Frames) -> None:
        """Tell the worker of an attempt something."""
        self._post(lambda: call.send(message, frames) if call.send is not None else None)

    def forget(self, work: int) -> None:
        """Let the workers forget a work function."""
        self._post(lambda: self._forget(work))

    def _post(self, act: Callable[[], object]) -> None:
        """Do something in the client's loop, with one call for all that is there by then."""
        self._posted.append(act)
        if not self._is_woken:
            self._is_woken = True
            with contextlib.suppress(RuntimeError):  # the loop is closed, and everything has been told so
                self._client.loop.asyncio_loop.call_soon_threadsafe(self._take)

    # In the client's loop

    async def start(self) -> None:
        """Open lines to all workers, unless that is done; those that take long are used once they are open.

        Raises:
            InputError: A worker lacks this package.
        """
        async with self._turn:
            if self._watching is not None:
                return
            self._refused.clear()
            try:
                await self._look()
                if self._opening:
                    await asyncio.wait(self._opening.values(), timeout=_START_S)
                if self._refused:
                    why = next(iter(self._refused.values()))
                    msg = f"client must connect to workers with this version of ipybatch, got {why}: install it there"
                    raise InputError(msg)
            except BaseException:
                await self._end()
                raise
            self._watching = asyncio.ensure_future(self._watch())

    async def stop(self) -> None:
        """End what runs on the workers."""
        async with self._turn:
            if self._watching is not None:
                self._watching.cancel()
                self._watching = None
            self._want_worker(False)
            await self._end()

    async def _end(self) -> None:
        opening = [*self._opening.values()]
        for one in opening:
            one.cancel()
        links, self._links = [*self._links.values()], {}
        await asyncio.gather(*opening, *[link.close() for link in links], return_exceptions=True)
        self._losses.clear()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            if self._client.status == "running":
                with contextlib.suppress(Exception):  # the scheduler is away: the next look tells
                    await self._look()
            elif self._client.status != "connecting":
                self._fail_all()
                return

    async def _look(self) -> None:
        """Open lines to new workers, and leave those that are gone."""
        listed: dict[str, int] = await self._client.scheduler.ncores_running()
        missing = (self._links.keys() | self._opening.keys()) - listed.keys()
        there = {**listed, **(await self._client.scheduler.ncores() if missing else {})}
        for address in self._links.keys() - there.keys() - self._leaving.keys():
            leaving = self._leaving[address] = asyncio.ensure_future(self._links[address].leave())
            leaving.add_done_callback(functools.partial(self._leaving.pop, address))
        for address in self._opening.keys() - there.keys():
            self._opening[address].cancel()
        for address, link in self._links.items():
            link.takes = address in listed  # not one that is being closed, or that has paused
        for address in listed.keys() - self._links.keys() - self._opening.keys() - self._refused.keys():
            opening = self._opening[address] = asyncio.ensure_future(self._open(address, listed[address]))
            opening.add_done_callback(functools.partial(self._opening.pop, address))
        self._place()

    async def _open(self, address: str, threads: int) -> None:
        """Open a line; by itself, because a worker that does not answer holds nothing else up."""
        link = Link(self._client, address, threads, self._options, on_told=self._tell, on_lost=self._lose)
        try:
            await asyncio.wait_for(link.open(), _OPEN_S)
        except OSError:  # it has gone again, or a later look finds it
            return
        except Exception as error:  # the package, or what is called of it, is not there
            self._refused[address] = str(error) or type(error).__name__
            return
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # too late to hear of it while it opened
            await link.close()
            return
        self._links[address] = link
        self._place()

    def _take(self) -> None:
        """Do what was posted."""
        self._is_woken = False
        while self._posted:
            self._posted.popleft()()
        self._place()

    def _forget(self, work: int) -> None:
        for link in self._links.values():
            link.forget(work)

    def _cancel(self, call: Call) -> None:
        if call.send is not None:
            call.send(protocol.Cancel(call.number), ())
            return
        with contextlib.suppress(ValueError):
            (self._suspects if call.is_suspect else self._waiting[call.is_isolated]).remove(call)
            self._tell([(call, protocol.Ended(call.number, 0, None, {}), [])])

    def _enqueue(self, call: Call) -> None:
        call.is_suspect = bool(self._losses) and self._losses.get(_name_of(call), 0) >= _SUSPECT
        (self._suspects if call.is_suspect else self._waiting[call.is_isolated]).append(call)

    def _place(self) -> None:
        """Send what waits to the workers that run the fewest."""
        taking = [link for link in self._links.values() if link.is_open and link.takes]
        free = [link for link in taking if not link.runs_suspect]
        self._place_suspects(free)
        for is_isolated, waiting in self._waiting.items():
            while waiting and (link := _freest(free, is_isolated)) is not None:
                link.run(waiting.popleft())
        self._want_worker(not taking and bool(self._suspects or any(self._waiting.values())))

    def _place_suspects(self, free: list[Link]) -> None:
        """Send each to a worker to itself; one that is to become free for the next is sent nothing else."""
        while self._suspects and free:
            link = min(free, key=lambda link: len(link.running))
            free.remove(link)
            if link.running:
                return
            link.run(self._suspects.popleft())

    def _want_worker(self, is_wanted: bool) -> None:
        """Ask the cluster for a worker, where there is none; tell what waits when none has come for long."""
        if is_wanted and self._wanted is None:
            self._wanted = self._client.submit(do_nothing, pure=False)  # adaptive clusters start a worker for it
            self._none_timer = asyncio.get_running_loop().call_later(_NONE_S, self._tell_none)
        elif not is_wanted and self._none_timer is not None:
            self._wanted = None
            self._none_timer.cancel()
            self._none_timer = None

    def _tell_none(self) -> None:
        why = f", but {len(self._links)} that are paused or being closed" if self._links else ""
        if self._refused:
            why += f", and {len(self._refused)} cannot be used: {next(iter(self._refused.values()))}"
        self._end_waiting(lambda: NoWorker(f"The cluster has had no worker for {_NONE_S:g} s{why}"))
        self._want_worker(False)

    def _end_waiting(self, error: Callable[[], Exception]) -> None:
        for waiting in (self._suspects, *self._waiting.values()):
            while waiting:
                self._end_there(waiting.popleft(), error())

    def _fail_all(self) -> None:
        """End everything: the client was closed."""
        self._end_waiting(ClientClosed)
        links, self._links = [*self._links.values()], {}
        for link in links:
            link.lose()

    def _lose(self, link: Link) -> None:
        if self._links.get(link.address) is link:
            del self._links[link.address]
        if self._client.status in ("running", "connecting"):
            errors = self._losses_of(link)
        else:
            errors = [(call, ClientClosed()) for call in link.running.values()]
            self._fail_all()
        for call, error in errors:
            self._end_there(call, error)
        link.running.clear()
        self._place()

    def _losses_of(self, link: Link) -> list[tuple[Call, Killed]]:
        """Return the errors of what a lost worker ran: it may have been what ran beside it, unless it ran alone."""
        calls = [(call, _name_of(call)) for call in link.running.values()]
        for name in {name for _, name in calls}:
            self._losses[name] = self._losses.get(name, 0) + 1
        errors: list[tuple[Call, Killed]] = []
        for call, name in calls:
            losses = self._losses[name]
            error: Killed = WorkerLost(f"The worker {link.address} was lost{_why(link.cause)}")
            if losses > 1 and len(calls) == 1:
                error = Killed(f"The worker was lost {'twice' if losses == 2 else f'{losses} times'}")
                error.kind = WorkerLost.kind
            error.__cause__ = link.cause
            errors.append((call, error))
        return errors

    def _end_there(self, call: Call, error: Exception) -> None:
        with contextlib.suppress(RuntimeError):  # its loop is closed
            call.loop.call_soon_threadsafe(call.end, error)

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
                loop.call_soon_threadsafe(hear, ones)
        self._place()


def _why(cause: Exception | None) -> str:
    """Return why a line was lost as the end of a sentence; "" where its worker is gone."""
    told = str(cause or "")
    if cause is not None and not isinstance(cause, LineLostError):
        told = f"{type(cause).__name__}: {told}"
    return f": {told}" if told else ""


def _freest(links: list[Link], is_isolated: bool) -> Link | None:
    free = [link for link in links if link.isolated < link.threads] if is_isolated else links
    return min(free, key=lambda link: len(link.running), default=None)


def _name_of(call: Call) -> bytes:
    digest = hashlib.blake2b(b"%d" % call.defined.number, digest_size=16)
    for frame in call.frames:
        digest.update(frame)
    return digest.digest()
