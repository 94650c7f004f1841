"""Upload store: tables that are kept until they are submitted, in a private folder beside the journal.

    body --Draft--> file --describe, apart--> rows, columns, analysis --> ID.csv, .xlsx or .parquet, and ID.json

Rules: the name of a file is a hash of what is in it, never a name from a request: the same table is the same upload,
and a request that is sent again with it is the same request.  A table is read in a process of
its own, which has so much memory and time and no more: what a small file unpacks to, or a line of a million titles,
is that process's end and no one else's.

An upload goes an hour after it was last asked for where its submissions are completed, else after a day; never while
a submission that has not ended needs it.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import re
import secrets
import time
import zipfile
import zlib
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar, get_args

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
_UNPACKED = 20  # of what is packed: times its size, and at least so many bytes:
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
    for kind in get_args(Kind):
        path = folder_of(journal) / f"{upload}.{kind}"
        if path.is_file():
            with suppress(OSError):
                os.utime(path.with_suffix(".json"))
            return path
    return None


def discard(upload: str, journal: Path | None = None) -> None:
    """Delete an upload, if it is there."""
    if _ID.fullmatch(upload):
        for suffix in ("json", *get_args(Kind)):
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
    """Return what a file seems to be, by its first bytes: a table, a spreadsheet, or text."""
    if head.startswith(b"PAR1"):
        return "parquet"
    return "xlsx" if head.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")) else "csv"


def describe(path: Path, kind: Kind, charset: str = "") -> dict[str, Any]:
    """Return what a table is: rows, columns, and the analysis of a demand table.  Called in a process of its own.

    A file that is packed with gzip is unpacked, and text of another encoding becomes UTF-8, which is kept then.

    Args:
        path: The file.
        kind: What it is said to be.
        charset: The encoding that its text is said to have; "" for none.

    Raises:
        InputError: It cannot be read.
        MissingExtra: A package that reads it is not installed.
    """
    path = _unpacked(path)
    with path.open("rb") as file:
        found = sniff(file.read(16))
    if found != kind or not path.stat().st_size:
        seen = "is empty" if not path.stat().st_size else f"seems to be {found}"
        msg = f"the table must be {kind}, as it was said to be, and it {seen}"
        raise InputError(msg)
    rows, columns = -1, list[str]()
    if kind == "parquet":
        rows, columns = _measure_parquet(path)
    elif kind == "xlsx":
        _check_packed(path)
    else:
        path = _in_utf8(path, charset)
        _check_titles(path)
    named = path.with_name(f"{path.name}.{kind}")  # what it is kept as
    path.replace(named)
    analysis, note = None, ""
    try:
        analysis = analysis_of(named, {"timed": False})
        rows, columns = analysis.pop("rows_in_all"), analysis.pop("columns_in_all")
    except InputError as error:  # no demand table, which it need not be
        note = str(error).replace(str(named), "the file")
        if kind != "parquet":
            rows, columns = _measure(named)
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


def _unpacked(path: Path) -> Path:
    """Return a file without its packing by gzip, of which there is one at most."""
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return path
    most = max(_UNPACKED_BYTES, _UNPACKED * path.stat().st_size)
    made = path.with_name(f"{path.name}.unpacked")
    size = 0
    try:
        with gzip.open(path) as packed, open(made, "xb", opener=_privately) as file:
            while block := packed.read(1 << 20):
                size += len(block)
                if size > most:
                    msg = f"the table must unpack to at most {most:,} bytes, got more: send parquet"
                    raise InputError(msg)
                file.write(block)
    except (OSError, EOFError, zlib.error) as error:
        msg = f"the table must be one that can be read (gzip): {error}"
        raise InputError(msg) from None
    return made


def _in_utf8(path: Path, charset: str) -> Path:
    """Return a text file in UTF-8, where it is said to be of another encoding."""
    if not charset or charset.lower() in ("utf-8", "utf8", "us-ascii"):
        return path
    made = path.with_name(f"{path.name}.utf8")
    try:
        with (
            path.open(encoding=charset, newline="") as file,
            open(made, "x", newline="", encoding="utf-8", opener=_privately) as kept,
        ):
            while block := file.read(1 << 20):
                kept.write(block)
    except (LookupError, UnicodeError) as error:
        msg = f"the table must be text of the encoding that it is said to have, {charset!r}: {error}"
        raise InputError(msg) from None
    return made


def _check_titles(path: Path) -> None:
    with path.open("rb") as file:
        line = file.readline(MOST_TITLES_BYTES)
    columns = max(line.count(mark) for mark in (b",", b";", b"\t", b"|")) + 1
    if len(line) == MOST_TITLES_BYTES or columns > MOST_COLUMNS:
        msg = f"the table must have at most {MOST_COLUMNS:,} columns, and titles in its first line, got {columns:,}"
        raise InputError(msg)


def _measure(path: Path) -> tuple[int, list[str]]:
    """Return the rows and columns of a table of text or of a spreadsheet."""
    from ipybatch.forecast.data.reading import read
    from ipybatch.forecast.data.understanding import Undecided

    try:
        frame = read(path).frame
    except Undecided:  # a sheet or an encoding, which the parameters of a submission say
        return 0, []
    except InputError as error:
        msg = str(error).replace(str(path), "the file").replace("demand must", "the table must", 1)
        raise InputError(msg) from None
    if len(frame.columns) > MOST_COLUMNS:
        msg = f"the table must have at most {MOST_COLUMNS:,} columns, got {len(frame.columns):,}"
        raise InputError(msg)
    return len(frame), [str(name) for name in frame.columns]


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


def _check_packed(path: Path) -> None:
    """Refuse a spreadsheet that unpacks to too much.

    Raises:
        InputError: It does, or is none.
    """
    if not zipfile.is_zipfile(path):  # an old spreadsheet, which is not packed, or none: its reader says so
        return
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
