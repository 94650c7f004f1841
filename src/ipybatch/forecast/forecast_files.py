"""Files of the forecasts of finished partitions, and the whole forecast read from them.

One folder per session beside the journal, one file per partition, written
atomically. Files that no recorded partition refers to are deleted when a run
has ended.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from ipybatch.engine.data.result_columns import safe_cell
from ipybatch.engine.store.atomic_write import draft_of
from ipybatch.errors import InputError, MissingExtra
from ipybatch.frames import SUFFIXES

KEYS = ("site", "part")
COLUMNS = (*KEYS, "date", "forecast", "lo", "hi", "model_used", "reason")

T = TypeVar("T")


class ForecastFiles:
    """The files of one session.

    Args:
        journal: Path of the session's journal.
        session: Name of the session.
    """

    def __init__(self, journal: Path, session: str) -> None:
        self._folder = journal.parent / f"{journal.stem}-forecasts" / _slug(session)

    def put(self, partition: str, digest: str, frame: pd.DataFrame) -> str:
        """Write a partition's forecasts and return the name of their file.

        Raises:
            MissingExtra: pyarrow is not installed.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{_slug(partition)}-{digest[:12]}.arrow"
        with draft_of(self._folder / name) as draft:
            _arrow(lambda: frame.to_feather(draft))
        return name

    def read(self, names: Iterable[str]) -> pd.DataFrame:
        """Return the forecasts of these files as one frame; model_used and reason are categories.

        Raises:
            MissingExtra: pyarrow is not installed.
        """
        paths = [self._folder / name for name in names]
        if not paths:
            return pd.DataFrame(columns=list(COLUMNS))
        return pd.DataFrame({name: _arrow(partial(_column, paths, name)) for name in COLUMNS}, copy=False)

    def keep(self, names: Iterable[str]) -> None:
        """Delete all files but these; the folder too when there are none."""
        kept = set(names)
        for path in self._folder.glob("*"):
            if path.name not in kept:
                path.unlink(missing_ok=True)
        if not kept:
            shutil.rmtree(self._folder, ignore_errors=True)
            with suppress(OSError):  # not there, or another session's files are
                self._folder.parent.rmdir()


def safe(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame whose cells a spreadsheet does not run as formulas."""
    names = frame.select_dtypes(exclude=["number", "datetime"]).columns
    return frame.assign(**{str(name): frame[name].astype("category").map(safe_cell) for name in names})


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame to a .csv, .parquet or .jsonl file, atomically.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    with draft_of(path) as draft:
        if path.suffix == ".csv":
            safe(frame).to_csv(draft, index=False, lineterminator="\r\n")
        elif path.suffix == ".parquet":
            _arrow(lambda: frame.to_parquet(draft, index=False))
        else:
            frame.to_json(draft, orient="records", lines=True, date_format="iso")


def check_output(path: str | Path | None) -> Path | None:
    """Return the path of the output file; None for no output.

    Raises:
        InputError: The folder does not exist, or the file has another suffix.
    """
    if path is None:
        return None
    found = Path(path)
    if found.suffix not in SUFFIXES:
        msg = f"output must end in {', '.join(SUFFIXES)}, got {str(path)!r}"
        raise InputError(msg)
    if not found.parent.is_dir():
        msg = f"output must lie in a folder that is there, got {str(path)!r}: make {str(found.parent)!r} first"
        raise InputError(msg)
    return found


def _column(paths: list[Path], name: str) -> pd.Series[Any]:
    """Read one column of all files: with all columns at once, a large forecast would be held twice."""
    import pyarrow as pa
    from pyarrow import feather

    columns = [feather.read_table(path, columns=[name]).column(0) for path in paths]
    if pa.types.is_dictionary(columns[0].type):  # of another size in each file
        values = columns[0].type.value_type
        kind = values if name in KEYS else pa.dictionary(pa.int32(), values)
        columns = [column.cast(kind) for column in columns]
    chunks = [chunk for column in columns for chunk in column.chunks]
    whole: pd.Series[Any] = pa.chunked_array(chunks, columns[0].type).unify_dictionaries().to_pandas()
    return whole


def _arrow(act: Callable[[], T]) -> T:
    try:
        return act()
    except ImportError:
        raise MissingExtra("forecast") from None


def _slug(name: str) -> str:
    """Return a name as a file's: what two names share, a hash tells apart."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
    return f"{slug or 'x'}-{hashlib.blake2b(name.encode(), digest_size=3).hexdigest()}"
