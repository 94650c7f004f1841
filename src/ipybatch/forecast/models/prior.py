"""Prior: what partitions borrow from the whole table.

A site of forty series has too little to learn a regression from, nor to tell which model keeps its total. So both are
found once from a sample of all partitions, in processes of their own, and handed to those that are small
(`Settings.prior`). A large one learns from its own rows what its forecast needs, and borrows what its trials need:
one fit of two. Without all this nothing fails: a partition then learns from its own rows alone.

    table --`sample_of`--> rows of at most 5,000 series --`fit_trials`, isolated--> Prior --> every partition
                                                        --`fit_whole`, isolated---> Prior --> every small one

No forecast of the past knows what came after it: there is a regressor for each number of periods that a partition
learns from, the whole past and what was known at its earliest trial, and each saw only these periods. What a sample's
series tell of each other stays within their partition, as it does where the regressor is used.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from ipybatch.forecast.models.global_model import Prior
from ipybatch.forecast.models.matrix import Series, series_of
from ipybatch.forecast.models.model_registry import Model, candidates
from ipybatch.forecast.models.model_selection import DEFAULTS, common_default, try_models
from ipybatch.forecast.models.thread_limit import one_thread
from ipybatch.forecast.settings import Settings

LEARNER = "gradient_boosting"
_MOST = 5_000  # series of the sample: as many as a regression learns from where it has the most origins
_PARTITION = "partition"


def sample_of(frames: Iterable[pd.DataFrame], counts: Iterable[int], *, seed: int = 0) -> pd.DataFrame:
    """Return the rows of about `_MOST` series, drawn from all partitions alike, each with the number of its partition.

    Args:
        frames: Each partition's rows: site, part, date and quantity, sorted; looked at one after another.
        counts: How many series each has.
        seed: Of the sample.
    """
    rng = np.random.default_rng(seed)
    share = _MOST / max(sum(known := list(counts)), 1)
    found = []
    for number, (frame, _) in enumerate(zip(frames, known, strict=True)):
        rows = frame[["site", "part", "date", "quantity"]]
        if share < 1:
            series = _series_numbers(rows)
            is_drawn = rng.random(int(series[-1]) + 1 if len(series) else 0) < share
            rows = rows[is_drawn[series]]
        found.append(rows.astype({"site": str, "part": str}).assign(**{_PARTITION: str(number)}))
    return pd.concat(found, ignore_index=True)


def fit_trials(frame: pd.DataFrame, settings: Settings) -> Prior | None:
    """Return what is borrowed by trials, and the model to begin with; None where the past is too short for trials.

    Args:
        frame: What `sample_of` returned.
        settings: Of the forecast.

    Raises:
        InputError: The rows do not span one whole period.
    """
    series, models = _known_of(frame, settings)
    with one_thread(models):
        trials = try_models(series, models, settings.horizon, settings.origins)
    fitted: Any = models[LEARNER]
    if not trials or fitted.fitted is None:
        return None
    earliest = trials[-1].history.shape[1]
    return Prior({earliest: pickle.dumps(fitted.fitted)}, common_default(trials, tuple(models), settings.select))


def fit_whole(frame: pd.DataFrame, settings: Settings) -> Prior | None:
    """Return what is borrowed by forecasts; None where the past is too short to learn from.

    Args:
        frame: What `sample_of` returned.
        settings: Of the forecast.

    Raises:
        InputError: The rows do not span one whole period.
    """
    series, models = _known_of(frame, settings)
    learner: Any = models[LEARNER]
    with one_thread(models):
        learner.fit(series, settings.horizon)
    return None if learner.fitted is None else Prior({series.values.shape[1]: pickle.dumps(learner.fitted)})


def _known_of(frame: pd.DataFrame, settings: Settings) -> tuple[Series, dict[str, Model]]:
    """Return the series of a sample, those of each partition apart, and the models that any could begin with."""
    within = frame[_PARTITION] + " "
    own = frame.assign(site=within + frame["site"], part=within + frame["part"])
    names = tuple(name for name in DEFAULTS if name in settings.models)
    models = candidates(msgspec.structs.replace(settings, models=names, known=None, prior=None))
    return series_of(own, settings.freq, start=settings.start, end=settings.end), models


def _series_numbers(rows: pd.DataFrame) -> Any:
    """Return each row's series, numbered as they come: those of a series stand together."""
    codes = [pd.factorize(rows[name])[0] for name in ("site", "part")]
    is_new = np.zeros(len(rows), dtype=bool)
    for code in codes:
        is_new[1:] |= code[1:] != code[:-1]
    return np.cumsum(is_new)
