"""Charts of forecasts and of evaluations."""

import re

import numpy as np
import pandas as pd
import pytest

from ipybatch.errors import InputError, MissingExtra
from ipybatch.forecast import evaluate
from ipybatch.forecast.charts import chart
from ipybatch.forecast.evaluation import Evaluation
from ipybatch.forecast.models.model_selection import run_partition
from ipybatch.forecast.settings import Settings
from tests.forecast.retail import START, matrix, table


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


def test_a_label_has_room_beyond_the_bar_on_its_side():
    """Of a bar to the left it was cut off."""
    figure = Evaluation({key: [0.9, np.nan] for key in ("rmsse", "mase", "wape")} | {"bias": [-0.2, 0.1]}).chart()
    for bar, axis in zip(figure.data, figure.select_xaxes(), strict=True):
        low, high = min(0, *np.nan_to_num(bar.x)), np.nanmax(bar.x)
        assert (axis.range[0] < low) == (low < 0)
        assert axis.range[1] > high
    assert figure.data[3].textposition == "outside"


def test_the_worst_series_are_drawn_with_each_origins_forecast_and_interval():
    found = evaluate(table(matrix(20)), horizon=5, origins=2, models=("ses",))
    figure = found.chart(worst=3)
    lines = [line.name for line in figure.data]
    assert lines == ["interval", "forecast", "interval", "forecast", "sold"] * 3
    worst = found.by_series()["rmsse"].nlargest(3)
    titles = [one.text for one in figure.layout.annotations]
    assert [title.partition(":")[0] for title in titles] == [f"{site}, {part}" for site, part in worst.index]
    assert f"RMSSE {worst.iloc[0]:.2f}" in titles[0]
    past, ahead = figure.data[4], figure.data[1]
    assert max(past.x) == max(*ahead.x, *figure.data[3].x)


def test_the_worst_series_may_be_those_with_the_most_pieces_off():
    found = evaluate(table(matrix(20)), horizon=5, origins=2, models=("ses",))
    site, part = found.by_series()["absolute_error"].idxmax()
    (title,) = [one.text for one in found.chart(worst=1, by="absolute_error").layout.annotations]
    assert title.startswith(f"{site}, {part}: ")
    assert "pieces off" in title


def test_a_series_that_never_moved_is_said_to_have_no_measure():
    """Instead of "RMSSE nan"; those that have one come first, and a bar without a value has a dash."""
    frame = pd.concat([table(matrix(2) + 1), table(np.full((1, 80), 3.0), "steady"), table(np.eye(1, 80), "once")])
    frame.loc[(frame["site"] == "once").to_numpy(), "date"] += pd.Timedelta(days=1)
    found = evaluate(pd.concat([frame, frame[frame["site"] == "once"].assign(date=START)]), horizon=5, models=("ses",))
    titles = [one.text for one in found.chart(worst=4).layout.annotations]
    assert all(re.search(r": RMSSE \d", title) for title in titles[:-1])
    assert titles[-1] == "steady, p0000: never moved, so that it has no RMSSE, smooth, ses"
    (title,) = [one.text for one in found.chart(worst=4, by="wape").layout.annotations if "once" in one.text]
    assert "sold nothing, so that it has no WAPE" in title
    steady = evaluate(table(np.full((1, 80), 3.0)), horizon=5, models=("ses",)).chart()
    assert set(steady.data[0].text) == {"\u2013"}
    assert set(steady.data[2].text) == {"0.000"}


def test_a_number_of_worst_series_out_of_range_is_refused():
    found = evaluate(table(matrix(5)), horizon=5, origins=1, models=("ses",))
    with pytest.raises(InputError, match="worst must be 1 to 12"):
        found.chart(worst=13)
    with pytest.raises(InputError, match="by one of"):
        found.chart(worst=2, by="luck")
    with pytest.raises(InputError, match="must come from evaluate"):
        Evaluation({"rmsse": [1.0]}).chart(worst=1)


def test_a_name_is_said_once_in_the_legend():
    figure = evaluate(table(matrix(5)), horizon=5, origins=2, models=("ses",)).chart(worst=2)
    assert [line.name for line in figure.data if line.showlegend] == ["interval", "forecast", "sold"]


def test_without_plotly_a_sentence_says_what_to_install(monkeypatch):
    def lost(name):
        raise ImportError(name)

    found = evaluate(table(matrix(5)), horizon=5, origins=1, models=("ses",))
    monkeypatch.setattr("ipybatch.forecast.charts.import_module", lost)
    with pytest.raises(MissingExtra, match=r"ipybatch\[forecast\]"):
        found.chart(worst=1)
