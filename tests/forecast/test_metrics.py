import math

import numpy as np
import pytest

from ipybatch.forecast import metrics
from ipybatch.forecast.metrics import CLASSES

HISTORY = np.array([[1.0, 3.0, 1.0, 3.0], [0.0, 0.0, 0.0, 0.0]])  # steps of 2; and none
ACTUAL = np.array([[4.0, 2.0], [0.0, 2.0]])
FORECAST = np.array([[2.0, 2.0], [1.0, 1.0]])


def test_scaled_errors_are_in_steps_of_the_history():
    """By hand: errors 2 and 0, so sqrt(4 / 2 / 4) and 1 / 2; what never moved is left out."""
    assert metrics.rmsse(HISTORY, ACTUAL, FORECAST) == pytest.approx(math.sqrt(0.5))
    assert metrics.mase(HISTORY, ACTUAL, FORECAST) == pytest.approx(0.5)


def test_pooled_measures_are_over_everything():
    assert metrics.wape(ACTUAL, FORECAST) == pytest.approx(4 / 8)
    assert metrics.bias(ACTUAL, FORECAST) == pytest.approx(-2 / 8)
    assert metrics.pooled_rmse(ACTUAL, FORECAST) == pytest.approx(math.sqrt(6 / 4))
    assert metrics.coverage(ACTUAL, FORECAST - 1, FORECAST + 1) == pytest.approx(3 / 4)


def test_nothing_to_measure_by_is_nan():
    nothing = np.zeros((2, 3))
    assert math.isnan(metrics.rmsse(nothing, nothing, nothing))
    assert math.isnan(metrics.wape(nothing, nothing))
    assert math.isnan(metrics.bias(nothing, nothing))


def test_nothing_ever_has_a_bias_of_minus_one():
    """Why bias stands beside the rest: of lumpy demand, no other measure sees it."""
    assert metrics.bias(ACTUAL, np.zeros_like(ACTUAL)) == -1


def test_demand_is_classed_by_how_often_and_how_evenly_it_sells():
    smooth, intermittent = [5, 6, 5, 6, 5, 6, 5, 6], [5, 0, 0, 5, 0, 0, 0, 6]
    erratic, lumpy = [1, 40, 2, 1, 50, 1, 2, 1], [1, 0, 0, 60, 0, 0, 0, 1]
    numbers = metrics.demand_classes(np.array([smooth, intermittent, erratic, lumpy], dtype=float))
    assert [CLASSES[number] for number in numbers] == ["smooth", "intermittent", "erratic", "lumpy"]
