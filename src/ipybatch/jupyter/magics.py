"""Magics: `%ipybatch` lists, shows and commands recorded sessions; `%%ipybatch` runs the work that a cell defines.

    %ipybatch                        what is recorded, as a table; so does: list
    %ipybatch NAME                   the session, with its panel; so does: open NAME
    %ipybatch pause NAME             also resume, cancel: wherever it runs

What is wrong is told in one line, not by a traceback, and its cell has failed: a notebook that runs by itself stops
there.  (IPython's own `UsageError` shows it too, and nbval does not see it.)  What a session is already, such as
cancelled, is no error.  A name is a name first: a session "open shop" is shown by `%ipybatch open shop` unless there
is one named "shop".
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ipybatch.engine.data.masking import isolated, mask, printable
from ipybatch.engine.data.plan import short
from ipybatch.engine.store.history import RecordedRun
from ipybatch.errors import BatchError, InputError
from ipybatch.jupyter.cell_magic import CellMagic, unquoted
from ipybatch.jupyter.listing import Listing

_NEAR = 3
_COMMANDS = {"pause": "paused", "resume": "running", "cancel": "cancelled"}
VERBS = ("list", "open", *_COMMANDS)
_LIVE = ("running", "paused")


def load_magics(
    shell: Any,
    read_runs: Callable[[], Sequence[RecordedRun]],
    open_session: Callable[[str], Any],
    make_session: Callable[..., Any],
) -> None:
    """Register the magics with an IPython shell, and let Tab complete verbs, names and options after them.

    Args:
        read_runs: Returns all recorded runs, oldest first.
        open_session: Returns a session by its name.
        make_session: Returns a session of a name, work, items and arguments.
    """
    cell_magic = CellMagic(shell, open_session, make_session)

    def ipybatch(line: str, cell: str | None = None) -> Any:
        try:
            return answer(line, read_runs(), open_session) if cell is None else cell_magic.run(line, cell)
        except BatchError as error:  # the journal's, or that of a session which needs more than its name
            said = mask(f"{type(error).__name__}: {error}")
            error._render_traceback_ = lambda: [said]  # type: ignore[attr-defined]  # how IPython is told what to show
            raise

    def complete(_: Any, event: Any) -> list[str]:
        try:
            return completions(event.line, event.symbol, read_runs())
        except BatchError:
            return []

    ipybatch.__doc__ = f"{(__doc__ or '').partition(':')[2].strip()}\n\n{CellMagic.__doc__}"
    shell.register_magic_function(ipybatch, "line_cell", "ipybatch")
    for command in ("%ipybatch", "ipybatch"):  # the latter where "automagic" is on
        shell.set_hook("complete_command", complete, str_key=command)
    shell.set_hook("complete_command", cell_magic.complete, str_key="%%ipybatch")


def tell(line: str) -> None:
    """Write one line for people."""
    sys.stdout.write(f"{mask(line)}\n")


def answer(line: str, runs: Sequence[RecordedRun], open_session: Callable[[str], Any]) -> Any:
    """Do what a line says, and return what is to be displayed.

    Raises:
        BatchError: It cannot be done.
    """
    verb, name = _read(line, {run.name for run in runs})
    if verb == "list":
        return Listing(runs)
    if not name:
        msg = f"{verb} needs the name of a session: %ipybatch {verb} NAME; %ipybatch lists them"
        raise InputError(msg)
    if not any(run.name == name for run in runs):
        raise InputError(missing(name, runs))
    session = open_session(name)
    return session if verb == "open" else tell(_command(session, verb))


def _read(line: str, known: set[str]) -> tuple[str, str]:
    """Return what is asked, and of which session, "" where none is named."""
    whole = line.strip()
    verb, _, rest = whole.partition(" ")
    name = unquoted(rest.strip())
    if not whole or whole == "list":
        return "list", ""
    if verb in VERBS[1:] and (name in known or whole not in known):
        return verb, name
    return "open", unquoted(whole)


def _command(session: Any, verb: str) -> str:
    """Command a session, and return what came of it in a line."""
    name, state = isolated(session.name), session.state
    if verb != "resume" and state not in _LIVE:
        has_ended = "has not begun" if state == "planned" else f"has ended: {state.replace('_', ' ')}"
        return f"{name} {has_ended}; there is nothing to {verb}"
    if verb == "resume" and state == "completed":
        return f"{name} has completed; there is nothing to resume"
    reply = getattr(session, verb)()
    where = "" if session.elsewhere is None else f" {session.elsewhere.where}"
    if reply == "done":
        return f"{name}: {_COMMANDS[verb]}{where}"
    return f"{name}: asked to {verb}; what runs it{where} has not done so yet"


def missing(name: str, runs: Sequence[RecordedRun]) -> str:
    """Return one line that says that there is no such session, with the nearest names."""
    name = printable(name)
    told = f"no such session: {isolated(name if len(name) <= 60 else short(name))}"
    near = _near(name, list({run.name: None for run in reversed(runs)}))
    if near:
        return f"{told}; near: {', '.join(map(isolated, map(printable, near)))}"
    return f"{told}; %ipybatch lists them" if runs else f"{told}; none is recorded"


def completions(line: str, symbol: str, runs: Sequence[RecordedRun]) -> list[str]:
    """Return what may stand in place of the word under the cursor: verbs, then names, the latest sessions first.

    Args:
        line: All that was typed; ``symbol``: its last word. A name of several words is completed from there on.
    """
    _, _, typed = line.lstrip().partition(" ")
    typed = typed.lstrip()
    names = list({run.name: None for run in reversed(runs)})
    verb, _, rest = typed.partition(" ")
    found = _completed(typed, symbol, [*VERBS, *names])
    return found + _completed(rest.lstrip(), symbol, names) if verb in VERBS[1:] and typed != verb else found


def _completed(typed: str, symbol: str, words: Sequence[str]) -> list[str]:
    before = len(typed) - len(symbol) if typed.endswith(symbol) else 0
    return [word[before:] for word in words if word.startswith(typed)]


def _near(name: str, names: list[str]) -> list[str]:
    """Return the names that are most like one, whatever the case; those that hold it come first."""
    low = {known.casefold(): known for known in reversed(names)}
    wanted = name.casefold()
    inside = [known for spelt, known in reversed(low.items()) if wanted in spelt]
    alike = [low[spelt] for spelt in difflib.get_close_matches(wanted, list(low), n=_NEAR, cutoff=0.6)]
    return list(dict.fromkeys([*inside, *alike]))[:_NEAR]
