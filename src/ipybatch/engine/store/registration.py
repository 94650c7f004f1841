"""Registration: where this user's journals are, so that whoever lists sessions finds those at other paths too.

Rule: it is a help and no record: nothing of a session depends on it, and
whatever goes wrong with it is logged at debug and fails nobody.

    <the user's runtime folder>/ipybatch/journal-<hash of the path>.json    {"path": ..., "asked": ...}

One file a journal, written whole by whoever opens the journal for writing, and
read by whoever lists.  The folder is the user's alone (0700): one that others
can write, or that is a link or somebody else's, is not trusted, and neither is
such a file in it.  It lasts as long as the machine runs; a journal that is
opened again is registered again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ipybatch.engine.store.atomic_write import draft_of

_LARGEST = 64 * 1024  # bytes of a file; a path is at most 4 KiB

_log = logging.getLogger(__name__)


class Registered(msgspec.Struct, frozen=True):
    """A journal that was opened for writing.

    Attributes:
        path: Where it lies.
        asked: The path it was asked for by: another one when that is on a network file system.
    """

    path: Path
    asked: Path


def folder() -> Path:
    """Return where registrations are; it may not be there."""
    if not hasattr(os, "geteuid"):
        if os.name != "nt":  # a browser: nobody else is there
            return Path(tempfile.gettempdir(), "ipybatch")
        import platformdirs

        return platformdirs.user_runtime_path("ipybatch", appauthor=False)
    *others, last = _places()  # platformdirs would warn, and where it goes instead differs by its version
    return next((place for place in others if _is_usable(place)), last)


def _places() -> list[Path]:
    """Return where registrations may be, the best first."""
    given = Path(os.environ.get("XDG_RUNTIME_DIR", ""), "ipybatch")
    own = own_folder(Path(tempfile.gettempdir()))
    return [*([given] if given.is_absolute() else []), _system() / "ipybatch", own]


def _system() -> Path:
    return Path(f"/run/user/{os.geteuid()}")


def _is_usable(place: Path) -> bool:
    """Say whether a folder is ours, or can be made: ``su`` and ``sudo`` leave us another user's to look at."""
    try:
        if os.path.lexists(place):
            return is_own(place)
        above = next(folder for folder in place.parents if os.path.lexists(folder))
        return above.is_dir() and os.access(above, os.W_OK | os.X_OK)
    except OSError:
        return False


def own_folder(parent: Path) -> Path:
    """Return the name of this user's folder in one that all users share."""
    return parent / f"ipybatch-{os.geteuid()}"


def register(path: Path, asked: Path | None = None) -> None:
    """Let others find a journal; nothing happens where that cannot be written."""
    told = json.dumps({"path": str(path), "asked": str(asked or path)})
    at = folder()
    try:
        at.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not is_own(at):
            _log.debug("journals are not registered: others can write %s", at)
            return
        which = hashlib.blake2b(os.fsencode(path), digest_size=8).hexdigest()
        with draft_of(at / f"journal-{which}.json") as draft:  # made 0600
            draft.write_text(told, encoding="utf-8")
    except (OSError, ValueError) as error:
        _log.debug("journal %s is not registered: %s", path, error)


def registered() -> Iterator[Registered]:
    """Yield the registered journals that are there; what names one that is gone is removed."""
    at = folder()
    try:
        files = sorted(at.glob("journal-*.json")) if is_own(at) else []
    except OSError as error:
        _log.debug("registered journals cannot be read: %s", error)
        return
    for file in files:
        try:
            found = _read(file)
            if found is not None and not _is_there(found.path):
                file.unlink(missing_ok=True)
            elif found is not None:
                yield found
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.debug("registration %s is not read: %s", file, error)


def is_own(path: Path) -> bool:
    """Say whether a folder is a true one, this user's, and nobody else can write it."""
    found = path.lstat()
    return stat.S_ISDIR(found.st_mode) and _is_mine(found)


def _read(file: Path) -> Registered | None:
    descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as opened:
        found = os.fstat(descriptor)
        if not (stat.S_ISREG(found.st_mode) and _is_mine(found) and found.st_size <= _LARGEST):
            _log.debug("registration %s is not trusted", file)
            return None
        told = json.loads(opened.read())
    return Registered(Path(told["path"]), Path(told["asked"]))


def _is_mine(found: os.stat_result) -> bool:
    if not hasattr(os, "geteuid"):
        return True  # the folder is in the user's own profile
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass  # it may come back: who reads it is told why not
    return True
