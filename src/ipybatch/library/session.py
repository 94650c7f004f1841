"""`refresh`: a session that fetches the missing and stale records of a library.

    items --judge--> stale: the stalest first --> fetch --> library.put --> outcome
      ^      |                                          |
      |      +-----> fresh, or not there: skipped       |
      +---- members of a guild, where expand= says so --+

The library is a cache, and every start judges anew: it is a new run of the name, whether the one before was finished,
cancelled or killed.  That loses nothing, because the library has what was fetched: it is fresh, for a day.  Only
`retry_failed` goes on with the latest run.

One subject, hence its length: what a start of a refresh judges, asks for and counts.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Unpack, cast

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.clock import Clock, SystemClock
from ipybatch.engine.data.fact import Fact
from ipybatch.engine.data.items import plan_items
from ipybatch.engine.data.outcome import Summary
from ipybatch.engine.data.plan import NOTHING_AGAIN, Again, canonical, key_value
from ipybatch.engine.feed.snapshot import Snapshot
from ipybatch.engine.rules.estimate import Estimate, estimate
from ipybatch.engine.rules.limiter import NOTHING
from ipybatch.engine.run.attempt import Attempt
from ipybatch.engine.run.run import Run
from ipybatch.engine.store import plan_rows, run_store
from ipybatch.engine.store.journal import open_journal
from ipybatch.engine.store.lease import is_live
from ipybatch.engine.store.resources import in_force
from ipybatch.engine.store.resume import Items
from ipybatch.engine.store.run_store import Found
from ipybatch.errors import InputError, ItemError, JournalError, Refused
from ipybatch.library import source_params
from ipybatch.library.absences import MOMENT_S, Absences, OnVanished, check_on_vanished
from ipybatch.library.arguments import check_expand, check_source, choose, identify_all
from ipybatch.library.freshness import FRESH, NOT_THERE, Freshness, on_record
from ipybatch.library.records import DAY_S, STALENESS, Library, Record, Staleness, age_in_words, is_due, staleness
from ipybatch.library.source import Answered, Expanding, Identity, NotThere, OneRequest, Source
from ipybatch.session.arguments import SessionArguments, check_name
from ipybatch.session.session import BatchSession
from ipybatch.session.workload import Workload, encode_about, given_to

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("total", "completed", "failed", "timeout", "cancelled", "skipped", "pending")

_TOLD = ("cc", "part_of", "left_out")  # of a record's data, where a source says them
_FINISHED = frozenset({"completed", "rolled_back"})
_HELD = frozenset({"running", "paused"})

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
    """The session of a refresh: each start is a new run of its name, in which all items are judged anew."""

    @property
    def summary(self) -> RefreshSummary:
        """The summary so far."""
        so_far = super().summary
        return RefreshSummary(so_far.name, so_far.state, so_far.counts, so_far.reason, so_far.seconds, self)

    def estimate(self, n: int | None = None, *, latency_s: float = 0.2) -> Estimate:
        """Run the scheduler dry in virtual time; where items share requests, those are counted.

        Raises:
            InputError: ``n`` or ``latency_s`` is out of range.
            JournalError: The limits cannot be read.
        """
        found, spec, work = super().estimate(n, latency_s=latency_s), self._spec, self._workload
        if not isinstance(work, Refreshing) or (most := min(work.items_per_request, spec.limits.concurrency)) == 1:
            return found
        one_by_one = replace(spec.limits, concurrency=1)
        look = in_force(self._journal, spec, self._clock)
        asked = math.ceil(found.requests / most)
        return estimate(one_by_one, asked, latency_s, None, look=look, opening=self._opening_from_now())

    def _open_run(self, again: Again = NOTHING_AGAIN) -> Run:
        work = self._workload
        if not isinstance(work, Refreshing):
            return super()._open_run(again)
        is_anew = again is NOTHING_AGAIN
        before = self._spec, self._items, self._feed.snapshot
        try:
            work.begin()
            if is_anew:
                self._judge_anew(work)
            self._spec = msgspec.structs.replace(self._spec, fresh=is_anew, about=encode_about(work))
            return super()._open_run(again)
        except BaseException:
            self._spec, self._items, self._feed.snapshot = before
            raise

    def _judge_anew(self, work: Refreshing) -> None:
        if self._items.run or self._follower is not None:  # what an earlier start did is no part of this one
            self._feed.snapshot = Snapshot()
            if self._journal.network_copy is not None:
                self._feed.note(self._journal.network_copy.note)
        if (items := work.judge_anew(is_first=not self._items.run)) is not None:
            self._items = Items(*plan_items(items, self._spec.keying))

    def _reattach(self, found: Found, go_on: str) -> None:
        if found.owner is not None or found.state in _HELD:  # what is followed is that run, until it is started here
            self._spec = msgspec.structs.replace(self._spec, fresh=False)
        super()._reattach(found, go_on)


def refresh(
    items: Iterable[Any],
    *,
    source: Source,
    library: Library | None = None,
    name: str | None = None,
    force: bool = False,
    expand: str | None = None,
    on_vanished: OnVanished = "ask",
    **arguments: Unpack[SessionArguments],
) -> RefreshSession:
    """Return a session, not yet started, that fetches missing and stale records, the stalest first, and skips the rest.

    A result is a small dict: kind, name, fetched_at_s, and the staleness before; the record itself is in the library.
    ``session.summary.by("kind")`` returns the number of items by kind and status.  Every start judges all items
    anew and counts what it did itself: what was fetched within a day is skipped, whatever became of the run before.

    What the service does not have fails, and is skipped until it is asked for again, 1, 7 and then every 30 days later;
    `Library.absent` lists it.  A record that was held stays.

    Args:
        items: App ids for `SteamStore`; guilds and characters for `BattleNet`, which fetches guilds first; of a
            DataFrame its column "id" or "key", else its index. All are checked before the first request.
        source: Service that gives the records.
        library: Library that takes the records; default: `Library()`.
        name: Name of the session; default: that of the source, such as "steam refresh".
        force: Fetch fresh records too, and ask for what was not there. After a forced run that did not finish, those
            that it fetched within a day are skipped.
        expand: "roster" adds the members of guilds to the items of the session.
        on_vanished: What to do when more than a fifth of the records that are asked for, and at least 5, are not there
            any more: "ask" pauses the session, which says so (outside a notebook on standard error): ``resume()``
            believes it, ``cancel()`` leaves the records as they are. "believe" goes on. "fail" ends the session as
            failed, for scripts that nobody watches; nothing is marked then.
        arguments: As for `BatchSession`: limits, retry, breaker, journal, fresh, timeout_s, on_failure, resource,
            on_progress, verbose, clock, priority, per, start_at. Each replaces the source's default; ``fresh=True``
            gives an unfinished forced run up.

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
    given = given_to(refresh, locals())
    check_source(source, library)
    identities = identify_all(source, items)
    defaults = source.defaults()
    check_expand(expand, defaults)
    check_on_vanished(on_vanished)
    name = name if name is not None else defaults.name
    check_name(name)
    chosen = choose(defaults, arguments)
    clock = chosen["clock"] or SystemClock()
    work = Refreshing(
        source,
        Library() if library is None else library,
        clock,
        identities,
        force=force,
        expand=expand or "",
        on_vanished=on_vanished,
        fresh=chosen["fresh"],
    )
    work.given = given
    journal = open_journal(chosen["journal"])
    with journal.reader() as database:
        found = run_store.find(database, name)
    work.look_back(found)
    is_running = (
        found is not None and found.owner is not None and is_live(journal, found.run, found.owner, found.beat_s)
    )
    return RefreshSession(
        name,
        work,
        work.with_members(),
        key=work.key,
        rank=work.rank,
        skip=work.skip,
        cost=(lambda _: NOTHING) if defaults.shares_requests else None,
        settings=defaults.settings,
        **{**chosen, "clock": clock, "fresh": not is_running},
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
            tasks = [] if found is None else list(plan_rows.read_plan(database, found))
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

    def __init__(  # its collaborators, and what it was asked for
        self,
        source: Source,
        library: Library,
        clock: Clock,
        identities: Sequence[Identity],
        *,
        force: bool,
        expand: str,
        on_vanished: OnVanished,
        fresh: bool,
    ) -> None:
        self._source, self._library, self._clock = source, library, clock
        self._listed = [identity.key for identity in identities]
        self._places = dict.fromkeys((identity.kind, identity.place) for identity in identities)
        self._force, self._expand, self._begins_anew = force, expand, fresh
        self._absences = Absences(library, clock, on_vanished)
        self.items_per_request = source.defaults().items_per_request
        self._since_s = 0.0  # what was fetched or asked for earlier is done again, however fresh it is
        self._judged: dict[str, Staleness] = {}
        self._freshness = Freshness()
        self._unproven: set[str] = set()  # keys of items that were asked for in this call, and did not succeed
        kinds = {str(identity.turn): identity.kind for identity in identities}
        self.about = {"force": force, "expand": expand, "on_vanished": on_vanished, "kinds": kinds, "begun_s": 0.0}

    def bind(self, session: RefreshSession) -> None:
        """Belong to a session, and follow its circuit breaker for `breaker_state`."""
        super().bind(session)
        resource = session.policy.resource

        def follow(event: events.Event) -> None:
            self._absences.follow(event)
            self._freshness.follow(event)
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
        kept["on_vanished"] = about.get("on_vanished", "ask")  # older journals have none
        return refresh([task.item for task in items], **{**kept, "name": name, "journal": journal, **arguments})

    def template(self) -> tuple[str, dict[str, Any]]:
        """Return its arguments, the source and the library by what is known of them as data."""
        return self.name, source_params.described(self.given)

    @classmethod
    def from_template(cls, name: str, arguments: dict[str, Any]) -> RefreshSession:
        """Return the session of a template; keys of a service come from the environment.

        Raises:
            InputError: An argument is invalid.
        """
        return refresh(arguments.pop("items"), **{"name": name, **source_params.as_arguments(arguments)})

    def look_back(self, found: Found | None) -> None:
        """Learn from the latest run of the name since when a forced one counts: an unfinished one goes on.

        Args:
            found: None for none.
        """
        begun_s = self._clock.unix_s()
        self._since_s = math.inf if self._force else 0.0
        if self._force and not self._begins_anew and found is not None and found.state not in _FINISHED:
            before = msgspec.json.decode(found.about) if found.about else {}
            is_recent = max(found.beat_s, found.ended_s or 0.0) > begun_s - DAY_S  # else all that it fetched is stale
            if before.get("force") and is_recent:
                self._since_s = begun_s = before.get("begun_s", found.created_s)
        self.about = {**self.about, "begun_s": begun_s}

    def begin(self) -> None:
        """Begin a start."""
        self._absences.begin()
        self._unproven.clear()

    def judge_anew(self, *, is_first: bool) -> list[Any] | None:
        """Be about to judge all items anew; return them, None for those that the session was made with.

        Args:
            is_first: Whether it is the first start of the session.
        """
        with open_journal(self.session.journal).reader() as database:
            self.look_back(run_store.find(database, self.session.name))
        self._begins_anew = False
        self._judged.clear()
        return self.with_members() if self._expand or not is_first else None

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
        identity, now_s = self._source.identify(item), self._clock.unix_s()
        absence = self._library.absence(identity.kind, identity.key, identity.place)
        if absence is not None and not absence.is_due(now_s) and absence.asked_at_s >= self._since_s:
            self._freshness.skip(NOT_THERE)
            asked, again = age_in_words(now_s - absence.asked_at_s), age_in_words(absence.again_at_s - now_s)
            return f"{NOT_THERE}: asked {asked} ago, again in {again}"
        fetched_at_s = self._fetched_at_s(identity)
        if fetched_at_s is None:
            return ""
        if self._is_fresh(identity, fetched_at_s, now_s):
            self._freshness.skip(FRESH)
            return f"{FRESH}: fetched {age_in_words(now_s - fetched_at_s)} ago"
        if absence is None:
            self._absences.expect(canonical(identity.key))
        return ""

    def with_members(self) -> list[Any]:
        """Return the items, and the members of fresh ones, which are not fetched and so add none during the run."""
        if not self._expand:
            return self._listed
        known, now_s = {canonical(key) for key in self._listed}, self._clock.unix_s()
        listed = map(self._source.identify, self._listed)
        fresh = [one for one in listed if self._is_fresh(one, self._fetched_at_s(one), now_s)]
        found = [key for identity in fresh for key in self._members(identity) or ()]
        return self._listed + [key for key in dict.fromkeys(found) if canonical(key) not in known]

    def _is_fresh(self, identity: Identity, fetched_at_s: float | None, now_s: float) -> bool:
        if fetched_at_s is None or fetched_at_s < self._since_s or is_due(fetched_at_s, now_s):
            return False
        return not self._expands(identity) or self._members(identity) is not None

    async def __aenter__(self) -> Refreshing:
        """Enter the source, and read the planned staleness: `retry_failed` goes on with what was judged before."""
        with open_journal(self.session.journal).reader() as database:
            found = run_store.find(database, self.session.name)
            tasks = () if found is None else plan_rows.read_plan(database, found)
            self._judged.update((task.key, STALENESS[task.rank % len(STALENESS)]) for task in tasks)
            self._freshness.begin(*on_record(database, 0 if found is None else found.run))
        await self._source.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the source, and remember what was not there."""
        try:
            self._absences.end(self.session)
        finally:
            await self._source.__aexit__(kind, error, trace)

    def facts(self, *, is_over: bool) -> list[Fact]:
        """Return how many records are fresh, stale and not there."""
        return self._freshness.facts(self.session.counts, is_over=is_over)

    async def __call__(self, item: Any, attempt: Attempt) -> dict[str, Any]:
        """Fetch one record, put it into the library, and return its name and time."""
        identity = self._source.identify(item)
        self._unproven.add(attempt.key)
        with _needing_library():
            kept = self._library.get(identity.kind, identity.key, identity.place)
            try:
                record, members = await self._fetch_surely(identity, attempt, kept)
            except NotThere as error:
                await self._absences.find(self.session, attempt, identity, error, held=kept is not None)
                raise
            except Exception:
                with suppress(ItemError):  # it is there: what is known of its members must not get stale with it
                    attempt.add(self._members(identity) or ())
                raise
            self._absences.succeed()
        self._unproven.discard(attempt.key)
        if members:
            attempt.add(members)
        return {
            "kind": identity.kind,
            "name": record.data.get("name", ""),
            "fetched_at_s": record.fetched_at_s,
            "staleness": self._judged[attempt.key],
            **{told: record.data[told] for told in _TOLD if told in record.data},
        }

    async def probe(self, attempt: Attempt | None = None) -> bool:
        """Ask the service for the latest that it has given, of what has not failed in this call, and put it again.

        Args:
            attempt: Takes the permits of further requests; without it there are none, and one answer is enough.

        Returns:
            Whether the service answered; False when there is nothing to ask for.

        Raises:
            ItemError: The fetch failed.
        """
        if (record := self._latest()) is None:
            return False
        identity = self._source.identify(record.key)
        attempt = attempt or OneRequest(canonical(record.key), further=int(self._source.defaults().shares_requests))
        with suppress(Answered), _needing_library():
            await self._fetch(identity, attempt, record)
        return True

    def _latest(self) -> Record | None:
        """Return the record that was fetched last, of the kinds and places of this call, without its failures."""
        found: list[Record] = []
        with _needing_library():
            for kind, place in self._places:
                keys = self._library.latest(kind, place, n=len(self._unproven) + 1)
                proven = next((key for key in keys if canonical(key) not in self._unproven), None)
                record = None if proven is None else self._library.get(kind, proven, place)
                found += [] if record is None else [record]
        return max(found, key=lambda record: record.fetched_at_s, default=None)

    async def _fetch_surely(
        self, identity: Identity, attempt: Attempt, kept: Record | None
    ) -> tuple[Record, list[Any] | None]:
        """Fetch a record; ask once more for one that is held and doubtfully gone."""
        try:
            return await self._fetch(identity, attempt, kept)
        except NotThere as error:
            if not self._absences.doubts(identity, error, held=kept is not None):
                raise
        with attempt.waiting():
            await asyncio.sleep(MOMENT_S)
        async with attempt.permit():
            return await self._fetch(identity, attempt, kept)

    async def _fetch(
        self, identity: Identity, attempt: Attempt, kept: Record | None
    ) -> tuple[Record, list[Any] | None]:
        """Fetch a record and put it into the library; return it with the members that it lists."""
        data = await self._source.fetch(identity.key, attempt, None if kept is None else kept.data, self._expand)
        members = self._named_in(identity, data)
        record = Record(
            kind=identity.kind, key=identity.key, place=identity.place, fetched_at_s=self._clock.unix_s(), data=data
        )
        self._library.put(record)
        return record, members

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


@contextmanager
def _needing_library() -> Iterator[None]:
    """Stop the session if the library fails, instead of fetching records that cannot be kept.

    Raises:
        Refused: The library failed.
    """
    try:
        yield
    except JournalError as error:
        raise Refused(str(error)) from error
