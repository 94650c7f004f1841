"""Which model each series gets, its interval, and a partition's forecasts."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.errors import InputError
from ipybatch.forecast.models.global_model import Prior
from ipybatch.forecast.models.intervals import spread
from ipybatch.forecast.models.life import held
from ipybatch.forecast.models.matrix import CLASSES, coverage, demand_classes, series_of
from ipybatch.forecast.models.model_registry import SeriesModel, candidates
from ipybatch.forecast.models.model_selection import (
    choose,
    origins_of,
    run_partition,
    trial_horizon,
    try_models,
    whole,
    widths_of,
)
from ipybatch.forecast.models.series_models import naive
from ipybatch.forecast.settings import AUTO, Settings
from ipybatch.simulators import demand
from tests.forecast.retail import START, matrix, series, table


class Constant:
    """Says one thing; remembers how much it was shown."""

    def __init__(self, value):
        self.value = value
        self.fitted, self.predicted = [], []

    def fit(self, past, horizon):
        self.fitted.append(past.values.shape[1])

    def predict(self, past, horizon):
        self.predicted.append(past.values.shape[1])
        return np.full((len(past.values), horizon), float(self.value))


def chosen(values, models, select="squared", horizon=5):
    past = series(values)
    choice = choose(past, try_models(past, models, horizon, 2), tuple(models), select)
    return [choice.names[number] for number in choice.best], [choice.reasons[number] for number in choice.why]


SMOOTH = np.random.default_rng(0).integers(4, 7, (20, 40)).astype(float)


def test_the_model_that_was_clearly_better_at_every_origin_is_chosen():
    names, reasons = chosen(SMOOTH, {"imapa": Constant(5.9), "near": Constant(5)})
    assert set(names) == {"near"}
    assert set(reasons) == {"least squared error at 2 origins, smooth demand"}


def test_what_is_no_better_does_not_replace_the_default():
    names, reasons = chosen(SMOOTH, {"imapa": Constant(5.0), "same": Constant(5.001)})
    assert set(names) == {"imapa"}
    assert set(reasons) == {"no other was clearly better at 2 origins, smooth demand"}


def test_nothing_ever_is_not_chosen_where_something_sells():
    """It errs least where most values are zero, and is as biased as can be: the guard keeps it out."""
    values = (np.random.default_rng(1).random((300, 60)) < 0.08) * 5.0
    values = values[(values > 0).sum(axis=1) > 2]
    names, _ = chosen(values, {"imapa": Constant(0.45), "nothing": Constant(0)}, select="pinball")
    assert set(names) == {"imapa"}


def test_no_trial_shows_a_model_what_came_after_its_origin():
    model = Constant(5)
    try_models(series(SMOOTH), {"model": model}, 5, 2)
    assert model.fitted == [30]
    assert model.predicted == [35, 30]


def test_a_short_past_is_tried_over_a_shorter_horizon():
    assert trial_horizon(62, 30) == 15
    assert origins_of(62, 30, 2) == [47, 32]
    assert origins_of(400, 30, 3) == [370, 340, 310]
    assert origins_of(4, 30, 2) == []


@pytest.mark.parametrize(("days", "few"), [(1, "1 period is"), (3, "3 periods are")])
def test_too_few_periods_to_choose_by_are_told(days, few):
    names, reasons = chosen(SMOOTH[:, :days], {"naive": Constant(1), "imapa": Constant(5)})
    assert set(names) == {"imapa"}
    assert set(reasons) == {f"{few} too few to choose by"}


def test_the_choice_on_mixed_demand_is_whole():
    values = matrix(50, 60)
    models = candidates(Settings(horizon=5, models=AUTO))
    past = series(values)
    choice = choose(past, try_models(past, models, 5, 2), tuple(models), "squared")
    assert len(choice.best) == len(choice.why) == 50
    assert set(choice.classes) <= set(range(len(CLASSES)))


levels = st.floats(0.05, 0.99)
counts = st.lists(st.integers(0, 20), min_size=1, max_size=200).map(np.array)


def tried(past, *, horizon=7, origins=2, models=("imapa",)):
    made = candidates(Settings(horizon=horizon, models=models))
    trials = try_models(past, made, horizon, origins)
    choice = choose(past, trials, tuple(made), "squared")
    return trials, choice, choice.pick({name: one.predict(past, horizon) for name, one in made.items()})


def intervals(values, *, level=0.8, **asked):
    trials, choice, forecast = tried(series(values), **asked)
    return widths_of(trials, choice, level), forecast


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_intervals_hold_about_the_share_they_say(level):
    """Of demand that goes on as it was: 2,400 series, the 7 days after; more only where more than that is zero."""
    found = []
    for seed in range(8):
        values = matrix(300, 87, seed=seed)
        widths, forecast = intervals(values[:, :80], level=level)
        lo, hi = widths.around(forecast, values[:, :80])
        often = (values[:, :80] > 0).mean(axis=1) > 0.6
        whole = coverage(values[:, 80:], lo, hi)
        found.append((coverage(values[often, 80:], lo[often], hi[often]), whole, widths.coverage))
    held, whole, said = np.mean(found, axis=0)
    assert held == pytest.approx(level, abs=0.06)
    assert whole >= level - 0.03
    assert said >= level - 0.03


@pytest.mark.parametrize("model", ["tsb", "ses", "naive"])
def test_no_model_and_no_class_of_demand_is_held_far_less_than_the_level(model):
    """Out of origin, on parts that sell seldom: one width to both sides left out their zeros and held 0.3 of 0.8."""
    frame = demand()
    past = series_of(frame[frame["site"] == "Manado"], "D", start="2025-07-01", end="2025-08-31")
    known = past.until(47)
    trials, choice, forecast = tried(known, horizon=15, models=(model,))
    lo, hi = widths_of(trials, choice, 0.8).around(forecast, known.values)
    actual, sold = past.values[:, 47:], (known.values > 0).sum(axis=1)
    for rows in (sold == 1, sold > 1, sold > 4, demand_classes(known.values) == 3):
        assert coverage(actual[rows], lo[rows], hi[rows]) > 0.75


def test_zeros_are_held_where_mostly_nothing_sells():
    """Whatever is left out is left out at the top, for nothing lies below zero."""
    values = (np.random.default_rng(0).random((200, 60)) < 0.1) * 5.0
    widths, forecast = intervals(values)
    lo, _ = widths.around(forecast, values)
    assert not lo.any()


@given(seed=st.integers(0, 50), level=levels)
def test_a_forecast_lies_within_its_interval_and_no_end_is_below_zero(seed, level):
    values = matrix(10, 40, seed=seed)
    widths, forecast = intervals(values, level=level)
    lo, hi = widths.around(forecast, values)
    assert (lo >= 0).all()
    assert ((lo <= forecast) & (forecast <= hi)).all()


@given(seed=st.integers(0, 50), level=levels)
def test_of_what_they_were_made_from_intervals_hold_the_level(seed, level):
    past = series(matrix(30, 40, seed=seed))
    trials, choice, _ = tried(past)
    widths = widths_of(trials, choice, level)
    ends = [widths.around(choice.pick(trial.forecasts), trial.history) for trial in trials]
    inside = [
        (trial.actual >= lo - 1e-9) & (trial.actual <= hi + 1e-9) for trial, (lo, hi) in zip(trials, ends, strict=True)
    ]
    assert np.mean(inside) >= level


@given(seed=st.integers(0, 50), level=levels, more=levels)
def test_a_higher_level_holds_all_that_a_lower_does(seed, level, more):
    values = matrix(20, 60, seed=seed)
    trials, choice, forecast = tried(series(values))
    (lo, hi), (below, above) = (
        widths_of(trials, choice, one).around(forecast, values) for one in sorted((level, more))
    )
    assert ((below <= lo) & (hi <= above)).all()


@given(values=counts, level=levels)
def test_what_is_held_is_the_level_and_one_more(values, level):
    """Conformal: (n + 1) times the level, or all there are; what is equally far out stays or goes together."""
    lo, hi = held(values, level)
    inside = ((values >= lo) & (values <= hi)).sum()
    assert inside >= min(np.floor((len(values) + 1) * level - 1e-6), len(values))


def test_the_outermost_go_first():
    assert held(np.array([0, 0, 0, 0, 0, 0, 0, 1, 2, 9]), 0.8) == (0, 2)
    assert held(np.arange(19), 0.8) == (1, 17)
    assert np.isnan(held(np.array([]), 0.8)).all()


def test_one_origin_measures_no_coverage():
    assert np.isnan(intervals(matrix(20, 60), origins=1)[0].coverage)


def test_every_series_has_a_spread():
    assert (spread(np.array([[0.0, 0, 0], [5, 5, 5], [1, 2, 3]])) > 0).all()
    assert (spread(np.zeros((2, 3))) == 1).all()


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
    """In whatever order they come."""
    frame = table(matrix(15))
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
    assert made["reason"].iloc[0] == "1 period is too few to choose by"


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


def test_where_no_default_keeps_the_total_the_model_with_the_least_error_replaces_it():
    """Not the first of the list: naive is that, and errs most."""
    values = np.random.default_rng(0).poisson(6, (200, 60)).astype(float)
    wrong, right = Constant(1), Constant(6)
    names, _ = chosen(
        values, {"naive": SeriesModel(naive, 7), "gradient_boosting": wrong, "imapa": wrong, "own": right}
    )
    assert set(names) == {"own"}


def test_a_table_that_grows_as_a_whole_leaves_no_model_out_for_it():
    """All are far too low, for nobody could know: the default is no worse than the others, and stays."""
    values = np.random.default_rng(0).poisson(6, (200, 60)).astype(float)
    values[:, 50:] *= 3
    names, _ = chosen(values, {"naive": Constant(6.05), "gradient_boosting": Constant(6)})
    assert set(names) == {"gradient_boosting"}


def test_what_may_be_chance_leaves_no_model_out():
    """Three parts of which one sold much once."""
    values = np.random.default_rng(2).poisson(1, (3, 60)).astype(float)
    values[0, 55] = 60
    names, _ = chosen(values, {"naive": Constant(2), "gradient_boosting": Constant(1)})
    assert set(names) == {"gradient_boosting"}


def test_a_series_by_itself_is_too_few_to_replace_the_default():
    """Better at both origins, by luck as well as not: one is not sure, sixty that agree are."""
    values = np.random.default_rng(3).poisson(5, (60, 60)).astype(float)
    values[::2] += 3
    models = {"imapa": Constant(6.5), "other": Constant(6.45)}
    assert set(chosen(values, models)[0]) == {"imapa"}


def test_what_is_borrowed_says_with_which_model_a_small_partition_begins():
    past = series(SMOOTH)
    models = {"gradient_boosting": Constant(4.9), "imapa": Constant(5.0)}
    trials = try_models(past, models, 5, 2)
    choice = choose(past, trials, tuple(models), "squared", Prior({}, "imapa"))
    assert {choice.names[number] for number in choice.best} == {"imapa"}
