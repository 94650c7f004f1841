"""Cell magic: `%%ipybatch NAME concurrency=5 rate=40/2s` over a cell that defines the work.

    the line  --`read_line`-->  a name, and arguments of `BatchSession`
    the cell  runs as any cell does, in the user's namespace  -->  `work`, and `items` where the line names none

What a line may say is listed in `OPTIONS`; everything else is refused by name, before the cell runs.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable
from typing import Any

from ipybatch.engine.data.plan import short
from ipybatch.engine.data.policy import Limits, Rate, Retry
from ipybatch.errors import InputError, JournalLocked

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_NUMBER = r"\d+(?:\.\d+)?"
_DURATION = re.compile(rf"({_NUMBER})\s*({'|'.join(_UNITS_S)})?")
_RATE = re.compile(rf"({_NUMBER})\s*([A-Za-z_]+)?\s*/\s*(?:({_NUMBER})\s*)?({'|'.join(_UNITS_S)})")
_LIVE = ("running", "paused")
_QUOTES = "\"'"
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_EXAMPLE = "%%ipybatch wishlist items=app_ids concurrency=5 rate=40/2s"


def _text(option: str, text: str) -> str:
    if not text:
        msg = f"{option} must be a text, got nothing"
        raise InputError(msg)
    return text


def _count(option: str, text: str) -> int:
    if not re.fullmatch(r"\d+", text):
        msg = f"{option} must be a whole number, such as {option}=5, got {text!r}"
        raise InputError(msg)
    return int(text)


def _seconds(option: str, text: str) -> float:
    found = _DURATION.fullmatch(text)
    if found is None:
        msg = f"{option} must be a duration, such as {option}=30s, 500ms or 5m, got {text!r}"
        raise InputError(msg)
    return float(found[1]) * _UNITS_S[found[2] or "s"]


def _rate(option: str, text: str) -> Rate:
    found = _RATE.fullmatch(text)
    if found is None:
        msg = f"{option} must be a number in a time, such as {option}=40/2s, 200/5m or 60000tokens/1m, got {text!r}"
        raise InputError(msg)
    limit, unit, many, span = found.groups()
    return Rate(float(limit), float(many or 1) * _UNITS_S[span], unit or "requests")


def _names(_: str, text: str) -> str | list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    return names[0] if len(names) == 1 else names


# By the option: what reads it, and where it goes: an argument of Limits, of Retry, or of the session itself.
OPTIONS: dict[str, tuple[Callable[[str, str], Any], str, str]] = {
    "items": (_text, "", "items"),
    "concurrency": (_count, "limits", "concurrency"),
    "rate": (_rate, "limits", "rates"),
    "spacing": (_seconds, "limits", "spacing_s"),
    "batch": (_count, "limits", "batch_size"),
    "batch_pause": (_seconds, "limits", "batch_pause_s"),
    "hours": (_text, "limits", "hours"),
    "zone": (_text, "limits", "zone"),
    "attempts": (_count, "retry", "attempts"),
    "timeout": (_seconds, "session", "timeout_s"),
    "on_failure": (_text, "session", "on_failure"),
    "resource": (_text, "session", "resource"),
    "start_at": (_text, "session", "start_at"),
    "notify": (_names, "session", "notify"),
    "journal": (_text, "session", "journal"),
}
_FLAGS = ("fresh",)


class Line:
    """What the line of a cell magic says.

    Attributes:
        name: Of the session.
        items: An expression of the user's namespace; "" where the cell itself has the items.
        arguments: Of `BatchSession`, beside name, work and items.
    """

    def __init__(self, name: str, items: str, arguments: dict[str, Any]) -> None:
        self.name, self.items, self.arguments = name, items, arguments


def read_line(line: str) -> Line:
    """Read the line of a cell magic.

    Raises:
        InputError: It names no session, or an option is not there or not what it must be.
    """
    words = [unquoted(word) for word in split(line)]
    if not words or ("=" in words[0] and words[0].partition("=")[0] in OPTIONS):
        msg = f"the line must begin with the name of the session: {_EXAMPLE}"
        raise InputError(msg)
    told: dict[str, dict[str, Any]] = {"limits": {}, "retry": {}, "session": {}, "": {}}
    for word in words[1:]:
        option, equals, text = word.partition("=")
        text = unquoted(text)
        if word in _FLAGS:
            told["session"][word] = True
            continue
        if option not in OPTIONS or not equals:
            raise InputError(_unknown(option, has_value=bool(equals)))
        read, place, field = OPTIONS[option]
        value = read(option, text)
        if field == "rates":
            told[place].setdefault(field, []).append(value)
        elif field in told[place]:
            msg = f"{option} must be given once, got {option}={short(text)} as well"
            raise InputError(msg)
        else:
            told[place][field] = value
    arguments = told["session"]
    if told["limits"]:
        arguments["limits"] = Limits(**told["limits"])
    if told["retry"]:
        arguments["retry"] = Retry(**told["retry"])
    return Line(words[0], told[""].get("items", ""), arguments)


def split(line: str) -> list[str]:
    """Return the words of a line: blanks within quotes and brackets are part of a word, as in ``items=f(x, "a b")``.

    Raises:
        InputError: A quote or a bracket is not closed.
    """
    words, word, open_ = list[str](), "", list[str]()
    for letter in line.strip():
        if open_ and open_[-1] in _QUOTES:
            if letter == open_[-1]:
                open_.pop()
        elif letter in _QUOTES:
            open_.append(letter)
        elif letter in _BRACKETS:
            open_.append(_BRACKETS[letter])
        elif open_ and letter == open_[-1]:
            open_.pop()
        elif letter.isspace() and not open_:
            words, word = [*words, word] if word else words, ""
            continue
        word += letter
    if open_:
        msg = f"the line cannot be read: {open_[-1]} is missing at its end"
        raise InputError(msg)
    return [*words, word] if word else words


def unquoted(text: str) -> str:
    """Return a text without the quotes around it."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES else text


def _unknown(option: str, *, has_value: bool) -> str:
    known = [*OPTIONS, *_FLAGS]
    if option in OPTIONS:
        return f"{option} needs a value, as in {option}=..."
    near = difflib.get_close_matches(option, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    quote = "" if has_value else " (quote a name of several words, and an expression with blanks)"
    return f"there is no option {short(option)}: {hint}{quote}"


class CellMagic:
    """%%ipybatch NAME [option=value ...]: run the function `work` that the cell defines over many items.

        %%ipybatch wishlist items=app_ids concurrency=5 rate=40/2s attempts=3 timeout=30s
        async def work(app_id):
            return (await client.get(f"https://.../{app_id}")).json()

    The cell runs as any other, in the notebook's own names. Its items are `items=`, a name or an expression of the
    notebook, or what the cell itself calls `items`. The session starts, and its panel is shown; the cell and the
    kernel are free while it runs. Running the cell again goes on, and does nothing twice.

    Options: items, concurrency, rate=40/2s (several hold all at once), spacing=1.5s, batch=15, batch_pause=15s,
    hours=01:00-07:00, zone=Europe/Berlin, attempts=3, timeout=30s, on_failure=stop, resource=NAME, start_at=22:00,
    notify=NAME, journal=PATH, and the word fresh for a new run. They are those of BatchSession, Limits and Retry.
    """

    def __init__(self, shell: Any, open_session: Callable[[str], Any], make_session: Callable[..., Any]) -> None:
        self._shell, self._open, self._make = shell, open_session, make_session

    def run(self, line: str, cell: str) -> Any:
        """Run the cell, start a session of what it defines, and return the session to be displayed.

        Raises:
            BatchError: The line, the cell or the items are not what they must be, the cell fails, or the session cannot
                start.
        """
        read = read_line(line)
        if not cell.strip():
            msg = f"the cell must define work, such as `async def work(item): ...`, below {_EXAMPLE}"
            raise InputError(msg)
        names = self._names(cell)
        if names is not None and "work" not in names:
            msg = "the cell must define work: a function of one item, `async def work(item)` or `def work(item)`"
            raise InputError(msg)
        if names is not None and not read.items and "items" not in names:
            msg = f"items are missing: name them in the line, as in {_EXAMPLE}, or set `items = ...` in the cell"
            raise InputError(msg)
        if not self._shell.run_cell(cell).success:
            msg = "no session was started: the cell failed, as is shown above"
            raise InputError(msg)
        space = self._shell.user_ns
        items = _evaluate(read.items, space) if read.items else space["items"]
        session = self._make(read.name, space["work"], items, **read.arguments)
        try:
            if session.elsewhere is None:
                session.start()
        except JournalLocked:  # the cell was run again while it runs, here
            session = self._open(read.name)
            if session.state not in _LIVE:
                raise
            session.note("it runs already: cancel it to go on with a changed cell", "passing")
        return session

    def _names(self, cell: str) -> set[str] | None:
        """Return the names that a cell sets at its top level; None for one that cannot be read, which the shell tells.

        Raises:
            InputError: It awaits at its top level, which a cell below a magic cannot.
        """
        source = self._shell.transform_cell(cell)
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            return None
        if self._shell.should_run_async(cell, transformed_cell=source):
            msg = "the cell must not await outside its functions: await in a cell of its own, above this one"
            raise InputError(msg)
        return {name for node in tree.body for name in _set_by(node)}

    def complete(self, _: Any, event: Any) -> list[str]:
        """Return the options that may stand in place of the word under the cursor."""
        first, _, rest = event.line.partition("\n")
        if rest or first.count(" ") < 2:
            return []
        return [f"{option}=" for option in OPTIONS if option.startswith(event.symbol)] + [
            flag for flag in _FLAGS if flag.startswith(event.symbol)
        ]


def _set_by(node: ast.stmt) -> set[str]:
    """Return the names that a statement sets where it stands, also within `if`, `with` and `try`."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    found = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)}
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.stmt):
            found |= _set_by(inner)
        elif isinstance(inner, ast.ExceptHandler):
            found |= {name for statement in inner.body for name in _set_by(statement)}
    return found


def _evaluate(expression: str, space: dict[str, Any]) -> Any:
    """Return what an expression of the user's namespace comes to.

    Raises:
        InputError: It cannot be evaluated.
    """
    try:
        return eval(compile(expression, "<items>", "eval"), space)  # noqa: S307  # the user's own, in the user's kernel
    except Exception as error:
        msg = f"items={short(expression)} cannot be evaluated: {type(error).__name__}: {error}"
        raise InputError(msg) from None
