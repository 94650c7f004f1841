"""Generated files of the project: written from their source, or compared with it."""

from __future__ import annotations

import sys
from pathlib import Path


def write_or_check(target: Path, text: str, arguments: list[str], *, stale: str) -> int:
    """Write ``text`` to the file; with ``--check``, return 1 and print ``stale`` when the file differs."""
    if "--check" not in arguments:
        target.write_text(text, encoding="utf-8")
    elif not target.exists() or target.read_text(encoding="utf-8") != text:
        print(stale, file=sys.stderr)
        return 1
    return 0
