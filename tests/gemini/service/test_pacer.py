"""The pace, against services that count in different ways, in virtual time."""

import heapq
import itertools
import math
import random
from collections import deque

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ipybatch import InputError
from ipybatch.engine.data.policy import Rate
from ipybatch.engine.rules.limiter import held_s
from ipybatch.gemini.service.pacer import (
    LATEST_S,
    MARGIN_S,
    ArrivalWindow,
    GeminiPacer,
    Model,
    automatic_concurrency,
    choose_models,
)
from ipybatch.gemini.service.reply import Refusal

ONE = {"requests": 1.0}


class Bucket:
    """A service that refills ``rpm`` a minute, up to ``burst``."""

    def __init__(self, rpm, burst):
        self.rpm, self.burst, self.level, self.at_s = rpm, burst, float(burst), 0.0

    def ask(self, now_s):
        self.level = min(self.burst, self.level + (now_s - self.at_s) * self.rpm / 60)
        self.at_s = now_s
        if self.level >= 1:
            self.level -= 1
            return None
        return Refusal((1 - self.level) * 60 / self.rpm, rpm=self.rpm)


class Sliding:
    """A service that lets ``limit`` in within any ``per_s``, and names its quota by the minute."""

    def __init__(self, limit, per_s):
        self.limit, self.per_s, self.seen = limit, per_s, deque()

    def ask(self, now_s):
        while self.seen and self.seen[0] <= now_s - self.per_s:
            self.seen.popleft()
        if len(self.seen) < self.limit:
            self.seen.append(now_s)
            return None
        return Refusal(self.seen[0] + self.per_s - now_s, rpm=self.limit * 60 / self.per_s)


class Silent(Bucket):
    """A bucket whose 429 says nothing at all."""

    def ask(self, now_s):
        return None if super().ask(now_s) is None else Refusal()


def run(pacer, service, n, *, slots, latency_s=0.2, way_s=0.005, seed=1):
    """Send ``n`` requests as the engine does; return the seconds it took, and how many answers were 429."""
    chance, tick = random.Random(seed), itertools.count()
    now_s = cool_s = 0.0
    left, refused, answers, busy = n, 0, [], 0
    while left or answers:
        while left and busy < slots and now_s >= cool_s and pacer.wait_s(now_s, ONE) == 0.0:
            pacer.start(now_s, ONE)
            busy, left = busy + 1, left - 1
            arrival_s = now_s + chance.uniform(0.001, way_s)
            heapq.heappush(answers, (arrival_s, next(tick), "arrival", now_s, None))
        until_s = math.inf
        if left and busy < slots:
            until_s = max(cool_s, now_s + pacer.wait_s(now_s, ONE))
        if answers and answers[0][0] <= until_s:
            now_s, _, what, started_s, said = heapq.heappop(answers)
        else:
            now_s = until_s
            continue
        if what == "arrival":
            said = service.ask(now_s)
            takes_s = 0.002 if said else chance.lognormvariate(math.log(latency_s), 0.4)
            heapq.heappush(answers, (now_s + takes_s, next(tick), "answer", started_s, said))
            continue
        pacer.end(now_s, started_s, ONE, {})
        busy -= 1
        if said is None:
            pacer.current.answered(now_s - started_s)
        else:
            refused, left = refused + 1, left + 1
            pacer.current.refused(now_s, started_s, said)
            cool_s = max(cool_s, now_s + (0.5 if said.retry_s is None else said.retry_s))
    return now_s, refused


@pytest.mark.parametrize("slots", [20, 50, 100])
@pytest.mark.parametrize("service", [lambda: Bucket(3000, 50), lambda: Sliding(300, 6.0)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_pace_that_is_given_meets_no_429(service, slots, seed):
    """500 requests under 3,000 a minute, however the service counts it; ideal 9.25 s."""
    seconds, refused = run(GeminiPacer([Model("m", rpm=3000)], at_once=slots), service(), 500, slots=slots, seed=seed)
    assert refused == 0
    assert seconds <= 1.12 * 9.25


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_pace_that_is_given_meets_no_429_in_a_window_though_arrivals_are_late(seed):
    """A busy machine sends late, now and then by half a second; the answers are that much later too."""
    pacer = GeminiPacer([Model("m", rpm=3000)], at_once=50)
    assert run(pacer, Sliding(300, 6.0), 500, slots=50, seed=seed, way_s=0.5)[1] == 0


@pytest.mark.parametrize("slots", [20, 50, 100])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_buckets_pace_is_learnt_from_its_first_429(slots, seed):
    seconds, refused = run(GeminiPacer([Model("m")], at_once=slots), Bucket(3000, 50), 500, slots=slots, seed=seed)
    assert 1 <= refused <= 25
    assert seconds <= 1.10 * 9.25


@pytest.mark.parametrize("slots", [50, 100])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_sliding_window_is_found_out(slots, seed):
    """300 in 6 s at first, and the rest as soon as they leave the window: 6.3 s at best."""
    seconds, refused = run(GeminiPacer([Model("m")], at_once=slots), Sliding(300, 6.0), 500, slots=slots, seed=seed)
    assert 1 <= refused <= 25
    assert seconds <= 9.0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_429_that_says_nothing_halves_what_runs_at_once(seed):
    seconds, refused = run(GeminiPacer([Model("m")], at_once=50), Silent(600, 10), 300, slots=50, seed=seed)
    assert refused <= 60
    assert seconds <= 2.0 * 30


@example(rpm=63, burst=60, slots=37, known=False, seed=1)
@given(
    rpm=st.integers(30, 3000),
    burst=st.integers(1, 60),
    slots=st.integers(1, 40),
    known=st.booleans(),
    seed=st.integers(),
)
def test_every_request_gets_through_and_few_are_refused(rpm, burst, slots, known, seed):
    """Whatever the quota: nothing is lost, and few requests at a learned pace are refused.

    A large bucket looks like a window until its second 429; taken for one, it takes up to twice the time.
    """
    pacer = GeminiPacer([Model("m", rpm=rpm if known else None)], at_once=slots)
    seconds, refused = run(pacer, Bucket(rpm, burst), 120, slots=slots, seed=seed)
    at_best = max((120 if known else 120 - burst) * 60 / rpm, 120 * 0.2 / slots)
    assert refused <= 30
    assert seconds <= (1.6 if known else 2.0) * at_best + 3 * 60 / rpm + 2.0


@pytest.mark.parametrize(("rpm", "table"), [(2, 3), (10, 5), (30, 10)])
def test_answers_of_50_s_give_the_table_that_users_quote(rpm, table):
    assert automatic_concurrency(rpm, 50.0) == table


@pytest.mark.parametrize("rpm", [2, 10, 30])
def test_answers_of_5_s_give_the_formula_that_users_quote(rpm):
    assert automatic_concurrency(rpm, 5.0) == 3 == max(3, math.floor(rpm * 0.6 * 5 / 60))


def test_the_number_at_once_follows_the_latency_within_3_and_10():
    pacer = GeminiPacer([Model("m", rpm=60)])
    assert pacer.current.concurrency == 10
    for seconds, at_once in ((1.0, 3), (10.0, 6), (100.0, 10)):
        for _ in range(50):
            pacer.current.answered(seconds)
        assert pacer.current.concurrency == at_once


def test_who_uses_little_of_a_quota_is_told_once_how_to_use_it():
    pacer = GeminiPacer([Model("m", rpm=3000)])
    said = []
    for _ in range(40):
        pacer.current.answered(2.0)
        said.append(pacer.current.advice())
    assert [text for text in said if text] == [
        "10 at once use 10% of 3000 requests a minute, as an answer takes 2.0 s: concurrency=100 would use all of it"
    ]


@pytest.mark.parametrize(
    "pacer",
    [GeminiPacer([Model("m")]), GeminiPacer([Model("m", rpm=3000)], at_once=10), GeminiPacer([Model("m", rpm=60)])],
)
def test_nobody_is_told_who_chose_it_or_uses_most_of_it(pacer):
    for _ in range(40):
        pacer.current.answered(2.0)
        assert pacer.current.advice() == ""


def test_tokens_beyond_what_was_thought_count_too():
    pacer = GeminiPacer([Model("m", tpm=1000)])
    pacer.start(0.0, {"requests": 1.0, "tokens": 400.0})
    pacer.end(1.0, 0.0, {"requests": 1.0, "tokens": 400.0}, {"tokens": 700.0})
    assert pacer.wait_s(1.0, {"requests": 1.0, "tokens": 300.0}) == 0.0
    assert pacer.wait_s(1.0, {"requests": 1.0, "tokens": 301.0}) == pytest.approx(59.0, abs=0.3)


def test_tokens_a_minute_are_learnt():
    pacer = GeminiPacer([Model("m")])
    pacer.start(0.0, ONE)
    pacer.current.refused(0.1, 0.0, Refusal(5.0, tpm=1000.0))
    pacer.start(5.0, {"requests": 1.0, "tokens": 900.0})
    assert pacer.wait_s(6.0, {"requests": 1.0, "tokens": 200.0}) == pytest.approx(59.0, abs=0.3)


def test_what_is_no_request_waits_for_nothing():
    pacer = GeminiPacer([Model("m", rpm=1)])
    pacer.start(0.0, ONE)
    assert pacer.wait_s(0.0, {"requests": 0.0}) == 0.0
    pacer.start(0.0, {"requests": 0.0})
    pacer.end(0.0, 0.0, {"requests": 0.0}, {})
    assert pacer.wait_s(0.0, ONE) == pytest.approx(60 + MARGIN_S, abs=0.1)


def test_a_model_whose_day_is_used_up_gives_way_to_the_next_until_it_is_over():
    pacer = GeminiPacer(choose_models(None, [Model("b", priority=2), Model("a", rpm=10)]))
    assert pacer.current.model.name == "a"
    pacer.of("a").used_up_until_s = 1000.0
    assert (pacer.current.model.name, pacer.rest_s(0.0)) == ("b", 0.0)
    pacer.of("b").used_up_until_s = 2000.0
    assert pacer.rest_s(0.0) == math.inf
    pacer.refresh(999.0)
    assert pacer.current.model.name == "a"
    assert pacer.current.used_up_until_s == 1000.0
    pacer.refresh(1000.0)
    assert (pacer.current.model.name, pacer.current.used_up_until_s) == ("a", 0.0)


def models_of(pacer, times, *, takes_s=0.0):
    """Start a request at each of these times, if one may start, and return the models that they are for."""
    asked = []
    for now_s in times:
        if pacer.wait_s(now_s, ONE) == 0.0:
            pacer.start(now_s, ONE)
            asked.append(pacer.take())
            pacer.end(now_s + takes_s, now_s, ONE, {})
    return asked


def test_models_with_quotas_are_used_each_at_its_own_pace():
    """10 and 100 a minute make 110, by no more than what may start together at first."""
    pacer = GeminiPacer([Model("a", rpm=10), Model("b", rpm=100)])
    asked = models_of(pacer, [tick / 10 for tick in range(1200)])
    counts = {name: asked.count(name) for name in "ab"}
    assert 19 <= counts["a"] <= 21
    assert 190 <= counts["b"] <= 204


@pytest.mark.parametrize(("priorities", "first"), [((1, 1), "a"), ((2, 1), "b")])
def test_of_models_that_may_start_now_the_first_by_priority_goes_first(priorities, first):
    """Without quotas that is always the same one, though its own starts are a little apart."""
    models = [Model(name, priority=priority) for name, priority in zip("ab", priorities, strict=True)]
    pacer = GeminiPacer(choose_models(None, models), at_once=50)
    assert set(models_of(pacer, [tick / 1000 for tick in range(200)])) == {first}


def test_a_model_with_no_room_leaves_its_turn_to_the_next():
    pacer = GeminiPacer([Model("a"), Model("b")], at_once=2)
    for now_s in (0.0, 1.0, 2.0):
        assert pacer.wait_s(now_s, ONE) == 0.0
        pacer.start(now_s, ONE)
    assert [pacer.take() for _ in range(3)] == ["a", "a", "b"]
    pacer.start(3.0, ONE)
    assert pacer.wait_s(4.0, ONE) == math.inf


def test_requests_that_were_never_sent_leave_nothing_behind():
    """An attempt that ended before it asked for its model: the next one gets its own."""
    pacer = GeminiPacer([Model("a"), Model("b")])
    pacer.start(0.0, ONE)
    pacer.start(0.1, ONE)
    pacer.end(0.2, 0.0, ONE, {})
    pacer.of("a").used_up_until_s = 1e9
    pacer.start(0.3, ONE)
    assert [pacer.take() for _ in range(2)] == ["a", "b"]
    assert pacer.of("a").in_flight == 1


@pytest.mark.parametrize(("told_s", "rest_s"), [(30.0, 30.0), (9.2e18, 86_400.0), (math.inf, 86_400.0)])
def test_a_model_rests_as_long_as_it_told_at_most_a_day(told_s, rest_s):
    pacer = GeminiPacer([Model("a"), Model("b")])
    assert pacer.of("a").rest(0.0, 0.0, told_s) == rest_s
    assert models_of(pacer, [1.0, 2.0]) == ["b", "b"]
    assert models_of(pacer, [rest_s]) == ["a"]


def test_refusals_in_a_row_that_tell_nothing_rest_longer_and_longer():
    """Those of requests that were under way together count as one, and an answer ends the row."""
    model = GeminiPacer([Model("a"), Model("b")]).of("a")
    rests, now_s = [], 0.0
    for _ in range(12):
        rests.append(model.rest(now_s + 0.1, now_s, None))
        assert model.rest(now_s + 0.2, now_s, None) == rests[-1]
        now_s += 1.0
    assert rests == [1.0, 2.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 3600.0, 3600.0, 3600.0]
    model.answered(1.0)
    assert model.rest(now_s + 0.1, now_s, None) == 1.0


def test_when_all_rest_the_first_to_be_free_waits_with_the_resource():
    """So that what ends the cool-down of the resource, from wherever, lets one go on."""
    pacer = GeminiPacer([Model("a"), Model("b")])
    pacer.of("a").rest(0.0, 0.0, 50.0)
    pacer.of("b").rest(0.0, 0.0, 30.0)
    assert pacer.rest_s(10.0) == 20.0
    assert models_of(pacer, [11.0]) == ["b"]
    assert pacer.lift(12.0)
    assert models_of(pacer, [13.0]) == ["a"]
    assert not pacer.lift(14.0)


@pytest.mark.parametrize(
    ("model", "models", "words"),
    [
        ("a", ["b"], "not both"),
        (None, [], "models must be a list"),
        (None, "abc", "models must be a list"),
        (None, ["a", Model("a", rpm=1)], "models must differ"),
        ("a b", None, "model must be a name"),
        (17, None, "model must be a name"),
    ],
)
def test_models_that_make_no_sense_are_refused(model, models, words):
    with pytest.raises(InputError, match=words):
        choose_models(model, models)


@pytest.mark.parametrize("field", ["rpm", "tpm"])
def test_a_quota_below_one_is_refused(field):
    with pytest.raises(InputError, match=f"{field} must be >= 1, got 0"):
        Model("a", **{field: 0})


@given(
    steps=st.lists(st.tuples(st.sampled_from(["start", "answer", "look"]), st.integers(0, 12), st.integers(0, 5))),
    cost=st.sampled_from([0.0, 1.0, 2.0]),
)
def test_a_window_of_arrivals_counts_until_the_answer_or_the_latest_arrival(steps, cost):
    """As many, and as long to wait, as by its definition; at 10,000 a minute each start had counted all of them."""
    window, span_s = ArrivalWindow(Rate(3, per_s=1.0)), held_s(Rate(3, per_s=1.0))
    held, open_, now_s = [], [], 0.0
    for step, tenths, which in steps:
        now_s += tenths / 10
        if step == "start":
            window.spend(now_s, 1.0)
            held.append([now_s, now_s + LATEST_S + span_s])
            open_.append(held[-1])
        elif step == "answer" and open_:
            entry = open_.pop(which % len(open_))
            window.answer(entry[0], now_s)
            entry[1] = min(entry[1], now_s + span_s)
        frees = sorted(free_s for _, free_s in held if free_s > now_s)
        assert window.used(now_s) == len(frees)
        over = math.ceil(len(frees) + cost - 3)
        expected_s = 0.0 if over <= 0 else frees[over - 1] - now_s if over <= len(frees) else math.inf
        assert window.wait_s(now_s, cost) == expected_s
