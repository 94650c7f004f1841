"""Endings: how an attempt in a process of its own may end, other than by an answer.

Overrun         it took longer than it may (also a TimeoutError)
OutOfMemory     it needs more memory than there is, or than it may have
Killed          its process is gone: a signal, or an exit without an answer
"""

from __future__ import annotations

import re
import signal

from ipybatch.backends.wire import OUT_OF_MEMORY_CODE, Ended
from ipybatch.errors import ItemError, Permanent, Transient

# What C++, OpenBLAS, Cython and the loader print before they give up.
_SHORT_OF_MEMORY = re.compile(r"bad_alloc|MemoryError|[Mm]emory allocation|[Cc]annot allocate memory|out of memory")


class Overrun(ItemError, TimeoutError):
    """It took longer than ``timeout_s``: give it more time, or less to do."""


class OutOfMemory(Permanent):
    """It needs more than ``memory_mb``, or than the machine has: give it more, or make it smaller."""

    def __init__(self, message: str = "Out of memory") -> None:
        super().__init__(message)


class Killed(Transient):
    """Its process ended without an answer; this proves nothing about others."""

    def __init__(self, message: str) -> None:
        super().__init__(message, counts=False)


def error_of(ended: Ended, timeout_s: float | None) -> Exception:
    """Return why an attempt that gave no answer has ended."""
    if ended.why == "timeout":
        return Overrun(f"Exceeded {timeout_s:g}s")
    error: Exception
    if ended.why == "lost":
        return Killed(f"The supervisor of the processes has ended: {ended.said}")
    if ended.why == "memory" or ended.code == OUT_OF_MEMORY_CODE or _SHORT_OF_MEMORY.search(ended.said):
        error = OutOfMemory()
    elif ended.code < 0:
        error = Killed(f"Killed by {_name(-ended.code)}")
    else:
        error = Killed(f"Ended without an answer, exit code {ended.code}")
    if ended.said:
        error.add_note(f"It printed at last:\n{ended.said}")
    return error


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
