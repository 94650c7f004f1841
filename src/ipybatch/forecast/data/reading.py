"""Reading: from anything a user hands over to one raw frame, its cells as they are."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ipybatch.errors import InputError, MissingExtra

_ENCODING = "utf-8-sig"


@dataclass(frozen=True, slots=True, eq=False)
class Raw:
    """A user's table, as it is.

    Attributes:
        frame: Its cells; its index and `first` added are the rows as the user counts them.
        first: What the user calls the row of index 0.
        source: Its file's name; "" for a frame.
        encoding: Of its text file; "" for what is none.
        sep: What separates the columns of its text file; "" for what is none.
        is_text: Whether every cell is text as it was written, so that numbers and dates have a style to be found.
    """

    frame: pd.DataFrame
    first: int = 0
    source: str = ""
    encoding: str = ""
    sep: str = ""
    is_text: bool = False


def read(demand: Any) -> Raw:
    """Return a user's table as it is.

    Raises:
        InputError: It is no table, or cannot be read.
        MissingExtra: The package that reads .parquet files is not installed.
    """
    if isinstance(demand, pd.DataFrame):
        return Raw(demand.reset_index(drop=True))
    if isinstance(demand, str | os.PathLike) and Path(demand).suffix.lower() == ".parquet":
        try:
            return Raw(pd.read_parquet(demand).reset_index(drop=True), source=str(demand))
        except ImportError:
            raise MissingExtra("forecast") from None
        except (OSError, ValueError) as error:
            raise _unread(str(demand), error) from None
    if isinstance(demand, str | os.PathLike) or hasattr(demand, "read"):
        return _read_csv(demand)
    msg = f"demand must be a DataFrame or the path of a .csv or .parquet file, got {type(demand).__name__}"
    raise InputError(msg)


def _read_csv(source: Any) -> Raw:
    """Return the file's cells as text, without the rows that are blank; their numbers stay."""
    name = str(source) if isinstance(source, str | os.PathLike) else getattr(source, "name", "the file")
    try:
        data = Path(source).read_bytes() if isinstance(source, str | os.PathLike) else source.read()
        head = data.split(b"\n", 1)[0]
        sep = max(",;\t|", key=lambda mark: head.count(mark.encode()))
        cells = pd.read_csv(
            io.BytesIO(data), sep=sep, dtype=str, keep_default_na=False, skip_blank_lines=False, encoding=_ENCODING
        )
    except (OSError, UnicodeDecodeError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise _unread(name, error) from None
    cells = cells[(cells != "").any(axis=1)] if len(cells) else cells
    return Raw(cells, first=2, source=name, encoding=_ENCODING, sep=sep, is_text=True)


def _unread(name: str, error: Exception) -> InputError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error).strip()
    return InputError(f"demand must be a table that can be read (.csv in UTF-8, or .parquet), got {name!r}: {why}")
