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
def hold_interrupts(*, all_of_them: bool = False) -> Iterator[list[int]]:
    """Hold the first SIGINT back until the block is through, then hand it on; a second one is handed on at once.

    Args:
        all_of_them: Hold back whatever comes, and hand on one: for a block that ends soon by itself.
    """
    held: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if is_main else None
    if not callable(before):  # it is ignored, ends the process, or comes to another thread
        yield held
        return

    def hold(number: int, frame: FrameType | None) -> None:
        held.append(number)
        if len(held) > 1 and not all_of_them:
            before(number, frame)

    signal.signal(signal.SIGINT, hold)
    try:
        yield held
    finally:
        signal.signal(signal.SIGINT, before)
        if held and (all_of_them or len(held) == 1):
            before(held[0], None)
