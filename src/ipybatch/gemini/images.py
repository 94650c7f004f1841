"""Images that are sent: named by what is in them, read when they are sent.

A path stays a path: its content is hashed once, block by block, and read again
only for the request.  So ten thousand images cost ten thousand short lines.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from pathlib import Path
from typing import IO, Any

import msgspec

from ipybatch.engine.data.masking import mask
from ipybatch.errors import InputError, MissingExtra, Permanent

# A request holds 20 MB, and base64 needs four bytes for three.
# Source: https://ai.google.dev/gemini-api/docs/image-understanding (2026-11-22).
MAX_BYTES = 15_000_000

_BLOCK = 1 << 20
_HEAD = 32
_SHOWN = 60
_LONGEST_PATH = 4096


# ISO/IEC 23008-12, the brands of still images.
_HEIF = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "image/heic"),
    **dict.fromkeys((b"mif1", b"msf1"), "image/heif"),
}


def sniff(head: bytes) -> str | None:
    """Return what kind of image begins with ``head``, at least 12 bytes; None for none that is sent."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "image/gif"
    return _HEIF.get(head[8:12]) if head[4:8] == b"ftyp" else None


class Image(msgspec.Struct, frozen=True, dict=True):
    """An image to be sent; made with `Image.of`.

    As JSON it is its type, hash and size: the same image under another name is the same input.

    Attributes:
        mime_type: Told from its first bytes.
        sha256: Of its content.
        size: In bytes.
    """

    mime_type: str
    sha256: str
    size: int

    @classmethod
    def of(cls, value: Any, field: str = "image") -> Image:
        """Return ``value`` as an image.

        Args:
            value: Bytes, a path, an address that fsspec opens, a data address or base64.
            field: What it is called in errors.

        Raises:
            InputError: It is no image, cannot be read, or is too large.
        """
        if isinstance(value, Image):
            return value
        source = _source(value, field)
        try:
            with _open(source) as file:
                head, sha256, size = _digest(file)
        except (OSError, ValueError, ImportError) as error:
            msg = f"{field} must be an image that can be read, got {_short(value)}: {mask(str(error))}"
            raise InputError(msg) from None
        image = cls(_check_kind(head, field, value), sha256, size)
        if size > MAX_BYTES:
            msg = f"{field} must be at most {MAX_BYTES:,} bytes, got {_short(value)} of {size:,}: make it smaller"
            raise InputError(msg)
        msgspec.structs.force_setattr(image, "_source", source)
        return image

    @property
    def label(self) -> str:
        """What people know it by: its path, else its type and the start of its hash."""
        source = vars(self).get("_source")
        return mask(source) if isinstance(source, str) else f"{self.mime_type} {self.sha256[:12]}"

    def read(self) -> bytes:
        """Return its content.

        Raises:
            Permanent: It is no longer what it was when it was named.
        """
        try:
            with _open(vars(self)["_source"]) as file:
                content = file.read(self.size + 1)
        except FileNotFoundError:
            content = b""
        if hashlib.sha256(content).hexdigest() != self.sha256:
            msg = f"image {self.label} is gone or was changed after the session was made: make the session again"
            raise Permanent(msg)
        return content


def _source(value: Any, field: str) -> bytes | str:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Path):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        msg = f"{field} must be bytes, a path, an address or base64, got {_short(value)}"
        raise InputError(msg)
    if value.startswith("data:"):
        return _decoded(value.partition(",")[2], field, value)
    if "://" in value or _is_path(value):
        return value
    return _decoded(value, field, value)


def _is_path(text: str) -> bool:
    try:
        return len(text) <= _LONGEST_PATH and Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


def _decoded(text: str, field: str, value: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        msg = f"{field} must be an image, got {_short(value)}: there is no such file, and it is no base64"
        raise InputError(msg) from None


def _open(source: bytes | str) -> IO[bytes]:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if "://" not in source:
        return Path(source).expanduser().open("rb")
    try:
        import fsspec  # type: ignore[import-untyped]  # published without types
    except ImportError:
        raise MissingExtra("gemini") from None
    opened: IO[bytes] = fsspec.open(source, "rb").open()
    return opened


def _digest(file: IO[bytes]) -> tuple[bytes, str, int]:
    digest, size = hashlib.sha256(), 0
    head = b""
    while block := file.read(_BLOCK):
        head = head or block[:_HEAD]
        size += len(block)
        digest.update(block)
    return head, digest.hexdigest(), size


def _check_kind(head: bytes, field: str, value: Any) -> str:
    kind = sniff(head)
    if kind is None:
        begins = f"it begins with {head[:8]!r}" if head else "it is empty"
        msg = f"{field} must be a PNG, JPEG, WebP, GIF or HEIC image, got {_short(value)}: {begins}"
        raise InputError(msg)
    return kind


def _short(value: Any) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value):,} bytes"
    text = mask(repr(str(value)) if isinstance(value, Path) else repr(value))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
