"""Worker: the process of one partition, which reads its rows from a file, trains, and writes its forecasts to another.

    session --rows file--> process: read, `run_partition`, write --forecast file--> session

So a few names and figures travel between the two, however many rows there are. The files are Arrow's, and lie beside
the journal or in a storage that all machines see: rows are mapped into memory as they are, forecasts compressed in
small batches, so that the whole is read a batch at a time.

Imported by the supervisor of the processes before the first of them: what is imported here takes time there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from ipybatch.errors import MissingExtra
from ipybatch.forecast.models.model_selection import run_partition
from ipybatch.forecast.settings import Settings
from ipybatch.forecast.storage import Storage, read_probe

if TYPE_CHECKING:
    from ipybatch.forecast.data.blocks import Stored

T = TypeVar("T")


def train(storage: Storage, rows: str | Stored, settings: Settings, forecasts: str) -> dict[str, Any]:
    """Forecast the rows of a file, or of a table's blocks, into a file; return what is recorded of it, see `figures`.

    Raises:
        InputError: The rows do not span one whole period.
    """
    made = run_partition(read(storage, rows) if isinstance(rows, str) else rows.frame(), settings)
    write(made, storage, forecasts)
    return figures(made, settings.horizon)


def draw(partitions: Sequence[Stored], counts: Sequence[int], seed: int, storage: Storage, name: str) -> None:
    """Write the rows of some series of all partitions to a file, from which small ones borrow: see `sample_of`."""
    from ipybatch.forecast.models.prior import sample_of

    sample = sample_of((one.frame() for one in partitions), counts, seed=seed)
    with storage.writing(name) as file:
        arrow(lambda: sample.to_feather(file))


def learn(work: Callable[..., T], storage: Storage, name: str, settings: Settings) -> T:
    """Return what ``work`` learns from the sample in a file."""
    return work(read(storage, name), settings)


def look(storage: Storage, name: str) -> None:
    """See whether this process sees the session's storage, and has what reads it.

    Raises:
        InputError: It does not see what the session wrote.
        MissingExtra: pyarrow or fsspec is not installed here.
    """
    arrow(lambda: import_module("pyarrow"))
    arrow(lambda: read_probe(storage, name))


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


def write_rows(frame: pd.DataFrame, storage: Storage, name: str) -> None:
    """Write rows so that `read` need not copy them.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    names = {name: frame[name].cat.remove_unused_categories() for name in ("site", "part")}
    with storage.writing(name) as file:
        arrow(lambda: frame.assign(**names).to_feather(file, compression="uncompressed"))


def write(frame: pd.DataFrame, storage: Storage, name: str) -> None:
    """Write forecasts to a file, whole or not at all.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    with storage.writing(name) as file:
        arrow(lambda: frame.to_feather(file))


def read(storage: Storage, name: str) -> pd.DataFrame:
    """Return the frame in a file.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    return arrow(lambda: _read(storage, name))


def arrow(act: Callable[[], T]) -> T:
    """Return what ``act`` does with pyarrow.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    try:
        return act()
    except ImportError:
        raise MissingExtra("forecast") from None


def _read(storage: Storage, name: str) -> pd.DataFrame:
    from pyarrow import feather

    with storage.reading(name) as file:  # one thread: an attempt's process has one
        frame: pd.DataFrame = feather.read_table(file, use_threads=False).to_pandas(use_threads=False)
    return frame
