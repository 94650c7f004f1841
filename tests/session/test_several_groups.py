"""An item in several limit groups at once: X per user and Y per app, a start needs both."""

import asyncio
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipybatch import BatchSession, Breaker, InputError, Limits, Rate, RateLimited, Retry
from ipybatch.engine.rules.limiter import CLOCK_DRIFT
from ipybatch.engine.store import resources
from ipybatch.events import BreakerMoved, CooledDown
from ipybatch.jupyter import messages
from ipybatch.testing import VirtualClock
from tests.works import worst


class Asked:
    """Work that notes when each user and each app was asked, and how many ran at once."""

    def __init__(self, clock, seconds=0.1):
        self.clock, self.seconds = clock, seconds
        self.at, self.running, self.most, self.order = {}, {}, {}, []

    async def __call__(self, item):
        self.order.append(item)
        for group in groups_of(item):
            self.at.setdefault(group, []).append(self.clock.now_s())
            self.running[group] = self.running.get(group, 0) + 1
            self.most[group] = max(self.most.get(group, 0), self.running[group])
        await asyncio.sleep(self.seconds)
        for group in groups_of(item):
            self.running[group] -= 1
        self.meet(item)
        return item

    def meet(self, item):
        """Fail some items."""


def groups_of(item):
    """Return the user and the app of "u1/a/5"."""
    user, app, _ = item.split("/")
    return [("user", user), ("app", app)]


def items(users, app="a", each=1):
    return [f"{user}/{app}/{number}" for number in range(each) for user in users]


def per_user_and_app(user, app, **common):
    return Limits(concurrency=50, **common, each={"user": user, "app": app})


EACH = per_user_and_app(
    Limits(concurrency=50, rates=[Rate(2, per_s=1.0)]), Limits(concurrency=50, rates=[Rate(5, 1.0)])
)


def test_a_start_satisfies_the_limits_of_every_group(plan, clock):
    """Two a second of each user, five of the app, whoever asks; what is allowed is used."""
    work = Asked(clock)
    session = plan(work, items(["u1", "u2", "u3", "u4"], each=10), limits=EACH, per=groups_of)
    assert clock.run(session).counts.completed == 40
    assert max(worst(at, 1.0) for group, at in work.at.items() if group[0] == "user") == 2
    assert worst(work.at["app", "a"], 1.0) == 5
    assert clock.now_s() < 40 / 5 * 1.12 + 1


def test_a_user_that_must_wait_delays_no_other(plan, clock):
    """Nor does an app that is full hold up the users of another."""
    work = Asked(clock)
    given = [*items(["u1"], each=10), *items(["u2"], "b", each=2), *items(["u3"], each=2)]
    clock.run(plan(work, given, limits=EACH, per=groups_of))
    assert max(work.at["user", "u2"]) < 1.0
    assert max(work.at["user", "u3"]) < 1.0


def test_concurrency_and_spacing_hold_in_each(plan, clock):
    work = Asked(clock, 1.0)
    limits = per_user_and_app(Limits(concurrency=1), Limits(concurrency=3, spacing_s=0.2))
    clock.run(plan(work, items(["u1", "u2", "u3", "u4"], each=3), limits=limits, per=groups_of))
    assert {work.most[group] for group in work.most if group[0] == "user"} == {1}
    assert work.most["app", "a"] == 3
    gaps = [later - sooner for sooner, later in zip(work.at["app", "a"], work.at["app", "a"][1:], strict=False)]
    assert min(gaps) > 0.19


def test_one_limits_for_all_and_names_of_any_form(plan, clock):
    """Without a mapping all groups have the same; names are texts, numbers and pairs, in any order, each once."""
    work = Asked(clock)
    per = iter([["x", 7], (7, "x"), [7, "x", 7], "x", [("kind", 7)]])
    limits = Limits(concurrency=50, each=Limits(concurrency=50, rates=[Rate(2, per_s=10.0)]))
    session = plan(work, items(["u"], each=5), limits=limits, per=lambda item: next(per))
    shown = []
    clock.run(session, look(session, shown, 1.0))
    assert {group.name: group.waiting for group in shown} == {"7": 1, "x": 2, "kind 7": 0}
    assert session.counts.completed == 5


async def look(session, shown, after_s):
    await asyncio.sleep(after_s)
    shown += messages.head(session).limit_groups


def test_each_may_name_a_group_or_its_kind(plan, clock):
    """The name goes before the kind; a group without limits fails its item, told how to write it."""
    work = Asked(clock)
    rate = [Limits(concurrency=9, rates=[Rate(limit, per_s=10.0)]) for limit in (1, 3, 9)]
    limits = Limits(concurrency=50, each={("user", "vip"): rate[1], "user": rate[0], "app": rate[2]})
    given = [*items(["vip", "u1"], each=6), "vip/lost/0"]
    per = lambda item: "lost" if "lost" in item else groups_of(item)  # noqa: E731
    session = plan(work, given, limits=limits, per=per)
    assert clock.run(session).counts.completed == 12
    assert worst(work.at["user", "vip"], 10.0) == 3
    assert worst(work.at["user", "u1"], 10.0) == 1
    assert worst(work.at["app", "a"], 10.0) <= 9
    error = session.results()["error"][12]
    assert error.endswith(
        "limit group lost, got those of user vip, user, app; [(\"kind\", 'lost')] is one group of a kind"
    )


@pytest.mark.parametrize(
    "wrong", [{}, {"user": 5}, {"user": Limits(batch_size=2)}, {1.5: Limits()}, {True: Limits()}, [("user", Limits())]]
)
def test_what_is_no_mapping_of_limits_is_refused(wrong):
    with pytest.raises(InputError, match="each must"):
        Limits(each=wrong)


class Staggered(Asked):
    """Answers one after the other, so that room comes a little at a time."""

    async def __call__(self, item):
        self.seconds = 0.05 + 0.09 * (len(self.order) % 10)
        return await super().__call__(item)


def test_what_costs_much_is_not_starved_by_what_costs_little(plan, clock):
    """It waits for the app's tokens alone: they are kept for it, though others would always take them first."""
    work = Staggered(clock)
    tokens = Limits(concurrency=50, rates=[Rate(10, per_s=1.0, unit="tokens")])
    limits = per_user_and_app(Limits(concurrency=50), tokens)
    given = [*items(["small"], each=5), "big/a/0", *items(["tiny", "wee"], each=60)]
    session = plan(work, given, limits=limits, per=groups_of, cost=lambda item: 10 if "big" in item else 1)
    assert clock.run(session).counts.completed == len(given)
    assert work.order.index("big/a/0") <= 10


def test_a_429_cools_all_groups_of_its_item(plan, clock):
    """Nobody says whose it is: the user waits, and everybody of the app; who has nothing to do with it goes on."""
    work = Asked(clock)
    work.meet = lambda item: refuse_first(work, item)
    given = [*items(["u1", "u2"], each=2), *items(["u3"], "b", each=2)]
    limits = per_user_and_app(Limits(concurrency=1), Limits(concurrency=9))
    session = plan(work, given, limits=limits, per=groups_of, resource="store")
    clock.run(session)
    assert max(work.at["app", "b"]) < 1.0
    assert [at < 1.0 for at in work.at["app", "a"]] == [True, True, False, False, False]
    told = [event.limit_group for event in session._feed.log if isinstance(event, CooledDown)]
    assert sorted(told) == ["app a", "user u1"]


def refuse_first(work, item):
    if len(work.at["user", "u1"]) == 1 and item.startswith("u1"):
        raise RateLimited("slow down", retry_after_s=30)


class Down(Asked):
    """Work of which some groups are down."""

    def __init__(self, clock, down, until_s=math.inf):
        super().__init__(clock)
        self.down, self.until_s = down, until_s

    def meet(self, item):
        if self.down & set(groups_of(item)) and self.clock.now_s() < self.until_s:
            raise ConnectionError


APART = per_user_and_app(Limits(concurrency=2), Limits(concurrency=20))


def test_an_app_that_is_down_is_left_alone_whoever_asks(plan, clock):
    """Its breaker is told of all users: three failures, those under way, then one probe a break."""
    work = Down(clock, {("app", "a")}, until_s=150.0)
    users = [f"u{number}" for number in range(30)]
    given = [*items(users), *items(["u0", "v"], "b", each=20)]
    session = plan(work, given, limits=APART, per=groups_of, breaker=Breaker(failures=3, break_s=60), retry=Retry(9))
    assert clock.run(session).counts.completed == len(given)
    early = [at for at in work.at["app", "a"] if at < 59.0]
    assert len(early) <= 23, "those under way when it opened"
    assert worst([at for at in work.at["app", "a"] if 59.0 < at < 150.0], 30.0) == 1
    assert max(work.at["app", "b"]) < 300.0
    told = [(event.limit_group, event.state) for event in session._feed.log if isinstance(event, BreakerMoved)]
    assert ("app a", "open") in told
    assert told[-1][1] == "closed"
    assert session.snapshot.breaker.state == "closed"


def test_a_group_that_gives_up_takes_along_all_that_is_in_it(plan, clock):
    """Whoever else it is of; the others go on, and the reason names it alone."""
    work = Down(clock, {("app", "a")})
    users = [f"u{number}" for number in range(8)]
    given = [*items(users, each=5), *items(users, "b", each=5)]
    breaker = Breaker(failures=2, break_s=1, give_up_after=2)
    session = plan(work, given, limits=APART, per=groups_of, breaker=breaker)
    summary = clock.run(session)
    assert summary.state == "failed"
    assert session.reason.startswith("limit group app a: the service failed")
    assert session.counts.completed == 40
    assert session.counts.failed + session.counts.skipped == 40


def test_a_restart_keeps_the_windows_of_all_groups(plan, clock):
    work = Asked(clock)
    limits = per_user_and_app(
        Limits(concurrency=9, rates=[Rate(3, per_s=60.0)]), Limits(concurrency=9, rates=[Rate(6, per_s=60.0)])
    )
    for start in range(2):
        session = plan(
            work, items(["u1", "u2", "u3"], each=2), limits=limits, per=groups_of, name=f"{start}", resource="x"
        )
        clock.run(session)
        resources._resources.clear()
        resources._stores.clear()
    assert worst(work.at["app", "a"], 60.0) <= 6
    assert max(worst(at, 60.0) for at in work.at.values()) <= 6
    assert max(worst(work.at["user", user], 60.0) for user in ("u1", "u2", "u3")) <= 3


def test_what_waits_is_given_another_priority(plan, clock):
    work = Asked(clock)
    limits = per_user_and_app(Limits(concurrency=1), Limits(concurrency=1))
    session = plan(work, items(["u1", "u2"], each=5), limits=limits, per=groups_of)

    async def press():
        await asyncio.sleep(0.15)
        session.prioritize(["u2/a/4"], "high")

    clock.run(session, press())
    assert work.order.index("u2/a/4") == 2


def test_further_permits_are_of_all_groups(plan, clock):
    """One that waits for the app goes before what has not started there, whoever's it is; another app goes on."""
    sent = []

    async def work(item, attempt):
        sent.append((clock.now_s(), item))
        await asyncio.sleep(0.1)
        if item == "u1/a/0":
            for _ in range(3):
                async with attempt.permit():
                    sent.append((clock.now_s(), "further"))
                    await asyncio.sleep(0.1)

    limits = per_user_and_app(Limits(concurrency=9), Limits(concurrency=9, rates=[Rate(2, per_s=10.0)]))
    given = [*items(["u1", "u2", "u3", "u4"]), *items(["u1", "u2"], "b")]
    clock.run(plan(work, given, limits=limits, per=groups_of))
    order = [name for _, name in sent if "/b/" not in name]
    assert order[:3] == ["u1/a/0", "u2/a/0", "further"]
    assert sorted(order[3:]) == ["further", "further", "u3/a/0", "u4/a/0"]
    assert max(at for at, name in sent if "/b/" in name) < 1.0


def test_what_a_further_permit_waits_for_is_kept_for_it(plan, clock):
    """It takes more of the app than others would, who come again and again; another app goes on."""
    sent = []

    async def work(item, attempt):
        sent.append(item)
        await asyncio.sleep(0.1 + 0.3 * (len(sent) % 7))
        if item == "u1/a/0":
            async with attempt.permit({"tokens": 10}):
                sent.append("further")

    limits = per_user_and_app(Limits(concurrency=9), Limits(concurrency=9, rates=[Rate(10, per_s=1.0, unit="tokens")]))
    given = [*items(["u1", "u2", "u3", "u4"], each=30), *items(["u1"], "b", each=30)]
    clock.run(plan(work, given, limits=limits, per=groups_of, cost=lambda item: 1))
    app = [item for item in sent if "/b/" not in item]
    assert app.index("further") <= 12


def test_the_estimate_reckons_with_all_groups(plan, clock):
    session = plan(Asked(clock), items(["u1", "u2", "u3", "u4"], each=20), limits=EACH, per=groups_of)
    estimate = session.estimate(latency_s=0.1)
    clock.run(session)
    assert estimate.low_s <= clock.now_s() <= estimate.high_s
    drawn = plan(Asked(clock), iter(()), limits=EACH, per=groups_of, name="drawn")
    assert drawn.estimate(20, latency_s=0.1).seconds == pytest.approx(10, rel=0.2), "all of one user"


members = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=40)


@given(members, st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6)), st.floats(0.0, 1.5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_window_of_any_group_is_exceeded_and_none_starves(tmp_path_factory, members, most, latency_s):
    """Whatever the mix of users and apps; and nobody waits longer than it takes to go through all one by one."""
    clock, (user, app, common) = VirtualClock(), most
    work = Asked(clock, latency_s)
    limits = per_user_and_app(
        Limits(concurrency=8, rates=[Rate(user, per_s=1.0)]),
        Limits(concurrency=8, rates=[Rate(app, per_s=1.0)]),
        rates=[Rate(common, per_s=1.0)],
    )
    listed = [f"u{who}/a{where}/{number}" for number, (who, where) in enumerate(members)]
    journal = tmp_path_factory.mktemp("groups") / "journal.db"
    session = BatchSession("groups", work, listed, limits=limits, per=groups_of, journal=journal, clock=clock)
    assert clock.run(session).counts.completed == len(listed)
    assert max(worst(at, 1.0) for (kind, _), at in work.at.items() if kind == "user") <= user
    assert max(worst(at, 1.0) for (kind, _), at in work.at.items() if kind == "app") <= app
    assert worst(sorted(at for (kind, _), all_at in work.at.items() if kind == "app" for at in all_at), 1.0) <= common
    slowest = min(user, app, common)
    assert clock.now_s() < math.ceil(len(listed) / slowest) * (CLOCK_DRIFT + latency_s) + 1
