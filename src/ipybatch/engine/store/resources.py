"""Resources: what is rationed, shared by the sessions that name it, in this process and in others.

All sessions run on one engine loop, so a limiter needs no lock; whoever frees
a permit wakes the others.  What other processes use is in the limit store.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ipybatch.engine.data import events
from ipybatch.engine.data.clock import Clock, SystemClock
from ipybatch.engine.data.fork import after_fork
from ipybatch.engine.data.loop_call import post
from ipybatch.engine.data.masking import mask
from ipybatch.engine.data.policy import Limits
from ipybatch.engine.data.spec import Spec
from ipybatch.engine.data.store_url import check_url, is_url
from ipybatch.engine.rules.estimate import NOTHING_IN_FORCE, InForce
from ipybatch.engine.rules.limit_groups import GroupLimiter, LimitGroup, group_label
from ipybatch.engine.rules.limiter import LONG_COOL_S, held_s
from ipybatch.engine.store import sqlite_limits
from ipybatch.engine.store.journal import BUSY_S, Journal, default_path, open_journal, resolved
from ipybatch.engine.store.lease import machine_of, me
from ipybatch.engine.store.limit_store import GROUP, PRIVATE, Answer, LimitStore, Owner, Report, StoreBusy, asked
from ipybatch.engine.store.network_copy import home_of
from ipybatch.engine.store.redis_limits import RedisLimits
from ipybatch.engine.store.shared_limiter import SharedLimiter
from ipybatch.engine.store.sqlite_limits import SqliteLimits
from ipybatch.engine.store.store_link import HANGS_S
from ipybatch.errors import EngineBusy, InputError, JournalError, JournalLocked

T = TypeVar("T")

LIMITS_FILE = "limits.sqlite3"
LIFT_S = 1.0  # a loop that does not turn within so long is not waited for


class Resource:
    """A limiter and who waits for it.

    Attributes:
        wakers: Called when something of the limiter came free.
        tellers: Called with events of the resource: a cool-down that began elsewhere, a trouble with the store.
    """

    def __init__(self, store: LimitStore, name: str, clock: Clock, *, is_private: bool, group: str = "") -> None:
        self.name = name
        self.wakers: list[Callable[[], None]] = []
        self.tellers: list[Callable[[events.Event], None]] = []
        owner = f"{me()}/{next(_numbers)}"
        self.limiter = SharedLimiter(
            store, name, owner, clock, self.changed, self._tell, is_private=is_private, group=group, called=_shown(name)
        )

    def changed(self) -> None:
        """Wake everyone who may start something now."""
        for wake in tuple(self.wakers):
            wake()

    def lift(self) -> bool:
        """End its cool-down, on the loop of whoever uses it; from any thread; return whether there was one.

        Raises:
            JournalError: The store cannot be read or written.
        """
        limiter, loop = self.limiter, self.limiter.loop
        if loop is None or not loop.is_running() or asyncio._get_running_loop() is loop:
            return limiter.lift()
        was_cool = limiter.cool_until_s > limiter.clock.now_s()
        try:
            return post(loop, limiter.lift).result(LIFT_S)
        except (EngineBusy, TimeoutError):  # it is closed; or busy, and lifts as soon as it can
            return was_cool

    def _tell(self, event: events.Event) -> None:
        if self.limiter.group and isinstance(event, events.Noted):
            return  # a trouble with the store is that of the resource, which tells it
        for tell in tuple(self.tellers):
            tell(event)


_numbers = count(1)
_resources: dict[tuple[int, str, int], Resource] = {}  # by store, name and clock
_stores: dict[tuple[Path | str, Clock | None], LimitStore] = {}  # by path or address; the clock where it is virtual
_used: Counter[int] = Counter()  # starts of sessions, by store


def _forget() -> None:
    """Have none after a fork: they are the parent's."""
    _resources.clear()
    _stores.clear()
    _used.clear()


after_fork(_forget)


class Standing(msgspec.Struct, frozen=True):
    """How a resource stands, as somebody sees it who does not use it.

    Attributes:
        name: Of the resource.
        group: Name of the limit group, as people read it; "" for the resource itself.
        answer: Its windows, owners and cool-down.
    """

    name: str
    group: str
    answer: Answer


def limits_of(journal: Path | None) -> Path:
    """Return where the limits of the sessions of a journal are: beside it.

    Args:
        journal: Its path; None for the default one.

    Raises:
        JournalError: It leads nowhere, or no local disk is to be found for it.
    """
    return home_of(resolved(journal or default_path())).with_name(LIMITS_FILE)


def look_at_all(journal: Path | None, store: Path | str | None = None) -> list[Standing]:
    """Return how every resource stands that somebody uses, or that cools down.

    Args:
        journal: Whose limits file is looked into, beside what this process uses; None: that of the default one.
        store: Look there instead: a limits file, or the address of a Redis.

    Raises:
        InputError: ``store`` is no address.
        JournalError: The limits cannot be read.
        MissingExtra: ``store`` is the address of a Redis, and the redis package is not installed.
    """
    found = []
    for home, names in _named(_homes(journal, store)):
        answers = _exchanged(home, [Report(resource=name) for name in names])
        for name, answer in zip(names, answers, strict=True):
            if answer.owners or answer.cool_s:
                found.append(Standing(_shown(name), group_label(name.partition(GROUP)[2]), answer))
    return found


def lift(journal: Path | None, resource: str, store: Path | str | None = None) -> bool:
    """End the cool-down of a resource and of its limit groups, in this process at once; return whether there was one.

    Args:
        journal: Whose sessions use it; None: those of the default one, and all of this process.
        store: Where it is counted, instead: a limits file, or the address of a Redis.

    Raises:
        InputError: No session of that resource ever ran; names those that did. Or ``store`` is no address.
        JournalError: The limits or the journal cannot be read or written.
        MissingExtra: ``store`` is the address of a Redis, and the redis package is not installed.
    """
    homes = _homes(journal, store)
    known, was_cool = dict[str, None](), False
    for home, names in _named(homes):
        known |= dict.fromkeys(map(_shown, names))
        mine = [name for name in names if resource == _shown(name)]
        was_cool |= any(answer.cool_s for answer in _exchanged(home, [Report(resource=name) for name in mine]))
        _exchanged(home, [Report(resource=name, cool_s=0.0) for name in mine])
    for one in tuple(_resources.values()):
        if (journal is None and store is None) or _home_of(one.limiter.store) in (*homes, None):
            known[_shown(one.name)] = None
            if resource == _shown(one.name):
                was_cool |= one.lift()
    if resource not in known and (journal is not None or store is None):
        known |= dict.fromkeys(_recorded(journal))
    if resource not in known:
        told = ", ".join(map(repr, known)) or "none so far"
        msg = f"resource must be one that was used ({told}), got {resource!r}; ipybatch.resources() lists them"
        raise InputError(msg)
    return was_cool


def cooling(journal: Journal, resource: str) -> dict[str, tuple[float, str]] | None:
    """Return what cools down of a resource, as somebody sees it who follows a session: by limit group, "" for all.

    Each with the seconds that are left, and why; None while the file cannot be read.
    """
    everything = sqlite_limits.cooling(journal.path.with_name(LIMITS_FILE))
    if everything is None:
        return None
    names, found = (resource, f"{resource}{PRIVATE}{journal.path.name}"), {}
    for name, told in everything.items():
        base, _, group = name.partition(GROUP)
        if base in names:
            found[group_label(group)] = told
    return found


def _recorded(journal: Path | None) -> list[str]:
    """Return the resources of the sessions on record: what was never rationed stands in no limits file."""
    path = home_of(resolved(journal or default_path()))
    if not path.exists():
        return []
    with open_journal(path).reader() as database:
        return [name for (name,) in database.execute("SELECT DISTINCT resource FROM run ORDER BY resource")]


def _shown(name: str) -> str:
    """Return what people call a resource: without its limit group, and the journal that it is private to."""
    return name.partition(GROUP)[0].partition(PRIVATE)[0]


def _homes(journal: Path | None, store: Path | str | None) -> list[Path | str]:
    """Return where resources are counted: paths of limits files, and addresses of what this process uses.

    Raises:
        InputError: ``store`` is no address.
        JournalError: ``journal`` leads nowhere, or no local disk is to be found for it.
        MissingExtra: ``store`` is the address of a Redis, and the redis package is not installed.
    """
    if store is None:
        servers = [(home, one) for (home, _), one in tuple(_stores.items()) if isinstance(one, RedisLimits)]
        return [limits_of(journal), *dict.fromkeys(home for home, one in servers if _is_there(one))]
    if is_url(store):
        check_url(str(store))
        return [str(store)]
    return [resolved(Path(store))]


def _is_there(store: RedisLimits) -> bool:
    """Say whether a server is to be asked: one that no session uses any more, as long as it answers."""
    if not _used[id(store)]:
        try:
            store.names()
        except JournalError:
            return False
    return True


def _home_of(store: LimitStore) -> Path | str | None:
    """Return where a store is; None for one of the user's own."""
    return next((home for (home, _), known in tuple(_stores.items()) if known is store), None)


def _named(homes: Iterable[Path | str]) -> Iterator[tuple[SqliteLimits | RedisLimits, list[str]]]:
    """Yield each store that there is, with the names of what it counts."""
    for home in homes:
        with _opened(home) as store:
            if store is not None:
                yield store, _patiently(store.names)


def _exchanged(store: SqliteLimits | RedisLimits, reports: Sequence[Report]) -> list[Answer]:
    if isinstance(store, RedisLimits):
        return store.exchange_all(reports)
    return [_patiently(store.exchange, report) for report in reports]


@contextlib.contextmanager
def _opened(home: Path | str) -> Iterator[SqliteLimits | RedisLimits | None]:
    """Open a store as the sessions of this process have it, else for this look alone; None where there is no file."""
    if isinstance(home, Path) and not home.exists():
        yield None
        return
    for (known, clock), store in tuple(_stores.items()):
        if known == home and (clock is not None or isinstance(home, str)):  # by another clock all would be long over
            assert isinstance(store, SqliteLimits | RedisLimits)
            yield store
            return
    with contextlib.closing(RedisLimits(home) if isinstance(home, str) else SqliteLimits(home)) as one:
        yield one


def _patiently(ask: Callable[..., T], *arguments: Any) -> T:
    ends_s = time.monotonic() + BUSY_S
    while True:
        try:
            return ask(*arguments)
        except StoreBusy as error:
            if time.monotonic() > ends_s:
                msg = "the limits are locked by another program: close it, then try again"
                raise JournalLocked(msg) from error
            time.sleep(0.005)


def who(owner: Owner) -> str:
    """Return what people call an owner: its sessions, and where they run: elsewhere, by the name of the machine."""
    _, pid, *_ = (*owner.name.split("/"), "")
    machine = machine_of(owner.name)
    where = "in this kernel" if owner.name.startswith(me()) else f"in process {pid}"
    if machine != machine_of(me()):
        where = f"on {mask(machine)}"
    return f"{mask(owner.label)} {where}" if owner.label else where


def in_force(journal: Journal, spec: Spec, clock: Clock) -> Callable[[str, Limits], InForce]:
    """Return what tells, of a limit group ("" for the resource), what a start of a session would find.

    Raises:
        JournalError: The limit store cannot be read.
    """
    store = _store_of(journal, spec.limits, clock)
    base = _name_of(journal, spec, store)

    def look(group: str, limits: Limits) -> InForce:
        name = f"{base}{GROUP}{group}" if group else base
        if isinstance(store, SqliteLimits) and not store.path.exists():
            return NOTHING_IN_FORCE
        answer = _patiently(lambda: asked(lambda: store.exchange(Report(resource=name))))
        rates = tuple(dict.fromkeys([*limits.all_rates, *answer.used]))
        longest_s = max(map(held_s, rates), default=0.0)
        spent = list(_patiently(lambda: asked(lambda: store.history(name, longest_s)))) if rates else []
        flying: dict[str, float] = {}
        for rate, used in answer.used.items():  # what is in flight is answered now, or later
            known = sum(cost for ago_s, unit, cost in spent if unit == rate.unit and ago_s < held_s(rate))
            flying[rate.unit] = max(flying.get(rate.unit, 0.0), used - known)
        spent += [(0.0, unit, cost) for unit, cost in flying.items() if cost > 0.0]
        cool_s = answer.cool_s if answer.owners else min(answer.cool_s, LONG_COOL_S)
        return InForce(cool_s, answer.why, spent, tuple(answer.used))

    return look


def _name_of(journal: Journal, spec: Spec, store: LimitStore) -> str:
    """Return what the store calls a session's resource.

    A private one is its session's alone: several journals may lie in one folder, and on several machines.
    """
    if not spec.is_private:
        return spec.resource
    is_far = getattr(store, "is_remote", False)
    whose = f"{machine_of(me())} {journal.path}" if is_far else journal.path.name
    return f"{spec.resource}{PRIVATE}{whose}"


def _store_of(journal: Journal, limits: Limits, clock: Clock) -> LimitStore:
    """Return the store that a session's limits are counted in."""
    home: Path | str = journal.path.with_name(LIMITS_FILE)
    if isinstance(limits.store, str | Path):
        home = str(limits.store) if is_url(limits.store) else resolved(Path(limits.store))
    elif limits.store is not None and limits.asked is None:
        given: LimitStore = limits.store
        return given
    is_real = isinstance(clock, SystemClock)
    key = home, None if is_real else clock
    if key not in _stores:
        if isinstance(home, str):
            _stores[key] = RedisLimits(home, now_s=None if is_real else clock.unix_s)
        else:
            _stores[key] = SqliteLimits(home) if is_real else SqliteLimits(home, clock.unix_s, clock.unix_s)
    return _stores[key]


class Membership:
    """The limits that one start of a session holds to: those of its resource, and those of its limit groups.

    Each window begins with what was used before, as the limit store tells.

    Attributes:
        resource: What all limit groups share.
    """

    def __init__(
        self, journal: Journal, spec: Spec, clock: Clock, tell: Callable[[events.Event], None] = lambda event: None
    ) -> None:
        """Know the resource; `join` holds to its limits.

        Args:
            tell: Told of a cool-down that is in force already.
        """
        self._store, self._clock, self._tell = _store_of(journal, spec.limits, clock), clock, tell
        self._is_private = spec.is_private
        self._name = _name_of(journal, spec, self._store)
        self._label = spec.name
        self.resource = self._resource(self._name)
        self._entered: list[SharedLimiter] = []
        _used[id(self._store)] += 1
        self._is_used = True

    def join(self, limits: Limits, declared: Limits) -> None:
        """Hold to limits.

        Args:
            declared: Those that the session was made with.

        Raises:
            JournalError: The limit store cannot be read or written.
        """
        self._enter(self.resource.limiter, declared)
        if declared is not limits:
            self.resource.limiter.change(self, limits)

    def open_group(self, name: str, each: Limits) -> LimitGroup:
        """Hold to the limits of one group as well; what a store that is a network away knows comes later.

        Raises:
            JournalError: The limit store cannot be read or written.
        """
        own = self._resource(f"{self._name}{GROUP}{name}", group_label(name))
        own.wakers, own.tellers = self.resource.wakers, self.resource.tellers
        self._enter(own.limiter, each, waits=False)
        return LimitGroup(name, GroupLimiter(self.resource.limiter, own.limiter))

    def change(self, limits: Limits) -> None:
        """Hold to others from now on."""
        self.resource.limiter.change(self, limits)
        self.resource.changed()

    def lift(self) -> None:
        """End the cool-down of the resource, and of the limit groups that the session has; on its loop.

        Raises:
            JournalError: The limit store cannot be read or written.
        """
        for limiter in dict.fromkeys([self.resource.limiter, *self._entered]):
            limiter.lift()

    def leave(self) -> None:
        """Let others start."""
        for limiter in self._entered:
            limiter.leave(self, waits=False)
        ends_s = time.monotonic() + HANGS_S
        for limiter in self._entered:
            limiter.part(max(0.0, ends_s - time.monotonic()))
        self._entered.clear()
        self.resource.changed()
        if self._is_used:
            self._is_used = False
            _used[id(self._store)] -= 1
            if not _used[id(self._store)] and isinstance(self._store, RedisLimits):
                self._store.close()

    def _resource(self, name: str, group: str = "") -> Resource:
        key = id(self._store), name, 0 if isinstance(self._clock, SystemClock) else id(self._clock)
        if key not in _resources:
            _resources[key] = Resource(self._store, name, self._clock, is_private=self._is_private, group=group)
        return _resources[key]

    def _enter(self, limiter: SharedLimiter, limits: Limits, *, waits: bool = True) -> None:
        limiter.enter(self, limits, asyncio.get_running_loop(), self._label, waits=waits)
        self._entered.append(limiter)
        now_s = self._clock.now_s()
        if limiter.cool_until_s > now_s:
            self._tell(limiter.cooled_down(now_s))
