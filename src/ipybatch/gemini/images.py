"""Images: those of prompts, identified by a hash of their content, and those of answers, saved as files.

An image of a prompt is hashed once, block by block, and read again only for its request, so that ten thousand images
take little memory.  An image of an answer gets a file name that is safe on every system:

    key 7            7.png             key "A cat"    a-cat-34b75bd7c9bb.png
    its 2nd image    7.2.png           key "7"        7-863787d1cd64.png

Rule: a file name follows from the key alone, and two keys never share one.  So a key whose name had to be changed, or
could be another key's, gets a hash of itself; and a key that runs again overwrites its own file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
import secrets
import threading
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import msgspec

from ipybatch.engine.data.masking import mask, register
from ipybatch.errors import BatchError, InputError, MissingExtra, Permanent

# A request holds 20 MB, and base64 needs four bytes for three.
# Source: https://ai.google.dev/gemini-api/docs/image-understanding (2026-11-22).
MAX_BYTES = 15_000_000

_SHOWN = 60


# ISO/IEC 23008-12, the brands of still images.
_HEIF = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "image/heic"),
    **dict.fromkeys((b"mif1", b"msf1"), "image/heif"),
}


def sniff(head: bytes) -> str | None:
    """Return the MIME type of an image by its first bytes, 12 or more; None if the service does not accept it."""
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
    """An image of a prompt; made with `Image.of`.

    Its JSON is its type, hash and size: the same image under another name is the same input.

    Attributes:
        mime_type: MIME type, from its first bytes.
        sha256: Hash of its content.
        size: Size, bytes.
    """

    mime_type: str
    sha256: str
    size: int

    @classmethod
    def of(cls, value: Any, field: str = "image") -> Image:
        """Return ``value`` as an image.

        Args:
            value: Bytes, a path, an address that fsspec opens, a data URL or base64.
            field: Name of the value in error messages.

        Raises:
            InputError: ``value`` is no image, cannot be read, or is too large.
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
        kind = sniff(head)
        if kind is None:
            begins = f"it begins with {head[:8]!r}" if head else "it is empty"
            msg = f"{field} must be a PNG, JPEG, WebP, GIF or HEIC image, got {_short(value)}: {begins}"
            raise InputError(msg)
        image = cls(kind, sha256, size)
        if size > MAX_BYTES:
            msg = f"{field} must be at most {MAX_BYTES:,} bytes, got {_short(value)} of {size:,}: make it smaller"
            raise InputError(msg)
        msgspec.structs.force_setattr(image, "_source", source)
        return image

    @property
    def label(self) -> str:
        """A name for people: its path, else its type and the start of its hash."""
        source = vars(self).get("_source")
        return mask(source) if isinstance(source, str) else f"{self.mime_type} {self.sha256[:12]}"

    def read(self) -> bytes:
        """Return its content.

        Raises:
            Permanent: The image is gone or was changed since `Image.of`.
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
        return len(text) <= 4096 and Path(text).expanduser().exists()
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
    while block := file.read(1 << 20):
        head = head or block[:32]
        size += len(block)
        digest.update(block)
    return head, digest.hexdigest(), size


def _short(value: Any) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value):,} bytes"
    text = mask(repr(str(value)) if isinstance(value, Path) else repr(value))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


_EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "image/gif": "gif",
    "image/heic": "heic",
    "image/heif": "heif",
}
_UNSAFE = re.compile(r"[^a-z0-9_]+")
_HASHED = re.compile(r".*-[0-9a-f]{12}")
_DEVICES = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]")  # Windows opens these in every folder


class ImageStore:
    """A folder for images: local, in memory, or any file system of fsspec.

    Args:
        folder: A path, or an address such as "memory://pictures" or "s3://bucket/pictures".
        later: Whether to make the folder when it is first written.

    Raises:
        InputError: The folder cannot be written.
        MissingExtra: fsspec is not installed.
    """

    def __init__(self, folder: str | Path, *, later: bool = False) -> None:
        self._folder, self._root = folder, ""
        self._files: Any = None
        self._opening = threading.Lock()  # images are saved in several threads
        if not later:
            self._open(folder)

    @classmethod
    def unasked(cls, journal: Path, session: str) -> ImageStore:
        """Return the place of images that nobody asked for: a folder beside the journal, made when one comes."""
        return cls(cls.beside(journal, session), later=True)

    @staticmethod
    def beside(journal: Path, session: str) -> Path:
        """Return the folder beside the journal for the images of a session."""
        return journal.with_name("images") / _stem(session)

    def _open(self, folder: str | Path) -> None:
        if not isinstance(folder, str | Path) or not str(folder).strip():
            msg = f"folder must be a path or an address such as 's3://bucket/pictures', got {folder!r}"
            raise InputError(msg)
        try:
            from fsspec.core import url_to_fs  # type: ignore[import-untyped]  # published without types
        except ImportError:
            raise MissingExtra("gemini") from None
        if "://" in str(folder):
            with suppress(ValueError):
                register(urlsplit(str(folder)).password)
        try:
            files, root = url_to_fs(str(folder))
            files.makedirs(root, exist_ok=True)
            _write(files, f"{root}/.{secrets.token_hex(4)}.part", b"", move_to=None)
        except Exception as error:
            msg = f"folder must be one that can be written, got {mask(repr(str(folder)))}: {mask(str(error))}"
            raise InputError(msg) from None
        self._files, self._root = files, root

    def save(self, key: str | int, images: Sequence[tuple[str, bytes]]) -> list[str]:
        """Write the images of an item, each atomically, and return their paths.

        Args:
            key: The item's key, from which the file names follow.
            images: MIME type and content of each, as in `Answer.images`.

        Raises:
            Permanent: An image cannot be written. The answer was billed, so the item is not sent again by itself.
        """
        with self._opening:
            if self._files is None:
                try:
                    self._open(self._folder)
                except BatchError as error:
                    msg = f"image of {key!r} was received but could not be saved: {error}"
                    raise Permanent(msg) from None
        return [self._save(key, number, *image) for number, image in enumerate(images, 1)]

    def _save(self, key: str | int, number: int, mime_type: str, content: bytes) -> str:
        path = f"{self._root}/{file_name(key, number, _extension(mime_type, content))}"
        try:
            _write(self._files, f"{self._root}/.{secrets.token_hex(4)}.part", content, move_to=path)
        except Exception as error:
            msg = f"image of {key!r} was received but could not be saved as {mask(path)}: {mask(str(error))}"
            raise Permanent(msg) from None
        protocol = self._files.protocol
        is_local = "file" in (protocol if isinstance(protocol, tuple | list) else (protocol,))
        return path if is_local else str(self._files.unstrip_protocol(path))


def _write(files: Any, unfinished: str, content: bytes, *, move_to: str | None) -> None:
    moved = False
    try:
        files.pipe_file(unfinished, content)
        if move_to is not None:
            files.mv(unfinished, move_to)
            moved = True
    finally:
        if not moved:
            with suppress(FileNotFoundError):
                files.rm_file(unfinished)


def file_name(key: str | int, number: int, extension: str) -> str:
    """Return the file name of an item's ``number``-th image, from 1."""
    stem = _stem(key)
    return f"{stem}.{extension}" if number == 1 else f"{stem}.{number}.{extension}"


def _stem(key: str | int) -> str:
    text = str(key)
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    slug = _UNSAFE.sub("-", plain).strip("-")[:80].rstrip("-")
    if isinstance(key, int):
        return text if key >= 0 else f"{slug}-{_hash(key)}"
    own = slug == text and slug and not slug.isdigit() and not _HASHED.fullmatch(slug) and not _DEVICES.fullmatch(slug)
    return slug if own else f"{slug or 'image'}-{_hash(key)}"


def _hash(key: str | int) -> str:
    canonical = msgspec.json.encode(key if isinstance(key, int) else key.encode(errors="replace").decode())
    return hashlib.blake2b(canonical, digest_size=6).hexdigest()


def _extension(mime_type: str, content: bytes) -> str:
    found = sniff(content[:32]) or mime_type
    return _EXTENSIONS.get(found) or _UNSAFE.sub("-", found.partition("/")[2].lower()).strip("-")[:16] or "bin"
