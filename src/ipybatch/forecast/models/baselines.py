"""Baselines: models that an evaluation shows beside a forecast's own, and that the forecast does not choose from.

    naive, seasonal_naive   cost nothing
    statsforecast           its IMAPA, TSB and CrostonSBA; its AutoETS takes a hundred times as long
    mlforecast              LightGBM, or histogram gradient boosting, on each series' lags and rolling means

Their settings are ordinary ones, not tuned. Series are standardised for mlforecast: without it its RMSSE on weekly
retail is 1.39 to 1.45, with it 1.16.

Neither package is a dependency: both want pandas < 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any, NamedTuple

import msgspec

from ipybatch.errors import InputError
from ipybatch.forecast.models.model_registry import candidates
from ipybatch.forecast.settings import AUTO, OFFSETS, Freq, Settings, as_models

NAMED = ("naive", "seasonal_naive")
_LAGS = {"D": [1, 2, 3, 7, 14, 28], "W": [1, 2, 3, 4, 8, 13], "M": [1, 2, 3, 6, 12]}
_WINDOWS = {"D": (7, 28), "W": (4, 13), "M": (3, 12)}
_DATES = {"D": ["dayofweek"], "W": [], "M": ["month"]}


class Baseline(NamedTuple):
    """A model of another package, or several in one object.

    Attributes:
        model: As ``models=`` of `forecast` takes it.
        labels: By name of each model in it, what an evaluation calls that.
    """

    model: Any
    labels: dict[str, str]


def baselines_of(asked: Iterable[Any] | None, settings: Settings) -> tuple[tuple[str, ...], list[Baseline]]:
    """Return the baselines that are models of ours, by name, and the others.

    Args:
        asked: Names of models, "statsforecast", "mlforecast", or models as ``models=`` of `forecast` takes them; None
            for all of these names whose packages are installed.
        settings: Of the forecast.

    Raises:
        InputError: There is no such model, or its package is not installed.
    """
    names: list[str] = []
    models: list[Any] = []
    for one in (*NAMED, *filter(find_spec, _PACKAGES)) if asked is None else as_models(asked):
        if isinstance(one, str) and one in AUTO:
            names.append(one)
        elif isinstance(one, str):
            models += _package(one)(settings.freq)
        else:
            models.append(one)
    return tuple(names), [Baseline(one, _labels(one, settings)) for one in models]


def _labels(model: Any, settings: Settings) -> dict[str, str]:
    package = type(model).__module__.partition(".")[0]
    before = f"{package} " if package in _PACKAGES else ""
    found = candidates(msgspec.structs.replace(settings, models=(model,)))
    return {name: f"{before}{name}" for name in found}


def _package(name: str) -> Callable[[Freq], list[Any]]:
    if name not in _PACKAGES:
        known = ", ".join(map(repr, (*AUTO, *_PACKAGES)))
        msg = f"baselines must be names of models ({known}) or models, got {name!r}"
        raise InputError(msg)
    if find_spec(name) is None:
        msg = f"baselines must be installed, got {name!r}: pip install {name!r}, which wants pandas < 3"
        raise InputError(msg)
    return _PACKAGES[name]


def _statsforecast(freq: Freq) -> list[Any]:
    from statsforecast import models

    return [models.IMAPA(), models.TSB(alpha_d=0.1, alpha_p=0.1), models.CrostonSBA()]


def _mlforecast(freq: Freq) -> list[Any]:
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import RollingMean
    from mlforecast.target_transforms import LocalStandardScaler

    name, learner = _learner()
    made = MLForecast(
        models={name: learner},
        freq=OFFSETS[freq],
        lags=_LAGS[freq],
        lag_transforms={1: [RollingMean(size) for size in _WINDOWS[freq]]},
        date_features=_DATES[freq],
        target_transforms=[LocalStandardScaler()],
    )
    return [made]


def _learner() -> tuple[str, Any]:
    try:
        from lightgbm import LGBMRegressor
    except ImportError:
        from sklearn.ensemble import HistGradientBoostingRegressor

        return "HistGradientBoosting", HistGradientBoostingRegressor()
    return "LightGBM", LGBMRegressor(n_jobs=1, verbose=-1)


_PACKAGES: dict[str, Callable[[Freq], list[Any]]] = {"statsforecast": _statsforecast, "mlforecast": _mlforecast}
