"""Which series are new, which dead, and what the new ones are forecast."""

import numpy as np
import pytest

from ipybatch.forecast.models.life import DEAD, MEAN_SINCE_START, NEW, ends_since_start, held, life_of, mean_since_start
from ipybatch.forecast.models.model_selection import run_partition
from ipybatch.forecast.settings import Settings
from tests.forecast.retail import matrix, table

DAYS = 300


def beside_others(own):
    """A partition of thirty other parts and this one, which comes last."""
    return table(np.vstack([matrix(30, own.shape[-1]), own]))


def forecast(own, **given):
    made = run_partition(beside_others(own), Settings(horizon=7, **given))
    return made[made["part"].astype(str) >= "p0030"], made.attrs


@pytest.mark.parametrize(("rate", "age", "days"), [(5, 20, 500), (2, 12, 200), (1, 60, 500), (40, 6, 120)])
def test_a_part_that_begins_late_and_keeps_selling_is_forecast_as_it_sells(rate, age, days):
    own = np.zeros((1, days))
    own[0, days - age :] = rate
    made, counted = forecast(own)
    assert made["forecast"].tolist() == pytest.approx([rate] * 7, rel=0.1)
    assert set(made["model_used"]) == {MEAN_SINCE_START}
    assert made["reason"].iloc[0].startswith("new: first sold 20")
    assert counted["new"] == 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rate", "age"), [(5.0, 20), (1.5, 60), (20.0, 10)])
def test_new_parts_sell_on_average_what_is_forecast_and_their_intervals_hold(rate, age, seed):
    rng = np.random.default_rng(seed)
    values = np.zeros((200, DAYS))
    values[:, DAYS - age :] = rng.poisson(rate, (200, age))
    life = life_of(values)
    new = life.kinds == NEW
    assert new.mean() > 0.98
    level = mean_since_start(values[new], life.starts[new], 7)
    assert level.mean() == pytest.approx(rate, rel=0.1)
    lo, hi = (ends * level for ends in ends_since_start(values[new], life.starts[new], 7, 0.8))
    came = rng.poisson(rate, (new.sum(), 7))
    share = ((came >= lo[:, None]) & (came <= hi[:, None])).mean()
    assert 0.77 < share < (0.93 if rate > 1 else 1)  # whole pieces: more where few values differ


def test_old_parts_that_sell_seldom_are_not_new():
    """Whatever the seed: a first sale in August says little of July."""
    rng = np.random.default_rng(0)
    for rate in (0.005, 0.02, 0.1, 1):
        kinds = life_of(rng.poisson(rate, (2000, DAYS)).astype(float)).kinds
        assert (kinds == NEW).mean() < 0.001
        assert (kinds == DEAD).mean() < 0.001


@pytest.mark.parametrize("late", [[-1], [-2, -1]])
def test_one_sale_or_two_are_no_beginning(late):
    own = np.zeros((1, DAYS))
    own[0, late] = 9
    assert life_of(own).kinds[0] != NEW


def test_a_part_that_began_late_and_has_ended_is_dead():
    own = np.zeros((1, DAYS))
    own[0, 200:240] = 5
    made, counted = forecast(own)
    assert (made["forecast"] < 0.5).all()
    assert made["reason"].iloc[0].startswith("dead: last sold 20")
    assert (counted["new"], counted["dead"]) == (0, 1)


def test_what_never_sold_is_neither():
    assert life_of(np.zeros((2, 50))).kinds.tolist() == [0, 0]


def test_parts_that_sell_seldom_are_counted():
    own = ((np.arange(DAYS) % 9 == 0) * 2.0)[None]
    made, counted = forecast(own)
    assert "intermittent demand" in made["reason"].iloc[0]
    assert counted["intermittent"] >= 1


def test_a_model_asked_for_alone_forecasts_new_parts_too():
    """As it does when it is called directly."""
    own = np.zeros((1, DAYS))
    own[0, -20:] = 5
    made, counted = forecast(own, models=("imapa",))
    assert set(made["model_used"]) == {"imapa"}
    assert counted["new"] == 1


def test_the_forecast_of_a_new_part_is_seasonal():
    """Nobody sells on Sundays."""
    values = np.tile([4.0, 4, 4, 4, 4, 4, 0], (31, 43))
    values[30, :270] = 0
    made = run_partition(table(values), Settings(horizon=7))
    new = made[made["model_used"] == MEAN_SINCE_START]["forecast"].to_numpy()
    assert len(new) == 7
    assert new.min() < 0.4 * new.max()


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("count", [9, 19, 28, 60])
def test_what_is_held_of_some_values_holds_the_next(level, count):
    """As often as the level says, though values lie on both sides of them."""
    values = np.random.default_rng(0).exponential(size=(2000, count + 1)) + 1.0
    ends = np.array([held(row[:-1], level) for row in values])
    share = ((values[:, -1] >= ends[:, 0]) & (values[:, -1] <= ends[:, 1])).mean()
    if (count + 1) * (1 - level) >= 2:  # else they are too few to tell
        assert level - 0.03 <= share <= level + 0.12
