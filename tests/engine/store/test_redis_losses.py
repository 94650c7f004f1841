"""What Redis loses: emptied, or with old data, while processes share a resource, in virtual time."""

import random

import msgspec
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from ipybatch import Limits, Rate
from ipybatch.engine.rules.limiter import NO_COST
from ipybatch.engine.store import store_link
from ipybatch.engine.store.limit_store import LEASE_S
from ipybatch.engine.store.redis_limits import PAST_ERAS, RESTART_S, SETTLE_S, RedisLimits
from ipybatch.testing import START_UNIX_S, Bounds, Report
from tests.engine.store.sharing import Process, World
from tests.engine.store.test_sharing_properties import check, play

RATE = Rate(3, per_s=100)
BOUNDS = Bounds(rates=(RATE,))


class Time:
    def __init__(self):
        self.now_s = START_UNIX_S

    def __call__(self):
        return self.now_s


class Harm:
    """What befalls the data of a Redis, at once: as a start of the server would, without one."""

    def __init__(self, server):
        self.server, self.saved = server, {}

    def save(self):
        with self.server.client(decode_responses=False) as client:
            self.saved = {key: client.dump(key) for key in client.scan_iter()}

    def flush(self):
        self.server.flush()

    def restart(self, *, empty=False, is_told=True):
        """Let it be as a server that was started again with what was saved: it knows no scripts, or nobody is told."""
        with self.server.client(decode_responses=False) as client:
            client.flushall()
            if is_told:
                client.script_flush()
            for key, value in {} if empty else self.saved.items():
                client.restore(key, 0, value)


@pytest.fixture
def now():
    return Time()


@pytest.fixture
def harm(redis_server):
    return Harm(redis_server)


@pytest.fixture
def opened(redis_server, now):
    made = []

    def make():
        made.append(RedisLimits(redis_server.url, now_s=now))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def pair(opened, now):
    """Two machines that have used a resource for some time."""
    pair = opened(), opened()
    for store, owner in zip(pair, "ab", strict=True):
        ask(store, owner)
    now.now_s += SETTLE_S + 1.0
    for store, owner in zip(pair, "ab", strict=True):
        assert ask(store, owner).wait_s == 0.0
        tell(store, owner)
    return pair


def ask(store, owner, **more):
    return tell(store, owner, wanted={}, **more)


def tell(store, owner, **more):
    return store.exchange(Report(resource="api", owner=owner, bounds=BOUNDS, **more))


def test_at_its_first_use_others_may_say_that_they_knew_more(opened, now):
    answer = ask(opened(), "a")
    assert (answer.wait_s, answer.cool_s) == (SETTLE_S, SETTLE_S)
    assert "its limits in Redis begin anew" in answer.why
    now.now_s += SETTLE_S
    assert ask(opened(), "a").wait_s == 0.0


def test_what_one_machine_alone_uses_waits_for_nobody(opened):
    private = Report(resource="session night\x1egpu-3 /data/journal.db", owner="a", bounds=BOUNDS, wanted={})
    assert opened().exchange(private).wait_s == 0.0


def test_a_flush_lets_nothing_start_for_a_lease(pair, harm, now):
    """Whoever comes first knows of it; each is told once to say again what it knows; and then all goes on."""
    a, b = pair
    harm.flush()
    answer = ask(a, "a")
    assert (answer.wait_s, answer.is_anew, answer.why) == (
        LEASE_S,
        True,
        "Redis has lost what it counted, which is unknown for now",
    )
    assert not tell(a, "a", spent=[(1.0, "requests", 2.0)]).is_anew
    now.now_s += 1.0
    assert tell(b, "b").is_anew
    answer = ask(b, "b", spent=[(2.0, "requests", 1.0)])
    assert (answer.wait_s > LEASE_S - 1.1, answer.is_anew, answer.used) == (True, False, {RATE: 3.0})
    now.now_s += LEASE_S
    assert ask(b, "b").wait_s == pytest.approx(83.05, abs=0.1)
    assert [ask(a, "a").why, ask(b, "b").why] == ["", ""]


def test_a_newcomer_between_waits_until_others_could_report(pair, harm, now, opened):
    """It begins the data anew; who knew other data comes within a second, and nothing starts for a lease."""
    harm.flush()
    new = opened()
    assert ask(new, "new").wait_s == SETTLE_S
    now.now_s += 1.0
    assert tell(pair[0], "a").is_anew
    answer = ask(new, "new")
    assert (answer.wait_s, answer.is_anew) == (LEASE_S, False)


def test_a_second_flush_within_the_grace_is_another_loss(pair, harm, now, opened):
    harm.flush()
    assert ask(pair[0], "a").is_anew
    now.now_s += 5.0
    harm.flush()
    ask(opened(), "new")
    answers = [ask(pair[0], "a"), ask(pair[1], "b")]
    assert [(answer.wait_s, answer.is_anew) for answer in answers] == [(LEASE_S, True)] * 2


def test_a_part_that_is_lost_after_a_loss_is_another(pair, harm, now, redis_server):
    harm.flush()
    for _ in range(2):
        tell(pair[0], "a")
        tell(pair[1], "b")
    now.now_s += LEASE_S
    with redis_server.client() as client:
        client.delete("ipybatch:{api}::state")
    answers = [ask(pair[0], "a"), ask(pair[1], "b")]
    assert [(answer.wait_s, answer.is_anew) for answer in answers] == [(LEASE_S, True)] * 2


def test_who_comes_late_is_waited_for_until_it_has_said_all(pair, harm, now):
    harm.flush()
    ask(pair[0], "a")
    now.now_s += LEASE_S + 1.0
    assert ask(pair[0], "a").wait_s == 0.0
    assert tell(pair[1], "b").is_anew
    assert ask(pair[0], "a").wait_s == SETTLE_S


def test_a_cool_down_outlives_a_flush(pair, harm, now):
    """Whoever knows of it says so as it finds that it is gone."""
    tell(pair[0], "a", cool_s=300.0, why="asked to")
    tell(pair[1], "b")
    now.now_s += 10.0
    harm.flush()
    answer = tell(pair[1], "b")
    assert (answer.cool_s, answer.why) == (pytest.approx(290.0), "asked to")


def test_old_data_are_a_loss_for_who_knows_more(pair, harm, now):
    """Nobody is told to say again what was saved."""
    harm.save()
    assert not tell(pair[1], "b").is_anew
    harm.restart()
    answer = ask(pair[0], "a")
    assert (answer.wait_s, answer.is_anew) == (RESTART_S, False)
    assert "Redis has started again" in answer.why
    now.now_s += 1.0
    answer = ask(pair[1], "b")
    assert (answer.wait_s, answer.is_anew) == (LEASE_S, True)


def test_others_that_go_on_hide_no_loss(pair, harm, now):
    """Exchanges after the start have greater numbers, in an era of their own."""
    harm.save()
    tell(pair[1], "b")
    harm.restart()
    for _ in range(5):
        tell(pair[0], "a")
    assert tell(pair[1], "b").is_anew


def test_a_restart_that_nobody_is_told_of_is_found_by_who_knows_more(pair, harm):
    """As where a service keeps scripts and hides its runs; who comes later knows of another era then."""
    harm.save()
    for _ in range(3):
        tell(pair[0], "a")
        tell(pair[1], "b")
    harm.restart(is_told=False)
    assert tell(pair[0], "a").is_anew
    for _ in range(9):
        tell(pair[0], "a")
    assert tell(pair[1], "b").is_anew


def test_another_run_of_the_server_is_a_restart(pair, harm):
    """Where scripts outlive it."""
    harm.save()
    harm.restart(is_told=False)
    pair[0]._run = "another"
    assert ask(pair[0], "a").wait_s == RESTART_S


def test_those_who_come_back_together_begin_one_era(pair, harm, now, redis_server):
    """A hundred machines that find the script unknown at once; and of many restarts the last ones are remembered."""

    def eras():
        with redis_server.client(decode_responses=False) as client:
            return len(msgspec.msgpack.decode(client.get("ipybatch:{api}"))["past"])

    for restart in range(1, 12):
        for store, owner in zip(pair, "ab", strict=True):
            harm.save()
            harm.restart()
            assert not tell(store, owner).is_anew
        assert eras() == min(restart, PAST_ERAS)
        now.now_s += LEASE_S


def test_a_server_that_had_saved_all_has_lost_nothing(pair, harm, now):
    harm.save()
    harm.restart()
    answers = [ask(pair[0], "a"), ask(pair[1], "b")]
    assert [(answer.wait_s, answer.is_anew) for answer in answers] == [(RESTART_S, False)] * 2
    now.now_s += RESTART_S
    assert ask(pair[0], "a").wait_s == 0.0


def test_what_was_saved_is_not_counted_again(pair, harm, now):
    """Who has to say all again says what is known as well: what was reported long before the data were saved."""
    tell(pair[0], "a", spent=[(0.0, "requests", 1.0)])
    now.now_s += LEASE_S + 5.0
    tell(pair[0], "a")
    harm.save()
    tell(pair[0], "a", spent=[(0.0, "requests", 1.0)])
    harm.restart()
    assert tell(pair[0], "a").is_anew
    answer = tell(pair[0], "a", spent=[(LEASE_S + 5.0, "requests", 1.0), (0.0, "requests", 1.0)])
    assert answer.used == {RATE: 2.0}


def test_the_grace_gives_time_to_come_back(pair, harm, now):
    """A server that was away for long finds leases that are over; what their owners have in flight is yet in flight."""
    tell(pair[1], "b", in_flight={"requests": 1.0})
    harm.save()
    now.now_s += 60.0
    harm.restart()
    assert [one.name for one in tell(pair[0], "a").owners] == ["b"]
    tell(pair[1], "b", spent=[(0.0, "requests", 1.0)])
    now.now_s += RESTART_S
    assert ask(pair[0], "a").used == {RATE: 2.0}


@pytest.mark.parametrize("part", ["{api}", "{api}::state", "{api}::answered:requests"])
def test_a_part_that_is_lost_is_a_loss(pair, harm, redis_server, part):
    """As where the server throws keys away when its memory is full."""
    tell(pair[0], "a", spent=[(0.0, "requests", 2.0)])
    tell(pair[1], "b")
    with redis_server.client() as client:
        assert client.delete(f"ipybatch:{part}")
    answers = [ask(pair[1], "b"), ask(pair[0], "a")]
    assert [(answer.wait_s, answer.is_anew) for answer in answers] == [(LEASE_S, True)] * 2


@pytest.mark.parametrize("is_seen", [True, False])
def test_what_is_lost_of_saved_data_is_counted_when_it_is_said_again(pair, harm, now, redis_server, is_seen):
    """Whether its owner had come back before that, or not."""
    tell(pair[0], "a", spent=[(0.0, "requests", 1.0)])
    now.now_s += LEASE_S + 5.0
    tell(pair[0], "a")
    harm.save()
    harm.restart()
    tell(*((pair[0], "a") if is_seen else (pair[1], "b")))
    with redis_server.client() as client:
        client.delete("ipybatch:{api}::answered:requests")
    assert tell(pair[0], "a").is_anew
    assert tell(pair[0], "a", spent=[(LEASE_S + 5.0, "requests", 1.0)]).used == {RATE: 1.0}


def test_who_comes_late_after_two_losses_says_all_again(pair, harm, now):
    """It was cut off meanwhile; what others have reported since, and was saved, holds nothing of it."""
    tell(pair[1], "b", spent=[(0.0, "requests", 1.0)])
    harm.flush()
    tell(pair[0], "a")
    now.now_s += LEASE_S + 5.0
    tell(pair[0], "a")
    harm.save()
    harm.restart()
    tell(pair[0], "a")
    assert tell(pair[1], "b").is_anew
    assert tell(pair[1], "b", spent=[(LEASE_S + 5.0, "requests", 1.0)]).used == {RATE: 1.0}


def test_who_comes_late_to_old_data_says_again_what_came_after_them(pair, harm, now):
    """However long the server was away, and others have gone on with them."""
    harm.save()
    tell(pair[1], "b", spent=[(0.0, "requests", 1.0)])
    now.now_s += 40.0
    harm.restart()
    for _ in range(10):
        now.now_s += 4.0
        tell(pair[0], "a")
    assert tell(pair[1], "b").is_anew
    assert tell(pair[1], "b", spent=[(80.0, "requests", 1.0)]).used == {RATE: 1.0}


def test_lift_ends_the_grace(pair, harm):
    harm.flush()
    assert ask(pair[0], "a").wait_s == LEASE_S
    pair[0].exchange(Report(resource="api", cool_s=0.0))
    assert ask(pair[0], "a").wait_s == 0.0


def test_time_never_goes_back(pair, now):
    """A server's clock that is put back, or that of a replica, frees nothing and ends nothing."""
    tell(pair[0], "a", spent=[(0.0, "requests", 3.0)])
    now.now_s -= 50.0
    assert ask(pair[1], "b").wait_s == pytest.approx(100.05)
    now.now_s += 60.0
    assert ask(pair[1], "b").wait_s == pytest.approx(90.05)


DELAYS_S = 0.0005, 0.02, 0.05, 0.3  # of an exchange on its way there, or back


class Machine(Process):
    """A process on a machine of its own."""

    def __init__(self, world, owner, limits):
        super().__init__(world, owner, limits)
        self.file.close()
        self.file = RedisLimits(world.path, now_s=world.unix_s)

    @property
    def store(self):
        return self.file

    def exchange_far(self, report):
        return self.file.exchange(report)


who = st.integers(0, 3)
wants = st.tuples(st.just("want"), who, st.sampled_from([1, 3, 12]), st.sampled_from([0.0, 0.003, 0.05, 0.4, 2.5]))
passes = st.tuples(st.just("pass"), st.sampled_from([0.001, 0.03, 0.5, 1.1, 4.0, 20.0]))
losses = st.tuples(st.sampled_from(["flush", "save", "restart", "restart empty"]))
ends = st.one_of(
    st.tuples(st.just("stop"), who, st.sampled_from([0.02, 3.0, 25.0])),
    st.tuples(st.just("kill"), who),
    st.tuples(st.just("leave"), who),
)


@pytest.fixture
def machines(monkeypatch, redis_server):
    """Play steps with processes on several machines, harm included, and look at what the server may have seen."""
    monkeypatch.setattr(store_link, "PATIENCE_S", -1.0)

    def run(steps, limits, seed):
        harm = Harm(redis_server)
        harm.flush()
        world = World(redis_server.url, random.Random(seed), 0.0, DELAYS_S)
        try:
            living = {}
            for step in steps:
                match step:
                    case ("flush",):
                        harm.flush()
                    case ("save",):
                        harm.save()
                    case ("restart",):
                        harm.restart()
                    case ("restart empty",):
                        harm.restart(empty=True)
                    case _:
                        play(world, limits, [step], NO_COST, living=living, kind=Machine)
            world.run_until(world.now_s + 120.0)
            check(world, limits)
            for process in living.values():
                process.wanted.clear()
                process.want([0.1])
            world.run_until(world.now_s + 150.0)
            check(world, limits)
            assert [process.owner for process in living.values() if process.wanted] == [], "starved"
            event(f"{sum(len(process.sent) for process in world.processes.values()) // 20}0 sent")
        finally:
            world.close()

    return run


_SAME_SERVER = settings(
    suppress_health_check=[*settings().suppress_health_check, HealthCheck.function_scoped_fixture],
    max_examples=max(1, settings().max_examples // 2),
)


@_SAME_SERVER
@given(
    steps=st.lists(st.one_of(wants, wants, passes, passes, losses), min_size=6, max_size=20),
    rate=st.builds(Rate, st.sampled_from([2, 3, 8]), st.sampled_from([0.5, 3.0, 40.0])),
    seed=st.integers(0, 10_000),
)
def test_no_loss_lets_more_start_than_who_is_there_may(machines, steps, rate, seed):
    """Windows longer than the grace too: each says again what it knows."""
    machines(steps, Limits(concurrency=5, rates=[rate]), seed)


@_SAME_SERVER
@given(
    steps=st.lists(st.one_of(wants, wants, passes, passes, losses, ends), min_size=6, max_size=20),
    rate=st.builds(Rate, st.sampled_from([1, 3, 8]), st.sampled_from([0.5, 1.0])),
    seed=st.integers(0, 10_000),
)
def test_no_loss_lets_more_start_whatever_befalls_the_processes(machines, steps, rate, seed):
    """What those did who are gone is over when the grace is."""
    machines(steps, Limits(concurrency=5, rates=[rate]), seed)
