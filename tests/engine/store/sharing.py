"""Processes that share a resource, in virtual time: what they send, and what the worst of servers could count."""

import heapq
import math
from bisect import bisect_left
from concurrent.futures import Future
from itertools import count

import msgspec

from ipybatch.engine.rules.limiter import NO_COST
from ipybatch.engine.store import store_link
from ipybatch.engine.store.limit_store import LEASE_S
from ipybatch.engine.store.shared_limiter import SharedLimiter
from ipybatch.engine.store.sqlite_limits import SqliteLimits
from ipybatch.errors import JournalError
from ipybatch.testing import START_UNIX_S, MemoryLimits, Report, StoreBusy

DELAYS_S = 0.0, 0.0005, 0.02, 0.05, 0.3, 1.4  # of an exchange on its way there, or back
GIVES_UP_S = 3.0  # who waits for an answer


def worst_case(sent, per_s):
    """Return the most that any window of ``per_s`` can hold, wherever each arrives between its start and its end.

    Of (start, end, cost): all that begin no later than ``per_s`` after some request's end, and do not end before it.
    """
    by_start = sorted(sent)
    starts = [start_s for start_s, _, _ in by_start]
    return max(
        (
            sum(cost for _, end_s, cost in by_start[: bisect_left(starts, first_s + per_s)] if end_s >= first_s)
            for first_s in {end_s for _, end_s, _ in sent}
        ),
        default=0.0,
    )


class Killed(BaseException):
    """A process that ends where it is."""


class Timer:
    def __init__(self, when_s):
        self._when_s, self.is_cancelled = when_s, False

    def when(self):
        return self._when_s

    def cancel(self):
        self.is_cancelled = True


class FarStore(MemoryLimits):
    """A store that is a network away, and forgets what it knew when it is wiped."""

    def __init__(self, now_s):
        super().__init__(now_s)
        self.untold = set()
        self.away_until_s, self.refuses = -math.inf, False

    def go_away(self, seconds, *, refuses=False):
        """Answer nobody for so long, or tell at once that it does not."""
        self.away_until_s, self.refuses = self._now_s() + seconds, refuses

    def wipe(self):
        """Begin anew: nothing starts for the time of a lease, and who used it is told until it has heard."""
        for name, resource in self._resources.items():
            self.untold |= {(name, owner) for owner in resource.members}
        names = list(self._resources)
        self._resources = {}
        for name in names:
            self.exchange(Report(resource=name, cool_s=LEASE_S, why="it began anew"))

    def exchange(self, report):
        answer = super().exchange(report)
        return msgspec.structs.replace(answer, is_anew=(report.resource, report.owner) in self.untold)


class World:
    """Time, and whatever is to happen in it.

    Args:
        delays_s: How long an exchange may take, there and back; () for a store of this machine.
    """

    def __init__(self, path, chance, faults, delays_s=()):
        self.path, self.chance, self.faults, self.delays_s = path, chance, faults, delays_s
        self.patience = 0.5  # of who comes or goes
        self.far = FarStore(self.unix_s)
        self.now_s = START_UNIX_S
        self.processes = {}
        self.is_nested = False
        self._events, self._numbers = [], count()
        self._at_once = 0

    def unix_s(self):
        return self.now_s

    def waits(self):
        """Say whether who comes or goes waits for the store."""
        return not self.delays_s or self.chance.random() < self.patience

    def find_process(self, owner):
        process = self.processes.get(owner)
        return None if process is None else not process.is_dead

    def at(self, when_s, process, act):
        heapq.heappush(self._events, (when_s, next(self._numbers), process, act))

    def run_until(self, ends_s):
        while self._events and self._events[0][0] <= ends_s:
            when_s, _, process, act = heapq.heappop(self._events)
            self._at_once = self._at_once + 1 if when_s <= self.now_s else 0
            assert self._at_once < 10_000, "time stands still"
            self.now_s = max(self.now_s, when_s)
            if process.is_stopped:
                process.put_off.append(act)
            elif not process.is_dead:
                try:
                    act()
                except Killed:
                    process.kill()
        self.now_s = max(self.now_s, ends_s)

    def run_to(self, is_over, most_s):
        """Run until something is so, at most so long."""
        ends_s = self.now_s + most_s
        while not is_over() and self._events and self._events[0][0] <= ends_s:
            self.run_until(max(self._events[0][0], self.now_s))

    def close(self):
        for process in self.processes.values():
            process.file.close()


class Process:
    """A kernel with a session that sends requests; also its loop, its clock, and its way to the store."""

    def __init__(self, world, owner, limits):
        self.world, self.owner = world, owner
        self.has_begun = self.is_stopped = self.is_dead = False
        self.put_off, self.sent, self.wanted, self.told = [], [], [], []
        self.calls, self.fates = 0, iter(())  # exchanges in a thread, and what becomes of the next ones
        self.skew_s = world.chance.choice([0.0, -1e6, 500.0])  # its clock began some other time
        self.file = SqliteLimits(world.path, world.unix_s, world.unix_s)
        self.is_remote = bool(world.delays_s)
        self.limiter = SharedLimiter(self, "api", owner, self, self.wake, self.told.append, is_private=False)
        if self.is_remote:
            self.limiter._link = Link(self)
        world.processes[owner] = self
        self.limits = limits

    def begin(self):
        try:
            self.limiter.enter(self, self.limits, self, self.owner, waits=self.world.waits())
        except JournalError:
            self.world.at(self.world.now_s + 0.1, self, self.begin)
        else:
            self.has_begun = True
            self.wake()

    # its clock and its loop
    def now_s(self):
        return self.world.now_s + self.skew_s

    def unix_s(self):
        return self.world.now_s

    def time(self):
        return self.world.now_s

    def is_closed(self):
        return False

    def call_later(self, wait_s, act, context=None):
        when_s = self.world.now_s + wait_s
        timer = Timer(when_s)
        self.world.at(when_s, self, lambda: timer.is_cancelled or act())
        return timer

    def call_soon_threadsafe(self, act, context=None):
        self.world.at(self.world.now_s, self, act)

    def hold(self, change):
        pass

    # its way to the store
    @property
    def store(self):
        return self.world.far if self.is_remote else self.file

    def exchange(self, report):
        if self.is_remote:
            return self.exchange_far(report)
        chance, fault = self.world.chance, ""
        if chance.random() < self.world.faults:
            fault = chance.choice(["busy", "lost", "stopped before", "stopped after", "full"])
        if fault == "busy":
            raise StoreBusy
        if fault == "full":
            msg = "the disk is full"
            raise JournalError(msg)
        if fault == "stopped before":
            self.stand_still()
        answer = self.file.exchange(report)
        if fault == "lost":
            raise StoreBusy
        if fault == "stopped after":
            self.stand_still()
        return answer

    def exchange_far(self, report):
        """Exchange on this thread."""
        fate = (
            self.world.chance.choice(["lost", "lost there"]) if self.world.chance.random() < self.world.faults else ""
        )
        if fate == "lost there" or self.world.now_s < self.world.far.away_until_s:
            raise JournalError("nobody answers")
        answer = self.store.exchange(report)
        if fate == "lost":
            raise JournalError("nobody answers")
        self.store.untold.discard((report.resource, report.owner))
        return answer

    def history(self, resource, since_s):
        return self.store.history(resource, since_s)

    def stand_still(self):
        """Do nothing for some time, in the middle of an exchange, while the others go on."""
        if self.world.is_nested:
            return
        self.world.is_nested = self.is_stopped = True
        self.world.run_until(self.world.now_s + self.world.chance.choice([0.01, 1.0, 4.0, 20.0, 70.0]))
        self.world.is_nested = self.is_stopped = False
        self.go_on()
        if self.is_dead:
            raise Killed

    # what befalls it
    def stop(self, seconds):
        self.is_stopped = True
        self.world.at(self.world.now_s + seconds, Other, self.go_on)

    def go_on(self):
        self.is_stopped = False
        acts, self.put_off = self.put_off, []
        for act in acts:
            self.world.at(self.world.now_s, self, act)

    def kill(self):
        """End; what it has sent may arrive until now."""
        self.is_dead = True
        now_s = self.world.now_s
        self.sent = [(start_s, max(start_s, min(end_s, now_s)), cost) for start_s, end_s, cost in self.sent]

    # what it does
    def want(self, latencies, cost=NO_COST):
        self.wanted += [(latency_s, cost) for latency_s in latencies]
        self.wake()

    def wake(self):
        self.world.at(self.world.now_s, self, self.work)

    def work(self):
        while self.wanted and self.has_begun:
            latency_s, cost = self.wanted[0]
            now_s = self.now_s()
            permit = self.limiter.start(now_s, cost)
            if permit is None:
                wait_s = self.limiter.wait_s(now_s, cost)
                if wait_s < math.inf:
                    self.world.at(self.world.now_s + max(wait_s, 1e-4), self, self.work)
                return
            self.wanted.pop(0)
            start_s = self.world.now_s
            self.sent.append((start_s, start_s + latency_s, cost))
            self.world.at(start_s + latency_s, self, lambda permit=permit: self.end(permit))

    def end(self, permit):
        self.limiter.respond(self.now_s(), permit, slot=True)
        self.wake()

    def leave(self):
        self.wanted.clear()
        self.has_begun = False
        self.limiter.leave(self, waits=self.world.waits())


class Link(store_link.StoreLink):
    """A process's way to a store that is a network away."""

    def __init__(self, process):
        super().__init__(process, process)
        self.process = process

    @property
    def courier(self):
        return Courier(self.process)


class Courier:
    """Carries reports, and answers back: late, or not at all, or when nobody waits for them any more."""

    def __init__(self, process):
        self.process, self.world = process, process.world

    def call(self, user, ask):
        world, done, began_s = self.world, Future(), self.world.now_s
        there_s, back_s = world.chance.choice(world.delays_s), world.chance.choice(world.delays_s)
        fate = next(self.process.fates, "")
        if world.chance.random() < world.faults:
            fate = world.chance.choice(["lost", "lost there", "late", "late"])
        there_s += 2 * GIVES_UP_S * (fate == "late")
        self.process.calls += 1

        def arrive():
            if fate == "lost there" or world.now_s < world.far.away_until_s:
                if world.far.refuses and not done.done():
                    done.set_result(JournalError("refused"))
                return
            known, self.process.exchange_far = self.process.exchange_far, self.exchange_once
            try:
                answer = ask()
            finally:
                self.process.exchange_far = known
            if fate != "lost":
                world.at(world.now_s + back_s, Other, lambda: self.hand_over(done, answer, began_s))

        world.at(began_s + there_s, Other, arrive)
        world.at(began_s + GIVES_UP_S, Other, lambda: done.done() or done.set_result(JournalError("nobody answers")))
        return done

    def exchange_once(self, report):
        return self.process.store.exchange(report)

    def hand_over(self, done, answer, began_s):
        if done.done():
            return
        if not isinstance(answer, list):
            self.world.far.untold.discard(("api", self.process.owner))
        done.set_result(answer)

    def wait(self, done, most_s):
        if self.world.is_nested:
            return
        self.world.is_nested = self.process.is_stopped = True
        self.world.run_to(done.done, most_s)
        self.world.is_nested = self.process.is_stopped = False
        self.process.go_on()
        if self.process.is_dead:
            raise Killed

    def leave(self, user):
        pass


class Other:
    """Who lets a stopped process go on."""

    is_stopped = is_dead = False
