import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from threadpoolctl import threadpool_info

from ipybatch.errors import InputError
from ipybatch.forecast import chart
from ipybatch.forecast.evaluation import CHOSEN, Evaluation, evaluate
from ipybatch.forecast.models.matrix import bias, rmsse
from ipybatch.forecast.models.model_selection import run_partition
from ipybatch.forecast.models.series_models import naive
from ipybatch.forecast.settings import Settings
from tests.forecast.retail import matrix, table


def test_models_stand_beside_naive_and_seasonal_naive():
    found = evaluate(table(matrix(40)), horizon=5, models=("tsb", "imapa"))
    assert list(found.index) == [CHOSEN, "tsb", "imapa", "naive", "seasonal_naive"]
    assert list(found.columns) == ["mase", "rmsse", "wape", "bias", "pooled_rmse", "coverage"]
    assert found.loc["imapa", "rmsse"] < found.loc["naive", "rmsse"]
    assert found.attrs["origins"] == ["2025-08-05", "2025-08-10", "2025-08-15"]


def test_the_measures_are_the_means_over_the_origins():
    values = matrix(30)
    values[:, 0] = values[:, 1] = values[:, -1] = 1  # so that the table's span and every series are known
    found = evaluate(table(values), horizon=4, origins=2, models=("naive",))
    said = [(values[:, :cut], values[:, cut : cut + 4], naive(values[:, :cut], 4, 7)) for cut in (72, 76)]
    assert found.loc["naive", "rmsse"] == pytest.approx(np.mean([rmsse(*one) for one in said]))
    assert found.loc["naive", "bias"] == pytest.approx(np.mean([bias(*one[1:]) for one in said]))


def test_more_origins_than_the_table_holds_are_refused():
    with pytest.raises(
        InputError, match="horizon times origins must be at most 78 of the table's 80 periods, got 40 x 2"
    ):
        evaluate(table(matrix(10)), horizon=40, origins=2)


def test_an_unclean_table_is_refused():
    frame = table(matrix(10))
    frame.loc[3, "quantity"] = -1
    with pytest.raises(InputError, match="row 3"):
        evaluate(frame, horizon=2)


def test_the_chart_has_a_bar_per_model_and_measure():
    found = evaluate(table(matrix(20)), horizon=5, models=("imapa",))
    figure = found.chart()
    assert len(figure.data) == 4
    assert list(figure.data[0].y) == list(found.index)[::-1]


def test_forecasts_are_drawn_with_their_intervals_and_their_past():
    frame = table(matrix(10))
    results = run_partition(frame, Settings(horizon=5, models=("imapa",)))
    figure = chart(results, frame, series=[("a", "p0001"), ("a", "p0002")])
    assert [line.name for line in figure.data] == ["interval", "forecast", "sold"] * 2
    assert len(chart(results).data) == 8


def test_text_of_a_table_stays_text_in_a_chart():
    results = run_partition(table(matrix(3), site="<b>a</b>"), Settings(horizon=2, models=("imapa",)))
    titles = [one.text for one in chart(results).layout.annotations]
    assert all("<b>" not in title for title in titles)


def test_a_series_that_is_not_there_is_refused():
    results = run_partition(table(matrix(3)), Settings(horizon=2, models=("imapa",)))
    with pytest.raises(InputError, match="series must be pairs of site and part"):
        chart(results, series=[("a", "none")])
    with pytest.raises(InputError, match="series must be 1 to 12"):
        chart(results, series=[])
    assert isinstance(results, pd.DataFrame)


def test_models_train_with_one_thread():
    """Several on busy cores take ten times as long."""
    seen = []

    class Watched(LinearRegression):
        def fit(self, rows, target):
            seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp")
            return super().fit(rows, target)

    evaluate(table(matrix(20)), horizon=5, origins=1, models=[Watched()])
    assert set(seen) == {1}


def test_a_label_has_room_beyond_the_bar_on_its_side():
    """Of a bar to the left it was cut off."""
    figure = Evaluation({key: [0.9, np.nan] for key in ("rmsse", "mase", "wape")} | {"bias": [-0.2, 0.1]}).chart()
    for bar, axis in zip(figure.data, figure.select_xaxes(), strict=True):
        low, high = min(0, *np.nan_to_num(bar.x)), np.nanmax(bar.x)
        assert (axis.range[0] < low) == (low < 0)
        assert axis.range[1] > high
    assert figure.data[3].textposition == "outside"
