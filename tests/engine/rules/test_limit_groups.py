"""Limits of their own for some of the items, without a session around them."""

import functools
import math

import pytest

from ipybatch.engine.data.plan import Task
from ipybatch.engine.data.policy import Breaker as BreakerPolicy
from ipybatch.engine.data.policy import Limits, Rate
from ipybatch.engine.rules.estimate import estimate
from ipybatch.engine.rules.limit_groups import (
    GroupLimiter,
    JointLimiter,
    LimitGroup,
    LimitGroups,
    group_label,
    group_names,
)
from ipybatch.engine.rules.limiter import NO_COST, Limiter
from ipybatch.engine.rules.rate_headers import Quota, Told
from ipybatch.engine.rules.scheduler import Scheduler


def limiter_of(**limits):
    limiter = Limiter()
    limiter.join("session", Limits(**limits))
    return limiter


def tasks(names):
    """Return a task for each letter, whose item is the letter: its group."""
    return [Task(seq, str(seq), name) for seq, name in enumerate(names)]


def groups_of(common, policy=None, **each):
    opened = []

    def open_group(name):
        opened.append(name)
        return LimitGroup(name, GroupLimiter(common, limiter_of(**each)))

    nameless = LimitGroup("", GroupLimiter(common, Limiter()))
    return LimitGroups(per=lambda item: item, open=open_group, nameless=nameless, policy=policy), opened


def put(groups, *waiting, first=False):
    for task in waiting:
        groups.put(groups.of(task), task, first=first)


def scheduler_of(names, *, each, breaker=None, cost=None, look_ahead=math.inf, **limits):
    common = limiter_of(**limits)
    groups, _ = groups_of(common, policy=breaker, **each)
    return Scheduler(
        iter(tasks(names)),
        Limits(**limits),
        common,
        cost=cost,
        limit_groups=groups,
        ahead=1,
        look_ahead=look_ahead,
    )


def end(scheduler, now_s, ticket):
    ticket.limiter.respond(now_s, ticket.permit)
    ticket.limiter.free()
    if ticket.breaker is not None:
        ticket.breaker.succeed(now_s, ticket.epoch)
    scheduler.settle(now_s, ticket.task)


def fail(scheduler, now_s, ticket, ready_s):
    ticket.limiter.respond(now_s, ticket.permit)
    ticket.limiter.free()
    if ticket.breaker is not None:
        ticket.breaker.fail(now_s, ticket.epoch, ticket.task.seq)
    scheduler.retry(ready_s, ticket.task)


@pytest.fixture
def both():
    """The common limiter allows 3 per 10 s, 4 at once; the group's own 5 per 60 s, 2 at once."""
    common = limiter_of(concurrency=4, rates=[Rate(3, per_s=10)])
    return GroupLimiter(
        common, limiter_of(concurrency=2, rates=[Rate(5, per_s=60), Rate(100, per_s=60, unit="tokens")])
    )


def test_a_start_waits_for_whichever_limiter_is_later(both):
    """Slots and windows of both hold, with the request's own cost."""
    assert both.wait_s(0.0) == 0.0
    first, _ = both.start(0.0, NO_COST), both.start(0.005, NO_COST)
    assert both.wait_s(0.1) == math.inf, "the group has two places"
    assert both.wait_s(1.0, slot=False) == 0.0, "a further request of an attempt needs none"
    both.respond(1.0, first)
    both.free()
    assert both.start(1.0, NO_COST) is not None
    assert both.wait_s(2.0, slot=False) == pytest.approx(9.0, abs=0.1), "the common window has three"
    assert both.common.running == both.own.running == 2


def test_a_cost_is_taken_of_both_windows(both):
    """Tokens are counted where a rate counts them; what it really cost replaces what was reserved, in both."""
    permit = both.start(0.0, {"tokens": 90.0})
    assert both.wait_s(0.1, {"tokens": 20.0}) == math.inf
    both.respond(0.5, permit, {"tokens": 10.0})
    assert both.wait_s(0.6, {"tokens": 20.0}) == 0.0
    assert both.own.windows[Rate(100, per_s=60, unit="tokens")].used(0.6) == 10.0
    assert both.common.windows[Rate(3, per_s=10)].used(0.6) == 1.0
    assert both.own.windows[Rate(5, per_s=60)].used(0.6) == 1.0


def test_the_common_window_counts_what_every_group_costs():
    """Its slot, what is reserved, and what it really came to."""
    both = GroupLimiter(limiter_of(concurrency=1, rates=[Rate(100, per_s=60, unit="tokens")]), limiter_of())
    permit = both.start(0.0, {"tokens": 80.0})
    assert both.wait_s(0.0, {"tokens": 10.0}) == math.inf, "the common place is taken"
    assert both.wait_s(0.0, {"tokens": 10.0}, slot=False) == 0.0
    assert both.wait_s(0.0, {"tokens": 30.0}, slot=False) == math.inf
    both.respond(1.0, permit, {"tokens": 20.0})
    both.free()
    assert both.wait_s(1.0, {"tokens": 80.0}) == 0.0
    assert both.wait_s(1.0, {"tokens": 81.0}) == pytest.approx(60.0, abs=0.1)


def test_a_further_request_takes_no_place(both):
    both.start(0.0, NO_COST, slot=False)
    assert (both.common.running, both.own.running) == (0, 0)


def test_a_response_counts_once(both):
    """A second word for the same permit changes nothing."""
    permit = both.start(0.0, NO_COST)
    both.respond(1.0, permit)
    both.respond(2.0, permit)
    assert both.own.windows[Rate(5, per_s=60)].used(3.0) == 1.0


def test_what_fits_one_but_not_the_other_is_refused(both):
    assert both.refuse({"requests": 3}) == ""
    assert both.refuse({"requests": 4}).startswith("cost must be >= 0 and <= 3 requests")
    assert both.refuse({"tokens": 101}).startswith("cost must be >= 0 and <= 100 tokens")


def test_units_are_those_of_both(both):
    assert both.units == ("requests", "tokens")


def test_a_cool_down_is_the_groups_alone(both):
    """The service rations each by itself; the count in a row is the group's, until it answers well."""
    assert both.cool_down(10.0, 9.0, 30.0) is True
    assert (both.cool_until_s, both.common.cool_until_s) == (40.0, -math.inf)
    assert both.cool_downs == 1
    both.warm_up()
    assert both.cool_downs == 0
    both.common.cool_down(10.0, 9.0, 90.0)
    assert both.cool_until_s == 100.0


def test_a_group_is_opened_once():
    """When the first of its tasks comes."""
    groups, opened = groups_of(limiter_of())
    put(groups, *tasks("abab"))
    assert opened == ['"a"', '"b"']
    assert groups.count == 4
    assert [len(group.tasks) for group in groups.by_name.values()] == [2, 2]


def test_among_groups_that_are_free_the_first_task_in_the_order_goes_first():
    """An urgent one goes before all; one group's order is its own."""
    groups, _ = groups_of(limiter_of())
    one, two, three = tasks("abb")
    three.priority = 0
    put(groups, two, one)
    assert groups.choose(0.0, lambda group: {}) == (groups.by_name['"a"'], math.inf, "slot")
    put(groups, three, first=True)
    chosen, *_ = groups.choose(0.0, lambda group: {})
    assert groups.take(chosen) is three
    assert [task.seq for task in groups.left()] == [0, 1]
    assert groups.count == 2
    assert [task.seq for task in groups.clear()] == [0, 1]
    assert (groups.count, groups.left()) == (0, [])


def test_when_all_groups_wait_the_soonest_is_told():
    """And an empty group, or what a dear task of another costs, has no say in it."""
    groups, _ = groups_of(limiter_of(), concurrency=9, rates=[Rate(10, per_s=10, unit="tokens")])
    put(groups, *tasks("abc"))
    for name, at_s in (('"b"', 1.0), ('"a"', 3.0)):
        limiter = groups.by_name[name].limiter
        limiter.respond(at_s, limiter.start(at_s, {"tokens": 10.0}))
    groups.take(groups.by_name['"c"'])
    for now_s, left_s in ((5.0, 6.0), (10.5, 0.5)):
        chosen, wait_s, why = groups.choose(now_s, lambda group: {"tokens": 1.0})
        assert (chosen, why) == (None, "limit")
        assert wait_s == pytest.approx(left_s, abs=0.1)


def test_a_group_that_waits_holds_up_no_other():
    """What stands before it in the order waits, and the next group's goes."""
    scheduler = scheduler_of("aab", each={"concurrency": 1}, concurrency=9)
    started = [scheduler.next(0.0), scheduler.next(0.0)]
    assert [ticket.task.item for ticket in started] == ["a", "b"]
    assert [ticket.limit_group for ticket in started] == ['"a"', '"b"']
    assert scheduler.next(0.0) is None
    assert (scheduler.wait_s, scheduler.why) == (math.inf, "slot")
    assert not scheduler.finished
    end(scheduler, 1.0, started[0])
    last = scheduler.next(1.0)
    assert last.task.seq == 1
    for ticket in (started[1], last):
        end(scheduler, 2.0, ticket)
    assert scheduler.next(2.0) is None
    assert (scheduler.wait_s, scheduler.why) == (math.inf, "")
    assert scheduler.finished


def test_the_common_limits_hold_for_all_groups():
    """Their slot and their window are told as such."""
    scheduler = scheduler_of("abc", each={}, concurrency=1, rates=[Rate(2, per_s=10)])
    first = scheduler.next(0.0)
    assert scheduler.next(0.0) is None
    assert (scheduler.wait_s, scheduler.why) == (math.inf, "slot")
    end(scheduler, 1.0, first)
    end(scheduler, 3.0, scheduler.next(2.0))
    assert scheduler.next(4.0) is None
    assert (scheduler.wait_s, scheduler.why) == (pytest.approx(7.0, abs=0.1), "limit")


def test_a_groups_own_window_is_told():
    scheduler = scheduler_of("aa", each={"rates": [Rate(1, per_s=10)]})
    end(scheduler, 1.0, scheduler.next(0.0))
    assert scheduler.next(4.0) is None
    assert (scheduler.wait_s, scheduler.why) == (pytest.approx(7.0, abs=0.1), "limit")
    assert scheduler.next(11.5).task.seq == 1


def test_a_retry_waits_in_its_group():
    """When it is ready it goes before what has not begun; before that, the time to it is told."""
    scheduler = scheduler_of("aa", each={"concurrency": 1})
    fail(scheduler, 0.0, scheduler.next(0.0), ready_s=5.0)
    other = scheduler.next(1.0)
    assert other.task.seq == 1
    end(scheduler, 2.0, other)
    assert scheduler.next(2.0) is None
    assert (scheduler.wait_s, scheduler.why) == (3.0, "retry")
    again = scheduler.next(5.0)
    assert (again.task.seq, again.task.attempts) == (0, 2)


@pytest.mark.parametrize(("breaker", "seq"), [(None, 0), (BreakerPolicy(failures=9), 2)])
def test_while_the_service_fails_a_retry_goes_behind_the_others(breaker, seq):
    """Every probe then costs another item one of its attempts."""
    scheduler = scheduler_of("aaa", each={"concurrency": 2}, breaker=breaker)
    first, _ = scheduler.next(0.0), scheduler.next(0.0)
    assert scheduler.next(0.0) is None  # the third is drawn, and waits in the group
    fail(scheduler, 1.0, first, ready_s=1.0)
    assert scheduler.next(1.0).task.seq == seq


def test_a_retry_that_proves_nothing_goes_first():
    """The service does not fail: a 429, or what the work said of an item, puts it behind nobody."""
    scheduler = scheduler_of("aaa", each={"concurrency": 2}, breaker=BreakerPolicy(failures=9))
    first, _ = scheduler.next(0.0), scheduler.next(0.0)
    assert scheduler.next(0.0) is None
    first.limiter.respond(1.0, first.permit)
    first.limiter.free()
    first.breaker.release(first.epoch)
    scheduler.retry(1.0, first.task)
    assert scheduler.next(1.0).task.seq == 0


def test_a_start_costs_the_common_window_what_its_item_costs():
    """A group that is free waits for the common window, for its own item's cost."""
    tokens = {"rates": [Rate(100, per_s=60, unit="tokens")], "concurrency": 9}
    scheduler = scheduler_of("ab", each={}, cost=lambda task: {"tokens": 80.0}, **tokens)
    first = scheduler.next(0.0)
    assert scheduler.next(0.0) is None
    end(scheduler, 1.0, first)
    assert scheduler.next(2.0) is None
    assert (scheduler.wait_s, scheduler.why) == (pytest.approx(59.0, abs=0.1), "limit")


def test_no_more_is_drawn_than_may_wait():
    """Of a generator, items are drawn for groups that are free, but not without end."""
    scheduler = scheduler_of("aaaaab", each={"concurrency": 1}, look_ahead=3)
    assert scheduler.next(0.0).task.seq == 0
    assert scheduler.next(0.0) is None
    assert [task.seq for task in scheduler.left()] == [1, 2, 3]
    assert [task.item for task in scheduler.source] == ["a", "b"]


def test_batches_and_groups_go_together():
    """The next batch waits for its pause; what waits in a group is not taken for the end of one."""
    scheduler = scheduler_of("abab", each={"concurrency": 1}, concurrency=9, batch_size=2, batch_pause_s=15)
    for ticket in [scheduler.next(0.0), scheduler.next(0.0)]:
        end(scheduler, 1.0, ticket)
    assert scheduler.next(1.0) is None
    assert (scheduler.wait_s, scheduler.why) == (15.0, "batch")
    third = scheduler.next(16.0)
    assert (third.task.seq, third.task.group) == (2, 2)


def test_a_groups_limit_refuses_what_never_fits():
    """The item fails alone, told why by its own group's range."""
    costs = {0: 5.0, 1: 500.0}
    scheduler = scheduler_of(
        "ab",
        each={"rates": [Rate(100, per_s=60, unit="tokens")]},
        cost=lambda task: {"tokens": costs[task.seq]},
    )
    started = [scheduler.next(0.0), scheduler.next(0.0)]
    assert [ticket.refused for ticket in started] == ["", "cost must be >= 0 and <= 100 tokens, got 500"]


def test_what_waits_is_put_in_order_again():
    """Also what was drawn into its group already, with what is new among it."""
    scheduler = scheduler_of("aaab", each={"concurrency": 1}, concurrency=9)
    running = scheduler.next(0.0)
    assert scheduler.next(0.0).task.item == "b"
    new = Task(9, "9", "a", priority=0)
    waiting = scheduler.left()
    assert [task.seq for task in waiting] == [1, 2]
    scheduler.prioritize([waiting[1]], 0)
    scheduler.add([new])
    assert scheduler.queued == [2, 1, 0]
    assert not scheduler.finished
    order = []
    for now_s in (1.0, 2.0, 3.0):
        end(scheduler, now_s, running)
        running = scheduler.next(now_s)
        order.append(running.task.seq)
    assert order == [2, 9, 1]
    assert scheduler.queued == [0, 0, 0]


def test_an_open_batch_keeps_its_items_in_another_order():
    """What is urgent now goes first within it; what comes later waits for a later batch."""
    scheduler = scheduler_of("aaaa", each={"concurrency": 1}, batch_size=3)
    running = scheduler.next(0.0)
    scheduler.prioritize([scheduler.left()[1]], 0)
    scheduler.add([Task(9, "9", "a", priority=0)])
    order = []
    for now_s in (1.0, 2.0, 3.0, 4.0):
        end(scheduler, now_s, running)
        running = scheduler.next(now_s)
        order.append((running.task.seq, running.task.group))
    assert order == [(2, 1), (1, 1), (9, 2), (3, 2)]


def test_an_estimate_keeps_to_the_limits_of_each_group():
    """Three of a group one after the other, and the other group beside them; without tasks all are of one group."""
    limits = Limits(concurrency=10, each=Limits(concurrency=1))
    known = estimate(limits, 4, 1.0, None, iter(tasks("aaab")), per=lambda item: item)
    assert known.seconds == pytest.approx(3.0)
    assert estimate(limits, 4, 1.0, None).seconds == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("quota", "common", "own"),
    [
        pytest.param(Quota(limit=3, remaining=1, per_s=10.0), 1, 5, id="of the common window"),
        pytest.param(Quota(limit=5, remaining=1, per_s=60.0), 3, 1, id="of the group's"),
        pytest.param(Quota(limit=99, remaining=1), 3, 1, id="of neither: the group's only one"),
    ],
)
def test_what_the_service_counts_is_held_where_it_belongs(both, quota, common, own):
    both.heed(0.0, Told(quotas=(quota,)))
    windows = both.common.windows[Rate(3, per_s=10)], both.own.windows[Rate(5, per_s=60)]
    assert [window.rate.limit - window.used(1.0) for window in windows] == [common, own]


def test_what_is_used_up_holds_its_group_alone(both):
    """Unless it is known to be the common window."""
    both.heed(0.0, Told(quotas=(Quota(remaining=0, reset_s=8.0),)))
    assert (both.common.wait_s(1.0), both.own.wait_s(1.0)) == (0.0, 7.0)
    both.heed(0.0, Told(quotas=(Quota(limit=3, per_s=10.0, remaining=0, reset_s=9.0),)))
    assert both.common.wait_s(1.0) == pytest.approx(8.0)


class Elsewhere(Limiter):
    """A limiter whose last place another process takes in the very moment."""

    def start(self, now_s, cost, *, slot=True):
        return None


def test_what_one_of_several_groups_refuses_is_taken_of_none():
    """However many there are: the places and windows of all are as before."""
    limiters = [limiter_of(concurrency=1, rates=[Rate(1, per_s=10)]) for _ in range(3)]
    for at in range(3):
        groups = [*limiters[:at], Elsewhere(), *limiters[at:]]
        common, joint = groups[0], functools.reduce(JointLimiter, groups[1:])
        both = GroupLimiter(common, joint)
        assert both.start(0.0, NO_COST) is None
        assert [limiter.running for limiter in limiters] == [0, 0, 0]
        assert [limiter.windows[Rate(1, per_s=10)].used(0.0) for limiter in limiters] == [0.0, 0.0, 0.0]


def test_several_groups_are_taken_and_given_back_together():
    common, *limiters = [limiter_of(concurrency=2, rates=[Rate(2, per_s=10)]) for _ in range(4)]
    both = GroupLimiter(common, functools.reduce(JointLimiter, limiters))
    permit = both.start(0.0, NO_COST)
    further = both.start(0.01, NO_COST, slot=False)
    assert [limiter.running for limiter in (common, *limiters)] == [1] * 4
    both.respond(1.0, permit, slot=True)
    both.respond(1.0, further)
    assert [limiter.running for limiter in (common, *limiters)] == [0] * 4
    assert both.wait_s(1.0) == pytest.approx(10.0, abs=0.01)
    assert both.own.parts == tuple(limiters)


@pytest.mark.parametrize(
    ("value", "name", "label"),
    [
        ("eu", '"eu"', "eu"),
        (7, "7", "7"),
        (["eu"], '"eu"', "eu"),
        (("user", 7), '"user"\x1f7', "user and 7"),
        ([("user", 7)], '["user",7]', "user 7"),
        ([("user", 7), "app", "app"], '"app"\x1f["user",7]', "app and user 7"),
        (["app", ("user", "7")], '"app"\x1f["user","7"]', "app and user 7"),
    ],
)
def test_names_of_groups_are_told_apart_and_read_well(value, name, label):
    """In any order, each once; a tuple is a list of names, and a pair within one is a kind and a name."""
    assert group_names(value) == name
    assert group_label(name) == label


def test_an_outage_is_of_the_group_in_which_all_fail():
    """A user whose items of an app all failed has done nothing: the app gives up, in which others failed too."""
    common = limiter_of(concurrency=9)
    groups, _ = groups_of(common, BreakerPolicy(failures=2, break_s=1.0, give_up_after=1), concurrency=9)
    lanes = [
        groups.of(task) for task in [Task(0, "0", ["u1", "app"]), Task(1, "1", ["u2", "app"]), Task(2, "2", ["u1"])]
    ]
    for item in (0, 1):
        lanes[0].breaker.fail(0.0, lanes[0].breaker.epoch, item)
    assert lanes[0].breaker.gave_up
    assert [one.name for one in groups.give_up(lanes[0])] == ['"app"', '"app"\x1f"u1"', '"app"\x1f"u2"']
    assert [lane.gave_up for lane in lanes] == [True, True, False]
    assert [one.label for one in lanes[1].gone] == ["app"]
    assert groups.of(Task(3, "3", ["u3", "app"])).gave_up
