"""SharedLimiter: exact beside others, quick alone, and never ahead of what the store knows."""

import random

import pytest

from ipybatch import Limits, Rate
from ipybatch.engine.data.events import CooledDown, Noted
from ipybatch.engine.rules.limiter import NO_COST
from ipybatch.engine.rules.rate_headers import Quota, Told
from ipybatch.engine.store import shared_limiter, sqlite_limits, store_link
from ipybatch.engine.store.shared_cool_downs import USED_UP
from ipybatch.engine.store.shared_limiter import MERGE_S, POLL_MOST_S, PULSE_S, RENEW_S, STALE_S, TICK_S
from ipybatch.errors import JournalError
from ipybatch.testing import Bounds, Report, StoreBusy
from tests.engine.store.sharing import Process, World, worst_case

MANY = Limits(concurrency=1000, rates=[Rate(1000, per_s=1.0)])
EIGHT = Limits(concurrency=1000, rates=[Rate(8, per_s=3.0)])


class Watched(Process):
    """A process whose exchanges are noted, and may fail."""

    def __init__(self, world, owner, limits):
        super().__init__(world, owner, limits)
        self.reports, self.fails = [], None

    def exchange(self, report):
        if self.fails is not None:
            raise self.fails
        self.reports.append(report)
        return super().exchange(report)

    def history(self, resource, since_s):
        if self.fails is not None:
            raise self.fails
        return super().history(resource, since_s)

    @property
    def asked(self):
        """For how many permits the store was asked, one by one."""
        return sum(report.wanted is not None for report in self.reports)


@pytest.fixture
def world(tmp_path, monkeypatch):
    world = World(tmp_path / "limits.sqlite3", random.Random(7), 0.0)
    monkeypatch.setattr(sqlite_limits, "find_process", world.find_process)
    monkeypatch.setattr(store_link, "PATIENCE_S", -1.0)
    yield world
    world.close()


@pytest.fixture
def begin(world):
    def make(owner="kernel", limits=MANY):
        process = Watched(world, owner, limits)
        process.begin()
        return process

    return make


def look(process):
    return process.file.exchange(Report(resource="api"))


def go_ahead(process, latency_s=0.01):
    """Let so much start that it runs ahead."""
    process.want([latency_s] * 4)
    process.world.run_until(process.world.now_s + 0.03)
    assert process.asked == 3
    process.reports.clear()


def test_who_is_alone_and_fast_asks_once_a_tick(world, begin):
    """The usual case costs what it did before there was a store."""
    kernel = begin()
    go_ahead(kernel)
    for _ in range(50):
        kernel.want([0.005] * 4)
        world.run_until(world.now_s + 0.01)
    assert len(kernel.sent) == 204
    assert kernel.asked <= 3, "it had nothing to do for a tick"
    assert len(kernel.reports) <= 0.5 / TICK_S + 12, "and when more was wanted than was set apart"
    world.run_until(world.now_s + 2 * TICK_S)
    assert look(kernel).used == {Rate(1000, per_s=1.0): 204.0}, "all of it is counted, and the allowance given back"


def test_who_is_slow_asks_for_each(world, begin):
    kernel = begin()
    for _ in range(5):
        kernel.want([0.0])
        world.run_until(world.now_s + 0.2)
    assert kernel.asked == 5


def test_who_comes_while_another_runs_ahead_makes_it_exact(world, begin):
    """The newcomer gets its permit within two ticks; from then on each start is asked for."""
    first = begin("first")
    go_ahead(first)
    second = begin("second")
    second.want([0.0])
    first.want([0.0] * 3)
    world.run_until(world.now_s + 2 * TICK_S)
    assert len(second.sent) == 1
    before = first.asked
    first.want([0.0] * 20)
    world.run_until(world.now_s + 1.0)
    assert first.asked == before + 20
    assert [owner.name for owner in first.limiter.owners] == ["second"]
    second.leave()
    world.run_until(world.now_s + RENEW_S + PULSE_S)
    assert first.limiter.owners == ()


def test_an_allowance_is_in_flight_for_the_others(world, begin):
    """Whatever is set apart cannot be taken twice, at any moment."""
    first = begin("first", EIGHT)
    first.want([0.001] * 5)
    world.run_until(world.now_s + 0.04)
    second = begin("second", EIGHT)
    first.want([0.001] * 8)
    second.want([0.001] * 8)
    world.run_until(world.now_s + 2.0)
    assert len(first.sent) + len(second.sent) == 8


@pytest.mark.parametrize("killed", [True, False])
def test_an_allowance_of_who_is_killed_counts_as_sent(world, begin, killed):
    """And that of who stops is given back."""
    first = begin("first")
    go_ahead(first)
    first.kill() if killed else first.leave()
    second = begin("second")
    world.run_until(world.now_s + 0.6)
    second.limiter.start(second.now_s(), NO_COST)
    used = look(second).used[Rate(1000, per_s=1.0)]
    assert used > 5 + 1 if killed else used == 4 + 1


def test_what_is_stale_is_asked_for(world, begin):
    """A process that was stopped, and finds its allowance: others may have come."""
    kernel = begin()
    go_ahead(kernel)
    assert kernel.limiter.start(kernel.now_s(), NO_COST)
    assert kernel.asked == 0
    world.now_s += STALE_S
    assert kernel.limiter.start(kernel.now_s(), NO_COST)
    assert kernel.reports, "the store was asked"


def test_what_a_machine_had_before_it_slept_is_asked_for(tmp_path, monkeypatch):
    """Its monotonic clock stood still, and the other machines went on."""
    slept = [500.0]
    monkeypatch.setattr(shared_limiter, "slept_s", lambda: slept[0])
    world = World(tmp_path / "limits.sqlite3", random.Random(7), 0.0, (0.0, 0.02))
    kernel = Watched(world, "kernel", MANY)
    kernel.begin()
    kernel.want([0.01] * 400)
    world.run_to(lambda: kernel.limiter._apart.left >= 4.0, 3.0)
    kernel.wanted.clear()
    now_s = kernel.now_s()
    assert kernel.limiter.start(now_s, NO_COST)
    slept[0] += 60.0
    assert kernel.limiter.start(now_s, NO_COST) is None
    kernel.want([0.01] * 3)
    world.run_until(world.now_s + 1.0)
    assert not kernel.wanted
    world.close()


def test_a_stop_in_the_middle_of_a_start_sends_nothing(world, begin, monkeypatch):
    """What was granted before it may have been given to others since."""
    kernel = begin()
    kernel.limiter.start(kernel.now_s(), NO_COST)
    monkeypatch.setattr(Process, "exchange", stopped_after(Process.exchange))
    assert kernel.limiter.start(kernel.now_s(), NO_COST) is None


def test_a_stop_while_an_allowance_is_set_apart_sends_nothing(world, begin, monkeypatch):
    kernel = begin()
    for _ in range(3):
        assert kernel.limiter.start(kernel.now_s(), NO_COST)
    assert kernel.asked == 3
    monkeypatch.setattr(Process, "exchange", stopped_after(Process.exchange))
    assert kernel.limiter.start(kernel.now_s(), NO_COST) is None


def stopped_after(exchange):
    def stopped(self, report):
        answer = exchange(self, report)
        self.world.now_s += 70.0
        return answer

    return stopped


def test_what_others_did_between_two_ticks_counts(world, begin):
    """Somebody has requests in flight, somebody came and left: who runs ahead knows of it before it starts more."""
    first = begin("first", Limits(concurrency=1000, rates=[Rate(300, per_s=3.0)]))
    for report, left in (
        (Report(resource="api", owner="gone", spent=[(0.0, "requests", 285.0)]), 2),
        (Report(resource="api", owner="other", bounds=Bounds(), in_flight={"requests": 285.0}), 2),
    ):
        first.want([0.001] * 13)
        world.run_until(world.now_s + TICK_S - 0.001)
        first.file.exchange(report)
        world.run_until(world.now_s + 0.0015)
        before = len(first.sent)
        first.want([0.001] * 300)
        world.run_until(world.now_s + 1.0)
        assert len(first.sent) - before == left
        first.wanted.clear()
        world.run_until(world.now_s + 5.0)


def test_a_place_that_another_process_frees_is_taken_soon(world, begin):
    """Only a response there can make room: it is looked for again and again, and not once a second."""
    limits = Limits(concurrency=1)
    first, second = begin("first", limits), begin("second", limits)
    first.want([0.43])
    world.run_until(world.now_s + 0.01)
    second.want([0.1])
    world.run_until(world.now_s + 0.4)
    assert second.sent == []
    world.run_until(world.now_s + 0.03 + POLL_MOST_S + MERGE_S)
    assert len(second.sent) == 1


@pytest.mark.parametrize("is_held", [False, True])
@pytest.mark.parametrize("act", ["change", "enter"])
def test_a_new_window_holds_what_went_before(world, begin, act, is_held):
    """It begins with what the store knows, for who runs ahead too, and when the store is held just then."""
    kernel, limits = begin(), Limits(concurrency=1000, rates=[Rate(6, per_s=60.0)])
    go_ahead(kernel)
    kernel.fails = StoreBusy() if is_held else None
    if act == "change":
        kernel.limiter.change(kernel, limits)
    else:
        kernel.limiter.enter("another session", limits, kernel, "another")
    kernel.fails = None
    kernel.want([0.001] * 20)
    world.run_until(world.now_s + 30.0)
    assert len(kernel.sent) == 6


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (JournalError("the disk is full"), "the disk is full"),
        (ConnectionError("nobody answers"), "the limit store failed: ConnectionError: nobody answers"),
    ],
)
def test_trouble_with_the_store_is_told_once_and_ends(world, begin, error, text):
    """Nothing starts meanwhile; what was answered is reported afterwards."""
    kernel = begin()
    kernel.want([0.1])
    world.run_until(world.now_s + 0.01)
    kernel.fails = error
    kernel.want([0.1] * 3)
    world.run_until(world.now_s + 20.0)
    assert len(kernel.sent) == 1
    assert [event.text for event in kernel.told if isinstance(event, Noted)] == [
        f"nothing starts until limits can be kept: {text}"
    ]
    kernel.fails = None
    world.run_until(world.now_s + 2.0)
    assert len(kernel.sent) == 4
    assert [event.text for event in kernel.told[1:]] == ["limits can be kept again: it goes on"]
    history = kernel.file.history("api", 60.0)
    assert sum(cost for _, _, cost in history) == 4.0


def test_a_store_that_is_held_is_asked_again_in_a_moment(world, begin):
    kernel = begin()
    kernel.fails = StoreBusy()
    kernel.want([0.1])
    world.run_until(world.now_s + 1.0)
    assert kernel.sent == []
    kernel.fails = None
    world.run_until(world.now_s + 0.02)
    assert len(kernel.sent) == 1
    assert kernel.told == []


def test_a_cool_down_holds_for_all_and_is_told_and_lifted(world, begin):
    """Within a second, of who began it and of who runs ahead too."""
    first, second = begin("first"), begin("second")
    began_s = first.now_s()
    assert first.limiter.cool_down(began_s, began_s, 30.0)
    second.want([0.1])
    world.run_until(world.now_s + PULSE_S + 0.1)
    assert second.sent == []
    (cooled,) = [event for event in second.told if isinstance(event, CooledDown)]
    assert cooled.reason == "the service asked first to slow down"
    assert 28.0 < cooled.until_s - cooled.at_s <= 30.0
    first.file.exchange(Report(resource="api", cool_s=0.0))
    first.want([0.1])
    world.run_until(world.now_s + PULSE_S + 0.1)
    assert len(first.sent) == len(second.sent) == 1
    assert second.told[-1].reason == "it was lifted"


def test_a_cool_down_ends_what_runs_ahead(world, begin):
    first = begin("first")
    go_ahead(first)
    first.file.exchange(Report(resource="api", cool_s=30.0))
    world.run_until(world.now_s + 2 * TICK_S)
    sent = len(first.sent)
    first.want([0.1] * 5)
    world.run_until(world.now_s + 20.0)
    assert len(first.sent) == sent


def test_what_the_service_counts_holds_for_all(world, begin):
    """Another tool has used 5 of 8: whoever shares the window sends 3, until it begins anew; nobody is told of that."""
    first, second = begin("first", EIGHT), begin("second", EIGHT)
    world.run_until(world.now_s + 1.0)
    first.limiter.heed(first.now_s(), Told(quotas=(Quota(limit=8, remaining=3, reset_s=0.5),)))
    first.want([0.01] * 8)
    second.want([0.01] * 8)
    ends_s = world.now_s + 0.5
    world.run_until(ends_s - 0.01)
    assert len(first.sent) + len(second.sent) == 3
    world.run_until(ends_s + 0.2)
    assert len(first.sent) + len(second.sent) == 8
    assert [*first.told, *second.told] == []


def test_what_the_service_says_is_used_up_holds_everybody(world, begin):
    """Within a second, also those who run ahead; it is told where it takes long."""
    first, second = begin("first"), begin("second")
    world.run_until(world.now_s + 1.0)
    first.limiter.heed(first.now_s(), Told(quotas=(Quota(remaining=0, reset_s=30.0),)))
    first.want([0.01])
    second.want([0.01])
    world.run_until(world.now_s + 29.0)
    assert first.sent == second.sent == []
    assert [event.reason for event in (*first.told, *second.told)] == [USED_UP, USED_UP]
    world.run_until(world.now_s + 3.0)
    assert len(first.sent) == len(second.sent) == 1


def test_a_short_while_until_the_window_begins_anew_is_not_worth_a_word(world, begin):
    """Of no process: it would fill the log of every session at full speed."""
    first, second = begin("first"), begin("second")
    world.run_until(world.now_s + 1.0)
    first.limiter.heed(first.now_s(), Told(quotas=(Quota(remaining=0, reset_s=5.0),)))
    second.want([0.01])
    world.run_until(world.now_s + 4.5)
    assert second.sent == []
    world.run_until(world.now_s + 2.0)
    assert len(second.sent) == 1
    assert [*first.told, *second.told] == []


def test_less_is_heeded_and_never_more(world, begin):
    """A rest that is greater than ours changes nothing, not even what runs ahead."""
    kernel = begin("kernel")
    go_ahead(kernel)
    exchanges = len(kernel.reports)
    kernel.limiter.heed(kernel.now_s(), Told(quotas=(Quota(limit=1e6, remaining=1e6, reset_s=1.0),)))
    assert len(kernel.reports) == exchanges
    assert kernel.limiter._is_ahead


def test_an_answer_counts_from_its_own_moment(world, begin):
    """Not from that of the report, however late it is made."""
    kernel = begin("kernel", EIGHT)
    kernel.want([0.1, 0.2])
    world.run_until(world.now_s + 0.1)
    kernel.fails = StoreBusy()
    world.run_until(world.now_s + 1.0)
    kernel.fails = None
    world.run_until(world.now_s + 0.1)
    agos = [round(ago_s, 2) for ago_s, _, _ in kernel.file.history("api", 60.0)]
    assert agos == pytest.approx([1.1, 0.99], abs=0.02)


def test_a_private_resource_without_windows_asks_for_nothing(world):
    """Nobody else can use it, and nothing of it outlives the session."""
    kernel = Watched(world, "kernel", Limits(concurrency=3))
    kernel.limiter.is_private = True
    kernel.begin()
    before = len(kernel.reports)
    kernel.want([0.1] * 9)
    world.run_until(world.now_s + 60.0)
    assert len(kernel.sent) == 9
    assert len(kernel.reports) == before


def test_a_hundred_starts_of_eight_processes_are_shared(world, begin):
    """All of what is allowed, and no more: 40 a second for 8 that want all of it."""
    limits = Limits(concurrency=1000, rates=[Rate(40, per_s=1.0)])
    processes = [begin(f"kernel {number}", limits) for number in range(8)]
    for process in processes:
        process.want([0.05] * 60)
    world.run_until(world.now_s + 6.0)
    sent = [(start_s, end_s, 1.0) for process in processes for start_s, end_s, _ in process.sent]
    assert worst_case(sent, 1.0) <= 40
    assert len(sent) >= 0.95 * 40 * 6.0 / 1.05
    assert min(len(process.sent) for process in processes) > 0


def test_a_file_that_is_deleted_in_use_makes_nothing_faster(world, begin):
    """Each process reports again what it knows: together they send no more than was allowed."""
    limits = Limits(concurrency=1000, rates=[Rate(8, per_s=60.0)])
    processes = [begin(name, limits) for name in ("first", "second")]
    for process in processes:
        process.want([0.01] * 3)
    world.run_until(world.now_s + 2.0)
    for file in world.path.parent.glob("limits*"):
        file.unlink()
    for process in processes:
        process.want([0.01] * 8)
    world.run_until(world.now_s + 40.0)
    assert sum(len(process.sent) for process in processes) == 8


class Interrupted(Process):
    """A process whose exchanges are counted, but some answers are lost."""

    lost = iter(())

    def exchange(self, report):
        answer = super().exchange(report)
        if next(self.lost, False):
            raise StoreBusy
        return answer


@pytest.mark.parametrize("lost", [[True], [True, True], [False, True], [False, True, True]])
@pytest.mark.parametrize("comes", [True, False])
def test_an_allowance_that_the_store_took_back_is_not_used(world, begin, lost, comes):
    """Whichever answer is lost while the allowance is renewed: what may start here, the store has set apart."""
    kernel = Interrupted(world, "kernel", MANY)
    kernel.begin()
    while kernel.limiter._apart.left < 45:
        kernel.want([0.001] * 10)
        world.run_until(world.now_s + 0.005)
    kernel.want([0.001] * 4)  # the next allowance is far smaller
    if comes:
        begin("other")
    kernel.lost = iter(lost)
    world.run_until(world.now_s + TICK_S + 0.003)
    assert kernel.limiter._apart.left <= set_apart(kernel)


def set_apart(kernel):
    """Return how many requests the store counts as in flight."""
    answered = sum(cost for _, _, cost in kernel.file.history("api", 1.0))
    return look(kernel).used[Rate(1000, per_s=1.0)] - answered
