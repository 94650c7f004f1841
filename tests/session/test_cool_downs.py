"""Cool-downs: as long as the service says up to a day, told with the way out, lifted by their resource's name."""

import asyncio
import time
from types import SimpleNamespace

import pytest

import ipybatch
from ipybatch import InputError, Limits, Rate, RateLimited
from ipybatch.engine.rules import limiter
from ipybatch.engine.rules.limiter import LONG_COOL_S, MOST_COOL_S
from ipybatch.engine.store import limit_store, resources
from ipybatch.engine.store.sqlite_limits import SqliteLimits
from ipybatch.events import CooledDown
from ipybatch.jupyter import commands, messages
from ipybatch.session import follower
from tests.open_files import forget_limits
from tests.works import Elsewhere, Recorder, hear

YEAR_S = 31_536_000.0
BOUND_S = 7200.0
ALONE = Limits(concurrency=1)


class Slowed:
    """A service that asks the first caller to wait."""

    def __init__(self, clock, wait_s=YEAR_S):
        self.clock, self.wait_s, self.at = clock, wait_s, []

    async def __call__(self, item):
        self.at.append(self.clock.now_s())
        await asyncio.sleep(0.1)
        if len(self.at) == 1:
            raise RateLimited("slow down", retry_after_s=self.wait_s)
        return item


async def after(seconds, act):
    await asyncio.sleep(seconds)
    act()


def stopped(clock, session, after_s=10.0):
    """Run a session for a moment only."""
    clock.run(session, after(after_s, session.cancel))


@pytest.fixture
def bound(monkeypatch):
    """Let a day be two hours, which are looked through a second at a time."""
    assert (MOST_COOL_S, LONG_COOL_S) == (86_400, 3600)
    monkeypatch.setattr(limiter, "MOST_COOL_S", BOUND_S)


@pytest.fixture
def panel_time(clock, monkeypatch):
    """Let the panel go by the session's clock."""
    monkeypatch.setattr(messages, "time", SimpleNamespace(time=clock.unix_s))


@pytest.mark.parametrize("wait_s", [YEAR_S, 1e300])
def test_a_year_is_cut_and_then_the_service_is_asked_again(plan, clock, panel_time, bound, wait_s):
    """And what was asked is told, with the way out, for as long as it holds: in reason, log and panel."""
    work, reasons, told = Slowed(clock, wait_s), [], []
    session = plan(work, [1, 2], limits=ALONE, resource="steam store")
    session.on(lambda event: told.append(event) if isinstance(event, CooledDown) else None)
    seen = []

    def look():
        reasons.append(session.reason)
        seen.append(messages.head(session))

    clock.run(session, after(10.0, look), after(BOUND_S + 0.15, look))
    assert session.counts.completed == 2
    assert work.at[1] == pytest.approx(BOUND_S, abs=1.0)
    (event,) = told
    days = "365 d" if wait_s == YEAR_S else "ever"
    why = f"the service asked us to slow down (asked for {days}: asked again in 2 h)"
    assert (event.reason, event.resource) == (why, "steam store")
    until = time.strftime("%H:%M on %Y-%m-%d", time.localtime(event.until_s))
    way_out = "ipybatch.lift('steam store') ends it"
    assert reasons == [f"cooling down until {until}: {why}; {way_out}", ""]
    assert session.reason == ""
    assert ["lift" in head.can for head in seen] == [True, False]
    assert [head.cool_why for head in seen] == [why, ""]
    log = messages.whole_update(session, messages.Cursor(), frozenset({"log"})).log
    assert [line.text for line in log if line.text.startswith("Cooling")] == [
        f"Cooling down for {BOUND_S:.1f} s: {why}; {way_out}"
    ]


def test_a_group_that_cools_down_is_a_reason_once_nothing_else_runs(plan, clock, bound):
    """The others go on meanwhile."""
    reasons = []

    async def work(item):
        await asyncio.sleep(1.0)
        if item[:2] == "eu" and clock.now_s() < 2.0:
            raise RateLimited(retry_after_s=YEAR_S)

    regions = Limits(concurrency=2, each=Limits(concurrency=1))
    session = plan(work, ["eu1", "eu2", "us1", "us2", "us3"], per=lambda item: item[:2], limits=regions)

    def look():
        reasons.append(session.reason)

    clock.run(session, after(1.5, look), after(5.0, look))
    assert session.counts.completed == 5
    assert reasons[0] == ""
    assert reasons[1].startswith("eu cools down until")
    assert reasons[1].endswith("ipybatch.lift('session wishlist') ends it")


def test_a_short_one_is_no_reason(plan, clock, panel_time):
    """It is shown as before; there is a button while it is worth one."""
    session = plan(Slowed(clock, 90.0), [1, 2], limits=ALONE)
    seen = []

    def look():
        seen.append((session.reason, "lift" in messages.head(session).can))

    clock.run(session, after(10.0, look), after(50.0, look))
    assert seen == [("", True), ("", False)]


@pytest.mark.parametrize("resource", [None, "steam store"])
@pytest.mark.parametrize("is_anew", [False, True])
def test_what_is_left_on_record_is_cut_to_an_hour(plan, clock, resource, is_anew):
    """For a start that comes later, in this process or the next; and that start is told of it."""
    stopped(clock, plan(Slowed(clock), [1, 2], limits=ALONE, resource=resource))
    if is_anew:
        forget_limits()
    work = Slowed(clock)
    work.at.append(0.0)
    session = plan(work, [1, 2], limits=ALONE, resource=resource)
    told = []
    session.on(lambda event: told.append(event) if isinstance(event, CooledDown) else None)
    clock.run(session)
    assert session.state == "completed"
    assert work.at[1] == pytest.approx(10.0 + LONG_COOL_S, abs=1.0)
    (event,) = told
    assert event.until_s - event.at_s == pytest.approx(LONG_COOL_S, abs=1.0)


def test_while_others_heed_it_a_later_start_does_too(plan, clock, bound):
    """The service's word was said to a session that still waits: who joins it waits as long."""
    first = plan(Slowed(clock), [1], name="first", limits=ALONE, resource="store")
    work = Recorder()
    second = plan(work, [1], name="second", limits=ALONE, resource="store")

    async def join():
        await asyncio.sleep(10.0)
        await second.drive()

    clock.run(first, join())
    assert first.state == second.state == "completed"
    assert clock.now_s() == pytest.approx(BOUND_S, abs=2.0)
    assert [event.until_s for event in second._feed.log if isinstance(event, CooledDown)] == [
        event.until_s for event in first._feed.log if isinstance(event, CooledDown)
    ]


LIFTED = [
    pytest.param({}, "session wishlist", id="private"),
    pytest.param({"limits": Limits(concurrency=1, rates=[Rate(100, per_s=60)])}, "session wishlist", id="private-rate"),
    pytest.param({"resource": "store"}, "store", id="named"),
    pytest.param(
        {"resource": "store", "per": lambda item: "eu", "limits": Limits(each=Limits(concurrency=1))},
        "store",
        id="group",
    ),
    pytest.param({"limits": Limits(concurrency=1, store=limit_store.MemoryLimits())}, "session wishlist", id="store"),
]


@pytest.mark.parametrize(("arguments", "resource"), LIFTED)
@pytest.mark.parametrize("named", [{}, {"journal": "the same"}])
def test_lift_wakes_who_waits_at_once(plan, clock, arguments, resource, named):
    """Whatever the resource is called, wherever its use is counted, whichever clock it goes by."""
    work, lifted = Slowed(clock), []
    session = plan(work, [1, 2], **{"limits": ALONE, **arguments})
    named = dict.fromkeys(named, session.journal)
    clock.run(session, after(10.0, lambda: lifted.append(ipybatch.lift(resource, **named))))
    assert lifted == [True]
    assert session.counts.completed == 2
    assert clock.now_s() < 12.0
    assert ipybatch.lift(resource, **named) is False


@pytest.mark.parametrize(("arguments", "resource"), LIFTED)
def test_lift_after_the_end_holds_for_the_next_start(plan, clock, journal, arguments, resource):
    """No forget(), no fresh=True, no new name."""
    stopped(clock, plan(Slowed(clock), [1, 2], **{"limits": ALONE, **arguments}))
    assert ipybatch.lift(resource, journal=journal) is True
    session = plan(Recorder(), [1, 2], **{"limits": ALONE, **arguments})
    clock.run(session)
    assert session.state == "completed"
    assert clock.now_s() < 13.0


def test_lifting_one_leaves_the_others_and_their_windows(plan, clock, journal):
    """Also under an injected clock, whose file the machine's own would take for one of long ago."""
    limits = Limits(concurrency=1, rates=[Rate(5, per_s=600)])
    clock.run(plan(Recorder(), list(range(5)), name="full", limits=limits, resource="full"))
    stopped(clock, plan(Slowed(clock), [1], name="a", limits=ALONE, resource="a"))
    stopped(clock, plan(Slowed(clock), [1], name="b", limits=ALONE, resource="b"))
    assert ipybatch.lift("a", journal=journal) is True
    work = Slowed(clock, 0.0)
    clock.run(plan(work, [1], name="more", limits=limits, resource="full"))
    assert work.at[0] > 600.0
    clock.run(plan(Recorder(), [1], name="later", limits=ALONE, resource="b"))
    assert clock.now_s() > 3600.0


def test_the_session_lifts_its_own(plan, clock):
    """By method and by button, while it runs and after."""
    session, said = plan(Slowed(clock), [1, 2], limits=ALONE), []
    clock.run(session, after(10.0, lambda: said.append(commands.execute(session, "panel/1/lift"))))
    assert clock.now_s() < 12.0
    assert said[0].ok
    assert [event.command for event in session._feed.log if hasattr(event, "command")] == ["lift"]
    other = plan(Slowed(clock), [1, 2], name="other", limits=ALONE)
    stopped(clock, other)
    assert other.lift() == "done"
    clock.run(plan(Recorder(), [1, 2], name="other", limits=ALONE))
    assert clock.now_s() < 24.0


def test_every_session_of_the_resource_is_told(plan, clock):
    """Not only the one whose request was refused."""
    first = plan(Slowed(clock, 100.0), [1, 2], name="first", limits=Limits(concurrency=2), resource="store")

    async def sleepy(item):
        await asyncio.sleep(30.0)

    second = plan(sleepy, [1, 2], name="second", limits=Limits(concurrency=2), resource="store")
    clock.run(first, second.drive(), after(20.0, second.lift))
    for session in (first, second):
        told = [event for event in session._feed.log if isinstance(event, CooledDown)]
        assert [bool(event.until_s) for event in told] == [True, False], session.name
    assert clock.now_s() < 61.0


def test_in_real_time_another_thread_lifts_it(live, journal):
    session = live(Slowed(type("Clock", (), {"now_s": staticmethod(time.monotonic)})), [1, 2], limits=ALONE)
    cooled = hear(session, CooledDown)
    session.start()
    assert cooled.wait(20)
    assert "ipybatch.lift('session wishlist') ends it" in session.reason
    assert session.lift() == "done"
    assert session.run().counts.completed == 2
    assert session.reason == ""


def test_what_was_never_rationed_may_be_lifted(plan, clock, journal):
    """It is on record; nothing of it is in the limits file, or there is no such file."""
    clock.run(plan(Recorder(), [1], limits=ALONE))
    forget_limits()
    assert not journal.with_name(resources.LIMITS_FILE).exists()
    assert ipybatch.lift("session wishlist", journal=journal) is False
    with pytest.raises(InputError, match=r"resource must be one that was used \('session wishlist'\), got 'wishlist'"):
        ipybatch.lift("wishlist", journal=journal)


def test_who_follows_a_session_sees_its_cool_down_and_lifts_it(live, journal, monkeypatch):
    """The limits file tells it; the command goes to the process that runs it."""
    monkeypatch.setattr(follower, "_watch", lambda followed: None)
    monkeypatch.setattr(follower, "COMMAND_S", 0.02)
    live(Recorder(), [1, 2], resource="store").run()
    there = Elsewhere(journal)
    store = SqliteLimits(journal.with_name(resources.LIMITS_FILE))
    why = "the service asked night to slow down"
    store.exchange(limit_store.Report(resource="store", cool_s=7200.0, why=why))
    followed = ipybatch.BatchSession.open("wishlist", journal=journal)
    head = messages.head(followed)
    assert head.cool_down_s == pytest.approx(7200.0, abs=30.0)
    assert (head.cool_why, "lift" in head.can) == (why, True)
    assert followed.reason.endswith(f"{why}; ipybatch.lift('store') ends it")
    assert followed.lift() == "asked"
    with there.journal.reader() as database:
        assert database.execute("SELECT verb FROM command").fetchall() == [("lift",)]
    followed._follower.look()
    assert [event.until_s > 0 for event in followed._feed.log if isinstance(event, CooledDown)] == [True]
    store.exchange(limit_store.Report(resource="store", cool_s=0.0))
    store.close()
    followed._follower.look()
    assert messages.head(followed).cool_down_s == 0.0
    assert followed.reason == ""


@pytest.mark.parametrize("says", ["429", "nothing left"])
def test_a_cool_down_that_all_in_flight_are_told_of_is_one(plan, clock, says):
    """Each answer comes a millisecond later than the one before, and would make it so much longer."""
    calls, told = [], []

    async def work(item, attempt):
        calls.append(item)
        late = len(calls)
        await asyncio.sleep(0.02 + 0.001 * late)
        if late <= 50 and says == "429":
            raise RateLimited("slow down", retry_after_s=60)
        if late <= 50:
            attempt.heed({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "60"})
        return item

    session = plan(work, range(60), limits=Limits(concurrency=50), resource="busy")
    session.on(lambda event: told.append(event) if isinstance(event, CooledDown) else None)
    clock.run(session)
    assert session.counts.completed == 60
    assert len(told) == 1
    assert clock.now_s() > 60.07  # and still the last of them is heeded
