"""Multipart: a form with one file in it, read piece by piece, so that the file is never in memory whole.

    pieces of the body --feed--> pieces of the file; its name, its type, and the other fields beside it

Source: RFC 7578 and RFC 2046, section 5.1.
"""

from __future__ import annotations

import re
from email.errors import MessageError
from email.parser import BytesHeaderParser
from typing import Literal

from ipybatch.errors import InputError

MOST_HEADERS_BYTES = 16 * 1024
MOST_FIELDS, MOST_FIELDS_BYTES = 50, 64 * 1024
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)


class Form:
    """A form that is being read.

    Args:
        content_type: The header of that name.

    Attributes:
        fields: What it has beside the file.
        filename: What the client calls the file; "" for nothing, None where there is no file yet.  Never a path here.
        file_type: The media type of the file; "" where it is not told.
        is_whole: Whether its end came.

    Raises:
        InputError: The header names no boundary.
    """

    def __init__(self, content_type: str) -> None:
        found = _BOUNDARY.search(content_type)
        if found is None:
            msg = "Content-Type must name the boundary of the form"
            raise InputError(msg)
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.file_type = ""
        self.is_whole = False
        self._mark = b"\r\n--" + (found[1] or found[2]).encode()
        self._left = bytearray(b"\r\n")  # as before any later mark
        self._in: Literal["preamble", "headers", "file", "field"] = "preamble"
        self._name, self._value, self._size = "", bytearray(), 0

    def feed(self, block: bytes) -> bytes:
        """Take a piece of the body, and return what it has of the file.

        Raises:
            InputError: It is no form of one file, or its fields are too many or too large.
        """
        self._left += block
        found = bytearray()
        while not self.is_whole and (self._read_headers() if self._in == "headers" else self._read_part(found)):
            pass
        if self.is_whole:
            self._left.clear()  # what follows means nothing
        return bytes(found)

    def _read_part(self, found: bytearray) -> bool:
        """Read up to the next mark; return whether it was there, whole."""
        at = self._left.find(self._mark)
        end = len(self._left) - len(self._mark) + 1 if at < 0 else at
        if end > 0:
            self._take(bytes(self._left[:end]), found)
            del self._left[:end]
        if at < 0 or len(self._left) < len(self._mark) + 2:
            return False
        self._close()
        after = bytes(self._left[len(self._mark) :])
        del self._left[: len(self._mark)]
        self.is_whole, self._in = after.startswith(b"--"), "headers"
        return True

    def _take(self, data: bytes, found: bytearray) -> None:
        if self._in == "file":
            found += data
        elif self._in == "field":
            self._size += len(data)
            if self._size > MOST_FIELDS_BYTES:
                msg = f"the fields of the form must be at most {MOST_FIELDS_BYTES:,} bytes"
                raise InputError(msg)
            self._value += data

    def _close(self) -> None:
        """End a field."""
        if self._in != "field":
            return
        try:
            self.fields[self._name] = self._value.decode()
        except UnicodeDecodeError:
            msg = f"field {self._name!r} must be UTF-8"
            raise InputError(msg) from None
        if len(self.fields) > MOST_FIELDS:
            msg = f"the form must have at most {MOST_FIELDS} fields"
            raise InputError(msg)
        self._value.clear()

    def _read_headers(self) -> bool:
        begin, end = self._left.find(b"\r\n"), self._left.find(b"\r\n\r\n")  # blanks may follow the mark
        if end < 0 and len(self._left) <= MOST_HEADERS_BYTES:
            return False
        try:
            if not 0 <= end <= MOST_HEADERS_BYTES:
                raise ValueError
            headers = BytesHeaderParser().parsebytes(bytes(self._left[begin + 2 : end + 2]))
            name = headers.get_param("name", header="content-disposition")
            if not isinstance(name, str):
                raise ValueError
        except (ValueError, MessageError):
            msg = "each part of the form must have a Content-Disposition with a name"
            raise InputError(msg) from None
        del self._left[: end + 4]
        filename = headers.get_filename()
        if filename is None and name != "file":
            self._in, self._name = "field", name
            return True
        if self.filename is not None:
            msg = "the form must have one file, got more"
            raise InputError(msg)
        self.filename, self._in = filename or "", "file"
        self.file_type = headers.get_content_type() if headers["Content-Type"] else ""
        return True
