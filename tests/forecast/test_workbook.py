"""A forecast as a spreadsheet."""

import math
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from python_calamine import CalamineWorkbook

from ipybatch.errors import MissingExtra
from ipybatch.forecast.workbook import write_workbook


def forecast_of(*parts):
    return pd.DataFrame(
        {
            "site": pd.Categorical(["Kendari"] * len(parts)),
            "part": pd.Categorical(parts),
            "date": pd.date_range("2025-09-01", periods=len(parts)),
            "forecast": [1.5, *[math.nan] * (len(parts) - 1)],
            "model_used": "ses",
        }
    )


def rows_of(path: Path, sheet: int = 0):
    return CalamineWorkbook.from_path(path).get_sheet_by_index(sheet).to_python()


def test_dates_are_dates_numbers_numbers_and_text_is_text(tmp_path):
    """Text that begins like a formula or is a number in quotes stays what it is; a missing number is an empty cell."""
    path = tmp_path / "x.xlsx"
    write_workbook([forecast_of("=1+1", "007")], path)
    assert rows_of(path) == [
        ["site", "part", "date", "forecast", "model_used"],
        ["Kendari", "=1+1", date(2025, 9, 1), 1.5, "ses"],
        ["Kendari", "007", date(2025, 9, 2), "", "ses"],
    ]


def test_a_part_number_stays_a_number(tmp_path):
    path = tmp_path / "x.xlsx"
    write_workbook([forecast_of("a").assign(part=17)], path)
    assert rows_of(path)[1][1] == 17


def test_frames_follow_one_another_and_a_full_sheet_is_followed_by_another(tmp_path):
    path = tmp_path / "x.xlsx"
    write_workbook([forecast_of("a", "b"), forecast_of("c")], path, most_rows=3)
    assert CalamineWorkbook.from_path(path).sheet_names == ["forecast", "forecast 2"]
    assert [row[1] for row in rows_of(path)] == ["part", "a", "b"]
    assert [row[1] for row in rows_of(path, 1)] == ["part", "c"]


def test_without_rows_there_are_titles(tmp_path):
    path = tmp_path / "x.xlsx"
    write_workbook([forecast_of("a").iloc[:0]], path)
    assert rows_of(path) == [["site", "part", "date", "forecast", "model_used"]]


def test_where_nothing_writes_one_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("ipybatch.forecast.workbook.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"ipybatch\[forecast\]"):
        write_workbook([forecast_of("a")], tmp_path / "x.xlsx")
