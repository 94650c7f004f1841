"""A session that is told when to start waits until then, through pauses and restarts, and can be told otherwise."""

import asyncio
import datetime as dt
import time
from zoneinfo import ZoneInfo

import pytest

from ipybatch import BatchSession, InputError, Limits, Rate, history, templates
from ipybatch.engine.data import events
from ipybatch.engine.store import run_store
from ipybatch.engine.store.journal import open_journal
from ipybatch.jupyter import commands, messages
from ipybatch.library import Library, SteamStore, refresh
from ipybatch.session import follower
from ipybatch.session.arguments import SessionArguments
from ipybatch.templates.template import Template
from ipybatch.testing import VirtualClock
from tests.kernels import Kernel

BERLIN = ZoneInfo("Europe/Berlin")


def at(text):
    return dt.datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


class Evening:
    """The same call again and again, at some time of an evening."""

    def __init__(self, path, text="2026-06-01 20:00"):
        self.path, self.clock, self.starts = path, VirtualClock(at(text)), []

    async def work(self, item):
        self.starts.append(self.clock.unix_s())
        await asyncio.sleep(600)
        return item

    def session(self, items=range(3), start_at="22:00", **arguments):
        limits = Limits(concurrency=1, zone="Europe/Berlin", hours=arguments.pop("hours", None))
        return BatchSession(
            "evening",
            self.work,
            list(items),
            start_at=start_at,
            limits=limits,
            journal=self.path / "j.sqlite",
            clock=self.clock,
            **arguments,
        )

    def run(self, session, *commands):
        """Run it, with (time of day, what is done then) beside it."""

        async def command():
            for text, act in commands:
                await asyncio.sleep(at(f"2026-06-01 {text}") - self.clock.unix_s())
                act()

        return self.clock.run(session, command())

    def walls(self):
        return [f"{dt.datetime.fromtimestamp(start_s, BERLIN):%d %H:%M}" for start_s in self.starts]


@pytest.fixture
def evening(tmp_path):
    return Evening(tmp_path)


class TestWait:
    """It waits, and says so."""

    @pytest.mark.parametrize(
        "start_at",
        [
            "22:00",
            "2026-06-01T22:00",
            "2026-06-01T20:00Z",
            dt.datetime(2026, 6, 1, 22),
            dt.datetime(2026, 6, 1, 20, tzinfo=dt.UTC),
        ],
    )
    def test_until_its_start(self, evening, start_at):
        """However that is written."""
        session, seen = evening.session(start_at=start_at), []
        summary = evening.run(
            session, ("21:00", lambda: seen.append((session.state, session.reason, session.live_status.waiting)))
        )
        why = "it starts at 22:00 (Europe/Berlin)"
        assert seen == [("running", why, why)]
        assert evening.walls() == ["01 22:00", "01 22:10", "01 22:20"]
        assert str(summary) == "evening completed: 3/3 successful, 0 failed, 0 skipped"
        assert (session.log()["event"] == "adjourned").sum() == 1

    def test_until_its_start_and_then_for_its_hours(self, evening):
        """Both hold."""
        evening.run(evening.session(hours="23:00-06:00"))
        assert evening.walls()[0] == "01 23:00"

    def test_through_pause_and_resume(self, evening):
        """A pause beyond the start holds it; it goes on at once after that."""
        session = evening.session()
        evening.run(session, ("21:00", session.pause), ("22:30", session.resume))
        assert evening.walls()[0] == "01 22:30"

    def test_cancel_ends_the_wait(self, evening):
        """At once."""
        session = evening.session()
        assert evening.run(session, ("21:00", session.cancel)).state == "cancelled"
        assert evening.clock.unix_s() < at("2026-06-01 21:01")
        assert evening.starts == []


class TestAdjust:
    """The start is changed while it waits."""

    def test_now_starts_it(self, evening):
        """And the reason is gone."""
        session, seen = evening.session(), []
        evening.run(
            session,
            ("20:30", lambda: session.adjust(start_at="now")),
            ("20:31", lambda: seen.append((session.reason, session.live_status.waiting))),
        )
        assert evening.walls()[0] == "01 20:30"
        assert seen == [("", "")]

    def test_the_panel_offers_it_while_it_waits(self, evening):
        """And answers when it is so."""
        session, seen = evening.session(), []

        def press():
            seen.append("start_now" in messages.head(session).can)
            seen.append(commands.execute(session, "panel/1/start_now").text)
            seen.append("start_now" in messages.head(session).can)

        evening.run(session, ("20:30", press))
        assert evening.walls()[0] == "01 20:30"
        assert seen == [True, "it waits for its start no more", False]

    def test_another_time_holds_also_for_what_runs_already(self, evening):
        """Nothing more starts before it."""
        session, heard = evening.session(start_at="20:10"), []
        session.on(lambda event: heard.append(event.command) if isinstance(event, events.Commanded) else None)
        evening.run(session, ("20:15", lambda: session.adjust(start_at="21:00")))
        assert evening.walls() == ["01 20:10", "01 21:00", "01 21:10"]
        assert heard == ["start at 21:00 (Europe/Berlin)"]

    def test_limits_alone_leave_it(self, evening):
        """And a start alone says nothing of limits."""
        session = evening.session()
        evening.run(session, ("20:30", lambda: session.adjust(concurrency=1)))
        assert evening.walls()[0] == "01 22:00"

    def test_a_time_that_is_past_is_refused(self, evening):
        """Nothing is changed."""
        session = evening.session()
        with pytest.raises(InputError, match="start_at must be to come"):
            session.adjust(start_at="2026-06-01T19:00")
        evening.run(session)
        assert evening.walls()[0] == "01 22:00"


class TestAgain:
    """The same call in another process, or once more."""

    def test_what_had_not_begun_waits_on(self, evening):
        """Its kernel was restarted at 21:00."""
        first = evening.session()
        evening.run(first, ("21:00", first.cancel))
        evening.run(evening.session())
        assert evening.walls()[0] == "01 22:00"

    @pytest.mark.parametrize("state", ["running", "paused", "cancelled", "failed"])
    @pytest.mark.parametrize("start_at", ["22:00", "2026-06-01T22:00"])
    def test_what_had_begun_goes_on_at_once(self, evening, state, start_at):
        """It was cut short at 22:15, and does not wait for the next 22:00; nor is its start refused as past."""
        first = evening.session(start_at=start_at)
        evening.run(first, ("22:15", first.cancel))
        open_journal(evening.path / "j.sqlite").write(
            lambda database: database.execute("UPDATE run SET state = ?", (state,))
        )
        assert evening.run(evening.session(start_at=start_at)).counts.completed == 3
        assert evening.walls()[2:] == ["01 22:15", "01 22:25"]

    @pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kolkata"])
    def test_what_had_begun_goes_on_at_once_from_a_template_too(self, evening, zone, monkeypatch):
        """Whatever clocks the template tells its time of day by."""
        monkeypatch.setenv("IPYBATCH_CONFIG", str(evening.path / "config"))
        start_at = f"{dt.datetime.fromtimestamp(at('2026-06-01 22:00'), ZoneInfo(zone)):%H:%M}"
        limits = {"concurrency": 1, "zone": "Europe/Berlin"}
        night = Template(based_on="session", start_at=start_at, zone=zone, params={"limits": limits}, asks=["work"])
        templates.save("night", night)

        def again():
            given = {"work": evening.work, "journal": evening.path / "j.sqlite", "clock": evening.clock}
            return BatchSession.from_template("night", range(3), **given)

        first = again()
        evening.run(first, ("22:15", first.cancel))
        assert evening.run(again()).counts.completed == 3
        assert evening.walls() == ["01 22:00", "01 22:10", "01 22:15", "01 22:25"]

    def test_what_had_completed_waits_only_for_what_is_new(self, evening):
        """Running it again to see its results waits for nothing; a further item is for the next evening."""
        evening.run(evening.session())
        ended_s = evening.clock.unix_s()
        evening.run(evening.session())
        assert evening.clock.unix_s() - ended_s < 60
        evening.run(evening.session(range(4)))
        assert evening.walls()[3:] == ["02 22:00"]

    def test_a_new_run_waits(self, evening):
        """`fresh` begins anew."""
        first = evening.session()
        evening.run(first, ("22:15", first.cancel))
        evening.run(evening.session(fresh=True))
        assert evening.walls()[2] == "02 22:00"

    def test_the_start_is_on_record(self, evening):
        """For whoever shows it, and for the next process."""
        session, seen = evening.session(), []
        journal = open_journal(evening.path / "j.sqlite")

        def look():
            with journal.reader() as database:
                seen.append(run_store.find(database, "evening").start_at_s)

        evening.run(session, ("21:00", look))
        assert seen == [at("2026-06-01 22:00")]


class TestInput:
    """What is refused, before anything is recorded."""

    @pytest.mark.parametrize(
        ("start_at", "told"),
        [
            ("tonight", "start_at must be '22:00'"),
            ("2026-06-01T19:00", "start_at must be to come"),
            (22, "start_at must be"),
        ],
    )
    def test_a_start_that_is_none(self, evening, start_at, told):
        """Or past."""
        with pytest.raises(InputError, match=told):
            evening.session(start_at=start_at)
        assert history(journal=evening.path / "j.sqlite").empty

    def test_every_maker_hands_it_on(self, tmp_path):
        """As all arguments of a session."""
        assert "start_at" in SessionArguments.__annotations__
        clock = VirtualClock(at("2026-06-01 20:00"))
        session = refresh(
            [440],
            source=SteamStore("http://127.0.0.1:9"),
            library=Library(tmp_path / "games.db"),
            start_at="2026-06-01T22:00+02:00",
            journal=tmp_path / "j.sqlite",
            clock=clock,
        )
        assert session.policy.start_at_s == at("2026-06-01 22:00")


class TestEstimate:
    """A dry run knows the clock on the wall."""

    def test_counts_the_wait_and_the_closed_hours(self, evening):
        """Four hours of work from 22:00 on, two hours a night."""
        limits = Limits(concurrency=1, rates=[Rate(1, per_s=60)], hours="22:00-24:00", zone="Europe/Berlin")
        session = BatchSession(
            "e",
            evening.work,
            range(220),
            limits=limits,
            start_at="21:00",
            journal=evening.path / "e.sqlite",
            clock=evening.clock,
        )
        found = session.estimate(latency_s=0.5)
        assert found.begins_s == 2 * 3600
        assert 26 * 3600 < found.low_s <= found.seconds <= found.high_s < 28 * 3600 + 600
        assert found.why == "it starts at 22:00 (Europe/Berlin)"
        assert "nothing starts for 2.0 h: it starts at 22:00 (Europe/Berlin)" in str(found)

    def test_extrapolates_by_open_hours(self, evening):
        """A million items at 100 a second take 10,000 s, of which a night has 3,600."""
        limits = Limits(concurrency=100, spacing_s=0.01, hours="22:00-23:00", zone="Europe/Berlin")
        session = BatchSession(
            "e", evening.work, iter(()), limits=limits, journal=evening.path / "e.sqlite", clock=evening.clock
        )
        found = session.estimate(n=1_000_000, latency_s=0.01)
        assert found.extrapolated
        assert found.seconds == pytest.approx(2 * 3600 + 2 * 86_400 + 2_800, rel=0.01)


class TestRealTime:
    """On the engine's thread, by the machine's clock."""

    def test_start_returns_at_once_and_now_starts_it(self, tmp_path):
        """An hour from now, and then at once."""
        soon = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
        session = BatchSession("later", lambda item: item, [1, 2], start_at=soon, journal=tmp_path / "j.sqlite")
        session.start()
        try:
            assert session.state == "running"
            deadline_s = time.monotonic() + 10
            while not session.reason and time.monotonic() < deadline_s:
                time.sleep(0.01)
            assert session.reason.startswith("it starts at ")
            assert session.counts.pending == 2
        finally:
            session.adjust(start_at="now")
        assert session.run().counts.completed == 2


class TestElsewhere:
    """Another process shows the wait, and ends it."""

    def test_a_follower_sees_why_it_waits_and_starts_it(self, tmp_path, monkeypatch):
        """As in the process that runs it."""
        monkeypatch.setattr(follower, "FOLLOW_S", 0.02)
        journal, kernel = tmp_path / "j.sqlite", Kernel()
        try:
            made = (
                "import time\nfrom ipybatch import BatchSession, Limits\n"
                "from ipybatch.engine.store import commands\ncommands.POLL_S = 0.02\n"
                "limits = Limits(hours='00:00-24:00', zone='Asia/Kolkata')\n"
                f"journal = {str(journal)!r}\n"
                "session = BatchSession('later', str, [1, 2], start_at='2099-01-31', limits=limits, journal=journal)\n"
                "session.start()"
            )
            assert kernel.run(made) is None
            session = BatchSession.open("later", journal=journal)
            why = "it starts at 00:00 on 2099-01-31 (Asia/Kolkata)"
            ended = time.monotonic() + 20
            while session.reason != why and time.monotonic() < ended:
                time.sleep(0.02)
            assert (session.state, session.reason, session.live_status.waiting) == ("running", why, why)
            assert str(session.policy.limits.hours) == "00:00-24:00"
            assert history(journal=journal)["reason"].tolist() == [why]
            with pytest.raises(InputError, match="start_at must be"):
                session.adjust(start_at="tonight")
            assert session.adjust(start_at="now") == "done"
            assert session.run().counts.completed == 2
            assert session.reason == ""
        finally:
            kernel.kill()
