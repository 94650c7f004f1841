"""When something comes again: through changes of the clocks, from any anchor, up to any end."""

import datetime as dt
import itertools
import math
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipybatch import InputError
from ipybatch.engine.rules.recurrence import MOST_COUNTED, Recurrence, read_span

BERLIN = "Europe/Berlin"  # 29 March 2026: 02:00 -> 03:00; 25 October: 03:00 -> 02:00
HOWE = "Australia/Lord_Howe"  # half an hour: 4 October 2026: 02:00 -> 02:30
APIA = "Pacific/Apia"  # no 30 December 2011


def at(text, zone=BERLIN, *, fold=0):
    return dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def times(rule, after, count=4):
    zone = ZoneInfo(rule.zone)
    after_s = after if isinstance(after, float) else at(after, rule.zone)
    found = itertools.islice(rule.times(after_s), count)
    return [dt.datetime.fromtimestamp(at_s, zone).strftime("%m-%d %H:%M%z") for at_s in found]


class TestDays:
    def test_the_same_time_of_the_clock(self):
        rule = Recurrence(every="1d", at="22:00", zone=BERLIN)
        assert times(rule, "2026-03-28T12:00", 3) == ["03-28 22:00+0100", "03-29 22:00+0200", "03-30 22:00+0200"]

    def test_a_time_that_is_left_out_comes_after_the_gap(self):
        rule = Recurrence(every="1d", at="02:30", zone=BERLIN)
        assert times(rule, "2026-03-28T12:00", 2) == ["03-29 03:00+0200", "03-30 02:30+0200"]
        rule = Recurrence(every="1d", at="02:15", zone=HOWE)
        assert times(rule, "2026-10-03T12:00", 2) == ["10-04 02:30+1100", "10-05 02:15+1100"]

    def test_a_time_that_is_shown_twice_comes_once(self):
        rule = Recurrence(every="1d", at="2:30", zone=BERLIN)
        assert times(rule, "2026-10-24T12:00", 2) == ["10-25 02:30+0200", "10-26 02:30+0100"]
        assert times(rule, at("2026-10-25T02:10", fold=1), 1) == ["10-26 02:30+0100"]

    def test_a_day_that_there_is_not(self):
        rule = Recurrence(every="1d", at="22:00", zone=APIA)
        assert times(rule, "2011-12-28T23:00", 2) == ["12-29 22:00-1000", "12-31 22:00+1400"]

    def test_without_a_time_it_is_that_of_the_anchor(self):
        rule = Recurrence(every="1d", zone=BERLIN, anchor_s=at("2026-03-27T18:45:10"))
        assert times(rule, "2026-03-28T19:00", 2) == ["03-29 18:45+0200", "03-30 18:45+0200"]

    def test_weeks_are_counted_from_the_start(self):
        rule = Recurrence(every="2w", at="22:00", zone=BERLIN, start_s=at("2026-12-02T10:00"))
        assert times(rule, 0.0, 2) == ["12-02 22:00+0100", "12-16 22:00+0100"]
        rule = Recurrence(every="2w", at="09:00", zone=BERLIN, start_s=at("2026-12-02T10:00"))
        assert times(rule, 0.0, 2) == ["12-03 09:00+0100", "12-17 09:00+0100"]

    def test_the_start_is_a_time_itself(self):
        rule = Recurrence(every="1d", zone=BERLIN, start_s=at("2026-12-02T22:00"))
        assert times(rule, 0.0, 2) == ["12-02 22:00+0100", "12-03 22:00+0100"]


class TestHours:
    def test_hours_are_time_that_passes(self):
        rule = Recurrence(every="12h", zone=BERLIN, anchor_s=at("2026-03-28T22:00"))
        assert times(rule, "2026-03-28T22:00", 2) == ["03-29 11:00+0200", "03-29 23:00+0200"]

    def test_a_day_of_hours_is_no_day_of_the_calendar(self):
        anchor_s = at("2026-10-24T22:00")
        assert times(Recurrence(every="24h", zone=BERLIN, anchor_s=anchor_s), anchor_s, 1) == ["10-25 21:00+0100"]
        assert times(Recurrence(every="1d", zone=BERLIN, anchor_s=anchor_s), anchor_s, 1) == ["10-25 22:00+0100"]

    def test_both_of_a_double_hour(self):
        rule = Recurrence(every="30m", zone=BERLIN, anchor_s=at("2026-10-25T00:00"))
        assert times(rule, "2026-10-25T02:00") == [
            "10-25 02:30+0200",
            "10-25 02:00+0100",
            "10-25 02:30+0100",
            "10-25 03:00+0100",
        ]

    def test_before_the_anchor_too(self):
        """A clock that was wrong when the schedule was made is set right."""
        rule = Recurrence(every="6h", anchor_s=1_000_000.0)
        assert rule.next_s(0.0) < 21_600


class TestCron:
    """As Debian's cron does it."""

    def test_weekdays(self):
        rule = Recurrence(cron="0 22 * * 1-5", zone=BERLIN)
        assert times(rule, "2026-12-03T12:00", 3) == ["12-03 22:00+0100", "12-04 22:00+0100", "12-07 22:00+0100"]

    def test_gap(self):
        rule = Recurrence(cron="30 2 * * *", zone=BERLIN)
        assert times(rule, "2026-03-28T12:00", 2) == ["03-29 03:00+0200", "03-30 02:30+0200"]
        rule = Recurrence(cron="0,30 2 * * *", zone=BERLIN)
        assert times(rule, "2026-03-28T12:00", 2) == ["03-29 03:00+0200", "03-30 02:00+0200"]

    def test_double_hour(self):
        rule = Recurrence(cron="30 2 * * *", zone=BERLIN)
        assert times(rule, "2026-10-24T12:00", 2) == ["10-25 02:30+0200", "10-26 02:30+0100"]
        assert times(rule, at("2026-10-25T02:10", fold=1), 1) == ["10-26 02:30+0100"]

    def test_stars_follow_the_time_that_passes(self):
        rule = Recurrence(cron="*/30 * * * *", zone=BERLIN)
        assert times(rule, "2026-03-29T01:15", 2) == ["03-29 01:30+0100", "03-29 03:00+0200"]
        assert times(rule, "2026-10-25T02:15", 3) == ["10-25 02:30+0200", "10-25 02:00+0100", "10-25 02:30+0100"]

    def test_leap_day(self):
        rule = Recurrence(cron="0 0 29 2 *")
        assert rule.latest_s(at("2024-03-01", "UTC"), at("2028-02-01", "UTC")) is None
        assert rule.next_s(at("2024-03-01", "UTC")) == at("2028-02-29", "UTC")


class TestEnds:
    def test_until(self):
        rule = Recurrence(every="1h", start_s=7200.0, until_s=14_400.0)
        assert list(rule.times(0.0)) == [7200.0, 10_800.0, 14_400.0]
        assert rule.next_s(14_400.0) is None

    def test_years_of_minutes_are_not_walked_through(self):
        rule = Recurrence(cron="* * * * *")
        assert rule.latest_s(0.0, 1.7e9) == 1.7e9 - 1.7e9 % 60
        assert rule.count(0.0, 1.7e9) == MOST_COUNTED

    def test_nothing_was_missed(self):
        rule = Recurrence(every="1d", at="22:00")
        assert rule.latest_s(0.0, 3600.0) is None
        assert rule.count(0.0, 3600.0) == 0


RULES = st.one_of(
    st.builds(
        Recurrence,
        every=st.sampled_from(["1m", "45m", "7h", "1d", "3d", "1w"]),
        zone=st.sampled_from([BERLIN, HOWE, APIA, "America/New_York", "Asia/Kolkata"]),
        anchor_s=st.floats(1.0e9, 1.8e9),
    ),
    st.builds(
        Recurrence,
        cron=st.sampled_from(["* * * * *", "*/7 */5 * * *", "30 2 * * *", "15 0,2,12 * * 0", "0 0 1 * *"]),
        zone=st.sampled_from([BERLIN, HOWE, APIA, "America/New_York"]),
    ),
    st.builds(
        Recurrence,
        every=st.sampled_from(["1d", "2d", "1w"]),
        at=st.sampled_from(["00:00", "2:15", "02:30", "23:59"]),
        zone=st.sampled_from([BERLIN, HOWE, APIA, "Asia/Beirut"]),
        anchor_s=st.floats(1.0e9, 1.8e9),
    ),
)


@settings(max_examples=150, deadline=None)
@given(RULES, st.floats(1.1e9, 1.8e9))
def test_times_follow_each_other(rule, after_s):
    """Each one is after the one before, and asking at one gives the next: nothing is left out or given twice."""
    found = list(itertools.islice(rule.times(after_s), 6))
    assert all(first < second for first, second in itertools.pairwise([after_s, *found]))
    assert [rule.next_s(at_s) for at_s in found[:-1]] == found[1:]
    assert rule.next_s(math.nextafter(found[0], -math.inf)) == found[0]
    assert rule.latest_s(after_s, found[-1]) == found[-1]
    assert rule.count(after_s, found[-1]) == 6


class TestRefusals:
    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({}, "every or cron must say when"),
            ({"every": "1d", "cron": "0 0 * * *"}, "only one of them"),
            ({"every": "often"}, "every must be a span such as '30m'"),
            ({"every": "0m"}, "of at least 1 minutes"),
            ({"every": "90000d"}, "every must be a span"),
            ({"every": "6h", "at": "22:00"}, "at goes with every= of whole days"),
            ({"every": "24h", "at": "22:00"}, "at goes with every= of whole days"),
            ({"cron": "0 0 * * *", "at": "22:00"}, "at goes with every="),
            ({"every": "1d", "at": "25:00"}, "at: a time of day must be such as '22:00'"),
            ({"cron": "0 22 * *"}, "five fields"),
            ({"cron": "0 0 22 * * *"}, "five fields"),
            ({"cron": "@daily"}, "say every='1d'"),
            ({"cron": "0 25 * * *"}, "bad hour"),
            ({"cron": "0 0 31 2 *"}, "bad day-of-month"),
            ({"cron": "0 0 * 2 1#5", "zone": "Europe/Berlni"}, "did you mean 'Europe/Berlin'"),
        ],
    )
    def test_what_does_not_say_when(self, given, said):
        with pytest.raises(InputError) as refused:
            Recurrence(**given)
        assert said in str(refused.value)

    def test_spans(self):
        assert [read_span(text, "x") for text in ("30m", " 6 h ", "1d", "2w")] == [1800, 21_600, 86_400, 1_209_600]
        assert read_span("0m", "grace", least_s=0.0) == 0
        with pytest.raises(InputError, match="grace must be a span"):
            read_span(5, "grace")


@pytest.mark.parametrize(
    ("given", "count"),
    [({"every": "6h"}, 12), ({"every": "1d"}, 3), ({"every": "1d", "at": "22:00"}, 3), ({"cron": "0 0 * * *"}, 3)],
)
def test_nothing_comes_after_the_end_of_the_calendar(given, count):
    for start, left in (("9999-12-28T00:00", count), ("9999-12-31T23:59", 0)):
        rule = Recurrence(zone="UTC", start_s=at(start, "UTC"), **given)
        assert len([*rule.times(0.0)]) == left
