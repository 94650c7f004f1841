"""Understanding: how a table was read is shown and recorded; what its data does not decide is asked."""

import inspect
import io

import pandas as pd
import pytest

from ipybatch import BatchSession, InputError
from ipybatch.forecast import analyze, forecast
from ipybatch.forecast.data.understanding import Answer, Undecided, Understanding

FIRST, LAST = pd.Timestamp("2025-07-01"), pd.Timestamp("2025-08-31")
TITLES = "lokasi;kode barang;tanggal;jumlah"


def rows(day="{:02}.07.2025", number="{:.3f}", sep=";", titles=TITLES):
    """Two sites and parts, 30 days; 7.431 or 12.590 a day."""
    made = [
        sep.join((site, f"K{part}", day.format(at), number.format((7.431, 12.590)[at % 2])))
        for site in ("Kendari", "Sofifi")
        for part in range(2)
        for at in range(1, 31)
    ]
    return io.StringIO("\n".join([titles.replace(";", sep), *made]) + "\n")


def test_all_that_was_understood_is_shown():
    found = analyze(rows(), timed=False)
    assert found.table.understood.lines() == (
        "read site from 'lokasi', part from 'kode barang', date from 'tanggal', quantity from 'jumlah'",
        "numbers have a decimal comma and thousands separated by a point",
        "dates are written '01.07.2025' (day, month, year); daily, as the dates lie, 2025-07-01 to 2025-07-30",
        "its text is utf-8, its columns are separated by semicolons",
    )
    for line in (*found.table.understood.lines(), "'12.590' in jumlah was read as 12,590"):
        assert line in repr(found)
        assert line.split(" in ")[0].replace("'", "&#x27;") in found._repr_html_()


def test_what_needs_no_reading_is_not_spoken_of():
    columns = {name: name for name in ("site", "part", "date", "quantity")}
    plain = Understanding(columns=columns, freq="W", first=FIRST, last=LAST, is_inferred=False)
    assert plain.lines() == (
        "read site from 'site', part from 'part', date from 'date', quantity from 'quantity'",
        "weekly, 2025-07-01 to 2025-08-31",
    )


def test_it_stands_in_the_log_and_is_recorded(tmp_path):
    """What was certain, and what was decided by evidence; the notes of a recorded session have it too."""
    journal = tmp_path / "journal.sqlite"
    made = forecast(rows(), horizon=1, models=["naive"], by=None, name="run", journal=journal)
    log = "\n".join(map(str, made.log().to_numpy().ravel()))
    assert "read site from 'lokasi'" in log
    assert "'12.590' in jumlah was read as 12,590" in log
    made.run()
    assert (made.results()["forecast"] > 7000).all()
    assert any("date from 'tanggal'" in note for note in BatchSession.open("run", journal=journal).snapshot.notes)


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({"sep": "\t"}, {"decimal": ".", "thousands": "."}),
        ({"day": "25/07/{:02}", "titles": TITLES}, {}),
    ],
)
def test_what_is_asked_can_be_answered(given, arguments):
    """Each answer is an argument of all three calls, and settles it."""
    if not arguments:
        assert "date_format='%d/%m/%y'" in repr(analyze(rows(**given), timed=False))
        return
    with pytest.raises(Undecided) as asked:
        analyze(rows(**given), timed=False)
    assert {answer.argument: answer.value for answer in asked.value.answers} == arguments
    for answer in asked.value.answers:
        assert answer.argument in inspect.signature(forecast).parameters
        found = analyze(rows(**given), timed=False, **{answer.argument: answer.value})
        assert found.table.frame["quantity"].max() == float(answer.reading.replace(",", ""))


def test_a_question_names_column_cell_and_readings():
    asked = Undecided("qty", "1.234", [Answer("decimal", ".", "1.234"), Answer("thousands", ".", "1,234")], what="one")
    assert str(asked) == (
        "demand must have one in 'qty', got '1.234',"
        " which may be 1.234 (decimal='.') or 1,234 (thousands='.'): say which"
    )


def test_a_mistyped_year_is_told_before_training(tmp_path):
    """By its row; its partition fails, and no forecast begins in 2052."""
    table = pd.DataFrame(
        [(site, "p", day, 1) for site in "ab" for day in pd.date_range(FIRST, LAST)],
        columns=["site", "part", "date", "quantity"],
    )
    table.loc[7, "date"] = pd.Timestamp("2052-08-01")
    made = forecast(
        table, horizon=1, models=["naive"], name="far", on_failure="continue", journal=tmp_path / "j.sqlite"
    )
    assert any("2052-08-01 (row 7)" in note for note in made.snapshot.notes)
    (problem,) = analyze(table, timed=False).problems
    assert str(problem) == "Date 2052-08-01 far from all others (2025-07-01 to 2025-08-31) in row 7"
    made.run()
    assert made.partitions()["status"].tolist().count("failed") == 1
    assert made.results()["date"].unique().tolist() == [pd.Timestamp("2025-09-01")]


@pytest.mark.parametrize(
    ("written", "freq"),
    [("2025M11", "M"), ("2025-W31", "W"), ("Jul-25", "M"), ("2025-W31-4", "D"), ("2025-07-01", "D")],
)
def test_a_month_or_a_week_that_is_written_so_is_one(written, freq):
    """However few there are."""
    table = pd.DataFrame({"site": ["a"], "part": "p", "date": written, "quantity": 1})
    assert analyze(table, timed=False).table.freq == freq
    assert analyze(table, timed=False, freq="D").table.freq == "D"


def test_months_or_weeks_of_one_year_are_asked_about_by_name():
    """However they are written; the period that the user says is an answer, too."""
    periods = [f"2025{number:02}" for number in range(1, 13)]
    table = pd.DataFrame({"site": "a", "part": "p", "Fiscal Period": periods, "quantity": 1})
    told = r"'Fiscal Period', got '202501', which may be 2025-01-01 \(.*'%Y%m'\) or 2024-12-30 \(.*'%G%V'\)"
    with pytest.raises(InputError, match=told):
        analyze(table, timed=False)
    for given, freq in (({"freq": "M"}, "M"), ({"freq": "W"}, "W"), ({"date_format": "%G%V"}, "W")):
        made = analyze(table, timed=False, **given).table
        assert (made.freq, len(made.frame)) == (freq, 12)


def test_days_ahead_of_today_and_weeks_that_are_not_quite_ones_are_told():
    days = pd.date_range(pd.Timestamp.today().normalize() - pd.Timedelta(weeks=30), periods=40, freq="7D").tolist()
    days[3] += pd.Timedelta(days=1)
    table = pd.DataFrame({"site": "a", "part": "p", "date": days, "quantity": 1})
    notes = "\n".join(analyze(table, timed=False).notes)
    assert "9 rows lie ahead of today" in notes
    assert "all days but 1 lie on one day of the week: freq='W'" in notes
