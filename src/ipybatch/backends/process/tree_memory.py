"""Memory that a tree of processes takes, read from Linux's /proc.

The resident set (RSS) counts a page for every process that maps it: five idle
forks of a process of 100 MB seem to take 600.  It is cheap to read, and never
too low.  The proportional set (PSS) shares a page out between those that map it,
but the system walks all pages to tell it.  So the rule is::

    RSS within what is allowed, and no record?    that is enough
    else: PSS, for at most a twentieth of the time

Counted are anonymous memory, swapped out or not, and shared memory: mapped, or in
a memfd or a file of a tmpfs that a process has written and holds open.  Pages of
other files are not: the system takes them back when it needs them.  A file in
/dev/shm that nobody holds open is nobody's, and is not counted.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

_SHARE = 0.05  # of one processor's time, for what costs more than RSS
_RESIDENT = re.compile(rb"^(RssAnon|RssShmem|VmSwap):\s+(\d+) kB", re.MULTILINE)
_PROPORTIONAL = re.compile(rb"^(Pss|Pss_Anon|Pss_Shmem|SwapPss):\s+(\d+) kB", re.MULTILINE)
_ADDRESSES = re.compile(rb"^(VmSize|VmPeak):\s+(\d+) kB", re.MULTILINE)
_KCMP = {"x86_64": 312, "aarch64": 272}  # numbers of the system call kcmp(2)
_KCMP_VM = 1


def resident_mb(pid: int) -> tuple[float, float]:
    """Return a process's anonymous and its mapped shared memory as RSS counts them, megabytes; 0 once it has ended."""
    found = _read(f"/proc/{pid}/status", _RESIDENT)
    return found.get(b"RssAnon", 0.0) + found.get(b"VmSwap", 0.0), found.get(b"RssShmem", 0.0)


def proportional_mb(pid: int) -> tuple[float, float] | None:
    """Return a process's anonymous and its mapped shared memory as PSS counts them, megabytes; None where it is hidden.

    Linux before 5.4 does not tell anonymous pages from those of files.
    """
    found = _read(f"/proc/{pid}/smaps_rollup", _PROPORTIONAL)
    if not found:
        return None
    return found.get(b"Pss_Anon", found.get(b"Pss", 0.0)) + found.get(b"SwapPss", 0.0), found.get(b"Pss_Shmem", 0.0)


def data_mb(pid: int) -> float:
    """Return the private memory that a process has allocated, megabytes, as RLIMIT_DATA counts it."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[5])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def address_mb(pid: int) -> tuple[float, float]:
    """Return the address space that a process has, and the most that it ever had, megabytes; 0 where that is hidden."""
    found = _read(f"/proc/{pid}/status", _ADDRESSES)
    return found.get(b"VmSize", 0.0), found.get(b"VmPeak", 0.0)


def machine_mb() -> float:
    """Return the memory that the machine has, or that the control group of this process may take, megabytes."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for group, _ in _group_files():
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):  # "max"
                found = min(found, int((group.parent / name).read_text()))
    return found / 2**20


class TreeMemory:
    """What the process of one attempt and those it started take, beyond what it was forked with.

    Args:
        source: The process that it is a fork of.
        start_s: Files of a tmpfs that were last written before are not its own, Unix time.

    Attributes:
        most_mb: The most that was ever measured.
    """

    def __init__(self, pid: int, source: int, start_s: float) -> None:
        self.pid, self.most_mb = pid, 0.0
        self._source, self._start_s = source, start_s
        self._base_mb = resident_mb(source)[0]
        self._files_mb = 0.0
        self._exact_mb: float | None = None
        self._files_due_s = self._exact_due_s = 0.0

    def measure(self, below: Sequence[int], limit_mb: float | None, of_all: int, now_s: float) -> float:
        """Return what the tree takes, megabytes; exact as far as that decides anything.

        Args:
            below: The processes below the attempt's.
            of_all: How many processes all attempts have that are forks of the same process.
        """
        processes = (self.pid, *below)
        self._look_into_files(processes, now_s)
        told = list(map(resident_mb, processes))
        anonymous_mb = max(0.0, told[0][0] - self._base_mb) + sum(one for one, _ in told[1:])
        taken_mb = anonymous_mb + max(self._files_mb, sum(shared for _, shared in told))
        limit_mb = float("inf") if limit_mb is None else limit_mb
        if taken_mb > limit_mb or (below and taken_mb > self.most_mb):
            if now_s >= self._exact_due_s:
                begun_s = time.monotonic()
                self._exact_mb = self._measure_exactly(processes, max(of_all, len(processes)))
                self._exact_due_s = now_s + (time.monotonic() - begun_s) / _SHARE
            if self._exact_mb is None:
                return taken_mb
            taken_mb = min(taken_mb, self._exact_mb)
        self.most_mb = max(self.most_mb, taken_mb)
        return taken_mb

    def _measure_exactly(self, processes: Sequence[int], of_all: int) -> float | None:
        anonymous_mb = shared_mb = 0.0
        for index, pid in enumerate(processes):
            if any(_is_one_memory(pid, other) for other in processes[:index]):
                continue  # between vfork() and exec(): as subprocess starts all
            told = proportional_mb(pid)
            if told is None:
                told = resident_mb(pid)
            anonymous_mb += told[0]
            shared_mb += told[1]
        # What they were forked with they share with the source, which tells how much of it is charged to its forks.
        own = proportional_mb(self._source)
        lent_mb = 0.0 if own is None else max(0.0, resident_mb(self._source)[0] - own[0])
        anonymous_mb -= lent_mb * len(processes) / of_all
        return max(0.0, anonymous_mb) + max(self._files_mb, shared_mb)

    def _look_into_files(self, processes: Sequence[int], now_s: float) -> None:
        """Measure the shared memory that is open as files, also where it is not mapped."""
        if now_s < self._files_due_s:
            return
        begun_s, sizes = time.monotonic(), dict[tuple[int, int], int]()
        for pid in processes:
            with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as opened:
                for one in opened:
                    with contextlib.suppress(OSError):
                        found = one.stat()
                        if found.st_dev in _of_memory() and found.st_mtime >= self._start_s:
                            sizes[found.st_dev, found.st_ino] = found.st_blocks * 512
        self._files_mb = sum(sizes.values()) / 2**20
        self._files_due_s = now_s + (time.monotonic() - begun_s) / _SHARE


_devices: set[int] = set()


def _of_memory() -> set[int]:
    """Return the devices of file systems that are in memory: those of each tmpfs, and of memfds."""
    if not _devices:
        with contextlib.suppress(OSError):
            one = os.memfd_create("ipybatch")
            _devices.add(os.fstat(one).st_dev)
            os.close(one)
        for line in Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines():
            fields = line.split()
            if fields[fields.index("-") + 1] in ("tmpfs", "ramfs"):
                _devices.add(os.makedev(*map(int, fields[2].split(":"))))
    return _devices


def _is_one_memory(pid: int, other: int) -> bool:
    """Return whether two processes have the same address space, not copies of one."""
    number = _KCMP.get(os.uname().machine)
    if number is None:
        return False
    import ctypes

    return bool(ctypes.CDLL(None).syscall(number, pid, other, _KCMP_VM, 0, 0) == 0)


def _read(path: str, pattern: re.Pattern[bytes]) -> dict[bytes, float]:
    try:
        with open(path, "rb", buffering=0) as told:  # noqa: PTH123  # a Path costs as much as the reading
            return {name: int(kb) / 1024 for name, kb in pattern.findall(told.read())}
    except OSError:  # it has ended, or is another user's
        return {}


class SystemKills:
    """How many processes the system has killed for lack of memory, as far as they may be ours.

    The control group counts those in it, of whatever shortage; where it cannot be read, the whole system is counted.
    """

    def __init__(self) -> None:
        self._explained = 0
        self._source, self._name = next(
            (one for one in (*_group_files(), (Path("/proc/vmstat"), "oom_kill")) if _number(*one) is not None),
            (Path(os.devnull), ""),
        )

    def count(self) -> int:
        """Return how many there were, without those that explain an end already."""
        return (_number(self._source, self._name) or 0) - self._explained

    def explain(self) -> None:
        """Take one as the reason why a process has ended."""
        self._explained += 1


def _group_files() -> list[tuple[Path, str]]:
    found, top = [], Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:
                found.append((top / group.lstrip("/") / "memory.events", "oom_kill"))
            elif "memory" in controllers.split(","):
                found.append((top / "memory" / group.lstrip("/") / "memory.oom_control", "oom_kill"))
    return found


def _number(path: Path, name: str) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            word, _, number = line.partition(" ")
            if word == name:
                return int(number)
    return None
