"""Waiting: for a session's end or its outcomes, in a cell or a script, with its progress in a terminal.

A heartbeat wakes all waits, because a signal does not wake an idle ``await``,
nor a lock.

Where nest-asyncio or nest-asyncio2 patched the running loop, a blocking wait
runs through it, so that the kernel's own tasks go on.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import signal
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType
from typing import Any

from ipybatch.engine.data import events
from ipybatch.engine.data.masking import isolated, printable
from ipybatch.engine.data.outcome import Outcome
from ipybatch.engine.feed.event_text import line_of
from ipybatch.engine.feed.feed import Listener
from ipybatch.engine.feed.session_view import SessionView

HEARTBEAT_S = 0.2

Running = concurrent.futures.Future[None]


@contextmanager
def show_progress(session: SessionView, *, verbose: bool) -> Iterator[None]:
    """Show a session's progress on standard error while it runs: a line in a terminal, a line per item if verbose."""
    if sys.stderr is None or (not verbose and (in_notebook() or not sys.stderr.isatty())):  # None: pythonw, services
        yield
        return
    stop, close = _lines(session) if verbose else _bar(session)
    try:
        yield
    finally:
        stop()
        close()


def in_notebook() -> bool:
    """Say whether this is a Jupyter kernel, where the panel shows progress."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return "ZMQInteractiveShell" in {kind.__name__ for kind in type(shell).__mro__}  # or one derived from it


def _bar(session: SessionView) -> tuple[Any, Any]:
    from tqdm import tqdm

    bar = tqdm(
        total=session.snapshot.counts.total,
        initial=session.snapshot.counts.ended,
        desc=isolated(session.snapshot.name),
        unit="item",
    )

    def listen(event: events.Event) -> None:
        if isinstance(event, events.ItemEnded):
            bar.update()
        elif isinstance(event, events.Counted):
            bar.update(event.counts.ended - bar.n)
        elif isinstance(event, events.StateChanged | events.BreakerMoved | events.Exhausted | events.Adjourned):
            show()

    def show() -> None:
        bar.total = session.snapshot.counts.total
        bar.set_postfix_str(_words(session), refresh=True)

    stop = session.on(listen)
    if session.snapshot.adjourned is not None:  # since before the bar
        show()
    return stop, bar.close


def _words(session: SessionView) -> str:
    breaker = session.snapshot.breaker
    words: list[str] = [] if session.snapshot.state == "running" else [session.snapshot.state]
    if session.snapshot.state == "running" and session.snapshot.adjourned is not None:
        words.append(isolated(session.snapshot.adjourned.reason))
    if breaker.state != "closed":
        whose = f" of {isolated(breaker.limit_group)}" if breaker.limit_group else ""
        words.append(f"breaker{whose} {breaker.state.replace('_', '-')}")
    if session.snapshot.counts.failed:
        words.append(f"{session.snapshot.counts.failed} failed")
    return ", ".join(words)


def _lines(session: SessionView) -> tuple[Any, Any]:
    def listen(event: events.Event) -> None:
        line = line_of(event)
        if line and sys.stderr is not None:
            sys.stderr.write(f"{isolated(session.snapshot.name)}: {printable(line)}\n")

    return session.on(listen), lambda: None


Begin = Callable[[], Running | None]


def block(session: SessionView, begin: Begin, begun: Begin, *, verbose: bool) -> None:
    """Begin, and wait for the end; the first KeyboardInterrupt cancels the session, a second one is raised.

    Args:
        begun: Return what is waited for without beginning anything: interrupted earlier, nothing is.
    """
    try:
        is_over = session.snapshot.state in events.ENDED - {"interrupted"}
        with nullcontext() if is_over else show_progress(session, verbose=verbose):
            running = begin()
            if running is not None:
                _block(running)
    except KeyboardInterrupt:
        if (told := _goes_on(session)) is not None:
            raise KeyboardInterrupt(told) from None
        session.cancel()
        running = begun()
        if running is not None:
            _block(running)
    if running is not None:
        running.result()


async def until(session: SessionView, begin: Begin, begun: Begin) -> None:
    """Begin, and wait for the end; an interrupt (the notebook's stop button, Ctrl-C) cancels the session."""
    with _hear_interrupts() as heard:
        try:
            await asyncio.sleep(0)  # what was cancelled already begins nothing
            running = begin()
            if running is not None:
                await _beat(running)
        except (asyncio.CancelledError, KeyboardInterrupt):
            if not heard or _goes_on(session) is not None:
                raise  # asyncio.timeout and friends: only the waiting ends
            session.cancel()
            running = begun()
            if running is not None:
                await _beat(running)
    if running is not None:
        running.result()


def _goes_on(session: SessionView) -> str | None:
    """Say that only the waiting ends, for a session that another process runs; None for one of this process."""
    if (elsewhere := session.elsewhere) is None:
        return None
    told = f"nobody waits for it any more, and it goes on {elsewhere.where}: cancel() ends it"
    session.note(told, "passing")
    return told


async def for_news(news: asyncio.Event) -> None:
    """Wait for an event that another thread sets, or for one heartbeat."""
    with suppress(TimeoutError):
        await asyncio.wait_for(news.wait(), HEARTBEAT_S)


def _block(running: Running) -> None:
    loop = _patched_loop()
    if loop is not None:
        loop.run_until_complete(_beat(running))
        return
    while not running.done():
        concurrent.futures.wait([running], timeout=HEARTBEAT_S)


async def _beat(running: Running) -> None:
    ended = asyncio.wrap_future(running)
    while not ended.done():
        await asyncio.wait([ended], timeout=HEARTBEAT_S)


def _patched_loop() -> asyncio.AbstractEventLoop | None:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return loop if hasattr(loop, "_nest_patched") or hasattr(type(loop), "_nest_patched") else None


@contextmanager
def _hear_interrupts() -> Iterator[list[int]]:
    """Note SIGINTs, and pass them on: they reach an ``await`` as a CancelledError like any other."""
    heard: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    before = signal.getsignal(signal.SIGINT)
    if before is None:  # not set from Python, and never to be set back from here
        yield heard
        return

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGINT, hear)
    try:
        yield heard
    finally:
        if signal.getsignal(signal.SIGINT) is hear:  # else somebody waits that came after us
            signal.signal(signal.SIGINT, before)


def progress(session: SessionView, told: Callable[[int, int | None], None]) -> Listener:
    """Return a listener that calls ``told(done, total)`` whenever an item has its outcome."""

    def listen(event: events.Event) -> None:
        if isinstance(event, events.ItemEnded | events.Counted):
            told(session.snapshot.counts.ended, session.snapshot.counts.total)

    return listen


async def stream(
    on_outcomes: Callable[[Callable[[list[Outcome]], None]], Callable[[], None]],
    start: Callable[[], object],
    is_live: Callable[[], bool],
) -> AsyncIterator[Outcome]:
    """Yield outcomes as they are recorded, in commit order, until the session has ended.

    Args:
        start: Called once the outcomes are listened to.
    """
    loop, news, outcomes = asyncio.get_running_loop(), asyncio.Event(), deque[Outcome]()

    def hear(recorded: list[Outcome]) -> None:
        outcomes.extend(recorded)
        loop.call_soon_threadsafe(news.set)

    stop = on_outcomes(hear)
    try:
        start()
        goes_on = True
        while goes_on:
            goes_on = is_live()  # asked before the outcomes: what it still records comes between the two
            while outcomes:
                yield outcomes.popleft()
            news.clear()
            if not outcomes and is_live():
                await for_news(news)
    finally:
        stop()
