"""Testing: time that does not pass by itself, and what every backend and every limit store must do.

For our own tests and for users': a session with hours of pauses runs in
milliseconds, and a new backend or limit store is checked with one call.

One subject, hence its length: what a part that users bring must do.

Prior art: trio's MockClock with autojump, https://trio.readthedocs.io/en/stable/reference-testing.html (2026-11-22).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import os
import selectors
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ipybatch.engine.data.outcome import Summary
from ipybatch.engine.data.policy import Rate
from ipybatch.engine.data.spec import Backend, StillRunning
from ipybatch.engine.store.limit_store import (
    LEASE_S,
    Answer,
    Bounds,
    LimitStore,
    MemoryLimits,
    Owner,
    Report,
    StoreBusy,
)
from ipybatch.session.session import BatchSession

__all__ = [
    "Answer",
    "Bounds",
    "LimitStore",
    "MemoryLimits",
    "Owner",
    "Report",
    "StoreBusy",
    "VirtualClock",
    "check_backend",
    "check_limit_store",
    "kill_points",
]

T = TypeVar("T")

START_UNIX_S = 1_700_000_000.0


class VirtualClock:
    """A clock that jumps to the next timer whenever nothing else is to do.

    Hand it to a session, then let it run the session::

        clock = VirtualClock()
        session = BatchSession("hours", work, items, limits=limits, clock=clock, journal=path)
        summary = clock.run(session)

    Inside, ``asyncio.sleep`` takes no real time.  While the engine waits for a real thread (the journal), virtual time
    stands still.
    """

    def __init__(self) -> None:
        self._now_s = 0.0
        self._awaited = 0

    def now_s(self) -> float:
        """Return virtual seconds since the clock was made."""
        return self._now_s

    def unix_s(self) -> float:
        """Return the virtual Unix time."""
        return START_UNIX_S + self._now_s

    def hold(self, change: int) -> None:
        """Let time stand while answers from real threads are awaited."""
        self._awaited += change

    def advance(self, seconds: float) -> None:
        """Move the time on, between runs."""
        self._now_s += seconds

    def run(self, session: BatchSession, *beside: Coroutine[Any, Any, Any]) -> Summary:
        """Run a session to its end in virtual time, on this thread, with coroutines beside it."""

        async def together() -> None:
            tasks = [asyncio.create_task(coroutine) for coroutine in beside]
            try:
                await session.drive()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        self.run_coroutine(together())
        return session.summary

    def run_coroutine(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run any coroutine in virtual time."""
        with asyncio.Runner(loop_factory=lambda: _VirtualLoop(self)) as runner:
            return runner.run(coroutine)

    def _wait(self, select: Callable[[float | None], Any], timeout_s: float | None) -> Any:
        ready = select(0.0)
        if ready or timeout_s == 0.0:
            return ready
        if self._awaited or timeout_s is None:
            return select(1.0)
        self._now_s += timeout_s
        return ready


class _VirtualSelector(selectors.DefaultSelector):
    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> Any:
        return self._clock._wait(super().select, timeout)


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(_VirtualSelector(clock))
        self._virtual = clock
        # A timer is due when it is within the clock's resolution; virtual time needs some to absorb rounding.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._virtual.now_s()


KILL_VARIABLE = "IPYBATCH_KILL_AT"


@contextlib.contextmanager
def kill_points(where: Mapping[str, int] | None = None) -> Iterator[None]:
    """End this process by SIGKILL at a commit: ``{"before": 3}`` before the third one, ``{"after": 3}`` after it.

    Without an argument it is read from ``IPYBATCH_KILL_AT``, as in ``before:3``.  For tests of what survives.
    """
    from ipybatch.engine.store import journal

    place, _, number = os.environ.get(KILL_VARIABLE, "").partition(":")
    wanted = dict(where) if where is not None else ({place: int(number)} if place else {})
    seen = {"before": 0, "after": 0}

    def hit(place: str) -> None:
        seen[place] += 1
        if wanted.get(place) == seen[place]:
            os.kill(os.getpid(), 9)

    before, journal.on_commit = journal.on_commit, hit
    try:
        yield
    finally:
        journal.on_commit = before


async def check_backend(backend: Backend, *, plain: bool) -> None:
    """Check that a backend does what the engine relies on; raises AssertionError where it does not.

    Args:
        plain: Whether it runs plain functions; else it is handed coroutine functions.
    """
    await backend.open(2)
    try:
        await _check_result(backend, plain=plain)
        await _check_error(backend, plain=plain)
        await _check_together(backend, plain=plain)
        await _check_cancel(backend, plain=plain)
    finally:
        await backend.close()


async def _check_result(backend: Backend, *, plain: bool) -> None:
    result = await backend.run(_as(plain, lambda item: {"twice": item * 2}), (21,))
    assert result == {"twice": 42}, f"a result must come back as it is, got {result!r}"


async def _check_error(backend: Backend, *, plain: bool) -> None:
    def fail(item: Any) -> None:
        raise KeyError(item)

    raised: BaseException | None = None
    try:
        await backend.run(_as(plain, fail), ("missing",))
    except KeyError as error:
        raised = error
    assert raised is not None, "an error of the work must reach the engine"
    assert raised.args == ("missing",), f"it must reach it as it is, got {raised!r}"


async def _check_together(backend: Backend, *, plain: bool) -> None:
    met = asyncio.Event()
    seen: list[int] = []

    async def wait_for_other(item: int) -> int:
        seen.append(item)
        if len(seen) == 2:
            met.set()
        await met.wait()
        return item

    with tempfile.TemporaryDirectory() as folder:  # the one place where attempts meet wherever they run
        work = functools.partial(_meet, folder, wanted=2) if plain else wait_for_other
        both = list(await asyncio.wait_for(asyncio.gather(backend.run(work, (1,)), backend.run(work, (2,))), 20))
    assert both == [1, 2], f"two attempts must run at the same time, got {both!r}"


def _meet(folder: str, item: int, *, wanted: int) -> int:
    Path(folder, str(item)).touch()
    ends_s = time.monotonic() + 10
    while len(list(Path(folder).iterdir())) < wanted and time.monotonic() < ends_s:
        time.sleep(0.01)
    assert time.monotonic() < ends_s, "nobody came"
    return item


async def _check_cancel(backend: Backend, *, plain: bool) -> None:
    async def sleep(item: Any) -> None:
        await asyncio.sleep(3600)

    with tempfile.TemporaryDirectory() as folder:
        work = functools.partial(_meet, folder, wanted=3) if plain else sleep
        attempt = asyncio.ensure_future(backend.run(work, (1,)))
        await (asyncio.to_thread(_meet, folder, 2, wanted=2) if plain else asyncio.sleep(0.05))
        attempt.cancel()
        cancelled: asyncio.CancelledError | None = None
        try:
            await attempt
        except asyncio.CancelledError as error:
            cancelled = error
        goes_on = cancelled.ended if isinstance(cancelled, StillRunning) else None
        assert cancelled is not None, "a cancelled attempt must not return"
        assert goes_on is None or not goes_on.done(), "an attempt that goes on must say so while it does"
        if goes_on is not None:
            await asyncio.to_thread(_meet, folder, 3, wanted=3)
            await asyncio.wait_for(asyncio.wait([goes_on]), 10)


def _as(plain: bool, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    if plain:
        return function

    async def coroutine(item: Any) -> Any:
        return function(item)

    return coroutine


def check_limit_store(make: Callable[[Callable[[], float]], LimitStore]) -> None:
    """Check that a limit store does what the engine relies on; raises AssertionError where it does not.

    Args:
        make: Is handed the clock that the store must go by, and returns the store as one process has it; called
            again, as another process has the same one.
    """
    told = _Time()
    stores = make(told.now_s), make(told.now_s)
    for number, check in enumerate(_LIMIT_CHECKS):
        check(told, functools.partial(_Party, stores, f"resource {number}"))
        told.unix_s += 1000.0


class _Time(msgspec.Struct):
    """A clock that is moved by hand."""

    unix_s: float = START_UNIX_S

    def now_s(self) -> float:
        return self.unix_s


class _Party(msgspec.Struct):
    """An owner of a resource, who keeps the books that a process keeps."""

    stores: tuple[LimitStore, LimitStore]
    resource: str
    name: str
    bounds: Bounds | None
    flying: dict[str, float] = msgspec.field(default_factory=dict)
    running: int = 0

    def report(self, **more: Any) -> Report:
        return Report(
            **{
                "resource": self.resource,
                "owner": self.name,
                "bounds": self.bounds,
                "in_flight": dict(self.flying),
                "running": self.running,
                **more,
            }
        )

    def tell(self, **more: Any) -> Answer:
        return self.store.exchange(self.report(**more))

    @property
    def store(self) -> LimitStore:
        """The store as the process has it that the owner is in: "b" is alone in the second one."""
        return self.stores[self.name == "b"]

    def ask(self, *, slot: bool = True, **cost: float) -> float:
        """Ask for a permit; return how long to wait for it."""
        answer = self.tell(wanted=cost, slot=slot)
        if answer.wait_s == 0.0:
            self.running += slot
            for unit, amount in {"requests": 1.0, **cost}.items():
                self.flying[unit] = self.flying.get(unit, 0.0) + amount
        return answer.wait_s

    def end(self, ago_s: float = 0.0, *, reserved: Mapping[str, float] | None = None, **cost: float) -> Answer:
        """Report the response to a request, and what it cost."""
        self.running -= 1
        for unit, amount in {"requests": 1.0, **(reserved or cost)}.items():
            self.flying[unit] -= amount
        return self.tell(spent=[(ago_s, unit, amount) for unit, amount in {"requests": 1.0, **cost}.items()])

    def used(self) -> list[float]:
        return list(self.tell().used.values())


_Parties = Callable[[str, Bounds], _Party]
_THREE = Bounds(rates=(Rate(3, per_s=10),))


def _holds(is_so: bool, promise: str, *seen: object) -> None:
    assert is_so, f"{promise}, got {', '.join(map(repr, seen))}" if seen else promise


def _check_windows(told: _Time, party: _Parties) -> None:
    a, b, c = party("a", _THREE), party("b", _THREE), party("c", _THREE)
    waits = [a.ask(), a.ask(), b.ask()]
    _holds(waits == [0.0] * 3, "what fits is granted", waits)
    wait_s = c.ask()
    _holds(wait_s == math.inf, "what all owners have in flight fills a window: only a response makes room", wait_s)
    told.unix_s += 2.0
    a.end()
    wait_s = c.ask()
    _holds(10.0 < wait_s < 10.1, "a place comes free per_s and a little more after its response", wait_s)
    told.unix_s += 5.0
    b.end(ago_s=1.0)
    told.unix_s += 5.0
    wait_s = c.ask()
    _holds(wait_s > 0.0, "clocks drift: a window is held a little longer than per_s", wait_s)
    told.unix_s += 0.1
    waits = [c.ask(), c.ask()]
    _holds(waits[0] == 0.0 and 3.0 < waits[1] < 4.0, "each response has a moment of its own", waits)


def _check_another_unit(told: _Time, party: _Parties) -> None:
    bounds = Bounds(rates=(Rate(100, per_s=10, unit="tokens"), Rate(9, per_s=10)))
    a, b = party("a", bounds), party("b", bounds)
    waits = [a.ask(tokens=60.0), b.ask(tokens=50.0), b.ask(tokens=40.0)]
    _holds(waits == [0.0, math.inf, 0.0], "a rate counts what its unit costs", waits)
    a.end(reserved={"tokens": 60.0}, tokens=10.0)
    used = b.used()
    _holds(used == [50.0, 2.0], "what a request really cost takes the place of what was reserved", used)


def _check_strictest(told: _Time, party: _Parties) -> None:
    a = party("a", Bounds(rates=(Rate(9, per_s=10), Rate(30, per_s=60))))
    b = party("b", Bounds(rates=(Rate(2, per_s=10),)))
    b.tell()
    waits = [a.ask(), a.ask(), a.ask()]
    _holds(waits == [0.0, 0.0, math.inf], "the limits of all owners hold for each", waits)


def _check_spacing(told: _Time, party: _Parties) -> None:
    a, b = party("a", Bounds(spacing_s=2.0)), party("b", Bounds(spacing_s=0.5))
    a.tell()
    b.ask()
    told.unix_s += 1.0
    wait_s = a.ask()
    _holds(0.9 < wait_s < 1.1, "the longest spacing separates the starts of all owners", wait_s)
    wait_s = a.ask(requests=0.0)
    _holds(wait_s == 0.0, "what sends no request itself waits for no spacing", wait_s)
    told.unix_s += 1.0
    wait_s = b.ask()
    _holds(wait_s == 0.0, "after it the next one starts", wait_s)


def _check_concurrency(told: _Time, party: _Parties) -> None:
    a, b = party("a", Bounds(concurrency=2)), party("b", Bounds())
    a.tell()
    waits = [b.ask(), b.ask(), a.ask()]
    _holds(waits == [0.0, 0.0, math.inf], "the attempts of all owners count", waits)
    wait_s = a.ask(slot=False)
    _holds(wait_s == 0.0, "a further request of an attempt takes no place", wait_s)
    b.end()
    wait_s = a.ask()
    _holds(wait_s == 0.0, "a place that came free is given to who asks", wait_s)


def _check_groups(told: _Time, party: _Parties) -> None:
    a, b = party("a", _THREE), party("b", _THREE)
    b.resource += ": eu"
    waits = [a.ask() for _ in range(4)]
    wait_s = b.ask()
    _holds(waits[3] > 0.0 and wait_s == 0.0, "another name is another resource", waits, wait_s)


def _check_cool_down(told: _Time, party: _Parties) -> None:
    a, b = party("a", Bounds()), party("b", Bounds())
    a.tell(cool_s=30.0, why="asked to")
    answer = b.tell(wanted={})
    _holds(
        29.9 < answer.wait_s < 30.1 and answer.cool_s == answer.wait_s and answer.why == "asked to",
        "a cool-down holds for all, and says why",
        answer,
    )
    b.tell(cool_s=5.0, why="asked again")
    answer = a.tell()
    _holds(29.9 < answer.cool_s < 30.1, "a shorter one does not end a longer one", answer)
    b.tell(owner="", bounds=None, cool_s=0.0)
    answer = a.tell(wanted={})
    _holds((answer.wait_s, answer.cool_s, answer.why) == (0.0, 0.0, ""), "0.0 ends it, whoever says so", answer)
    a.tell(cool_s=5.0)
    told.unix_s += 5.1
    answer = b.tell(wanted={})
    _holds((answer.wait_s, answer.cool_s) == (0.0, 0.0), "it ends by itself", answer)


def _check_lease(told: _Time, party: _Parties) -> None:
    a, b = party("a", Bounds(concurrency=1, rates=(Rate(3, per_s=10),))), party("b", _THREE)
    a.ask()
    told.unix_s += LEASE_S - 0.1
    wait_s = b.ask()
    _holds(wait_s == math.inf, "an owner counts until its lease ends", wait_s)
    told.unix_s += 1.1
    answer = b.tell(wanted={})
    _holds(answer.wait_s == 0.0 and not answer.owners, "then its limits hold no more", answer)
    b.ask()
    wait_s = b.tell(wanted={}, in_flight={"requests": 2.0}).wait_s
    _holds(8.5 < wait_s < 10.1, "what it had in flight is taken for answered when its lease ended", wait_s)
    answer = a.end()  # it was stopped, and goes on
    used = list(answer.used.values())
    _holds(used == [4.0], "an answer that comes later counts as well", used)


def _check_repeated(told: _Time, party: _Parties) -> None:
    a, b = party("a", _THREE), party("b", _THREE)
    for _ in range(3):
        answer = a.tell(wanted={})
        _holds(answer.wait_s == 0.0, "a report whose answer was lost is made again, and takes nothing twice", answer)
    a.flying = {"requests": 1.0}
    used = b.used()
    _holds(used == [1.0], "what was granted and not used is given back by the next report", used)
    a.bounds = b.bounds = Bounds(rates=(Rate(9, per_s=10, unit="tokens"),))
    a.tell(in_flight={"requests": 1.0, "tokens": 5.0})
    a.tell(in_flight={"requests": 1.0})
    used = b.used()
    _holds(used == [0.0], "a unit that a report does not name is not in flight", used)


def _check_leaving(told: _Time, party: _Parties) -> None:
    a, b = party("a", Bounds(concurrency=1, spacing_s=60.0, rates=_THREE.rates)), party("b", _THREE)
    a.ask()
    a.end()
    answer = b.tell()
    _holds([owner.name for owner in answer.owners] == ["a"], "who shares a resource is told", answer.owners)
    a.bounds = None
    a.tell()
    answer = b.tell(wanted={})
    _holds(answer.wait_s == 0.0 and not answer.owners, "who leaves takes its limits along", answer)
    _holds(list(answer.used.values()) == [2.0], "what it used stays counted", answer.used)
    b.tell(cool_s=90.0)
    seen = [a.tell(cool_most_s=60.0).cool_s > 80.0, b.tell(bounds=None).cool_s > 80.0]
    _holds(all([*seen, a.tell(cool_most_s=60.0).cool_s <= 60.0]), "who is alone cuts what is left of a cool-down", seen)


def _check_history(told: _Time, party: _Parties) -> None:
    a, b = party("a", _THREE), party("b", _THREE)
    a.ask(tokens=7.0)
    b.ask()
    told.unix_s += 1.0
    b.end()
    told.unix_s += 4.0
    a.end(tokens=5.0, reserved={"tokens": 7.0})
    for store in (a.store, b.store):
        history = [(round(ago_s, 3), unit, cost) for ago_s, unit, cost in store.history(a.resource, 9.0)]
        _holds(
            history[:1] == [(4.0, "requests", 1.0)]
            and sorted(history[1:]) == [(0.0, "requests", 1.0), (0.0, "tokens", 5.0)],
            "the history has what each answer cost, and how long ago; the oldest first",
            history,
        )
        _holds(len(store.history(a.resource, 2.0)) == 2, "and nothing that is older than was asked for")
        _holds(store.history("of nobody", 9.0) == [], "and nothing of other resources")


def _check_looking(told: _Time, party: _Parties) -> None:
    a, b = party("a", _THREE), party("b", Bounds())
    a.tell(label="wishlist")
    a.ask()
    answer = b.tell(owner="", bounds=None)
    _holds(
        answer.used == {Rate(3, per_s=10): 1.0} and [owner.running for owner in answer.owners] == [1],
        "whoever looks sees what is used, and by whom",
        answer,
    )
    _holds(a.tell().owners == (), "and is no owner")


def _check_strangers(told: _Time, party: _Parties) -> None:
    a, b = party("a", _THREE), party("b", _THREE)
    a.ask()
    b.ask()
    a.end()
    _holds(not a.tell().is_stranger, "one's own answers are no stranger's")
    b.end()
    _holds(a.tell().is_stranger, "an owner is told that others were counted since its last answer")


def _check_lowered(told: _Time, party: _Parties) -> None:
    rates = (Rate(10, per_s=10, unit="tokens"),)
    a, b = party("a", Bounds(rates=rates)), party("b", Bounds(rates=rates))
    waits = [b.ask(tokens=1.0), a.ask(tokens=20.0)]
    _holds(
        waits == [0.0, math.inf], "what costs more than a limit that was lowered waits until all else is gone", waits
    )
    b.end(tokens=1.0)
    told.unix_s += 10.1
    waits = [a.ask(tokens=20.0), b.ask(tokens=1.0)]
    _holds(waits == [0.0, math.inf], "then it starts, alone", waits)


def _check_places(told: _Time, party: _Parties) -> None:
    a, b = party("a", Bounds(concurrency=2)), party("b", Bounds())
    a.tell()
    waits = [a.ask(), a.ask(), b.ask()]
    a.end()
    a.end()
    waits += [a.ask(), a.ask(slot=False)]
    _holds(waits[3] == 0.0, "a place is free where nobody waits who has fewer", waits)
    wait_s = a.ask()
    _holds(0.0 < wait_s < 1.0, "a place goes to who waits and has fewer", wait_s)
    waits = [a.ask(slot=False), b.ask()]
    _holds(waits == [0.0, 0.0], "who has fewer gets it, and a further request of an attempt waits for nobody", waits)
    b.ask()
    told.unix_s += 1.0
    b.running = 0
    b.tell()
    wait_s = a.ask()
    _holds(wait_s == 0.0, "nobody waits for who does not ask any more", wait_s)


def _check_turns(told: _Time, party: _Parties) -> None:
    bounds = Bounds(rates=(Rate(10, per_s=0.2, unit="tokens"),))
    a, b = party("a", bounds), party("b", bounds)
    waits = []
    a.ask(tokens=6.0)
    for _ in range(8):
        b.ask(tokens=10.0)
        waits.append(a.ask(tokens=4.0))
        if not waits[-1]:
            a.end(tokens=4.0)
        told.unix_s += 0.3
    _holds(waits[0] == 0.0 < waits[-1], "what costs much is not passed over for ever", waits)
    a.end(tokens=6.0)
    told.unix_s += 0.6
    wait_s = b.ask(tokens=10.0)
    _holds(wait_s == 0.0, "who has waited longest goes first", wait_s)


_LIMIT_CHECKS = (
    _check_windows,
    _check_another_unit,
    _check_strictest,
    _check_spacing,
    _check_concurrency,
    _check_groups,
    _check_cool_down,
    _check_lease,
    _check_repeated,
    _check_leaving,
    _check_history,
    _check_looking,
    _check_strangers,
    _check_lowered,
    _check_places,
    _check_turns,
)
