"""Config folder: what a user keeps for all sessions, such as channels and templates, in files of the user's alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ipybatch.engine.store.atomic_write import draft_of

_writing = threading.RLock()
_held = [0]  # how often the thread that has `_writing` is within it


def config_folder() -> Path:
    """Return where the user's own settings lie; it may not be there yet.

    ``IPYBATCH_CONFIG`` moves it.
    """
    moved = os.environ.get("IPYBATCH_CONFIG")
    if moved:
        return Path(moved)
    import platformdirs

    return platformdirs.user_config_path("ipybatch", appauthor=False)


def write_private(path: Path, text: str) -> None:
    """Write a file that this user alone can read, whole or not at all; its folders are made where they lack.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with draft_of(path, 0o600) as draft:
        draft.write_text(text, encoding="utf-8")


@contextmanager
def writing() -> Iterator[None]:
    """Let no other thread or process change the settings meanwhile: what is written follows from what was read.

    Raises:
        OSError: The folder cannot be written.
    """
    with _writing:
        folder = config_folder()
        if _held[0] or os.name == "nt":
            yield
            return
        import fcntl

        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        _held[0] += 1
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            _held[0] -= 1
            os.close(descriptor)
