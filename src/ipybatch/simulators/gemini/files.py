"""Files of the simulated Gemini: uploads in pieces, generated files, and their endpoints.

    POST /upload/v1/files            start    --> the URL of the upload
    POST that URL, offset 0          upload   --> active
    POST that URL, offset n          upload, finalize  --> final, and the file

Source: https://ai.google.dev/api/files, read 2026-11-22.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ipybatch.simulators.service import Reply, as_json

from .generation import camel
from .quotas import as_error, not_found

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipybatch.simulators.service import Request

LIVES_S = 48 * 3600.0


@dataclass(slots=True, kw_only=True)
class File:
    """One file; ``source`` is UPLOADED or GENERATED, and only generated files can be downloaded."""

    name: str
    mime_type: str
    content: bytes
    created_s: float
    display_name: str = ""
    source: str = "UPLOADED"

    def as_dict(self, base: str, time_of: Callable[[float], str]) -> dict[str, Any]:
        """Return the file's metadata as the service formats it; ``time_of`` formats a time."""
        shown = {
            "name": self.name,
            "displayName": self.display_name,
            "mimeType": self.mime_type,
            "sizeBytes": str(len(self.content)),
            "createTime": time_of(self.created_s),
            "updateTime": time_of(self.created_s),
            "expirationTime": time_of(self.created_s + LIVES_S),
            "sha256Hash": base64.b64encode(hashlib.sha256(self.content).hexdigest().encode()).decode(),
            "uri": f"{base}/{self.name}",
            "state": "ACTIVE",
            "source": self.source,
        }
        if self.source == "GENERATED":
            shown["downloadUri"] = f"{base}/{self.name}:download?alt=media"
        return shown


class Files:
    """All files, and the unfinished uploads."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._files: dict[str, File] = {}
        self._uploads: dict[str, tuple[dict[str, Any], bytearray]] = {}

    def start(self, about: dict[str, Any]) -> str:
        """Start an upload and return its id."""
        number = len(self._uploads) + 1
        name = hashlib.blake2b(f"file {self._seed} {number}".encode(), digest_size=6).hexdigest()
        self._uploads[name] = (about, bytearray())
        return name

    def append(self, upload_id: str, offset: int, piece: bytes) -> int | None:
        """Add a piece and return the size so far; None when there is no such upload or the piece is out of place."""
        if upload_id not in self._uploads or offset != len(self._uploads[upload_id][1]):
            return None
        self._uploads[upload_id][1].extend(piece)
        return len(self._uploads[upload_id][1])

    def finalize(self, upload_id: str, now_s: float) -> File:
        """Create the file of an upload."""
        about, content = self._uploads[upload_id]
        self._uploads[upload_id] = ({}, bytearray())
        file = File(
            name=str(about.get("name") or f"files/{upload_id}"),
            display_name=str(about.get("displayName", "")),
            mime_type=str(about.get("mimeType", "application/octet-stream")),
            content=bytes(content),
            created_s=now_s,
        )
        return self.add(file)

    def add(self, file: File) -> File:
        """Store a file."""
        self._files[file.name] = file
        return file

    def find(self, name: str, now_s: float) -> File | None:
        """Return the file of that name unless it has expired."""
        file = self._files.get(name)
        return file if file and now_s < file.created_s + LIVES_S else None

    def delete(self, name: str) -> None:
        """Remove a file."""
        del self._files[name]

    def page(self, size: int, token: str, now_s: float) -> tuple[list[File], str]:
        """Return up to ``size`` files, starting at ``token``, and the token of the next page or an empty one."""
        start = int(token or 0)
        living = [file for file in self._files.values() if now_s < file.created_s + LIVES_S]
        return living[start : start + size], str(start + size) if start + size < len(living) else ""


class FileEndpoints:
    """The endpoints for files."""

    def __init__(self, files: Files, time_of: Callable[[float], str]) -> None:
        """Set the files, and the function that formats times."""
        self._files = files
        self._time_of = time_of

    def upload(self, request: Request, now_s: float) -> Reply:
        """Start an upload, or append its next piece."""
        headers = _headers(request)
        command = headers.get("x-goog-upload-command", "")
        if command == "start":
            try:
                about = camel(json.loads(request.content or b"{}")).get("file", {})
            except (ValueError, AttributeError):
                return as_error(400, "The body must be JSON with a file.")
            url = f"{_own(request)}{request.path}?upload_id={self._files.start(about)}&upload_protocol=resumable"
            return Reply(headers={"X-Goog-Upload-URL": url, "X-Goog-Upload-Status": "active"})
        name = request.query.get("upload_id", "")
        size = self._files.append(name, int(headers.get("x-goog-upload-offset", -1)), request.content)
        if size is None:
            return as_error(400, "The upload does not exist, or the offset is not where it stands.")
        if "finalize" not in command:
            return Reply(headers={"X-Goog-Upload-Status": "active", "X-Goog-Upload-Size-Received": str(size)})
        reply = as_json({"file": self._shown(self._files.finalize(name, now_s), request)})
        return replace(reply, headers={**reply.headers, "X-Goog-Upload-Status": "final"})

    def get(self, request: Request, name: str, now_s: float) -> Reply:
        """Return a file's metadata."""
        file = self._files.find(name, now_s)
        return as_json(self._shown(file, request)) if file else not_found(name)

    def list(self, request: Request, now_s: float) -> Reply:
        """Return a page of files."""
        size = int(request.query.get("pageSize", 10))
        files, more = self._files.page(size, request.query.get("pageToken", ""), now_s)
        page: dict[str, Any] = {"files": [self._shown(file, request) for file in files]} if files else {}
        return as_json(page | ({"nextPageToken": more} if more else {}))

    def delete(self, name: str, now_s: float) -> Reply:
        """Delete a file."""
        if self._files.find(name, now_s) is None:
            return not_found(name)
        self._files.delete(name)
        return as_json({})

    def download(self, name: str, now_s: float) -> Reply:
        """Return the bytes of a file that the service generated."""
        file = self._files.find(name, now_s)
        if file is None:
            return not_found(name)
        if file.source != "GENERATED":
            return as_error(400, "Only generated files can be downloaded.")
        return Reply(body=file.content, headers={"Content-Type": file.mime_type})

    def _shown(self, file: File, request: Request) -> dict[str, Any]:
        return file.as_dict(f"{_own(request)}/v1beta", self._time_of)


def _own(request: Request) -> str:
    """Return the simulator's address as the client knows it: no reply may point to the real service."""
    return f"http://{_headers(request).get('host', 'gemini.invalid')}"


def _headers(request: Request) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}
