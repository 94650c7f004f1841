"""The processes below a process, read from Linux's /proc.

A process that left its session is still found here: it keeps its parent, and
one whose parent has ended comes to the nearest ancestor that adopts (a child
subreaper, prctl(2)).
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

_PROC = Path("/proc")
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20 if hasattr(os, "sysconf") else 0.0
_SET_DEATH_SIGNAL, _SET_SUBREAPER = 1, 36


def is_here() -> bool:
    """Return whether /proc lists the children of a process: Linux, with CONFIG_PROC_CHILDREN."""
    return (_PROC / f"self/task/{os.getpid()}/children").exists()


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parents have ended."""
    _prctl(_SET_SUBREAPER, 1)


def end_with_parent() -> None:
    """Have this process killed when the thread that forked it ends."""
    _prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """Return the pids of a process's children; none once it has ended."""
    found: list[int] = []
    # A process may end at any point here, and each thread has children of its own.
    with contextlib.suppress(OSError):
        for thread in (_PROC / f"{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (thread / "children").read_text().split())
    return found


def descendants(pid: int) -> list[int]:
    """Return the pids below a process, parents first."""
    found = children(pid)
    for child in found:
        found += children(child)
    return found


def kill(pid: int) -> None:
    """SIGKILL a process and all below it.

    The process is killed first: otherwise it could go on with what a killed child had left undone.  Processes started
    meanwhile become orphans of the caller, see `adopt_orphans`.
    """
    for one in (pid, *descendants(pid)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(one, signal.SIGKILL)


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process, megabytes; 0 once it has ended."""
    try:
        return int((_PROC / f"{pid}/statm").read_text().split()[1]) * _PAGE_MB
    except (OSError, IndexError):
        return 0.0


def private_mb(pid: int) -> float:
    """Return the resident memory of a process that is no file's, megabytes; 0 once it has ended.

    A fork has its parent's at once, and pages of files only as it touches them: beside the parent's, this tells what
    the fork itself has taken.
    """
    try:
        fields = (_PROC / f"{pid}/statm").read_text().split()
        return (int(fields[1]) - int(fields[2])) * _PAGE_MB
    except (OSError, IndexError):
        return 0.0


def data_mb(pid: int) -> float:
    """Return the private memory that a process has allocated, megabytes, as RLIMIT_DATA counts it."""
    return int((_PROC / f"{pid}/statm").read_text().split()[5]) * _PAGE_MB


def system_kills() -> int:
    """Return how many processes the system has killed for lack of memory since it started."""
    with contextlib.suppress(OSError):
        for line in (_PROC / "vmstat").read_text().splitlines():
            name, _, number = line.partition(" ")
            if name == "oom_kill":
                return int(number)
    return 0


def _prctl(option: int, value: int) -> None:
    import ctypes  # the process of the session never needs it

    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")
