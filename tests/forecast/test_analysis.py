"""An analysis says what a forecast would be, and whether batch mode pays."""

import pandas as pd
import pytest

from ipybatch import InputError
from ipybatch.forecast.analysis import analyze
from ipybatch.forecast.partitions import SIZES
from ipybatch.forecast.timing import Timing
from ipybatch.simulators.demand import demand


def looked(table=None, **given):
    return analyze(demand() if table is None else table, timed=False, **given)


def test_the_described_table_is_described():
    """11,919 rows, 13 sites, 2,070 parts, 13 partitions: batch mode pays."""
    found = looked()
    assert (found.rows, found.sites, found.parts, len(found.partitions)) == (11_919, 13, 2_070, 13)
    assert found.pays
    assert found.why == "11,919 rows are more than 5,000, 13 sites are 5 or more, 2,070 parts are 500 or more"
    assert "days without a row count as zero from 2025-07-01 on, the table's start, for every series" in found.notes


@pytest.mark.parametrize(
    ("rows", "sites", "parts", "pays"),
    [
        (5000, 4, 499, False),
        (5001, 4, 499, True),
        (1000, 5, 100, True),
        (1000, 4, 500, True),
        (1000, 4, 499, False),
    ],
)
def test_batch_mode_pays_for_large_tables(rows, sites, parts, pays):
    """Above 5,000 rows, or from 5 sites or 500 parts on."""
    found = looked(demand(rows, sites, parts=parts))
    assert found.pays is pays
    assert ("at most" in found.why) is not pays


def test_seconds_are_reckoned_from_what_was_measured():
    """Two workers share 13 partitions; one job trains all series after the same start."""
    found = looked(workers=2)
    assert (found.seconds, found.normal_s, found.speed_up) == (None, None, None)
    measured = Timing(start_s=2.0, fixed_s=0.5, per_series_s=0.001, samples=((50, 0.55), (1000, 1.5)))
    timed = type(found)(**{**{name: getattr(found, name) for name in found.__slots__}, "timing": measured})
    assert timed.normal_s == pytest.approx(2 + 0.5 + 6.39)
    assert 2 + (6.5 + 6.39) / 2 <= timed.seconds < timed.normal_s
    assert timed.speed_up == timed.normal_s / timed.seconds
    assert timed.to_frame()["seconds"].iloc[0] == measured.alone_s(timed.series_of[0])


def test_a_machine_is_measured():
    found = analyze(demand(300), horizon=5, models=["naive"])
    assert found.timing is not None
    assert found.seconds > 0


def test_a_model_that_fails_leaves_only_the_seconds_unknown():
    class Broken:
        def fit(self, *_):
            raise ValueError("boom")

        def predict(self, *_):
            raise ValueError("boom")

    found = analyze(demand(300), horizon=5, models=[Broken()])
    assert found.seconds is None
    assert found.notes[-1].startswith("how long it takes is not known: a sample could not be trained: ")


def test_the_frame_has_a_row_for_each_partition():
    frame = looked().to_frame()
    assert list(frame.columns) == ["partition", "name", "sites", "parts", "series", "rows", "seconds", "problems"]
    assert frame["rows"].sum() == 11_919
    assert frame["series"].sum() == looked().series


def test_every_problem_is_told_and_nothing_raised():
    """That is what an analysis is for; a run refuses what belongs to no partition."""
    frame = demand().astype({"date": str})
    frame.loc[6000, "date"] = "31/13/2025"
    frame.loc[7, "site"] = None
    found = looked(frame)
    assert [str(problem) for problem in found.problems] == [
        "Missing site in row 7",
        "Invalid date format '31/13/2025' in row 6000",
    ]
    assert found.rows == 11_917
    assert found.to_frame()["problems"].sum() == 1


def test_normal_mode_is_analyzed_as_what_is_asked_for():
    found = looked(by=None, sites=["Sofifi"])
    assert (found.rows, found.sites, len(found.partitions), found.workers) == (1295, 1, 1, 1)


def test_the_size_table_holds():
    """What the card promises is what a cut by size makes."""
    for rows, told in SIZES:
        low, high = _range(told)
        assert low <= len(looked(demand(rows), by="size").partitions) <= high


def _range(told):
    numbers = [int(word) for word in told.split() if word.isdigit()]
    return numbers[0], numbers[-1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"workers": 0}, "workers must be a whole number >= 1, got 0"),
        ({"horizon": 0}, "horizon must be a whole number >= 1, got 0"),
        ({"max_rows": 0}, "max_rows must be a whole number >= 1, got 0"),
        ({"columns": {"site": "x"}}, "must be a column of demand"),
        ({"models": ["prophet"]}, "models must be one of"),
    ],
)
def test_bad_arguments_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        looked(**given)


def test_empty_is_refused():
    with pytest.raises(InputError, match="must have rows, got none"):
        looked(pd.DataFrame(columns=["site", "part", "date", "quantity"]))
