"""Prior: what small partitions borrow from the whole table.

A site of forty series has too little to learn a regression from, nor to tell which model keeps its total. So both are
found once from a sample of all partitions, in a process of its own, and handed to those that are small
(`Settings.prior`). Without it nothing fails: a partition then learns from its own rows alone.

    table --`sample_of`--> rows of at most 5,000 series --`fit_prior`, isolated--> Prior --> every small partition

No forecast of the past knows what came after it: there is a regressor for each number of periods that a partition
learns from, the whole past and what was known at its earliest trial, and each saw only these periods. What a sample's
series tell of each other stays within their partition, as it does where the regressor is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from ipybatch.forecast.models.global_model import Prior
from ipybatch.forecast.models.matrix import series_of
from ipybatch.forecast.models.model_registry import candidates
from ipybatch.forecast.models.model_selection import DEFAULTS, common_default, origins_of, try_models
from ipybatch.forecast.settings import Settings

LEARNER = "gradient_boosting"
_MOST = 5_000  # series of the sample: as many as a regression learns from where it has the most origins
_PARTITION = "partition"


def sample_of(frames: Iterable[pd.DataFrame], counts: Iterable[int], *, seed: int = 0) -> pd.DataFrame:
    """Return the rows of about `_MOST` series, drawn from all partitions alike, each with the number of its partition.

    Args:
        frames: Each partition's rows: site, part, date and quantity, sorted; looked at one after another.
        counts: About how many series each has.
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


def fit_prior(frame: pd.DataFrame, settings: Settings) -> Prior | None:
    """Return what the partitions of these rows may borrow; None where the past is too short to learn from.

    Args:
        frame: What `sample_of` returned.
        settings: Of the forecast.

    Raises:
        InputError: The rows do not span one whole period.
    """
    within = frame[_PARTITION] + " "
    own = frame.assign(site=within + frame["site"], part=within + frame["part"])
    series = series_of(own, settings.freq, start=settings.start, end=settings.end)
    names = tuple(name for name in DEFAULTS if name in settings.models)
    models = candidates(msgspec.structs.replace(settings, models=names, known=None, prior=None))
    learner: Any = models[LEARNER]
    trials = try_models(series, models, settings.horizon, settings.origins)
    length = series.values.shape[1]
    found = {origins_of(length, settings.horizon, settings.origins)[-1]: learner.fitted} if trials else {}
    learner.fit(series, settings.horizon)
    found[length] = learner.fitted
    known = {periods: fitted for periods, fitted in found.items() if fitted is not None}
    return Prior(known, common_default(trials, names, settings.select)) if known else None


def _series_numbers(rows: pd.DataFrame) -> Any:
    """Return each row's series, numbered as they come: those of a series stand together."""
    codes = [pd.factorize(rows[name])[0] for name in ("site", "part")]
    is_new = np.zeros(len(rows), dtype=bool)
    for code in codes:
        is_new[1:] |= code[1:] != code[:-1]
    return np.cumsum(is_new)
