"""Other system: run a program here as if our code had none of what only POSIX, or only Linux, has.

    python -m tests.other_system windows "import ipybatch"
    python -m tests.other_system macos program.py

What is missing is missing for our modules alone: those of others go on as on this machine.  So it shows a module of
ours that cannot be imported there, and what is used though it is missing; not how the other system behaves.
"""

from __future__ import annotations

import builtins
import os
import pkgutil
import runpy
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

LINUX = {
    "os": "pidfd_open sched_getaffinity sched_setaffinity O_DIRECT P_PIDFD",
    "signal": "pidfd_send_signal SIGSTKFLT SIGPWR SIGPOLL SIGRTMIN SIGRTMAX",
    "socket": "AF_NETLINK AF_VSOCK SO_PEERCRED",
}
POSIX = {
    "os": (
        "fork forkpty register_at_fork geteuid getuid getegid getgid getgroups getpgid getpgrp killpg setsid setpgid"
        " wait3 wait4 waitid WNOHANG getloadavg fchmod fchown chown lchown pread pwrite posix_spawn statvfs mkfifo"
        " uname sysconf nice getpriority O_NOFOLLOW O_NONBLOCK O_CLOEXEC O_DIRECTORY O_SYNC"
    ),
    "signal": (
        "SIGALRM SIGBUS SIGCHLD SIGCLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGPROF SIGQUIT SIGSTOP SIGTSTP SIGTTIN SIGTTOU"
        " SIGUSR1 SIGUSR2 SIGWINCH setitimer alarm pthread_kill pthread_sigmask siginterrupt pause ITIMER_REAL"
    ),
    "socket": "AF_UNIX",
}
MODULES = frozenset({"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"})
SYSTEMS = {"windows": "win32", "macos": "darwin"}
READERS = ("psutil", "threadpoolctl")  # of /proc, which find other ways elsewhere


class Reduced(ModuleType):
    """A module as the other system has it."""

    def __init__(self, whole: ModuleType, lacking: frozenset[str], other: dict[str, Any]) -> None:
        super().__init__(whole.__name__)
        self.__dict__.update(_whole=whole, _lacking=lacking, **other)

    def __getattr__(self, name: str) -> Any:
        if name in self._lacking:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name)
        return getattr(self._whole, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._whole, name, value)


def modules() -> Iterator[str]:
    """Give the names of all our modules; those called `__main__` run when they are imported."""
    import ipybatch

    for found in pkgutil.walk_packages(ipybatch.__path__, "ipybatch."):
        if not found.name.endswith("__main__"):
            yield found.name


def become(system: str) -> None:
    """Take from our modules what the other system lacks; none of them may be loaded yet."""
    assert "ipybatch" not in sys.modules
    parts = [LINUX, POSIX] if system == "windows" else [LINUX]
    lacking = {name: frozenset(" ".join(part[name] for part in parts).split()) for name in LINUX}
    reduced = {owner.__name__: Reduced(owner, lacking[owner.__name__], {}) for owner in (os, signal, socket)}
    reduced["sys"] = Reduced(sys, frozenset(), {"platform": SYSTEMS[system]})
    whole_import = builtins.__import__

    def import_ours(name: str, scope: Any = None, *rest: Any, **more: Any) -> Any:
        if scope is not None and _is_ours(scope.get("__name__", "")):
            if system == "windows" and name in MODULES:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            if name in reduced:
                return reduced[name]
        return whole_import(name, scope, *rest, **more)

    builtins.__import__ = import_ours
    _hide_proc()


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == "ipybatch"


def _hide_proc() -> None:
    """Have no /proc for our modules: neither to open, nor to list, nor to look for."""
    whole_stat = os.stat

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.scandir", "os.listdir"):
            refuse(arguments[0])

    def stat(path: Any, *rest: Any, **more: Any) -> os.stat_result:
        refuse(path)
        return whole_stat(path, *rest, **more)

    def refuse(path: object) -> None:
        if str(path).startswith("/proc") and _asks(sys._getframe(2)):
            raise FileNotFoundError(2, "No such file or directory", str(path))

    sys.addaudithook(look)
    os.stat = stat


def _asks(frame: FrameType | None) -> bool:
    """Whether one of our modules asks, and no other that has ways of its own."""
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if _is_ours(name) or name.partition(".")[0] in READERS:
            return _is_ours(name)
        frame = frame.f_back
    return False


def main(system: str, program: str) -> None:
    """Become the other system, and run a program: a file, or its text."""
    become(system)
    if Path(program).suffix == ".py":
        runpy.run_path(program, run_name="__main__")
    else:
        exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    main(*sys.argv[1:])
