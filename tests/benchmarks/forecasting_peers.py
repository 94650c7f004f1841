"""What others do with the same demand: the same table or matrix in, as many forecasts out.

They are no dependencies of ours: they want pandas < 3, and live in an environment of their own, which this makes:

    python -m tests.benchmarks.forecasting_peers

There it is run by its path, and imports nothing of ours; mlforecast brings a package of its own called ``tests``.

Zeros are filled in as ours are, from the table's first date on, and nothing below zero is kept.  Their settings are
ordinary ones, not tuned: learners as they come, with one thread, which takes the least CPU; of mlforecast's targets
each series is standardised, since without that its RMSSE on retail is 1.39 to 1.45 and not 1.16.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

PLACE = Path(__file__).parents[2] / "out" / "peers-forecasting"
PACKAGES = ("statsforecast", "mlforecast", "lightgbm", "scikit-learn", "pyarrow", "pandas<3")
LAGS = {"D": [1, 2, 3, 7, 14, 28], "W": [1, 2, 3, 4, 8, 13]}
WINDOWS = {"D": (7, 28), "W": (4, 13)}
DATES = {"D": ["dayofweek"], "W": []}
PANDAS = {"D": "D", "W": "W-SUN"}
AT_ONCE = 2  # as many processes as ours

Forecaster = Callable[[Any, int, str], Any]


def statsforecast(name: str, **settings: Any) -> Callable[[], Forecaster]:
    """Return what loads statsforecast, and returns its model of that name."""

    def load() -> Forecaster:
        from statsforecast import StatsForecast, models

        def run(long: Any, horizon: int, freq: str) -> Any:
            made = StatsForecast(models=[getattr(models, name)(**settings)], freq=PANDAS[freq], n_jobs=AT_ONCE)
            return made.forecast(df=long, h=horizon)[name]

        return run

    return load


def mlforecast(make: Callable[[], Any]) -> Callable[[], Forecaster]:
    """Return what loads mlforecast, and returns it with this learner."""

    def load() -> Forecaster:
        from mlforecast import MLForecast
        from mlforecast.lag_transforms import RollingMean
        from mlforecast.target_transforms import LocalStandardScaler

        learner = make()

        def run(long: Any, horizon: int, freq: str) -> Any:
            windows = {1: [RollingMean(size) for size in WINDOWS[freq]]}
            told: dict[str, Any] = {"lags": LAGS[freq], "lag_transforms": windows, "date_features": DATES[freq]}
            told["target_transforms"] = [LocalStandardScaler()]
            made = MLForecast(models={"y": learner}, freq=PANDAS[freq], **told)
            return made.fit(long).predict(horizon)["y"]

        return run

    return load


def lightgbm(**settings: Any) -> Any:
    """LightGBM, as it comes but for these settings."""
    from lightgbm import LGBMRegressor

    return LGBMRegressor(n_jobs=1, verbose=-1, **settings)


def histogram() -> Any:
    """Histogram gradient boosting of scikit-learn, as it comes."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor()


IMAPA, TSB, SBA = "statsforecast IMAPA", "statsforecast TSB(0.1, 0.1)", "statsforecast CrostonSBA"
ETS = "statsforecast AutoETS"
LIGHTGBM, HISTOGRAM = "mlforecast, LightGBM", "mlforecast, HistGradientBoosting"
ABSOLUTE = "mlforecast, LightGBM of absolute error"
PEERS: dict[str, Callable[[], Forecaster]] = {
    IMAPA: statsforecast("IMAPA"),
    TSB: statsforecast("TSB", alpha_d=0.1, alpha_p=0.1),
    SBA: statsforecast("CrostonSBA"),
    ETS: statsforecast("AutoETS", season_length=1),
    LIGHTGBM: mlforecast(lightgbm),
    ABSOLUTE: mlforecast(partial(lightgbm, objective="l1")),
    HISTOGRAM: mlforecast(histogram),
}


def table(name: str, path: str, horizon: int) -> dict[str, float]:
    """Forecast a table of site, part, date and quantity, from the frame to the last forecast."""
    import numpy as np
    import pandas as pd

    frame, run = pd.read_parquet(path), PEERS[name]()
    begun_s, used_s = time.perf_counter(), cpu_s()
    days = pd.date_range(frame["date"].min(), frame["date"].max())
    series = frame.groupby(["site", "part"], sort=False).ngroup().to_numpy()
    values = np.zeros((series.max() + 1, len(days)))
    values[series, (frame["date"] - days[0]).dt.days] = frame["quantity"]
    said = np.maximum(run(long_of(values, days), horizon, "D").to_numpy(), 0.0)
    return {"wall_s": time.perf_counter() - begun_s, "cpu_s": cpu_s() - used_s, "rows": len(said)}


def matrix(name: str, path: str, out: str) -> dict[str, float]:
    """Forecast a matrix from several origins, and leave what was said in ``out``: origins x series x periods."""
    import numpy as np
    import pandas as pd

    given, run = np.load(path), PEERS[name]()
    values, dates, horizon = given["values"], pd.DatetimeIndex(given["dates"]), int(given["horizon"])
    used_s, said = cpu_s(), []
    for cut in given["cuts"]:
        made = run(long_of(values[:, :cut], dates[:cut]), horizon, "W").to_numpy(float)
        said.append(np.maximum(made, 0.0).reshape(len(values), horizon))
    used_s = cpu_s() - used_s
    np.save(out, np.stack(said))
    return {"cpu_s": used_s}


def long_of(values: Any, dates: Any) -> Any:
    """Return a matrix as the frame that both packages take."""
    import numpy as np
    import pandas as pd

    count, length = values.shape
    ids = np.repeat(np.arange(count), length)
    return pd.DataFrame({"unique_id": ids, "ds": np.tile(dates, count), "y": values.ravel()})


def cpu_s() -> float:
    """Return the CPU seconds of this process and of all that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def python(place: Path | None = None) -> Path:
    """Return an environment's interpreter, there or not; BENCH_PEERS names another one than ours."""
    found = place or Path(os.environ.get("BENCH_PEERS", PLACE))
    return found / ("Scripts" if sys.platform == "win32" else "bin") / "python"


def make() -> None:
    """Make the environment."""
    venv.create(PLACE, with_pip=True, clear=True)
    subprocess.run([python(PLACE), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    print(f"made {PLACE}")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        make()
    else:
        kind, name, path, last = sys.argv[1:]
        print(json.dumps(table(name, path, int(last)) if kind == "table" else matrix(name, path, last)))
