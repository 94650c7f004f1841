"""Opening: by the clock on the wall, as a pure state machine."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipybatch import Limits
from ipybatch.engine.data.local_time import read_start
from ipybatch.engine.rules.opening import Opening, opening_of

BERLIN = ZoneInfo("Europe/Berlin")
HOURS = st.sampled_from(["01:00-07:00", "22:00-06:00", "Mon-Fri 20:00-07:00, Sat-Sun", "02:15-02:45", "00:00-24:00"])
MOMENTS = st.sampled_from(["2026-03-28 12:00", "2026-10-24 12:00", "2026-06-05 03:30"])


def at(text):
    return dt.datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


def made(hours=None, start_s=None):
    return opening_of(Limits(hours=hours, zone="Europe/Berlin"), start_s, float)


def test_without_hours_and_start_nothing_is_asked():
    opening = made()
    assert (opening.is_limited, opening.wait_s(5.0), opening.why(5.0)) == (False, 0.0, "")
    assert Opening().wait_s(0.0) == 0.0


def test_waits_for_its_start_then_for_its_hours():
    opening = made("01:00-07:00", at("2026-06-01 03:00"))
    assert opening.wait_s(at("2026-06-01 02:00")) == 3600.0
    assert opening.why(at("2026-06-01 02:00")) == "it starts at 03:00 (Europe/Berlin)"
    assert opening.wait_s(at("2026-06-01 03:00")) == 0.0
    assert opening.wait_s(at("2026-06-01 07:00")) == 18 * 3600.0
    assert (
        opening.why(at("2026-06-01 07:00")) == "outside working hours: goes on at 01:00 on 2026-06-02 (Europe/Berlin)"
    )
    waits = [opening.is_outside_hours(at(f"2026-06-01 {clock}")) for clock in ("02:00", "03:00", "06:59", "07:00")]
    assert waits == [False, False, False, True]


def test_a_clock_that_is_set_back_is_believed():
    """What was worked out for later does not hold for before."""
    opening = made("01:00-07:00")
    assert opening.wait_s(at("2026-06-02 02:00")) == 0.0
    assert opening.wait_s(at("2026-06-01 12:00")) == 13 * 3600.0
    assert opening.wait_s(at("2026-06-01 06:59")) == 0.0


def test_another_start_takes_the_place_of_one():
    opening = made(None, at("2026-06-01 22:00"))
    opening.begin(None, BERLIN)
    assert not opening.is_limited
    opening.begin(at("2026-06-01 23:00"), BERLIN)
    assert opening.wait_s(at("2026-06-01 22:30")) == 1800.0


@given(HOURS, MOMENTS, st.integers(0, 9 * 86_400), st.integers(0, 5 * 86_400))
@settings(deadline=None)
def test_open_seconds_last_until_they_are_open(hours, moment, later_s, open_s):
    """Each of the two undoes the other, far ahead nearly so; and no moment is both waited for and open."""
    opening, from_s = made(hours), at(moment) + later_s
    lasts_s = opening.lasts_s(from_s, open_s)
    is_near = lasts_s < 28 * 86_400
    assert opening.open_s(from_s, from_s + lasts_s) == pytest.approx(open_s, abs=1e-3, rel=1e-9 if is_near else 0.1)
    opens_s = opening.opens_s(from_s)
    assert opening.wait_s(opens_s) == 0.0
    assert opening.open_s(from_s, opens_s) == 0.0
    assert opens_s == from_s or opening.wait_s(opens_s - 1) == pytest.approx(1)


def test_how_long_it_lasts_is_told_for_more_than_the_calendar_holds():
    """A minute a day for work of a thousand years: the status asks for it four times a second."""
    opening, from_s = made("01:00-01:01"), at("2026-06-01 00:00")
    assert opening.lasts_s(from_s, 3e10) == pytest.approx(3e10 * 1440, rel=0.05)


def test_hours_after_the_last_start_that_is_taken_are_found():
    last_s = read_start("9998-12-31T22:00", 0.0, BERLIN)
    assert made("01:00-07:00", last_s).wait_s(last_s - 60) == 60 + 3 * 3600
