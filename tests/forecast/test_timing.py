"""How long partitions take is measured on this machine, and reckoned from that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipybatch.forecast.settings import Settings
from ipybatch.forecast.tables import read_table
from ipybatch.forecast.timing import Timing, line, sample, time_it
from ipybatch.simulators.demand import demand


def timing(**fields):
    return Timing(**{"start_s": 0.0, "fixed_s": 1.0, "per_series_s": 0.01, "samples": (), **fields})


def test_the_line_goes_through_both_samples():
    made = line([(50, 1.5), (1000, 11.0)], 2.0)
    assert (made.alone_s(50), made.alone_s(1000), made.start_s) == (pytest.approx(1.5), pytest.approx(11.0), 2.0)


def test_noise_makes_nothing_negative():
    """A second sample that was quicker than the first says only that series cost little."""
    made = line([(50, 1.5), (1000, 1.0)], -0.2)
    assert (made.per_series_s, made.fixed_s, made.start_s) == (0.0, 1.5, 0.0)
    assert line([(50, 0.1), (1000, 9.0)], 0.0).fixed_s == 0.0


def test_a_small_table_has_one_sample():
    assert line([(7, 0.5), (7, 0.6)], 0.0).alone_s(7) == 0.5


def test_each_partition_goes_to_the_first_worker_that_is_free():
    """5 and 4 seconds begin; 3 follows the 4: 7 seconds, and the start before."""
    assert timing(start_s=2.0).all_s([400, 300, 200], 2) == pytest.approx(2 + 7)
    assert timing().all_s([400, 300, 200], 1) == pytest.approx(12)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=20), st.integers(1, 8))
def test_the_estimate_is_within_what_is_possible(series, workers):
    """No longer than one after the other, no shorter than shared out evenly or than the longest alone."""
    made = timing(start_s=0.5)
    alone = [made.alone_s(count) for count in series]
    total = made.all_s(series, workers) - 0.5
    assert max(*alone, sum(alone) / workers) <= total + 1e-9
    assert total <= sum(alone) + 1e-9


def test_a_sample_is_whole_series_from_all_over():
    frame = read_table(demand()).frame
    some = sample(frame, 50)
    lengths = some.groupby(["site", "part"]).size()
    assert 40 <= len(lengths) <= 60
    assert some["site"].nunique() > 8
    assert (lengths == frame.groupby(["site", "part"]).size()[lengths.index]).all()
    assert sample(some, 1000).equals(some)


def test_training_is_tried_in_the_processes_that_a_run_uses():
    """And what was tried is told: the samples, with positive times."""
    table = read_table(demand(400))
    made = time_it(table.frame, Settings(horizon=7, models=("naive", "ses")))
    assert [series for series, _ in made.samples] == [sample_size(table.frame, count) for count in (50, 1000)]
    assert all(seconds > 0 for _, seconds in made.samples)


def sample_size(frame, series):
    return sample(frame, series).groupby(["site", "part"]).ngroups
