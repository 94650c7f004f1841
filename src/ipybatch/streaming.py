"""Streaming: progress and outcomes, handed from the engine's thread to the loop that iterates."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from ipybatch.engine import events
from ipybatch.engine.feed import Listener
from ipybatch.engine.outcome import Outcome
from ipybatch.waiting import for_news

if TYPE_CHECKING:
    from ipybatch.session import BatchSession


def progress(session: BatchSession, told: Callable[[int, int | None], None]) -> Listener:
    """Return a listener that calls ``told(done, total)`` whenever an item has its outcome."""

    def listen(event: events.Event) -> None:
        if isinstance(event, events.ItemEnded):
            told(session.counts.ended, session.counts.total)

    return listen


async def stream(session: BatchSession, is_live: Callable[[], bool]) -> AsyncIterator[Outcome]:
    """Yield outcomes as they are recorded, in commit order, until the session has ended."""
    loop, news, outcomes = asyncio.get_running_loop(), asyncio.Event(), deque[Outcome]()

    def hear(recorded: list[Outcome]) -> None:
        outcomes.extend(recorded)
        loop.call_soon_threadsafe(news.set)

    stop = session.on_outcomes(hear)
    try:
        if session.state == "planned":
            session.start()
        while outcomes or is_live():
            while outcomes:
                yield outcomes.popleft()
            news.clear()
            if not outcomes and is_live():
                await for_news(news)
    finally:
        stop()
