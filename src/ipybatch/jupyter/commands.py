"""Commands of the panel: what a button does to the session, and the answers.

A command is answered once when the engine has executed it, and twice when the engine was too busy to answer within a
second: "asked to pause: the engine is busy", and later, under the same id, "paused, 4 in flight finish".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ipybatch.engine.data.events import ENDED
from ipybatch.engine.data.masking import mask
from ipybatch.engine.feed.session_view import Reply, SessionView
from ipybatch.jupyter.messages import Ack, Rows

ROWS_AT_ONCE = 100

Arguments = Sequence[str]


class _Action(NamedTuple):
    """What a command does, the answer when it is only asked, and the answer when it is done (None: not yet)."""

    act: Callable[[SessionView, Arguments], Reply]
    asked: str
    done: Callable[[SessionView], str | None]


def load_magic(shell: Any, history: Callable[[], Any], open_session: Callable[[str], Any]) -> None:
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


def execute(session: SessionView, command: str) -> Ack | Rows:
    """Execute a command, given by its id, and return the first answer.

    Raises:
        ValueError: The command is unknown, or its arguments are invalid or not allowed.
    """
    _, _, name, *arguments = command.split("/")
    if name == "items":
        group, offset = map(int, arguments)
        total, items = session.items_of(group, offset=offset, limit=ROWS_AT_ONCE)
        return Rows(id=command, group=group, offset=offset, total=total, items=items)
    action = _ACTIONS.get(name)
    if action is None:
        msg = f"unknown command {name!r}"
        raise ValueError(msg)
    text = action.done(session) if action.act(session, arguments) == "done" else None
    asked = action.asked
    if session.elsewhere is not None:
        asked = asked.replace("the engine is busy", f"not taken yet {session.elsewhere.where}")
    return Ack(id=command, ok=True, done=text is not None, text=asked if text is None else text)


def settle(session: SessionView, command: str) -> Ack | None:
    """Return the second answer to a command that was only asked; None when it is not done yet.

    On the engine's thread: it is reached after the command itself.
    """
    name = command.split("/")[2]
    state = session.snapshot.state
    if session.elsewhere is not None and name in session.elsewhere.untaken:
        return None
    has_ended = state in ENDED and name != "cancel"
    text = f"the session is {state} already" if has_ended else _ACTIONS[name].done(session)
    return None if text is None else Ack(id=command, ok=True, done=True, text=text)


def describe(error: Exception) -> str:
    """Return an error as a line for the panel."""
    return mask(str(error) if isinstance(error, ValueError) and str(error) else f"{type(error).__name__}: {error}")


def _paused(session: SessionView) -> str:
    state, running = session.snapshot.state, session.snapshot.counts.running
    if state != "paused":
        return f"not paused: the session is {state}"
    return f"paused, {running} in flight finish" if running else "paused"


def _cancelled(session: SessionView) -> str | None:
    state, cancelled = session.snapshot.state, session.snapshot.counts.cancelled
    if state in ("running", "paused"):
        return None
    if state != "cancelled":
        return f"not cancelled: the session is {state}"
    return f"cancelled, {cancelled:,} item{'' if cancelled == 1 else 's'} left" if cancelled else "cancelled"


def _adjust(session: SessionView, arguments: Arguments) -> Reply:
    concurrency, *limits = arguments
    return session.adjust(concurrency=int(concurrency), rates=[float(limit) for limit in limits])


def _adjusted(session: SessionView) -> str:
    limits = session.policy.limits
    return f"limits changed: {', '.join([f'{limits.concurrency} at a time', *map(str, limits.rates)])}"


_ACTIONS = {
    "pause": _Action(lambda session, _: session.pause(), "asked to pause: the engine is busy", _paused),
    "resume": _Action(lambda session, _: session.resume(), "asked to resume: the engine is busy", lambda _: "running"),
    "cancel": _Action(lambda session, _: session.cancel(), "asked to cancel: not ended yet", _cancelled),
    "lift": _Action(
        lambda session, _: session.lift(),
        "asked to end the cool-down: the engine is busy",
        lambda _: "the cool-down was ended",
    ),
    "retry_failed": _Action(
        lambda session, _: session.retry_failed(),
        "asked to run again what failed",
        lambda _: "running what failed again",
    ),
    "adjust": _Action(_adjust, "asked to change the limits: the engine is busy", _adjusted),
}
