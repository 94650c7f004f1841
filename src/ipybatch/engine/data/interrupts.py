"""Interrupts: Ctrl-C, and a notebook's stop button, at a moment that suits.

A signal may come between any two bytecodes of the main thread: what must
happen as a whole, or not at all, holds it back.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def hold_interrupts() -> Iterator[list[int]]:
    """Hold the first SIGINT back until the block is through, then hand it on; a second one is handed on at once."""
    held: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if is_main else None
    if not callable(before):  # it is ignored, ends the process, or comes to another thread
        yield held
        return

    def hold(number: int, frame: FrameType | None) -> None:
        held.append(number)
        if len(held) > 1:
            before(number, frame)

    signal.signal(signal.SIGINT, hold)
    try:
        yield held
    finally:
        signal.signal(signal.SIGINT, before)
        if len(held) == 1:
            before(held[0], None)
