"""Uploads: routes of tables that are kept until they are submitted.

    headers --begin--> refused before the body, or a draft --take--> disk, block by block --receive--> described, kept

`Receiver` is for every route that takes a file.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from http import HTTPMethod
from typing import ClassVar

from jupyter_server.auth.decorator import authorized
from jupyter_server.utils import ensure_async
from tornado import web

from ipybatch.engine.data.masking import mask
from ipybatch.engine.store import journal as journals
from ipybatch.errors import BatchError
from ipybatch.server import schedule_rows, submission_rows, upload_store
from ipybatch.server.body import MB
from ipybatch.server.handler import IF_NONE_MATCH, RESOURCE, Handler, Media, Operation, Parameter
from ipybatch.server.multipart import Form
from ipybatch.server.refusal import Refusal
from ipybatch.server.services import Services
from ipybatch.server.upload_store import Draft, Kind
from ipybatch.server.wire import Upload

KINDS: Mapping[str, Kind] = {
    "text/csv": "csv",
    "application/csv": "csv",
    "text/tab-separated-values": "csv",
    "application/vnd.apache.parquet": "parquet",
    "application/x-parquet": "parquet",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
}
NAMED = (  # the file's name says what it is
    "application/octet-stream", "application/gzip", "application/x-gzip", "application/vnd.ms-excel", "text/plain", "",
)  # fmt: skip
FORM = "multipart/form-data"
TYPES = (*KINDS, "application/octet-stream", FORM)
FILENAME = Parameter("filename", "What the file is called: its suffix says what an application/octet-stream is.")
_SUFFIXES: Mapping[str, Kind] = {
    **dict.fromkeys((".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz"), "csv"),
    **dict.fromkeys((".xlsx", ".xlsm", ".xls"), "xlsx"),
    ".parquet": "parquet",
}
SWEEP_S = 3600.0
_BLOCK = 1 << 20
_FORM_BYTES = 1 << 20  # of a form beside its file

_log = logging.getLogger(__name__)


class Receiver(Handler):
    """Base of the routes that take a file as the body, or in a form.

    Attributes:
        fields: Those of the form.
    """

    fields: Mapping[str, str] = {}
    _draft: Draft | None = None
    _form: Form | None = None
    _block = b""

    async def begin(self) -> None:
        """Refuse what is no table by its headers; else begin a draft.

        Raises:
            HTTPError: It is refused.
            BatchError: It cannot be kept.
        """
        if self.request.method != HTTPMethod.POST:
            return
        allowed = self.authorizer.is_authorized(self, self.current_user, "write", RESOURCE)
        if not await ensure_async(allowed):
            raise web.HTTPError(403)
        if self.request.headers.get("Content-Encoding", "identity") != "identity":
            msg = "the body must not be encoded"
            raise Refusal(415, msg, field="Content-Encoding", value=self.request.headers["Content-Encoding"])
        given = self.request.headers.get("Content-Type", "")
        if self._type_of(given) == FORM:
            self._form = Form(given)
        else:
            self._kind_of(given, self._filename())
        self._check(self.told_bytes - (_FORM_BYTES if self._form else 0))
        self._draft = await self.blocking(Draft)

    def _filename(self) -> str:
        """Return what the client calls the file, for its suffix alone."""
        from email.message import Message

        told = Message()
        told["Content-Disposition"] = self.request.headers.get("Content-Disposition", "")
        return self.get_query_argument("filename", "") or told.get_filename() or ""

    @staticmethod
    def _type_of(content_type: str) -> str:
        return content_type.partition(";")[0].strip().lower()

    def _kind_of(self, content_type: str, filename: str) -> Kind:
        """Return what a file is said to be.

        Raises:
            Refusal: It is nothing that is taken.
        """
        given = self._type_of(content_type)
        charset = _charset_of(content_type)
        if charset and not _is_charset(charset):
            msg = "a table must be text of an encoding that is known"
            raise Refusal(415, msg, field="Content-Type", value=content_type, allowed=["utf-8", "windows-1252"])
        suffix = next((kind for end, kind in _SUFFIXES.items() if filename.lower().endswith(end)), None)
        kind = KINDS.get(given) or (suffix if given in NAMED else None)
        if kind is None:
            step = "send CSV, TSV, parquet or xlsx; as application/octet-stream with ?filename=NAME.parquet"
            msg = "the table must be CSV, parquet or xlsx, by its Content-Type or its name"
            raise Refusal(415, msg, field="Content-Type", value=given, allowed=list(TYPES), next_step=step)
        return kind

    def _check(self, size: int) -> None:
        most = self.services.options.max_upload_mb
        step = "set c.IpyBatch.max_upload_mb, send parquet, or pass the file's path to ipybatch.forecast"
        self.check_size(size, most * MB, "max_upload_mb", most, step=step)

    async def take(self, chunk: bytes) -> None:
        """Take a piece of the body, and write a block to disk where there is one.

        Raises:
            HTTPError: It is refused.
            BatchError: It cannot be kept.
        """
        if self._draft is None:  # a body that is not asked for
            return
        self._block += chunk if self._form is None else self._form.feed(chunk)
        if len(self._block) >= _BLOCK:
            await self._flush()

    async def _flush(self) -> None:
        assert self._draft is not None
        block, self._block = self._block, b""
        self._check(self._draft.size + len(block))
        await self.blocking(self._draft.write, block)

    async def receive(self) -> Upload:
        """Return the file as an upload, described and kept.

        Raises:
            Refusal: There is no such file in the body, or it is nothing that can be read.
            BatchError: It cannot be read, or not be kept.
        """
        try:
            if self._draft is None:  # there was no body
                await self.begin()
            return await self._received()
        finally:
            self.discard()  # what was not kept is gone before the answer comes

    async def _received(self) -> Upload:
        draft, form = self._draft, self._form
        assert draft is not None
        await self._flush()
        if form is not None and (form.filename is None or not form.is_whole):
            raise Refusal(422, "the form must have a file, and an end", field="file", next_step="send -F file=@NAME")
        if form is None:
            given = self.request.headers.get("Content-Type", "")
            kind, charset = self._kind_of(given, self._filename()), _charset_of(given)
        else:
            self.fields = form.fields
            kind, charset = self._kind_of(_plain_type(form), form.filename or ""), ""
        await self.blocking(draft.end)
        async with self.services.readers:
            described = await upload_store.apart(upload_store.describe, draft.path, kind, charset)
        upload = await self.blocking(draft.keep, described)
        self._draft = None
        await self.blocking(try_to_sweep)
        return upload

    def discard(self) -> None:
        """Delete what was not kept."""
        if self._draft is not None:
            self._draft.drop()
            self._draft = None


async def sweeping(services: Services) -> None:
    """Delete uploads that nobody needs any more, every hour; whenever another one comes that is done too."""
    while True:
        await asyncio.sleep(SWEEP_S)
        await asyncio.get_running_loop().run_in_executor(services.pool, try_to_sweep)


def try_to_sweep() -> None:
    """Do as `sweep`, and log what is wrong where it cannot."""
    try:
        sweep()
    except (BatchError, OSError) as error:
        _log.warning("uploads cannot be deleted: %s", mask(str(error)))


def sweep() -> None:
    """Delete uploads whose submissions are completed, an hour later, and those that nobody asked for in a day.

    Raises:
        JournalError: The journal cannot be read: nothing is deleted.
    """
    if upload_store.folder_of().exists():
        nothing: dict[str, set[submission_rows.RowState]] = {}
        stand = submission_rows.ask(journals.resolved(journals.default_path()), submission_rows.uploads, nothing)
        held = {upload for upload, states in stand.items() if not states <= submission_rows.ENDED}
        done = {upload for upload, states in stand.items() if states == {"COMPLETED"}}
        again: set[str] = set()
        again = schedule_rows.ask(journals.resolved(journals.default_path()), schedule_rows.uploads, again)
        upload_store.sweep(held | again, done - again)


def _charset_of(content_type: str) -> str:
    return content_type.lower().partition("charset=")[2].partition(";")[0].strip("\"' ")


def _is_charset(name: str) -> bool:
    try:
        "".encode(name)
    except (LookupError, UnicodeError, ValueError):
        return False
    return True


def _plain_type(form: Form) -> str:
    """Return the media type of a form's file, where its name says no more: browsers know few types."""
    named = (form.filename or "").lower().endswith(tuple(_SUFFIXES))
    return "" if named else form.file_type


class UploadsHandler(Receiver):
    """POST /uploads."""

    operations: ClassVar = {
        "POST": Operation(
            summary="Keep a table, until it is submitted or for a day",
            body=Media(TYPES),
            answers={201: Upload},
            refuses=(413, 415, 503),
            parameters=(FILENAME,),
        )
    }

    @web.authenticated
    @authorized("write", resource=RESOURCE)
    async def post(self) -> None:
        """Keep it."""
        upload = await self.receive()
        self.answer(upload, 201, headers={"Location": f"{self.request.path.rstrip('/')}/{upload.id}"})


class UploadHandler(Handler):
    """GET /uploads/ID."""

    operations: ClassVar = {
        "GET": Operation(
            summary="What is known of a table", answers={200: Upload}, refuses=(404,), parameters=(IF_NONE_MATCH,)
        )
    }

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self, upload: str) -> None:
        """Tell it."""
        found = await self.blocking(upload_store.find, upload)
        if found is None:
            step = "POST the table to uploads: it is kept until it is submitted, or for a day"
            raise Refusal(404, "there is no upload of this id", field="id", value=upload, next_step=step)
        self.answer(found, etag=True)
