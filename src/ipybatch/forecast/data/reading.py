"""Reading: from anything a user hands over to one raw frame, its cells as they are.

    DataFrame, polars, pyarrow, ... ------------------------------------------------> frame
    path, pattern, folder, URL, open file --bytes--> parquet ------------------------> frame
                                                     spreadsheet --sheet--> cells --grid--> frame
                                                     text --encoding, separator--> cells --grid--> frame

What a file is, its first bytes say, not its name: spreadsheets are called .csv, and an open file may have no name.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pandas as pd

from ipybatch.engine.data.masking import mask
from ipybatch.errors import InputError
from ipybatch.forecast.data import grid
from ipybatch.forecast.data.frame import arrow, frame_of, of_arrow, plain
from ipybatch.forecast.data.problems import Problem
from ipybatch.forecast.data.sheet import read_sheet
from ipybatch.forecast.data.text_file import read_text

ACCEPTED = (
    "a DataFrame of pandas, polars or pyarrow, the path, folder, pattern or URL of .csv, .tsv, .txt, .xlsx or .parquet"
    " files, or an open file"
)
_SUFFIXES = ("parquet", "csv", "tsv", "txt", "xlsx", "xls", "xlsm", "xlsb", "ods")  # of tables in a folder
_PACKED = ("", ".gz", ".bz2", ".xz", ".zip")
_URL = re.compile(r"[A-Za-z][\w+.:-]+://")
PARQUET, ZIP, OLE = b"PAR1", b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_UNPACK: Mapping[bytes, Callable[[bytes], bytes]] = {  # by how such a file begins
    rb"\x1f\x8b": gzip.decompress,
    rb"BZh[1-9]1AY&SY": bz2.decompress,
    rb"\xfd7zXZ\0": lzma.decompress,
}
_OTHERS = {  # how files begin that are no tables or that pandas reads, in small letters, and what helps
    rb"%pdf": "a PDF: export the table as CSV",
    rb"\x89png|\xff\xd8\xff": "a picture: export the table as CSV",
    rb"\{\\rtf": "a document: export the table as CSV",
    rb"sqlite format 3": "a database: pandas.read_sql reads a table of it",
    rb"arrow1\0": "an Arrow file: pandas.read_feather reads it",
    rb"orc[\x00-\x08\x80-\xff]": "an ORC file: pandas.read_orc reads it",
    rb"\x89hdf": "an HDF file: pandas.read_hdf reads it",
    rb"\x80[\x02-\x05]": "a pickle: hand over the frame",
    rb"<!doctype|<html|<table|<\?xml": "a web page or XML: pandas.read_html or pandas.read_xml reads it",
    rb'\{\s*"|\[\s*[\[{]': "JSON: pandas.read_json reads it",
}


@dataclass(frozen=True, slots=True, eq=False)
class Raw:
    """A user's table, as it is.

    Attributes:
        frame: Its cells; its index and `first` added are the rows as the user counts them.
        first: What the user calls the row of index 0.
        encoding: Of its text file; "" for what is none.
        sep: What separates the columns of its text file; "" for what is none.
        notes: What was left out or taken for something.
        problems: Rows that are left out as they cannot be used: their cells are too many.
    """

    frame: pd.DataFrame
    first: int = 0
    encoding: str = ""
    sep: str = ""
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class _How:
    """How files are read: the user's own words on it."""

    encoding: str | None = None
    sheet: str | None = None
    columns: Mapping[str, Any] | None = None

    @property
    def named(self) -> list[Any]:
        return list((self.columns or {}).values())


def read(
    demand: Any, *, encoding: str | None = None, sheet: str | None = None, columns: Mapping[str, Any] | None = None
) -> Raw:
    """Return a user's table as it is.

    Args:
        demand: A frame of pandas, polars, pyarrow or another package; a path, a pattern such as ``"sales/*.csv"``, a
            folder, a list of paths, or a URL that fsspec knows; or an open file.
        encoding: Of its text; None finds it.
        sheet: Of its spreadsheet; None finds it.
        columns: The columns that the user names, by which the row of titles and the sheet are found too.

    Raises:
        Undecided: Its encoding, or the sheet that is the table, may be several.
        InputError: It is no table, or cannot be read.
        MissingExtra: A package that reads it is not installed.
    """
    _check_words(encoding, sheet, columns)
    how = _How(encoding, sheet, columns)
    frame = frame_of(demand)
    if frame is not None:
        raw = Raw(plain(frame))
    elif isinstance(demand, str | os.PathLike):
        raw = _read_path(os.fspath(demand), how)
    elif isinstance(demand, list | tuple) and demand and all(isinstance(one, str | os.PathLike) for one in demand):
        raw = _read_all([local_path(os.fspath(one)) for one in demand], how)
    elif hasattr(demand, "read"):
        raw = _read_open(demand, how)
    elif isinstance(demand, bytes | bytearray | memoryview):
        raw = _read_bytes(bytes(demand), "the file", how)
    elif callable(getattr(demand, "open", None)):  # a file that is not open yet, of fsspec or in a .zip
        raw = _read_unopened(demand, how)
    else:
        raise _not_accepted(demand)
    made, note = grid.long(grid.without_repeats(raw.frame), columns)
    return replace(raw, frame=made, notes=(*raw.notes, note) if note else raw.notes)


def read_head(data: bytes, name: str, *, encoding: str | None, columns: Mapping[str, Any] | None) -> Raw:
    """Return the table that the first bytes of a text file hold; a wide one stays wide.

    Raises:
        Undecided: Its encoding may be several.
        InputError: It is no table, or cannot be read.
        MissingExtra: A package that reads it is not installed.
    """
    return _read_bytes(data, name, _How(encoding, None, columns))


def reads(demand: Any, path: Path, *, next_time: bool = False) -> bool:
    """Return whether `read` reads a file of this machine, by whatever name it is given.

    Args:
        demand: What `read` takes.
        path: The file; it need not be there.
        next_time: Whether it would be, as one of a folder or a pattern, once it is written.
    """
    if isinstance(demand, list | tuple):
        return any(reads(one, path) for one in demand if isinstance(one, str | os.PathLike)) and not next_time
    given = demand if isinstance(demand, str | os.PathLike) else getattr(demand, "name", None)
    if not isinstance(given, str | bytes | os.PathLike):
        return False
    place = local_path(os.fspath(given))
    try:
        whole, wanted = place.resolve(), path.resolve()
        if next_time:
            if place.is_dir():
                return bool(_kind_of(path.name)) and _is_table_in(whole, wanted)
            return not place.exists() and glob.has_magic(str(place)) and _fits(wanted, whole)
        return whole == wanted or (place.is_file() and path.exists() and place.samefile(path))
    except (OSError, ValueError, RuntimeError):  # no path at all: a table as text, a URL
        return False


def _is_table_in(folder: Path, path: Path) -> bool:
    return path.is_relative_to(folder) and not _is_hidden(path.relative_to(folder))


def _fits(path: Path, pattern: Path) -> bool:
    parts, wanted = path.parts, pattern.parts
    if "**" in wanted:
        return fnmatch(str(path), str(pattern).replace(f"**{os.sep}", "*"))
    return len(parts) == len(wanted) and all(map(fnmatch, parts, wanted))


def _check_words(encoding: Any, sheet: Any, columns: Any) -> None:
    if columns is not None and not isinstance(columns, Mapping):
        msg = f"columns must be a dict such as {{'site': 'Lokasi'}}, got {columns!r}"
        raise InputError(msg)
    for field, value in (("encoding", encoding), ("sheet", sheet)):
        if value is not None and not isinstance(value, str):
            msg = f"{field} must be text or None to find it, got {value!r}"
            raise InputError(msg)


def _not_accepted(demand: Any) -> InputError:
    hint = ""
    if isinstance(demand, list | tuple) and any(isinstance(one, pd.DataFrame) for one in demand):
        hint = ": pandas.concat(demand) makes one of them"
    elif isinstance(demand, list | tuple | dict) and demand:
        hint = ": pandas.DataFrame(demand) makes one of it"
    elif hasattr(demand, "__array__"):
        hint = ": pandas.DataFrame(demand, columns=[...]) makes one of it"
    return InputError(f"demand must be {ACCEPTED}, got {type(demand).__name__}{hint}")


def is_url(given: str) -> bool:
    """Say whether a text is the address of a place that fsspec opens, no path of this machine."""
    return bool(_URL.match(given)) and not given.startswith("file://")


def _read_path(given: str, how: _How) -> Raw:
    if is_url(given):
        return _read_url(given, how)
    paths = local_files(given)
    return _read_all(paths, how) if paths != [local_path(given)] else _read_file(paths[0], how)


def local_files(given: str) -> list[Path]:
    """Return the files of this machine that a path, a folder or a pattern names.

    Raises:
        InputError: It names none, files of several kinds, or it is no path at all.
    """
    if not given.strip():
        msg = f"demand must be {ACCEPTED}, got an empty path"
        raise InputError(msg)
    if "\n" in given or "\0" in given or len(given) > 4096:
        msg = f"demand must be {ACCEPTED}, got text of {len(given):,} characters: hand over io.StringIO(text)"
        raise InputError(msg)
    path = local_path(given)
    if path.is_dir():
        return _tables(path)
    if not path.exists() and glob.has_magic(given):
        fits = glob.iglob(str(path), recursive=True)  # noqa: PTH207  # Path.glob takes no absolute pattern
        found = sorted(one for one in map(Path, fits) if one.is_file())
        if not found:
            msg = f"demand must be {ACCEPTED}, got {given!r}, which no file fits: look at the folder and the pattern"
            raise InputError(msg)
        return found
    return [path]


def local_path(given: str | bytes) -> Path:
    """Return the path of this machine that a text is."""
    path = Path(os.fsdecode(given).removeprefix("file://"))
    with suppress(RuntimeError):  # no such user's home
        path = path.expanduser()
    return path


def _read_file(path: Path, how: _How) -> Raw:
    try:
        with path.open("rb") as file:
            head = file.read(len(PARQUET))
            data = b"" if head == PARQUET else head + file.read()
    except (OSError, ValueError) as error:
        raise _unread(str(path), error) from None
    return _read_parquet(path, str(path)) if head == PARQUET else _read_bytes(data, str(path), how)


def _tables(folder: Path) -> list[Path]:
    """Return the tables of a folder, of one kind."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        kind = _kind_of(path.name)
        if kind and path.is_file() and not _is_hidden(path.relative_to(folder)):
            found.setdefault(kind, []).append(path)
    return _of_one_kind(found, str(folder))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_", "~$")) for part in path.parts)


def _kind_of(name: str) -> str:
    lower = name.lower()
    return next((kind for kind in _SUFFIXES for packed in _PACKED if lower.endswith(f".{kind}{packed}")), "")


def _of_one_kind(found: Mapping[str, list[Any]], name: str) -> list[Any]:
    if not found:
        msg = f"demand must be a folder with .csv, .tsv, .txt, .xlsx or .parquet files, got {name!r}, which has none"
        raise InputError(msg)
    if len(found) > 1:
        counts = " and ".join(f"{len(paths):,} .{kind}" for kind, paths in found.items())
        kind = next(iter(found))
        msg = f"demand must be files of one kind, got {counts} in {name!r}: name them, e.g. {name.rstrip('/')}/*.{kind}"
        raise InputError(msg)
    return next(iter(found.values()))


def _read_all(paths: Sequence[Path], how: _How) -> Raw:
    if len(paths) == 1 and "=" not in str(paths[0]):
        return _read_file(paths[0], how)
    if all(_kind_of(path.name) == "parquet" for path in paths):
        return _read_parquets([str(path) for path in paths])
    parts = [(str(path), _read_file(path, how)) for path in paths]
    return _joined(parts)


def check_alike(name: str, columns: Iterable[Any], other: str, others: Iterable[Any]) -> None:
    """Refuse files of which one has a column that another lacks.

    Raises:
        InputError: They have; names both.
    """
    odd = sorted(map(str, set(columns) ^ set(others)))
    if odd:
        lost = ", ".join(odd[:5])
        msg = f"demand must be files of the same columns, got {name!r} and {other!r}: {lost} is not in both"
        raise InputError(msg)


def _joined(parts: Sequence[tuple[str, Raw]]) -> Raw:
    """Return tables of the same columns as one; their rows are counted one file after another."""
    for name, part in parts[1:]:
        check_alike(parts[0][0], parts[0][1].frame.columns, name, part.frame.columns)
    begin, notes, problems, frames = 0, [], [], []
    begins = []
    for name, part in parts:
        last = max([part.first - 1, *(problem.row for problem in part.problems)])
        if len(part.frame):
            last = max(last, int(part.frame.index[-1]) + part.first)
        begins.append(f"{Path(name).name} after row {begin:,}")
        problems += [Problem(p.column, p.row + begin, p.value, p.reason) for p in part.problems]
        frames.append(part.frame.set_axis(part.frame.index + begin + part.first, axis=0))
        notes += [f"{Path(name).name}: {note}" for note in part.notes]
        begin += last
    more = f" and {len(begins) - 5:,} more" if len(begins) > 5 else ""
    notes.insert(
        0, f"{len(parts):,} files were read, their rows counted one after another: {', '.join(begins[:5])}{more}"
    )
    encodings = {part.encoding for _, part in parts}
    return Raw(
        pd.concat(frames),
        encoding=encodings.pop() if len(encodings) == 1 else "",
        sep=parts[0][1].sep,
        notes=tuple(notes),
        problems=tuple(problems),
    )


def _read_parquet(source: Any, name: str) -> Raw:
    pa = arrow()
    from pyarrow import parquet

    try:
        return Raw(plain(of_arrow(parquet.read_table(source))))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unread(name, error) from None


def _read_parquets(paths: Sequence[str]) -> Raw:
    """Read parquet files as one table, with the columns that their folders name: ``site=Kendari/part 0.parquet``."""
    pa = arrow()
    from pyarrow import dataset

    try:
        keys = dict.fromkeys(
            key for path in paths for key in re.findall(r"(?<=[/\\])([^/\\=]+)=(?=[^/\\]*[/\\])", path)
        )
        texts = pa.schema([(key, pa.string()) for key in keys])  # 007 is no number
        hive = dataset.partitioning(texts, flavor="hive")
        files = dataset.dataset(list(paths), format="parquet", partitioning=hive)
        first, *others = files.get_fragments()
        for one in others:
            check_alike(first.path, first.physical_schema.names, one.path, one.physical_schema.names)
        if all(one.physical_schema.equals(first.physical_schema) for one in others):
            return Raw(plain(of_arrow(files.to_table())))
        folders = [field for field in texts if field.name not in first.physical_schema.names]
        each = [one.to_table(schema=pa.schema([*one.physical_schema, *folders])) for one in (first, *others)]
        frames = [plain(of_arrow(table)) for table in each]  # each as it is: the first file's types would make 007 a 7
        return Raw(pd.concat(frames, ignore_index=True))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unread(str(Path(paths[0]).parent), error) from None


def _read_open(file: Any, how: _How) -> Raw:
    """Read an open file from where it stands, and leave it there, so that it can be read again."""
    name = str(getattr(file, "name", "") or "the file")
    try:
        at = file.tell() if getattr(file, "seekable", bool)() else None
        data = file.read()
        if at is not None:
            file.seek(at)
    except UnicodeDecodeError:
        msg = f'demand must be text of the encoding that it was opened with, got {name!r}: open it as bytes, with "rb"'
        raise InputError(msg) from None
    except Exception as error:  # whatever a file of the user's raises
        raise _unread(name, error) from None
    if isinstance(data, str):
        return _read_bytes(
            data.encode("utf-8", "surrogatepass"), name, replace(how, encoding="utf-8" if data else None)
        )
    frame = frame_of(data)
    if frame is not None:  # of a parquet file that pyarrow has opened
        return Raw(plain(frame))
    if not isinstance(data, bytes | bytearray | memoryview):
        msg = f"demand must be {ACCEPTED}, got one whose read() returns {type(data).__name__}"
        raise InputError(msg)
    if not data and at:
        msg = f"demand must be an open file with a table ahead, got {name!r} at its end: call seek(0)"
        raise InputError(msg)
    return _read_bytes(bytes(data), name, how)


def _read_unopened(file: Any, how: _How) -> Raw:
    name = str(getattr(file, "path", "") or getattr(file, "name", "") or "the file")
    try:
        with file.open("rb") if callable(getattr(file, "read_bytes", None)) else file as opened:
            data = opened.read()
    except Exception as error:  # whatever a file of the user's raises
        raise _unread(name, error) from None
    return _read_bytes(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data, name, how)


def _read_bytes(data: bytes, name: str, how: _How) -> Raw:
    """Read a file by what its first bytes say."""
    for begins, unpack in _UNPACK.items():
        if re.match(begins, data):
            try:
                return _read_bytes(unpack(data), name, how)
            except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
                raise _unread(name, error) from None
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    what = next((what for begins, what in _OTHERS.items() if re.match(begins, head)), "")
    if what:
        msg = f"demand must be {ACCEPTED}, got {name!r}, which is {what}"
        raise InputError(msg)
    if data.startswith(PARQUET):
        return _read_parquet(io.BytesIO(data), name)
    if data.startswith(ZIP) and (packed := _packed(data, name)) is not None:
        return _read_bytes(packed, name, how)
    if data.startswith((ZIP, OLE)):
        return _read_cells(*read_sheet(data, name, how.sheet, how.named), name, how)
    text = read_text(data, name, how.encoding)
    made = grid.lay_out(text.cells, name, how.named, is_text=True)
    return Raw(made.frame, 1, text.encoding, text.sep, (*text.notes, *made.notes), made.problems)


def _packed(data: bytes, name: str) -> bytes | None:
    """Return the one file of a .zip; None for a spreadsheet, which is a .zip too."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            files = [one for one in packed.namelist() if not one.endswith("/") and not one.startswith("__MACOSX/")]
            if "[Content_Types].xml" in files or "mimetype" in files or any(one.startswith("xl/") for one in files):
                return None
            if len(files) == 1:
                return packed.read(files[0])
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, zlib.error) as error:
        raise _unread(name, error) from None
    msg = f"demand must be a .zip with one table, got {len(files):,} files in {name!r}: unpack it and name the folder"
    raise InputError(msg)


def _read_cells(cells: pd.DataFrame, notes: tuple[str, ...], name: str, how: _How) -> Raw:
    made = grid.lay_out(cells, name, how.named, is_text=False)
    frame = made.frame.replace({"": None}).infer_objects()
    return Raw(frame, 1, notes=(*notes, *made.notes))


def _read_url(url: str, how: _How) -> Raw:
    """Read what a URL names, over fsspec: a file, the files of a folder, or those that fit a pattern."""
    files, found = remote_files(url)
    try:
        blocks = [(one, files.cat_file(one)) for one in found]
    except Exception as error:  # whatever a store raises: each has errors of its own
        raise _unread(shown(url), error) from None
    parts = [(shown(one), _read_bytes(data, shown(one), how)) for one, data in blocks]
    return parts[0][1] if len(parts) == 1 else _joined(parts)


def shown(url: str) -> str:
    """Return an address without what may be a password in it."""
    return re.sub(r"//[^/@]*@", "//", url.partition("?")[0] if url.startswith("http") else url)


def remote_files(url: str) -> tuple[Any, list[str]]:
    """Return the file system of fsspec that an address names, and its files there: one, a folder's, or a pattern's.

    Raises:
        InputError: It names none, files of several kinds, or cannot be read.
    """
    try:
        import fsspec  # type: ignore[import-untyped, unused-ignore]  # it has no types
    except ImportError:
        msg = (
            f"demand must be a file of this machine, got {shown(url)!r}: hand over the open file, or pip install fsspec"
        )
        raise InputError(msg) from None
    try:
        files, path = fsspec.core.url_to_fs(url)
        if glob.has_magic(path) and not files.exists(path):
            found = sorted(one for one in files.glob(path) if files.isfile(one))
        elif files.isdir(path):
            kinds: dict[str, list[str]] = {}
            for one in sorted(files.find(path)):
                if kind := _kind_of(one):
                    kinds.setdefault(kind, []).append(one)
            found = _of_one_kind(kinds, shown(url))
        else:
            found = [path]
    except InputError:
        raise
    except Exception as error:  # whatever a store raises: each has errors of its own
        raise _unread(shown(url), error) from None
    if not found:
        msg = f"demand must be {ACCEPTED}, got {shown(url)!r}, which no file fits: look at the folder and the pattern"
        raise InputError(msg)
    return files, found


def _unread(name: str, error: Exception) -> InputError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else mask(str(error).strip())
    return InputError(f"demand must be a table that can be read, got {name!r}: {why or type(error).__name__}")
