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
_SET_DEATH_SIGNAL, _SET_SUBREAPER = 1, 36


def is_here() -> bool:
    """Return whether /proc lists the children of a process: Linux, with CONFIG_PROC_CHILDREN."""
    return (_PROC / f"self/task/{os.getpid()}/children").exists()


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parents have ended."""
    _prctl(_SET_SUBREAPER, 1)


def end_with_parent(parent: int) -> None:
    """Have this process killed when the thread of ``parent`` that forked it ends; now, if it has ended already."""
    _prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def children(pid: int) -> list[int]:
    """Return the pids of a process's children; none once it has ended."""
    found: list[int] = []
    # A process may end at any point here, and each thread has children of its own.
    with contextlib.suppress(OSError):
        for thread in os.scandir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += map(int, Path(thread.path, "children").read_bytes().split())
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


def kill_marked(mark: str) -> None:
    """SIGKILL the processes that were started with a mark in their environment, wherever they are."""
    for _ in range(3):  # for what they start meanwhile
        for folder in _PROC.glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                if mark.encode() in (folder / "environ").read_bytes():
                    os.kill(int(folder.name), signal.SIGKILL)


def state(pid: int) -> str:
    """Return the state of a process as proc(5) names it: "R", "S", "D", "T" (stopped), "Z"; "" once it is gone."""
    try:
        return (_PROC / f"{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def _prctl(option: int, value: int) -> None:
    import ctypes  # the process of the session never needs it

    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")
