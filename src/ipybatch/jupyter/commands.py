"""Commands of the panel: what a button does to the session, and the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ipybatch.engine.data.masking import mask
from ipybatch.engine.feed.session_view import SessionView
from ipybatch.jupyter.messages import Ack, Rows

ROWS_AT_ONCE = 100

Arguments = Sequence[str]


def obey(session: SessionView, command: str) -> Ack | Rows:
    """Execute a command, given by its id, and return the answer.

    Raises:
        ValueError: The command is unknown, or its arguments are invalid or not allowed.
    """
    _, _, name, *arguments = command.split("/")
    if name == "items":
        return _items(session, command, arguments)
    act = _ACTS.get(name)
    if act is None:
        msg = f"unknown command {name!r}"
        raise ValueError(msg)
    return Ack(id=command, ok=True, text=act(session, arguments))


def describe(error: Exception) -> str:
    """Return an error as a line for the panel."""
    return mask(str(error) if isinstance(error, ValueError) and str(error) else f"{type(error).__name__}: {error}")


def _pause(session: SessionView, _: Arguments) -> str:
    running = session.snapshot.counts.running
    session.pause()
    return f"paused, {running} in flight finish" if running else "paused"


def _resume(session: SessionView, _: Arguments) -> str:
    session.resume()
    return "running"


def _cancel(session: SessionView, _: Arguments) -> str:
    running = session.snapshot.counts.running
    session.cancel()
    return f"cancelled, {running} in flight ended" if session.snapshot.state == "cancelled" else "cancelling"


def _retry_failed(session: SessionView, _: Arguments) -> str:
    session.retry_failed()
    return "running what failed again"


def _adjust(session: SessionView, arguments: Arguments) -> str:
    concurrency, *limits = arguments
    session.adjust(concurrency=int(concurrency), rates=[float(limit) for limit in limits])
    return f"limits changed: {', '.join([f'{concurrency} at a time', *map(str, session.policy.limits.rates)])}"


def _items(session: SessionView, command: str, arguments: Arguments) -> Rows:
    group, offset = map(int, arguments)
    total, items = session.items_of(group, offset=offset, limit=ROWS_AT_ONCE)
    return Rows(id=command, group=group, offset=offset, total=total, items=items)


_ACTS: dict[str, Callable[[SessionView, Arguments], str]] = {
    "pause": _pause,
    "resume": _resume,
    "cancel": _cancel,
    "retry_failed": _retry_failed,
    "adjust": _adjust,
}
