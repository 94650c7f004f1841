"""Retail: seeded demand of many parts, most of which sell seldom, as a matrix and as a table."""

import numpy as np
import pandas as pd

from ipybatch.forecast.models.matrix import Series

START = pd.Timestamp("2025-06-02")  # a Monday


def matrix(count=60, days=80, *, seed=0):
    rng = np.random.default_rng(seed)
    rate = rng.gamma(0.6, 1.0, count)[:, None]
    return (rng.poisson(rate, (count, days)) * rng.integers(1, 6, (count, days))).astype(float)


def series(values, freq="D"):
    keys = pd.DataFrame({"site": ["a"] * len(values), "part": [f"p{number:04}" for number in range(len(values))]})
    days = {"D": 1, "W": 7}[freq]
    return Series(keys, values, pd.DatetimeIndex(pd.date_range(START, periods=values.shape[1], freq=f"{days}D")), freq)


def table(values, site="a", freq_days=1):
    rows, days = np.nonzero(values)
    return pd.DataFrame(
        {
            "site": site,
            "part": [f"p{row:04}" for row in rows],
            "date": START + pd.to_timedelta(days * freq_days, unit="D"),
            "quantity": values[rows, days],
        }
    )
