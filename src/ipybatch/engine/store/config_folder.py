"""Config folder: what a user keeps for all sessions, such as channels and templates, in files of the user's alone."""

from __future__ import annotations

import os
from pathlib import Path

from ipybatch.engine.store.atomic_write import draft_of


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
