"""Commands of the panel: what a button does to the session, and the answers.

Rule: whatever arrives is answered by a sentence: arguments are checked here before anything acts on them.

A command is answered once when the engine has executed it, and twice when the engine was too busy to answer within a
second: "asked to pause: the engine is busy", and later, under the same id, "paused, 4 in flight finish".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from ipybatch.engine.data.events import ENDED
from ipybatch.engine.data.masking import mask
from ipybatch.engine.data.plan import short
from ipybatch.engine.feed.session_view import Reply, SessionView
from ipybatch.errors import BatchError, InputError
from ipybatch.jupyter.messages import Ack, Errors, Rows, errors_of

ROWS_AT_ONCE = 100
ERRORS_AT_ONCE = 2000  # for a file of all of them

_DIGITS = 16  # of a version; above 18 SQLite cannot hold it
_WHOLE = re.compile(rf"[0-9]{{1,{_DIGITS}}}")
_TAKE_ARGUMENTS = ("adjust", "retry_failed")

Arguments = Sequence[str]


class _Action(NamedTuple):
    """What a command does, the answer when it is only asked, and the answer when it is done (None: not yet)."""

    act: Callable[[SessionView, Arguments], Reply]
    asked: str
    done: Callable[[SessionView], str | None]


def execute(session: SessionView, command: str) -> Ack | Rows | Errors:
    """Execute a command, given by its id, and return the first answer.

    Raises:
        InputError: The command is unknown, or its arguments are invalid or not allowed.
    """
    name, arguments = _parts(command)
    if name in _QUESTIONS:
        return _QUESTIONS[name](session, command, arguments)
    action = _ACTIONS.get(name)
    if action is None:
        msg = f"unknown command {short(name)}: {', '.join([*_QUESTIONS, *_ACTIONS])} are known"
        raise InputError(msg)
    if arguments and name not in _TAKE_ARGUMENTS:
        msg = f"{name} takes no arguments, got {short('/'.join(arguments))}"
        raise InputError(msg)
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
    is_told = isinstance(error, (ValueError, BatchError)) and str(error)
    return mask(str(error) if is_told else f"{type(error).__name__}: {error}")


def _parts(command: str) -> tuple[str, Arguments]:
    """Return the name of a command and its arguments."""
    _, _, rest = command.partition("/")
    _, slash, rest = rest.partition("/")
    if not slash:
        msg = f"a command must be <panel>/<number>/<name>, got {short(command)}"
        raise InputError(msg)
    name, *arguments = rest.split("/")
    return name, arguments


def _rows(session: SessionView, command: str, arguments: Arguments) -> Rows:
    if len(arguments) != 2:
        msg = f"items needs a group and an offset, items/1/0, got {len(arguments)} arguments"
        raise InputError(msg)
    group, offset = _whole("group", arguments[0]), _whole("offset", arguments[1])
    total, items = session.items_of(group, offset=offset, limit=ROWS_AT_ONCE)
    return Rows(id=command, group=group, offset=offset, total=total, items=items)


def _errors(session: SessionView, command: str, arguments: Arguments) -> Errors:
    if not 1 <= len(arguments) <= 4:
        msg = f"errors needs an offset, and takes a search, a limit and a version, got {len(arguments)} arguments"
        raise InputError(msg)
    offset, search, limit, version = (*arguments, *("", str(ROWS_AT_ONCE), "0")[len(arguments) - 1 :])
    at, most, which = _whole("offset", offset), _whole("limit", limit), _whole("version", version)
    if not 1 <= most <= ERRORS_AT_ONCE:
        msg = f"limit must be a whole number from 1 to {ERRORS_AT_ONCE:,}, got {most:,}"
        raise InputError(msg)
    wanted = unquote(search)
    found, items = session.failures(wanted, offset=at, limit=most, version=which)
    return errors_of(command, wanted, at, found, items)


def _whole(field: str, given: str) -> int:
    """Return a number that was sent as text, one that SQLite can hold."""
    if not _WHOLE.fullmatch(given):
        msg = f"{field} must be a whole number from 0 to {10**_DIGITS - 1:,}, got {short(given)}"
        raise InputError(msg)
    return int(given)


def _limit(given: str) -> float:
    try:
        return float(given)
    except ValueError:
        msg = f"limit must be a number, got {short(given)}"
        raise InputError(msg) from None


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
    if not arguments:
        msg = "adjust needs the concurrency, and then the limit of each rate: adjust/4/200"
        raise InputError(msg)
    concurrency, *limits = arguments
    return session.adjust(concurrency=_whole("concurrency", concurrency), rates=[_limit(limit) for limit in limits])


def _retry(session: SessionView, arguments: Arguments) -> Reply:
    if len(arguments) > 1:
        msg = f"retry_failed takes one search at most, got {len(arguments)} arguments"
        raise InputError(msg)
    if session.snapshot.state not in ENDED:
        msg = f"the session is {session.snapshot.state}: what failed can be tried again once it has ended"
        raise InputError(msg)
    return session.retry_matching(unquote("".join(arguments)))


def _adjusted(session: SessionView) -> str:
    limits = session.policy.limits
    return f"limits changed: {', '.join([f'{limits.concurrency} at a time', *map(str, limits.rates)])}"


def _started(session: SessionView) -> str | None:
    return None if session.live_status.starts_s else "it waits for its start no more"


_ACTIONS = {
    "pause": _Action(lambda session, _: session.pause(), "asked to pause: the engine is busy", _paused),
    "resume": _Action(lambda session, _: session.resume(), "asked to resume: the engine is busy", lambda _: "running"),
    "cancel": _Action(lambda session, _: session.cancel(), "asked to cancel: not ended yet", _cancelled),
    "lift": _Action(
        lambda session, _: session.lift(),
        "asked to end the cool-down: the engine is busy",
        lambda _: "the cool-down was ended",
    ),
    "start_now": _Action(
        lambda session, _: session.adjust(start_at="now"), "asked to start now: the engine is busy", _started
    ),
    "retry_failed": _Action(
        _retry,
        "asked to run again what failed",
        lambda _: "running what failed again",
    ),
    "adjust": _Action(_adjust, "asked to change the limits: the engine is busy", _adjusted),
}
_QUESTIONS: dict[str, Callable[[SessionView, str, Arguments], Rows | Errors]] = {"items": _rows, "errors": _errors}
