"""Fork: what a child must forget of what its parent holds: threads, locks, connections, leases."""

from __future__ import annotations

import os
from collections.abc import Callable


def after_fork(forget: Callable[[], object]) -> None:
    """Have a function called in every child of this process, before its own code runs; nothing where none can fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)
