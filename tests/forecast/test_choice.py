import numpy as np
import pytest

from ipybatch.forecast.candidates import candidates
from ipybatch.forecast.choice import choose, origins_of, trial_horizon, try_models
from ipybatch.forecast.metrics import CLASSES
from ipybatch.forecast.settings import AUTO, Settings
from tests.forecast.retail import matrix, series


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
    names, reasons = chosen(SMOOTH, {"far": Constant(5.9), "near": Constant(5)})
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


@pytest.mark.parametrize("days", [1, 3])
def test_too_few_periods_to_choose_by_are_told(days):
    names, reasons = chosen(SMOOTH[:, :days], {"naive": Constant(1), "imapa": Constant(5)})
    assert set(names) == {"imapa"}
    assert set(reasons) == {f"{days} periods are too few to choose by"}


def test_the_choice_on_mixed_demand_is_whole():
    values = matrix(50, 60)
    models = candidates(Settings(horizon=5, models=AUTO))
    past = series(values)
    choice = choose(past, try_models(past, models, 5, 2), tuple(models), "squared")
    assert len(choice.best) == len(choice.why) == 50
    assert set(choice.classes) <= set(range(len(CLASSES)))
