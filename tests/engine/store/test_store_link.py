"""A store that is a network away: nobody waits for it, and what passes on the way is never counted too low."""

import random

import pytest

from ipybatch import Limits, Rate
from ipybatch.engine.data.clock import SystemClock
from ipybatch.engine.data.events import CooledDown, Noted
from ipybatch.engine.rules.limit_groups import GroupLimiter
from ipybatch.engine.rules.limiter import NO_COST, Counted
from ipybatch.engine.rules.rate_headers import Quota, Told
from ipybatch.engine.store import store_link
from ipybatch.engine.store.limit_store import LEASE_S, PULSE_S
from ipybatch.engine.store.shared_limiter import KEPT_S, STALE_S
from ipybatch.engine.store.store_link import StoreLink
from ipybatch.errors import JournalError
from ipybatch.testing import MemoryLimits, Report
from tests.engine.store.sharing import GIVES_UP_S, Process, World, worst_case

ROUND_S = 0.05
RATE = Rate(100, per_s=1.0)
MANY = Limits(concurrency=1000, rates=[RATE])
LONG = Rate(8, per_s=60.0)


@pytest.fixture
def world(tmp_path, monkeypatch):
    world = World(tmp_path / "limits.sqlite3", random.Random(7), 0.0, [ROUND_S / 2])
    world.patience = 1.0
    monkeypatch.setattr(store_link, "PATIENCE_S", -1.0)
    yield world
    world.close()


@pytest.fixture
def begin(world):
    def make(owner="kernel", limits=MANY):
        process = Process(world, owner, limits)
        process.begin()
        return process

    return make


def look(world):
    return world.far.exchange(Report(resource="api"))


def used(world, rate=RATE):
    return look(world).used[rate]


def notes(process):
    return [event.text for event in process.told if isinstance(event, Noted)]


def test_nothing_starts_before_the_answer_has_come(world, begin):
    kernel = begin()
    kernel.want([0.01])
    world.run_until(world.now_s + ROUND_S - 0.001)
    assert (kernel.sent, used(world)) == ([], 1.0)
    world.run_until(world.now_s + 0.002)
    assert len(kernel.sent) == 1


def test_what_is_answered_while_a_report_is_under_way_is_in_the_next(world, begin):
    kernel = begin("kernel", Limits(concurrency=1000, rates=[LONG]))
    kernel.want([0.01, ROUND_S + 0.02])
    world.run_until(world.now_s + 10 * ROUND_S)
    assert len(kernel.sent) == 2
    assert sum(cost for _, _, cost in world.far.history("api", 60.0)) == used(world, LONG) == 2.0


@pytest.mark.parametrize("fate", ["lost", "lost there", "late"])
def test_a_report_whose_answer_is_lost_counts_once(world, begin, fate):
    """The store had it, or never got it, or gets it when a later one has come."""
    kernel = begin("kernel", Limits(concurrency=1000, rates=[LONG]))
    kernel.want([0.001])
    world.run_until(world.now_s + ROUND_S + 0.0005)
    kernel.fates = iter([fate, fate])
    world.run_until(world.now_s + 5 * GIVES_UP_S)
    assert list(kernel.fates) == []
    assert used(world, LONG) == 1.0


def test_a_grant_to_who_was_stopped_starts_nothing_and_goes_back(world, begin):
    kernel = begin()
    kernel.want([0.01])
    world.run_until(world.now_s + ROUND_S / 2)
    kernel.stop(STALE_S + 0.1)
    world.run_until(world.now_s + STALE_S + 0.1 + ROUND_S / 4)
    assert (kernel.sent, used(world)) == ([], 1.0)
    world.run_until(world.now_s + 3 * ROUND_S)
    assert (len(kernel.sent), used(world)) == (1, 1.0)


def test_a_grant_that_nobody_wants_any_more_goes_back(world, begin):
    kernel = begin()
    kernel.want([0.01])
    world.run_until(world.now_s + ROUND_S / 2)
    kernel.wanted.clear()
    world.run_until(world.now_s + ROUND_S / 2 + 0.01)
    assert used(world) == 1.0
    world.run_until(world.now_s + KEPT_S + 4 * ROUND_S)
    assert used(world) == 0.0


def test_who_is_alone_waits_for_no_answer_while_much_starts(world, begin):
    """Its allowance is renewed before the last one is used up."""
    kernel = begin("kernel", Limits(concurrency=1000, rates=[Rate(1000, per_s=1.0)]))
    flow(kernel, 60)
    assert kernel.limiter._is_ahead
    before, calls = len(kernel.sent), kernel.calls
    wanted_s = flow(kernel, 60)
    assert [start_s for start_s, _, _ in kernel.sent[before:]] == wanted_s
    assert kernel.calls - calls <= 0.6 / ROUND_S + 1


def flow(kernel, requests):
    """Let one request be wanted every 10 ms; return when."""
    wanted_s = []
    for _ in range(requests):
        wanted_s.append(kernel.world.now_s)
        kernel.want([0.005])
        kernel.world.run_until(kernel.world.now_s + 0.01)
    return wanted_s


def test_who_comes_while_another_runs_ahead_is_noticed_by_the_answer(world, begin):
    first = begin("first")
    flow(first, 60)
    assert first.limiter._is_ahead
    second = begin("second")
    second.want([0.01] * 60)
    flow(first, 30)
    assert not first.limiter._is_ahead
    flow(first, 100)
    world.run_until(world.now_s + 3.0)
    sent = [(start_s, end_s, 1.0) for process in (first, second) for start_s, end_s, _ in process.sent]
    assert len(sent) == 60 + 60 + 30 + 100
    assert worst_case(sent, 1.0) <= 100


def test_several_ask_for_as_many_as_they_start_in_a_round_trip(world, begin):
    """One at a time would be twenty a second each: here both together send all of what is allowed."""
    processes = [begin(name) for name in ("first", "second")]
    for process in processes:
        process.want([0.01] * 500)
    world.run_until(world.now_s + 5.0)
    sent = [(start_s, end_s, 1.0) for process in processes for start_s, end_s, _ in process.sent]
    assert worst_case(sent, 1.0) <= 100
    assert len(sent) >= 0.9 * 5 * 100
    assert min(len(process.sent) for process in processes) > 150


def test_further_requests_of_an_attempt_wait_for_the_answer_too(world, begin):
    kernel = begin("kernel", Limits(concurrency=1, rates=[RATE]))
    now_s = kernel.now_s()
    assert kernel.limiter.start(now_s, NO_COST, slot=False) is None
    assert kernel.limiter.wait_s(now_s, NO_COST, slot=False) == PULSE_S
    world.run_until(world.now_s + ROUND_S + 0.001)
    assert kernel.limiter.wait_s(kernel.now_s(), NO_COST, slot=False) == 0.0
    assert kernel.limiter.start(kernel.now_s(), NO_COST) is None, "it was granted no place"
    assert kernel.limiter.start(kernel.now_s(), NO_COST, slot=False)


def test_a_limit_group_gets_both_its_permits(world, begin):
    """One comes before the other, and is kept for it."""
    kernel, own = begin(), Process(world, "own", MANY)
    own.skew_s = kernel.skew_s
    own.limiter.name = "api: eu"
    own.begin()
    limiter, permits = GroupLimiter(kernel.limiter, own.limiter), []
    for _ in range(40):
        permit = limiter.start(kernel.now_s(), NO_COST)
        if permit is not None:
            permits.append(permit)
            limiter.respond(kernel.now_s(), permit, slot=True)
        world.run_until(world.now_s + 0.01)
    assert len(permits) >= 2


def test_a_store_that_is_away_is_told_once_and_asked_once_a_second(world, begin):
    """What is in flight ends, and is counted when it is back; that it is back is told once, too."""
    kernel = begin()
    kernel.want([0.01, 3.0])
    world.run_until(world.now_s + 1.0)
    assert len(kernel.sent) == 2
    world.far.go_away(20.0)
    kernel.want([0.01] * 5)
    calls = kernel.calls
    world.run_until(world.now_s + 19.0)
    assert len(kernel.sent) == 2
    assert kernel.calls - calls <= 19.0 / PULSE_S
    assert notes(kernel) == ["nothing starts until limits can be kept: nobody answers"]
    world.run_until(world.now_s + 2.0 + GIVES_UP_S + 1.0)
    assert len(kernel.sent) == 7
    assert notes(kernel)[1:] == ["limits can be kept again: it goes on"]
    world.run_until(world.now_s + 1.0)
    assert sum(cost for _, _, cost in world.far.history("api", 60.0)) == 7.0


def test_whoever_begins_while_it_is_away_is_told_so(world):
    world.far.go_away(5.0)
    kernel = Process(world, "kernel", MANY)
    with pytest.raises(JournalError, match="nobody answers"):
        kernel.limiter.enter(kernel, MANY, kernel, "kernel")


@pytest.mark.parametrize("is_under_way", [True, False])
def test_a_cool_down_is_said_soon_and_waits_for_nobody(world, begin, is_under_way):
    """An answer that knows nothing of it yet does not end it."""
    first, second = begin("first"), begin("second")
    if is_under_way:
        first.want([0.01])
    world.run_until(world.now_s + ROUND_S / 4)
    assert first.limiter._link.is_busy is is_under_way
    assert first.limiter.cool_down(first.now_s(), first.now_s(), 30.0)
    world.run_until(world.now_s + 2 * ROUND_S)
    assert look(world).cool_s == pytest.approx(30.0, abs=3 * ROUND_S)
    assert first.limiter.cool_until_s > first.now_s() + 29.0
    second.want([0.01])
    world.run_until(world.now_s + 20.0)
    assert second.sent == []
    assert [event.reason for event in first.told] == ["the service asked us to slow down"]


def test_a_cool_down_is_lifted_here_and_there(world, begin):
    kernel = begin()
    kernel.limiter.cool_down(kernel.now_s(), kernel.now_s(), 30.0)
    assert kernel.limiter._link.is_busy
    assert kernel.limiter.lift()
    assert look(world).cool_s == 0.0
    kernel.want([0.01])
    world.run_until(world.now_s + 2 * ROUND_S)
    assert len(kernel.sent) == 1
    assert [event.until_s == 0.0 for event in kernel.told if isinstance(event, CooledDown)] == [False, True]


def test_what_the_service_counts_is_said_though_a_report_is_under_way(world, begin):
    kernel = begin("kernel", Limits(concurrency=1000, rates=[LONG]))
    kernel.want([0.01])
    world.run_until(world.now_s + ROUND_S / 4)
    kernel.limiter.heed(kernel.now_s(), Told(quotas=(Quota(limit=8, remaining=3, reset_s=30.0),)))
    kernel.limiter.heed(kernel.now_s(), Told(quotas=(Quota(limit=8, remaining=2, reset_s=30.0),)))
    world.run_until(world.now_s + 4 * ROUND_S)
    assert used(world, LONG) >= 6.0


def test_who_leaves_while_a_report_is_under_way_is_gone(world, begin):
    kernel = begin()
    kernel.want([0.01])
    world.run_until(world.now_s + ROUND_S / 4)
    kernel.leave()
    assert look(world).owners == ()
    world.run_until(world.now_s + LEASE_S)
    assert (look(world).owners, kernel.sent) == ((), [])


def test_whoever_is_idle_reports_every_second(world, begin):
    """A store that has lost what it knew is to hear of it soon."""
    kernel = begin()
    world.run_until(world.now_s + 10.0)
    assert 9 <= kernel.calls <= 10


def test_a_store_that_was_wiped_is_told_again_what_was_answered(world, begin):
    processes = [begin(name, Limits(concurrency=1000, rates=[LONG])) for name in ("first", "second")]
    for process in processes:
        process.want([0.01] * 3)
    world.run_until(world.now_s + 2.0)
    world.far.wipe()
    for process in processes:
        process.want([0.01] * 8)
    world.run_until(world.now_s + 40.0)
    assert sum(len(process.sent) for process in processes) == 8


def test_limits_that_change_while_an_allowance_is_under_way_end_it(world, begin):
    """A window that is new has yet to learn what was sent: nothing starts ahead before."""
    kernel = begin("kernel", Limits(concurrency=1000, rates=[Rate(1000, per_s=1.0)]))
    kernel.want([0.001] * 3)
    while kernel.limiter._is_ahead or not kernel.limiter._link.is_busy or kernel.limiter._asked < 3:
        world.run_until(world.now_s + 0.001)
        kernel.want([0.001])
    kernel.limiter.change(kernel, Limits(concurrency=1000, rates=[Rate(30, per_s=60.0)]))
    world.run_until(world.now_s + ROUND_S)
    assert not kernel.limiter._is_ahead
    kernel.want([0.001] * 60)
    world.run_until(world.now_s + 20.0)
    assert len(kernel.sent) == 30


def test_answers_make_a_store_that_is_away_no_busier(world, begin):
    kernel = begin()
    kernel.want([0.1 * number for number in range(1, 51)])
    world.run_until(world.now_s + 1.0)
    world.far.go_away(4.0, refuses=True)
    calls = kernel.calls
    world.run_until(world.now_s + 4.0)
    assert kernel.calls - calls <= 4.0 / PULSE_S + 1


def test_an_allowance_whose_renewal_is_lost_is_used_no_more(world, begin):
    """The store may be away for long, and have others' word for what is free by then."""
    kernel = begin("kernel", Limits(concurrency=1000, rates=[Rate(1000, per_s=1.0)]))
    flow(kernel, 60)
    world.far.go_away(20.0)
    flow(kernel, round(100 * (GIVES_UP_S + 0.2)))
    assert not kernel.limiter._is_ahead
    before = len(kernel.sent)
    flow(kernel, 100)
    assert len(kernel.sent) == before


def test_how_long_an_exchange_takes_is_said(world, begin, monkeypatch):
    """Who asked in vain keeps its turn for so much longer."""
    kernel, reports, exchange = begin(), [], world.far.exchange
    monkeypatch.setattr(world.far, "exchange", lambda report: reports.append(report) or exchange(report))
    flow(kernel, 60)
    assert reports[-1].round_s == pytest.approx(ROUND_S, abs=0.01)
    assert [report.number for report in reports] == [reports[0].number + at for at in range(len(reports))]


def test_what_is_answered_just_after_a_report_is_no_part_of_it():
    link = StoreLink(MemoryLimits(), SystemClock())
    link.keep_one(1.0)
    assert link.merges_until_s > 1.002
    assert link.say(1.001) == [(pytest.approx(0.001), "requests", 1.0)]
    assert link.merges_until_s < 1.002
    link.keep_one(1.002)
    assert len(link.say(1.003)) == 2


def test_what_the_service_counts_of_each_window_is_kept():
    link = StoreLink(MemoryLimits(), SystemClock())
    one, two, again = Counted(RATE, 5.0), Counted(LONG, 3.0), Counted(RATE, 7.0)
    for news in ([one], [two], [again]):
        link.count(news)
    assert link.counted == (again, two)
