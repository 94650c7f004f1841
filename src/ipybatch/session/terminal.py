"""Terminal: a progress line, or a line per item, for who runs a script."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ipybatch.engine.data import events
from ipybatch.engine.feed.session_view import SessionView


@contextmanager
def progress(session: SessionView, *, verbose: bool) -> Iterator[None]:
    """Show a session's progress on standard error while it runs: a line in a terminal, a line per item if verbose."""
    if not verbose and (in_notebook() or not sys.stderr.isatty()):
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
    return type(shell).__name__ == "ZMQInteractiveShell"


def _bar(session: SessionView) -> tuple[Any, Any]:
    from tqdm import tqdm

    bar = tqdm(
        total=session.snapshot.counts.total,
        initial=session.snapshot.counts.ended,
        desc=session.snapshot.name,
        unit="item",
    )

    def listen(event: events.Event) -> None:
        if isinstance(event, events.ItemEnded):
            bar.update()
        elif isinstance(event, events.StateChanged | events.BreakerMoved | events.Exhausted):
            bar.total = session.snapshot.counts.total
            bar.set_postfix_str(_words(session), refresh=True)

    return session.on(listen), bar.close


def _words(session: SessionView) -> str:
    breaker = session.snapshot.breaker
    words: list[str] = [] if session.snapshot.state == "running" else [session.snapshot.state]
    if breaker.state != "closed":
        words.append(f"breaker {breaker.state.replace('_', '-')}")
    if session.snapshot.counts.failed:
        words.append(f"{session.snapshot.counts.failed} failed")
    return ", ".join(words)


def _lines(session: SessionView) -> tuple[Any, Any]:
    def listen(event: events.Event) -> None:
        line = line_of(event)
        if line:
            sys.stderr.write(f"{session.snapshot.name}: {line}\n")

    return session.on(listen), lambda: None


def line_of(event: events.Event) -> str:
    """Return an event as one line for people; "" for one they need not see."""
    match event:
        case events.ItemEnded():
            line = f"{event.key} {event.status} in {event.seconds:.2f} s{_because(event.error)}"
        case events.AttemptFailed():
            again = f"again in {event.wait_s:.1f} s"
            line = f"{event.key} attempt {event.attempt} failed, {again}{_because(event.error)}"
        case events.BreakerMoved(state="open" | "half_open"):
            line = f"breaker {event.state.replace('_', '-')} after {event.failures} failures in a row"
        case events.CooledDown():
            line = f"cooling down for {event.until_s - event.at_s:.1f} s: {event.reason}"
        case events.Noted():
            line = event.text
        case events.StateChanged() if event.state != "running":
            line = f"{event.state}{_because(event.reason)}"
        case _:
            line = ""
    return line


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""
