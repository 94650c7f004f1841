"""Warm-up: imported by the supervisor of the processes, and by nobody else, before the first of them is forked.

What a package does when it is first used (scikit-learn looks through the entry points of all that is installed, pandas
and Arrow load what they need) each process would do again: a twentieth of a second, as much as a small partition takes.
So a tiny table is forecast here, with all of our models. No thread is left behind: one is allowed.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import sklearn.ensemble  # noqa: F401  # first of all: where it is missing, the attempt that needs it says so

from ipybatch.forecast.models.model_selection import run_partition
from ipybatch.forecast.settings import Settings

_SERIES, _DAYS = 20, 40

run_partition(
    pd.DataFrame(
        {
            "site": pd.Categorical(["a"] * _SERIES * _DAYS),
            "part": pd.Categorical(np.repeat(np.arange(_SERIES), _DAYS)),
            "date": np.tile(pd.date_range("2025-01-01", periods=_DAYS).to_numpy(), _SERIES),
            "quantity": np.arange(_SERIES * _DAYS) % 7 % 3.0,
        }
    ),
    Settings(horizon=2),
)
