"""Durable: what must survive a power cut, not only the process's end.

The journal waits for no disk at a commit; what is paid for does, after it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def to_disk(journal: Path) -> None:
    """Wait until what was committed to a journal would survive a power cut.

    SQLite's locks are on the other two files, so opening and closing this one drops none.
    """
    with contextlib.suppress(FileNotFoundError):  # a checkpoint has just moved it all, and waited for the disk
        descriptor = os.open(journal.with_name(f"{journal.name}-wal"), os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
