"""Scores of a partition at an origin."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from ipybatch.forecast.models import matrix as measured
from ipybatch.forecast.models.matrix import series_of
from ipybatch.forecast.models.model_selection import run_partition
from ipybatch.forecast.scoring import CHOSEN, SUMS, Later, measures, score, score_alone
from ipybatch.forecast.settings import Settings
from tests.forecast.retail import START, matrix, table

HORIZON, DAYS = 7, 60
END = f"{START + pd.Timedelta(days=DAYS - 1):%Y-%m-%d}"


def at_origin(values):
    """The rows before and after the origin, and the settings there."""
    frame, day = table(values), START + pd.Timedelta(days=DAYS - HORIZON - 1)
    settings = Settings(
        horizon=HORIZON, start=f"{START:%Y-%m-%d}", end=f"{day:%Y-%m-%d}", models=("naive", "ses", "imapa")
    )
    return frame[frame["date"] <= day], frame[frame["date"] > day], settings


def test_the_score_of_what_is_delivered_is_that_of_run_partition():
    values = matrix(30, DAYS)
    values[:, :2] = 1  # every series is scored
    frame, rows, settings = at_origin(values)
    made = run_partition(frame, settings)
    sums = score(frame, Later(rows, END), settings, ("sba",)).sums
    assert list(dict.fromkeys(sums["model"])) == [CHOSEN, "naive", "ses", "imapa", "sba"]
    found = measures(sums[sums["model"] == CHOSEN][list(SUMS)].sum().to_frame().T).iloc[0]
    before, came = np.split(series_of(table(values), "D", start=settings.start, end=END).values, [-HORIZON], axis=1)
    told, lo, hi = (made[name].to_numpy().reshape(came.shape) for name in ("forecast", "lo", "hi"))
    assert found["rmsse"] == pytest.approx(measured.rmsse(before, came, told))
    assert found["mase"] == pytest.approx(measured.mase(before, came, told))
    assert found["wape"] == pytest.approx(measured.wape(came, told))
    assert found["pooled_rmse"] == pytest.approx(measured.pooled_rmse(came, told))
    assert found["coverage"] == pytest.approx(measured.coverage(came, lo, hi))


def test_series_that_sold_once_and_those_named_are_not_scored_but_forecast():
    values = matrix(10, DAYS)
    values[0], values[1:3, :2] = 0, 1
    values[0, 3] = 5
    frame, rows, settings = at_origin(values)
    unscored = pd.DataFrame({"site": ["a"], "part": ["p0001"]})
    made = score(frame, Later(rows, END, unscored), settings, ())
    assert {"p0000", "p0001"}.isdisjoint(made.series["part"])
    assert "p0002" in set(made.series["part"])
    assert {"p0000", "p0001"} <= set(made.forecast["part"])


def test_parts_that_begin_after_the_origin_are_left_out():
    values = matrix(10, DAYS)
    values[4, :-HORIZON], values[4, -HORIZON:] = 0, 3
    frame, rows, settings = at_origin(values)
    made = score(frame, Later(rows, END), settings, ())
    assert "p0004" not in set(made.forecast["part"])


def test_a_model_by_itself_is_called_by_its_label():
    frame, rows, settings = at_origin(matrix(10, DAYS))
    sums = score_alone(frame, Later(rows, END), settings, {"ses": "their ses"})
    assert set(sums["model"]) == {"their ses"}
    own = score(frame, Later(rows, END), settings, ()).sums
    expected = own[own["model"] == "ses"].reset_index(drop=True)
    pd.testing.assert_frame_equal(sums.drop(columns="model"), expected.drop(columns="model"))


def test_nothing_is_measured_of_nothing():
    assert measures(pd.DataFrame([dict.fromkeys(SUMS, 0)])).isna().all(axis=None)


def test_models_of_single_series_load_no_scikit_learn():
    """It takes a second, in this process and in each of a partition."""
    code = (
        "import sys; from ipybatch.forecast import evaluate; from ipybatch.simulators import demand;"
        " evaluate(demand(300, 2, parts=10), horizon=3, origins=1, models=['ses'], baselines=['naive']);"
        " print('sklearn' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
