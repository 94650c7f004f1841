import heapq
import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.engine.data.plan import Task
from ipybatch.engine.data.policy import Breaker as BreakerPolicy
from ipybatch.engine.data.policy import Limits, Rate
from ipybatch.engine.rules.breaker import CircuitBreaker
from ipybatch.engine.rules.limiter import Limiter
from ipybatch.engine.rules.scheduler import Scheduler
from tests.engine.seen import busiest

WORDS = {"slot", "limit", "breaker", "batch", "retry", "probe"}


def tasks(count):
    return (Task(n, str(n), n) for n in range(count))


def scheduler_of(count, *, breaker=None, **limits):
    policy = Limits(**limits)
    limiter = Limiter()
    limiter.join("session", policy)
    return Scheduler(tasks(count), policy, limiter, breaker=None if breaker is None else CircuitBreaker(breaker))


def succeed(scheduler, now_s, ticket):
    scheduler.limiter.respond(now_s, ticket.permit)
    scheduler.limiter.free()
    if scheduler.breaker is not None:
        scheduler.breaker.succeed(now_s, ticket.epoch)
    scheduler.settle(now_s, ticket.task)


def fail(scheduler, now_s, ticket, ready_s):
    scheduler.limiter.respond(now_s, ticket.permit)
    scheduler.limiter.free()
    if scheduler.breaker is not None:
        scheduler.breaker.fail(now_s, ticket.epoch, ticket.task.seq)
    scheduler.retry(ready_s, ticket.task)


class Drive:
    """Run a scheduler in virtual time against a service that answers as the dice fall.

    Attributes:
        sent: (started, arrived, responded) of every request.
        settled: Items in the order of their outcomes.
        batches: For each batch: items, first start, last settle.
        ended: (time, attempt's number of failures before) of every attempt, for the breaker.
    """

    def __init__(self, scheduler, chance, *, attempts=3, bad=0.2, dead=(math.inf, math.inf), pauses=()):
        self.scheduler, self.chance, self.attempts, self.bad, self.dead = scheduler, chance, attempts, bad, dead
        self.now_s = 0.0
        self.sent, self.settled, self.batches, self.opened = [], [], {}, []
        self.waits = 0
        self._running, self._number = [], itertools.count()
        self._holds = [(at_s, held) for start_s, end_s in pauses for at_s, held in ((start_s, True), (end_s, False))]
        heapq.heapify(self._holds)
        scheduler.on_batch = self._open_batch

    def run(self):
        scheduler = self.scheduler
        while not scheduler.finished and not (scheduler.breaker and scheduler.breaker.gave_up):
            ticket = scheduler.next(self.now_s)
            if ticket is not None:
                self._start(ticket)
            elif not scheduler.finished:
                self._wait(scheduler.wait_s, scheduler.why)
        scheduler.held = True
        while self._running:
            self._next_end()

    def _start(self, ticket):
        assert not self.scheduler.held, "it was started while paused"
        task = ticket.task
        assert task.seq not in self.settled, "it has its outcome already"
        assert task.seq not in [other.task.seq for *_, other in self._running], "it is running already"
        seconds = self.chance.choice([0.0, 0.1, 0.5, 3.0])
        ends_s = self.now_s + seconds
        self.sent.append((self.now_s, self.now_s + self.chance.random() * seconds, ends_s))
        heapq.heappush(self._running, (ends_s, next(self._number), ticket))
        if task.group:
            self.batches[task.group]["first"] = min(self.batches[task.group]["first"], self.now_s)
        breaker = self.scheduler.breaker
        if breaker is not None and breaker.state == "half_open":
            probes = [other for *_, other in self._running if other.epoch == ticket.epoch]
            assert len(probes) == 1, "one probe at a time"

    def _wait(self, wait_s, why):
        until_s = min(
            self.now_s + wait_s,
            self._running[0][0] if self._running else math.inf,
            self._holds[0][0] if self._holds else math.inf,
        )
        assert until_s < math.inf, f"it stalls: {why!r}"
        assert wait_s > 0
        assert (why == "pause") == self.scheduler.held
        assert why in WORDS | {"pause"} or (wait_s == math.inf and self._running), "it waits for what runs, or says why"
        self.waits += 1
        assert self.waits < 50 * (len(self.sent) + 20), f"it turns round and round: {why!r}, {wait_s}"
        self.now_s = until_s
        while self._holds and self._holds[0][0] <= self.now_s:
            self.scheduler.held = heapq.heappop(self._holds)[1]
        while self._running and self._running[0][0] <= self.now_s:
            self._next_end()

    def _next_end(self):
        self.now_s, _, ticket = heapq.heappop(self._running)
        scheduler, breaker, task = self.scheduler, self.scheduler.breaker, ticket.task
        scheduler.limiter.respond(self.now_s, ticket.permit)
        scheduler.limiter.free()
        dead = self.dead[0] <= ticket.permit.started_s < self.dead[1]
        how = "fail" if dead else "ok"
        if not dead and self.chance.random() < self.bad:
            how = self.chance.choice(["fail", "slow down", "not found"])
        if how == "slow down":
            scheduler.limiter.cool_down(self.now_s, ticket.permit.started_s, 2.0)
        if breaker is not None:
            if how == "ok":
                breaker.succeed(self.now_s, ticket.epoch)
            elif how == "fail":
                breaker.fail(self.now_s, ticket.epoch, task.seq)
            else:
                breaker.release(ticket.epoch)
        if how in ("fail", "slow down") and task.attempts < self.attempts:
            scheduler.retry(self.now_s + self.chance.choice([0.0, 0.3, 2.0]), task)
            return
        scheduler.settle(self.now_s, task, failed=how != "ok")
        self.settled.append(task.seq)
        if task.group:
            self.batches[task.group]["last"] = self.now_s
            self.batches[task.group]["settled"] += 1

    def _open_batch(self, number, items):
        assert number == len(self.batches) + 1
        self.batches[number] = {"items": items, "settled": 0, "first": math.inf, "last": -math.inf}


limits = st.builds(
    lambda batch, pause_s, **others: Limits(batch_size=batch, batch_pause_s=pause_s if batch else 0, **others),
    batch=st.one_of(st.none(), st.integers(1, 7)),
    pause_s=st.sampled_from([0.0, 4.0]),
    concurrency=st.integers(1, 6),
    spacing_s=st.sampled_from([0.0, 0.25]),
    rates=st.lists(st.builds(Rate, st.integers(1, 6), st.sampled_from([0.5, 3.0])), max_size=2),
)
breakers = st.one_of(
    st.none(),
    st.builds(
        lambda failures, break_s: BreakerPolicy(failures, break_s, max_break_s=30.0, give_up_after=10**6),
        st.integers(1, 4),
        st.sampled_from([0.0, 5.0]),
    ),
)


@given(
    count=st.integers(0, 30),
    limits=limits,
    breaker=breakers,
    seed=st.integers(0, 2**32),
    bad=st.sampled_from([0.0, 0.3, 0.9]),
    dead=st.sampled_from([(math.inf, math.inf), (0.0, 20.0), (2.0, 60.0)]),
    pauses=st.sampled_from([(), ((0.0, 3.0),), ((1.0, 2.0), (5.0, 50.0))]),
)
def test_everything_ends_whatever_happens(*, count, limits, breaker, seed, bad, dead, pauses):
    """Batches, retries, breaker, rates, cool-downs, pauses and an outage, in any mix: every task settles, once.

    Nothing stalls, the server never sees more than a rate allows, and a batch begins only when the one before has
    settled and paused.
    """
    limiter = Limiter()
    limiter.join("session", limits)
    scheduler = Scheduler(tasks(count), limits, limiter, breaker=None if breaker is None else CircuitBreaker(breaker))
    drive = Drive(scheduler, random.Random(seed), bad=bad, dead=dead, pauses=pauses)
    drive.run()
    assert sorted(drive.settled) == list(range(count))
    assert scheduler.finished
    assert (limiter.running, scheduler.unsettled) == (0, 0)
    for rate in limits.rates:
        assert busiest([(arrived_s, 1) for _, arrived_s, _ in drive.sent], rate.per_s) <= rate.limit
    for started_s, *_ in drive.sent:
        assert sum(start <= started_s < end for start, _, end in drive.sent) <= limits.concurrency
    for before, after in itertools.pairwise(drive.batches.values()):
        assert before["settled"] == before["items"] == limits.batch_size
        assert after["first"] >= before["last"] + limits.batch_pause_s - 1e-9
    # Each request waits for a rest, a rate, a break and a back-off at the most; each batch for its pause.
    assert drive.now_s <= 110 + 40 * (len(drive.sent) + 1) + 4 * (len(drive.batches) + 1)


@given(count=st.integers(1, 30), limits=limits, seed=st.integers(0, 2**32), failures=st.integers(1, 4))
def test_a_service_that_never_comes_back_is_left_alone(count, limits, seed, failures):
    """It sees at most ``failures`` and what was in flight, then one probe a break, ``give_up_after`` - 1 of them."""
    limiter = Limiter()
    limiter.join("session", limits)
    breaker = CircuitBreaker(BreakerPolicy(failures, 5.0, max_break_s=30.0, give_up_after=4))
    scheduler = Scheduler(tasks(count), limits, limiter, breaker=breaker)
    drive = Drive(scheduler, random.Random(seed), attempts=10**6, dead=(0.0, math.inf))
    drive.run()
    assert breaker.gave_up
    assert len(drive.sent) <= failures + limits.concurrency - 1 + 3
    assert drive.settled == []


def test_an_outage_exhausts_no_item():
    """Probes take fresh items, so that none spends all its attempts on one outage."""
    scheduler = scheduler_of(20, concurrency=2, breaker=BreakerPolicy(2, 10.0, give_up_after=100))
    drive = Drive(scheduler, random.Random(3), attempts=3, bad=0.0, dead=(0.0, 100.0))
    drive.run()
    assert sorted(drive.settled) == list(range(20))
    assert scheduler.breaker.state == "closed"
    assert len(drive.sent) - 20 == sum(start < 100.0 for start, *_ in drive.sent)  # each failure was tried again, well


def test_a_retry_goes_before_what_has_not_begun():
    """A retry that is ready is the next to start."""
    scheduler = scheduler_of(3)
    first = scheduler.next(0.0)
    fail(scheduler, 1.0, first, ready_s=1.0)
    again = scheduler.next(1.0)
    assert (again.task.seq, again.task.attempts) == (0, 2)


def test_a_retry_is_not_started_early():
    """Fresh tasks fill the time until it is ready; then the wait is told."""
    scheduler = scheduler_of(2)
    fail(scheduler, 0.0, scheduler.next(0.0), ready_s=5.0)
    succeed(scheduler, 1.0, scheduler.next(1.0))
    assert scheduler.next(1.0) is None
    assert (scheduler.wait_s, scheduler.why) == (4.0, "retry")
    assert scheduler.next(5.0).task.seq == 0


def test_retries_go_in_the_order_they_are_ready():
    """The one that may go first goes first, however late it failed."""
    scheduler = scheduler_of(2)
    one, two = scheduler.next(0.0), scheduler.next(0.0)
    fail(scheduler, 1.0, one, ready_s=9.0)
    fail(scheduler, 2.0, two, ready_s=4.0)
    assert [scheduler.next(10.0).task.seq, scheduler.next(10.0).task.seq] == [1, 0]


def test_retries_that_are_ready_together_go_in_the_order_they_failed():
    scheduler = scheduler_of(3, concurrency=9)
    for ticket in [scheduler.next(0.0) for _ in range(3)]:
        fail(scheduler, 1.0, ticket, ready_s=5.0)
    assert [scheduler.next(5.0).task.seq for _ in range(3)] == [0, 1, 2]


def test_a_retry_passes_the_limiter_again():
    """It waits for the window like any other request."""
    scheduler = scheduler_of(1, rates=[Rate(1, per_s=10)])
    fail(scheduler, 0.0, scheduler.next(0.0), ready_s=0.0)
    assert scheduler.next(0.0) is None
    assert scheduler.why == "limit"
    assert scheduler.wait_s >= 10.0


def test_a_retry_costs_what_its_own_item_costs():
    """What is next in line after it may be cheaper; it is the retry's turn all the same."""
    limits = Limits(rates=[Rate(1000, per_s=60, unit="tokens")])
    limiter = Limiter()
    limiter.join("session", limits)
    costs = {0: 600.0, 1: 100.0}
    scheduler = Scheduler(tasks(2), limits, limiter, cost=lambda task: {"tokens": costs[task.item]})
    fail(scheduler, 0.0, scheduler.next(0.0), ready_s=1.0)
    assert scheduler.next(1.0) is None
    assert scheduler.why == "limit"
    assert scheduler.next(100.0).task.seq == 0
    assert scheduler.next(100.0).task.seq == 1


def test_a_retry_passes_the_breaker_again():
    """It waits for the break, and is the one probe after it."""
    scheduler = scheduler_of(1, breaker=BreakerPolicy(failures=1, break_s=60))
    fail(scheduler, 0.0, scheduler.next(0.0), ready_s=0.0)
    assert scheduler.next(0.0) is None
    assert (scheduler.wait_s, scheduler.why) == (60.0, "breaker")
    probe = scheduler.next(60.0)
    assert probe.task.seq == 0
    assert scheduler.breaker.state == "half_open"


def test_while_the_probe_runs_nothing_else_starts():
    """The wait ends with the probe, and is told as such."""
    scheduler = scheduler_of(5, breaker=BreakerPolicy(failures=1, break_s=60))
    fail(scheduler, 0.0, scheduler.next(0.0), ready_s=0.0)
    probe = scheduler.next(60.0)
    assert scheduler.next(60.0) is None
    assert (scheduler.wait_s, scheduler.why) == (math.inf, "probe")
    succeed(scheduler, 61.0, probe)
    assert scheduler.next(61.0) is not None


def test_a_batch_ends_with_its_last_item_then_comes_the_pause():
    """Retries included: the next batch waits for all of them, and for the pause."""
    scheduler = scheduler_of(4, batch_size=2, batch_pause_s=15)
    one, two = scheduler.next(0.0), scheduler.next(0.0)
    assert scheduler.next(0.0) is None
    succeed(scheduler, 1.0, one)
    fail(scheduler, 2.0, two, ready_s=7.0)
    assert scheduler.next(2.0) is None
    assert (scheduler.wait_s, scheduler.why) == (5.0, "retry")
    succeed(scheduler, 8.0, scheduler.next(7.0))
    assert scheduler.next(8.0) is None
    assert (scheduler.wait_s, scheduler.why) == (15.0, "batch")
    assert [scheduler.next(23.0).task.group, scheduler.batch.number] == [2, 2]


def test_nothing_waits_for_a_pause_that_no_batch_follows():
    """The last batch ends the run, whether or not the items fill it."""
    scheduler = scheduler_of(4, batch_size=2, batch_pause_s=15)
    for at_s in (0.0, 0.0, 15.0, 15.0):
        succeed(scheduler, at_s, scheduler.next(at_s))
    assert scheduler.next(15.0) is None
    assert scheduler.finished


def test_a_batch_counts_what_failed_in_it():
    """So that its row can say how it ended."""
    scheduler = scheduler_of(2, batch_size=2)
    one, two = scheduler.next(0.0), scheduler.next(0.0)
    scheduler.settle(0.0, one.task, failed=True)
    scheduler.settle(0.0, two.task)
    assert (scheduler.batch.items, scheduler.batch.failed, scheduler.batch.unsettled) == (2, 1, 0)


def test_a_pause_starts_nothing_and_forgets_nothing():
    """While it is held nothing starts; afterwards it goes on where it was."""
    scheduler = scheduler_of(2)
    scheduler.held = True
    assert scheduler.next(0.0) is None
    assert (scheduler.wait_s, scheduler.why) == (math.inf, "pause")
    scheduler.held = False
    assert [scheduler.next(1.0).task.seq, scheduler.next(1.0).task.seq] == [0, 1]


def test_a_generator_is_drawn_one_item_ahead_at_most():
    """Millions of items may wait in it: nothing is drawn that cannot start soon."""
    drawn = []

    def items():
        for task in tasks(1000):
            drawn.append(task)
            yield task

    limiter = Limiter()
    scheduler = Scheduler(items(), Limits(concurrency=3, spacing_s=5), limiter)
    limiter.join("session", scheduler.limits)
    for at_s in (0.0, 0.0, 1.0, 5.0, 6.0):
        scheduler.next(at_s)
    assert len(drawn) <= 3


def test_an_empty_source_is_finished_at_once():
    """No items: finished after the first look, with nothing to wait for."""
    for size in (None, 5):
        scheduler = scheduler_of(0, batch_size=size)
        assert scheduler.next(0.0) is None
        assert scheduler.finished
        assert scheduler.batch.number == 0


@pytest.mark.parametrize("bad", [1001, -1, math.nan, math.inf])
def test_an_item_whose_cost_never_fits_is_refused(bad):
    """It is handed on at once to fail alone, told why, and takes nothing from the windows; nobody waits behind it."""
    limits = Limits(rates=[Rate(1000, per_s=60, unit="tokens")], concurrency=9)
    limiter = Limiter()
    limiter.join("session", limits)
    costs = {0: 600.0, 1: bad, 2: 400.0}
    scheduler = Scheduler(tasks(3), limits, limiter, cost=lambda task: {"tokens": costs[task.item]})
    started = [scheduler.next(0.0) for _ in range(3)]
    assert [ticket.task.seq for ticket in started] == [0, 1, 2]
    assert started[1].refused.startswith("cost must be >= 0 and <= 1000 tokens, got ")
    assert (started[0].refused, started[2].refused) == ("", "")


def test_a_cost_function_that_raises_fails_its_item_alone():
    """The others are priced and run."""

    def cost(task):
        return {"tokens": 10 / task.item}

    limits = Limits(rates=[Rate(1000, per_s=60, unit="tokens")])
    limiter = Limiter()
    limiter.join("session", limits)
    scheduler = Scheduler(tasks(2), limits, limiter, cost=cost)
    assert scheduler.next(0.0).refused == "cost= raised ZeroDivisionError: division by zero"
    assert scheduler.next(0.0).refused == ""


def test_what_was_drawn_and_not_started_is_not_lost():
    """A generator gives an item once: retries that wait, the rest of the batch and what was drawn ahead are kept."""
    scheduler = scheduler_of(6, batch_size=3, concurrency=2)
    fail(scheduler, 0.0, scheduler.next(0.0), ready_s=9.0)
    running = scheduler.next(0.0)
    assert [task.seq for task in scheduler.left()] == [0, 2]
    last = scheduler.next(0.0)
    succeed(scheduler, 1.0, running)
    succeed(scheduler, 1.0, last)
    succeed(scheduler, 10.0, scheduler.next(9.0))
    scheduler.limits = Limits(batch_size=3, batch_pause_s=5)
    scheduler._batch_free_s = 15.0
    assert scheduler.next(10.0) is None
    assert [task.seq for task in scheduler.left()] == [3, 4, 5]  # the whole batch: a generator may take its time
