"""Cluster: which attempt runs on which worker, and what becomes of those whose worker is lost.

Rule: everything here but what the engine posts is called in the client's event loop.

    posted by the engine --> waiting --> the link that runs the fewest --> told to the engine, with one call for many
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import deque
from collections.abc import Callable
from typing import Any

from ipybatch.backends.dask import protocol
from ipybatch.backends.dask.call import Call, Told, hear
from ipybatch.backends.dask.link import Link
from ipybatch.backends.dask.protocol import ClientClosed, Frames, WorkerLost
from ipybatch.backends.dask.worker import WorkerOptions, do_nothing
from ipybatch.backends.process.protocol import Killed
from ipybatch.errors import InputError

_LOOK_S = 1.0  # from one look for new workers to the next
_OPEN_S = 15.0  # for a worker to open a line
_NONE_S = 60.0  # without any worker


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
        self._opening: set[str] = set()
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._refused: dict[str, str] = {}  # workers that cannot be used, and why
        self._waiting: dict[bool, deque[Call]] = {True: deque(), False: deque()}  # in a process or not
        self._losses: dict[bytes, int] = {}  # of items that have not succeeded since
        self._watching: asyncio.Task[None] | None = None
        self._wanted: Any = None  # the task that has ended once there is a worker
        self._none_timer: asyncio.TimerHandle | None = None

    # From any thread

    def run(self, call: Call) -> None:
        """Run an attempt on the worker that runs the fewest."""
        self._post(lambda: self._waiting[call.is_isolated].append(call))

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
        """Open lines to all workers.

        Raises:
            InputError: A worker lacks this package.
        """
        self._refused.clear()
        await self._look()
        if self._refused:
            await self.stop()
            why = next(iter(self._refused.values()))
            msg = f"client must connect to workers with this version of ipybatch, got {why}: install it there"
            raise InputError(msg)
        self._watching = asyncio.ensure_future(self._watch())

    async def stop(self) -> None:
        """End what runs on the workers."""
        if self._watching is not None:
            self._watching.cancel()
        self._want_worker(False)
        links, self._links = [*self._links.values()], {}
        await asyncio.gather(*[link.close() for link in links])

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
        there = {**listed, **(await self._client.scheduler.ncores() if self._links.keys() - listed.keys() else {})}
        for address in self._links.keys() - there.keys() - self._leaving.keys():
            self._leaving[address] = asyncio.ensure_future(self._leave(self._links[address]))
        for address, link in self._links.items():
            link.takes = address in listed  # not one that is being closed, or that has paused
        new = listed.keys() - self._links.keys() - self._opening - self._refused.keys()
        await asyncio.gather(*[self._open(address, listed[address]) for address in new])
        self._place()

    async def _leave(self, link: Link) -> None:
        try:
            await link.leave()
        finally:
            del self._leaving[link.address]

    async def _open(self, address: str, threads: int) -> None:
        link = Link(self._client, address, threads, self._options, on_told=self._tell, on_lost=self._lose)
        self._opening.add(address)
        try:
            await asyncio.wait_for(link.open(), _OPEN_S)
        except (ImportError, AttributeError) as error:  # the package, or this function, is not there
            self._refused[address] = str(error)
        except OSError:  # it has gone again, or the next look finds it
            pass
        else:
            self._links[address] = link
        finally:
            self._opening.discard(address)

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
            self._wanted = self._client.submit(do_nothing, pure=False)  # adaptive clusters start a worker for it
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
        self._end_waiting(ClientClosed)
        for link in [*self._links.values()]:
            link.lose()

    def _lose(self, link: Link) -> None:
        self._links.pop(link.address, None)
        is_closed = self._client.status not in ("running", "connecting")
        for call in link.running.values():
            self._end_there(call, ClientClosed() if is_closed else self._lost_error(call, link))
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
            error: Killed = WorkerLost(f"The worker {link.address} was lost")
        else:
            error = Killed(f"The worker was lost {'twice' if losses == 2 else f'{losses} times'}")
            error.kind = WorkerLost.kind
        error.__cause__ = link.cause
        return error

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


def _freest(links: list[Link], is_isolated: bool) -> Link | None:
    free = [link for link in links if link.isolated < link.threads] if is_isolated else links
    return min(free, key=lambda link: len(link.running), default=None)


def _name_of(call: Call) -> bytes:
    digest = hashlib.blake2b(b"%d" % call.defined.number, digest_size=16)
    for frame in call.frames:
        digest.update(frame)
    return digest.digest()
