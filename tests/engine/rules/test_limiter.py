import heapq
import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from ipybatch.engine.data.policy import Limits, Rate
from ipybatch.engine.rules.limiter import CLOCK_DRIFT, LATE_S, MOST_COOL_S, NOTHING, Limiter, cut_words
from ipybatch.engine.rules.rate_headers import Quota, Told
from tests.engine.seen import busiest

SPANS_S = [0.3, 1.0, 2.5, 7.0]


def limiter_of(**limits):
    limiter = Limiter()
    limiter.join("session", Limits(**limits))
    return limiter


def answer(limiter, at_s, permit):
    limiter.respond(at_s, permit)
    limiter.free()


rates = st.lists(st.builds(Rate, st.integers(1, 6), st.sampled_from(SPANS_S)), min_size=1, max_size=3)
requests = st.lists(
    st.tuples(st.floats(0, 4), st.floats(0, 1), st.integers(0, 9)),  # seconds, share of them until arrival, tokens
    min_size=1,
    max_size=40,
)


def send(limiter, wanted, *, now_s=0.0, cool_s=0.0, every=7):
    """Send requests as soon as they may start; return (started, arrived, responded, tokens) of each, in order of start.

    Every seventh response asks for a cool-down of ``cool_s``.
    """
    sent, running, number = [], [], itertools.count()
    for seconds, share, tokens in wanted:
        cost = {"tokens": float(tokens)}
        while (wait_s := limiter.wait_s(now_s, cost)) > 0:
            ends_s = running[0][0] if running else math.inf
            assert min(wait_s, ends_s) < math.inf, "nothing runs and nothing may ever start"
            if now_s + wait_s <= ends_s:
                now_s += wait_s
                assert limiter.wait_s(now_s, cost) < 1e-6, "it must be possible when it was said to be"
                continue
            now_s, at, permit = heapq.heappop(running)
            answer(limiter, now_s, permit)
            if cool_s and at % every == every - 1:
                limiter.cool_down(now_s, permit.started_s, cool_s)
        permit = limiter.acquire(now_s, cost)
        heapq.heappush(running, (now_s + seconds, next(number), permit))
        sent.append((now_s, now_s + share * seconds, now_s + seconds, tokens))
    return sent


@given(wanted=requests, rates=rates, concurrency=st.integers(1, 9), spacing_s=st.sampled_from([0, 0.2, 1.1]))
def test_no_window_is_exceeded_as_the_server_sees_it(wanted, rates, concurrency, spacing_s):
    """Whenever each request arrives between start and response: never more than the limit, and it never stalls."""
    limiter = limiter_of(rates=rates, concurrency=concurrency, spacing_s=spacing_s)
    sent = send(limiter, wanted, cool_s=3.0)
    for rate in rates:
        assert busiest([(arrived_s, 1) for _, arrived_s, _, _ in sent], rate.per_s) <= rate.limit
    for before, after in itertools.pairwise(sent):
        assert after[0] - before[0] >= spacing_s - LATE_S - 1e-9
    assert sent[-1][0] - sent[0][0] >= (len(sent) - 1) * spacing_s - LATE_S - 1e-9
    for started_s, *_ in sent:
        assert sum(start <= started_s < end for start, _, end, _ in sent) <= concurrency


@given(wanted=requests, limit=st.integers(9, 20), per_s=st.sampled_from(SPANS_S), requests=st.integers(1, 9))
def test_costs_are_counted_in_their_own_unit(wanted, limit, per_s, requests):
    """Tokens and requests are limited side by side; neither is ever exceeded."""
    limiter = limiter_of(rates=[Rate(limit, per_s, unit="tokens"), Rate(requests, per_s)])
    sent = send(limiter, wanted)
    assert busiest([(arrived_s, tokens) for _, arrived_s, _, tokens in sent], per_s) <= limit
    assert busiest([(arrived_s, 1) for _, arrived_s, _, _ in sent], per_s) <= requests


@given(wanted=requests, rates=rates, drift=st.sampled_from([1 / 1.0004, 1.0, 1.0004]))
def test_a_server_whose_clock_drifts_sees_no_more(wanted, rates, drift):
    """Two clocks slewed apart by NTP count different seconds; the windows are held long enough for both."""
    sent = send(limiter_of(rates=rates), wanted)
    for rate in rates:
        assert busiest([(arrived_s * drift, 1) for _, arrived_s, _, _ in sent], rate.per_s) <= rate.limit


@given(before=requests, after=requests, rates=rates, down_s=st.sampled_from([0.0, 0.4, 2.0, 9.0]), data=st.data())
def test_windows_survive_a_restart(before, after, rates, down_s, data):
    """A new process that is told what the last one sent keeps the windows, requests in flight at the kill included."""
    sent = send(limiter_of(rates=rates), before)
    killed_s = data.draw(st.floats(0, max(end for *_, end, _ in sent)))
    sent = [request for request in sent if request[0] <= killed_s]
    begun_s = killed_s + down_s
    limiter = Limiter()
    spent = [(min(end, begun_s), "requests", 1.0) for _, _, end, _ in sent]
    limiter.join("resumed", Limits(rates=rates), now_s=begun_s, spent=spent)
    arrivals = [(min(arrived_s, begun_s), 1) for _, arrived_s, _, _ in sent]
    arrivals += [(arrived_s, 1) for _, arrived_s, _, _ in send(limiter, after, now_s=begun_s)]
    for rate in rates:
        assert busiest(arrivals, rate.per_s) <= rate.limit


@pytest.mark.parametrize(("limit", "per_s", "latency_s"), [(40, 2.0, 0.02), (100, 1.0, 0.05), (200, 300.0, 0.3)])
def test_it_uses_what_the_limit_allows(limit, per_s, latency_s):
    """In steady state at least 99 % of N / (per_s + latency) starts."""
    limiter = limiter_of(rates=[Rate(limit, per_s)], concurrency=limit)
    chance = random.Random(1)
    sent = send(limiter, [(latency_s, chance.random(), 0)] * (limit * 20))
    begun = [start for start, *_ in sent]
    cycle_s = (begun[-1] - begun[-1 - 10 * limit]) / 10  # in which each permit is used once
    share = (per_s + latency_s) / cycle_s
    assert share >= 0.99


def test_a_permit_comes_free_per_s_after_the_response():
    """Not after the start: a slow request may have arrived late."""
    limiter = limiter_of(rates=[Rate(1, per_s=10)])
    permit = limiter.acquire(0.0)
    assert limiter.wait_s(5.0) == math.inf
    answer(limiter, 8.0, permit)
    assert limiter.wait_s(8.0) == pytest.approx(10 * CLOCK_DRIFT)
    assert limiter.wait_s(17.9) > 0
    assert limiter.wait_s(8.0 + 10 * CLOCK_DRIFT) == 0.0


def test_a_burst_is_spread_by_milliseconds():
    """Requests that queue in our own process hold their permits longer; what no timer can do is left alone."""
    spread = []
    for limit in (2, 40, 100_000):
        limiter = limiter_of(rates=[Rate(limit, per_s=2)], concurrency=limit)
        limiter.acquire(0.0)
        spread.append(limiter.wait_s(0.0))
    assert 0.02 > spread[0] >= spread[1] > spread[2] == 0.0


def test_spacing_separates_starts():
    """The next start is ``spacing_s`` after the last one, whoever sent it."""
    limiter = limiter_of(spacing_s=1.5)
    limiter.acquire(10.0)
    assert limiter.wait_s(10.5) == 1.0
    assert limiter.wait_s(11.5) == 0.0


def test_a_long_window_holds_no_start_of_a_short_one_back():
    """36,000 an hour beside 300 a second: the hour's burst is not spread, or 200 a second were the most."""
    limiter = limiter_of(rates=[Rate(36_000, per_s=3600), Rate(300, per_s=1)], concurrency=100)
    limiter.acquire(0.0)
    assert limiter.wait_s(0.0) == 0.0


def test_lateness_does_not_add_up():
    """A timer that is late by some milliseconds costs them once: a hundred a second stay a hundred."""
    limiter = limiter_of(spacing_s=0.01, concurrency=100)
    now_s = 0.0
    for _ in range(100):
        now_s += limiter.wait_s(now_s) + 0.004
        limiter.acquire(now_s)
    assert now_s <= 1.01


def test_who_comes_later_than_a_timer_may_be_has_no_claim_to_what_was_missed():
    limiter = limiter_of(spacing_s=1.0)
    for now_s in (0.0, 5.0):
        limiter.acquire(now_s)
    assert limiter.wait_s(5.0) == pytest.approx(1.0)


def test_concurrency_counts_attempts_not_their_further_requests():
    """A further request of an attempt takes a permit of the windows, but no second place."""
    limiter = limiter_of(concurrency=1, rates=[Rate(3, per_s=1)])
    limiter.acquire(0.0)
    assert limiter.wait_s(0.0) == math.inf
    assert limiter.wait_s(0.1, slot=False) == 0.0
    limiter.acquire(0.1, slot=False)
    assert limiter.running == 1
    assert limiter.windows[Rate(3, per_s=1)].used(0.1) == 2


def test_what_a_request_really_cost_replaces_what_was_reserved():
    """800 tokens reserved, 300 used: 500 may be spent at once."""
    limiter = limiter_of(rates=[Rate(1000, per_s=60, unit="tokens")])
    permit = limiter.acquire(0.0, {"tokens": 800})
    assert limiter.wait_s(0.0, {"tokens": 500}) == math.inf
    limiter.respond(1.0, permit, {"tokens": 300})
    assert limiter.wait_s(1.0, {"tokens": 700}) == 0.0
    assert limiter.wait_s(1.0, {"tokens": 701}) > 0.0


def test_a_cost_that_fits_no_window_is_named():
    """What can never fit is told with its range, so that nobody waits for it."""
    limiter = limiter_of(rates=[Rate(5, per_s=1), Rate(1000, per_s=60, unit="tokens")])
    assert limiter.refuse({"tokens": 1000}) == ""
    assert limiter.refuse({"tokens": 0.5}) == limiter.refuse({"tokens": 0}) == ""
    assert limiter.refuse({"tokens": 1001}) == "cost must be >= 0 and <= 1000 tokens, got 1001"
    assert limiter.refuse({"requests": 6}) == "cost must be >= 0 and <= 5 requests, got 6"
    assert limiter.refuse({"tokens": -1}) == "cost must be >= 0 and <= 1000 tokens, got -1"
    assert limiter.refuse({"tokens": math.nan}) == "cost must be >= 0 and <= 1000 tokens, got nan"


@given(costs=st.lists(st.floats(0.1, 1e6), min_size=1, max_size=200))
def test_sums_of_odd_costs_leave_no_rest_behind(costs):
    """After all responses and their windows the whole limit is free again, whatever rounding did."""
    limiter = limiter_of(rates=[Rate(1e6, per_s=1, unit="tokens")], concurrency=1000)
    now_s, permits = 0.0, []
    for cost in costs:
        while limiter.wait_s(now_s, {"tokens": cost}):
            answer(limiter, now_s, permits.pop(0))
            now_s += 2.0
        permits.append(limiter.acquire(now_s, {"tokens": cost}))
    for permit in permits:
        answer(limiter, now_s, permit)
    assert limiter.wait_s(now_s + 2.0, {"tokens": 1e6}) == 0.0


def test_a_cool_down_stops_every_start():
    """Nothing starts before it is over, and it never ends earlier than another one said."""
    limiter = limiter_of()
    assert limiter.cool_down(10.0, 9.0, 30.0) is True
    assert limiter.wait_s(10.0) == 30.0
    assert limiter.cool_down(11.0, 9.0, 5.0) is False
    assert limiter.wait_s(11.0) == 29.0
    assert limiter.wait_s(40.0) == 0.0


def test_requests_of_one_volley_cool_down_once():
    """Ten requests under way when the first 429 came say the same thing: the wait does not double ten times."""
    limiter = limiter_of()
    for _ in range(10):
        limiter.cool_down(10.0, 9.0, 1.0)
    assert limiter.cool_downs == 1
    limiter.cool_down(12.0, 11.5, 2.0)
    assert limiter.cool_downs == 2
    limiter.warm_up()
    assert limiter.cool_downs == 0


def test_a_cool_down_that_ends_with_the_last_one_is_no_news():
    """A view is told once; a request that started when it began was not under way before."""
    limiter = limiter_of()
    assert limiter.cool_down(10.0, 9.0, 30.0) is True
    assert limiter.cool_down(10.0, 10.0, 30.0) is False
    assert limiter.cool_downs == 2


def test_sessions_on_one_resource_obey_the_strictest():
    """The lowest concurrency, the widest spacing and every rate hold, until their session leaves."""
    limiter = limiter_of(concurrency=5, spacing_s=2.0, rates=[Rate(4, per_s=10)])
    limiter.join("other", Limits(concurrency=2, spacing_s=1.0, rates=[Rate(1, per_s=5)]))
    answer(limiter, 0.0, limiter.acquire(0.0))
    assert limiter.wait_s(0.0) == pytest.approx(5 * CLOCK_DRIFT)
    limiter.leave("other")
    assert limiter.wait_s(0.0) == 2.0
    for _ in range(2):
        limiter.acquire(2.0)
    assert limiter.wait_s(4.0) == 0.0


def test_what_a_session_used_stays_counted_when_it_leaves():
    """The server has seen its requests: the next session on the resource waits for them."""
    limiter = limiter_of(rates=[Rate(1, per_s=10)])
    answer(limiter, 0.0, limiter.acquire(0.0))
    limiter.leave("session")
    limiter.join("next", Limits(rates=[Rate(1, per_s=10)]))
    assert limiter.wait_s(1.0) == pytest.approx(10 * CLOCK_DRIFT - 1)


def test_a_rate_that_joins_counts_what_is_in_flight():
    """The requests under way will be seen by the server after the new window began."""
    limiter = limiter_of(concurrency=9)
    permits = [limiter.acquire(0.0) for _ in range(3)]
    limiter.join("other", Limits(concurrency=9, rates=[Rate(4, per_s=10)]))
    limiter.acquire(0.0)
    assert limiter.wait_s(0.0) == math.inf
    for permit in permits:
        answer(limiter, 1.0, permit)
    assert limiter.wait_s(1.0) == pytest.approx(10 * CLOCK_DRIFT)


def test_tokens_in_flight_are_not_taken_for_requests():
    """5,000 tokens under way are one request to a rate of requests that joins: it does not wait forever."""
    limiter = limiter_of(rates=[Rate(10_000, per_s=60, unit="tokens")])
    permit = limiter.acquire(0.0, {"tokens": 5000})
    limiter.join("other", Limits(rates=[Rate(2, per_s=1)]))
    assert limiter.wait_s(0.1, {"tokens": 1}) == 0.0
    answer(limiter, 1.0, permit)
    assert limiter.wait_s(10.0) == 0.0


def test_a_place_is_free_at_the_moment_it_was_told():
    """``per_s`` after the response, and what clocks may drift; not a tick later."""
    limiter = limiter_of(rates=[Rate(2, per_s=10)])
    answer(limiter, 1.0, limiter.acquire(0.0))
    (window,) = limiter.windows.values()
    assert window.used(11.0) == 1.0
    assert window.used(1.0 + 10 * CLOCK_DRIFT) == 0.0


def test_a_window_begins_with_what_still_counts_in_it():
    """Of its own unit, and answered within it, drift included."""
    limiter = Limiter()
    spent = [(0.0, "tokens", 5.0), (90.004, "requests", 1.0), (89.996, "requests", 1.0), (99.0, "requests", 1.0)]
    limiter.join("session", Limits(rates=[Rate(9, per_s=10)]), now_s=100.0, spent=spent)
    assert [window.used(100.0) for window in limiter.windows.values()] == [3.0]
    later = Limiter()
    later.join("session", Limits(rates=[Rate(9, per_s=10)]), now_s=100.005, spent=spent)
    assert [window.used(100.005) for window in later.windows.values()] == [2.0]


@pytest.mark.parametrize(("limit", "wait_s"), [(200, 0.005), (201, 0.0)])
def test_only_a_burst_is_spread(limit, wait_s):
    """What is allowed by the thousand must not slow what is allowed a second."""
    limiter = limiter_of(rates=[Rate(limit, per_s=100)], concurrency=9)
    limiter.acquire(0.0)
    assert limiter.wait_s(0.0) == wait_s


def test_a_burst_is_spread_over_a_tenth_of_its_window():
    """What only queues in our own process would count as latency."""
    limiter = limiter_of(rates=[Rate(40, per_s=2)], concurrency=40)
    limiter.acquire(0.0)
    assert limiter.wait_s(0.0) == 0.005
    assert limiter.wait_s(0.005) == 0.0


def test_a_fast_rate_is_not_spread():
    """No timer is exact enough for less than two milliseconds."""
    limiter = limiter_of(rates=[Rate(100, per_s=1)], concurrency=40)
    limiter.acquire(0.0)
    assert limiter.wait_s(0.0) == 0.0


def test_tokens_in_flight_count_for_a_rate_of_tokens_that_joins():
    """What is under way will be counted by the server after the new window began, in its own unit."""
    limiter = limiter_of()
    limiter.acquire(0.0, {"tokens": 900})
    limiter.join("other", Limits(rates=[Rate(1000, per_s=60, unit="tokens")]))
    assert limiter.wait_s(0.0, {"tokens": 200}) == math.inf


def test_an_attempt_between_two_requests_is_not_in_flight():
    """An attempt whose request was answered holds its place, but takes nothing of a rate that joins then."""
    limiter = limiter_of()
    permit = limiter.acquire(0.0)
    limiter.respond(0.5, permit)  # answered; the attempt goes on
    limiter.join("other", Limits(rates=[Rate(1, per_s=1)]), now_s=5.0)
    assert limiter.wait_s(5.0, slot=False) == 0.0
    limiter.free()
    assert limiter.wait_s(5.0) == 0.0


def test_a_window_nobody_wants_any_more_does_not_grow():
    """A rate whose session left is kept for as long as it matters, not for every request to come."""
    limiter = limiter_of(rates=[Rate(2, per_s=1)])
    limiter.leave("session")
    limiter.join("next", Limits())
    for at_s in range(1000):
        answer(limiter, float(at_s), limiter.acquire(float(at_s)))
    assert len(limiter.windows[Rate(2, per_s=1)]._spent) < 10


def test_a_change_counts_what_was_sent_before():
    """A window goes on with its use, in flight and answered, under its new limit."""
    limiter = limiter_of(rates=[Rate(5, per_s=10)])
    for _ in range(2):
        answer(limiter, 0.0, limiter.acquire(0.0))
    limiter.acquire(1.0)
    limiter.change("session", Limits(rates=[Rate(3, per_s=10)]))
    assert limiter.wait_s(1.0) == pytest.approx(10 * CLOCK_DRIFT - 1)
    limiter.change("session", Limits(rates=[Rate(5, per_s=10)]))
    assert limiter.wait_s(2.0) == 0.0


def test_a_change_to_another_window_begins_with_what_is_in_flight():
    """Nothing was counted over that time before."""
    limiter = limiter_of(rates=[Rate(4, per_s=10)], concurrency=9)
    for _ in range(2):
        limiter.acquire(0.0)
    limiter.change("session", Limits(concurrency=9, rates=[Rate(2, per_s=60)]))
    assert limiter.wait_s(0.0) == math.inf


def test_a_change_of_concurrency_holds_at_once():
    """Places that are taken stay taken; none is given before enough have come back."""
    limiter = limiter_of(concurrency=3)
    permits = [limiter.acquire(0.0) for _ in range(3)]
    limiter.change("session", Limits(concurrency=2))
    answer(limiter, 1.0, permits.pop())
    assert limiter.wait_s(1.0) == math.inf
    answer(limiter, 1.0, permits.pop())
    assert limiter.wait_s(1.0) == 0.0


def test_a_change_of_one_leaves_the_limits_of_others():
    """The strictest of all that joined hold, whoever changes."""
    limiter = limiter_of(rates=[Rate(5, per_s=10)])
    limiter.join("other", Limits(rates=[Rate(2, per_s=10)]))
    limiter.change("session", Limits(rates=[Rate(4, per_s=10)]))
    for _ in range(2):
        limiter.acquire(0.0)
    assert limiter.wait_s(1.0) == math.inf
    limiter.leave("other")
    assert limiter.wait_s(1.0) == 0.0


def test_what_costs_more_than_a_lowered_limit_waits_for_an_empty_window():
    """It was allowed before; what was never allowed is refused as before, and by who comes next."""
    limiter = limiter_of(rates=[Rate(1000, per_s=60, unit="tokens")])
    answer(limiter, 0.0, limiter.acquire(0.0, {"tokens": 50}))
    limiter.change("session", Limits(rates=[Rate(100, per_s=60, unit="tokens")]))
    assert limiter.refuse({"tokens": 400}) == ""
    assert limiter.wait_s(1.0, {"tokens": 400}) == pytest.approx(60 * CLOCK_DRIFT - 1)
    assert limiter.wait_s(61.0, {"tokens": 400}) == 0.0
    assert limiter.refuse({"tokens": 1001}) == "cost must be >= 0 and <= 1000 tokens, got 1001"
    limiter.leave("session")
    limiter.join("next", Limits(rates=[Rate(100, per_s=60, unit="tokens")]))
    assert limiter.refuse({"tokens": 400}) == "cost must be >= 0 and <= 100 tokens, got 400"


@given(
    parts=st.lists(st.tuples(requests, st.lists(st.integers(1, 6), min_size=2, max_size=2)), min_size=1, max_size=4),
    concurrency=st.integers(1, 9),
)
def test_no_window_is_exceeded_when_limits_change(parts, concurrency):
    """Whatever was changed in between: under each limit, what is sent then is never beside more than it allows."""
    limiter = limiter_of(rates=[Rate(6, 1.0), Rate(6, 7.0)], concurrency=concurrency)
    arrivals, now_s = [], 0.0
    for wanted, (short, long) in parts:
        limiter.change("session", Limits(rates=[Rate(short, 1.0), Rate(long, 7.0)], concurrency=concurrency))
        sent = send(limiter, wanted, now_s=now_s)
        now_s = max(end for *_, end, _ in sent)
        for permit in list(limiter._in_flight.values()):
            answer(limiter, now_s, permit)
        here = [(arrived_s, 1) for _, arrived_s, _, _ in sent]
        assert busiest(here, 1.0) <= short
        assert busiest(here, 7.0) <= long
        arrivals += here
        assert busiest(arrivals, 1.0) <= 6
        assert busiest(arrivals, 7.0) <= 6


class SharedMachine(RuleBasedStateMachine):
    """Sessions come to a resource and leave it while requests are under way; the server keeps count.

    A session that joins is told what the journal knows: all responses so far.
    """

    def __init__(self):
        super().__init__()
        self.limiter = Limiter()
        self.now_s = 0.0
        self.members = {}
        self.running = []  # [permit, number of the request]
        self.sent = []  # [started, arrived or None, responded or None, tokens, rates that hold]

    @rule(
        name=st.integers(0, 3),
        rates=st.lists(
            st.builds(Rate, st.integers(2, 5), st.sampled_from(SPANS_S), st.sampled_from(["requests", "requests"])),
            max_size=2,
        ),
        tokens=st.lists(st.builds(Rate, st.integers(6, 9), st.just(2.5), st.just("tokens")), max_size=1),
        concurrency=st.integers(1, 6),
    )
    def a_session_joins(self, name, rates, tokens, concurrency):
        limits = Limits(rates=[*rates, *tokens], concurrency=concurrency)
        answered = [(responded_s, tokens) for _, _, responded_s, tokens, _ in self.sent if responded_s is not None]
        spent = [(at_s, unit, cost) for at_s, n in answered for unit, cost in (("requests", 1.0), ("tokens", n))]
        self.limiter.join(name, limits, now_s=self.now_s, spent=spent)
        self.members[name] = limits

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def a_session_leaves(self, data):
        name = data.draw(st.sampled_from(sorted(self.members)))
        self.limiter.leave(name)
        del self.members[name]

    @precondition(lambda self: self.members)
    @rule(tokens=st.integers(0, 6))
    def a_request_starts(self, tokens):
        cost = {"tokens": float(tokens)}
        wait_s = self.limiter.wait_s(self.now_s, cost)
        if wait_s == math.inf:
            assert self.running, "nothing runs and nothing may ever start"
            return
        self.now_s += wait_s
        assert self.limiter.wait_s(self.now_s, cost) < 1e-6
        self.running.append((self.limiter.acquire(self.now_s, cost), len(self.sent)))
        holding = {rate for limits in self.members.values() for rate in limits.rates}
        self.sent.append([self.now_s, None, None, tokens, holding])

    @precondition(lambda self: self.running)
    @rule(data=st.data(), seconds=st.sampled_from([0.0, 0.2, 1.7, 6.0]), share=st.sampled_from([0.0, 0.5, 1.0]))
    def a_response_comes(self, data, seconds, share):
        self.now_s += seconds
        permit, number = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        answer(self.limiter, self.now_s, permit)
        request = self.sent[number]
        request[1:3] = request[0] + share * (self.now_s - request[0]), self.now_s

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0]))
    def time_passes(self, seconds):
        self.now_s += seconds

    @precondition(lambda self: self.members)
    @rule(wait_s=st.sampled_from([0.5, 4.0]), ago_s=st.sampled_from([0.0, 3.0]))
    def the_service_asks_for_a_rest(self, wait_s, ago_s):
        self.limiter.cool_down(self.now_s, self.now_s - ago_s, wait_s)

    def teardown(self):
        for permit, number in self.running:
            answer(self.limiter, self.now_s, permit)
            self.sent[number][1:3] = self.sent[number][0], self.now_s
        for at, (_, arrived_s, _, _, holding) in enumerate(self.sent):
            for rate in holding:
                # What started later, when the rate held no more, is not for this start to answer.
                near = [
                    (other[1], 1 if rate.unit == "requests" else other[3])
                    for other in self.sent[: at + 1]
                    if abs(other[1] - arrived_s) <= rate.per_s and (rate.unit == "requests" or rate in other[4])
                ]
                assert busiest(near, rate.per_s) <= rate.limit


TestSharedMachine = SharedMachine.TestCase


@pytest.mark.parametrize(
    ("quota", "left", "held_s"),
    [
        pytest.param(Quota(limit=10, remaining=4, reset_s=5.0), 4, 0.0, id="another tool has used some"),
        pytest.param(Quota(remaining=4), 4, 0.0, id="no word of when"),
        pytest.param(Quota(limit=99, remaining=4, per_s=20.0), 4, 0.0, id="by its length"),
        pytest.param(Quota(remaining=0), 0, 0.0, id="nothing is left"),
        pytest.param(Quota(remaining=0, reset_s=7.0), 0, 7.0, id="nothing until then"),
        pytest.param(Quota(limit=99, remaining=0, reset_s=7.0, per_s=60.0), 8, 7.0, id="of a window we do not know"),
        pytest.param(Quota(remaining=0, reset_s=1e9), 0, MOST_COOL_S, id="bounded"),
        pytest.param(Quota(limit=10, remaining=9, reset_s=5.0), 8, 0.0, id="more than ours"),
        pytest.param(Quota(limit=5000, remaining=5000), 8, 0.0, id="far more"),
        pytest.param(Quota(limit=10, reset_s=5.0), 8, 0.0, id="no word of the rest"),
        pytest.param(Quota(remaining=4, per_s=3600.0), 8, 0.0, id="another window"),
        pytest.param(Quota(remaining=0, reset_s=0.0), 8, 0.0, id="it begins anew now"),
    ],
)
def test_what_the_service_counts_sets_the_window(quota, left, held_s):
    """Two of ten are used here, one of them in flight. What it says is held to, and never loosens the limits."""
    limiter = limiter_of(concurrency=20, rates=[Rate(10, per_s=20)])
    answer(limiter, 0.5, limiter.start(0.0, {}))
    limiter.start(1.0, {})
    limiter.heed(1.0, Told(quotas=(quota,)))
    assert max(0.0, limiter.cool_until_s - 1.0) == pytest.approx(held_s)
    limiter.cool_until_s = -math.inf
    starts = 0
    while limiter.start(2.0 + starts / 100, {}) is not None:
        starts += 1
    assert starts == left


def test_what_another_tool_used_is_free_when_the_window_begins_anew():
    """Not a whole window later; what we use ourselves counts as before."""
    limiter = limiter_of(concurrency=20, rates=[Rate(10, per_s=20)])
    limiter.heed(0.0, Told(quotas=(Quota(limit=10, remaining=1, reset_s=5.0),)))
    answer(limiter, 1.5, limiter.start(1.0, {}))
    assert limiter.wait_s(2.0) == pytest.approx(3.0)
    limiter.heed(5.5, Told(quotas=(Quota(limit=10, remaining=9, reset_s=20.0),)))
    assert limiter.windows[Rate(10, per_s=20)].used(5.5) == 1.0


@given(
    rates=rates,
    steps=st.lists(
        st.tuples(st.floats(0, 2), st.integers(0, 8), st.sampled_from([None, 0.0, 0.4, 3.0])), min_size=1, max_size=30
    ),
)
def test_heeding_never_loosens(rates, steps):
    """Whatever a server says, wrong or right: no window of ours ever holds more than its limit."""
    limiter, now_s, arrivals = limiter_of(concurrency=99, rates=rates), 0.0, []
    for seconds, remaining, reset_s in steps:
        now_s += seconds
        while (permit := limiter.start(now_s, {})) is not None:
            arrivals.append((now_s, 1))
            answer(limiter, now_s, permit)
            now_s += 0.001
        limiter.heed(now_s, Told(quotas=(Quota(remaining=remaining, reset_s=reset_s), Quota(limit=3, remaining=1))))
        wait_s = limiter.wait_s(now_s)
        now_s += 0.0 if wait_s == math.inf else min(wait_s, 1.0)
    for rate in rates:
        assert busiest(arrivals, rate.per_s) <= rate.limit


def test_what_sends_no_request_itself_waits_for_no_spacing():
    """It asks for permits of its own: those are kept apart."""
    limiter = limiter_of(spacing_s=1.0)
    limiter.acquire(0.0)
    assert limiter.wait_s(0.0, NOTHING) == 0.0
    permit = limiter.acquire(0.5, {**NOTHING})
    assert limiter.wait_s(0.5) == 0.5
    assert len(limiter._in_flight) == 1  # thousands of such may wait, and what flies is gone through
    limiter.respond(0.6, permit, slot=True)
    assert limiter.running == 1


@pytest.mark.parametrize(
    ("asked_s", "words"), [(86_400, ""), (100_000, "28 h"), (31_536_000, "365 d"), (1e300, "ever")]
)
def test_what_was_asked_for_is_told_where_it_is_cut(asked_s, words):
    assert cut_words(asked_s) == (f" (asked for {words}: asked again in 24 h)" if words else "")
