"""Processes: each attempt in a process of its own, which can be ended at any time.

On Linux a supervisor process forks one process an attempt (about 20 ms with
pandas and scikit-learn loaded), and whatever an attempt started is gone with it,
with the session, and with the kernel, however that ends.

On macOS and Windows, where this is untested, each attempt is a new interpreter
(a second or so to load what it imports), its memory is watched but not limited,
and processes that detach themselves may outlive a kernel that is killed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from ipybatch.backends import tree, wire
from ipybatch.backends.endings import error_of
from ipybatch.backends.threads import Threads
from ipybatch.engine.data.policy import check, check_count
from ipybatch.engine.run.permits import Attempt
from ipybatch.errors import InputError, MissingExtra, Permanent

if TYPE_CHECKING:
    from ipybatch.backends.spawned import Spawned
    from ipybatch.backends.supervised import Supervised


class Processes:
    """Run each attempt in a process of its own, with a limit on its time and memory.

    The work and its item go there by value, so that functions of a notebook's cells work; a result comes back the same
    way, and an error with its traceback as a note.  What the work prints is dropped.

    Args:
        workers: Attempts at a time, beside the session's own limit; default: as many as there are processors.
        memory_mb: For one attempt and all that it starts, beyond what is preloaded; None for no limit.
        timeout_s: For one attempt, from when it has read its item; None for no limit. The session's own ``timeout_s``
            counts from when the attempt was handed over, the wait for a worker included.
        preload: Modules that are imported once, and shared by all attempts.
        method: "fork" (Linux) or "spawn"; default: what the system can do.

    Raises:
        InputError: A number is out of its range, or the system cannot do what ``method`` says.
    """

    def __init__(
        self,
        workers: int | None = None,
        memory_mb: float | None = None,
        timeout_s: float | None = None,
        *,
        preload: Sequence[str] = (),
        method: Literal["fork", "spawn"] | None = None,
    ) -> None:
        self.workers = processors() if workers is None else workers
        check_count("workers", self.workers, low=1)
        for field, value in (("memory_mb", memory_mb), ("timeout_s", timeout_s)):
            if value is not None:
                check(field, value, low=0, above=True)
        self.memory_mb, self.timeout_s, self.preload = memory_mb, timeout_s, tuple(preload)
        self.method = method or ("fork" if tree.is_here() else "spawn")
        if self.method not in ("fork", "spawn") or (self.method == "fork" and not tree.is_here()):
            msg = f'method must be "spawn", or "fork" on Linux, got {method!r}'
            raise InputError(msg)
        self._users = 0
        self._place: Supervised | Spawned | None = None
        self._threads = Threads()

    def within(self, *, memory_mb: float | None, timeout_s: float | None, preload: Sequence[str]) -> Processes:
        """Return a backend with these limits and modules, where this one has none of its own."""
        return Processes(
            self.workers,
            memory_mb if self.memory_mb is None else self.memory_mb,
            timeout_s if self.timeout_s is None else self.timeout_s,
            preload=self.preload or preload,
            method=self.method,
        )

    async def open(self, slots: int) -> None:
        """Start the supervisor; its packages load while the first attempts are sent."""
        if self._place is None:
            self._free = asyncio.Semaphore(self.workers)
            self._place = self._start()
        self._users += 1

    async def run(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Call ``work`` in a process of its own; what it returns is awaited there when it is awaitable.

        When it is cancelled, the process and all that it started are gone before this returns.

        Raises:
            Overrun: It took longer than ``timeout_s``.
            OutOfMemory: It needed more than ``memory_mb``, or than there is.
            Killed: Its process ended without an answer.
            Permanent: The work, or its result, cannot be sent from one process to another.
        """
        parts = await self._threads.run(encode, (work, arguments))
        answer, ended = await self.exchange(parts)
        return await result_of(answer, ended, self.timeout_s, self._threads)

    async def exchange(self, parts: wire.Parts) -> tuple[list[bytearray] | None, wire.Ended]:
        """Hand one attempt what `encode` made; return its answer as it came, None without one, and how it ended."""
        async with self._free:
            place = await self._present()
            return await place.run(parts, timeout_s=self.timeout_s, memory_mb=self.memory_mb)

    async def close(self) -> None:
        """End the supervisor, and whatever it still runs."""
        self._users -= 1
        if self._users <= 0 and self._place is not None:
            place, self._place, self._users = self._place, None, 0
            await place.close()
            await self._threads.close()

    async def _present(self) -> Supervised | Spawned:
        assert self._place is not None, "open() comes first"
        lost = self._place
        if lost.is_lost:
            self._place = self._start()
            await lost.close()
        return self._place

    def _start(self) -> Supervised | Spawned:
        if self.method == "fork":
            from ipybatch.backends.supervised import Supervised

            return Supervised(self.preload)
        from ipybatch.backends.spawned import Spawned

        return Spawned(self.preload)


def processors() -> int:
    """Return how many processors this process may use."""
    count = getattr(os, "sched_getaffinity", None)
    return len(count(0)) if count is not None else os.cpu_count() or 1


def encode(work: Callable[..., Any], arguments: tuple[Any, ...]) -> wire.Parts:
    """Return a call as a process of its own reads it.

    Raises:
        Permanent: It cannot be sent from one process to another.
        MissingExtra: cloudpickle is not installed.
    """
    if any(isinstance(argument, Attempt) for argument in arguments):
        msg = "work in a process of its own must take the item alone: attempt, with its permits, stays in the kernel"
        raise Permanent(msg)
    try:
        return wire.encode((work, arguments))
    except MissingExtra:
        raise
    except Exception as error:
        msg = f"the work cannot be sent to a process of its own: {type(error).__name__}: {error}"
        raise Permanent(msg) from error


async def result_of(
    answer: list[bytearray] | None, ended: wire.Ended, timeout_s: float | None, threads: Threads
) -> Any:
    """Return the result in an answer, read in a thread; raise the error in it, or why there is none."""
    if answer is None:
        raise error_of(ended, timeout_s)
    result, error = await threads.run(decode, (answer,))
    if error is not None:
        raise error
    return result


def decode(answer: list[bytearray]) -> tuple[Any, Exception | None]:
    """Return the result, or the error, that such a process has answered.

    Raises:
        Permanent: It cannot be read here.
    """
    try:
        result, error = wire.decode(answer)
    except Exception as raised:
        msg = f"its result cannot be read here: {type(raised).__name__}: {raised}"
        raise Permanent(msg) from raised
    return result, error
