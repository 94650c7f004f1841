"""What small partitions borrow from the whole table."""

import os
import pickle
import subprocess
import sys

import msgspec
import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from ipybatch.backends.process.protocol import ONE_THREAD
from ipybatch.forecast.models import prior
from ipybatch.forecast.models.global_model import GlobalModel, Prior
from ipybatch.forecast.models.matrix import bias, rmsse
from ipybatch.forecast.models.model_selection import origins_of, run_partition
from ipybatch.forecast.models.prior import fit_trials, fit_whole, sample_of
from ipybatch.forecast.settings import Settings
from tests.forecast.retail import START, matrix, series, table

HORIZON, DAYS = 7, 70


@pytest.fixture(autouse=True)
def one_thread():
    """As in a partition's process: several on busy cores take ten times as long."""
    with threadpool_limits(1):
        yield


def settings(**given):
    end = START + pd.Timedelta(days=DAYS - 1)
    return Settings(horizon=HORIZON, start=f"{START:%Y-%m-%d}", end=f"{end:%Y-%m-%d}", **given)


def sites(values, count=6):
    return [table(part, f"s{number}") for number, part in enumerate(np.array_split(values, count))]


def lent_by(frames, counts, given):
    """Return all that small partitions borrow."""
    sample = sample_of(frames, counts)
    trials, whole = fit_trials(sample, given), fit_whole(sample, given)
    return Prior({**trials.regressors, **whole.regressors}, trials.default)


def borrowed(values, **given):
    return lent_by(sites(values), [len(values) // 6] * 6, settings(**given))


def said_by(found, periods, seen):
    return pickle.loads(found.regressors[periods]).predict(seen)


def seen_by(found):
    return np.random.default_rng(0).random((50, pickle.loads(found.regressors[DAYS]).n_features_in_))


def test_it_is_small_and_travels():
    found = borrowed(matrix(300, DAYS))
    assert len(pickle.dumps(found)) < 400_000
    assert set(found.regressors) == {DAYS, origins_of(DAYS, HORIZON, 2)[-1]}


def test_a_small_partition_errs_less_with_it():
    """Eight series have too little to learn from; those of twenty sites have not."""
    values = matrix(160, DAYS + HORIZON, seed=3)
    known, came = values[:, :DAYS], values[:, DAYS:]
    frames = [table(part, f"s{number:02}") for number, part in enumerate(np.array_split(known, 20))]
    found = lent_by(frames, [8] * 20, settings())
    errors = {}
    for name, lent in (("with", found), ("alone", None)):
        made = []
        for part in np.array_split(known, 20):
            past = series(part)
            model = GlobalModel(prior=lent)
            model.fit(past, HORIZON)
            made.append(model.predict(past, HORIZON))
        errors[name] = rmsse(known, came, np.concatenate(made))
    assert errors["with"] < errors["alone"]


def test_what_is_lent_for_a_trial_is_not_used_for_a_forecast():
    """A large partition borrows that alone, and learns the rest from its own rows."""
    past = series(matrix(300, DAYS))
    origin = origins_of(DAYS, HORIZON, 2)[-1]
    found = borrowed(matrix(300, DAYS, seed=9))
    lent, own = GlobalModel(prior=Prior({origin: found.regressors[origin]})), GlobalModel()
    for model in (lent, own):
        model.fit(past, HORIZON)
    assert np.array_equal(lent.predict(past, HORIZON), own.predict(past, HORIZON))
    for model in (lent, own):
        model.fit(past.until(origin), HORIZON)
    assert not np.array_equal(lent.predict(past, HORIZON), own.predict(past, HORIZON))


def test_trials_borrow_only_what_was_known_at_their_origin():
    """What came after the earliest origin does not change what the trials use, however wild."""
    values = matrix(120, DAYS)
    wild = values.copy()
    origin = origins_of(DAYS, HORIZON, 2)[-1]
    wild[:, origin:] = 1000
    one, other = borrowed(values), borrowed(wild)
    seen = seen_by(one)
    assert np.array_equal(said_by(one, origin, seen), said_by(other, origin, seen))
    assert not np.array_equal(said_by(one, DAYS, seen), said_by(other, DAYS, seen))


def test_it_is_the_same_for_the_same_rows():
    one, other = borrowed(matrix(120, DAYS)), borrowed(matrix(120, DAYS))
    seen = seen_by(one)
    assert np.array_equal(said_by(one, DAYS, seen), said_by(other, DAYS, seen))


def test_a_large_table_is_sampled_from_all_partitions_alike(monkeypatch):
    monkeypatch.setattr(prior, "_MOST", 60)
    frames = sites(matrix(300, DAYS) + 1)
    found = sample_of(frames, [50] * 6)
    counts = found.groupby("partition")["part"].nunique()
    assert len(counts) == 6
    assert 30 <= counts.sum() <= 90
    whole = pd.concat(frames).merge(found, on=["site", "part", "date", "quantity"])
    assert len(whole) == len(found), "a series is taken whole"
    assert (found.groupby(["site", "part"]).size() == DAYS).all()


@pytest.mark.parametrize("days", [1, 4])
def test_a_past_too_short_to_learn_from_lends_nothing(days):
    sample = sample_of(sites(matrix(60, days) + 1), [10] * 6)
    assert fit_trials(sample, Settings(horizon=2)) is None
    assert fit_whole(sample, Settings(horizon=2)) is None


def test_demand_too_rare_to_keep_the_total_begins_with_another_model():
    """Four of a hundred days: the regression says next to nothing, and would forecast a fraction of what sells."""
    rng = np.random.default_rng(0)
    rare = ((rng.random((600, DAYS)) < 0.012) * 3).astype(float)
    rare[:, 0] = np.maximum(rare[:, 0], rng.random(600) < 0.3)
    assert borrowed(rare[rare.any(axis=1)]).default == "imapa"
    assert borrowed(matrix(300, DAYS)).default == "gradient_boosting"


def test_forecasts_with_it_about_keep_the_total():
    values = matrix(300, DAYS + HORIZON, seed=5)
    found = borrowed(values[:, :DAYS])
    lent = msgspec.structs.replace(settings(), prior=found)
    made = [run_partition(frame, lent)["forecast"].to_numpy() for frame in sites(values[:, :DAYS])]
    kept = np.concatenate([part[part[:, :DAYS].any(axis=1), DAYS:] for part in np.array_split(values, 6)])
    assert abs(bias(kept, np.concatenate(made).reshape(kept.shape))) < 0.25


HANDED_ON = """
import pickle, sys
prior = pickle.loads(sys.stdin.buffer.read())
again = pickle.loads(pickle.dumps(prior))
print("sklearn" in sys.modules, list(again.regressors), again.default)
"""


def test_a_session_hands_on_what_was_learnt_without_scikit_learn():
    """To import it takes a second, in a process that never uses it."""
    sent = pickle.dumps(borrowed(matrix(60, DAYS)))
    environ = {**os.environ, **ONE_THREAD}
    said = subprocess.run([sys.executable, "-c", HANDED_ON], input=sent, env=environ, capture_output=True, check=True)
    assert said.stdout.decode() == f"False {[origins_of(DAYS, HORIZON, 2)[-1], DAYS]} gradient_boosting\n"
