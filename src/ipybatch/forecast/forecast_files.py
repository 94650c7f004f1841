"""Files of the forecasts of finished partitions, and the whole forecast read from them.

    rows of a partition --> sofifi-1c9f.rows.arrow     while it is trained
    its forecasts       --> sofifi-1c9f-<digest>.arrow until a run ends that does not refer to it

One folder per session, beside the journal or in the user's storage; every file is whole or not there. What no
recorded partition refers to is deleted when a run begins and when it has ended. The whole forecast is read a column at
a time, or written to another file some rows at a time: it may be larger than what the memory holds twice.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from ipybatch.engine.data.result_columns import safe_cell
from ipybatch.engine.store.atomic_write import draft_of
from ipybatch.errors import InputError
from ipybatch.forecast import worker
from ipybatch.forecast.storage import Folder, Storage, storage_of
from ipybatch.forecast.workbook import check_workbook, write_workbook
from ipybatch.forecast.worker import arrow
from ipybatch.frames import SUFFIXES

KEYS = ("site", "part")
WORDS = ("model_used", "reason")
COLUMNS = (*KEYS, "date", "forecast", "lo", "hi", *WORDS)
OUTPUTS = (*SUFFIXES, ".xlsx")
_WRITTEN = 500_000  # rows at a time
_MAGIC = b"ARROW1"  # with which a file of Arrow begins and ends


class ForecastFiles:
    """The files of one session.

    Args:
        journal: Path of the session's journal, beside which they lie.
        session: Name of the session.
        storage: The storage in which they lie instead, by its path or address; "" for none.

    Attributes:
        storage: Their folder.
    """

    def __init__(self, journal: Path, session: str, storage: str = "") -> None:
        self._beside = journal.parent / f"{journal.stem}-forecasts"
        place: Storage = storage_of(storage) if storage else Folder(self._beside)
        self.storage = place.below(_slug(session))
        self._table = table_in(place, session)

    def name(self, partition: str, digest: str) -> str:
        """Return the name of the file to which a partition's forecasts are written."""
        return f"{_slug(partition)}-{digest[:12]}.arrow"

    @contextmanager
    def rows(self, partition: str) -> Iterator[str]:
        """Give the name of the file from which a partition's process reads its rows; deleted when that has ended."""
        name = f"{_slug(partition)}.rows.arrow"
        try:
            yield name
        finally:
            self.storage.delete([name])

    def has(self, name: str) -> bool:
        """Say whether a file of forecasts is there, from its beginning to its end."""
        try:
            return self.storage.ends(name, len(_MAGIC)) == (_MAGIC, _MAGIC)
        except OSError:  # also of a file shorter than that
            return False

    def put(self, partition: str, digest: str, frame: pd.DataFrame) -> str:
        """Write a partition's forecasts and return the name of their file.

        Raises:
            MissingExtra: pyarrow is not installed.
        """
        name = self.name(partition, digest)
        worker.write(frame, self.storage, name)
        return name

    def read(self, names: Iterable[str]) -> pd.DataFrame:
        """Return the forecasts of these files as one frame; model_used and reason are categories.

        Raises:
            MissingExtra: pyarrow is not installed.
        """
        if not (files := list(names)):
            return pd.DataFrame(columns=list(COLUMNS))
        return pd.DataFrame({name: arrow(partial(self._column, files, name)) for name in COLUMNS}, copy=False)

    def write(self, names: Iterable[str], path: Path) -> None:
        """Write the forecasts of these files to another one of `OUTPUTS`, atomically; some rows at a time.

        Raises:
            MissingExtra: pyarrow or, for .xlsx, XlsxWriter is not installed.
        """
        if not (files := list(names)):
            write(self.read(()), path)
            return
        with draft_of(path) as draft:
            act = {".parquet": _write_parquet, ".xlsx": _write_workbook}.get(path.suffix)
            tables = self._tables(files)
            arrow(lambda: _write_text(tables, draft, path) if act is None else act(tables, draft))

    def keep(self, names: Iterable[str]) -> None:
        """Delete all files but these; the folder too when there are none."""
        kept = set(names)
        self.storage.delete(name for name in self.storage.names() if name not in kept)
        if not kept:
            self.storage.clear()
            with suppress(OSError):  # not there, or another session's files are
                self._beside.rmdir()

    def clear(self) -> None:
        """Delete all files, and the table that workers have read."""
        self.keep(())
        self._table.clear()

    def _column(self, names: Sequence[str], column: str) -> pd.Series[Any]:
        """Read one column of all files: with all columns at once, a large forecast would be held twice."""
        import pyarrow as pa

        columns = [self._of(name, column) for name in names]
        if pa.types.is_dictionary(columns[0].type):  # of another size in each file
            values = columns[0].type.value_type
            kind = values if column in KEYS else pa.dictionary(pa.int32(), values)
            columns = [each.cast(kind) for each in columns]
        chunks = [chunk for each in columns for chunk in each.chunks]
        whole: pd.Series[Any] = pa.chunked_array(chunks, columns[0].type).unify_dictionaries().to_pandas()
        return whole

    def _tables(self, names: Sequence[str]) -> Iterator[Any]:
        """Yield the forecasts of all files, some rows at a time, all of one schema: words are numbered alike."""
        import pyarrow as pa

        words = {word: self._words(names, word) for word in WORDS}
        for file in names:
            with self.storage.reading(file) as source:
                reader = pa.ipc.open_file(source)
                count = reader.num_record_batches
                step = max(1, _WRITTEN // max(1, reader.get_batch(0).num_rows)) if count else 1
                for begin in range(0, count, step):
                    batches = [reader.get_batch(at) for at in range(begin, min(begin + step, count))]
                    table = pa.Table.from_batches(batches)
                    yield pa.table({name: _plain(table.column(name), words.get(name)) for name in COLUMNS})

    def _words(self, names: Sequence[str], column: str) -> Any:
        """Return all values of a column of words, once each; few in every file."""
        import pyarrow as pa

        columns = [self._of(name, column) for name in names]
        chunks = [chunk for each in columns for chunk in each.chunks[:1]]
        found = {word: None for chunk in chunks for word in chunk.dictionary.to_pylist()}
        return pa.array(list(found), columns[0].type.value_type)

    def _of(self, name: str, column: str) -> Any:
        from pyarrow import feather

        with self.storage.reading(name) as file:
            return feather.read_table(file, columns=[column]).column(0)


def table_in(storage: Storage, session: str) -> Storage:
    """Return the folder of a storage in which the table of a session is kept, where workers have read its files."""
    return storage.below(f"{_slug(session)}.table")


def safe(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame whose cells a spreadsheet does not run as formulas."""
    names = frame.select_dtypes(exclude=["number", "datetime"]).columns
    return frame.assign(**{str(name): frame[name].astype("category").map(safe_cell) for name in names})


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame to a file of `OUTPUTS`, atomically.

    Raises:
        MissingExtra: pyarrow or, for .xlsx, XlsxWriter is not installed.
    """
    with draft_of(path) as draft:
        if path.suffix == ".csv":
            safe(frame).to_csv(draft, index=False, lineterminator="\r\n")
        elif path.suffix == ".xlsx":
            write_workbook([frame], draft)
        elif path.suffix == ".parquet":
            arrow(lambda: frame.to_parquet(draft, index=False))
        else:
            frame.to_json(draft, orient="records", lines=True, date_format="iso")


def check_output(path: str | Path | None) -> Path | None:
    """Return the path of the output file; None for no output.

    Raises:
        InputError: The folder does not exist, the file has another suffix, or is a folder.
        MissingExtra: XlsxWriter is not installed, for .xlsx.
    """
    if path is None:
        return None
    found = Path(path)
    if found.suffix not in OUTPUTS:
        msg = f"output must end in {', '.join(OUTPUTS)}, got {str(path)!r}"
        raise InputError(msg)
    if not found.parent.is_dir():
        msg = f"output must lie in a folder that is there, got {str(path)!r}: make {str(found.parent)!r} first"
        raise InputError(msg)
    if found.is_dir():
        msg = f"output must be a file, got {str(path)!r}, which is a folder: name a file in it"
        raise InputError(msg)
    if found.suffix == ".xlsx":
        check_workbook()
    return found


def _write_parquet(tables: Iterable[Any], draft: Path) -> None:
    from pyarrow import parquet

    writer = None
    try:
        for table in tables:
            writer = writer or parquet.ParquetWriter(draft, table.schema)
            writer.write_table(table, row_group_size=_WRITTEN)
    finally:
        if writer is not None:
            writer.close()


def _write_workbook(tables: Iterable[Any], draft: Path) -> None:
    write_workbook((table.to_pandas() for table in tables), draft)


def _write_text(tables: Iterable[Any], draft: Path, path: Path) -> None:
    is_csv = path.suffix == ".csv"
    with draft.open("w", encoding="utf-8", newline="") as file:
        for number, table in enumerate(tables):
            frame = table.to_pandas()
            if is_csv:
                safe(frame).to_csv(file, index=False, header=number == 0, lineterminator="\r\n")
            else:
                frame.to_json(file, orient="records", lines=True, date_format="iso")


def _plain(column: Any, words: Any) -> Any:
    """Return a column as in all other files: names as they are, words by their number among all words."""
    import pyarrow as pa
    from pyarrow import compute

    if not pa.types.is_dictionary(column.type):
        return column
    if words is None:
        return column.cast(column.type.value_type)
    chunks = []
    for chunk in column.chunks:
        number = compute.index_in(chunk.dictionary, words).cast(pa.int32())
        chunks.append(pa.DictionaryArray.from_arrays(number.take(chunk.indices), words))
    return pa.chunked_array(chunks)


def _slug(name: str) -> str:
    """Return a name as a file's: what two names share, a hash tells apart."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
    return f"{slug or 'x'}-{hashlib.blake2b(name.encode(), digest_size=3).hexdigest()}"
