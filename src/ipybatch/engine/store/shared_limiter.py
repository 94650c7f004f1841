"""SharedLimiter: the limits of a resource that other processes may use as well.

Rule: nothing starts that the store has not counted.  Either each permit is
asked for, or some were set apart before:

    exact    every start is an exchange with the store (some 50 us), which carries what was answered since the last one
    ahead    nobody else uses the resource, and much starts: the store counts an allowance as in flight, and within it
             starts are decided here, by the limiter alone, as if there were no store; every `TICK_S` what was answered
             is reported and the allowance renewed, twice what the last one came to

Whoever comes meanwhile finds the allowance counted, and gets no permit that
may be taken here; at the next tick, at the latest, the owner sees that it is
not alone, and gives the allowance back.  If it is killed, the allowance counts
as sent.  If it was stopped for longer than `STALE_S`, it asks before it starts
anything.

One subject, hence its length: all that passes between a limiter and its store.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TypeVar

from ipybatch.engine.data import events
from ipybatch.engine.data.clock import Clock
from ipybatch.engine.data.policy import Limits, Rate
from ipybatch.engine.rules.limiter import (
    LONG_COOL_S,
    NO_COST,
    REFUSED,
    Cost,
    Counted,
    Limiter,
    Permit,
    Spent,
    cost_in,
    cut_words,
    held_s,
)
from ipybatch.engine.store.limit_store import (
    LEASE_S,
    POLL_MOST_S,
    PULSE_S,
    Answer,
    Bounds,
    LimitStore,
    Owner,
    Report,
    StoreBusy,
    asked,
)
from ipybatch.errors import JournalError

T = TypeVar("T")

TICK_S = 0.05
STALE_S = 5.0  # after so long without an exchange nothing starts that was not asked for
RENEW_S = 3.0
FAST = 3  # starts within a tick that make it worth to run ahead
MERGE_S = 0.005  # answers that came within so long are reported as one, of the last moment
AGAIN_S = 0.001, 0.005  # after another process held the store
POLL_S = 0.005  # at first, while only a response in another process can make room
USED_UP = "the service's own window is used up"
TOLD_S = 10.0  # so long a wait for that is worth a word
PATIENCE_S = 0.2  # to leave while another process holds the store


class SharedLimiter(Limiter):
    """Every limit of one resource, with what other processes use of it.

    Args:
        name: Of the resource.
        owner: What this process is called in the store, for this resource.
        clock: That of the sessions.
        is_private: Whether no other process can use it: then nothing is asked for but what outlives this one.
        changed: Called when something may start that could not before.
        tell: Called with events that people should know of: a cool-down, or a trouble with the store.
        group: Name of the limit group, as people read it; "" for the resource itself.
        called: What people call the resource; by default its name.

    Attributes:
        loop: That of the sessions that use it; None before the first.
        why: Why it cools down, or did last.
        owners: The others that use it just now.
    """

    def __init__(  # noqa: PLR0917  # its collaborators, each of another type
        self,
        store: LimitStore,
        name: str,
        owner: str,
        clock: Clock,
        changed: Callable[[], None],
        tell: Callable[[events.Event], None],
        *,
        is_private: bool,
        group: str = "",
        called: str = "",
    ) -> None:
        self.is_private, self._bounds = is_private, Bounds()
        super().__init__()
        self.store, self.name, self.owner, self.group = store, name, owner, group
        self.called, self.why = called or name, ""
        self.owners: tuple[Owner, ...] = ()
        self._labels: dict[object, str] = {}
        self.trouble = ""  # why the store cannot be asked; "" when it can
        self.clock, self._changed, self._tell = clock, changed, tell
        self._counts = not is_private  # something of it must be asked for
        self._is_ahead = False
        self._given: Cost = {}  # the allowance as it was set apart
        self._left = 0.0  # of it: requests
        self._left_of: dict[str, float] = {}  # and the other units
        self._answered: dict[str, list[list[float]]] = {}  # since the last exchange, by unit: last at, cost, first at
        self._latest: list[float] = []  # of the requests among them
        self._merges_until_s = -math.inf
        self._asked = 0  # permits that were asked for one by one since they were last counted
        self._counted_s = -math.inf
        self._stale_s = -math.inf  # nothing starts then that was not asked for
        self._renew_s = -math.inf  # the next exchange is due, whatever happens
        self._hint_s = -math.inf  # nothing is granted before that
        self._poll_s = POLL_S
        self._unsaid_cool_s: float | None = None  # end of a cool-down that the store does not know; -inf: it was lifted
        self._uncounted: Sequence[Counted] = ()  # what the store does not know yet of the service's own count
        self._asked_for = ""  # what the service asked for, where that was cut
        self._used: dict[Rate, float] = {}
        self._is_whole = False  # the windows here hold all that the store knows
        self._is_in = False  # the store
        self._is_due = False  # something is to be reported
        self.loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def label(self) -> str:
        """What people call this process: its sessions."""
        return ", ".join(dict.fromkeys(self._labels.values()))

    def enter(self, member: object, limits: Limits, loop: asyncio.AbstractEventLoop, label: str) -> None:
        """Hold to a session's limits as well.

        Raises:
            JournalError: The store cannot be read or written.
        """
        now_s = self.clock.now_s()
        if self.loop is not loop:
            self._cancel_timer()
            self.loop = loop
        self._labels[member] = label
        spans = [held_s(rate) for rate in (*self.windows, *limits.all_rates)]
        is_first = not self._joined
        if is_first and self.cool_until_s > now_s + LONG_COOL_S:
            self.cool_until_s = now_s + LONG_COOL_S
        # What is left from a session that has ended, or a process that is gone, must not hold this one for a day.
        look = Report(resource=self.name, cool_most_s=LONG_COOL_S if is_first else None)
        found = self._persist(lambda: asked(lambda: self.store.exchange(look)))  # whoever is gone counts from now on
        told = self._persist(lambda: self._known(now_s, spans))
        self.join(member, limits, now_s=now_s, spent=told or ())
        if told is not None:
            self._refill(told)
        if found is not None:  # whoever joins is told apart
            self._cool(now_s, found, is_told=not is_first)
        if self._counts:
            self._persist(lambda: self._exchange(now_s))
        self._arm(self._pause_s())

    def join(self, member: object, limits: Limits, *, now_s: float = 0.0, spent: Iterable[Spent] = ()) -> None:
        """Add a session's limits; what the store knows of a new window is asked for before anything starts ahead."""
        if not self.windows.keys() >= set(limits.rates):
            self._is_whole = False
            self._fall_back()
        super().join(member, limits, now_s=now_s, spent=spent)

    def change(self, member: object, limits: Limits) -> None:
        """Put other limits in the place of a session's; others heed them within a second."""
        super().change(member, limits)
        self._hint_s = -math.inf
        self._report_soon()

    def leave(self, member: object) -> None:
        """Take a session's limits away; what its requests used stays counted."""
        super().leave(member)
        self._labels.pop(member, None)
        if self._joined or not self._is_in:
            return
        self._fall_back()
        with suppress(JournalError):  # the lease runs out
            self._persist(lambda: self._exchange(self.clock.now_s()))
        if not self._is_in:
            self._cancel_timer()

    def start(self, now_s: float, cost: Cost, *, slot: bool = True) -> Permit | None:
        """Take a permit for a request that may start now; None when it may not, see `wait_s`."""
        if cost is NO_COST:
            if self._left >= 1.0 and now_s < self._stale_s:
                permit = Limiter.start(self, now_s, cost, slot=slot)
                if permit is not None:
                    self._left -= 1.0
                return permit
        elif cost is not REFUSED and self._allows(cost) and now_s < self._stale_s:
            permit = Limiter.start(self, now_s, cost, slot=slot)
            if permit is not None:
                self._left -= cost_in("requests", cost)
                for unit in self._left_of:
                    self._left_of[unit] -= cost_in(unit, cost)
            return permit
        return self._ask(now_s, cost, slot=slot)

    def wait_s(self, now_s: float, cost: Cost = NO_COST, *, slot: bool = True) -> float:
        """Return seconds until one request of ``cost`` may start; 0.0 means that it is worth to ask."""
        wait_s = super().wait_s(now_s, cost, slot=slot)
        return max(wait_s, self._hint_s - now_s) if self._hint_s > now_s else wait_s

    def respond(self, now_s: float, permit: Permit, actual: Cost = NO_COST, *, slot: bool = False) -> None:
        """Count the response to a permit's request, here and in the store."""
        if id(permit) in self._in_flight:
            cost = permit.cost
            if cost is not NO_COST or actual:
                told = {**cost, **actual}
                for unit in {"requests", *told}:
                    self._say(now_s, unit, cost_in(unit, told))
            elif now_s < self._merges_until_s:
                latest = self._latest
                latest[0] = now_s
                latest[1] += 1.0
            else:
                self._say(now_s, "requests", 1.0)
                self._latest, self._merges_until_s = self._answered["requests"][-1], now_s + MERGE_S
            if not self._is_ahead:
                self._report_soon()
        Limiter.respond(self, now_s, permit, actual, slot=slot)

    def free(self) -> None:
        """Give a place among the ``concurrency`` back."""
        Limiter.free(self)
        if self._counts and not self._is_ahead:
            self._report_soon()

    def give_back(self, permit: Permit, *, slot: bool) -> None:
        """Take a permit back for which nothing was sent."""
        Limiter.give_back(self, permit, slot=slot)
        self._report_soon()

    def cool_down(self, now_s: float, started_s: float, wait_s: float) -> bool:
        """Let nothing start for ``wait_s``, in no process; say whether that is news."""
        if not super().cool_down(now_s, started_s, wait_s):
            return False
        self._asked_for = cut_words(wait_s)
        self.why = f"the service asked us to slow down{self._asked_for}"
        with suppress(JournalError):  # the store hears of it at the next start
            self._persist(lambda: self._exchange(now_s))
        self._arm(PULSE_S)
        self._tell(self.cooled_down(now_s))
        return True

    def cooled_down(self, now_s: float) -> events.CooledDown:
        """Return the cool-down that is in force as an event."""
        unix_s = self.clock.unix_s()
        return events.CooledDown(unix_s, unix_s + self.cool_until_s - now_s, self.why, self.group, self.called)

    def _count(self, now_s: float, counted: Sequence[Counted]) -> None:
        """Let the service's own count hold in the store, where it says more than is known."""
        known = self._used if self.owners else {rate: window.used(now_s) for rate, window in self.windows.items()}
        news = [one for one in counted if one.used > known.get(one.rate, 0.0) + 0.5]
        if not news:
            return
        super()._count(now_s, news)
        self._uncounted, self._is_whole = news, False
        self._fall_back()  # what is set apart is not used yet
        if self._try(lambda: self._exchange(now_s)) is None:
            self._report_soon()

    def _prolong(self, now_s: float, wait_s: float) -> bool:
        news = super()._prolong(now_s, wait_s)
        self._unsaid_cool_s = self.cool_until_s
        self._report_soon()
        return news

    def _hold(self, now_s: float, hold_s: float) -> None:
        """Let nothing start, in no process, until the service's window begins anew."""
        if not self._prolong(now_s, hold_s):
            return
        self._asked_for = cut_words(hold_s)
        self.why = USED_UP + self._asked_for
        self._try(lambda: self._exchange(now_s))
        self._arm(PULSE_S)
        if hold_s >= TOLD_S:
            self._tell(self.cooled_down(now_s))

    def lift(self) -> bool:
        """End the cool-down, here and in every process; return whether there was one.

        Raises:
            JournalError: The store cannot be read or written.
        """
        now_s = self.clock.now_s()
        was_cool = sum(pacer.lift(now_s) for pacer in self._pacers) > 0 or self.cool_until_s > now_s
        self.cool_until_s = self._unsaid_cool_s = -math.inf
        self._hint_s = -math.inf
        self._persist(lambda: self._exchange(now_s))
        if was_cool:
            self._tell(events.CooledDown(self.clock.unix_s(), 0.0, "it was lifted", self.group, self.called))
        self._changed()
        return was_cool

    def shown(self, rates: Iterable[Rate], now_s: float) -> list[tuple[float, float, float, str]]:
        """Return of each of these windows what is used by all, its limit, its length in seconds and its unit."""
        if not self.owners:
            return super().shown(rates, now_s)
        return [(self._used[rate], rate.limit, rate.per_s, rate.unit) for rate in rates if rate in self._used]

    def _settle(self) -> None:
        super()._settle()
        self._counts = not self.is_private or self._is_paced or bool(self._spacing_s)
        for name in ("start", "respond"):  # where nothing is asked for, two calls an item are spared
            if self._counts:
                self.__dict__.pop(name, None)
            else:
                self.__dict__[name] = getattr(super(), name)
        self._bounds = Bounds(
            None if self._concurrency == math.inf else int(self._concurrency),
            self._spacing_s,
            tuple(window.rate for window in self._active),
        )

    def _allows(self, cost: Cost) -> bool:
        return self._left >= cost_in("requests", cost) and all(
            amount <= self._left_of.get(unit, 0.0) for unit, amount in cost.items() if unit != "requests"
        )

    def _say(self, now_s: float, unit: str, cost: float) -> None:
        """Keep what was answered for the next report; what came within a moment as one."""
        told = self._answered.setdefault(unit, [])
        if told and now_s < told[-1][2] + MERGE_S:
            told[-1][0] = now_s
            told[-1][1] += cost
        else:
            told.append([now_s, cost, now_s])

    def _ask(self, now_s: float, cost: Cost, *, slot: bool) -> Permit | None:
        """Ask the store for a permit, or for an allowance where much starts and nobody else is there."""
        if Limiter.wait_s(self, now_s, cost, slot=slot) > 0.0:
            return None
        if cost is REFUSED:
            return self.acquire(now_s, cost, slot=slot)
        if now_s < self._hint_s:
            return None
        if self._is_fast(now_s) and self._run_ahead(now_s, cost) and self._allows(cost):
            return self.start(now_s, cost, slot=slot)
        if not self._is_granted(now_s, cost, slot=slot):
            return None
        self._asked += 1
        return self.acquire(now_s, cost, slot=slot)

    def _is_granted(self, now_s: float, cost: Cost, *, slot: bool) -> bool:
        """Ask the store for one permit; say whether it is granted, and remember when it may be."""
        answer = self._try(lambda: self._exchange(now_s, wanted=cost, slot=slot))
        if answer is None:
            self._hint_s = now_s + (PULSE_S if self.trouble else random.uniform(*AGAIN_S))
            return False
        if answer.wait_s > 0.0:
            is_soon = answer.wait_s < math.inf
            self._hint_s = now_s + (answer.wait_s if is_soon else self._poll_s)
            self._poll_s = POLL_S if is_soon else min(1.5 * self._poll_s, POLL_MOST_S)
            return False
        self._poll_s = POLL_S
        # A process that was stopped meanwhile may not send any more: the next report takes the permit back.
        return self.clock.now_s() <= now_s + STALE_S

    def _is_fast(self, now_s: float) -> bool:
        """Say whether much has started since the last tick, or the last look."""
        if self._is_ahead:
            return not self.owners
        if now_s > self._counted_s + TICK_S:
            self._asked, self._counted_s = 0, now_s
        return self._asked >= FAST and not self.owners

    def _run_ahead(self, now_s: float, cost: Cost) -> bool:
        """Have an allowance set apart, twice what was used of the last one; say whether that was done."""
        if not self._is_whole and not self._load(now_s):
            return False
        allowance = {"requests": 2.0 * max(FAST, self._given.get("requests", 0.0) - self._left)}
        for unit in {*self._given, *cost} - {"requests"}:
            used = self._given.get(unit, 0.0) - self._left_of.get(unit, 0.0)
            allowance[unit] = 2.0 * max(FAST * cost.get(unit, 0.0), used)
        answer = self._try(lambda: self._exchange(now_s, allowance=allowance))
        is_late = self.clock.now_s() > now_s + STALE_S  # it was stopped meanwhile
        if answer is None or answer.owners or answer.is_stranger or answer.cool_s or is_late:
            self._fall_back()  # what was set apart goes back with the next report
            self._report_soon()
            return False
        self._left = allowance["requests"]
        self._left_of = {unit: amount for unit, amount in allowance.items() if unit != "requests"}
        self._given, self._is_ahead, self._hint_s = allowance, True, -math.inf
        self._arm(TICK_S)
        return True

    def _fall_back(self) -> None:
        """Start nothing more that was not asked for."""
        self._is_ahead, self._asked = False, 0
        self._given, self._left, self._left_of = {}, 0.0, {}

    def _load(self, now_s: float) -> bool:
        """Let the windows hold what the store knows; return whether they do."""
        told = self._try(lambda: self._known(now_s, map(held_s, self.windows)))
        if told is None:
            return False
        self._refill(told)
        return True

    def _known(self, now_s: float, spans: Iterable[float]) -> list[Spent]:
        """Return what was answered within the longest of some times: what the store knows, and what it does not yet.

        Raises:
            StoreBusy: Another process holds it.
            JournalError: It cannot be read or written.
        """
        longest_s = max(spans, default=0.0)
        history = asked(lambda: self.store.history(self.name, longest_s)) if longest_s else []
        return sorted((now_s - ago_s, unit, cost) for ago_s, unit, cost in (*history, *self._unsaid(now_s)))

    def _refill(self, told: Sequence[Spent]) -> None:
        for window in self.windows.values():
            window.refill(told)
        self._is_whole = True

    def _exchange(
        self,
        now_s: float,
        *,
        wanted: Cost | None = None,
        slot: bool = True,
        allowance: Cost | None = None,
    ) -> Answer:
        """Report to the store, and take its answer in.

        Raises:
            StoreBusy: Another process holds it; what was to be reported is kept.
            JournalError: It cannot be read or written.
        """
        apart = {**self._left_of, "requests": self._left} if allowance is None else allowance
        is_over = not self._joined and not self._in_flight
        cool_s = self._unsaid_cool(now_s)
        report = Report(
            resource=self.name,
            owner=self.owner,
            label=self.label,
            bounds=None if is_over else self._bounds,
            running=self.running + int(apart["requests"]),
            in_flight=self.flying(apart),
            spent=self._unsaid(now_s),
            wanted=wanted,
            slot=slot,
            lease_s=LEASE_S,
            cool_s=cool_s,
            why=self._why() if cool_s else "",
            counted=self._uncounted,
        )
        answer = asked(lambda: self.store.exchange(report))
        if not isinstance(answer, Answer):
            msg = f"the limit store's exchange() must return an Answer, got {type(answer).__name__}"
            raise JournalError(msg)
        self._answered, self._merges_until_s, self._is_due = {}, -math.inf, False
        self._stale_s, self._renew_s, self._is_in = now_s + STALE_S, now_s + RENEW_S, not is_over
        self._unsaid_cool_s, self._uncounted = None, ()
        if answer.is_stranger:
            self._is_whole = False
        if answer.is_anew:
            self._say_again()
        before, self.owners, self._used = self.owners, answer.owners, dict(answer.used)
        if {owner.name for owner in before} != {owner.name for owner in self.owners}:
            self._hint_s = -math.inf
        self._cool(now_s, answer)
        return answer

    def _say_again(self) -> None:
        """Keep for the next report all that is known here: the store has lost it."""
        longest = {window.rate.unit: window for window in sorted(self.windows.values(), key=lambda one: one.rate.per_s)}
        for unit, window in longest.items():
            self._answered[unit] = [[at_s, cost, at_s] for at_s, cost in window.spent()]
        self._report_soon()

    def _unsaid(self, now_s: float) -> list[Spent]:
        return [(now_s - at_s, unit, cost) for unit, told in self._answered.items() for at_s, cost, _ in told]

    def _why(self) -> str:
        """Return why it cools down, as others are told."""
        if self.why.startswith(USED_UP):
            return self.why
        return f"the service asked {self.label or 'a session'} to slow down{self._asked_for}"

    def _unsaid_cool(self, now_s: float) -> float | None:
        """Return what the store is to be told of a cool-down, as `Report.cool_s`."""
        until_s = self._unsaid_cool_s
        if until_s is None or -math.inf < until_s <= now_s:
            return None
        return max(0.0, until_s - now_s)

    def _cool(self, now_s: float, answer: Answer, *, is_told: bool = True) -> None:
        """Heed the store's cool-down, which another process may have begun, or somebody ended."""
        before_s = max(self.cool_until_s, now_s)
        self.cool_until_s = until_s = now_s + answer.cool_s if answer.cool_s else -math.inf
        if until_s > before_s + 0.1:
            self.why = answer.why
            if is_told and (answer.cool_s >= TOLD_S or not answer.why.startswith(USED_UP)):
                self._tell(self.cooled_down(now_s))
        elif until_s == -math.inf and before_s > now_s + 0.1:
            self._hint_s = -math.inf
            self._tell(events.CooledDown(self.clock.unix_s(), 0.0, "it was lifted", self.group, self.called))

    def _try(self, act: Callable[[], T]) -> T | None:
        """Do something with the store; None when that was not possible just now."""
        try:
            done = act()
        except StoreBusy:
            return None
        except JournalError as error:
            if not self.trouble:
                self._tell(events.Noted(self.clock.unix_s(), f"nothing starts until limits can be kept: {error}"))
            self.trouble = str(error)
            return None
        self.trouble = ""
        return done

    def _persist(self, act: Callable[[], T]) -> T | None:
        """Do something with the store, and try again for a moment; None when another process holds it all the time.

        Raises:
            JournalError: It cannot be read or written.
        """
        ends_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                return act()
            except StoreBusy:
                if time.monotonic() > ends_s:
                    self._report_soon()
                    return None
                time.sleep(random.uniform(*AGAIN_S))

    def _report_soon(self) -> None:
        """Report what changed, if no start does so before; at once where others may wait for it."""
        if not self._counts and not self._is_in:
            return
        self._is_due = True
        self._arm(MERGE_S if self.owners else TICK_S)

    def _arm(self, wait_s: float) -> None:
        """Look after the store in so many seconds, or sooner."""
        loop = self.loop
        if loop is None or wait_s == math.inf or loop.is_closed():
            return
        when_s = loop.time() + wait_s
        if self._timer is not None:
            if self._timer.when() <= when_s:
                return
            self._timer.cancel()
        self._timer = loop.call_at(when_s, self._look_after, context=contextvars.Context())

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pause_s(self) -> float:
        """Return seconds until the store is to be looked at again, whatever happens here."""
        if self._is_ahead:
            return TICK_S
        is_waiting = self.cool_until_s > self.clock.now_s()
        return PULSE_S if self._joined and (not self.is_private or is_waiting) else math.inf

    def _look_after(self) -> None:
        """Report what was answered, renew the lease, and see what others did."""
        self._timer = None
        now_s = self.clock.now_s()
        waited = self._hint_s > now_s or self.cool_until_s > now_s
        if self._is_ahead:
            self._tick(now_s)
        elif self._is_due or waited or now_s >= self._renew_s:
            if self._try(lambda: self._exchange(now_s)) is None:
                self._arm(PULSE_S if self.trouble else random.uniform(*AGAIN_S))
            elif waited:
                self._hint_s = -math.inf
        if waited and self._hint_s < now_s:
            self._changed()
        self._arm(self._pause_s())

    def _tick(self, now_s: float) -> None:
        """Renew the allowance, or give it back where little starts or somebody else is there."""
        is_fast = self._given["requests"] - self._left >= FAST
        if is_fast and not self.owners and self._run_ahead(now_s, NO_COST):
            return
        self._fall_back()
        if self._try(lambda: self._exchange(now_s)) is None:
            self._report_soon()
