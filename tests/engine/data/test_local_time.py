"""Local time: wall clocks of several zones, through gaps and double hours, and working hours."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipybatch.engine.data.local_time import Hours, moment_words, next_s, read_start, unix_s, zone_of
from ipybatch.errors import InputError

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia", "America/Santiago")
DAYS = st.dates(dt.date(2009, 1, 1), dt.date(2026, 12, 31))
# Where clocks change: also half an hour (Lord Howe), at midnight (Santiago), and by a whole day (Apia).
CHANGES = st.sampled_from(
    [
        ("Europe/Berlin", dt.date(2026, 3, 29)),
        ("Europe/Berlin", dt.date(2026, 10, 25)),
        ("America/New_York", dt.date(2026, 3, 8)),
        ("America/New_York", dt.date(2026, 11, 1)),
        ("Australia/Lord_Howe", dt.date(2026, 4, 5)),
        ("Australia/Lord_Howe", dt.date(2026, 10, 4)),
        ("America/Santiago", dt.date(2025, 9, 7)),
        ("Pacific/Apia", dt.date(2011, 12, 30)),
        ("Pacific/Apia", dt.date(2011, 12, 31)),
    ]
)
MOMENTS = st.one_of(CHANGES, st.tuples(st.sampled_from(ZONES), DAYS))
MINUTES = st.integers(0, 24 * 60 - 1)


def utc(text: str) -> float:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()


def wall(at_s: float, zone: ZoneInfo) -> dt.datetime:
    return dt.datetime.fromtimestamp(at_s, zone).replace(tzinfo=None)


class TestZoneOf:
    """A zone by its name."""

    def test_a_known_name_is_that_zone(self) -> None:
        """What IANA calls it."""
        assert zone_of("Asia/Kolkata").key == "Asia/Kolkata"

    def test_none_is_this_machines_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The variable TZ counts, as for all programs."""
        import tzlocal.unix

        monkeypatch.setattr(tzlocal.unix, "_cache_tz", None)
        monkeypatch.setenv("TZ", "Etc/UTC")
        assert zone_of(None).key == "Etc/UTC"
        monkeypatch.setattr(tzlocal.unix, "_cache_tz", None)

    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("Europe/Berlim", "Europe/Berlin"),
            ("berlin", "Europe/Berlin"),
            ("europe/berlin", "Europe/Berlin"),
            ("America/NewYork", "America/New_York"),
        ],
    )
    def test_an_unknown_name_is_told_with_those_near(self, name: str, meant: str) -> None:
        """A mistyped zone must not end as UTC."""
        with pytest.raises(InputError, match=f"zone must be .*{name}.*did you mean.*{meant}"):
            zone_of(name)

    @pytest.mark.parametrize("name", ["", "Europe", "../etc/passwd", "/etc/localtime", "a\0b", 3])
    def test_what_is_no_name_is_refused(self, name: object) -> None:
        """A folder of zones, a path, a number."""
        with pytest.raises(InputError, match="zone must be"):
            zone_of(name)  # type: ignore[arg-type]  # what a user may pass


class TestUnixS:
    """What the clocks on the wall show, as a moment."""

    @given(MOMENTS, MINUTES)
    @settings(deadline=None)
    def test_is_the_first_moment_whose_clock_is_as_late(self, where: tuple[str, dt.date], minute: int) -> None:
        """A gap gives the first moment after it, a double hour the first of both."""
        zone, day = ZoneInfo(where[0]), where[1]
        asked = dt.datetime.combine(day, dt.time(minute // 60, minute % 60))
        at_s = unix_s(day, asked.time(), zone)
        assert wall(at_s, zone) >= asked
        assert wall(at_s - 1, zone) < asked
        assert all(wall(at_s - 60 * back, zone) < asked for back in range(1, 26 * 60, 7))

    @pytest.mark.parametrize(
        ("zone", "day", "time", "moment"),
        [
            ("Europe/Berlin", "2026-03-29", "02:30", "2026-03-29T01:00"),  # a gap of an hour
            ("Europe/Berlin", "2026-10-25", "02:30", "2026-10-25T00:30"),  # twice: at 00:30 and 01:30 UTC
            ("America/New_York", "2026-03-08", "02:00", "2026-03-08T07:00"),
            ("America/New_York", "2026-11-01", "01:59", "2026-11-01T05:59"),
            ("Australia/Lord_Howe", "2026-10-04", "02:15", "2026-10-03T15:30"),  # a gap of half an hour
            ("Australia/Lord_Howe", "2026-04-05", "01:45", "2026-04-04T14:45"),
            ("Asia/Kolkata", "2026-06-01", "22:00", "2026-06-01T16:30"),
            ("Pacific/Apia", "2011-12-30", "22:00", "2011-12-30T10:00"),  # a day that was left out
        ],
    )
    def test_where_clocks_change(self, zone: str, day: str, time: str, moment: str) -> None:
        """By hand, from the zones' own announcements."""
        assert unix_s(dt.date.fromisoformat(day), dt.time.fromisoformat(time), ZoneInfo(zone)) == utc(moment)


class TestNextS:
    """The next 22:00."""

    @given(MOMENTS, MINUTES, st.integers(0, 2 * 86_400))
    @settings(deadline=None)
    def test_is_later_and_within_two_days(self, where: tuple[str, dt.date], minute: int, further_s: int) -> None:
        """No run is missed by a day, nor begun twice by a double hour."""
        zone = ZoneInfo(where[0])
        after_s = dt.datetime.combine(where[1], dt.time(), dt.UTC).timestamp() + further_s
        text = f"{minute // 60}:{minute % 60:02}"
        at_s = next_s(text, after_s, zone)
        assert after_s < at_s <= after_s + 49 * 3600
        assert wall(at_s, zone).time() >= dt.time(minute // 60, minute % 60)
        again_s = next_s(text, at_s, zone)
        assert wall(again_s, zone).date() > wall(at_s, zone).date()

    def test_of_now_is_tomorrows(self) -> None:
        """It is after the moment, never that moment."""
        at_s = utc("2026-06-01T20:00")  # 22:00 in Berlin
        assert next_s("22:00", at_s, BERLIN) == at_s + 86_400
        assert next_s("22:00", at_s - 1, BERLIN) == at_s

    def test_a_day_that_is_left_out_has_none(self) -> None:
        """Apia went from the 29th to the 31st of December 2011."""
        apia = ZoneInfo("Pacific/Apia")
        at_s = next_s("22:00", unix_s(dt.date(2011, 12, 29), dt.time(23), apia), apia)
        assert wall(at_s, apia) == dt.datetime(2011, 12, 31, 22)  # a clock on the wall

    @pytest.mark.parametrize("text", ["24:00", "7", "22:60", "10pm", "٢٢:٠٠", ""])  # noqa: RUF001
    def test_what_is_no_time_is_refused(self, text: str) -> None:
        """The message shows one."""
        with pytest.raises(InputError, match="time of day must be such as '22:00'"):
            next_s(text, 0.0, BERLIN)


class TestReadStart:
    """When something is to start."""

    NOW_S = utc("2026-06-01T12:00")

    @pytest.mark.parametrize(
        ("value", "moment"),
        [
            ("22:00", "2026-06-01T20:00"),
            (" 9:05 ", "2026-06-02T07:05"),
            ("2026-06-01T22:00", "2026-06-01T20:00"),
            ("2026-06-01 22:00:30", "2026-06-01T20:00:30"),
            ("2026-06-01T22:00Z", "2026-06-01T22:00"),
            ("2026-06-01T22:00-04:00", "2026-06-02T02:00"),
            ("2026-06-02", "2026-06-01T22:00"),
            (dt.datetime(2026, 6, 1, 22), "2026-06-01T20:00"),  # without a zone, as users write it
            (dt.datetime(2026, 6, 1, 22, tzinfo=dt.UTC), "2026-06-01T22:00"),
            ("2026-06-01T11:59:57Z", "2026-06-01T11:59:57"),  # clocks differ
        ],
    )
    def test_is_read(self, value: object, moment: str) -> None:
        """What has no offset is by the clocks of the zone."""
        assert read_start(value, self.NOW_S, BERLIN) == utc(moment)

    @pytest.mark.parametrize("value", ["2026-06-01T13:59", "2020-01-01", dt.datetime(2026, 6, 1, 11, tzinfo=dt.UTC)])
    def test_what_is_past_is_refused(self, value: object) -> None:
        """A year mistyped must not start at once."""
        with pytest.raises(InputError, match="start_at must be to come"):
            read_start(value, self.NOW_S, BERLIN)

    @pytest.mark.parametrize("value", ["tonight", "25:00", 22, None, dt.date(2030, 1, 1), "0001-01-01", "9999-12-20"])
    def test_what_is_none_is_refused(self, value: object) -> None:
        """The message shows the forms there are."""
        with pytest.raises(InputError, match=r"start_at must be .*22:00"):
            read_start(value, self.NOW_S, BERLIN)


def is_open(hours: Hours, at_s: float, zone: ZoneInfo) -> bool:
    return hours.window(at_s, zone)[0] <= at_s


def at(text: str, zone: ZoneInfo = BERLIN) -> float:
    moment = dt.datetime.fromisoformat(text)
    return unix_s(moment.date(), moment.time(), zone)


class TestHours:
    """Working hours."""

    @pytest.mark.parametrize(
        ("given", "opens", "closes"),
        [
            ("01:00-07:00", "2026-06-02 01:00", "2026-06-02 07:00"),
            ("11:00-13:00", "2026-06-01 11:00", "2026-06-01 13:00"),
            ("22:00-06:00", "2026-06-01 22:00", "2026-06-02 06:00"),
            ("01:00-07:00, 13:00-14:00", "2026-06-01 13:00", "2026-06-01 14:00"),
            ("Mon 8:00-11:00", "2026-06-08 08:00", "2026-06-08 11:00"),
            ("Fri-Mon 20:00-24:00", "2026-06-01 20:00", "2026-06-02 00:00"),
            ("Mon-Fri 20:00-07:00, Sat-Sun", "2026-06-01 20:00", "2026-06-02 07:00"),
            ("Saturday-Sunday", "2026-06-06 00:00", "2026-06-08 00:00"),
            (["Fri 20:00-00:00", "Sat", "Sun 00:00-07:00"], "2026-06-05 20:00", "2026-06-07 07:00"),
            (["18:00-20:00", "19:00-21:00"], "2026-06-01 18:00", "2026-06-01 21:00"),
        ],
    )
    def test_hold_or_come_next(self, given: str | list[str], opens: str, closes: str) -> None:
        """From noon of a Monday, the first of June 2026."""
        assert Hours.parse(given).window(at("2026-06-01 12:00"), BERLIN) == (at(opens), at(closes))

    def test_of_all_days_never_end(self) -> None:
        """Midnight is no end."""
        assert Hours.parse("00:00-24:00").window(at("2026-06-01 12:00"), BERLIN)[1] == float("inf")

    @pytest.mark.parametrize(
        ("given", "opens", "closes", "hours"),
        [
            ("01:00-07:00", "2026-03-29T00:00", "2026-03-29T05:00", 5),  # the clocks go forward within
            ("01:00-07:00", "2026-10-24T23:00", "2026-10-25T06:00", 7),
            ("02:30-04:00", "2026-03-29T01:00", "2026-03-29T02:00", 1),  # they begin in the gap: 03:00
            ("02:30-04:00", "2026-10-25T00:30", "2026-10-25T03:00", 2.5),
            ("01:00-02:30", "2026-10-24T23:00", "2026-10-25T00:30", 1.5),  # at the first 02:30
            ("22:00-02:30", "2026-03-28T21:00", "2026-03-29T01:00", 4),
        ],
    )
    def test_where_clocks_change(self, given: str, opens: str, closes: str, hours: float) -> None:
        """Hours are by the clock on the wall, so that night is longer or shorter."""
        found = Hours.parse(given).window(utc(opens) + 60, BERLIN)
        assert found == (utc(opens), utc(closes))
        assert found[1] - found[0] == hours * 3600

    def test_that_lie_within_a_gap_are_left_out(self) -> None:
        """The clocks never show them on that day."""
        found = Hours.parse("02:10-02:50").window(at("2026-03-28 12:00"), BERLIN)
        assert found == (at("2026-03-30 02:10"), at("2026-03-30 02:50"))

    @given(
        st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), MINUTES, MINUTES), min_size=1, max_size=4),
        st.integers(0, 14 * 24 * 60),
    )
    @settings(deadline=None)
    def test_agree_with_a_count_of_minutes(self, parts: list[tuple[int, int, int, int]], minute: int) -> None:
        """In a zone whose clocks never change, a week is 10,080 minutes in a ring."""
        week, names, texts = 7 * 24 * 60, ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], []
        opened = set()
        for first, last, start, end in parts:
            if start == end:
                continue
            texts.append(f"{names[first]}-{names[last]} {start // 60}:{start % 60:02}-{end // 60:02}:{end % 60:02}")
            length = (end - start) % (24 * 60)
            for day in [(first + step) % 7 for step in range((last - first) % 7 + 1)]:
                opened |= {(day * 24 * 60 + start + step) % week for step in range(length)}
        if not texts:
            return
        kolkata, hours = ZoneInfo("Asia/Kolkata"), Hours.parse(texts)
        monday_s = at("2026-06-01 00:00", kolkata)
        opens_s, closes_s = hours.window(monday_s + minute * 60, kolkata)
        assert (minute % week in opened) == (opens_s <= monday_s + minute * 60)
        first = minute if minute % week in opened else round((opens_s - monday_s) / 60)
        assert all(later % week not in opened for later in range(minute, first))
        if closes_s == float("inf"):
            assert len(opened) == week
        else:
            end = round((closes_s - monday_s) / 60)
            assert all(later % week in opened for later in range(first, end))
            assert end % week not in opened

    @given(CHANGES, MINUTES, MINUTES, st.integers(0, 48 * 60))
    @settings(deadline=None)
    def test_windows_follow_each_other(self, where: tuple[str, dt.date], start: int, end: int, minute: int) -> None:
        """Through every change of clocks there is a next one, and it ends before the one after it begins."""
        if start == end:
            return
        zone = ZoneInfo(where[0])
        hours = Hours.parse(f"{start // 60}:{start % 60:02}-{end // 60:02}:{end % 60:02}")
        at_s = dt.datetime.combine(where[1], dt.time(), dt.UTC).timestamp() - 24 * 3600 + minute * 60
        opens_s, closes_s = hours.window(at_s, zone)
        assert closes_s > max(at_s, opens_s)
        assert hours.window(closes_s, zone)[0] > closes_s
        assert hours.window(max(at_s, opens_s), zone) == (opens_s, closes_s)

    @pytest.mark.parametrize(
        "given",
        [
            "",
            "night",
            "1-7",
            "07:00-07:00",
            "24:00-07:00",
            "01:00-25:00",
            "01:00-07:61",
            "Mo 01:00-07:00",
            [],
            7,
            [7],
            "01:00-07:00,",
            "Xyz",
            "Mon-Fri 20:00",
        ],
    )
    def test_what_is_none_is_refused(self, given: object) -> None:
        """The message names the field and shows how."""
        with pytest.raises(InputError, match=r"^hours must"):
            Hours.parse(given)  # type: ignore[arg-type]  # what a user may pass

    @pytest.mark.parametrize("given", ["Mon, Wed 20:00-07:00", "Mon-Fri 20:00-22:00, 12:00-13:00", "12:00-13:00, Sat"])
    def test_what_could_mean_two_things_is_refused(self, given: str) -> None:
        """Whether the days or the hours go for both is not guessed."""
        with pytest.raises(InputError, match="name the days of each part, or of none"):
            Hours.parse(given)

    def test_read_as_they_were_given(self) -> None:
        """Two that mean the same are equal."""
        assert str(Hours.parse("22:00-06:00")) == "22:00-06:00"
        assert Hours.parse("Sat-Sun") == Hours.parse(["Saturday-Sunday"])
        assert Hours.parse(Hours.parse("Sat")) == Hours.parse("Sat")


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ("2026-06-01 09:00", "22:00 (Europe/Berlin)"),
        ("2026-06-01 21:59", "22:00 (Europe/Berlin)"),
        ("2026-05-31 22:01", "22:00 on 2026-06-01 (Europe/Berlin)"),
    ],
)
def test_a_moment_that_is_not_soon_has_its_day(now: str, words: str) -> None:
    """Just after 22:00 the next one is tomorrow's."""
    at_s, now_s = (
        unix_s(at.date(), at.time(), BERLIN) for at in map(dt.datetime.fromisoformat, ("2026-06-01 22:00", now))
    )
    assert moment_words(at_s, now_s, BERLIN) == words
