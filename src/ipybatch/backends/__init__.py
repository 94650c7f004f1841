"""Backends: where attempts run."""

from ipybatch.backends.dask import Dask
from ipybatch.backends.endings import Killed, OutOfMemory, Overrun
from ipybatch.backends.loop import Loop
from ipybatch.backends.processes import Processes
from ipybatch.backends.threads import Threads
from ipybatch.engine.data.backend import Backend, StillRunning
from ipybatch.errors import InputError

__all__ = [
    "Backend",
    "Dask",
    "Killed",
    "Loop",
    "OutOfMemory",
    "Overrun",
    "Processes",
    "StillRunning",
    "Threads",
    "choose",
]


def choose(backend: str | Backend | None, *, is_coroutine: bool) -> Backend:
    """Return the backend that was named, or the one that the work needs.

    Raises:
        InputError: There is none of that name, or the work cannot run there.
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
