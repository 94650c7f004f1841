"""Storage: a folder that the session and every worker of a forecast see alike, where its rows and forecasts lie.

    Folder         of this machine, or one that all machines mount: rows are mapped into memory as they are
    RemoteFolder   of any place that fsspec knows: s3://, gs://, abfs://, sftp://, ...

Rule: a file is whole or not there. It is written under a draft's name and moved, so that a worker that is killed
leaves no half of it. What a folder is travels as its address: each process opens it by itself, with the credentials
that fsspec finds there (environment, configuration), so that no address holds a password.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ipybatch.engine.data.masking import mask
from ipybatch.engine.store.atomic_write import draft_of
from ipybatch.errors import InputError, MissingExtra

_URL = re.compile(r"[A-Za-z][\w+.:-]+://")
_PASSWORD = re.compile(r"(?<=//)[^/@:]*:(?!\d+/).*@|[?&](?:key|secret|token|password|sig)[^=&]*=", re.IGNORECASE)


class Folder:
    """A folder of this machine; it is made with its first file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def address(self) -> str:
        """What `storage_of` finds it by."""
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def below(self, name: str) -> Folder:
        """Return a folder within this one."""
        return Folder(self.path / name)

    @contextmanager
    def reading(self, name: str) -> Iterator[Any]:
        """Give a file as pyarrow reads it: mapped into memory."""
        import pyarrow as pa

        with pa.memory_map(str(self.path / name)) as file:
            yield file

    @contextmanager
    def writing(self, name: str) -> Iterator[Any]:
        """Give what a file is written to; it is there when all went well, else it is not."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with draft_of(self.path / name) as draft, draft.open("wb") as file:
                yield file
        except OSError as error:  # of a full disk, which names no place
            if error.errno is None or error.filename is not None:
                raise
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def ends(self, name: str, count: int) -> tuple[bytes, bytes]:
        """Return the first and the last bytes of a file.

        Raises:
            OSError: It is not there, or shorter.
        """
        with (self.path / name).open("rb") as file:
            first = file.read(count)
            file.seek(-count, os.SEEK_END)
            return first, file.read()

    def names(self) -> list[str]:
        """Return the names of all files."""
        return [path.name for path in self.path.glob("*")]

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; those that are gone already count as deleted."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.path, ignore_errors=True)


class RemoteFolder:
    """A folder of a place that fsspec knows.

    Args:
        url: Its address.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._opened: tuple[Any, str] | None = None

    @property
    def address(self) -> str:
        """What `storage_of` finds it by."""
        return self._url

    def __str__(self) -> str:
        return mask(self._url)

    def __reduce__(self) -> tuple[type[RemoteFolder], tuple[str]]:
        return RemoteFolder, (self._url,)

    def below(self, name: str) -> RemoteFolder:
        """Return a folder within this one."""
        return RemoteFolder(f"{self._url}/{name}")

    @contextmanager
    def reading(self, name: str) -> Iterator[Any]:
        """Give a file as pyarrow reads it, whose parts are fetched as they are asked for."""
        files, path = self._place(name)
        with files.open(path, "rb") as file:
            yield file

    @contextmanager
    def writing(self, name: str) -> Iterator[Any]:
        """Give what a file is written to; it is there when all went well, else it is not."""
        files, path = self._place(name)
        _, draft = self._place(f".{name}.{secrets.token_hex(4)}")
        try:
            with self._created(files, draft) as file:
                yield file
            files.mv(draft, path)
        except BaseException:
            with suppress(Exception):  # whatever a store raises: what is told is why it was not written
                files.rm_file(draft)
            raise

    def ends(self, name: str, count: int) -> tuple[bytes, bytes]:
        """Return the first and the last bytes of a file.

        Raises:
            OSError: It is not there, or shorter.
        """
        files, path = self._place(name)
        first, last = files.cat_file(path, end=count), files.cat_file(path, start=-count)
        if len(first) < count:
            msg = f"{name} has {len(first)} bytes"
            raise OSError(msg)
        return first, last

    def names(self) -> list[str]:
        """Return the names of all files."""
        files, path = self._place("")
        files.invalidate_cache()  # workers wrote some
        try:
            return [one.rpartition("/")[2] for one in files.ls(path.rstrip("/"), detail=False)]
        except FileNotFoundError:
            return []

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; those that are gone already count as deleted."""
        for name in names:
            files, path = self._place(name)
            with suppress(FileNotFoundError):
                files.rm_file(path)

    def clear(self) -> None:
        """Delete the folder."""
        files, path = self._place("")
        with suppress(FileNotFoundError):
            files.rm(path.rstrip("/"), recursive=True)

    def _place(self, name: str) -> tuple[Any, str]:
        if self._opened is None:
            import fsspec  # type: ignore[import-untyped, unused-ignore]  # it has no types

            self._opened = fsspec.core.url_to_fs(self._url)
        files, path = self._opened
        return files, f"{path}/{name}"

    def _created(self, files: Any, path: str) -> Any:
        try:
            return files.open(path, "wb")
        except FileNotFoundError:  # where folders are more than names
            files.makedirs(path.rpartition("/")[0], exist_ok=True)
            return files.open(path, "wb")


Storage = Folder | RemoteFolder


def storage_of(given: str | os.PathLike[str]) -> Storage:
    """Return the folder that a user names, by its path or its address.

    Raises:
        InputError: It is no path and no address, or has a password in it.
        MissingExtra: fsspec is not installed.
    """
    if not isinstance(given, str | os.PathLike) or not (text := os.fspath(given)).strip():
        msg = f"storage must be a folder's path or its address, such as 's3://bucket/run', got {given!r}"
        raise InputError(msg)
    if _URL.match(text) is None or text.startswith("file://"):
        try:
            return Folder(Path(text.removeprefix("file://")).expanduser().absolute())
        except RuntimeError as error:  # no such user's home
            msg = f"storage must be a folder's path or its address, got {text!r}: {error}"
            raise InputError(msg) from None
    if not text.partition("://")[2].strip("/"):
        msg = f"storage must name a folder of its place, such as 's3://bucket/run', got {text!r}"
        raise InputError(msg)
    if _PASSWORD.search(text) or mask(text) != text:
        hidden = mask(_PASSWORD.sub(lambda found: found[0] if found[0].endswith("=") else "***@", text))
        msg = (
            f"storage must be an address without a password, got {hidden!r}: the journal keeps the address; fsspec"
            " finds passwords in the environment of each machine"
        )
        raise InputError(msg)
    return _remote(text)


def check_storage(given: str | os.PathLike[str]) -> Storage:
    """Return the folder that a user names, in which a small file was written.

    Raises:
        InputError: It is no path and no address, has a password in it, or cannot be written.
        MissingExtra: fsspec is not installed.
    """
    storage = storage_of(given)
    with probe(storage) as name:
        read_probe(storage, name)
    return storage


@contextmanager
def probe(storage: Storage) -> Iterator[str]:
    """Write a small file, give its name, and delete it.

    Raises:
        InputError: The storage cannot be written.
    """
    name = f"probe-{secrets.token_hex(8)}"
    try:
        try:
            with storage.writing(name) as file:
                file.write(name.encode())
        except Exception as error:  # each store has errors of its own
            raise _unusable("written", storage, error) from None
        yield name
    finally:
        with suppress(Exception):
            storage.delete([name])


def read_probe(storage: Storage, name: str) -> None:
    """Read what another process wrote as a probe.

    Raises:
        InputError: It is not there: what this process sees is another folder, or none.
    """
    try:
        found = storage.ends(name, len(name))[0]
        if found != name.encode():
            msg = f"it holds {found!r}"
            raise OSError(msg)
    except Exception as error:  # each store has errors of its own
        raise _unusable("read by the workers too", storage, error) from None


def _unusable(what: str, storage: Storage, error: Exception) -> InputError:
    why = mask(f"{type(error).__name__}: {error}".rstrip(": "))
    return InputError(f"storage must be a folder that can be {what}, got {str(storage)!r}: {why}")


def _remote(url: str) -> RemoteFolder:
    try:
        import fsspec
    except ImportError:
        raise MissingExtra("forecast") from None
    folder = RemoteFolder(url)
    try:
        folder._place("")
    except (ImportError, ValueError) as error:  # a package that knows the place; no such place
        msg = (
            f"storage must be an address that fsspec {fsspec.__version__} opens, got {mask(url)!r}: {mask(str(error))}"
        )
        raise InputError(msg) from None
    return folder
