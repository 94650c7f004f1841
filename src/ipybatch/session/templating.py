"""Templating: a template of a session, and a session of a template.

session --its arguments--> what is data, and the names of the rest --> file
template of a base --merged--> arguments --with items, and what it asks for--> session
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ipybatch.backends import Loop, Threads
from ipybatch.engine.data.clock import SystemClock
from ipybatch.engine.data.local_time import is_time_of_day, read_start, zone_of
from ipybatch.engine.data.policy import Breaker, Limits, Retry
from ipybatch.engine.data.spec import Spec
from ipybatch.errors import InputError
from ipybatch.session.workload import Workload, find_workload
from ipybatch.templates import shipped, toml_file
from ipybatch.templates.policies import read_notify, read_policies
from ipybatch.templates.template import OF_CALL, OWN_CODE, Template, WrongField, check_value, merged
from ipybatch.templates.values import FUNCTIONS, load_code, sayable

Made = TypeVar("Made")

_UNKNOWN = re.compile(
    r"\(\) got (?:an unexpected keyword|multiple values for) argument '(?P<argument>\w+)'(?P<hint>.*)"
)
APART = ("start_at", "notify")  # arguments that stand beside the others in a template: a submission has them too


def save(name: str, description: str, spec: Spec, work: Workload[Any] | None, start_at: Any = None) -> tuple[Path, str]:
    """Write the template of a session; return its file, and a line that says what no file can hold.

    Args:
        start_at: As the session was given it. Of a date, which comes once, the time of day is kept.

    Raises:
        InputError: The name is not what it must be, or the session was opened for reading.
        OSError: It cannot be written.
    """
    check_value(description, "description")
    base, given = (OWN_CODE, _own(spec)) if work is None else _of_workload(spec.name, work)
    ships = shipped.find_base(base)
    given.pop("start_at", None)
    apart, asks_apart = sayable({"notify": notify} if (notify := given.pop("notify", None)) is not None else {})
    if start_at is not None:
        apart |= {"start_at": _time_of_day(start_at, spec.limits.zone), "zone": spec.limits.zone}
    params, asks = sayable(given, names_code=base == OWN_CODE)
    asks += asks_apart
    params |= {key: None for key in ships.params if key not in given}  # else its value would hold
    made = Template(based_on=base, description=description, params=params, asks=asks, **apart)
    path = toml_file.write(name, made)
    left = f" without {_listed(asks)}: pass {'it' if len(asks) == 1 else 'them'} to from_template()" if asks else ""
    return path, f"template {name!r} was saved{left}"


def _time_of_day(start_at: Any, zone: str | None) -> str:
    if is_time_of_day(start_at):
        return str(start_at)
    here = zone_of(zone)
    return f"{dt.datetime.fromtimestamp(read_start(start_at, 0.0, here), here):%H:%M}"


def _start(template: Template, limits: Limits | None, clock: Any) -> str | dt.datetime:
    """Return when a session of a template starts, by the clocks that the template names.

    A time of day stays one, as the session's own clocks show it: what has begun by it goes on at once.

    Raises:
        WrongField: It is no time to come, or there is no such zone.
    """
    try:
        zone = zone_of(template.zone)
    except InputError as error:
        raise WrongField("zone", str(error), value=template.zone) from None
    now_s = (clock or SystemClock()).unix_s()
    try:
        at_s = read_start(template.start_at, now_s, zone)
    except InputError as error:
        raise WrongField("start_at", str(error), value=template.start_at) from None
    if is_time_of_day(template.start_at):
        own = zone_of(None if limits is None else limits.zone)
        time_of_day = f"{dt.datetime.fromtimestamp(at_s, own):%H:%M:%S}"
        if read_start(time_of_day, now_s, own) == at_s:  # not so where clocks are changed just then
            return time_of_day
    return dt.datetime.fromtimestamp(at_s, zone)


def _own(spec: Spec) -> dict[str, Any]:
    """Return the arguments of a session of one function, without those that are as by default."""
    settings = msgspec.json.decode(spec.keying.settings) if spec.keying.settings else None
    told = {
        "work": spec.work.call,
        "limits": None if spec.limits == Limits() else spec.limits,
        "retry": None if spec.retry == Retry() else spec.retry,
        "timeout_s": spec.timeout_s,
        "on_failure": None if spec.on_failure == "continue" else spec.on_failure,
        "resource": None if spec.is_private else spec.resource,
        "group_word": None if spec.group_word == "Batch" else spec.group_word,
        "settings": settings,
        "notify": spec.notify,
        "key": spec.keying.key,
        "backend": None if isinstance(spec.backend, Loop | Threads) else spec.backend,  # by what the function needs
        **{name: getattr(spec, name) for name in ("cost", "skip", "rank", "per", "priority")},
    }
    given = {name: value for name, value in told.items() if value is not None}
    return given if spec.breaker == Breaker() else {**given, "breaker": spec.breaker}


def _of_workload(name: str, work: Workload[Any]) -> tuple[str, dict[str, Any]]:
    work.check_complete(name)
    base, given = work.template()
    if base not in shipped.SHIPPED:
        msg = f"session {name!r} is a {work.session_class.__name__}, of which no template can be made"
        raise InputError(msg)
    return base, {key: value for key, value in given.items() if key not in OF_CALL}


def make(wanted: type[Made], plain: type[Any], name: str, data: Any, changes: dict[str, Any]) -> Made:
    """Return a session made from a template.

    Args:
        wanted: The class that is asked for; ``plain``: that of sessions of no workload.
        data: What is given anew; None where it is among the changes.

    Raises:
        InputError: The template or an argument is not what it must be, or one is missing.
    """
    template = shipped.SHIPPED[name] if name in shipped.SHIPPED else toml_file.read(name)
    workload, ships = shipped.workload_of(template.based_on), shipped.find_base(template.based_on)
    kind = find_workload(workload)
    made = plain if kind is None else kind.session_class
    if not issubclass(made, wanted):
        msg = f"template {name!r} makes a {made.__name__}, not a {wanted.__name__}: use {made.__name__}.from_template()"
        raise InputError(msg)
    takes = shipped.about(workload).takes
    if data is not None:
        if takes in changes:
            msg = f"{takes} must be given once, got it in its place and as {takes}="
            raise InputError(msg)
        changes = {takes: data, **changes}
    replaces = shipped.about(workload).replaces
    apart = {key: value for key in APART if (value := getattr(template, key)) is not None}
    own = merged([ships.params, template.params, apart], replaces)
    with _telling(name, template, changes):
        arguments = read_policies(_left(own, changes, replaces))
        if "notify" in arguments:
            arguments["notify"] = read_notify(arguments["notify"])
        if template.zone is not None and "start_at" in arguments:
            limits = changes.get("limits", arguments.get("limits"))
            arguments["start_at"] = _start(template, limits, clock=changes.get("clock"))
        arguments |= changes
        if kind is None:
            arguments |= _load_functions(arguments, changes)
        _check_asked(name, template, takes, arguments, is_own=kind is None)
        made_of: Made = _own_session(plain, name, arguments) if kind is None else kind.from_template(name, arguments)
    return made_of


def _left(own: dict[str, Any], changes: Mapping[str, Any], replaces: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return the arguments of a template that hold beside those that are given in their place."""
    return {name: value for name, value in merged([own, changes], replaces).items() if name not in changes}


def _load_functions(arguments: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the functions that a template names.

    Raises:
        WrongField: There is no such function.
    """
    named = {name: arguments[name] for name in FUNCTIONS if name in arguments and name not in changes}
    return {
        name: load_code(value, f"params.{name}") if isinstance(value, str) else value for name, value in named.items()
    }


def _check_asked(name: str, template: Template, takes: str, given: Mapping[str, Any], *, is_own: bool) -> None:
    """Refuse to make a session without what its template asks for.

    Raises:
        InputError: Says what to pass.
    """
    asked = dict.fromkeys([*(["work"] if is_own else []), takes, *template.asks])
    if missing := [key for key in asked if given.get(key) is None and (key in (takes, "work") or key not in given)]:
        those = " and ".join(f"{key}=" for key in missing)
        msg = f"template {name!r} needs {_listed(missing)}, which no template holds: pass {those} to go on"
        raise InputError(msg)


def _own_session(plain: type[Any], name: str, arguments: dict[str, Any]) -> Any:
    work, items = arguments.pop("work"), arguments.pop("items")
    return plain(arguments.pop("name", name), work, items, **arguments)


@contextmanager
def _telling(name: str, template: Template, changes: Mapping[str, Any]) -> Iterator[None]:
    """Say in which template an argument is wrong, where it comes from one, and which one no session of it takes.

    Raises:
        WrongField: It does.
        InputError: There is no such argument.
    """
    try:
        yield
    except WrongField as error:
        told = {"value": error.value, "allowed": error.allowed, "next_step": error.next_step}
        raise WrongField(error.field, f"template {name!r}: {error}", **told) from None
    except (InputError, TypeError) as error:
        if isinstance(error, TypeError) and (unknown := _UNKNOWN.search(str(error))) and unknown["argument"] in changes:
            base = template.based_on
            whose = "" if base in ("", OWN_CODE, name) else f", which is based on {base!r},"
            msg = f"template {name!r}{whose} takes no argument {unknown['argument']}{unknown['hint']}"
            raise InputError(msg) from None
        own = template.params | {key: value for key in APART if (value := getattr(template, key)) is not None}
        field = next((word for word in re.findall(r"\w+", str(error))[:8] if word in own), "")
        if not field or field in changes:
            raise
        where = field if field in APART else f"params.{field}"
        raise WrongField(where, f"template {name!r}: {where}: {error}", value=own[field]) from None


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
