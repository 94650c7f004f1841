"""Policies as data: limits, retry and breaker, to tables and back.

    Limits(concurrency=3, rates=[Rate(9, per_s=1)])  <-->  {"concurrency": 3, "rates": [{"limit": 9, "per_s": 1}]}

Rule: a policy of which a part is no data, such as a limiter of the user's own, is no data at all: the rest of it alone
would be faster than was asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ipybatch.engine.data.local_time import Hours
from ipybatch.engine.data.notice import Notify
from ipybatch.engine.data.plan import short
from ipybatch.engine.data.policy import Breaker, Limits, Rate, Retry
from ipybatch.errors import InputError
from ipybatch.templates.template import WrongField, near

T = TypeVar("T", bound="Limits | Retry | Breaker | Rate | Notify")

KINDS: Mapping[str, type[Limits | Retry | Breaker]] = {"limits": Limits, "retry": Retry, "breaker": Breaker}

_NO_DATA: Mapping[type[Any], tuple[str, ...]] = {Limits: ("also", "shared", "pacer"), Retry: ("on",)}


def as_table(policy: Limits | Retry | Breaker | Rate | Notify) -> dict[str, Any]:
    """Return a policy as a table: its first value, and those that are not the default.

    Raises:
        TypeError: A part of it is no data.
    """
    table: dict[str, Any] = {}
    for place, field in enumerate(dataclasses.fields(policy)):
        value = getattr(policy, field.name)
        if place and value == field.default:
            continue
        table[field.name] = _as_data(value)
    return table


def _as_data(value: Any) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Path():
            return str(value)
        case Hours():
            parts = [part.strip() for part in value.text.split(",")]  # each by itself means one thing
            return parts[0] if len(parts) == 1 else parts
        case Limits() | Rate():
            return as_table(value)
        case list() | tuple():
            return [_as_data(each) for each in value]
        case dict() if all(isinstance(key, str) for key in value):
            return {key: _as_data(each) for key, each in value.items()}
    msg = f"a {type(value).__name__} is no data"
    raise TypeError(msg)


def as_names(notify: Notify) -> Any:
    """Return who is told of a session as a name, as names, or as a table where there is more to it."""
    table = as_table(notify)
    if len(table) > 1:
        return table
    names = table["channels"]
    return names[0] if len(names) == 1 else names


def read_notify(told: Any, field: str = "notify") -> Any:
    """Return who is told of a session as ``notify=`` takes it.

    Raises:
        WrongField: A table is not what it must be.
    """
    return read_policy(Notify, told, field) if isinstance(told, Mapping) else told


def read_policies(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters in which the tables of limits, retry and breaker are policies.

    Raises:
        WrongField: One is not what it must be.
    """
    found = {
        name: read_policy(kind, params[name], f"params.{name}")
        for name, kind in KINDS.items()
        if params.get(name) is not None
    }
    return {**params, **found}


def read_policy(kind: type[T], table: Any, field: str) -> T:
    """Return a table as a policy.

    Raises:
        WrongField: Names the key, its value and what it may be.
    """
    known = [each.name for each in dataclasses.fields(kind)]
    if not isinstance(table, Mapping):
        hint = "; for none, null" if kind is Breaker else ""
        msg = f"{field} must be a table of {', '.join(known)}{hint}, got {short(table)}"
        raise WrongField(field, msg, value=table, allowed=known)
    arguments: dict[str, Any] = {}
    for name, value in table.items():
        if name not in known:
            msg = f"{field} must not have {name!r}{near(name, known) or ': it has ' + ', '.join(known)}"
            raise WrongField(f"{field}.{name}", msg, value=value, allowed=known)
        if name == "rates":
            listed = value if isinstance(value, list) else [value]
            arguments[name] = [read_policy(Rate, each, f"{field}.rates[{at}]") for at, each in enumerate(listed)]
        elif name == "each" and value is not None:
            arguments[name] = _read_each(value, f"{field}.each")
        elif name in _NO_DATA.get(kind, ()):
            msg = f"{field}.{name} must be left out: no file can hold it, pass {field.removeprefix('params.')}="
            raise WrongField(f"{field}.{name}", msg)
        else:
            arguments[name] = value
    try:
        return kind(**arguments)
    except (InputError, TypeError) as error:
        where = str(error).partition(" ")[0]
        said = f"{field}.{error}" if where in table else f"{field}: {error}"
        at = f"{field}.{where}" if where in table else field
        raise WrongField(at, said, value=table.get(where)) from None


def _read_each(value: Any, field: str) -> Limits | dict[str, Limits]:
    """Return limits of every group, or, of a table of tables, those of each by its name or kind."""
    if isinstance(value, Mapping) and value and all(isinstance(each, Mapping) for each in value.values()):
        return {name: read_policy(Limits, each, f"{field}.{name}") for name, each in value.items()}
    return read_policy(Limits, value, field)
