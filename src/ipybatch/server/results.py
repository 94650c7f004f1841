"""Results: the routes of what a session's items came to: one table as a file, and the files that results name.

GET /sessions/ID/results.csv, .jsonl, .parquet    as `BatchSession.save` writes them, streamed
GET /sessions/ID/files/NAME                       an image of an answer, by the name that its result has
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from jupyter_server.auth.decorator import authorized
from tornado import web
from tornado.iostream import StreamClosedError

from ipybatch.engine.data.outcome import decode
from ipybatch.engine.store.schema import ids
from ipybatch.server import result_pages
from ipybatch.server.handler import RESOURCE, Handler, Media, Operation
from ipybatch.server.refusal import Refusal

_TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl", "parquet": "application/vnd.apache.parquet"}
_BLOCK = 256 * 1024
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")  # as `images.file_name` makes them
_IMAGES = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/heic", "image/heif")


class StreamHandler(Handler):
    """Base of the routes whose answer is a file."""

    _is_gone = False

    def on_connection_close(self) -> None:
        """Make nothing more of a file that nobody reads."""
        super().on_connection_close()
        self._is_gone = True

    async def stream(self, pieces: Iterator[bytes]) -> None:
        """Send a file piece by piece, each made in one of the server's threads, until it ends or its reader is gone."""
        try:
            while (piece := await self.blocking(next, pieces, None)) is not None:
                if self._is_gone:
                    return
                if piece:
                    self.write(piece)
                    await self.flush()  # no faster than it is read
        except StreamClosedError:
            return
        except Exception:
            if not self._headers_written:
                raise
            self.log.exception("a file could not be sent to its end")
            self.detach().close()  # what is cut must not look whole
            return
        self.finish(set_content_type=self._headers["Content-Type"])

    def name_file(self, name: str, kind: str, *, how: str = "attachment") -> None:
        """Say what the file is called, and of which type it is."""
        self.set_header("Content-Type", kind)
        self.set_header("Content-Disposition", f'{how}; filename="{name}"')
        self.set_header("X-Content-Type-Options", "nosniff")


class ResultsHandler(StreamHandler):
    """GET /sessions/ID/results.csv, .jsonl and .parquet."""

    operations: ClassVar = {
        "GET": Operation(
            summary="Its results as a file, as `BatchSession.save` writes it",
            answers={200: Media(tuple(_TYPES[suffix].partition(";")[0] for suffix in _TYPES))},
            refuses=(404, 409, 422, 503),
        )
    }

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self, session: str, suffix: str) -> None:
        """Send it."""
        await self.send(session, suffix)

    async def send(self, session: str, suffix: str) -> None:
        """Send the results of a session as a file.

        Raises:
            Refusal: There is no such session, or its journal cannot be read.
        """
        name, pieces = await self.blocking(self.made, session, suffix)
        self.name_file(f"{name}.{suffix}", _TYPES[suffix])
        if self.request.method == "HEAD":
            await self.flush()  # else a length of 0 would be told
            self.finish(set_content_type=_TYPES[suffix])
            return
        await self.stream(pieces)

    def made(self, id_: str, suffix: str) -> tuple[str, Iterator[bytes]]:
        """Return the name of a session's file, and its pieces.

        Raises:
            Refusal: There is no such session, or its journal cannot be read.
        """
        catalogue = self.services.catalogue
        path, row = catalogue.row(id_)
        _, state, _, where = catalogue.judge(path, row)
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", row.name).strip("-.")[:80] or "results"
        if row.workload != "forecast":
            return name, result_pages.pieces(path, row.id, state, suffix, is_live=bool(where))

        def read(database: sqlite3.Connection) -> str:
            return str(database.execute("SELECT about FROM run WHERE id = ?", (row.id,)).fetchone()[0])

        about = catalogue.ask(path, ("about", row.id), read)
        return name, result_pages.forecast_pieces(path, row.id, row.name, about, state, suffix)


class FileHandler(StreamHandler):
    """GET /sessions/ID/files/NAME."""

    operations: ClassVar = {
        "GET": Operation(
            summary="A file that a result of the session names, such as an image",
            answers={200: Media((*_IMAGES, "application/octet-stream"))},
            refuses=(404, 409, 503),
        )
    }

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self, session: str, name: str) -> None:
        """Send it."""
        descriptor, size, kind = await self.blocking(self.opened, session, name)
        pieces = _blocks(descriptor)
        try:
            self.name_file(name, kind, how="inline" if kind in _IMAGES else "attachment")
            self.set_header("Content-Length", str(size))
            if self.request.method == "HEAD":
                self.finish(set_content_type=kind)
                return
            await self.stream(pieces)
        finally:
            os.close(descriptor)

    def opened(self, id_: str, name: str) -> tuple[int, int, str]:
        """Return a file that a result names: its descriptor, its size and its type.

        Raises:
            Refusal: There is no such session; no result of it names such a file; or it is not there.
        """
        catalogue = self.services.catalogue
        path, row = catalogue.row(id_)
        refusal = Refusal(404, "no result of the session names such a file")
        if row.workload != "gemini" or not _NAME.fullmatch(name):
            raise refusal
        named = catalogue.ask(path, ("file", row.id, name), lambda database: _named(database, row.id, name))
        if named is None:
            raise refusal
        if "://" in named:
            raise Refusal(404, "the file is not on this machine: the result says where it is")
        return _open(Path(named))


def _named(database: sqlite3.Connection, run: int, name: str) -> str | None:
    """Return the path of a file of that name that a result names; None for none."""
    sql = "SELECT result FROM payload WHERE id >= ? AND id < ? AND instr(result, ?) ORDER BY id"
    for (payload,) in database.execute(sql, (*ids(run), name.encode())):
        try:
            result = decode(payload)
        except msgspec.MsgspecError:
            continue
        for path in _files(result):
            if path.rpartition("/")[2] == name or Path(path).name == name:
                return path
    return None


def file_names(database: sqlite3.Connection, run: int, most: int) -> list[str]:
    """Return the names of files that results hold, in the order of the items.

    Args:
        most: So many results are looked at: those that tell of a file.
    """
    return list(dict.fromkeys(Path(path).name for path in file_paths(database, run, most)))


def file_paths(database: sqlite3.Connection, run: int, most: int = -1) -> Iterator[str]:
    """Yield the paths and addresses of files that results hold, in the order of the items.

    Args:
        most: So many results are looked at: those that tell of a file; -1 for all.
    """
    sql = "SELECT result FROM payload WHERE id >= ? AND id < ? AND instr(result, ?) ORDER BY id LIMIT ?"
    for (payload,) in database.execute(sql, (*ids(run), b'"file', most)):
        with suppress(msgspec.MsgspecError):
            yield from _files(decode(payload))


def _files(result: Any) -> list[str]:
    if not isinstance(result, dict):
        return []
    several = result.get("files")
    told = [result.get("file"), *(several if isinstance(several, list) else ())]
    return [path for path in told if isinstance(path, str)]


def _open(path: Path) -> tuple[int, int, str]:
    """Open a file that is just where its path says: no link, and nothing but a file.

    Raises:
        Refusal: It is not.
    """
    from ipybatch.gemini.images import sniff

    gone = Refusal(404, "the file is not there any more")
    try:
        if not path.is_absolute() or ".." in path.parts:
            raise gone
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError):
        raise gone from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise gone
    head = os.pread(descriptor, 32, 0) if hasattr(os, "pread") else b""
    return descriptor, found.st_size, sniff(head) or "application/octet-stream"


def _blocks(descriptor: int) -> Iterator[bytes]:
    while block := os.read(descriptor, _BLOCK):
        yield block
