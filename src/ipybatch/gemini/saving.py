"""Saving: images that came back, as files under names that are safe anywhere.

    key 7            7.png             key "A cat"    a-cat-34b75bd7c9bb.png
    its 2nd image    7.2.png           key "7"        7-863787d1cd64.png

Rule: a name follows from its key alone, and two keys never share one.  So a key
whose name had to be changed, or could be another's, carries a hash of itself;
and a key that runs again overwrites its own file.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ipybatch.engine.data.masking import mask, register
from ipybatch.errors import InputError, MissingExtra, Permanent
from ipybatch.gemini.images import sniff

_EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "image/gif": "gif",
    "image/heic": "heic",
    "image/heif": "heif",
}
_LONGEST = 80
_UNSAFE = re.compile(r"[^a-z0-9_]+")
_HASHED = re.compile(r".*-[0-9a-f]{12}")
_DEVICES = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]")  # Windows opens these in every folder


class ImageStore:
    """A folder for images: local, in memory, or anywhere fsspec writes to.

    Args:
        folder: A path, or an address such as "memory://pictures" or "s3://bucket/pictures".

    Raises:
        InputError: Nothing can be written there; found out before anything is paid for.
        MissingExtra: fsspec is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        if not isinstance(folder, str | Path) or not str(folder).strip():
            msg = f"folder must be a path or an address such as 's3://bucket/pictures', got {folder!r}"
            raise InputError(msg)
        try:
            from fsspec.core import url_to_fs  # type: ignore[import-untyped]  # published without types
        except ImportError:
            raise MissingExtra("gemini") from None
        if "://" in str(folder):
            register(_password(str(folder)))
        try:
            self._files, self._root = url_to_fs(str(folder))
            self._files.makedirs(self._root, exist_ok=True)
            self._write(f"{self._root}/.{secrets.token_hex(4)}.part", b"", move_to=None)
        except Exception as error:
            msg = f"folder must be one that can be written, got {mask(repr(str(folder)))}: {mask(str(error))}"
            raise InputError(msg) from None

    def save(self, key: str | int, images: Sequence[tuple[str, bytes]]) -> list[str]:
        """Write the images of an item, each whole or not at all, and return where they are.

        Args:
            images: Type and content of each, as `Answer` has them.

        Raises:
            Permanent: One cannot be written; the answer was paid for, so it is not asked for again by itself.
        """
        return [self._save(key, number, *image) for number, image in enumerate(images, 1)]

    def _save(self, key: str | int, number: int, mime_type: str, content: bytes) -> str:
        path = f"{self._root}/{file_name(key, number, _extension(mime_type, content))}"
        try:
            self._write(f"{self._root}/.{secrets.token_hex(4)}.part", content, move_to=path)
        except Exception as error:
            msg = f"image of {key!r} came but could not be saved as {mask(path)}: {mask(str(error))}"
            raise Permanent(msg) from None
        return path if _is_local(self._files) else str(self._files.unstrip_protocol(path))

    def _write(self, unfinished: str, content: bytes, *, move_to: str | None) -> None:
        moved = False
        try:
            self._files.pipe_file(unfinished, content)
            if move_to is not None:
                self._files.mv(unfinished, move_to)
                moved = True
        finally:
            if not moved:
                with suppress(FileNotFoundError):
                    self._files.rm_file(unfinished)


def file_name(key: str | int, number: int, extension: str) -> str:
    """Return the name of an item's ``number``-th image, from 1."""
    stem = _stem(key)
    return f"{stem}.{extension}" if number == 1 else f"{stem}.{number}.{extension}"


def _stem(key: str | int) -> str:
    text = str(key)
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    slug = _UNSAFE.sub("-", plain).strip("-")[:_LONGEST].rstrip("-")
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


def _is_local(files: Any) -> bool:
    protocols = files.protocol if isinstance(files.protocol, tuple | list) else (files.protocol,)
    return "file" in protocols


def _password(address: str) -> str | None:
    try:
        return urlsplit(address).password
    except ValueError:
        return None
