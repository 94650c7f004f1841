"""The IPython magic: ``%ipybatch`` lists the recorded sessions, ``%ipybatch NAME`` shows one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def load(shell: Any, history: Callable[[], Any], open_session: Callable[[str], Any]) -> None:
    """Register the magic with an IPython shell.

    Args:
        history: Returns the table of all sessions.
        open_session: Returns a session by its name.
    """

    def ipybatch(line: str) -> Any:
        """List the recorded sessions, or show the one that is named."""
        name = line.strip()
        return open_session(name) if name else history()

    shell.register_magic_function(ipybatch, "line", "ipybatch")
