"""Output of a forecast: the file that ``output=`` names, and what becomes of an earlier one that lies in its place.

    complete    the file is replaced, atomically; an earlier one that was set aside is removed
    otherwise   an earlier forecast is set aside, so that nobody takes it for this one: out.csv --> out.earlier.csv

Rule: only what a session of this name wrote, and what is still as it was written, is renamed or removed. Every file
that is written is recorded in the journal, by its size and time. Only the file that this call names is looked at: with
a name for each day (``output=f"{today}.csv"``) those of other days stay.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from ipybatch.engine.store.journal import Journal
from ipybatch.errors import InputError, JournalError
from ipybatch.forecast.data.reading import reads


class Output:
    """The output file of one session.

    Args:
        path: The file that the user named.
        journal: Where it is recorded what was written.
        session: Name of the session.
    """

    def __init__(self, path: Path, journal: Journal, session: str) -> None:
        self.path = path.absolute()
        self._journal, self._session = journal, session

    def write(self, write: Callable[[Path], object], now_s: float) -> None:
        """Replace the file, record that, and remove an earlier one that was set aside.

        Args:
            write: Writes a file, whole or not at all.
            now_s: Unix time.

        Raises:
            OSError: It cannot be written.
            JournalError: What was written cannot be recorded.
        """
        write(self.path)
        self._record(self.path, now_s)
        for number in range(1, _MOST):
            aside = self._aside(number)
            if not aside.exists():
                break
            if self.written_s(aside) is not None:
                with suppress(OSError):
                    aside.unlink()
                self._forget(aside)

    def set_aside(self) -> str:
        """Rename a file in its place that this run did not write; return what the user must know, "" for nothing."""
        name = self.path.name
        try:
            if not self.path.exists():
                return ""
            written_s = self.written_s(self.path)
            if written_s is None:
                return (
                    f"{name} is not the forecast of this run, which left none: this session did not write it, or it"
                    " was changed since, so it stays as it is"
                )
            free = (self._aside(number) for number in range(1, _MOST))
            aside = next(path for path in free if not path.exists() or self.written_s(path) is not None)
            self.path.replace(aside)
            self._record(aside, written_s)
            self._forget(self.path)
        except (OSError, StopIteration) as error:
            return f"{name} holds an earlier forecast, not one of this run, and could not be renamed: {error}"
        except JournalError as error:
            return f"{name} holds an earlier forecast, not one of this run: what was written is not known: {error}"
        return f"{name} held an earlier forecast, of {_day(written_s)}: it is {aside.name} now, and this run left none"

    def earlier(self, begun_s: float) -> str:
        """Say that the file is older than a run which did not end; "" if it is not, or not this session's.

        Raises:
            JournalError: The journal cannot be read.
        """
        written_s = self.written_s(self.path)
        if written_s is None or written_s >= begun_s:
            return ""
        return f"{self.path.name} holds an earlier forecast, of {_day(written_s)}, until this run is completed"

    def written_s(self, path: Path) -> float | None:
        """Return when this session wrote a file that is still as it was then; None for any other.

        Raises:
            JournalError: The journal cannot be read.
        """
        try:
            row = (self._session, str(path), *_state(path))
        except OSError:  # it is gone
            return None
        is_ours = "session = ? AND path = ? AND size = ? AND modified_ns = ?"
        with self._journal.reader() as database:
            found = database.execute(f"SELECT written_s FROM output WHERE {is_ours}", row).fetchone()  # noqa: S608
        return None if found is None else float(found[0])

    def _record(self, path: Path, written_s: float) -> None:
        _write(
            self._journal,
            "INSERT OR REPLACE INTO output VALUES (?, ?, ?, ?, ?)",
            (self._session, str(path), *_state(path), written_s),
        )

    def _forget(self, path: Path) -> None:
        _write(self._journal, "DELETE FROM output WHERE session = ? AND path = ?", (self._session, str(path)))

    def _aside(self, number: int) -> Path:
        more = "" if number == 1 else f"-{number}"
        return self.path.with_name(f"{self.path.stem}.earlier{more}{self.path.suffix}")


_MOST = 100


def check_other(path: Path, **read: Any) -> None:
    """Refuse to write over a file that the forecast is made from, by whatever name, or beside it where it is read next.

    Args:
        path: Of the output.
        read: By argument, what the user handed over to be read.

    Raises:
        InputError: It is one of these files, or would be.
    """
    for argument, given in read.items():
        if reads(given, path):
            msg = f"output must be another file than {argument}, got {str(path)!r} for both: name another"
            raise InputError(msg)
        if reads(given, path, next_time=True):
            msg = (
                f"output must be no file that {argument} takes in, got {str(path)!r}, which the next run would read as"
                f" part of {os.fspath(given)!r}: name another folder"
            )
            raise InputError(msg)


@contextmanager
def telling_output(output: str | Path | None) -> Iterator[None]:
    """Add to the refusal of a table or an argument that a file which lies at the output is as it was before."""
    try:
        yield
    except InputError as error:
        if output is not None and Path(output).exists():
            error.args = (f"{error}. No forecast was made: {Path(output).name} is as it was before",)
        raise


def forget_outputs(journal: Journal, session: str) -> None:
    """Forget which files a session wrote; the files stay.

    Raises:
        JournalError: The journal cannot be written.
    """
    _write(journal, "DELETE FROM output WHERE session = ?", (session,))


def _write(journal: Journal, sql: str, values: tuple[object, ...]) -> None:
    journal.write(lambda database: database.execute(sql, values).rowcount)


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _day(written_s: float) -> str:
    return f"{datetime.fromtimestamp(written_s).astimezone():%Y-%m-%d %H:%M}"
