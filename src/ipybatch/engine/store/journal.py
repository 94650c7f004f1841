"""Journal: one SQLite file, one connection that writes, group commit.

Rule: nothing is acknowledged before its COMMIT.

    submit --> the caller's own thread, when nobody else is writing   --> acknowledge
           `-> queue --> writer thread: BEGIN, unit, unit, ..., COMMIT --> acknowledge

A commit in WAL with synchronous=NORMAL waits for no disk, so the engine makes most of them itself: waking another
thread and being woken by it costs more than the commit (2-6 us an item at 20 items a commit). Whatever may take long
goes to the writer thread: checkpoints (they do wait for the disk), large results, and everything that is submitted
meanwhile, or while another process holds the file's lock. Without threads the caller's own does all of it.

What is submitted goes into the file in that order, whatever threads do: nothing is written by its caller while anything
before it waits, or was just taken off the queue; and what its caller could not write goes before what came since.

Commits survive ``kill -9`` of the process; a power cut may lose the last ones. What is paid for is written to the
disk after its commit (`to_disk`). Readers open connections of their own and never wait.

The file may be deleted, or another put in its place or copied over it, while it is open: SQLite goes on with what
nobody finds any more. So whoever reads it, takes a lease, renews one or ends a run looks first whether it is still
there; the latter two also read it as others do (`check_seen`).

One subject, hence its length: one file, as long as it is open.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from ipybatch.engine.data.background import HAS_THREADS
from ipybatch.engine.data.fork import after_fork
from ipybatch.engine.data.interrupts import hold_interrupts
from ipybatch.engine.store import registration, schema
from ipybatch.engine.store.journal_errors import is_busy, refusal_of, translated
from ipybatch.engine.store.journal_file import Log, identity, inode, read_log, real_path, write_ahead
from ipybatch.engine.store.network_copy import NetworkCopy, home_of
from ipybatch.errors import Fenced, JournalCorrupt, JournalError

PATH_VARIABLE = "IPYBATCH_JOURNAL"
BUSY_S = 5.0  # how long a commit waits for another process
PATIENCE_S = 30.0  # how long those wait that had better not be refused
_ROUND_S = 1.0  # how long it is tried before those are answered whose time is up
SLOW_S = 0.02  # a commit that took longer sends the next ones to the writer thread, for five times as long
LARGE = 64 * 1024
WAL_BYTES = 4 * 1024 * 1024
_MAGIC = b"SQLite format 3\0"

_log = logging.getLogger(__name__)

Unit = Callable[[sqlite3.Connection], Any]
Done = Callable[[Any, JournalError | None], None]


def default_path() -> Path:
    """Return where the journal lies: ``IPYBATCH_JOURNAL``, else the user's data folder."""
    import platformdirs

    moved = os.environ.get(PATH_VARIABLE)
    return Path(moved) if moved else platformdirs.user_data_path("ipybatch", appauthor=False) / "journal.sqlite3"


class Submission(msgspec.Struct):
    """A unit to be written.

    Attributes:
        done: Called with its result and error after the commit, on any thread.
        until_s: When to give up, by the monotonic clock, while another process is writing.
        size: Bytes to be written, roughly.
    """

    unit: Unit
    done: Done
    until_s: float = math.inf
    size: int = 0


_Answer = tuple[Done, Any, JournalError | None]


class _Busy(Exception):
    """Another process is writing just now."""

    def __init__(self, error: JournalError) -> None:
        super().__init__(str(error))
        self.error = error


class Journal:
    """A journal file, opened for reading and writing.

    Attributes:
        path: Where it really is.
        network_copy: Its copy where it was asked to be, if that is a network file system; else None.
        before: Called when anything is submitted, on any thread: what they return goes before it, in the same commit.
    """

    def __init__(self, path: Path) -> None:
        asked = resolved(path)
        self.path = home_of(asked)
        self.network_copy = None if self.path == asked else NetworkCopy(self.path, asked)
        self.before: list[Callable[[], Sequence[Submission]]] = []
        self._queue: queue.SimpleQueue[Submission | None] = queue.SimpleQueue()
        self._writing = threading.Lock()
        self._handing = threading.RLock()  # whoever has it says what goes next; a signal's handler may submit, too
        self._waiting: list[Submission] = []  # before the queue: for another process, or left over by a caller
        self._handed = self._taken = 0  # put into the queue, and taken off it: alike when nothing is between them
        self._commits = 0
        self._slow_until_s = 0.0
        self._closed = False
        self._looking = threading.Lock()
        self._log = Log()
        self._is_overwritten = False
        self._is_forked = False  # this is a child's memory of it
        if self.network_copy is not None:
            with translated(asked):
                self.network_copy.bring_in()
        with translated(self.path):
            _create(self.path)
            self._database = _open(self.path)
            self._file = identity(self.path)
            self._log = read_log(self.path) or self._log
        if self.network_copy is not None:
            self.network_copy.watch(lambda: self._database.total_changes)
        registration.register(self.path, asked)
        self._thread: threading.Thread | None = None
        if HAS_THREADS:
            self._thread = threading.Thread(target=self._serve, name="ipybatch-journal", daemon=True)
            self._thread.start()

    def submit(self, unit: Unit, done: Done, *, size: int = 0, patience_s: float | None = None) -> None:
        """Run ``unit`` in the next transaction; call ``done(result, error)`` after its commit, from either thread.

        Args:
            size: Bytes to be written, roughly.
            patience_s: How long to wait while another process is writing; default: `BUSY_S`.
        """
        until_s = time.monotonic() + (BUSY_S if patience_s is None else patience_s)
        self._submit([Submission(unit, done, until_s, size)])

    def flush(self) -> None:
        """Submit what waits in ``before`` for something to go with."""
        self._submit([])

    def _submit(self, group: list[Submission]) -> None:
        with hold_interrupts(all_of_them=True):  # others' units may be in its commit
            _tell(self._commit_or_hand(group))  # with nothing locked: whoever is told may write
            while self._thread is None and (self._waiting or not self._queue.empty()):
                self._serve_next()

    def _commit_or_hand(self, group: list[Submission]) -> list[_Answer]:
        """Write units, with those of ``before``, or hand them to the writer thread; return whom to tell what."""
        with self._handing:
            for take in tuple(self.before):  # another thread may take one out
                group[:0] = take()
            if (refusal := self._refusal()) is not None:
                return [(submission.done, None, refusal) for submission in group]
            if not group:
                return []
            if not self._may_write_here(group):
                self._hand(group)
                return []
        return self._commit_here(group)

    def _refusal(self) -> JournalError | None:
        if self._is_forked:
            msg = f"journal {self.path} was opened before this process was forked: make the session anew in this one"
            return JournalError(msg)
        if self._closed:
            return JournalError(f"journal {self.path} was closed: make the session anew")
        return None

    def _hand(self, group: list[Submission]) -> None:
        with self._handing:
            self._handed += len(group)
            for submission in group:
                self._queue.put(submission)

    def write(self, unit: Unit, *, patience_s: float | None = None) -> Any:
        """Run ``unit`` in the next transaction and wait for its commit.

        Args:
            patience_s: How long to wait while another process is writing; default: `BUSY_S`.

        Raises:
            JournalError: It was not written; says why.
        """
        written: queue.SimpleQueue[tuple[Any, JournalError | None]] = queue.SimpleQueue()
        self.submit(unit, lambda result, error: written.put((result, error)), patience_s=patience_s)
        result, error = written.get()
        if error is not None:
            raise error
        return result

    def connect(self) -> sqlite3.Connection:
        """Return a connection for reading, the caller's to close.

        Raises:
            JournalError: The file cannot be read, or is gone.
        """
        self.check_there()
        with translated(self.path):
            return connect(self.path)

    @contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """Give a connection that sees everything committed so far.

        Raises:
            JournalError: The file cannot be read, or is gone.
        """
        self.check_there()
        with translated(self.path):
            database = connect(self.path)
            try:
                yield database
            finally:
                database.close()

    def is_there(self) -> bool:
        """Say whether its file is still the one it opened: tests and users delete it, or restore it from a copy."""
        return not self._closed and self._file == identity(self.path)

    def is_at(self, path: Path) -> bool:
        """Say whether a path names its file: links do; hard ones within this process only, as each has its own log."""
        return not self._closed and self._file[0] is not None and self._file[0] == inode(path)

    def check_there(self) -> None:
        """Refuse to go on with a file that nobody finds any more.

        Raises:
            JournalError: It was deleted or overwritten, or another is in its place.
        """
        if self._closed:
            return
        if self._file != identity(self.path):
            raise JournalError(self._gone())
        with self._looking:
            before, self._log = self._log, read_log(self.path) or self._log
            is_cut = self._log.salts == before.salts and self._log.size < before.size
            is_cut |= before.is_whole and not self._log.is_whole  # else it was found like that: a power cut
            # SQLite deletes the log of an empty file: nothing may read that
            try:
                self._is_overwritten |= is_cut or self.path.stat().st_size == 0
            except FileNotFoundError:  # just now
                raise JournalError(self._gone()) from None
        if self._is_overwritten:
            raise JournalError(self._overwritten())

    def check_seen(self, database: sqlite3.Connection, question: str, values: tuple[Any, ...]) -> None:
        """Refuse to go on when somebody else does not find what is committed: this connection may have kept it.

        Args:
            database: In a transaction that writes: nobody else does meanwhile.
            question: Finds a row that was committed before it.

        Raises:
            JournalError: It was overwritten.
        """
        self.check_there()
        try:
            other = connect(self.path)
            try:
                is_found = other.execute(question, values).fetchone() is not None
            finally:
                other.close()
        except sqlite3.Error as error:
            if error.sqlite_errorname.startswith(("SQLITE_BUSY", "SQLITE_CANTOPEN", "SQLITE_NOMEM")):
                return  # that tells nothing
            is_found = False
        if not is_found:
            self._is_overwritten = True
            raise JournalError(self._overwritten())

    def _gone(self) -> str:
        what = "deleted" if inode(self.path) is None else "replaced"
        return f"journal {self.path} was {what} while it was in use: put it back, or make the session anew"

    def _overwritten(self) -> str:
        what = "restore it from a copy, or move it away, and restart the kernel"
        return f"journal {self.path} was overwritten while it was in use: {what}"

    def refresh(self) -> None:
        """Take over what another machine has on record in its copy on a network file system, if nothing is here.

        Raises:
            JournalError: That copy cannot be read.
        """
        if self.network_copy is not None and self.network_copy.has_news():
            with translated(self.network_copy.asked), self._writing:
                self.network_copy.bring_in()

    def rest(self) -> None:
        """Let it be copied back to a network file system: no session of this process runs in it."""
        if self.network_copy is not None and not self._is_forked:
            self.network_copy.copy_soon()

    def close(self) -> None:
        """Write what waits, then let the file go."""
        self.flush()
        with self._handing:
            self._closed = True
            if self._thread is not None:
                self._queue.put(None)
        if self._thread is not None:
            self._thread.join()
        if self.network_copy is not None:
            self.network_copy.close()
        with self._writing:  # a caller's thread may be in the midst of a commit of its own
            self._database.close()

    def _may_write_here(self, group: list[Submission]) -> bool:
        """Say whether the caller's thread writes units, and keep all others from it until it has."""
        if sum([submission.size for submission in group]) > LARGE or not self._writing.acquire(blocking=False):
            return False
        if self._waiting or self._handed != self._taken or time.monotonic() < self._slow_until_s:
            self._writing.release()
            return False
        return True

    def _commit_here(self, group: list[Submission]) -> list[_Answer]:
        """Commit on the caller's thread; what would keep it waiting, or fails among several, is the writer's, and next.

        Let others write again.
        """
        started_s, answers = time.monotonic(), None
        try:
            answers = self._commit_together(group, wait_s=0.0)
        except _Busy:
            pass
        finally:
            if answers is None:
                self._waiting += group
            self._writing.release()
            if answers is None:
                self._wake_writer()
        if answers is None:
            return []
        took_s = time.monotonic() - started_s
        if took_s > SLOW_S:
            self._slow_until_s = started_s + 5 * took_s
        self._commits += 1
        if self._commits % 64 == 0 and self._wal_is_long():
            self._wake_writer()
        return answers

    def _wake_writer(self) -> None:
        """Let the writer thread look what waits, and how long the log is."""
        self._hand([Submission(_checkpoint, tell_nobody)])

    def _serve(self) -> None:
        while self._serve_next():
            pass

    def _serve_next(self) -> bool:
        """Commit all that waits, or is submitted next; return False when it was asked to close."""
        came = [] if self._waiting else [self._queue.get()]
        with self._writing:
            with suppress(queue.Empty):
                while not came or came[-1] is not None:
                    came.append(self._queue.get_nowait())
            submitted = [submission for submission in came if submission is not None]
            self._taken += len(submitted)
            group = self._waiting + [submission for submission in submitted if submission.unit is not _checkpoint]
            if len(submitted) < len(came):  # asked to close
                if not group:
                    return False
                self._queue.put(None)  # write this group first
            answers, self._waiting = self._commit_or_wait(group)
        for done, result, error in answers:
            try:
                done(result, error)
            except Exception:  # its loop is closed; the others must be told all the same
                _log.exception("nobody could be told of a commit")
        if not self._waiting and self._wal_is_long():
            with self._writing, suppress(sqlite3.Error):
                _checkpoint(self._database)
        return True

    def _commit_or_wait(self, group: list[Submission]) -> tuple[list[_Answer], list[Submission]]:
        """Commit units; return whom to tell what, and which are to be tried again: another process is writing.

        What fails together is tried one by one.
        """
        answers: list[_Answer] = []
        parts = [group] if group else []
        for at, part in enumerate(parts):
            try:
                told = self._commit_together(part, wait_s=_ROUND_S)
            except _Busy as busy:
                left = [submission for waiting in parts[at:] for submission in waiting]
                now_s = math.inf if self._closed else time.monotonic()
                answers += [(submission.done, None, busy.error) for submission in left if submission.until_s <= now_s]
                return answers, [submission for submission in left if submission.until_s > now_s]
            except BaseException as error:  # of a unit, which its caller has met, too: the writer goes on
                told = None if len(part) > 1 else [(part[0].done, None, refusal_of(error, self.path))]
            if told is None:
                parts += [[submission] for submission in part]
            else:
                answers += told
        return answers, []

    def _commit_together(self, group: list[Submission], *, wait_s: float) -> list[_Answer] | None:
        """Run units in one transaction and return whom to tell what; None if one of several fails: nothing is written.

        Raises:
            _Busy: Another process is writing.
        """
        database = self._database
        try:
            _begin(database, wait_s)
        except sqlite3.Error as error:  # no unit can be written just now
            refusal = refusal_of(error, self.path)
            if is_busy(refusal):
                raise _Busy(refusal) from error
            return [(submission.done, None, refusal) for submission in group]
        try:
            results = [submission.unit(database) for submission in group]
            on_commit("before")
            database.execute("COMMIT")
            on_commit("after")
        except BaseException as error:  # whatever a unit raises: its neighbours are written
            with suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            if not isinstance(error, Exception):  # a transaction that stayed open would be the last
                raise
            return [(group[0].done, None, refusal_of(error, self.path))] if len(group) == 1 else None
        return [(submission.done, result, None) for submission, result in zip(group, results, strict=True)]

    def _wal_is_long(self) -> bool:
        try:
            return self.path.with_name(f"{self.path.name}-wal").stat().st_size > WAL_BYTES
        except OSError:
            return False


def tell_nobody(result: Any, error: JournalError | None) -> None:
    """Be the ``done`` of what nobody waits for."""


def _tell(answers: list[_Answer]) -> None:
    """Tell all; what one of them raises is raised when the others were told."""
    for at, (done, result, error) in enumerate(answers, start=1):
        try:
            done(result, error)
        except BaseException:
            _tell(answers[at:])
            raise


def _begin(database: sqlite3.Connection, wait_s: float) -> None:
    began_s = time.monotonic()
    while True:
        try:
            database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() - began_s >= wait_s:
                raise
            time.sleep(0.01)
        else:
            return


def _no_kill(place: str) -> None:
    """Stand where `ipybatch.testing.kill_points` ends the process."""


on_commit: Callable[[str], None] = _no_kill


def _checkpoint(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


_open_journals: dict[Path, Journal] = {}
_opening = threading.Lock()


def open_journal(path: str | Path | None = None) -> Journal:
    """Return the process's one Journal for this file, opening it when it is the first.

    Raises:
        JournalError: The file is corrupt, read-only, or not a journal; it is left as it was.
    """
    wanted = resolved(Path(path) if path is not None else default_path())
    with _opening:
        journal = _open_journals.get(wanted)
        if journal is None or not journal.is_there():
            known = (other for other in _open_journals.values() if other.is_at(wanted) and other.is_there())
            journal = _open_journals[wanted] = next(known, None) or Journal(wanted)
        else:
            journal.refresh()
        return journal


def opened(path: Path) -> Journal | None:
    """Return the Journal that this process has for a file; None if it has not opened it."""
    with _opening:
        return next((journal for journal in _open_journals.values() if journal.is_at(path)), None)


def forget_open_journals() -> None:
    """Drop the parent's journals after a fork: their connections and threads are not ours, nor are the locks."""
    global _opening
    _opening = threading.Lock()
    for journal in _open_journals.values():
        journal._is_forked = True
        journal._handing = threading.RLock()
    _open_journals.clear()


after_fork(forget_open_journals)


def resolved(path: Path) -> Path:
    """Return a path as it is spelt without ``~``, ``..`` and symbolic links: two spellings are one journal.

    Raises:
        JournalError: It leads nowhere.
    """
    try:
        return real_path(path.expanduser())
    except (OSError, RuntimeError, ValueError) as error:  # no such user, links in a circle, a NUL in it
        msg = f"journal {str(path)!r} leads nowhere ({error}): choose another journal= or {PATH_VARIABLE}"
        raise JournalError(msg) from error


def _create(path: Path) -> None:
    schema.check_file(path, path)
    if path.exists():
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
        if start and start != _MAGIC:
            msg = f"journal {path} is not a journal of ours: move it away, or choose another journal="
            raise JournalCorrupt(msg)
        if not os.access(path, os.W_OK):
            raise PermissionError(13, "permission denied", str(path))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def connect(path: Path, mode: str = "rw", *, busy_s: float = BUSY_S) -> sqlite3.Connection:
    """Return a connection to a file that is there.

    Args:
        mode: Of SQLite's addresses; with the default no empty file is made where there is none.
    """
    database = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}",
        uri=True,
        timeout=busy_s,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=64,
    )
    database.execute("PRAGMA synchronous = NORMAL")
    return database


def _open(path: Path) -> sqlite3.Connection:
    database = connect(path)
    database.execute("PRAGMA cache_size = -8000")  # KiB; with the default 2,000 an item costs 2 us more
    try:
        schema.check_ours(database, path)
        write_ahead(database, BUSY_S)
        database.execute("PRAGMA wal_autocheckpoint = 0")
        schema.migrate(database)
        database.execute("PRAGMA busy_timeout = 0")  # `_begin` waits, where it may
    except BaseException:
        database.close()
        raise
    return database


__all__ = ["PATH_VARIABLE", "Fenced", "Journal", "default_path", "open_journal"]


def to_disk(journal: Path) -> None:
    """Wait until what was committed to a journal would survive a power cut.

    SQLite's locks are on the other two files, so opening and closing this one drops none.
    """
    with suppress(FileNotFoundError):  # a checkpoint has just moved it all, and waited for the disk
        descriptor = os.open(journal.with_name(f"{journal.name}-wal"), os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
