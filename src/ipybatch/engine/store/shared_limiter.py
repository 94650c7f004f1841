"""SharedLimiter: the limits of a resource that other processes may use as well.

Rule: nothing starts that the store has not counted.  What it has counted and
has not started yet is set apart here, and starts are drawn from it:

    exact    the store is asked for permits: for each start one exchange (some 50 us), which carries what was answered
             since the last one; a store that is a network away, for as many as start in about two round trips
    ahead    nobody else uses the resource, and much starts: the store counts an allowance as in flight, and within it
             starts are decided here, by the limiter alone, as if there were no store; every `TICK_S` what was answered
             is reported and the allowance renewed, twice what the last one came to

Whoever comes meanwhile finds what is set apart counted, and gets no permit that
may be taken here; at the next tick, at the latest, the owner sees that it is
not alone, and gives the allowance back.  If it is killed, what is set apart
counts as sent.  If it was stopped for longer than `STALE_S`, or its machine has
slept, it asks before it starts anything.

One subject, hence its length: what may start.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence

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
    held_s,
)
from ipybatch.engine.store.alarm import Alarm
from ipybatch.engine.store.allowance import Allowance
from ipybatch.engine.store.limit_store import (
    POLL_MOST_S,
    PULSE_S,
    Answer,
    Bounds,
    LimitStore,
    Owner,
    Report,
    StoreBusy,
)
from ipybatch.engine.store.shared_cool_downs import SharedCoolDowns
from ipybatch.engine.store.store_link import AGAIN_S, MERGE_S, Failure, Sent, StoreLink, slept_s
from ipybatch.errors import JournalError

TICK_S = 0.05
STALE_S = 5.0  # after so long without an exchange nothing starts that was not asked for
NAP_S = 1.0  # of sleep that the monotonic clock does not know of
RENEW_S = 3.0
REMOTE_RENEW_S = 0.9  # once a second: what a store a network away has lost is to be known soon
FAST = 3  # starts within a tick that make it worth to run ahead
KEPT_S = 0.1  # so long a permit that came from far away is kept for a start
POLL_S = 0.005  # at first, while only a response in another process can make room


class SharedLimiter(SharedCoolDowns):
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
        self.called = called or name
        self.owners: tuple[Owner, ...] = ()
        self._labels: dict[object, str] = {}
        self.clock, self._changed, self._tell = clock, changed, tell
        self.trouble = ""  # why the store cannot be asked; "" when it can
        self._link = StoreLink(store, clock)
        self._counts = not is_private  # something of it must be asked for
        self._apart = Allowance()  # what may start without an exchange
        self._is_ahead = False
        self._asked, self._counted_s = 0, -math.inf  # permits that were asked for since then
        self._stale_s = -math.inf  # nothing starts then that was not asked for
        self._slept_s = 0.0  # at the last exchange
        self._renew_s = -math.inf  # the next exchange is due, whatever happens
        self._sent_s = -math.inf  # of the last one
        self._again_s = -math.inf  # the store is away, and not asked before
        self._hint_s = -math.inf  # nothing is granted before that
        self._poll_s = POLL_S
        self._taken: dict[Rate, float] = {}  # by all, as the store said
        self._is_whole = False  # the windows here hold all that the store knows
        self._is_in = False  # the store
        self._is_new = False  # here: what is left of an old cool-down is cut
        self._is_due = False  # something is to be reported
        self._alarm = Alarm(self._look_after)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """That of the sessions that use it; None before the first."""
        return self._alarm.loop

    @property
    def label(self) -> str:
        """What people call this process: its sessions."""
        return ", ".join(dict.fromkeys(self._labels.values()))

    def enter(
        self, member: object, limits: Limits, loop: asyncio.AbstractEventLoop, label: str, *, waits: bool = True
    ) -> None:
        """Hold to a session's limits as well.

        Args:
            waits: Whether a store that is a network away is waited for; else nothing starts before it has answered.

        Raises:
            JournalError: The store cannot be read or written, and was waited for.
        """
        is_first, now_s = not self._joined, self.clock.now_s()
        if self._link.is_remote and not waits:
            self._alarm.move(loop)
            self._labels[member], self._is_new, self._is_in = label, is_first, True
            self.join(member, limits, now_s=now_s)
            self._send(now_s)
            self._alarm.set(self._pause_s())
            return
        self._link.finish()
        self._alarm.move(loop)
        self._labels[member] = label
        now_s = self.clock.now_s()
        spans = [held_s(rate) for rate in (*self.windows, *limits.all_rates)]
        if is_first and self.cool_until_s > now_s + LONG_COOL_S:
            self.cool_until_s = now_s + LONG_COOL_S
        # What is left from a session that has ended, or a process that is gone, must not hold this one for a day.
        look = Report(resource=self.name, cool_most_s=LONG_COOL_S if is_first else None)
        found = self._link.patiently(lambda: self._link.exchange(look))  # whoever is gone counts from now on
        told = self._link.patiently(lambda: self._link.history(self.name, max(spans, default=0.0)))
        spent = self._link.all_spent(now_s, told or ())
        self.join(member, limits, now_s=now_s, spent=spent)
        if told is not None:
            self._refill(spent)
        if found is not None:  # whoever joins is told apart
            self._cool(now_s, found, is_told=not is_first)
        if self._counts:
            self._report_now()
        self._alarm.set(self._pause_s())

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

    def leave(self, member: object, *, waits: bool = True) -> None:
        """Take a session's limits away; what its requests used stays counted.

        Args:
            waits: Whether a store that is a network away is waited for; else `part` does so.
        """
        super().leave(member)
        self._labels.pop(member, None)
        if self._joined or not self._is_in:
            return
        self._fall_back()
        if self._link.is_remote and not waits:
            self._is_due = True
            self._send(self.clock.now_s())
            return
        try:
            self._report_now()
        except JournalError:  # the lease runs out
            self._is_in = bool(self._in_flight)
        self._rest()

    def part(self, most_s: float) -> None:
        """Wait until the store knows that nobody uses it here any more, at most so long; else the lease runs out."""
        if self._joined or not self._is_in:
            return
        ends_s = time.monotonic() + most_s
        self._link.finish(most_s)
        if self._is_due and not self.trouble:
            self._send(self.clock.now_s())
            self._link.finish(max(0.0, ends_s - time.monotonic()))
        self._is_in = self._is_in and bool(self._in_flight)
        self._rest()

    def _rest(self) -> None:
        if not self._is_in:
            self._alarm.cancel()
            self._link.close()

    def start(self, now_s: float, cost: Cost, *, slot: bool = True) -> Permit | None:
        """Take a permit for a request that may start now; None when it may not, see `wait_s`."""
        apart = self._apart
        if apart.left < apart.low or self._is_stale(now_s) or (slot and apart.slots < 1.0):
            return self._ask(now_s, cost, slot=slot)
        if cost is not NO_COST and (cost is REFUSED or not apart.allows(cost, slot=slot)):
            return self._ask(now_s, cost, slot=slot)
        permit = Limiter.start(self, now_s, cost, slot=slot)
        if permit is not None:
            if cost is NO_COST:
                apart.left -= 1.0
                apart.slots -= slot
            else:
                apart.draw(cost, slot=slot)
        return permit

    def wait_s(self, now_s: float, cost: Cost = NO_COST, *, slot: bool = True) -> float:
        """Return seconds until one request of ``cost`` may start; 0.0 means that it is worth to ask."""
        wait_s = super().wait_s(now_s, cost, slot=slot)
        is_busy = self._link.is_busy  # whoever waits is woken when its answer comes
        is_told = is_busy or self._hint_s > now_s
        if not is_told or (not self._is_stale(now_s) and self._apart.allows(cost, slot=slot)):
            return wait_s
        return max(wait_s, self._hint_s - now_s, PULSE_S if is_busy else 0.0)

    def respond(self, now_s: float, permit: Permit, actual: Cost = NO_COST, *, slot: bool = False) -> None:
        """Count the response to a permit's request, here and in the store."""
        if id(permit) in self._in_flight:
            cost = permit.cost
            if cost is not NO_COST or actual:
                told = {"requests": 1.0, **cost, **actual}
                for unit, amount in told.items():
                    self._link.keep(now_s, unit, amount)
            elif now_s < self._link.merges_until_s:
                latest = self._link.latest
                latest[0] = now_s
                latest[1] += 1.0
            else:
                self._link.keep_one(now_s)
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
        if self._counts and id(permit) in self._in_flight:
            self._apart.add(permit.cost, slot=slot)
        Limiter.give_back(self, permit, slot=slot)
        self._report_soon()

    def _count(self, now_s: float, counted: Sequence[Counted]) -> None:
        """Let the service's own count hold in the store, where it says more than is known."""
        known = self._taken if self.owners else {rate: window.used(now_s) for rate, window in self.windows.items()}
        news = [one for one in counted if one.used > known.get(one.rate, 0.0) + 0.5]
        if not news:
            return
        super()._count(now_s, news)
        self._link.count(news)
        self._is_whole = False
        self._fall_back()  # what is set apart is not used yet
        self._send(now_s)

    def shown(self, rates: Iterable[Rate], now_s: float) -> list[tuple[float, float, float, str]]:
        """Return of each of these windows what is used by all, its limit, its length in seconds and its unit."""
        if not self.owners and self._is_whole:
            return super().shown(rates, now_s)
        return [(self._taken[rate], rate.limit, rate.per_s, rate.unit) for rate in rates if rate in self._taken]

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

    def _fall_back(self) -> None:
        """Run ahead no more."""
        self._is_ahead, self._asked = False, 0
        self._apart.give_up()

    def _ask(self, now_s: float, cost: Cost, *, slot: bool) -> Permit | None:
        """Ask the store for a permit, or for an allowance where much starts and nobody else is there."""
        if Limiter.wait_s(self, now_s, cost, slot=slot) > 0.0:
            return None
        if cost is REFUSED:
            return self.acquire(now_s, cost, slot=slot)
        if not self._link.is_busy and now_s >= self._hint_s:
            if self._is_fast(now_s):
                self._run_ahead(now_s, cost)
            if not self._link.is_busy and not (self._is_ahead and self._apart.allows(cost, slot=slot)):
                self._send(now_s, wanted=cost, slot=slot)
        if self._is_stale(now_s) or not self._apart.allows(cost, slot=slot):
            return None
        if self._is_ahead and Limiter.wait_s(self, now_s, cost, slot=slot) > 0.0:
            return None  # the store knew of more than the windows here
        self._apart.draw(cost, slot=slot)
        return self.acquire(now_s, cost, slot=slot)

    def _is_stale(self, now_s: float) -> bool:
        """Say whether the store may have given to others meanwhile what is set apart here."""
        return now_s >= self._stale_s or (self._link.is_remote and slept_s() > self._slept_s + NAP_S)

    def _is_fast(self, now_s: float) -> bool:
        """Say whether much has started since the last tick, or the last look."""
        if self._is_ahead:
            return not self.owners
        if now_s > self._counted_s + TICK_S + 4 * self._link.round_s:
            self._asked, self._counted_s = 0, now_s
        return self._asked >= FAST and not self.owners

    def _run_ahead(self, now_s: float, cost: Cost) -> None:
        """Have an allowance set apart, twice what was used of the last one."""
        if not self._is_whole:
            since_s = max(map(held_s, self.windows), default=0.0)
            self._link.ask(lambda: self._link.history(self.name, since_s), self._learn, self.loop)
        if not self._is_whole or self._link.is_busy:
            return
        self._send(now_s, allowance=self._apart.twice(cost, FAST))

    def _learn(self, told: list[Spent] | Failure) -> None:
        """Let the windows hold what the store knows."""
        now_s = self.clock.now_s()
        if isinstance(told, StoreBusy | JournalError):
            self._fail(now_s, told)
        else:
            self._refill(self._link.all_spent(now_s, told))
        if self._link.is_remote:
            self._changed()

    def _refill(self, told: Sequence[Spent]) -> None:
        for window in self.windows.values():
            window.refill(told)
        self._is_whole = True

    def _send(
        self, now_s: float, *, wanted: Cost | None = None, slot: bool = True, allowance: Cost | None = None
    ) -> None:
        """Report to the store, and take its answer in when it comes; later, where that cannot be now."""
        if self._link.is_busy or now_s < self._again_s:
            self._is_due, self._hint_s = True, max(self._hint_s, self._again_s)
            return
        self._link.send(self._report(now_s, wanted=wanted, slot=slot, allowance=allowance), self._take, self.loop)

    def _report_now(self) -> None:
        """Report to the store, on this thread; try again for a moment while another process holds it.

        Raises:
            JournalError: It cannot be read or written.
        """
        self._link.finish()
        sent = self._report(self.clock.now_s())
        answer = self._link.patiently(lambda: self._link.exchange(sent.report))
        if answer is None:
            self._report_soon()
        else:
            self._take(sent, answer)

    def _report(
        self, now_s: float, *, wanted: Cost | None = None, slot: bool = True, allowance: Cost | None = None
    ) -> Sent:
        """Make a report; what is set apart and did not start in time is in it no more."""
        apart, link, more = self._apart, self._link, 0
        if link.is_remote:
            apart.look(is_recent=now_s < self._sent_s + self._keeps_s())
            self._sent_s = now_s
            if wanted is not None:
                more = apart.more(wanted, self._concurrency - self.running - apart.slots if slot else math.inf)
        is_used_up = not (apart.left or apart.slots)
        if not self._is_ahead and (apart.left_of if is_used_up else now_s >= apart.kept_until_s):
            apart.give_up()
        amounts, gain = apart.report(allowance)
        self._is_due = False
        report = Report(
            resource=self.name,
            owner=self.owner,
            label=self.label,
            bounds=None if not self._joined and not self._in_flight else self._bounds,
            running=self.running + int(amounts["requests"] if apart.slots == math.inf or gain else apart.slots),
            in_flight=self.flying(amounts),
            spent=link.say(now_s),
            wanted=wanted,
            slot=slot,
            cool_s=link.unsaid_cool_s(now_s),
            cool_most_s=LONG_COOL_S if self._is_new else None,
            why="" if link.cool_until_s is None else self._why(),
            counted=link.counted,
        )
        if link.is_remote:
            report = link.numbered(report, more)
        return Sent(report, now_s, gain, link.cool_until_s, apart.epoch, slept_s())

    def _keeps_s(self) -> float:
        """Return how long a permit that came is kept for a start, seconds."""
        return KEPT_S + 2 * self._link.round_s if self._link.is_remote else 0.0

    def _take(self, sent: Sent, told: Answer | Failure) -> None:
        """Take the answer to a report in."""
        now_s = self.clock.now_s()
        if not isinstance(told, Answer):
            self._fail(now_s, told, sent)
            return
        self._link.heard(now_s, sent)
        self._is_new = False
        if self.trouble:
            self.trouble, self._again_s = "", -math.inf
            self._tell(events.Noted(self.clock.unix_s(), "limits can be kept again: it goes on"))
        self._stale_s, self._slept_s = sent.at_s + STALE_S, sent.slept_s
        self._is_in = sent.report.bounds is not None
        self._renew_s = sent.at_s + (REMOTE_RENEW_S if self._link.is_remote else RENEW_S)
        if told.is_stranger:
            self._is_whole = False
        if told.is_anew:
            self._link.say_again(self.windows.values())
            self._report_soon()
        before, self.owners, self._taken = self.owners, told.owners, dict(told.used)
        if before != told.owners and {one.name for one in before} != {one.name for one in told.owners}:
            self._hint_s = -math.inf
        if self._link.cool_until_s is None:  # else it knows less than we
            self._cool(now_s, told)
        self._take_what_is_given(now_s, sent, told)
        if self._link.is_remote:
            self._alarm.set(MERGE_S if self._is_due else self._pause_s())
        if not self._is_in:
            self._link.close()
        if self._link.is_remote:
            self._changed()

    def _take_what_is_given(self, now_s: float, sent: Sent, answer: Answer) -> None:
        report = sent.report
        is_alone = not (answer.owners or answer.is_stranger or answer.cool_s)
        is_late = self._is_stale(now_s)  # it was stopped meanwhile: the next report takes all of it back
        if sent.gain is not None:
            if is_alone and not is_late and sent.epoch == self._apart.epoch:
                self._go_ahead(sent.gain)
            else:
                self._fall_back()
                self._report_soon()
            return
        if self._is_ahead and not is_alone:
            self._fall_back()
            self._report_soon()
        if report.wanted is None:
            self._hint_s = -math.inf
        elif answer.wait_s > 0.0:
            is_soon = answer.wait_s < math.inf
            self._hint_s = sent.at_s + (answer.wait_s if is_soon else self._poll_s)
            self._poll_s = POLL_S if is_soon else min(1.5 * self._poll_s, POLL_MOST_S)
        else:
            self._poll_s, self._hint_s = POLL_S, -math.inf
            self._asked += 1 + answer.more
            if is_late:
                self._report_soon()
                return
            apart = self._apart
            apart.kept_until_s = now_s
            apart.add(report.wanted, 1 + answer.more, slot=report.slot)
            if self._link.is_remote:
                apart.low = max(1.0, apart.left / 2)
                apart.kept_until_s += self._keeps_s()

    def _go_ahead(self, gain: Cost) -> None:
        """Start what the store has set apart; it is alone."""
        self._apart.gain(gain)
        self._apart.slots, self._is_ahead, self._hint_s = math.inf, True, -math.inf
        if self._link.is_remote:
            self._apart.low = max(1.0, self._apart.left / 2)
        self._alarm.set(self._pause_s())

    def _fail(self, now_s: float, error: Failure, sent: Sent | None = None) -> None:
        """Report again after a moment, or, where the store is away, after a second; nothing starts until then."""
        wait_s, self._is_due = random.uniform(*AGAIN_S), True
        if sent is not None and sent.gain is not None:
            self._fall_back()
        if isinstance(error, JournalError):
            if not self.trouble:
                self._tell(events.Noted(self.clock.unix_s(), f"nothing starts until limits can be kept: {error}"))
            self.trouble, wait_s, self._again_s = str(error), PULSE_S, now_s + 0.9 * PULSE_S
        is_asked = sent is None or sent.report.wanted is not None  # and is asked again
        if self.trouble or is_asked:
            self._hint_s = now_s + wait_s
        if self.trouble or not is_asked:
            self._alarm.set(wait_s)

    def _report_soon(self) -> None:
        """Report what changed, if no start does so before; at once where others may wait for it."""
        if not self._counts and not self._is_in:
            return
        self._is_due = True
        self._alarm.set(MERGE_S if self.owners else TICK_S)

    def _pause_s(self) -> float:
        """Return seconds until the store is to be looked at again, whatever happens here."""
        if self._is_ahead:
            return max(TICK_S, 2 * self._link.round_s)
        now_s, pause_s = self.clock.now_s(), math.inf
        if self._joined and (not self.is_private or self.cool_until_s > now_s):
            pause_s = PULSE_S
        if self._link.is_remote and not self._link.is_busy:
            pause_s = min(pause_s, MERGE_S + max(0.0, max(self._apart.goes_back_s, self._again_s) - now_s))
        return pause_s

    def _look_after(self) -> None:
        """Report what was answered, renew the lease, and see what others did."""
        now_s = self.clock.now_s()
        waited = self._hint_s > now_s or self.cool_until_s > now_s
        if not self._link.is_busy:  # else its answer is awaited
            if self._is_ahead:
                self._tick(now_s)
            elif self._is_due or waited or now_s >= min(self._renew_s, self._apart.goes_back_s):
                self._send(now_s)
        if waited and self._hint_s < now_s:
            self._changed()
        self._alarm.set(self._pause_s())

    def _tick(self, now_s: float) -> None:
        """Renew the allowance, or give it back where little starts or somebody else is there."""
        if self._apart.used_since >= FAST and not self.owners:
            self._run_ahead(now_s, NO_COST)
        else:
            self._fall_back()
            self._send(now_s)
