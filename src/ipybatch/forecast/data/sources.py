"""Sources: the files of a table that no machine holds as a whole, and how they are written, told by some rows of some.

    path, folder, pattern, list, URL --> files --heads--> columns, marks, order of the dates: the same for all
                                               --row groups--> pieces, each for one worker

The first 20,000 rows tell which column is which, as of any table; marks and dates are looked for in further files too.
What they leave open is asked, before anything is read.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice, takewhile
from typing import Any, NamedTuple

import pandas as pd

from ipybatch.engine.data.masking import mask
from ipybatch.errors import InputError
from ipybatch.forecast.data import grid
from ipybatch.forecast.data.cells import Style, cells_of
from ipybatch.forecast.data.columns import choose_columns
from ipybatch.forecast.data.frame import arrow, of_arrow, plain
from ipybatch.forecast.data.pieces import Answers, Piece, opened
from ipybatch.forecast.data.reading import (
    OLE,
    PARQUET,
    ZIP,
    Raw,
    check_alike,
    is_url,
    local_files,
    local_path,
    read_head,
    remote_files,
    shown,
)

_PIECE = 1_000_000  # rows of a piece, if its row groups allow
_LOOKED_AT = 20_000  # rows of the first files, by which columns are chosen
_FURTHER, _FURTHER_ROWS = 20, 1_000  # files, and rows of each, in which marks and dates are looked for too
_HEAD, _FURTHER_HEAD = 1 << 22, 1 << 17  # bytes of text files, for the same
_PACKED: Mapping[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
_KEYED = re.compile(r"(?<=[/\\])([^/\\=]+)=([^/\\]*)(?=[/\\])")


class Looked(NamedTuple):
    """What some rows of a table tell of all.

    Attributes:
        answers: How every piece is read.
        style: How the dates are written, by an example and in words.
        notes: What the user should know of it.
        sep: What separates the columns of text.
    """

    answers: Answers
    style: str
    notes: tuple[str, ...]
    sep: str


class _File(NamedTuple):
    path: str
    name: str
    version: str
    head: bytes
    is_named: bool  # by the user, not found in a folder


def pieces_of(demand: Any) -> list[Piece] | None:
    """Return the pieces of a table in files of this machine or of fsspec; None for anything else, and for spreadsheets.

    Raises:
        InputError: There is no such file, files are of several kinds, or one cannot be read.
        MissingExtra: pyarrow is not installed.
    """
    files = _files(demand)
    if files is None or any(file.head.startswith((ZIP, OLE)) for file in files):
        return None
    is_parquet = [file.head.startswith(PARQUET) for file in files]
    if not any(is_parquet):
        return [Piece(path=file.path, name=file.name, version=file.version) for file in files]
    if not all(is_parquet):
        one, other = files[is_parquet.index(True)].name, files[is_parquet.index(False)].name
        msg = f"demand must be files of one kind, got {one!r}, which is parquet, and {other!r}: name those of one kind"
        raise InputError(msg)
    return _groups(files)


def look(pieces: Sequence[Piece], columns: Mapping[str, Any] | None, style: Style, encoding: str | None) -> Looked:
    """Return how all pieces of a table are read.

    Args:
        pieces: All of them.
        columns: The columns that the user names.
        style: What the user says of numbers and dates.
        encoding: Of text; None finds it.

    Raises:
        UnknownColumns: A column is missing, or several may be meant.
        Undecided: Several readings of the quantities or the dates fit; an argument decides.
        InputError: It is no table, or a wide one, a column for each date.
        MissingExtra: A package that reads it is not installed.
    """
    heads = _heads(pieces, columns, encoding)
    name, first = heads[0]
    titles = tuple(first.frame.columns)
    for other, head in heads[1:]:
        check_alike(name, titles, other, head.frame.columns)
    frame = pd.concat([head.frame for _, head in heads], ignore_index=True) if len(heads) > 1 else first.frame
    _, is_wide = grid.long(frame, columns)
    if is_wide:
        msg = "demand must have a date column where its files are read one by one, got a column for each date: melt it"
        raise InputError(msg)
    if not len(frame):
        msg = "demand must have rows, got none: look whether the file is the right one"
        raise InputError(msg)
    chosen = choose_columns(frame, columns)
    cells = cells_of(Raw(frame, sep=first.sep), chosen.names, style)
    answers = Answers(
        columns=chosen.names,
        titles=tuple(sorted(titles, key=str)),
        decimal=style.decimal or cells.numbers.decimal or None,
        thousands=style.thousands,
        date_format=style.date_format,
        freq=style.freq,
        orders=dict(cells.dated.orders),
        encoding=encoding,
    )
    return Looked(answers, cells.dated.style, (*chosen.notes, *cells.dated.notes, *cells.numbers.notes), first.sep)


def check_unchanged(pieces: Iterable[Piece]) -> None:
    """Refuse files that changed since their pieces were made: what was read of one may be of two versions.

    Those that are gone were read as they were.

    Raises:
        InputError: One has changed; names it.
    """
    for piece in {piece.path: piece for piece in pieces}.values():
        try:
            version = _version(piece.path)
        except Exception:  # noqa: S112  # whatever a store raises: each has errors of its own
            continue
        if version != piece.version:
            msg = (
                f"demand must be files that stay as they are while they are read, got {piece.name!r}, which changed:"
                " run the same call again, which reads anew only what changed"
            )
            raise InputError(msg)


def _version(path: str) -> str:
    """Return what changes when a file does: its size and time, or the tag of its store."""
    if not is_url(path):
        state = os.stat(path)  # noqa: PTH116  # a text is what there is
        return f"{state.st_size} {state.st_mtime_ns}"
    import fsspec  # type: ignore[import-untyped, unused-ignore]  # it has no types

    files, place = fsspec.core.url_to_fs(path)
    files.invalidate_cache()
    return str(files.ukey(place))


def _files(demand: Any) -> list[_File] | None:
    if isinstance(demand, str | os.PathLike):
        given = [os.fspath(demand)]
    elif isinstance(demand, list | tuple) and demand and all(isinstance(one, str | os.PathLike) for one in demand):
        given = [os.fspath(one) for one in demand]
    else:
        return None
    found = [file for one in given for file in (_remote(one) if is_url(one) else _local(one, len(given) > 1))]
    paths = [shown(file.path) if is_url(file.path) else file.path.replace(os.sep, "/") for file in found]
    folders = [path[: path.rfind("/") + 1] for path in (min(paths), max(paths))]  # what these two share, all do
    begin = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*folders, strict=False)))
    begin = folders[0].rfind("/", 0, begin) + 1
    return [file._replace(name=path[begin:]) for file, path in zip(found, paths, strict=True)]


def _local(given: str, is_listed: bool) -> Iterator[_File]:
    for path in [local_path(given)] if is_listed else local_files(given):
        try:
            version = _version(str(path))
            with path.open("rb") as file:
                head = file.read(8)
        except (OSError, ValueError) as error:
            raise _unread(str(path), error) from None
        is_named = not is_listed and path == local_path(given)
        yield _File(str(path.absolute()), path.name, version, head, is_named)


def _remote(url: str) -> Iterator[_File]:
    files, paths = remote_files(url)
    for path in paths:
        try:
            head, version = files.cat_file(path, start=0, end=8), str(files.ukey(path))
        except Exception as error:  # whatever a store raises: each has errors of its own
            raise _unread(shown(url), error) from None
        yield _File(files.unstrip_protocol(path), path, version, head, is_named=True)


def _unread(name: str, error: Exception) -> InputError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else mask(str(error).strip())
    return InputError(f"demand must be a table that can be read, got {name!r}: {why or type(error).__name__}")


def _groups(files: Sequence[_File]) -> list[Piece]:
    """Return parquet files cut between row groups."""
    pa = arrow()
    from pyarrow import parquet

    found: list[Piece] = []
    names: list[Any] | None = None
    for file in files:
        try:
            with opened(file.path) as source:
                metadata = parquet.ParquetFile(source).metadata
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _unread(file.name, error) from None
        fixed = {} if file.is_named else dict(_KEYED.findall(file.path))
        has = [*metadata.schema.to_arrow_schema().names, *fixed]
        names = has if names is None else names
        check_alike(files[0].name, names, file.name, has)
        counts = [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]
        for begin, first, last in _runs(counts):
            found.append(
                Piece(
                    path=file.path, name=file.name, version=file.version, begin=begin, groups=(first, last), fixed=fixed
                )
            )
    return found


def _runs(counts: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield runs of row groups of at most `_PIECE` rows: the row at which each begins, its first group, its end."""
    begin = first = rows = 0
    for at, count in enumerate(counts):
        if rows and rows + count > _PIECE:
            yield begin, first, at
            begin, first, rows = begin + rows, at, 0
        rows += count
    if counts:
        yield begin, first, len(counts)


def _heads(pieces: Sequence[Piece], columns: Mapping[str, Any] | None, encoding: str | None) -> list[tuple[str, Raw]]:
    """Return the first rows of the first files, and a few of some others, each with the name of its file."""
    heads: list[tuple[str, Raw]] = []
    files = list({piece.path: piece for piece in pieces}.values())
    rows = 0
    while files and rows < _LOOKED_AT:
        piece = files.pop(0)
        heads.append((piece.name, _head(piece, _LOOKED_AT - rows, _HEAD, columns, encoding)))
        rows += len(heads[-1][1].frame)
    further = files[:: max(1, -(-len(files) // max(1, _FURTHER)))][:_FURTHER]
    return heads + [(piece.name, _head(piece, _FURTHER_ROWS, _FURTHER_HEAD, columns, encoding)) for piece in further]


def _head(piece: Piece, rows: int, count: int, columns: Mapping[str, Any] | None, encoding: str | None) -> Raw:
    pa = arrow()
    from pyarrow import parquet

    if piece.groups is None:
        try:
            with _unpacked(piece) as file:
                data = file.read(count)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise _unread(piece.name, error) from None
        data = data[: data.rfind(b"\n") + 1] if len(data) == count and b"\n" in data else data
        raw = read_head(data, piece.name, encoding=encoding, columns=columns)
        return Raw(grid.without_repeats(raw.frame), raw.first, raw.encoding, raw.sep)
    try:
        with opened(piece.path) as file:
            source = parquet.ParquetFile(file)
            batches = list(islice(source.iter_batches(batch_size=rows, use_threads=False), 1))  # none of an empty one
            frame = plain(of_arrow(pa.Table.from_batches(batches, source.schema_arrow)))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unread(piece.name, error) from None
    return Raw(frame.assign(**piece.fixed))


@contextmanager
def _unpacked(piece: Piece) -> Iterator[Any]:
    with opened(piece.path) as file:
        begins = file.read(8)
        file.seek(0)
        unpack = next((unpack for magic, unpack in _PACKED.items() if begins.startswith(magic)), None)
        yield file if unpack is None else unpack(file)
