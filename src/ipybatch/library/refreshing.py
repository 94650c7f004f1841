"""Refreshing: a session that brings a library up to date.

    items --judge--> stale: the stalest first --> fetch --> library.put --> outcome
             |
             +-----> fresh: skipped

Items are judged when the run is planned, and the plan keeps the verdict: a run that was interrupted goes on with what
it decided, however long that is ago.  An unfinished run of the same name goes on; a finished one is
followed by a new one.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any, Unpack

from ipybatch import checks
from ipybatch.arguments import SessionArguments
from ipybatch.engine import events, ledger
from ipybatch.engine.attempt import Attempt
from ipybatch.engine.clock import Clock, SystemClock
from ipybatch.engine.journal import Journal, open_journal
from ipybatch.errors import InputError, JournalError, Refused
from ipybatch.library.records import Library, Record
from ipybatch.library.source import Defaults, Source
from ipybatch.library.staleness import STALENESS, Staleness, age_in_words, staleness
from ipybatch.session import BatchSession

_FINISHED = frozenset({"completed", "rolled_back"})

_breakers: dict[str, events.BreakerState] = {}


def refresh(
    items: Iterable[Any],
    *,
    source: Source,
    library: Library | None = None,
    name: str | None = None,
    force: bool = False,
    **arguments: Unpack[SessionArguments],
) -> BatchSession:
    """Return a session, not yet started, that fetches what is missing or stale, the stalest first, and skips the rest.

    A result is a small dict: kind, name, fetched_at_s, and the staleness before; the record itself is in the library.

    Args:
        items: What the source takes: app ids for `SteamStore`. All are checked before the first request.
        source: Where the records come from.
        library: Where they go; default: `Library()`.
        name: Of the session; default: the source's, such as "steam refresh".
        force: Fetch the fresh ones too.
        arguments: As for `BatchSession`: limits, retry, breaker, journal, fresh, timeout_s, on_failure, resource,
            on_progress, verbose, clock. Each replaces the source's default; ``fresh=True`` gives an unfinished run up.

    Raises:
        InputError: An item or an argument is not what it must be; nothing was started.
        JournalError: Library or journal is damaged or cannot be written.

    Example:
        >>> from ipybatch.library import Library, SteamStore, refresh
        >>> from ipybatch.simulators import serve
        >>> with serve("steam") as url:
        ...     session = refresh([440, 570], source=SteamStore(url), library=Library("games.db"))
        ...     print(session.run())
        steam refresh completed: 2/2 successful, 0 failed, 0 skipped
    """
    _check(source, library)
    listed = list(checks.check_items(items))
    for item in listed:
        source.identify(item)
    defaults = source.defaults()
    name = name if name is not None else defaults.name
    checks.check_name(name)
    chosen = _choose(defaults, arguments)
    journal = open_journal(chosen["journal"])
    clock = chosen["clock"] or SystemClock()
    work = Refreshing(source, Library() if library is None else library, journal, name, clock)
    session = BatchSession(
        name,
        work,
        listed,
        key=work.key,
        rank=work.rank,
        skip=None if force else work.skip,
        settings=defaults.settings,
        **{**chosen, "clock": clock, "fresh": chosen["fresh"] or _has_finished(journal, name)},
    )
    _follow_breaker(session, chosen["resource"])
    return session


def breaker_state(source: Source) -> events.BreakerState:
    """Return where the breaker of the latest session on this source's service stands, of those in this process."""
    return _breakers.get(source.defaults().resource, "closed")


class Refreshing:
    """The work: fetch an item's record and keep it."""

    def __init__(self, source: Source, library: Library, journal: Journal, name: str, clock: Clock) -> None:
        self._source, self._library, self._clock = source, library, clock
        self._journal, self._name = journal, name
        self._judged: dict[str, Staleness] = {}

    def key(self, item: Any) -> Any:
        """Return what the journal knows the item by."""
        return self._source.identify(item).key

    def rank(self, item: Any) -> int:
        """Return 0 for the stalest, to be the first."""
        return STALENESS.index(staleness(self._fetched_at_s(item), self._clock.unix_s()))

    def skip(self, item: Any) -> str:
        """Return why the item need not be fetched, "" if it must."""
        fetched_at_s, now_s = self._fetched_at_s(item), self._clock.unix_s()
        if fetched_at_s is None or staleness(fetched_at_s, now_s) != "fresh":
            return ""
        return f"fresh: fetched {age_in_words(now_s - fetched_at_s)} ago"

    async def __aenter__(self) -> Refreshing:
        """Enter the source and read what the plan decided: the library has moved on when a run is resumed."""
        with self._journal.reader() as database:
            found = ledger.find(database, self._name)
            tasks = () if found is None else ledger.read_plan(database, found)
            self._judged = {task.key: STALENESS[task.rank] for task in tasks}
        await self._source.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the source."""
        await self._source.__aexit__(kind, error, trace)

    async def __call__(self, item: Any, attempt: Attempt) -> dict[str, Any]:
        """Fetch one record, keep it, and say so."""
        who = self._source.identify(item)
        data = await self._source.fetch(item, attempt)
        record = Record(kind=who.kind, key=who.key, place=who.place, fetched_at_s=self._clock.unix_s(), data=data)
        try:
            self._library.put(record)
        except JournalError as error:  # no item can be kept any more: stop, instead of fetching for nothing
            raise Refused(str(error)) from error
        return {
            "kind": who.kind,
            "name": data.get("name", ""),
            "fetched_at_s": record.fetched_at_s,
            "staleness": self._judged[attempt.key],
        }

    def _fetched_at_s(self, item: Any) -> float | None:
        who = self._source.identify(item)
        return self._library.fetched_at_s(who.kind, who.key, who.place)


def _check(source: Any, library: Any) -> None:
    if not callable(getattr(source, "fetch", None)) or isinstance(source, type):
        msg = f"source must be a service such as SteamStore(), got {source!r}"
        raise InputError(msg)
    if library is not None and not isinstance(library, Library):
        msg = f"library must be Library(path) or None, got {library!r}"
        raise InputError(msg)


def _choose(defaults: Defaults, arguments: SessionArguments) -> dict[str, Any]:
    chosen: dict[str, Any] = {
        "limits": defaults.limits,
        "retry": defaults.retry,
        "breaker": defaults.breaker,
        "timeout_s": defaults.timeout_s,
        "resource": defaults.resource,
        "journal": None,
        "clock": None,
        "fresh": False,
    }
    given = {field: value for field, value in arguments.items() if value is not None or field == "breaker"}
    return chosen | given


def _has_finished(journal: Journal, name: str) -> bool:
    with journal.reader() as database:
        found = ledger.find(database, name)
    return found is not None and found.state in _FINISHED


def _follow_breaker(session: BatchSession, resource: str) -> None:
    def follow(event: events.Event) -> None:
        if isinstance(event, events.BreakerMoved):
            _breakers[resource] = event.state
        elif isinstance(event, events.StateChanged) and event.state == "running":
            _breakers[resource] = session.snapshot.breaker.state

    session.on(follow)
