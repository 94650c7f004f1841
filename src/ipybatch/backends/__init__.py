"""Backends: where attempts run.

Read in this order:

threads  `Loop` and `Threads`: in this process
process  `Processes`: each attempt in a process of its own
dask     `Dask`: coroutines, threads and such processes on the workers of a cluster

Those three and any object with ``open``, ``run`` and ``close`` can be given as
``backend=``; `choose` returns the one for a name or a function.
"""

from __future__ import annotations

from ipybatch.backends.dask import Dask
from ipybatch.backends.dask.protocol import ClientClosed, NoWorker, WorkerLost
from ipybatch.backends.process.backend import Processes
from ipybatch.backends.process.protocol import Killed, OutOfMemory, Overrun
from ipybatch.backends.threads import Loop, Threads
from ipybatch.engine.data.spec import Backend, StillRunning
from ipybatch.errors import InputError

__all__ = [
    "Backend",
    "ClientClosed",
    "Dask",
    "Killed",
    "Loop",
    "NoWorker",
    "OutOfMemory",
    "Overrun",
    "Processes",
    "StillRunning",
    "Threads",
    "WorkerLost",
    "choose",
]


def choose(backend: str | Backend | None, *, is_coroutine: bool) -> Backend:
    """Return the backend that was named, or the one that fits the work function.

    Raises:
        InputError: No backend has this name, or the work function cannot run on it.
    """
    if backend is None:
        return Loop() if is_coroutine else Threads()
    if not isinstance(backend, str):
        return backend
    if backend == "threads" and not is_coroutine:
        return Threads()
    if backend == "loop" and is_coroutine:
        return Loop()
    if backend in ("loop", "threads"):
        kind, other = ("an async", "loop") if is_coroutine else ("a plain", "threads")
        msg = f'backend must be "{other}" for {kind} function, got {backend!r}'
        raise InputError(msg)
    msg = f'backend must be "loop", "threads" or a backend object, got {backend!r}'
    raise InputError(msg)
