"""Dates: read in one way for all cells that are written alike, never guessed."""

import datetime as dt

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import InputError
from ipybatch.forecast.data import dates
from ipybatch.forecast.data.dates import read_dates
from ipybatch.forecast.data.understanding import Undecided

DAY = pd.Timestamp("2025-07-31")
TODAY = dt.date(2026, 11, 30)


def read(*cells, **given):
    """The days of a column, as text, and what is said of it."""
    made = read_dates(pd.Series(cells, dtype=object), "tgl", today=TODAY, **given)
    return [None if pd.isna(day) else f"{day:%Y-%m-%d}" for day in made.days], made


@pytest.mark.parametrize(
    "written",
    [
        "2025-07-31", "2025-07-31T23:59:59", "2025/07/31", "2025.07.31", "31/07/2025", "07/31/2025", "31-07-2025",
        "31.07.2025", "7/31/2025 8:26", "31 Jul 2025", "Jul 31, 2025", "July 31, 2025", "31/7/25", " 2025-07-31 ",
        "2025-07-31 23:59:59+09:00", "20250731", 20250731, 20250731.0, dt.date(2025, 7, 31),
        dt.datetime(2025, 7, 31, 12), pd.Timestamp("2025-07-31 18:00"), pd.Period("2025-07-31", "D"),
        np.datetime64("2025-07-31"), 45869, "45869.75",
        "\uff12\uff10\uff12\uff15-07-31", "\u0663\u0661/\u0660\u0667/2025",
        1753920000, 1753920000000,
        "20250731T083000Z", "31-Jul-25", "31st July 2025", "Thursday, July 31, 2025",
        "31 Juli 2025", "Kamis, 31 Juli 2025", "31 Jul. 2025", "31 tháng 7 2025", "31 thang 7 nam 2025",
        "Thứ Năm, ngày 31 tháng 7 năm 2025", "31 de julio de 2025", "31 jul 2025", "31. Juli 2025", "31 juillet 2025",
        "jeudi 31 juil. 2025",
    ],
)  # fmt: skip
def test_a_day_is_read_however_it_is_written(written):
    """With a time or without, as text, number, or an object of datetime."""
    assert read_dates(pd.Series([written]), "date", today=TODAY).days.tolist() == [DAY]


def test_a_zone_does_not_move_the_day():
    dates = pd.Series(pd.to_datetime(["2025-07-31 23:30"])).dt.tz_localize("Asia/Jayapura")
    assert read_dates(dates, "date").days.tolist() == [DAY]


@pytest.mark.parametrize(
    "wrong", ["31/13/2025", "", None, "soon", "2025-02-30", "0025-07-01", "2999-01-01", 7, 99999, True]
)
def test_what_is_no_day_is_missing(wrong):
    """The others of the column are read all the same."""
    dates = pd.Series(["2025-07-30", wrong, "2025-07-31"], dtype=object)
    assert read_dates(dates, "date").days.isna().tolist() == [False, True, False]


def test_one_day_above_twelve_tells_day_from_month():
    assert read_dates(pd.Series(["03/04/2025", "31/07/2025"]), "d").days.tolist() == [pd.Timestamp("2025-04-03"), DAY]
    assert read_dates(pd.Series(["03/04/2025", "07/31/2025"]), "d").days.tolist() == [pd.Timestamp("2025-03-04"), DAY]


def test_day_and_month_are_not_guessed():
    """Where both fit, a whole year of demand could lie in the wrong months: the user is asked."""
    with pytest.raises(
        Undecided, match=r"'ordered', got '03/04/2025', which may be 2025-04-03 .*%d/%m/%Y.* or 2025-03-04"
    ):
        read_dates(pd.Series(["01/01/2025", "03/04/2025"]), "ordered")


def test_what_reads_alike_either_way_is_no_question():
    assert read_dates(pd.Series(["01/01/2025", "02/02/2025"]), "d").days.notna().all()


@given(st.lists(st.dates(dt.date(1900, 1, 1), dt.date(2199, 12, 31)), max_size=20))
def test_dates_come_back_as_they_were(days):
    """Any list of days, as text, is read as these days."""
    written = pd.Series([day.isoformat() for day in days], dtype=object)
    assert [day.date() for day in read_dates(written, "date").days] == days


MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
YEAR_OF_MONTHS = [f"2024-{month:02}-01" for month in range(1, 13)]


@pytest.mark.parametrize(
    ("cells", "days"),
    [
        (("2025M07", "2025-M08", "M09 2025"), ["2025-07-01", "2025-08-01", "2025-09-01"]),
        (("202501", "202513", "202514", "202515"), ["2024-12-30", "2025-03-24", "2025-03-31", "2025-04-07"]),
        (("2025-12", "2025-13", "2025-14", "2025-15"), ["2025-03-17", "2025-03-24", "2025-03-31", "2025-04-07"]),
        (("12/2025", "13/2025", "14/2025", "15/2025"), ["2025-03-17", "2025-03-24", "2025-03-31", "2025-04-07"]),
        ((*(f"24-{month}" for month in MONTHS), "25-Jan"), [*YEAR_OF_MONTHS, "2025-01-01"]),
        (("07/25", "12/25"), ["2025-07-01", "2025-12-01"]),
        (("Jul-25", "Aug-25"), ["2025-07-01", "2025-08-01"]),
        (("Agustus 2025", "tháng 9/2025"), ["2025-08-01", "2025-09-01"]),
        (("2025-W31", "2025W32", "W33 2025", "KW 34/2025"), ["2025-07-28", "2025-08-04", "2025-08-11", "2025-08-18"]),
    ],
)
def test_a_month_is_its_first_day_and_a_week_its_monday(cells, days):
    assert read(*cells)[0] == days


@pytest.mark.parametrize(
    ("name", "month"),
    [
        ("Januari", 1), ("Peb", 2), ("Februari", 2), ("Maret", 3), ("Mei", 5), ("Agt", 8), ("Ags.", 8), ("Agu", 8),
        ("Okt", 10), ("Nop", 11), ("Desember", 12), ("enero", 1), ("ene.", 1), ("marzo", 3), ("mayo", 5), ("sept.", 9),
        ("setiembre", 9), ("dic", 12), ("Jänner", 1), ("Mär", 3), ("März", 3), ("Maerz", 3), ("Marz", 3), ("Mai", 5),
        ("Dez.", 12), ("janv.", 1), ("février", 2), ("fevr", 2), ("août", 8), ("aout", 8), ("déc.", 12), ("Thg 8", 8),
        ("thang 11", 11), ("March", 3), ("SEPT", 9),
    ],
)  # fmt: skip
def test_months_have_names_in_six_languages(name, month):
    """With and without accents and dots."""
    assert read(f"13 {name} 2025")[0] == [f"2025-{month:02}-13"]


def test_years_of_two_digits_are_told_by_how_the_days_lie():
    """A month of days, not one day in each of 31 years; and it is said, with what would read it otherwise."""
    days, made = read(*(f"25/07/{day:02}" for day in range(1, 32)))
    assert days == [f"2025-07-{day:02}" for day in range(1, 32)]
    assert "read as 2025-07-01" in made.notes[0]
    assert "date_format='%d/%m/%y' reads it as 2001-07-25" in made.notes[0]
    days, made = read(*(f"{day:02}/07/25" for day in range(1, 32)))
    assert days == [f"2025-07-{day:02}" for day in range(1, 32)]
    assert "date_format='%y/%m/%d' reads it as 2001-07-25" in made.notes[0]
    assert read("31/7/25")[0] == ["2025-07-31"]


@pytest.mark.parametrize(
    ("cells", "readings"),
    [
        (["25/07/01", "25/07/02"], {"%y/%m/%d", "%d/%m/%y"}),
        (["01/07/25", "02/07/25"], {"%y/%m/%d", "%d/%m/%y", "%m/%d/%y"}),
        ([f"{day:02}/07/25" for day in range(1, 13)], {"%d/%m/%y", "%m/%d/%y"}),
        (["250701", "250702"], {"%y%m%d", "%d%m%y"}),
        (["201211"], {"%Y%m", "%G%V", "%y%m%d", "%d%m%y"}),
        (["202511"], {"%Y%m", "%G%V"}),
        ([f"2025-{number:02}" for number in range(1, 13)], {"%Y-%m", "%G-%V"}),
        ([f"2025-{number:02}" for number in range(1, 14)], {"%Y-%m", "%G-%V"}),
        ([f"2025/{number:02}" for number in range(1, 15)], {"%Y/%m", "%G/%V"}),
        ([f"{number}.2025" for number in range(7, 13)], {"%m.%Y", "%V.%G"}),
        (["2024-12", "2025-03"], {"%Y-%m", "%G-%V"}),
        (["25-Jul-01", "25-Jul-02"], {"%y-%b-%d", "%d-%b-%y"}),
        (["03-04-2025"], {"%d-%m-%Y", "%m-%d-%Y"}),
        (["07/11"], {"%m/%y", "%y/%m"}),
        (["31/07/2025", "07/31/2025", "03/04/2025"], {"%d/%m/%Y", "%m/%d/%Y"}),
    ],
)
def test_what_reads_in_several_ways_is_asked(cells, readings):
    """By column, cell, and each reading with the argument that decides; each of them then does."""
    with pytest.raises(Undecided) as asked:
        read(*cells)
    told = asked.value
    assert told.column == "tgl"
    assert {answer.value for answer in told.answers} == readings
    for argument, value, day in told.answers:
        assert read(*cells, **{argument: value})[0][cells.index(told.example)] == day
        assert f"{day} ({argument}={value!r})" in str(told)


def test_points_stand_after_the_day_and_spreadsheets_write_it_before_the_month():
    """03.04.2025 and 01-Jul-25 are read as all write them."""
    assert read("03.04.2025")[0] == ["2025-04-03"]
    assert read("01-Jul-25", "02-Jul-25", "13-Jul-25")[0] == ["2025-07-01", "2025-07-02", "2025-07-13"]


def test_several_ways_in_one_column_are_read_each_and_said():
    days, made = read("2025-07-01", "1 Juli 2025", "31/07/2025", dt.date(2025, 8, 1), 45871)
    assert days == ["2025-07-01", "2025-07-01", "2025-07-31", "2025-08-01", "2025-08-02"]
    assert "written in 5 ways" in made.notes[0]


def test_a_number_among_dates_has_to_lie_near_them():
    """45839 is a day of 2025; 20100 is more likely a quantity that slipped over."""
    assert read("2025-07-01", "2025-07-03", 45840, "2025-07-04", 20100)[0][2:] == ["2025-07-02", "2025-07-04", None]


def test_a_few_that_contradict_are_no_dates():
    """One month first among eighteen proofs of day first is a mistake of its row."""
    assert read(*(f"{day:02}/08/2025" for day in range(1, 32)), "08/31/2025")[0][-1] is None


def test_a_spreadsheet_that_swapped_day_and_month_is_refused():
    """It takes 01/07/2025 for January, and leaves 13/07/2025 as text."""
    swapped = [dt.date(2025, day, 7) for day in range(1, 13)]
    with pytest.raises(InputError, match="must not have day and month swapped in 'tgl', got '13/07/2025' as text"):
        read(*swapped, *(f"{day}/07/2025" for day in range(13, 32)))


@pytest.mark.parametrize(
    ("cells", "date_format", "days"),
    [
        (["25/07/01"], "%y/%m/%d", ["2025-07-01"]),
        (["1 Agustus 2025", "soon"], "%d %B %Y", ["2025-08-01", None]),
        ([10725], "%d%m%y", ["2025-07-01"]),
        (["2025-31"], "%G-%V", ["2025-07-28"]),
        (["03/04/2025 08:30"], "%m/%d/%Y %H:%M", ["2025-03-04"]),
    ],
)
def test_a_format_decides(cells, date_format, days):
    assert read(*cells, date_format=date_format)[0] == days


@pytest.mark.parametrize(
    ("date_format", "message"),
    [
        ("%Q", "date_format must say how dates are written, as for strftime, got '%Q'"),
        (5, "date_format must say how dates are written"),
        ("dd/mm", "date_format must say how dates are written"),
        ("%d/%m/%y", "date_format must fit the dates of tgl, got '%d/%m/%y', and '2025-07-01' is written otherwise"),
    ],
)
def test_a_format_has_to_be_one_and_to_fit(date_format, message):
    with pytest.raises(InputError, match=message):
        read("2025-07-01", date_format=date_format)


def test_what_is_no_date_at_all_is_asked():
    with pytest.raises(
        InputError, match=r"demand must have dates that can be read in 'tgl', got 'soon': .*date_format='%d/%m/%Y'"
    ):
        read("soon", "later")


@pytest.mark.parametrize(
    "dtype",
    [pd.ArrowDtype(pa.date32()), pd.ArrowDtype(pa.timestamp("us", "Asia/Jakarta")), "datetime64[s]", "category",
     pd.ArrowDtype(pa.string()), "string", "period[D]"],
)  # fmt: skip
def test_a_column_of_any_type_is_read(dtype):
    days = pd.Series([pd.Timestamp("2025-07-31")] * 2, dtype="datetime64[us]")
    column = days.astype(str).astype(dtype) if "str" in str(dtype) else days.astype(dtype)
    column[1] = None
    assert read_dates(column, "d").days.isna().tolist() == [False, True]
    assert read_dates(column, "d").days[0] == DAY


def test_midnights_of_elsewhere_are_told():
    utc = pd.Series(pd.to_datetime(["2025-06-30 17:00", "2025-07-01 17:00"], utc=True))
    assert "17:00 UTC, a midnight elsewhere" in read_dates(utc, "d").notes[0]
    assert read_dates(utc.dt.normalize(), "d").notes == ()
    text = utc.dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert "17:00 UTC, a midnight elsewhere" in read_dates(text, "d").notes[0]
    for other in ("2025-07-01T08:00:00Z", "2025-07-01 17:00", "2025-07-01T17:00:00+07:00"):
        assert read_dates(pd.concat([text, pd.Series([other])]), "d").notes == ()


def test_only_different_days_are_read(monkeypatch):
    """However many rows and times of day there are."""
    seen = []
    real = dates.read_cells
    monkeypatch.setattr(dates, "read_cells", lambda texts: seen.append(len(texts)) or real(texts))
    stamps = pd.Series(pd.date_range("2025-07-01", periods=3000, freq="h")).astype(str)
    assert read_dates(stamps, "d").days.nunique() == 125
    assert seen == [125]


@pytest.mark.parametrize(
    "heading", ["Week", "KW", "YearWeek", "Calendar Week", "Semaine", "Semana", "Tuần", "Minggu ke"]
)
@pytest.mark.parametrize("cells", [("202502", "202503"), ("2025-02", "2025-03"), ("02/2025", "03/2025")])
def test_a_heading_tells_weeks_from_months(heading, cells):
    made = read_dates(pd.Series(cells), heading, today=TODAY)
    assert [str(day.date()) for day in made.days] == ["2025-01-06", "2025-01-13"]


@pytest.mark.parametrize(
    ("cells", "days"),
    [
        ((202507, 202508), ["2025-07-01", "2025-08-01"]),
        (("202511",), ["2025-11-01"]),
        (("2025-07", "2025-08"), ["2025-07-01", "2025-08-01"]),
        ((2025.01, 2025.1), ["2025-01-01", "2025-10-01"]),
        (("07/2025",), ["2025-07-01"]),
        (("20259", "202510", "202511"), ["2025-09-01", "2025-10-01", "2025-11-01"]),
        (("2025.01", "2025.09", "2025.1", "2025.11"), ["2025-01-01", "2025-09-01", "2025-10-01", "2025-11-01"]),
        (("2025.7", "2025.1"), ["2025-07-01", "2025-01-01"]),
    ],
)
def test_a_number_up_to_12_is_a_month_where_the_heading_or_the_user_says_so(cells, days):
    for name, said in (("Bulan", {}), ("CalMonth", {}), ("Fiscal Month", {}), ("Periode", {"freq": "M"})):
        made = read_dates(pd.Series(cells, dtype=object), name, today=TODAY, **said)
        assert ([f"{day:%Y-%m-%d}" for day in made.days], made.period) == (days, "M")


def test_the_user_tells_weeks_from_months_by_the_period():
    made = read_dates(pd.Series(["2025-02", "2025-03"]), "Period", freq="W", today=TODAY)
    assert ([f"{day:%Y-%m-%d}" for day in made.days], made.period) == (["2025-01-06", "2025-01-13"], "W")


@pytest.mark.parametrize("mark", ["-", "/", ".", ""])
def test_months_of_several_years_are_no_weeks(mark):
    """Weeks of a year that another one follows have numbers above 12."""
    two_years = [f"{year}{mark}{month:02}" for year in (2024, 2025) for month in range(1, 13)]
    for cells in (two_years, two_years[9:15], two_years[11:13], [two_years[at] for at in (1, 4, 7, 16)]):
        assert read(*cells)[0] == [f"{cell[:4]}-{cell[-2:]}-01" for cell in cells]
        assert read(*cells)[1].period == "M"


def test_quarters_by_their_number_are_neither_months_nor_weeks():
    cells = [f"{year}-{quarter}" for year in (2023, 2024, 2025) for quarter in range(1, 5)]
    with pytest.raises(InputError, match=r"days, weeks or months in 'tgl', got '2023-1', and none above 4"):
        read(*cells)
    assert read(*cells, date_format="%Y-%m")[0][-1] == "2025-04-01"


def test_one_mistyped_month_makes_no_weeks():
    """2024-13 among the months of years is a problem of its row; of a few months, the user is asked."""
    months = [f"{year}-{month:02}" for year in (2023, 2024) for month in range(1, 13)]
    assert read(*months, "2024-13")[0][-2:] == ["2024-12-01", None]
    with pytest.raises(Undecided) as asked:
        read("2024-11", "2024-12", "2024-13")
    assert {answer.value for answer in asked.value.answers} == {"%Y-%m", "%G-%V"}
    assert read("2024-11", "2024-12", "2024-13", date_format="%G-%V")[0] == ["2024-03-11", "2024-03-18", "2024-03-25"]


@pytest.mark.parametrize(
    "cells",
    [
        [f"2025/{day:02}/06" for day in range(1, 31)],  # year, day, month
        [f"{day} de {month} de 2025" for month in ("junho", "julho", "agosto") for day in range(1, 9)],
        [f"{day}-{month}" for month in ("May", "Jun") for day in range(1, 25)],
        [f"{day}-{month}" for month in ("May", "Jun") for day in range(12, 25)],
        [f"{month} {day}" for month in ("May", "Jun") for day in range(12, 25)],
        [f"{year}{month:02}" for year in (2011, 2012) for month in range(1, 13)],
        [f"{day:02}/05" for day in range(14, 24)],
        [f"{day:02}/05" for day in range(2, 12)],
        [f"05-{day:02}" for day in range(14, 31)],
    ],
)
def test_dates_of_which_many_do_not_fit_are_asked_about(cells):
    """Not read where they happen to fit, the others taken for bad rows."""
    with pytest.raises(InputError, match="date_format=") as asked:
        read(*cells)
    assert "'tgl'" in str(asked.value)


@pytest.mark.parametrize(("bad", "count"), [("31/13/2025", 1), ("00/00/0000", 40)])
def test_a_few_bad_dates_are_bad_rows(bad, count):
    cells = [f"{day:02}/07/2025" for day in range(1, 31)] + [bad] * count
    assert read(*cells)[0] == [f"2025-07-{day:02}" for day in range(1, 31)] + [None] * count


@pytest.mark.parametrize(
    ("cells", "days"),
    [
        (("Thu May 29 2025", "Fri May 30 2025", "Thu Jun 05 2025"), ["2025-05-29", "2025-05-30", "2025-06-05"]),
        (("thứ 5, 29 tháng 5 2025", "Thứ sáu, 30 tháng 5 2025"), ["2025-05-29", "2025-05-30"]),
        (("Mo, 02.06.2025", "Di, 03.06.2025"), ["2025-06-02", "2025-06-03"]),
        (("Tue 29/07/2025", "Wed 30/07/2025"), ["2025-07-29", "2025-07-30"]),
        (("20250529.0", "20250530.0"), ["2025-05-29", "2025-05-30"]),
        (("lun. 30/06/2025", "mar. 01/07/2025", "Sel, 08/07/2025"), ["2025-06-30", "2025-07-01", "2025-07-08"]),
        (("29-MAY-25 12.00.00.000000000 AM", "30-MAY-25 12.00.00 PM"), ["2025-05-29", "2025-05-30"]),
        (("45839,5", "45840,25"), ["2025-07-01", "2025-07-02"]),
        ((29052025, 1062025, 2062025), ["2025-05-29", "2025-06-01", "2025-06-02"]),
    ],
)
def test_more_ways_to_write_a_day(cells, days):
    assert read(*cells)[0] == days


def test_text_in_utc_that_is_midnight_elsewhere_is_told():
    made = read_dates(pd.Series(["2025-07-01T17:00:00Z", "2025-07-02T17:00:00Z"]), "at", today=TODAY)
    assert any("17:00 UTC, a midnight elsewhere" in note for note in made.notes)
    assert not read_dates(pd.Series(["2025-07-01T00:00:00Z", "2025-07-02T00:00:00Z"]), "at", today=TODAY).notes


@pytest.mark.parametrize("cells", [("2025-Q1", "2025-Q2"), ("Q1 2025", "Q2 2025"), ("2024", "2025")])
def test_quarters_and_years_are_no_periods(cells):
    """No format reads them, so that none is asked for."""
    with pytest.raises(InputError, match="days, weeks or months") as told:
        read(*cells)
    assert "date_format" not in str(told.value)


def test_what_other_pieces_of_a_column_told_is_not_asked_again():
    """A table in several files has one way to write dates; which, the whole of it tells."""
    told = read_dates(pd.Series(["31/07/2025", "03/04/2025"]), "Day").orders
    found = read_dates(pd.Series(["03/04/2025", "01.02.2025"]), "Day", orders=told)
    assert found.days.tolist() == [pd.Timestamp("2025-04-03"), pd.Timestamp("2025-02-01")]
    assert found.orders == {**told, **read_dates(pd.Series(["01.02.2025"]), "Day").orders}
    with pytest.raises(Undecided):
        read_dates(pd.Series(["03/04/2025"]), "Day")
