"""Upload store: tables that are kept until they are submitted, in a private folder beside the journal.

    body --Draft--> file --describe, apart--> rows, columns, analysis --> ID.csv or ID.parquet, and ID.json

Rules: the name of a file is a hash of what is in it, never a name from a request: the same table is the same upload,
and a request that is sent again with it is the same request.  A table is read in a process of
its own, which has so much memory and time and no more: what a small file unpacks to, or a line of a million titles,
is that process's end and no one else's.

An upload goes an hour after it was last asked for where its submissions are completed, else after a day; never while
a submission that has not ended needs it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import time
import zipfile
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

import msgspec

from ipybatch.engine.store.atomic_write import draft_of
from ipybatch.engine.store.journal import default_path
from ipybatch.errors import InputError, JournalError
from ipybatch.server.wire import Upload

Kind = Literal["csv", "parquet", "xlsx"]
T = TypeVar("T")

KEPT_S = 86_400.0
DONE_S = 3600.0  # the same table may have come again, for another submission
MOST_COLUMNS = 2000
MOST_ROWS = 50_000_000
MOST_TITLES_BYTES = 1 << 20
APART_S, APART_MB = 180.0, 2048.0
_UNPACKED = 20  # of a spreadsheet: times its size, and at least so many bytes:
_UNPACKED_BYTES = 200_000_000
_ID = re.compile("[0-9a-f]{32}", re.ASCII)
_TOLD = 20
_PRELOAD = ("pandas", "ipybatch.forecast.analysis")


def folder_of(journal: Path | None = None) -> Path:
    """Return the folder of the uploads of a journal; default: the common one."""
    return (journal or default_path()).with_name("uploads")


def find(upload: str, journal: Path | None = None) -> Upload | None:
    """Return what is known of an upload; None where there is none of this id."""
    if not _ID.fullmatch(upload):
        return None
    try:
        return msgspec.json.decode((folder_of(journal) / f"{upload}.json").read_bytes(), type=Upload)
    except (OSError, msgspec.MsgspecError):
        return None


def path_of(upload: str, journal: Path | None = None) -> Path | None:
    """Return the file of an upload, which is kept a day from now; None where there is none of this id."""
    if find(upload, journal) is None:
        return None
    for kind in ("csv", "parquet"):
        path = folder_of(journal) / f"{upload}.{kind}"
        if path.is_file():
            with suppress(OSError):
                os.utime(path.with_suffix(".json"))
            return path
    return None


def discard(upload: str, journal: Path | None = None) -> None:
    """Delete an upload, if it is there."""
    if _ID.fullmatch(upload):
        for suffix in ("json", "csv", "parquet"):
            (folder_of(journal) / f"{upload}.{suffix}").unlink(missing_ok=True)


def sweep(
    held: Collection[str] = (), done: Collection[str] = (), journal: Path | None = None, *, now_s: float | None = None
) -> None:
    """Delete what nobody needs any more, or asked for in a day, and drafts that were given up.

    Args:
        held: Ids that submissions need which have not ended.
        done: Ids of which all submissions are completed.
        now_s: Unix time; default: the present.
    """
    now_s = time.time() if now_s is None else now_s
    last: dict[str, float] = {}
    for path in folder_of(journal).glob("*"):
        with suppress(OSError):
            last[path.name.partition(".")[0]] = max(path.stat().st_mtime, last.get(path.name.partition(".")[0], 0.0))
    for stem, used_s in last.items():
        kept_s = DONE_S if stem in done else KEPT_S
        if stem not in held and abs(now_s - used_s) >= kept_s:  # a clock may have been wrong, either way
            for path in folder_of(journal).glob(f"{stem}.*"):
                path.unlink(missing_ok=True)


class Draft:
    """A file that is being uploaded; block by block, so that little of it is in memory.

    Args:
        journal: The journal beside which it is kept; default: the common one.

    Attributes:
        size: Bytes so far.

    Raises:
        JournalError: The folder cannot be written.
    """

    def __init__(self, journal: Path | None = None) -> None:
        self._own, self.size = secrets.token_hex(16), 0
        self._journal = journal
        self._digest = hashlib.sha256()
        folder = folder_of(journal)
        self.path = folder / f"{self._own}.part"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file: BinaryIO = open(self.path, "xb", opener=_privately)  # noqa: SIM115  # closed by `end` or `drop`
        except OSError as error:
            msg = f"uploads cannot be kept: {error.strerror}"
            raise JournalError(msg) from None

    def write(self, block: bytes) -> None:
        """Add a block.

        Raises:
            JournalError: The disk is full, or fails.
        """
        try:
            self._file.write(block)
        except OSError as error:
            msg = f"the upload cannot be kept: {error.strerror}"
            raise JournalError(msg) from None
        self._digest.update(block)
        self.size += len(block)

    def end(self) -> None:
        """End the file.

        Raises:
            JournalError: The disk is full, or fails.
        """
        try:
            self._file.close()
        except OSError as error:
            msg = f"the upload cannot be kept: {error.strerror}"
            raise JournalError(msg) from None

    def drop(self) -> None:
        """Delete the file, if it was not kept."""
        with suppress(OSError):
            self._file.close()
        for path in folder_of(self._journal).glob(f"{self._own}.*part*"):
            path.unlink(missing_ok=True)

    def keep(self, described: dict[str, Any]) -> Upload:
        """Keep the file, with what was found in it.

        Args:
            described: What `describe` returned.

        Raises:
            JournalError: The disk is full, or fails.
        """
        try:
            return self._keep(described)
        except OSError as error:
            msg = f"the upload cannot be kept: {error.strerror}"
            raise JournalError(msg) from None

    def _keep(self, described: dict[str, Any]) -> Upload:
        sha256 = self._digest.hexdigest()
        upload = Upload(id=sha256[:32], sha256=sha256, bytes=self.size, **described["told"])
        kept = self.path.with_name(f"{upload.id}.{described['kind']}")
        Path(described["file"]).replace(kept)
        self.path.unlink(missing_ok=True)
        with draft_of(kept.with_suffix(".json")) as draft:
            draft.write_bytes(msgspec.json.encode(upload))
            draft.chmod(0o600)
        return upload


def _privately(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


async def apart(work: Callable[..., T], *arguments: Any) -> T:
    """Return what ``work`` returns, from a process of its own with limits on time and memory.

    Raises:
        InputError: It takes too much of either.
        BatchError: An error of the work itself.
    """
    from ipybatch.backends.process.backend import Processes
    from ipybatch.errors import ItemError

    backend = Processes(1, APART_MB, APART_S, preload=_PRELOAD)
    await backend.open(1)
    try:
        result: T = await backend.run(work, arguments)
    except ItemError as error:
        msg = f"the table must be one that can be read here: {error}"
        raise InputError(msg) from None
    finally:
        await backend.close()
    return result


def run_apart(work: Callable[..., T], *arguments: Any) -> T:
    """Return what `apart` does; for threads without a loop.

    Raises:
        BatchError: As `apart`.
    """
    return asyncio.run(apart(work, *arguments))


def sniff(head: bytes) -> Kind:
    """Return what a file seems to be, by its first bytes."""
    if head.startswith(b"PAR1"):
        return "parquet"
    return "xlsx" if head.startswith(b"PK\x03\x04") else "csv"


def describe(path: Path, kind: Kind) -> dict[str, Any]:
    """Return what a table is: rows, columns, and the analysis of a demand table.  Called in a process of its own.

    A spreadsheet becomes a CSV file beside it, which is the one to keep.

    Raises:
        InputError: It cannot be read.
        MissingExtra: A package that reads it is not installed.
    """
    with path.open("rb") as file:
        found = sniff(file.read(16))
    if found != kind or not path.stat().st_size:
        seen = "is empty" if not path.stat().st_size else f"seems to be {found}"
        msg = f"the table must be {kind}, as it was said to be, and it {seen}"
        raise InputError(msg)
    if kind == "xlsx":
        path = _to_csv(path)
        kind = "csv"
    if kind == "parquet":
        rows, columns = _measure_parquet(path)
    else:
        _check_titles(path)
        rows, columns = -1, []
    named = path.with_name(f"{path.name}.{kind}")  # readers go by the suffix
    path.replace(named)
    analysis, note = None, ""
    try:
        analysis = analysis_of(named, {"timed": False})
        rows, columns = analysis.pop("rows_in_all"), analysis.pop("columns_in_all")
    except InputError as error:  # no demand table, which it need not be
        note = str(error).replace(str(named), "the file")
        if kind == "csv":
            rows, columns = _measure_csv(named)
    told = {"rows": rows, "columns": columns, "analysis": analysis, "note": note}
    return {"file": str(named), "kind": kind, "told": told}


def analysis_of(path: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Return what `ipybatch.forecast.analyze` says of a table, as JSON data.  Called in a process of its own.

    Raises:
        InputError: It is no demand table.
        MissingExtra: A package that reads it is not installed.
    """
    from ipybatch.forecast import analyze

    found = analyze(path, **options)
    table = found.table
    frame = found.to_frame().astype(object)
    named = [str(table.columns[ours]) for ours in table.columns]
    return {
        "rows": found.rows,
        "sites": found.sites,
        "parts": found.parts,
        "series": found.series,
        "by": found.by,
        "horizon": found.horizon,
        "freq": table.freq,
        "start": table.start.date().isoformat(),
        "end": table.end.date().isoformat(),
        "columns": {ours: str(name) for ours, name in table.columns.items()},
        "partitions": frame.where(frame.notna(), None).to_dict("records"),
        "seconds": found.seconds,
        "speed_up": found.speed_up,
        "pays": found.pays,
        "why": found.why,
        "notes": list(found.notes),
        "problem_count": len(found.problems),
        "problems": [str(problem) for problem in found.problems[:_TOLD]],
        "rows_in_all": table.rows,
        "columns_in_all": [*named, *(str(name) for name in table.frame.columns[4:])],
    }


def _check_titles(path: Path) -> None:
    with path.open("rb") as file:
        line = file.readline(MOST_TITLES_BYTES)
    columns = max(line.count(mark) for mark in (b",", b";", b"\t", b"|")) + 1
    if len(line) == MOST_TITLES_BYTES or columns > MOST_COLUMNS:
        msg = f"the table must have at most {MOST_COLUMNS:,} columns, and titles in its first line, got {columns:,}"
        raise InputError(msg)
    if b"\0" in line:
        msg = "the table must be CSV in UTF-8, and it has bytes that no text has"
        raise InputError(msg)


def _measure_csv(path: Path) -> tuple[int, list[str]]:
    import pandas as pd

    head = path.read_bytes()[:MOST_TITLES_BYTES].split(b"\n", 1)[0]
    sep = max(",;\t|", key=lambda mark: head.count(mark.encode()))
    try:
        cells = pd.read_csv(path, sep=sep, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        msg = f"the table must be one that can be read (CSV in UTF-8): {str(error).strip()}"
        raise InputError(msg) from None
    return len(cells), [str(name) for name in cells.columns]


def _measure_parquet(path: Path) -> tuple[int, list[str]]:
    from ipybatch.errors import MissingExtra

    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise MissingExtra("forecast") from None
    try:
        with parquet.ParquetFile(path) as file:
            about, names = file.metadata, file.schema_arrow.names
    except (pa.ArrowException, OSError) as error:
        msg = f"the table must be one that can be read (parquet): {error}"
        raise InputError(msg) from None
    if about.num_columns > MOST_COLUMNS or about.num_rows > MOST_ROWS:
        size = f"{about.num_rows:,} rows of {about.num_columns:,} columns"
        msg = f"the table must have at most {MOST_ROWS:,} rows of {MOST_COLUMNS:,} columns, got {size}"
        raise InputError(msg)
    return about.num_rows, [str(name) for name in names]


def _to_csv(path: Path) -> Path:
    """Write the first sheet of a spreadsheet as CSV beside it.

    Raises:
        InputError: It is no spreadsheet, is too large, or the package that reads it is not installed.
    """
    import csv

    try:
        from openpyxl import load_workbook  # type: ignore[import-not-found, import-untyped, unused-ignore]  # optional
    except ImportError:
        msg = "a spreadsheet needs openpyxl, which is not installed: run pip install openpyxl, or save it as CSV"
        raise InputError(msg) from None
    try:
        with zipfile.ZipFile(path) as packed:
            unpacked = sum(part.file_size for part in packed.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        msg = f"the table must be a spreadsheet that can be read: {error}"
        raise InputError(msg) from None
    most = max(_UNPACKED_BYTES, _UNPACKED * path.stat().st_size)
    if unpacked > most:
        msg = f"the spreadsheet must unpack to at most {most:,} bytes, got {unpacked:,}: save it as CSV"
        raise InputError(msg)
    made = path.with_name(f"{path.name}.sheet")
    try:
        book = load_workbook(path, read_only=True, data_only=True)
        sheet = book.worksheets[0]
        if (sheet.max_column or 0) > MOST_COLUMNS:
            msg = f"the table must have at most {MOST_COLUMNS:,} columns, got {sheet.max_column:,}"
            raise InputError(msg)
        with open(made, "x", newline="", encoding="utf-8", opener=_privately) as file:
            rows = csv.writer(file)
            rows.writerows([_cell(value) for value in row] for row in sheet.iter_rows(values_only=True))
    except InputError:
        raise
    except Exception as error:  # whatever openpyxl says of a file that is none
        msg = f"the table must be a spreadsheet that can be read: {type(error).__name__}: {error}"
        raise InputError(msg) from None
    return made


def _cell(value: Any) -> str:
    """Return a cell as a CSV file has it: a day without its midnight."""
    if value is None:
        return ""
    text = value.isoformat(sep=" ") if hasattr(value, "hour") and hasattr(value, "year") else str(value)
    return text.removesuffix(" 00:00:00")
