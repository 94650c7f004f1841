"""Worker: the process of one partition, which reads its rows from a file, trains, and writes its forecasts to another.

    session --rows file--> process: read, `run_partition`, write --forecast file--> session

So a few names and figures travel between the two, however many rows there are. The files are Arrow's: rows are mapped
into memory as they are, forecasts compressed in small batches, so that the whole is read a batch at a time.

Imported by the supervisor of the processes before the first of them: what is imported here takes time there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from ipybatch.engine.store.atomic_write import draft_of
from ipybatch.errors import MissingExtra
from ipybatch.forecast.models.model_selection import run_partition
from ipybatch.forecast.settings import Settings

T = TypeVar("T")


def train(rows: Path, settings: Settings, forecasts: Path) -> dict[str, Any]:
    """Forecast the rows of a file into another file, and return what is recorded of it, see `figures`.

    Raises:
        InputError: The rows do not span one whole period.
    """
    made = run_partition(read(rows), settings)
    write(made, forecasts)
    return figures(made, settings.horizon)


def figures(made: pd.DataFrame, horizon: int) -> dict[str, Any]:
    """Return what is recorded of a partition's forecasts: rows, coverage, and the series of each kind and model."""
    used = made["model_used"].value_counts()
    return {
        "rows": len(made),
        "series": len(made) // horizon,
        "coverage": made.attrs.get("coverage"),
        **{kind: made.attrs.get(kind) for kind in ("new", "dead", "intermittent")},
        "models": {str(model): int(rows) // horizon for model, rows in used.items() if rows},
    }


def write_rows(frame: pd.DataFrame, path: Path) -> None:
    """Write rows so that `read` need not copy them.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    names = {name: frame[name].cat.remove_unused_categories() for name in ("site", "part")}
    arrow(lambda: frame.assign(**names).to_feather(path, compression="uncompressed"))


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write forecasts to a file, whole or not at all.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    with draft_of(path) as draft:
        arrow(lambda: frame.to_feather(draft))


def read(path: Path) -> pd.DataFrame:
    """Return the frame in a file.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    return arrow(lambda: _read(path))


def arrow(act: Callable[[], T]) -> T:
    """Return what ``act`` does with pyarrow.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    try:
        return act()
    except ImportError:
        raise MissingExtra("forecast") from None


def _read(path: Path) -> pd.DataFrame:
    from pyarrow import feather

    # one thread: an attempt's process has one
    frame: pd.DataFrame = feather.read_table(path, memory_map=True, use_threads=False).to_pandas(use_threads=False)
    return frame
