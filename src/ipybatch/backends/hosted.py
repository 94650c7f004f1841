"""Hosted: what a worker of a Dask cluster does for a kernel elsewhere.

    kernel -- client == scheduler == worker -- supervisor -- one process an attempt

An attempt is a coroutine in the worker's event loop, beside the worker's own
business; what is heavy runs in a process below the worker, as on one machine.
The supervisor comes with the first attempt and goes when the kernel says so, or
when no attempt has come for a while: a kernel that was killed says nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import msgspec

from ipybatch.backends import wire
from ipybatch.backends.processes import Processes

if TYPE_CHECKING:
    from distributed import Worker

_TICK_S = 0.1
_LINGER_S = 30.0
_NO_LIMIT = 1_000_000  # the worker's threads are the limit, and Dask keeps it

Answered = tuple[list[bytearray] | None, wire.Ended]


class Order(msgspec.Struct, frozen=True):
    """What a kernel wants of every worker.

    Attributes:
        kernel: The name by which workers tell kernels apart, and under which starts are told.
    """

    kernel: str
    memory_mb: float | None
    timeout_s: float | None
    preload: tuple[str, ...]


class Host:
    """The attempts of one kernel on one worker."""

    def __init__(self, order: Order) -> None:
        self._processes = Processes(_NO_LIMIT, order.memory_mb, order.timeout_s, preload=order.preload)
        self._attempts: dict[str, asyncio.Task[Answered]] = {}
        self._is_open = False
        self._farewell: asyncio.TimerHandle | None = None

    async def run(self, worker: Worker, key: str, parts: wire.Parts) -> Answered:
        """Run one attempt; end it when nobody waits for it any more."""
        await self._open()
        attempt = self._attempts[key] = asyncio.ensure_future(self._processes.exchange(parts))
        try:
            while not attempt.done():
                await asyncio.wait({attempt}, timeout=_TICK_S)
                if not _is_wanted(worker, key):
                    attempt.cancel()
        finally:  # also when the worker is closed: then it is lost, and Dask runs the attempt elsewhere
            await self.end(key)
            del self._attempts[key]
            self._linger()
        return (None, wire.Ended(0, 0, "cancel")) if attempt.cancelled() else attempt.result()

    async def end(self, key: str) -> None:
        """End an attempt, if it is here; return when nothing of it is left."""
        attempt = self._attempts.get(key)
        if attempt is not None:
            attempt.cancel()
            await asyncio.wait({attempt})

    async def close(self) -> None:
        """End everything."""
        if self._farewell is not None:
            self._farewell.cancel()
        for key in list(self._attempts):
            await self.end(key)
        if self._is_open:
            self._is_open = False
            await self._processes.close()

    async def _open(self) -> None:
        if self._farewell is not None:
            self._farewell.cancel()
        if not self._is_open:
            self._is_open = True
            await self._processes.open(_NO_LIMIT)

    def _linger(self) -> None:
        if not self._attempts:
            loop = asyncio.get_running_loop()
            self._farewell = loop.call_later(_LINGER_S, lambda: _leaving.add(loop.create_task(self.close())))


_hosts: dict[str, Host] = {}
_leaving: set[asyncio.Task[None]] = set()  # a loop keeps weak references only


def _is_wanted(worker: Worker, key: str) -> bool:
    """Say whether the cluster still waits: not after a cancel, nor when the kernel is gone."""
    task = worker.state.tasks.get(key)
    return task is not None and task.state == "executing"


# What the kernel calls, by name: the first as a task, the others on every worker at once


async def attempt(order: Order, key: str, parts: wire.Parts) -> Answered:
    """Run one attempt in a process of its own, and return how it ended as data."""
    from distributed import get_worker

    worker = get_worker()
    worker.log_event(order.kernel, key)
    host = _hosts.setdefault(order.kernel, Host(order))
    return await host.run(worker, key, parts)


async def end(kernel: str, key: str) -> None:
    """End an attempt if it is here; return when nothing of it is left."""
    if kernel in _hosts:
        await _hosts[kernel].end(key)


async def close(kernel: str) -> None:
    """End all that belongs to a kernel."""
    with contextlib.suppress(KeyError):
        await _hosts.pop(kernel).close()


def greet() -> None:
    """Do nothing: a worker that can say so can do the rest."""
