"""Values: which arguments of Python a template can hold, and as what."""

from __future__ import annotations

import datetime as dt
import importlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ipybatch.engine.data.notice import Notify
from ipybatch.engine.data.plan import as_json, short
from ipybatch.engine.data.policy import Breaker, Limits, Retry
from ipybatch.templates.policies import as_names, as_table
from ipybatch.templates.template import WrongField, check_param

FUNCTIONS = ("work", "key", "cost", "skip", "rank", "priority", "per")  # arguments of a session of the user's own code


def as_data(value: Any) -> Any:
    """Return an argument as JSON and TOML can hold it.

    Raises:
        TypeError: They cannot, or it would not be the same when it is read.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Limits | Retry | Breaker):
        return as_table(value)
    if isinstance(value, Notify):
        return as_names(value)
    if isinstance(value, list | tuple):
        return [as_data(each) for each in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: as_data(each) for key, each in value.items()}
    return _as_plain(value)


def _as_plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, set | frozenset) and all(isinstance(each, str) for each in value):
        return sorted(value)
    if (isinstance(value, int | float) or type(value).__module__ == "numpy") and math.isfinite(plain := as_json(value)):
        return plain
    msg = f"a {type(value).__name__} is no data"
    raise TypeError(msg)


def sayable(arguments: Mapping[str, Any], *, names_code: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Return the arguments that a template can hold, and the names of the others.

    Args:
        names_code: Whether functions that can be imported are held by their names.
    """
    held: dict[str, Any] = {}
    asked = []
    for name, value in arguments.items():
        try:
            data = _code_name(value) if names_code and name in FUNCTIONS and callable(value) else as_data(value)
            check_param(name, data)
        except (TypeError, ValueError, RecursionError):  # `WrongField` is a ValueError
            asked.append(name)
        else:
            held[name] = data
    return held, asked


def _code_name(function: Callable[..., Any]) -> str:
    """Return where a function is imported from, as "module:name".

    Raises:
        TypeError: It cannot be: it belongs to a notebook or a script, or is made by another function.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not module or not name or module == "__main__" or "<" in name:
        msg = f"{short(function)} is not imported from anywhere"
        raise TypeError(msg)
    try:
        found = _find(module, name)
    except (ImportError, AttributeError):
        found = None
    if found is not function:
        msg = f"{short(function)} is not what {module}:{name} is"
        raise TypeError(msg)
    return f"{module}:{name}"


def load_code(name: str, field: str) -> Callable[..., Any]:
    """Return the function that a template names as "module:name".

    Raises:
        WrongField: There is none.
    """
    module, _, path = name.partition(":")
    if not module or not path or module == "__main__":
        msg = f"{field} must name a function as 'module:name', got {name!r}"
        raise WrongField(field, msg, value=name)
    try:
        found = _find(module, path)
    except (ImportError, AttributeError) as error:
        step = f"pass {field.removeprefix('params.')}=, or start Python where {module} can be imported"
        msg = f"{field} must name a function that can be imported, got {name!r}: {error}; {step}"
        raise WrongField(field, msg, value=name, next_step=step) from None
    if not callable(found):
        msg = f"{field} must name a function, got {name!r}, which is a {type(found).__name__}"
        raise WrongField(field, msg, value=name)
    made: Callable[..., Any] = found
    return made


def _find(module: str, path: str) -> Any:
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found
