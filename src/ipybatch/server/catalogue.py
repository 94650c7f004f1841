"""Catalogue: the sessions of all journals of this user, by opaque ids.

Rule: journals are read as they are, in short connections: nothing is created,
migrated or locked, and an older schema tells what it has.  Nobody outside
learns where a journal lies.

    registered journals, the default one --`page`, `live`, `item`--> `SessionItem`
    id = hash of the journal's path - number of the run          --`place`--> (path, run)

Rows of a journal that nobody has written to since they were read are not read
again: what does not stand in them (whether an owner is alive, which kernel it
is) is judged anew each time.  A journal is not opened for what it cannot have:
no run of it is newer than its file, and a live one is written every few seconds.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import heapq
import itertools
import math
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ipybatch.engine.data.events import State
from ipybatch.engine.data.masking import mask, printable
from ipybatch.engine.feed.live_record import decode
from ipybatch.engine.feed.session_item import SessionItem, iso
from ipybatch.engine.store import history, lease
from ipybatch.engine.store import journal as journals
from ipybatch.errors import JournalError, JournalLocked
from ipybatch.server.cursor import Place, from_cursor, to_cursor
from ipybatch.server.journal_files import TICK_NS, Files, JournalFiles, Stamp, stamp_of
from ipybatch.server.refusal import RETRY, Refusal, without_paths
from ipybatch.server.run_rows import (
    Damaged,
    Row,
    can,
    look,
    on_record,
    read_rows,
    untaken,
    why_interrupted,
)
from ipybatch.server.wire import SessionPage

_BATCH = 100  # rows that are read at once
_HEARD_S = 60.0  # far longer than a lease: whose process was silent for longer is interrupted
_KERNELS_S = 2.0  # how long what is known of kernels is used again
_KEPT = 4096  # answers of journals that are kept
_LATE_S = 5.0  # how much later a file's clock may be, or a beat
_ID = re.compile(r"([0-9a-f]{16})-([0-9]{1,15})")

T = TypeVar("T")


class _After(msgspec.Struct, array_like=True):
    """Where a page goes on.

    Attributes:
        created_s: When the last run that was told was made; ``key``: which journal has it.
        below: In journals that had more to tell: only runs with a smaller number.
    """

    created_s: float
    key: str
    below: dict[str, Place]


class Catalogue:
    """The sessions of all journals; called from the extension's threads.

    Args:
        app: The Jupyter server, whose kernels are looked for; None for none.
    """

    def __init__(self, app: Any = None) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._files = JournalFiles()
        self._answers: dict[tuple[Any, ...], tuple[Any, Any, float]] = {}  # until when the answer holds all the same
        self._kernels: tuple[float, dict[str, str]] = 0.0, {}

    def files(self) -> Files:
        """Return the journals, and when each was last written: what only time tells, such as a dead owner, does not."""
        return self._files.look()

    def page(
        self,
        states: Collection[str] = (),
        name: str = "",
        limit: int = _BATCH,
        cursor: str | None = None,
        files: Files | None = None,
    ) -> SessionPage:
        """Return some of the sessions, the latest first.

        Args:
            states: Only those that stand so; none for all.
            name: Only those with this in their name, in any case.
            cursor: `next` of the page before.
            files: The journals, as somebody has just looked at them.

        Raises:
            Refusal: The cursor is not one of ours.
        """
        unread: list[str] = []
        after = from_cursor(cursor, _After) if cursor else None
        files = files or self.files()
        runs = self._merged(files, -math.inf, states, name, limit + 1, after, unread)
        items = [self._item(key, *judged) for key, judged in itertools.islice(runs, limit)]
        place = runs.place()
        return SessionPage(items=items, next=None if place is None else to_cursor(place), unread=unread)

    def live(self, files: Files | None = None) -> list[SessionItem]:
        """Return the sessions that are running, or paused, the latest first.

        Args:
            files: The journals, as somebody has just looked at them.
        """
        since_s = time.time() - lease.LEASE_S - _LATE_S
        runs = self._merged(files or self.files(), since_s, history.UNENDED, "", _BATCH, None, [])
        return [self._item(key, *judged) for key, judged in runs]

    def _merged(  # noqa: PLR0917  # of a page
        self,
        files: Files,
        since_s: float,
        states: Collection[str],
        name: str,
        batch: int,
        after: _After | None,
        unread: list[str],
    ) -> _Merged:
        """Return the runs of all journals that were written since then."""

        def open_runs(key: str) -> _Runs:
            return _Runs(self, key, files, states, name, batch, after, unread)

        return _Merged((at_s, key, functools.partial(open_runs, key)) for at_s, key in files.written_since(since_s))

    def item(self, id_: str) -> SessionItem:
        """Return one session.

        Raises:
            Refusal: There is none of this id, or its journal cannot be read.
        """
        return self._item(id_.partition("-")[0], *self.judge(*self.row(id_)))

    def place(self, id_: str) -> tuple[Path, int]:
        """Return the journal of a session, by the path that it is asked for, and the number of its run.

        Raises:
            Refusal: No journal of this user has such an id.
        """
        told = _ID.fullmatch(id_)
        path = self._files.paths().get(told[1]) if told else None
        if told is None or path is None:
            raise not_there()
        return path, int(told[2])

    def row(self, id_: str) -> tuple[Path, Row]:
        """Return a session's journal, and its row.

        Raises:
            Refusal: There is none of this id, or its journal cannot be read.
        """
        path, run = self.place(id_)
        found: list[Row | Damaged] = self.ask(
            path, ("row", run), lambda database: read_rows(database, "id = ? AND name <> ''", (run,), 1)
        )
        if not found:
            raise not_there()
        if isinstance(found[0], Damaged):
            raise Refusal(503, _damaged(path, found[0]))
        return path, found[0]

    def id_of(self, path: Path, run: int) -> str:
        """Return the id of a run of a journal."""
        return history.id_of(journals.resolved(path), run)

    def ask(
        self,
        path: Path,
        about: tuple[Any, ...] | None,
        question: Callable[[sqlite3.Connection], T],
        refuse: Callable[[Path, JournalError], Exception] | None = None,
        *,
        rest: float = 0.0,
        stamp: Stamp | None = None,
    ) -> T:
        """Return what a journal answers, from memory while nobody has written to it since.

        Args:
            about: What tells this question from others; None for an answer that is not kept.
            refuse: Makes of its error what is raised; a refusal where none is given.
            rest: An answer that was written to since holds for so many times the time that it took.
            stamp: Of its files, as somebody has just looked at them.

        Raises:
            Exception: The journal cannot be read.
        """
        stamp = stamp_of(path) if stamp is None else stamp
        began_s = time.monotonic()
        with self._lock:
            before = None if about is None else self._answers.get((path, about))
        if before is not None and (before[0] == stamp or began_s < before[2]):
            kept: T = before[1]
            return kept
        try:
            answer = history.look(path, lambda database, _: question(database))
        except JournalError as error:
            raise (refuse or self.refuse)(path, error) from None
        now_s = time.monotonic()
        if about is not None and time.time_ns() - max((part[1] for part in stamp), default=0) > TICK_NS:
            with self._lock:
                if len(self._answers) >= _KEPT:
                    self._answers.clear()
                self._answers[path, about] = stamp, answer, now_s + rest * (now_s - began_s)
        return answer

    def forget(self, path: Path) -> None:
        """Ask a journal anew, whatever the time of its file."""
        with self._lock:
            self._answers = {key: answer for key, answer in self._answers.items() if key[0] != path}

    def judge(self, path: Path, row: Row) -> tuple[Row, State, float, str]:
        """Return a row with how it stands, how long it has run, and where it is running."""
        journal = journals.opened(path) if row.owner == lease.me() else None
        return row, *history.stands(journal, row.id, row.owner, row.beat_s, row.latest_s, row.state, row.seconds)

    def kernel_of(self, row: Row) -> tuple[str | None, str | None]:
        """Return the kernel of this server that runs a session, or last did, and its notebook; None for not known."""
        kernel = row.kernel or self._kernel_by_process(row.owner)
        if not kernel:
            return None, self._below_root(row.notebook)
        return kernel, self._notebooks().get(kernel) or self._below_root(row.notebook)

    def _item(self, key: str, row: Row, state: State, seconds: float, where: str) -> SessionItem:
        told = decode(row.live) if where else None
        kernel, notebook = self.kernel_of(row)
        waiting = "" if told is None else mask(told.status.waiting)
        return SessionItem(
            id=f"{key}-{row.id}",
            name=printable(row.name),
            state=state,
            counts=row.counts if told is None else told.counts(row.counts),
            started=iso(row.created_s if row.started_s is None else row.started_s),
            seconds=round(seconds, 3),
            eta_s=told.status.eta_s[1] if told is not None and told.status.eta_s else None,
            usd=row.usd,
            reason=why_interrupted(row) if state == "interrupted" else mask(row.reason) or waiting,
            workload=row.workload,
            kernel=kernel,
            notebook=notebook,
            breaker=None if told is None or told.breaker_policy is None else told.breaker.state,
            waiting=waiting,
            outside_hours=told is not None and told.status.outside_hours,
            where=where,
            can=can(row, state, where, told),
            untaken=untaken(row, where),
            submission=row.submission or None,
            group_word=printable(row.group_word),
        )

    def refuse(self, path: Path, error: JournalError) -> Refusal:
        """Return what is said of a journal that cannot be read or written."""
        if isinstance(error, history.Gone):
            return not_there()
        return Refusal(503, told(path, error), headers=RETRY if isinstance(error, JournalLocked) else None)

    def _kernel_by_process(self, owner: str | None) -> str:
        """Return the kernel of this server whose process an owner is; "" for none."""
        process = "" if owner is None else owner.partition("/")[2].partition("/")[0]
        if owner is None or self._app is None or not process.isdecimal():
            return ""
        for kernel, manager in [*getattr(self._app.kernel_manager, "_kernels", {}).items()]:
            if getattr(getattr(manager, "provisioner", None), "pid", None) == int(process):
                return str(kernel) if lease.find_process(owner) else ""  # of another machine, or long gone
        return ""

    def _notebooks(self) -> Mapping[str, str]:
        """Return the notebook of each kernel of this server, as Jupyter's session manager has it now."""
        read_s, known = self._kernels
        if self._app is None or time.monotonic() - read_s < _KERNELS_S:
            return known
        loop = getattr(getattr(self._app, "io_loop", None), "asyncio_loop", None)
        if loop is None or not loop.is_running() or _is_here(loop):
            return known
        with suppress(concurrent.futures.TimeoutError, RuntimeError):  # the server ends, or its loop is held
            found = asyncio.run_coroutine_threadsafe(self._app.session_manager.list_sessions(), loop).result(1.0)
            known = {one["kernel"]["id"]: one["path"] for one in found if one.get("type") == "notebook"}
            self._kernels = time.monotonic(), known
        return known

    def _below_root(self, notebook: str) -> str | None:
        """Return a notebook as the server's clients name it; None for one that they cannot open."""
        if not notebook or self._app is None:
            return None
        path = Path(notebook)
        if path.suffix != ".ipynb":
            return None
        try:
            return Path(os.path.normpath(path)).relative_to(Path(self._app.root_dir).resolve()).as_posix()
        except ValueError:
            return None


class _Runs:
    """The runs of one journal that are looked for, the latest first, a batch at a time."""

    def __init__(  # noqa: PLR0917  # of a catalogue's page
        self,
        catalogue: Catalogue,
        key: str,
        files: Files,
        states: Collection[str],
        name: str,
        batch: int,
        after: _After | None,
        unread: list[str],
    ) -> None:
        below = None if after is None else after.below.get(key)
        self.key, self.below = key, below
        self._after = None if after is None or below is not None else (-after.created_s, after.key)
        self._catalogue, self._path, self._unread = catalogue, files.paths[key], unread
        self._stamp = files.stamps[key]
        self._states, self._name, self._batch = states, name, batch
        self._runs = self._read()
        self.head = next(self._runs, None)
        if self.head is not None and below is None:
            self.below = self.head[0].id + 1  # what begins after this page is of no page after it

    def next(self) -> tuple[Row, State, float, str]:
        """Return the latest, and go on to the next."""
        taken = self.head
        assert taken is not None
        self.below, self.head = taken[0].id, next(self._runs, None)
        return taken

    def _read(self) -> Iterator[tuple[Row, State, float, str]]:
        below = self.below
        wanted = on_record(self._states)
        while True:
            heard_s = None if "interrupted" in self._states else time.time() // _HEARD_S * _HEARD_S - _HEARD_S
            about = (wanted, self._name, below, self._batch, heard_s)
            question = functools.partial(
                look, states=wanted, name=self._name, below=below, limit=self._batch, heard_s=heard_s
            )
            try:
                rows = self._catalogue.ask(self._path, about, question, _raise, stamp=self._stamp)
            except JournalError as error:
                if not isinstance(error, history.Gone):
                    self._unread.append(told(self._path, error))
                return
            for row in rows:
                if isinstance(row, Damaged):
                    self._unread.append(_damaged(self._path, row))
                    continue
                judged = self._catalogue.judge(self._path, row)
                if self._after is not None and (-row.created_s, self.key) <= self._after:
                    continue  # it was told, or began since
                if not self._states or judged[1] in self._states:
                    yield judged
            if len(rows) < self._batch:
                return
            below = rows[-1].id


class _Merged:
    """The runs of several journals, the latest first: within a journal as they were made.

    Args:
        journals: When each was last written, its key, and what opens it: not before a run of that time is due.
    """

    def __init__(self, journals: Iterable[tuple[float, str, Callable[[], _Runs]]]) -> None:
        self._heap: list[tuple[float, str, _Runs | Callable[[], _Runs]]] = [
            (-written_s - _LATE_S, key, opens) for written_s, key, opens in journals
        ]
        heapq.heapify(self._heap)
        self._last = (0.0, "")

    def __iter__(self) -> Iterator[tuple[str, tuple[Row, State, float, str]]]:
        while (runs := self._first()) is not None:
            taken = runs.next()
            self._last = taken[0].created_s, runs.key
            if runs.head is None:
                heapq.heappop(self._heap)
            else:
                heapq.heapreplace(self._heap, (_newest(runs), runs.key, runs))
            yield runs.key, taken

    def place(self) -> _After | None:
        """Return where it goes on; None when nothing is left."""
        if self._first() is None:
            return None
        opened = (runs for _, _, runs in self._heap if isinstance(runs, _Runs))
        return _After(*self._last, {runs.key: runs.below for runs in opened if runs.below is not None})

    def _first(self) -> _Runs | None:
        """Return the journal that has the next run."""
        while self._heap:
            _, key, runs = self._heap[0]
            if isinstance(runs, _Runs):
                return runs
            opened = runs()
            if opened.head is None:
                heapq.heappop(self._heap)
            else:
                heapq.heapreplace(self._heap, (_newest(opened), key, opened))
        return None


def _newest(runs: _Runs) -> float:
    assert runs.head is not None
    return -runs.head[0].created_s


def told(path: Path, error: JournalError) -> str:
    """Return what is wrong with a journal in a sentence that names no folder."""
    text = str(error).replace(os.path.realpath(path), path.name).replace(str(path), path.name)
    if "later ipybatch" in text:
        return f"journal {path.name} was written by a later ipybatch: upgrade the one that this server has"
    return without_paths(mask(text))


def _damaged(path: Path, row: Damaged) -> str:
    return history.damaged_run(path.name, row.id, row.kind)


def not_there() -> Refusal:
    """Return what is said of an id that is not there, or not this user's."""
    return Refusal(404, "there is no such session", next_step="ask for the list of sessions")


def _raise(path: Path, error: JournalError) -> Exception:
    return error


def _is_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
