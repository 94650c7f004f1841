"""Template: how work is done, under a name: what can be said of a session as data, and nothing else.

Rule: no secrets, no data of a run, and no null: a key, token or password is refused wherever it stands, items are given
anew each time, and what a file cannot hold is only named, in ``asks``.
"""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from ipybatch.engine.data.masking import MASK, mask, register
from ipybatch.engine.data.plan import short
from ipybatch.errors import InputError

OWN_CODE = "session"  # the base of templates for a function of the user's own
LONGEST_NAME = 64
SECRET_NAMES = re.compile(r"(?i)(api_?key|secret|password|credential|authorization|(?<!output_)token$)")
OF_CALL = frozenset(  # arguments of one call, of one process or a secret: no template holds them, or asks for them
    {"name", "journal", "fresh", "replace", "on_progress", "verbose", "clock", "api_key"}
)
LARGEST = 1 << 53  # whole number that every reader of JSON and TOML tells from the next
_NAME = re.compile(r"\w(?:[\w .-]*\w)?")
_RESERVED = re.compile(r"(?i)(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?")  # devices of Windows, whatever the suffix
_KEY = re.compile(r"[A-Za-z_]\w{0,99}", re.ASCII)
_DEEPEST = 50


class WrongField(InputError):
    """A field of a request or of a template is not what it must be; nothing was spent.

    Attributes:
        field: Such as ``requests[3].prompt`` or ``params.lane``.
        value: What it was; None where that is not told, as for a prompt.
        allowed: What it may be; None where the message says it all.
        next_step: What to do; "" where that is plain.
    """

    def __init__(
        self, field: str, message: str, *, value: Any = None, allowed: Any = None, next_step: str = ""
    ) -> None:
        super().__init__(message)
        self.field, self.value, self.allowed, self.next_step = field, value, allowed, next_step


class NoSuchTemplate(WrongField):
    """There is no template of this name."""


class Template(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A template.

    Attributes:
        based_on: The template that ships with ipybatch whose values hold where this one says nothing, such as "text";
            or "session", for a function of your own.
        description: What it is for.
        start_at: Not before then, such as "22:00".
        zone: Whose clocks ``start_at`` is by, such as "Europe/Berlin"; None for this machine's own.
        priority: Of a submission: "high" goes first.
        notify: Who is told of it, and of what.
        params: Arguments by name, such as ``{"model": ..., "lane": "batch", "limits": {"concurrency": 3}}``.
        asks: Arguments that no file can hold, such as a function: whoever uses the template in Python gives them.
    """

    based_on: str
    description: str = ""
    start_at: str | None = None
    zone: str | None = None
    priority: Literal["high", "medium", "low"] | None = None
    notify: Any = None
    params: dict[str, Any] = {}
    asks: list[str] = []


def check_name(name: Any) -> str:
    """Return the name of a template; refuse one that is no safe name of a file on every system.

    Raises:
        WrongField: Says what it must be.
    """
    allowed = f"1 to {LONGEST_NAME} letters, digits, spaces and -_. between letters or digits"
    if not isinstance(name, str) or len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
        msg = f"name must be {allowed}, got {short(name)}"
        raise WrongField("name", msg, value=str(name)[:LONGEST_NAME], allowed=allowed)
    if unicodedata.normalize("NFC", name) != name:
        msg = f"name must be in Unicode's composed form (NFC), as keyboards write it, got {name!r}"
        raise WrongField("name", msg, value=name, next_step="type it anew")
    if _RESERVED.fullmatch(name):
        msg = f"name must be another one: {name!r} is a device of Windows"
        raise WrongField("name", msg, value=name, allowed=allowed)
    return name


def check_template(template: Template) -> None:
    """Refuse a template that holds a secret, or what neither JSON nor TOML can hold.

    Raises:
        WrongField: Names the field.
    """
    for field in ("description", "start_at", "zone", "notify"):
        check_value(getattr(template, field), field)
    for name, value in template.params.items():
        check_param(name, value)
    for place, name in enumerate(template.asks):
        if not _KEY.fullmatch(name):
            msg = f"asks[{place}] must be the name of an argument, got {short(name)}"
            raise WrongField(f"asks[{place}]", msg, value=name)


def check_param(name: str, value: Any) -> None:
    """Refuse a parameter that is, or holds, a secret, or what neither JSON nor TOML can hold.

    Raises:
        WrongField: Names the field, and never shows a secret.
    """
    field = f"params.{name[:60]}"
    if not _KEY.fullmatch(name):
        msg = f"{field} must be the name of an argument: letters, digits and _"
        raise WrongField(field, msg, value=name)
    if SECRET_NAMES.search(name):
        register(value if isinstance(value, str) else None)
        msg = f"{field} must not be given: no template holds a key, they come from the environment"
        raise WrongField(field, msg, next_step="drop it, and set the variable of the environment")
    if name in OF_CALL:
        msg = f"{field} must be left out: it belongs to one call, and is given there"
        raise WrongField(field, msg, value=value)
    check_value(value, field)


def check_value(value: Any, field: str, depth: int = 0) -> None:
    """Refuse a value that is, or holds, a secret, or what neither JSON nor TOML can hold.

    Raises:
        WrongField: Names the field, and never shows a secret.
    """
    if depth > _DEEPEST:
        raise WrongField(field.partition("[")[0], f"{field.partition('[')[0]} must not be nested so deeply")
    match value:
        case None | bool():
            return
        case str():
            _check_text(value, field)
        case int() if abs(value) <= LARGEST:
            return
        case float() if math.isfinite(value):
            return
        case list():
            for place, each in enumerate(value):
                check_value(each, f"{field}[{place}]", depth + 1)
        case dict() if all(isinstance(key, str) for key in value):
            for key, each in value.items():
                _check_text(key, f"a key of {field}")
                check_value(each, f"{field}.{key}", depth + 1)
        case _:
            msg = f"{field} must be text, a number, true or false, a list or a table, got {short(value)}"
            raise WrongField(field, msg, value=short(value))


def _check_text(text: str, field: str) -> None:
    if mask(text).count(MASK) > text.count(MASK):
        msg = f"{field} must hold no key, token or password: it looks like one"
        raise WrongField(field, msg, next_step="drop it: keys come from the environment")
    if not text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text):
        msg = f"{field} must be a text that UTF-8 can hold: a part of it is half a character"
        raise WrongField(field, msg)


def near(name: str, known: list[str]) -> str:
    """Return a question that names what was probably meant; "" where nothing is near."""
    found = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {found[0]!r}?" if found else ""


def merged(layers: list[Mapping[str, Any]], replaces: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return parameters by key, those of a later layer in the place of those before.

    Args:
        replaces: Parameters that say the same as another one: a later layer that has the one drops the others.
    """
    found: dict[str, Any] = {}
    for layer in layers:
        for name in layer:
            for other in replaces.get(name, ()):
                if other not in layer:
                    found.pop(other, None)
        found |= layer
    return found
