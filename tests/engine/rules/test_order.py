"""Scheduler: tasks that come while it runs, and priorities that change, without touching the others."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.engine.data.plan import BY_ORDER, PRIORITIES, Task
from ipybatch.engine.data.policy import Limits
from ipybatch.engine.rules import line as rules
from ipybatch.engine.rules.limit_groups import GroupLimiter, LimitGroup, LimitGroups
from ipybatch.engine.rules.limiter import Limiter
from ipybatch.engine.rules.line import Line
from ipybatch.engine.rules.scheduler import Scheduler


def scheduler_of(tasks, *, has_groups=False, ahead=100, **limits):
    policy = Limits(concurrency=10**6, **limits)
    common = Limiter()
    common.join("session", policy)
    groups = None
    if has_groups:

        def group(name):
            return LimitGroup(name, GroupLimiter(common, Limiter()))

        groups = LimitGroups(per=lambda item: item % 3, open=group, nameless=group(""))
    return Scheduler(iter(list(tasks)), policy, common, limit_groups=groups, ahead=ahead)


ranked = st.tuples(st.integers(0, 2), st.integers(0, 3))
change = st.one_of(
    st.tuples(st.just("start"), st.integers(1, 5)),
    st.tuples(st.just("add"), st.lists(ranked, max_size=6)),
    st.tuples(st.just("prioritize"), st.tuples(st.integers(0, 2), st.lists(st.integers(0, 60), max_size=8))),
)


@given(
    first=st.lists(ranked, max_size=30),
    changes=st.lists(change, max_size=12),
    has_groups=st.booleans(),
    ahead=st.sampled_from([1, 3, 100]),
    few=st.sampled_from([0, 3, 64]),
)
def test_what_starts_next_is_the_first_in_the_order(first, changes, has_groups, ahead, few):
    """Whatever comes and is changed meanwhile: each task once, the lowest that waits, and counted by priority."""
    given_up, rules.FEW = rules.FEW, few
    try:
        check_order(first, changes, has_groups, ahead)
    finally:
        rules.FEW = given_up


def check_order(first, changes, has_groups, ahead):
    known = [Task(seq, str(seq), seq, priority=priority, rank=rank) for seq, (priority, rank) in enumerate(first)]
    known.sort(key=BY_ORDER)
    scheduler = scheduler_of(known, has_groups=has_groups, ahead=ahead)
    scheduler.queued = rules_queued(known)
    waiting = list(known)

    def start(times):
        for _ in range(times):
            ticket = scheduler.next(0.0)
            if not waiting:
                assert ticket is None
                return
            assert ticket.task is min(waiting, key=BY_ORDER)
            waiting.remove(ticket.task)
            ticket.limiter.respond(0.0, ticket.permit)
            ticket.limiter.free()

    for kind, what in changes:
        if kind == "start":
            start(what)
        elif kind == "add":
            new = [
                Task(len(known) + at, str(len(known) + at), len(known) + at, priority=priority, rank=rank)
                for at, (priority, rank) in enumerate(what)
            ]
            known += new
            waiting += new
            scheduler.add(new)
        else:
            priority, wanted = what
            scheduler.prioritize([task for task in known if task.seq in wanted], priority)
        assert scheduler.queued is None or scheduler.queued == counted(waiting)
        if scheduler.queued is None:
            assert sum(map(bool, counted(waiting))) < 2
        assert sorted(scheduler.left() + rest(scheduler), key=BY_ORDER) == sorted(waiting, key=BY_ORDER)
    start(len(waiting) + 1)
    assert waiting == []


def rest(scheduler):
    """Return what has not been drawn; the iterator of a list that nothing changed is left as it is."""
    if isinstance(scheduler.source, Line):
        return scheduler.source._tasks[scheduler.source._at :]
    undrawn = list(scheduler.source)
    scheduler.source = iter(undrawn)
    return undrawn


def counted(tasks):
    return [sum(task.priority == place for task in tasks) for place in range(len(PRIORITIES))]


def rules_queued(tasks):
    counts = counted(tasks)
    return counts if sum(map(bool, counts)) > 1 else None


class Counting(Task):
    """A task that counts how often its place in the order was looked at."""

    looked = 0

    @property
    def order(self):
        Counting.looked += 1
        return super().order


@pytest.mark.parametrize("has_groups", [False, True])
def test_what_is_added_at_the_end_looks_at_no_other(has_groups):
    """Two hundred rosters of a hundred: their cost does not grow with what waits."""
    scheduler = scheduler_of([Counting(seq, str(seq), seq) for seq in range(20_000)], has_groups=has_groups)
    scheduler.next(0.0)
    Counting.looked = 0
    for roster in range(200):
        scheduler.add([Counting(20_000 + 100 * roster + at, "x", at) for at in range(100)])
    assert Counting.looked < 200 * 10


@pytest.mark.parametrize("has_groups", [False, True])
def test_one_priority_looks_at_few_others(has_groups, monkeypatch):
    """Its place is found by halving, not by going through all."""
    seen = []
    monkeypatch.setattr(rules, "BY_ORDER", lambda task: seen.append(task) or (task.priority, task.rank, task.seq))
    tasks = [Task(seq, str(seq), seq) for seq in range(20_000)]
    scheduler = scheduler_of(tasks, has_groups=has_groups)
    scheduler.next(0.0)
    for priority in (0, 2, 1):
        seen.clear()
        scheduler.prioritize([tasks[15_000]], priority)
        assert len(seen) < 100
    for _ in range(len(tasks) - 1):
        assert scheduler.next(0.0) is not None
    assert scheduler.next(0.0) is None


def test_an_open_batch_is_left_as_it_is():
    """What comes, and what becomes urgent, waits for the next one; the items of the open one change places at most."""
    tasks = [Task(seq, str(seq), seq) for seq in range(9)]
    scheduler = scheduler_of(tasks, batch_size=3)
    scheduler.next(0.0)
    scheduler.add([Task(9, "9", 9, priority=0), Task(10, "10", 10)])
    scheduler.prioritize([tasks[2], tasks[8]], 0)
    scheduler.prioritize([tasks[3]], 2)
    order = [tasks[0]]
    for _ in range(10):
        ticket = scheduler.next(0.0)
        if ticket is None:
            scheduler.batch.unsettled = 0
            ticket = scheduler.next(0.0)
        order.append(ticket.task)
    assert [task.seq for task in order] == [0, 2, 1, 8, 9, 4, 5, 6, 7, 10, 3]
    assert [task.group for task in order] == [*chain(*([number] * 3 for number in (1, 2, 3))), 4, 4]


def test_a_task_that_does_not_wait_is_only_told():
    """One that runs, waits for a retry, or needs not run is not put in line again."""
    tasks = [Task(seq, str(seq), seq) for seq in range(3)]
    scheduler = scheduler_of(tasks)
    running, again = scheduler.next(0.0), scheduler.next(0.0)
    scheduler.retry(5.0, again.task)
    kept = Task(9, "9", 9)
    scheduler.prioritize([running.task, again.task, kept], 0)
    assert scheduler.next(0.0).task is tasks[2]
    assert scheduler.next(0.0) is None
    assert [task.priority for task in (*tasks, kept)] == [0, 0, 1, 0]


def test_what_is_added_to_a_group_that_gave_up_is_put_aside():
    scheduler = scheduler_of([Task(0, "0", 0)], has_groups=True)
    first = scheduler.next(0.0)
    scheduler.give_up(0.0, first.limit_group)
    scheduler.add([Task(3, "3", 3), Task(4, "4", 4)])
    assert scheduler.next(0.0).task.seq == 4
    assert scheduler.next(0.0) is None
    assert [task.seq for task in scheduler.left()] == [3]
