"""Working hours: nothing starts outside them, whatever it is, and the wait is told."""

import asyncio
import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipybatch import BatchSession, Breaker, InputError, Limits, Rate, RateLimited, Retry, Transient
from ipybatch.engine.data import events
from ipybatch.testing import VirtualClock

BERLIN = ZoneInfo("Europe/Berlin")


def at(text, zone=BERLIN):
    return dt.datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def clock_at(text, zone=BERLIN):
    return VirtualClock(at(text, zone))


class Work:
    """Notes on the wall when each attempt starts."""

    def __init__(self, clock, seconds=60.0, fail=lambda item, attempt: None):
        self.clock, self.seconds, self.fail, self.starts = clock, seconds, fail, []

    async def __call__(self, item):
        self.starts.append(self.clock.unix_s())
        await asyncio.sleep(self.seconds)
        error = self.fail(item, sum(1 for _ in self.starts))
        if error is not None:
            raise error
        return item

    def walls(self, zone=BERLIN):
        return [f"{dt.datetime.fromtimestamp(start_s, zone):%d %H:%M}" for start_s in self.starts]


def night(clock, tmp_path, work, items, hours="01:00-07:00", **arguments):
    limits = Limits(concurrency=1, hours=hours, zone="Europe/Berlin")
    journal = tmp_path / "j.sqlite"
    return BatchSession("night", work, items, **{"limits": limits, "journal": journal, "clock": clock, **arguments})


class TestStarts:
    """What starts, and when."""

    def test_only_within_the_hours_and_what_runs_finishes(self, tmp_path):
        """Eight hours of work take two nights; the attempt that began at 06:20 ends at 07:40."""
        clock = clock_at("2026-06-01 22:13")
        work = Work(clock, seconds=80 * 60)
        summary = clock.run(night(clock, tmp_path, work, range(6)))
        assert summary.state == "completed"
        assert work.walls() == ["02 01:00", "02 02:20", "02 03:40", "02 05:00", "02 06:20", "03 01:00"]
        assert clock.unix_s() == at("2026-06-03 02:20")

    def test_through_the_night_when_clocks_go_forward(self, tmp_path):
        """01:00 to 07:00 is five hours then."""
        clock = clock_at("2026-03-28 12:00")
        work = Work(clock, seconds=3600)
        clock.run(night(clock, tmp_path, work, range(6)))
        assert work.walls() == ["29 01:00", "29 03:00", "29 04:00", "29 05:00", "29 06:00", "30 01:00"]

    def test_through_the_night_when_clocks_go_back(self, tmp_path):
        """It is seven hours then, with two hours that are called two."""
        clock = clock_at("2026-10-24 12:00")
        work = Work(clock, seconds=3600)
        clock.run(night(clock, tmp_path, work, range(8)))
        assert work.walls() == [*(f"25 0{hour}:00" for hour in (1, 2, 2, 3, 4, 5, 6)), "26 01:00"]

    def test_no_retry_starts_outside(self, tmp_path):
        """A failure at 06:59 is tried again at 01:00."""
        clock = clock_at("2026-06-02 06:59:30")
        work = Work(clock, fail=lambda item, starts: Transient("busy") if starts < 3 else None)
        session = night(clock, tmp_path, work, ["a"], retry=Retry(attempts=3, initial_s=300, max_s=300), breaker=None)
        assert clock.run(session).counts.completed == 1
        assert work.walls()[0] == "02 06:59"
        assert set(work.walls()[1:]) <= {f"03 01:0{minute}" for minute in range(8)}

    def test_no_probe_starts_outside(self, tmp_path):
        """The breaker opens at 06:59 for a minute: its probe comes at 01:00, and the night is no part of the outage."""
        clock = clock_at("2026-06-02 06:58")
        work = Work(clock, fail=lambda item, starts: Transient("down") if starts < 4 else None)
        breaker = Breaker(failures=1, break_s=90, give_up_after=4)
        session = night(clock, tmp_path, work, range(5), retry=Retry(attempts=9, initial_s=0), breaker=breaker)
        assert clock.run(session).counts.completed == 5
        assert work.walls()[:2] == ["02 06:58", "03 01:00"]

    def test_no_further_permit_is_given_outside_and_no_timeout_counts_the_wait(self, tmp_path):
        """An attempt that asks for its second request at 07:00 gets it at 07:03, with its time still to spend."""
        clock, sent = clock_at("2026-06-02 06:59:30"), []

        async def work(item, attempt):
            for _ in range(2):
                async with attempt.permit():
                    sent.append(clock.unix_s())
                    await asyncio.sleep(30)
            return item

        session = night(clock, tmp_path, work, ["a"], hours="06:00-07:00, 07:03-08:00", timeout_s=70)
        assert clock.run(session).counts.completed == 1
        assert sent == [at("2026-06-02 06:59:30"), at("2026-06-02 07:03")]
        assert session.results()["seconds"][0] == pytest.approx(60, abs=1)

    def test_closed_hours_are_no_time_without_success(self, tmp_path):
        """Refused three times at 06:30 and once at 01:00: eighteen closed hours do not end the session."""
        clock = clock_at("2026-06-02 06:30")

        async def work(item):
            unix_s = clock.unix_s()
            await asyncio.sleep(1)
            if unix_s < at("2026-06-03 01:10"):
                raise RateLimited("quota used up", retry_after_s=600)
            return item

        session = night(clock, tmp_path, work, ["a"])
        assert str(clock.run(session)) == "night completed: 1/1 successful, 0 failed, 0 skipped"

    def test_what_a_limiter_of_the_users_lets_through_too_late_waits(self, tmp_path):
        """It is asked again when the hours begin: what it gave at 07:01 is of another time."""
        clock, entered = clock_at("2026-06-02 06:59"), []

        class Slow:
            async def __aenter__(self):
                await asyncio.sleep(100)
                entered.append(clock.unix_s())

            async def __aexit__(self, *given):
                pass

        work = Work(clock)
        limits = Limits(concurrency=1, hours="01:00-07:00", zone="Europe/Berlin", also=[Slow()])
        session = night(clock, tmp_path, work, ["a"], limits=limits, timeout_s=70)
        assert clock.run(session).counts.completed == 1
        assert work.walls() == ["03 01:01"]
        assert [f"{dt.datetime.fromtimestamp(at_s, BERLIN):%d %H:%M:%S}" for at_s in entered] == [
            "02 07:00:40",
            "03 01:01:40",
        ]

    def test_batches_pause_and_wait_for_the_hours(self, tmp_path):
        """No batch opens while nothing may start."""
        clock = clock_at("2026-06-02 06:58")
        limits = Limits(batch_size=2, batch_pause_s=90, hours="01:00-07:00", zone="Europe/Berlin")
        work = Work(clock)
        session = night(clock, tmp_path, work, range(6), limits=limits)
        begun = []
        session.on(lambda event: begun.append(event.at_s) if isinstance(event, events.GroupStarted) else None)
        clock.run(session)
        assert work.walls() == ["02 06:58"] * 2 + ["03 01:00"] * 2 + ["03 01:02"] * 2
        assert begun == sorted(set(work.starts))

    def test_limit_groups_wait_too(self, tmp_path):
        """Each has its own limits, and all have the session's hours."""
        clock = clock_at("2026-06-02 06:59")
        limits = Limits(each=Limits(rates=[Rate(1, per_s=120)]), hours="01:00-07:00", zone="Europe/Berlin")
        work = Work(clock, seconds=1)
        session = night(clock, tmp_path, work, range(4), limits=limits, per=lambda item: f"g{item % 2}")
        assert clock.run(session).counts.completed == 4
        assert work.walls() == ["02 06:59"] * 2 + ["03 01:00"] * 2

    def test_what_has_nothing_left_waits_for_nothing(self, tmp_path):
        """Running a finished session again costs nothing, at noon too, be it a list or a generator."""
        clock = clock_at("2026-06-02 01:00")
        clock.run(night(clock, tmp_path, Work(clock), range(2)))
        clock.advance(at("2026-06-02 12:00") - clock.unix_s())
        for items in (range(2), (item for item in range(2)), []):
            session = night(clock, tmp_path, Work(clock), items)
            assert clock.run(session).state == "completed", session.reason
        assert clock.unix_s() < at("2026-06-02 12:01")

    def test_sessions_that_share_a_resource_keep_each_to_their_own(self, tmp_path):
        """The other one works by day."""
        clock = clock_at("2026-06-02 06:58")
        nightly, daily = Work(clock), Work(clock)
        first = night(clock, tmp_path, nightly, range(4), hours="01:00-07:00, 07:10-08:00", resource="api")
        limits = Limits(concurrency=1, hours="07:05-07:10", zone="Europe/Berlin")
        second = BatchSession(
            "day", daily, range(2), limits=limits, resource="api", journal=tmp_path / "j.sqlite", clock=clock
        )
        clock.run(first, second.drive())
        assert nightly.walls() == ["02 06:58", "02 06:59", "02 07:10", "02 07:11"]
        assert daily.walls() == ["02 07:05", "02 07:06"]

    @given(
        st.sampled_from(["22:00-06:00", "Mon-Fri 20:00-07:00, Sat-Sun", "02:15-02:45", "01:00-02:30, 12:00-12:07"]),
        st.sampled_from(["2026-03-27 20:00", "2026-10-23 20:00", "2026-06-01 12:00"]),
        st.integers(1, 5),
        st.integers(60, 30_000),
    )
    @settings(deadline=None, max_examples=25)
    def test_whatever_the_hours_no_start_lies_outside(self, tmp_path_factory, hours, begins, at_once, seconds):
        """By the clock on the wall, also where it is set forward or back."""
        clock = clock_at(begins)
        limits = Limits(concurrency=at_once, hours=hours, zone="Europe/Berlin")
        work = Work(clock, seconds)
        journal = tmp_path_factory.mktemp("hours") / "j.sqlite"
        assert (
            clock.run(BatchSession("n", work, range(9), limits=limits, journal=journal, clock=clock)).counts.completed
            == 9
        )
        for start_s in work.starts:
            opens_s, closes_s = limits.hours.window(start_s, BERLIN)
            assert opens_s <= start_s < closes_s


class TestTold:
    """The wait is shown wherever one looks."""

    def test_in_reason_live_status_and_once_a_closing_in_the_log(self, tmp_path):
        """By the clock on the wall, with its zone."""
        clock, told, shown = clock_at("2026-06-02 06:59"), [], set()

        async def look():
            while True:
                told.append((session.reason, session.live_status.waiting))
                shown.add((session.live_status.outside_hours, session.counts.running > 0))
                await asyncio.sleep(3600)

        session = night(clock, tmp_path, Work(clock, seconds=1800), range(24))
        heard = []
        session.on(lambda event: heard.append(event.reason) if isinstance(event, events.Adjourned) else None)
        clock.run(session, look())
        first, second = (f"outside working hours: goes on at 01:00 on 2026-06-0{day} (Europe/Berlin)" for day in "34")
        assert told[1] == (first, first)
        assert ("", "") in told
        assert {outside for outside, is_running in shown if is_running} == {False}
        assert (True, False) in shown
        assert heard == [first, second]
        assert session.reason == ""
        assert (session.log()["event"] == "adjourned").sum() == 2

    def test_a_day_that_is_not_soon_is_named(self, tmp_path):
        """From Monday to Saturday."""
        clock = clock_at("2026-06-01 12:00")
        session = night(clock, tmp_path, Work(clock), ["a"], hours="Sat-Sun")
        heard = []
        session.on(lambda event: heard.append(event.reason) if isinstance(event, events.Adjourned) else None)
        clock.run(session)
        assert heard == ["outside working hours: goes on at 00:00 on 2026-06-06 (Europe/Berlin)"]

    def test_pause_resume_adjust_and_cancel_work_meanwhile(self, tmp_path):
        """Adjusting the limits changes nothing of the hours."""
        clock = clock_at("2026-06-02 12:00")
        session, seen = night(clock, tmp_path, Work(clock), range(3)), []

        async def command():
            await asyncio.sleep(3600)
            session.pause()
            await asyncio.sleep(1)
            seen.append((session.state, session.reason))
            session.resume()
            session.adjust(concurrency=1)
            await asyncio.sleep(1)
            seen.append((session.state, session.reason[:21]))
            session.cancel()

        summary = clock.run(session, command())
        assert seen == [("paused", ""), ("running", "outside working hours")]
        assert (summary.state, summary.counts.cancelled) == ("cancelled", 3)
        assert clock.unix_s() < at("2026-06-02 13:01")

    def test_time_left_counts_closed_hours(self, tmp_path):
        """Six items an hour, of which 36 are left at 06:00: one hour now, five more at night."""
        clock, left = clock_at("2026-06-02 05:00"), []

        async def look():
            await asyncio.sleep(3650)
            left.append(session.live_status.eta_s)

        session = night(clock, tmp_path, Work(clock, seconds=600), range(42))
        clock.run(session, look())
        low_s, high_s = left[0]
        assert 23 * 3600 <= low_s <= 24.2 * 3600
        assert low_s <= high_s <= 26 * 3600


class TestInput:
    """What is refused before anything is spent."""

    def test_names_the_field_and_the_part(self):
        """Hours and zones that are none."""
        with pytest.raises(InputError, match=r"hours must be .*got '1-7'"):
            Limits(hours="1-7")
        with pytest.raises(InputError, match=r"zone must be .*Europe/Berlin"):
            Limits(hours="01:00-07:00", zone="Europe/Berln")
        with pytest.raises(InputError, match="each must have only concurrency, spacing_s and rates, got hours="):
            Limits(each=Limits(hours="01:00-07:00"))

    def test_is_told_as_it_was_given(self):
        """Also as a list."""
        assert "hours='01:00-07:00, Sat'" in repr(Limits(hours=["01:00-07:00", "Sat"]))
