"""`refresh`: a session that fetches the missing and stale records of a library.

    items --judge--> stale: the stalest first --> fetch --> library.put --> outcome
      ^      |                                          |
      |      +-----> fresh: skipped                     |
      +---- members of a guild, where expand= says so --+

Items are judged when the run is planned, and the plan keeps the result: an interrupted run continues as it was planned,
however long ago that was.  An unfinished run of the same name continues; a finished one is followed by a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast

from ipybatch.engine.data import events
from ipybatch.engine.data.clock import Clock, SystemClock
from ipybatch.engine.data.items import read_whole
from ipybatch.engine.data.outcome import Summary
from ipybatch.engine.data.plan import canonical, key_value
from ipybatch.engine.run.attempt import Attempt
from ipybatch.engine.store import run_store
from ipybatch.engine.store.journal import Journal, open_journal
from ipybatch.errors import InputError, ItemError, JournalError, Refused
from ipybatch.library.records import STALENESS, Library, Record, Staleness, age_in_words, staleness
from ipybatch.library.source import Defaults, Expanding, Identity, Source
from ipybatch.session.arguments import SessionArguments, check_name
from ipybatch.session.session import BatchSession
from ipybatch.session.workload import Workload

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

COLUMNS = ("total", "completed", "failed", "timeout", "cancelled", "skipped", "pending")

_FINISHED = frozenset({"completed", "rolled_back"})

_breakers: dict[str, events.BreakerState] = {}


class RefreshSummary(Summary, frozen=True, eq=False):
    """The summary of a refresh.

    Attributes:
        session: The session whose items `by` counts, at the time of the call.
    """

    session: RefreshSession

    def by(self, column: str) -> pd.DataFrame:
        """Return the number of items by status, one row per kind, in the order in which the kinds first appear.

        Args:
            column: "kind".

        Raises:
            InputError: ``column`` is not "kind".
        """
        import pandas as pd

        if column != "kind":
            msg = f"column must be 'kind', got {column!r}"
            raise InputError(msg)
        rows: dict[str, dict[str, Any]] = {}
        results = self.session.results()
        kinds = cast("Refreshing | RecordedRefresh", self.session.workload).kinds(results)
        for kind, status in zip(kinds, results["status"], strict=True):
            row = rows.setdefault(kind, dict.fromkeys(COLUMNS, 0))
            row["total"] += 1
            row[status] = row.get(status, 0) + 1
        frame = pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS)
        return frame.rename_axis("kind").astype(int)


class RefreshSession(BatchSession):
    """The session of a refresh."""

    @property
    def summary(self) -> RefreshSummary:
        """The summary so far."""
        so_far = super().summary
        return RefreshSummary(so_far.name, so_far.state, so_far.counts, so_far.reason, so_far.seconds, self)


def refresh(
    items: Iterable[Any],
    *,
    source: Source,
    library: Library | None = None,
    name: str | None = None,
    force: bool = False,
    expand: str | None = None,
    **arguments: Unpack[SessionArguments],
) -> RefreshSession:
    """Return a session, not yet started, that fetches missing and stale records, the stalest first, and skips the rest.

    A result is a small dict: kind, name, fetched_at_s, and the staleness before; the record itself is in the library.
    ``session.summary.by("kind")`` returns the number of items by kind and status.

    Args:
        items: App ids for `SteamStore`; guilds and characters for `BattleNet`, which fetches guilds first. All items
            are checked before the first request.
        source: Service that gives the records.
        library: Library that takes the records; default: `Library()`.
        name: Name of the session; default: that of the source, such as "steam refresh".
        force: Fetch fresh records too.
        expand: "roster" adds the members of guilds to the items of the session.
        arguments: As for `BatchSession`: limits, retry, breaker, journal, fresh, timeout_s, on_failure, resource,
            on_progress, verbose, clock, priority, per. Each replaces the source's default; ``fresh=True`` gives an
            unfinished run up.

    Raises:
        InputError: An item or an argument is invalid; nothing was started.
        JournalError: The library or the journal is damaged or cannot be written.

    Example:
        >>> from ipybatch.library import Library, SteamStore, refresh
        >>> from ipybatch.simulators import serve
        >>> with serve("steam") as url:
        ...     session = refresh([440, 570], source=SteamStore(url), library=Library("games.db"))
        ...     print(session.run())
        steam refresh completed: 2/2 successful, 0 failed, 0 skipped
    """
    _check(source, library)
    identities = [source.identify(item) for item in read_whole(items).items]
    listed = [identity.key for identity in identities]
    defaults = source.defaults()
    _check_expand(expand, defaults)
    name = name if name is not None else defaults.name
    check_name(name)
    chosen = _choose(defaults, arguments)
    journal = open_journal(chosen["journal"])
    clock = chosen["clock"] or SystemClock()
    kinds = {str(identity.turn): identity.kind for identity in identities}
    work = Refreshing(
        source,
        Library() if library is None else library,
        clock,
        expand=expand or "",
        about={"force": force, "expand": expand or "", "kinds": kinds},
    )
    return RefreshSession(
        name,
        work,
        listed if force else work.with_members(listed),
        key=work.key,
        rank=work.rank,
        skip=None if force else work.skip,
        settings=defaults.settings,
        **{**chosen, "clock": clock, "fresh": chosen["fresh"] or _has_finished(journal, name)},
    )


def breaker_state(source: Source) -> events.BreakerState:
    """Return the state of the circuit breaker in this process's latest session on the service of a source."""
    return _breakers.get(source.defaults().resource, "closed")


class RecordedRefresh(Workload[RefreshSession]):
    """The workload of a refresh opened without its source, for reading only.

    Args:
        kinds: Kinds by turn, the turn as text.
    """

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self._kinds = kinds

    def kinds(self, results: pd.DataFrame) -> list[str]:
        """Return the kind of each row: the plan ranks items by the turn of their kind."""
        with open_journal(self.session.journal).reader() as database:
            found = run_store.find(database, self.session.name)
            tasks = [] if found is None else list(run_store.read_plan(database, found))
        turns = {key_value(task.key): str(task.rank // len(STALENESS)) for task in tasks}
        rows = zip(results["key"], results.get("kind", ()), strict=False)
        named = {turns[key]: kind for key, kind in rows if isinstance(kind, str)}
        named.update(self._kinds)
        return [named.get(turns.get(key, ""), "unknown") for key in results["key"]]


class Refreshing(Workload[RefreshSession]):
    """The workload of a refresh: fetch the record of an item and put it into the library."""

    name = "refresh"
    needs = "source"
    session_class = RefreshSession

    def __init__(
        self, source: Source, library: Library, clock: Clock, *, expand: str, about: Mapping[str, Any]
    ) -> None:
        self._source, self._library, self._clock = source, library, clock
        self._expand, self.about = expand, about
        self._judged: dict[str, Staleness] = {}

    def bind(self, session: RefreshSession) -> None:
        """Belong to a session, and follow its circuit breaker for `breaker_state`."""
        super().bind(session)
        resource = session.policy.resource

        def follow(event: events.Event) -> None:
            if session.elsewhere is not None:  # its breaker is not on record
                return
            if isinstance(event, events.BreakerMoved):
                _breakers[resource] = event.state
            elif isinstance(event, events.StateChanged) and event.state == "running":
                _breakers[resource] = session.snapshot.breaker.state

        session.on(follow)

    @classmethod
    def reading(cls, name: str, journal: Path, about: Mapping[str, Any]) -> RecordedRefresh:
        """Return the workload of a session without its source: it has results, and counts by kind and status."""
        return RecordedRefresh(about["kinds"])

    @classmethod
    def going_on(
        cls, name: str, journal: Path, about: Mapping[str, Any], items: Any, arguments: dict[str, Any]
    ) -> RefreshSession:
        """Return the session made again with ``source=`` and, if it is not the default, ``library=``.

        Raises:
            InputError: An argument is invalid.
        """
        kept = {"force": about["force"], "expand": about["expand"] or None}
        return refresh([task.item for task in items], **{**kept, "name": name, "journal": journal, **arguments})

    def kinds(self, results: pd.DataFrame) -> list[str]:
        """Return the kind of each row."""
        return [self._source.identify(key).kind for key in results["key"]]

    def key(self, item: Any) -> Any:
        """Return the key of the item in the journal."""
        return self._source.identify(item).key

    def rank(self, item: Any) -> int:
        """Return the order of the item: by the turn of its kind, within a kind the stalest first."""
        identity = self._source.identify(item)
        verdict = staleness(self._fetched_at_s(identity), self._clock.unix_s())
        self._judged[canonical(identity.key)] = verdict  # an item added during the run is not in the plan yet
        return identity.turn * len(STALENESS) + STALENESS.index(verdict)

    def skip(self, item: Any) -> str:
        """Return why the item is skipped; "" if it has to be fetched."""
        identity = self._source.identify(item)
        fetched_at_s, now_s = self._fetched_at_s(identity), self._clock.unix_s()
        if fetched_at_s is None or staleness(fetched_at_s, now_s) != "fresh":
            return ""
        if self._expands(identity) and self._members(identity) is None:
            return ""
        return f"fresh: fetched {age_in_words(now_s - fetched_at_s)} ago"

    def with_members(self, listed: list[Any]) -> list[Any]:
        """Return the items, and the members of fresh ones, which are not fetched and so add none during the run."""
        if not self._expand:
            return listed
        known = {canonical(key) for key in listed}
        found = [one for key in listed if self.skip(key) for one in self._members(self._source.identify(key)) or ()]
        return listed + [one for one in dict.fromkeys(found) if canonical(one) not in known]

    async def __aenter__(self) -> Refreshing:
        """Enter the source, and read the planned staleness: when a run is resumed, the library has changed."""
        with open_journal(self.session.journal).reader() as database:
            found = run_store.find(database, self.session.name)
            tasks = () if found is None else run_store.read_plan(database, found)
            self._judged.update((task.key, STALENESS[task.rank % len(STALENESS)]) for task in tasks)
        await self._source.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the source."""
        await self._source.__aexit__(kind, error, trace)

    async def __call__(self, item: Any, attempt: Attempt) -> dict[str, Any]:
        """Fetch one record, put it into the library, and return its name and time."""
        identity = self._source.identify(item)
        kept = self._use_library(lambda: self._library.get(identity.kind, identity.key, identity.place))
        data = await self._source.fetch(item, attempt, None if kept is None else kept.data, self._expand)
        members = self._named_in(identity, data)
        record = Record(
            kind=identity.kind, key=identity.key, place=identity.place, fetched_at_s=self._clock.unix_s(), data=data
        )
        self._use_library(lambda: self._library.put(record))
        if members:
            attempt.add(members)
        return {
            "kind": identity.kind,
            "name": data.get("name", ""),
            "fetched_at_s": record.fetched_at_s,
            "staleness": self._judged[attempt.key],
        }

    def _use_library(self, use: Callable[[], T]) -> T:
        """Use the library; if that fails, stop the session instead of fetching records that cannot be kept."""
        try:
            return use()
        except JournalError as error:
            raise Refused(str(error)) from error

    def _fetched_at_s(self, identity: Identity) -> float | None:
        return self._library.fetched_at_s(identity.kind, identity.key, identity.place)

    def _members(self, identity: Identity) -> list[Any] | None:
        """Return the members in the library's record of a guild; None without a readable list."""
        kept = self._library.get(identity.kind, identity.key, identity.place) if self._expands(identity) else None
        try:
            return None if kept is None else self._named_in(identity, kept.data)
        except ItemError:  # then it is fetched again
            return None

    def _named_in(self, identity: Identity, data: Mapping[str, Any]) -> list[Any] | None:
        if not self._expands(identity):
            return None
        return cast("Expanding", self._source).expand(self._expand, data)

    def _expands(self, identity: Identity) -> bool:
        return bool(self._expand) and cast("Expanding", self._source).can_expand(self._expand, identity.kind)


def _check(source: Any, library: Any) -> None:
    if not callable(getattr(source, "fetch", None)) or isinstance(source, type):
        msg = f"source must be a service such as SteamStore(), got {source!r}"
        raise InputError(msg)
    if library is not None and not isinstance(library, Library):
        msg = f"library must be Library(path) or None, got {library!r}"
        raise InputError(msg)


def _check_expand(expand: Any, defaults: Defaults) -> None:
    if expand is not None and expand not in defaults.expands:
        allowed = ", ".join([*map(repr, defaults.expands), "None"])
        msg = f"expand must be {'one of ' if defaults.expands else ''}{allowed} for this source, got {expand!r}"
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
        found = run_store.find(database, name)
    return found is not None and found.state in _FINISHED
