import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.errors import InputError
from ipybatch.forecast.settings import AUTO, Settings
from ipybatch.forecast.training import run_partition, whole
from tests.forecast.retail import START, matrix, table


def test_every_series_has_a_row_for_each_period_ahead():
    made = run_partition(table(matrix(20) + 1), Settings(horizon=3, models=("imapa", "tsb")))
    assert list(made.columns) == ["site", "part", "date", "forecast", "lo", "hi", "model_used", "reason"]
    assert len(made) == 60
    assert made[["site", "part", "date"]].duplicated().sum() == 0
    assert made["date"].iloc[0] == START + pd.Timedelta(days=80)
    assert not made.isna().any().any()
    assert "count as zero" in made.attrs["note"]


def test_all_models_forecast_within_their_intervals():
    made = run_partition(table(matrix(40)), Settings(horizon=7))
    assert set(made["model_used"].unique()) <= set(AUTO)
    assert ((made["lo"] >= 0) & (made["lo"] <= made["forecast"]) & (made["forecast"] <= made["hi"])).all()
    assert 0.5 < made.attrs["coverage"] < 1


def test_same_rows_same_forecast():
    frame = table(matrix(30))
    pd.testing.assert_frame_equal(*(run_partition(frame, Settings(horizon=4)) for _ in range(2)))


def test_the_order_of_the_rows_does_not_matter():
    frame = table(matrix(30))
    turned = frame.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(*(run_partition(rows, Settings(horizon=4)) for rows in (frame, turned)))


@given(
    rows=st.lists(st.lists(st.floats(0, 50), min_size=5, max_size=5), min_size=1, max_size=4),
)
def test_whole_pieces_keep_the_total(rows):
    """0.3 a day for ten days is three pieces, not none."""
    forecast = np.array(rows)
    pieces = whole(forecast)
    assert (pieces == np.rint(pieces)).all()
    assert (pieces >= 0).all()
    assert (np.abs(pieces.sum(axis=1) - forecast.sum(axis=1)) <= 0.5 + 1e-6).all()


def test_integers_are_whole_within_whole_intervals():
    made = run_partition(table(matrix(20)), Settings(horizon=5, models=("imapa",), integer=True))
    for column in ("forecast", "lo", "hi"):
        assert (made[column] % 1 == 0).all()
    assert ((made["lo"] <= made["forecast"]) & (made["forecast"] <= made["hi"])).all()


def test_one_row_is_enough():
    made = run_partition(table(matrix(1, 1) + 3), Settings(horizon=2))
    assert made["forecast"].tolist() == [made["forecast"].iloc[0]] * 2
    assert made["reason"].iloc[0] == "1 periods are too few to choose by"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"horizon": 0}, "horizon must be a whole number >= 1, got 0"),
        ({"freq": "Q"}, "freq must be one of 'D', 'W', 'M', got 'Q'"),
        ({"level": 1}, "level must be >= 0.01 and <= 0.999, got 1"),
        ({"models": ()}, "models must name at least one"),
        ({"models": ("prophet",)}, "models must be one of .*, got 'prophet'"),
        ({"models": (3,)}, "models must be names or have fit and predict, got 3"),
        ({"select": "luck"}, "select must be one of 'squared', 'pinball', got 'luck'"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, told):
    with pytest.raises(InputError, match=told):
        Settings(**({"horizon": 3} | wrong))
