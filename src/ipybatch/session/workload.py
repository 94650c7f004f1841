"""Workload: work that is more than one function, bound to its session by the constructor and by `open()` alike.

    refresh(), generate(), forecast() --> Workload --bind--> session --its name--> journal
    BatchSession.open(name) <-- Workload.open <-- entry point <-----------------------+

A workload is a folder with one subclass, which is registered in the
entry-point group ``ipybatch.workloads`` under its name; ours are registered
the same way, so the session imports none of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from ipybatch.engine.data.fact import Fact
from ipybatch.engine.data.plan import as_json
from ipybatch.engine.store.run_store import Found
from ipybatch.errors import InputError

Session = TypeVar("Session")

GROUP = "ipybatch.workloads"


class Workload(Generic[Session]):
    """The work of a session, with all that its session class needs of it. Subclasses are callable with an item.

    Attributes:
        name: What the journal records; the name of the entry point.
        needs: The argument of `open` without which a recorded session can only be read, such as "demand".
        session_class: What `open` gives back.
        replaces: Whether an item whose input changed takes the place of its answer on record. Where answers are paid,
            it does so only when its user passed ``replace=True``. For items that are a list.
        lacks: Why this one can only be read; "" when it can run.
        about: What is recorded beside the name, as JSON holds it, for `reading` and `going_on`; no secrets.
        given: The arguments that its maker was given, as they were; what a template is made of. See `given_to`.
    """

    name: ClassVar[str] = ""
    needs: ClassVar[str] = "work"
    session_class: ClassVar[type[Any]]
    replaces: bool = True
    lacks: str = ""
    about: Mapping[str, Any] = MappingProxyType({})
    given: Mapping[str, Any] = MappingProxyType({})
    session: Session

    def bind(self, session: Session) -> None:
        """Belong to a session: called once, at the end of its constructor."""
        self.session = session

    def facts(self, *, is_over: bool) -> list[Fact]:
        """Return what the panel shows of the work itself, four figures at most: it is asked a few times a second.

        While it runs, always as many of the same titles, so that nothing moves: what is not known yet is `fact.NONE`.

        Args:
            is_over: Whether it runs no more; then what is returned is recorded, for whoever opens the session later.
        """
        return []

    def left_s(self) -> tuple[float, float] | None:
        """Return the seconds left, at best and at worst, of work whose items differ much; None: as the others took."""
        return None

    @classmethod
    def open(cls, name: str, journal: Path, found: Found, items: Any, arguments: dict[str, Any]) -> Session:
        """Return a recorded session: one that can run where `needs` is among the arguments, else one to read.

        Args:
            items: As they are recorded.
            arguments: What `BatchSession.open` was given.

        Raises:
            InputError: An argument is not what it must be.
        """
        about = msgspec.json.decode(found.about) if found.about else {}
        about.pop("unrecorded", None)
        missing = [f"{field}=" for field in unrecorded(found) if field not in arguments]
        if arguments.get(cls.needs) is not None:
            if missing:
                names = ", ".join(missing)
                msg = f"session {name!r} was made with {names}, which the journal cannot hold: pass it too"
                raise InputError(msg)
            return cls.going_on(name, journal, about, items, arguments)
        work = cls.reading(name, journal, about)
        work.lacks = f"pass {cls.needs}= to go on"
        session: Session = cls.session_class(
            name, work, items, journal=journal, group_word=found.group_word, **arguments
        )
        return session

    @classmethod
    def reading(cls, name: str, journal: Path, about: Mapping[str, Any]) -> Workload[Session]:
        """Return the workload of a recorded session that is only read."""
        return cls()

    @classmethod
    def going_on(
        cls, name: str, journal: Path, about: Mapping[str, Any], items: Any, arguments: dict[str, Any]
    ) -> Session:
        """Return the session made anew from what is recorded and what `open` was given.

        Args:
            items: As they are recorded.
            arguments: With ``needs`` among them.

        Raises:
            InputError: An argument is not what it must be.
        """
        raise NotImplementedError

    def template(self) -> tuple[str, dict[str, Any]]:
        """Return the template that ships and that this work is based on, and the arguments it was made with.

        What of these is no data is asked for when the template is used.
        """
        return self.name, dict(self.given)

    @classmethod
    def from_template(cls, name: str, arguments: dict[str, Any]) -> Session:
        """Return the session made anew with the arguments of a template, and what is given anew among them.

        Args:
            name: Of the template: a session that is not named has it, unless another default is better.

        Raises:
            InputError: An argument is not what it must be, or there is no template of this work.
        """
        msg = f"a {cls.__name__} cannot be made from a template"
        raise InputError(msg)

    def check_complete(self, name: str) -> None:
        """Refuse what a session that is only read cannot do.

        Raises:
            InputError: Says what to pass to `open`.
        """
        if self.lacks:
            msg = f"session {name!r} was opened for reading: {self.lacks}"
            raise InputError(msg)

    async def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Run one attempt; one that `lacks` something is never called.

        Raises:
            NotImplementedError: The subclass does not say how.
        """
        raise NotImplementedError


class ReadOnly(Workload[Any]):
    """Stands in for the function of a session that is only read."""

    lacks = "pass work= to go on"


def given_to(maker: Callable[..., Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that a maker of sessions was given, without its first and those that are as by default.

    The first is the data, such as a table: it is given anew each time, and must not be held in memory here.

    Args:
        variables: Its `locals`, before any other is made.
    """
    found: dict[str, Any] = {}
    _, *parameters = inspect.signature(maker).parameters.items()
    for name, parameter in parameters:
        value = variables[name]
        if parameter.kind is parameter.VAR_KEYWORD:
            found |= value
        elif parameter.default is parameter.empty or not _is_same(value, parameter.default):
            found[name] = value
    return found


def _is_same(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and value == default)


def recordable(given: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the named arguments that the journal can hold, and under "unrecorded" the names of the others."""
    kept: dict[str, Any] = {"unrecorded": []}
    for name in names:
        value = given[name]
        try:
            kept[name] = as_json(value)
        except (TypeError, ValueError, msgspec.MsgspecError):
            kept["unrecorded"].append(name)
    return kept


def unrecorded(found: Found) -> list[str]:
    """Return the arguments that a recorded session was made with, and that the journal could not hold."""
    return list(msgspec.json.decode(found.about).get("unrecorded", ())) if found.about else []


def encode_about(workload: Workload[Any] | None) -> str:
    """Return what a workload records beside its name, as JSON; "" for no workload."""
    return "" if workload is None else msgspec.json.encode(dict(workload.about)).decode()


def find_workload(name: str) -> type[Workload[Any]] | None:
    """Return the workload that is registered under a name; None for no name, or when its package is not installed."""
    if not name:
        return None
    from importlib.metadata import entry_points

    for entry in entry_points(group=GROUP, name=name):
        found: type[Workload[Any]] = entry.load()
        return found
    return None
