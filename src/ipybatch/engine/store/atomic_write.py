"""Whole: files that appear complete, or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def draft_of(path: Path, mode: int = 0o600) -> Iterator[Path]:
    """Give a draft that takes the path's place when all went well, and is gone otherwise.

    Args:
        mode: Who may read and write it: what is left of that by the process's umask.
    """
    draft = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
