"""Journal files: which journals this user has, and when each was last written.

    registered journals, the default one --`look`--> `Files` --> `catalogue`: what is to be opened, and what is known

Rule: one look at the files serves all that is asked at that moment.  No journal is opened for it.
"""

from __future__ import annotations

import functools
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ipybatch.engine.store import history, registration
from ipybatch.engine.store import journal as journals
from ipybatch.engine.store.network_copy import home_of
from ipybatch.errors import JournalError

TICK_NS = 50_000_000  # a file that was written just now may be written again within the same tick of its clock
_MANY = 200  # journals; of more, those that nobody has written to for long are looked at seldom
_LONG_S, _SELDOM_S = 3600.0, 30.0
_KEPT = 4096  # homes of journals

Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Files:
    """The journals of one look, by the first part of their sessions' ids.

    Attributes:
        paths: By which each is asked for.
        stamps: What changes with every commit; of `_MANY`, the old ones as they were some seconds ago.
    """

    paths: dict[str, Path]
    stamps: dict[str, Stamp]

    def written_since(self, since_s: float) -> list[tuple[float, str]]:
        """Return the journals that were written after that: when, and which."""
        written = ((written_s(self.stamps[key]), key) for key in self.paths)
        return [(at_s, key) for at_s, key in written if at_s > since_s]


class JournalFiles:
    """Looks at them; from any thread."""

    def __init__(self) -> None:
        self._registered: tuple[int | None, dict[str, Path]] = None, {}
        self._stamps: dict[str, Stamp] = {}
        self._all_s = 0.0  # when all of them are to be looked at

    def look(self) -> Files:
        """Return the journals, and when each was last written."""
        paths, now_s = self.paths(), time.monotonic()
        if len(paths) <= _MANY or now_s >= self._all_s or paths.keys() != self._stamps.keys():
            stamps = {key: stamp_of(path) for key, path in paths.items()}
            self._all_s = now_s + _SELDOM_S
        else:
            since_s, stamps = time.time() - _LONG_S, self._stamps
            recent = {key: stamp_of(path) for key, path in paths.items() if written_s(stamps[key]) > since_s}
            stamps = stamps | recent
        self._stamps = stamps
        return Files(paths, stamps)

    def paths(self) -> dict[str, Path]:
        """Return the registered journals, and the default one, by the first part of their sessions' ids."""
        found = self._found()
        with suppress(JournalError):
            path = default()
            return found | {history.key_of(path): path}
        return found

    def _found(self) -> dict[str, Path]:
        """Return the registered journals; their folder is not read again while none is added."""
        try:
            stamp = registration.folder().stat().st_mtime_ns
        except OSError:
            return {}
        known, found = self._registered
        if known != stamp or time.time_ns() - stamp < TICK_NS:
            found = {history.key_of(registered.asked): registered.asked for registered in registration.registered()}
            self._registered = stamp, found
            self._all_s = 0.0  # one that was opened again is registered again, and may be written
        return found


def default() -> Path:
    """Return where the default journal lies.

    Raises:
        JournalError: It leads nowhere.
    """
    return journals.resolved(journals.default_path())


def stamp_of(path: Path) -> Stamp:
    """Return what changes with every commit: inode, time and size of the file and of its log."""
    home = _home(path)
    at = home if home is path or home.exists() else path  # nobody has opened it on this machine
    parts = []
    for name in (str(at), f"{at}-wal"):
        with suppress(OSError):
            found = os.stat(name)  # noqa: PTH116  # for every journal, twice a second
            parts.append((found.st_ino, found.st_mtime_ns, found.st_size))
    return tuple(parts)


def written_s(stamp: Stamp) -> float:
    """Return when a journal was last written, Unix; 0 for one that is not there."""
    return max((part[1] for part in stamp), default=0) / 1e9


@functools.lru_cache(_KEPT)
def _home(path: Path) -> Path:
    """Return where a journal lies on this machine: what is mounted where is not read for each look."""
    with suppress(JournalError):
        return home_of(path)
    return path
