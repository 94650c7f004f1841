"""Limit promises: what each limit store must do, the ones that users bring too."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ipybatch.engine.data.policy import Rate
from ipybatch.engine.store.limit_store import LEASE_S, Answer, Bounds, LimitStore, Report


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

    unix_s: float = 1_700_000_000.0

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


def _check_several(told: _Time, party: _Parties) -> None:
    a, b = party("a", _THREE), party("b", Bounds())
    more = a.tell(wanted={}, more=9).more
    _holds(more <= 2 and b.used() == [1.0 + more], "no more is granted at once than fits, and all of it counts", more)
    a.flying = {"requests": 3.0}
    b.ask()
    a.flying = {"requests": 1.0}
    answer = a.tell(wanted={}, more=1)
    _holds(answer.more == 0, "and one at a time where others wait", answer)
    a.resource = b.resource = f"{a.resource}, spaced"
    b.bounds = Bounds(spacing_s=2.0)
    b.tell()
    answer = a.tell(wanted={}, more=1)
    _holds((answer.wait_s, answer.more) == (0.0, 0), "and where starts are spaced", answer)


def _check_late(told: _Time, party: _Parties) -> None:
    a, b = party("a", _THREE), party("b", _THREE)
    if not getattr(a.store, "is_remote", False):
        return
    b.tell()
    one, two = (0.1, "requests", 1.0), (0.0, "requests", 1.0)
    a.tell(number=1, spent=[one])
    used = [a.tell(number=2, spent=[one, two]).used, b.used()]
    _holds(used[1] == [2.0], "what was counted is not counted again when it is reported again", used)
    a.tell(number=4, said=2, spent=[two], in_flight={"requests": 1.0})
    _holds(b.used() == [4.0], "what was not counted yet is", b.used())
    answer = a.tell(number=3, spent=[one, two, two], wanted={})
    _holds(answer.wait_s > 0.0 and b.used() == [4.0], "a report that comes after a later one is not heeded", answer)
    a.tell(bounds=None, number=5)
    a.tell(number=1, in_flight={"requests": 1.0})
    _holds(b.used() == [4.0], "who left begins anew", b.used())


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
    _check_several,
    _check_late,
)
