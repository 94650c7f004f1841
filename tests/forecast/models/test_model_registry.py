"""Models of other packages, beside the packages themselves; what needs one that is not installed is skipped."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression

from ipybatch import InputError, Permanent
from ipybatch.backends.process.protocol import ONE_THREAD
from ipybatch.forecast import evaluate, forecast
from ipybatch.forecast.models.matrix import series_of
from ipybatch.forecast.models.model_registry import described, one_thread, packages, preload
from ipybatch.forecast.models.model_selection import run_partition
from ipybatch.forecast.settings import AUTO, Settings
from tests.forecast.retail import matrix, table

pytestmark = pytest.mark.filterwarnings("default")  # the packages warn of themselves
HORIZON = 6
STATS = ("AutoETS", "IMAPA", "TSB", "CrostonSBA", "SeasonalNaive", "AutoTheta", "WindowAverage")
ARGUMENTS = {
    "AutoETS": {"season_length": 7},
    "TSB": {"alpha_d": 0.2, "alpha_p": 0.1},
    "SeasonalNaive": {"season_length": 7},
    "AutoTheta": {"season_length": 7},
    "WindowAverage": {"window_size": 7},
}


@pytest.fixture
def stats():
    pytest.importorskip("statsforecast")
    from statsforecast import models

    return models


@pytest.fixture
def ml():
    found = pytest.importorskip("mlforecast")

    def make(models=None, freq="D", **arguments):
        return found.MLForecast(models=models or [LinearRegression()], freq=freq, **{"lags": [1, 7], **arguments})

    return make


def demand(count=12, days=70):
    """Parts that sell daily, seldom, once, and only at the very end."""
    values = matrix(count, days, seed=5)
    values[0], values[1] = 0, 0
    values[0, 30], values[1, -2] = 5, 3
    return table(values)


def long_of(frame, freq="D"):
    """The frame that the packages take: every period of every series, zeros and all."""
    series = series_of(frame, freq)
    count, length = series.values.shape
    ids, dates = np.repeat(np.arange(count), length), np.tile(series.dates, count)
    return pd.DataFrame({"unique_id": ids, "ds": dates, "y": series.values.ravel()})


def ours(frame, *models, **settings):
    return run_partition(frame, Settings(**{"horizon": HORIZON, "models": models, **settings}))


def theirs(said, name):
    """What a package says, as ours: a row per series, nothing below zero."""
    return np.maximum(said.sort_values(["unique_id", "ds"])[name].to_numpy(float), 0.0)


@pytest.mark.parametrize("name", STATS)
def test_a_model_of_statsforecast_says_what_it_says_when_called_directly(stats, name):
    from statsforecast import StatsForecast

    model = getattr(stats, name)(**ARGUMENTS.get(name, {}))
    direct = StatsForecast(models=[model], freq="D").forecast(df=long_of(demand()), h=HORIZON)
    made = ours(demand(), model)
    assert made["forecast"].to_numpy() == pytest.approx(theirs(direct, name), abs=1e-12)
    assert set(made["model_used"]) == {name}


@pytest.mark.parametrize("freq", ["D", "W", "M"])
def test_an_mlforecast_says_what_it_says_when_called_directly(ml, freq):
    """Weeks end where the table does, whatever weekday its own freq names; months likewise."""
    lightgbm = pytest.importorskip("lightgbm")
    frame = demand(days=700 if freq == "M" else 300)
    pandas_name = {"D": "D", "W": f"W-{frame['date'].max():%a}".upper(), "M": "MS"}[freq]
    own = {"models": [lightgbm.LGBMRegressor(n_estimators=20, verbose=-1, n_jobs=1)], "date_features": ["month"]}
    direct = ml(**own, freq=pandas_name).fit(long_of(frame, freq)).predict(HORIZON)
    made = ours(frame, ml(**own, freq={"D": "D", "W": "W", "M": "ME"}[freq]), freq=freq)
    assert made["forecast"].to_numpy() == pytest.approx(theirs(direct, "LGBMRegressor"), abs=1e-12)


def test_every_model_of_an_mlforecast_is_a_model_of_its_own(ml):
    several = ml({"line": LinearRegression(), "trees": HistGradientBoostingRegressor(max_iter=10)})
    direct = several.fit(long_of(demand())).predict(HORIZON)
    scores = evaluate(demand(), horizon=HORIZON, models=[several])
    assert {"line", "trees"} <= set(scores.index)
    for name in ("line", "trees"):
        made = ours(demand(), ml({name: several.models[name]}))
        assert made["forecast"].to_numpy() == pytest.approx(theirs(direct, name), abs=1e-12)


def test_every_model_of_a_statsforecast_is_a_model_of_its_own(stats):
    from statsforecast import StatsForecast

    several = StatsForecast(models=[stats.Naive(), stats.IMAPA()], freq="D")
    assert {"Naive", "IMAPA"} <= set(evaluate(demand(), horizon=HORIZON, models=[several]).index)


def test_the_fallback_of_a_statsforecast_stands_in(stats):
    from statsforecast import StatsForecast

    class Never(stats.Naive):
        def forecast(self, *args, **kwargs):
            raise RuntimeError("it never works")

    naive = ours(demand(), stats.Naive())["forecast"]
    made = ours(demand(), StatsForecast(models=[Never()], freq="D", fallback_model=stats.Naive()))
    assert made["forecast"].tolist() == naive.tolist()
    with pytest.raises(Permanent, match="Naive on part p0000 of a: RuntimeError: it never works"):
        ours(demand(), Never())


def test_the_mean_stands_in_for_what_a_history_is_too_short_for(stats, ml):
    """Its package refuses, or says NaN: where models are tried on the past, that is a poor trial and no failure."""
    frame = table(matrix(5, 4, seed=1))
    mean = np.repeat(series_of(frame, "D").values.mean(axis=1), HORIZON)
    for model in (stats.AutoETS(season_length=26), stats.WindowAverage(26), ml(lags=[26])):
        assert ours(frame, model)["forecast"].to_numpy() == pytest.approx(mean)


def test_partitions_run_theirs_in_processes_of_their_own(stats, ml, journal):
    frame = pd.concat([demand().assign(site=site) for site in ("Ambon", "Palu")])
    models = [stats.CrostonSBA(), ml()]
    made = forecast(frame, horizon=HORIZON, models=models, journal=journal, timeout_s=60)
    assert made.run().counts.completed == 2
    one = ours(frame[frame["site"] == "Palu"], *models)
    of_palu = made.results().query("site == 'Palu'")
    assert of_palu["forecast"].tolist() == pytest.approx(one["forecast"].tolist())


class Inline:
    """A backend that calls at once, and counts."""

    def __init__(self):
        self.ran = 0

    async def open(self, slots):
        pass

    async def run(self, work, arguments):
        self.ran += 1
        return work(*arguments)

    async def close(self):
        pass


def test_a_change_of_a_models_settings_trains_again(stats, ml, journal):
    """Both packages show a model without its settings: AutoETS is AutoETS, whatever its season."""

    def attempts(model):
        backend = Inline()
        forecast(demand(), horizon=HORIZON, models=[model], journal=journal, backend=backend).run()
        return backend.ran

    assert attempts(stats.WindowAverage(7)) == 1
    assert attempts(stats.WindowAverage(7)) == 0
    assert attempts(stats.WindowAverage(14)) == 1
    assert attempts(ml([HistGradientBoostingRegressor(max_iter=5)])) == 1
    assert attempts(ml([HistGradientBoostingRegressor(max_iter=6)])) == 1


def test_an_mlforecast_stays_as_it_was(ml):
    model = ml()
    before = json.dumps(described(model))
    evaluate(demand(), horizon=HORIZON, models=[model])
    assert json.dumps(described(model)) == before
    assert not hasattr(model, "models_")


@pytest.mark.parametrize("freq", ["W", "2D", "MS", "h", "no such"])
def test_other_periods_than_the_tables_are_refused(ml, freq):
    model = ml()
    model.ts.freq = freq
    with pytest.raises(InputError, match=r"models must have the table's periods, 'D', got MLForecast of freq"):
        Settings(horizon=1, models=(model,))


@pytest.mark.parametrize(("model", "words"), [(LinearRegression, "write LinearRegression"), (3, "fit and predict")])
def test_what_is_no_model_is_refused(model, words):
    with pytest.raises(InputError, match=words):
        Settings(horizon=1, models=(model,))


def test_a_model_is_described_by_its_settings_alike_in_every_process():
    code = (
        "import json; from sklearn.ensemble import HistGradientBoostingRegressor as H;"
        "from sklearn.pipeline import make_pipeline as p;"
        "from ipybatch.forecast.models.model_registry import described;"
        "[print(json.dumps(described([p(H(max_iter=n)), json.dumps, object()]))) for n in (5, 6)]"
    )
    one, other = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.splitlines()
        for _ in range(2)
    )
    assert one == other
    assert one[0] != one[1]


def test_what_a_model_has_learnt_is_no_setting():
    fresh, fitted = LinearRegression(), LinearRegression().fit([[1], [2]], [1, 2])
    assert described(fresh) == described(fitted)


def test_a_regressor_that_would_ask_the_machine_gets_one_thread():
    class Asking(LinearRegression):
        pass

    told = Asking(n_jobs=4)
    assert one_thread(Asking()).n_jobs == 1
    assert one_thread(told).n_jobs == 4
    assert one_thread(HistGradientBoostingRegressor()) is not None


@pytest.mark.parametrize(
    ("models", "is_learnt"),
    [(AUTO, True), (["imapa", LinearRegression()], True), (["imapa", "naive"], False)],
)
def test_scikit_learn_is_imported_where_a_model_needs_it(models, is_learnt):
    """It takes a second, of a forecast that may take none."""
    assert ("ipybatch.forecast.models.warm_up" in preload(models)) == is_learnt


IMPORTED = """
import sys
import ipybatch.forecast.worker, threading
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"sklearn", "pyarrow", "pandas"}))
print(*[name for name in sys.modules if name.startswith("ipybatch.session") or name == "ipybatch.forecast.session"])
import ipybatch.forecast.models.warm_up
print(threading.active_count(), "sklearn" in sys.modules)
import ipybatch.forecast
print(ipybatch.forecast.forecast.__name__)
"""


def test_a_partitions_process_imports_its_models_alone():
    """Neither sessions nor panels; what a user's function asks for there all the same is loaded then."""
    environ = {**os.environ, **ONE_THREAD}
    said = subprocess.run([sys.executable, "-c", IMPORTED], env=environ, capture_output=True, text=True, check=True)
    assert said.stdout.splitlines() == ["pandas pyarrow", "", "1 True", "forecast"]


def test_what_takes_long_to_import_is_imported_once(stats, ml):
    pytest.importorskip("lightgbm")
    from lightgbm import LGBMRegressor

    assert packages(["imapa", stats.IMAPA(), ml([LGBMRegressor()]), LinearRegression()]) == (
        "lightgbm.sklearn",
        "mlforecast.forecast",
        "statsforecast.models",
    )
