"""Files of the simulated Gemini: uploads in pieces, generated files, and their endpoints.

    POST /upload/v1/files            start    --> the URL of the upload
    POST that URL, offset 0          upload   --> active
    POST that URL, offset n          upload, finalize  --> final, and the file

    PROCESSING --wait_s--> ACTIVE --life_s--> gone: 404, or 403

A file belongs to the key that made it; other keys get 403.  While it is not ACTIVE, what refers to it gets 400
FAILED_PRECONDITION.

Source: https://ai.google.dev/api/files, read 2026-11-22, and replies quoted in public issues, read 2026-11-30.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ipybatch.simulators.faults import check
from ipybatch.simulators.service import Reply, as_json

from .generation import camel
from .quotas import STORAGE_BYTES, as_error, no_access, not_found, storage_full

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipybatch.simulators.service import Request

LIVES_S = 48 * 3600.0


@dataclass(slots=True, kw_only=True)
class File:
    """One file; ``source`` is UPLOADED or GENERATED, and only generated files can be downloaded."""

    name: str
    key: str
    mime_type: str
    content: bytes
    created_s: float
    active_s: float
    ends_s: float
    display_name: str = ""
    source: str = "UPLOADED"

    def as_dict(self, base: str, time_of: Callable[[float], str], now_s: float) -> dict[str, Any]:
        """Return the file's metadata as the service formats it; ``time_of`` formats a time."""
        shown = {
            "name": self.name,
            "displayName": self.display_name,
            "mimeType": self.mime_type,
            "sizeBytes": str(len(self.content)),
            "createTime": time_of(self.created_s),
            "updateTime": time_of(self.created_s),
            "sha256Hash": base64.b64encode(hashlib.sha256(self.content).hexdigest().encode()).decode(),
            "uri": f"{base}/{self.name}",
            "state": "ACTIVE" if now_s >= self.active_s else "PROCESSING",
            "source": self.source,
        }
        if self.ends_s < math.inf:
            shown["expirationTime"] = time_of(self.ends_s)
        if self.source == "GENERATED":
            shown["downloadUri"] = f"{base}/{self.name}:download?alt=media"
        return shown


class Files:
    """All files, and the unfinished uploads."""

    def __init__(
        self,
        seed: int,
        *,
        wait_s: float = 0.0,
        life_s: float = LIVES_S,
        gone_status: int = 404,
        storage_bytes: int = STORAGE_BYTES,
    ) -> None:
        """Set the rules.

        Args:
            seed: Same seed, same names.
            wait_s: Time from an upload until the file is ACTIVE, seconds; ``math.inf`` for never.
            life_s: Time until a file is gone, seconds; ``math.inf``: files are never removed by themselves.
            gone_status: Status of a file that is gone, 404 or 403.
            storage_bytes: Room for the files of one key.

        Raises:
            ValueError: A value is outside its range.
        """
        check("file_wait_s", wait_s >= 0, ">= 0 seconds", wait_s)
        check("file_life_s", life_s > 0, "> 0 seconds", life_s)
        check("gone_status", gone_status in (403, 404), "403 or 404", gone_status)
        check("storage_bytes", storage_bytes >= 0, ">= 0", storage_bytes)
        self._seed = seed
        self._wait_s = wait_s
        self._life_s = life_s
        self._gone_status = gone_status
        self._storage_bytes = storage_bytes
        self._files: dict[str, File] = {}
        self._uploads: dict[str, tuple[dict[str, Any], str, bytearray]] = {}

    def start(self, about: dict[str, Any], key: str) -> str:
        """Start an upload and return its id."""
        number = len(self._uploads) + 1
        name = hashlib.blake2b(f"file {self._seed} {number}".encode(), digest_size=6).hexdigest()
        self._uploads[name] = (about, key, bytearray())
        return name

    def append(self, upload_id: str, offset: int, piece: bytes) -> int | None:
        """Add a piece and return the size so far; None when there is no such upload or the piece is out of place."""
        if upload_id not in self._uploads or offset != len(self._uploads[upload_id][2]):
            return None
        self._uploads[upload_id][2].extend(piece)
        return len(self._uploads[upload_id][2])

    def finalize(self, upload_id: str, now_s: float) -> File:
        """Create the file of an upload."""
        about, key, content = self._uploads[upload_id]
        self._uploads[upload_id] = ({}, key, bytearray())
        file = File(
            name=str(about.get("name") or f"files/{upload_id}"),
            key=key,
            display_name=str(about.get("displayName", "")),
            mime_type=str(about.get("mimeType", "application/octet-stream")),
            content=bytes(content),
            created_s=now_s,
            active_s=now_s + self._wait_s,
            ends_s=now_s + self._life_s,
        )
        self._files[file.name] = file
        return file

    def generate(self, name: str, key: str, content: bytes, now_s: float) -> File:
        """Create a file of results."""
        file = File(
            name=name,
            key=key,
            mime_type="application/jsonl",
            content=content,
            created_s=now_s,
            active_s=now_s,
            ends_s=now_s + self._life_s,
            source="GENERATED",
        )
        self._files[name] = file
        return file

    def find(self, name: str, key: str, now_s: float) -> File | Reply:
        """Return the file of that name, or the refusal: it is unknown, gone, or belongs to another key."""
        file = self._files.get(name)
        if file is None:
            return not_found(name)
        if file.key != key:
            return no_access(name)
        if now_s >= file.ends_s:
            return no_access(name) if self._gone_status == 403 else not_found(name)
        return file

    def usable(self, name: str, key: str, now_s: float) -> File | Reply:
        """Return the file for a request that refers to it, or the refusal."""
        file = self.find(name, key, now_s)
        if isinstance(file, Reply) or now_s >= file.active_s:
            return file
        message = f"The File {name.removeprefix('files/')} is not in an ACTIVE state and usage is not allowed."
        return as_error(400, message, status="FAILED_PRECONDITION")

    def is_known(self, name: str) -> bool:
        """Return whether there is, or was until it was too old, such a file."""
        return name in self._files

    def delete(self, name: str) -> None:
        """Remove a file."""
        del self._files[name]

    def overflow(self, key: str, size: int, now_s: float) -> Reply | None:
        """Return the refusal of an upload of ``size`` bytes that does not fit, or None."""
        used = sum(len(file.content) for file in self._files.values() if file.key == key and now_s < file.ends_s)
        return storage_full(self._storage_bytes) if used + size > self._storage_bytes else None

    def page(self, size: int, start: int, key: str, now_s: float) -> tuple[list[File], int | None]:
        """Return up to ``size`` files of a key, from number ``start``, and the number of the next one or None."""
        living = [file for file in self._files.values() if file.key == key and now_s < file.ends_s]
        return living[start : start + size], start + size if start + size < len(living) else None


class PageTokens:
    """Tokens of pages: a number, or one with characters that must be escaped in a URL."""

    def __init__(self, *, plus: bool = False) -> None:
        """Say whether tokens hold '+', '/' and '='."""
        self._mark = "+/=" if plus else ""

    def token(self, number: int) -> str:
        """Return the token of the page that starts at a number."""
        return f"{number}{self._mark}"

    def number(self, request: Request) -> int | Reply:
        """Return the number in the token of a request, 0 without one, or the refusal of one that came unescaped."""
        token = request.query.get("pageToken", "")
        digits = token.removesuffix(self._mark) if token.endswith(self._mark) else ""
        if token and not digits.isdigit():
            return as_error(400, "Invalid page token.")
        return int(digits or 0)


class FileEndpoints:
    """The endpoints for files."""

    def __init__(self, files: Files, tokens: PageTokens, time_of: Callable[[float], str]) -> None:
        """Set the files, the tokens of their pages, and the function that formats times."""
        self._files = files
        self._tokens = tokens
        self._time_of = time_of

    def upload(self, request: Request, key: str, now_s: float) -> Reply:
        """Start an upload, or append its next piece."""
        headers = _headers(request)
        command = headers.get("x-goog-upload-command", "")
        if command == "start":
            try:
                about = camel(json.loads(request.content or b"{}")).get("file", {})
            except (ValueError, AttributeError):
                return as_error(400, "The body must be JSON with a file.")
            size = int(headers.get("x-goog-upload-header-content-length") or about.get("sizeBytes") or 0)
            full = self._files.overflow(key, size, now_s)
            if full is not None:
                return full
            url = f"{_own(request)}{request.path}?upload_id={self._files.start(about, key)}&upload_protocol=resumable"
            return Reply(headers={"X-Goog-Upload-URL": url, "X-Goog-Upload-Status": "active"})
        name = request.query.get("upload_id", "")
        received = self._files.append(name, int(headers.get("x-goog-upload-offset", -1)), request.content)
        if received is None:
            return as_error(400, "The upload does not exist, or the offset is not where it stands.")
        if "finalize" not in command:
            return Reply(headers={"X-Goog-Upload-Status": "active", "X-Goog-Upload-Size-Received": str(received)})
        reply = as_json({"file": self._shown(self._files.finalize(name, now_s), request, now_s)})
        return replace(reply, headers={**reply.headers, "X-Goog-Upload-Status": "final"})

    def get(self, request: Request, name: str, key: str, now_s: float) -> Reply:
        """Return a file's metadata."""
        file = self._files.find(name, key, now_s)
        return file if isinstance(file, Reply) else as_json(self._shown(file, request, now_s))

    def list(self, request: Request, key: str, now_s: float) -> Reply:
        """Return a page of files."""
        size, start = int(request.query.get("pageSize", 10)), self._tokens.number(request)
        if isinstance(start, Reply):
            return start
        files, following = self._files.page(size, start, key, now_s)
        page: dict[str, Any] = {"files": [self._shown(file, request, now_s) for file in files]} if files else {}
        return as_json(page | ({} if following is None else {"nextPageToken": self._tokens.token(following)}))

    def delete(self, name: str, key: str, now_s: float) -> Reply:
        """Delete a file."""
        file = self._files.find(name, key, now_s)
        if isinstance(file, Reply):
            return file
        self._files.delete(name)
        return as_json({})

    def download(self, name: str, key: str, now_s: float) -> Reply:
        """Return the bytes of a file that the service generated."""
        file = self._files.find(name, key, now_s)
        if isinstance(file, Reply):
            return file
        if file.source != "GENERATED":
            return as_error(400, "Only generated files can be downloaded.")
        return Reply(body=file.content, headers={"Content-Type": file.mime_type})

    def _shown(self, file: File, request: Request, now_s: float) -> dict[str, Any]:
        return file.as_dict(f"{_own(request)}/v1beta", self._time_of, now_s)


def _own(request: Request) -> str:
    """Return the simulator's address as the client knows it: no reply may point to the real service."""
    return f"http://{_headers(request).get('host', 'gemini.invalid')}"


def _headers(request: Request) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}
