import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ipybatch.engine.data.policy import Breaker as Policy
from ipybatch.engine.rules.breaker import CircuitBreaker

POLICY = Policy(failures=3, break_s=60, max_break_s=600, give_up_after=5)


def fail(breaker, at_s, times=1):
    for _ in range(times):
        breaker.fail(at_s, breaker.start(at_s), 0)


@pytest.fixture
def breaker():
    return CircuitBreaker(POLICY)


@pytest.fixture
def open_breaker(breaker):
    fail(breaker, 0.0, times=3)
    return breaker


def test_failures_in_a_row_open_it(breaker):
    """The third transient failure in a row opens it for ``break_s``; the second does not."""
    fail(breaker, 0.0, times=2)
    assert (breaker.state, breaker.wait_s(0.0)) == ("closed", 0.0)
    fail(breaker, 5.0)
    assert (breaker.state, breaker.wait_s(45.0)) == ("open", 20.0)


def test_a_success_between_starts_the_count_anew(breaker):
    """Only failures in a row count: a service that answers every third request is not left alone."""
    for _ in range(5):
        fail(breaker, 0.0, times=2)
        breaker.succeed(0.0, breaker.start(0.0))
    assert (breaker.state, breaker.failures) == ("closed", 0)


def test_what_proves_nothing_neither_counts_nor_clears(breaker):
    """A 404, a 429 or a cancellation between failures leaves their count as it was."""
    fail(breaker, 0.0, times=2)
    breaker.release(breaker.start(0.0))
    assert breaker.failures == 2
    fail(breaker, 0.0)
    assert breaker.state == "open"


def test_a_dead_service_sees_failures_and_what_was_in_flight(breaker):
    """Ten attempts under way when it dies: each of them fails, none starts after the third."""
    under_way = [breaker.start(0.0) for _ in range(10)]
    for epoch in under_way:
        breaker.fail(1.0, epoch, 0)
    assert (breaker.state, breaker.openings, breaker.failures) == ("open", 1, 3)
    assert breaker.wait_s(1.0) == 60.0


def test_exactly_one_probe_follows_the_break(open_breaker):
    """After the break one attempt may start, and no second one before it has ended."""
    assert open_breaker.wait_s(59.9) > 0
    open_breaker.start(60.0)
    assert open_breaker.state == "half_open"
    assert open_breaker.wait_s(1e9) == float("inf")


def test_a_good_probe_closes_it(open_breaker):
    """One success says that the service is back; all counts start anew."""
    open_breaker.succeed(61.0, open_breaker.start(60.0))
    assert (open_breaker.state, open_breaker.failures, open_breaker.openings) == ("closed", 0, 0)
    assert open_breaker.wait_s(61.0) == 0.0


def test_breaks_double_up_to_the_longest(open_breaker):
    """60, 120, 240, 480, 600, 600: each failed probe doubles the break until ``max_break_s``."""
    breaks, at_s = [], 0.0
    for _ in range(6):
        breaks.append(open_breaker.wait_s(at_s))
        at_s += breaks[-1]
        fail(open_breaker, at_s)
    assert breaks == [60.0, 120.0, 240.0, 480.0, 600.0, 600.0]


def test_a_break_never_overflows():
    """Thousands of openings keep the longest break."""
    breaker = CircuitBreaker(Policy(failures=1, break_s=1, max_break_s=9, give_up_after=10_000))
    at_s = 0.0
    for _ in range(3000):
        fail(breaker, at_s)
        at_s += breaker.wait_s(at_s)
    assert breaker.break_s == 9


def test_it_gives_up_after_so_many_openings_in_a_row(open_breaker):
    """The fifth opening without a success between is the last."""
    at_s = 0.0
    for _ in range(4):
        assert not open_breaker.gave_up
        at_s += open_breaker.wait_s(at_s)
        fail(open_breaker, at_s)
    assert open_breaker.gave_up


def test_a_success_between_openings_forgives_them(open_breaker):
    """An outage that ended does not count towards giving up in the next one."""
    open_breaker.succeed(60.0, open_breaker.start(60.0))
    fail(open_breaker, 70.0, times=3)
    assert (open_breaker.openings, open_breaker.break_s) == (1, 60)


def test_a_cancelled_probe_makes_room_for_the_next(open_breaker):
    """A probe that proves nothing leaves it half open: the next attempt may probe at once."""
    open_breaker.release(open_breaker.start(60.0))
    assert (open_breaker.state, open_breaker.wait_s(60.0)) == ("half_open", 0.0)
    open_breaker.succeed(61.0, open_breaker.start(60.0))
    assert open_breaker.state == "closed"


END = {
    "succeed": lambda breaker, now_s, epoch: breaker.succeed(now_s, epoch),
    "fail": lambda breaker, now_s, epoch: breaker.fail(now_s, epoch, 0),
    "release": lambda breaker, now_s, epoch: breaker.release(epoch),
}


@pytest.mark.parametrize("end", ["succeed", "fail", "release"])
def test_a_late_end_is_not_the_probe(breaker, end):
    """An attempt from before the break neither closes nor opens it, nor frees the probe's place."""
    late = breaker.start(0.0)
    fail(breaker, 0.0, times=3)
    breaker.start(60.0)
    END[end](breaker, 60.5, late)
    assert (breaker.state, breaker.openings) == ("half_open", 1)
    assert breaker.wait_s(60.5) == float("inf")


def test_a_late_success_does_not_shorten_the_break(breaker):
    """While it is open, an answer to a request of before proves nothing."""
    late = breaker.start(0.0)
    fail(breaker, 0.0, times=3)
    breaker.succeed(10.0, late)
    assert (breaker.state, breaker.wait_s(10.0)) == ("open", 50.0)


def test_an_attempt_it_refused_is_a_bug_of_ours(open_breaker):
    """Starting during a break is our own mistake, and is told as one."""
    with pytest.raises(AssertionError):
        open_breaker.start(30.0)


def test_every_change_a_view_would_show_is_a_move(open_breaker):
    """``moves`` grows with each transition and count, and with nothing else."""
    counted = CircuitBreaker(POLICY)
    moves = [counted.moves]
    for at_s in (0.0, 1.0):
        fail(counted, at_s)
        moves.append(counted.moves)
    assert moves == sorted(set(moves)), "each failure before it opens is one"
    seen = [open_breaker.moves]
    open_breaker.wait_s(30.0)
    seen.append(open_breaker.moves)
    epoch = open_breaker.start(60.0)
    seen.append(open_breaker.moves)
    open_breaker.succeed(61.0, epoch)
    seen.append(open_breaker.moves)
    open_breaker.succeed(62.0, open_breaker.start(62.0))
    seen.append(open_breaker.moves)
    assert seen[0] == seen[1] < seen[2] < seen[3] == seen[4]


class BreakerMachine(RuleBasedStateMachine):
    """Any order of starts, ends and time, beside a model that knows only the promise.

    The model keeps each attempt with the spell (the time between two transitions) it was started in.
    """

    @initialize(failures=st.integers(1, 4), break_s=st.sampled_from([0.0, 1.0, 7.5]), give_up_after=st.integers(1, 4))
    def begin(self, failures, break_s, give_up_after):
        self.policy = Policy(failures=failures, break_s=break_s, max_break_s=20.0, give_up_after=give_up_after)
        self.breaker = CircuitBreaker(self.policy)
        self.now_s = 0.0
        self.under_way = []  # (epoch, spell)
        self.spell, self.state = 0, "closed"
        self.in_a_row, self.openings, self.opened_s = 0, 0, 0.0

    def enter(self, state):
        self.state, self.spell = state, self.spell + 1
        if state == "open":
            self.openings, self.opened_s = self.openings + 1, self.now_s

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 30.0]))
    def time_passes(self, seconds):
        self.now_s += seconds

    @precondition(lambda self: self.breaker.wait_s(self.now_s) == 0.0)
    @rule()
    def an_attempt_starts(self):
        if self.state == "open":
            self.enter("half_open")
        self.under_way.append((self.breaker.start(self.now_s), self.spell))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), how=st.sampled_from(["succeed", "fail", "fail", "release"]))
    def an_attempt_ends(self, data, how):
        epoch, spell = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        if how == "release":
            self.breaker.release(epoch)
            return
        END[how](self.breaker, self.now_s, epoch)
        if spell != self.spell:
            return
        if how == "succeed":
            if self.state == "half_open":
                self.enter("closed")
            self.in_a_row = self.openings = 0
        else:
            self.in_a_row += 1
            if self.state == "half_open" or self.in_a_row >= self.policy.failures:
                self.enter("open")

    @invariant()
    def it_is_where_the_promise_says(self):
        assert self.breaker.state == self.state
        assert self.breaker.openings == self.openings
        assert self.breaker.failures == self.in_a_row
        assert self.breaker.gave_up is (self.openings >= self.policy.give_up_after)

    @invariant()
    def at_most_one_probe_is_under_way(self):
        probes = [epoch for epoch, spell in self.under_way if spell == self.spell]
        if self.state == "half_open":
            assert len(probes) <= 1
            assert self.breaker.wait_s(self.now_s) == (float("inf") if probes else 0.0)
        if self.state == "open":
            assert not probes

    @invariant()
    def a_break_lasts_as_long_as_it_should(self):
        if self.state == "open":
            break_s = min(20.0, self.policy.break_s * 2 ** (self.openings - 1))
            assert self.breaker.wait_s(self.now_s) == pytest.approx(max(0.0, self.opened_s + break_s - self.now_s))
        if self.state == "closed":
            assert self.breaker.wait_s(self.now_s) == 0.0


TestBreakerMachine = BreakerMachine.TestCase
