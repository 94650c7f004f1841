"""Services: what the handlers are given by the extension: its options, its threads, and what runs beside them."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipybatch.engine.store import journal as journals
from ipybatch.engine.store.failures import Looks
from ipybatch.errors import JournalError
from ipybatch.server import schedule_rows, submission_rows
from ipybatch.server.catalogue import Catalogue
from ipybatch.server.options import Options
from ipybatch.server.recorded_view import Views
from ipybatch.server.watcher import Watcher, watch
from ipybatch.templates import toml_file

if TYPE_CHECKING:
    from ipybatch.server.schedule_store import Schedules
    from ipybatch.server.submission_store import Submissions


@dataclass(slots=True, kw_only=True)
class Services:
    """What the handlers share.

    Attributes:
        app: The Jupyter server, for its kernels, sessions and events.
        catalogue: The sessions of all journals.
        readers: As many uploaded tables are read at the same time, each in a process of its own.
        views: Those of them that tabs show.
        looks: At what failed in them.
        watcher: What changed in the sessions.
        pool: Two threads for what blocks for moments: SQL, files.
        checks: Two for the checks of what is submitted: reading a table takes seconds.
        submitted: Set when something was: the supervisor looks at once.
        creating: Idempotency keys of submissions that are being made.
    """

    options: Options
    app: Any
    catalogue: Catalogue
    watcher: Watcher = field(init=False)
    readers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    views: Views = field(default_factory=Views)
    looks: Looks = field(default_factory=Looks)
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "ipybatch-server"))
    checks: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "ipybatch-checks"))
    submitted: asyncio.Event = field(default_factory=asyncio.Event)
    creating: set[str] = field(default_factory=set)
    _submissions: dict[Path, Submissions] = field(default_factory=dict, init=False)
    _schedules: dict[Path, Schedules] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Begin to watch."""
        beside = {"schedules": self._schedule_stamp, "submissions": self._queue, "templates": toml_file.stamp}
        self.watcher = watch(self.app, self.catalogue, self.pool, beside, apart=toml_file.stamp)

    def submissions(self) -> Submissions:
        """Return the submissions of the default journal, in a thread: what they need takes half a second to load.

        Raises:
            JournalError: It leads nowhere.
        """
        from ipybatch.server.submission_store import Submissions

        path = journals.resolved(journals.default_path())
        return self._submissions.setdefault(path, Submissions(path))

    def open_submissions(self) -> Submissions | None:
        """Return them as `submissions` does, if some have not ended.

        Raises:
            JournalError: The journal cannot be read.
        """
        path = journals.resolved(journals.default_path())
        return self.submissions() if submission_rows.is_any_open(path) else None

    def schedules(self) -> Schedules:
        """Return the schedules of the default journal, in a thread, as `submissions`.

        Raises:
            JournalError: It leads nowhere.
        """
        from ipybatch.server.schedule_store import Schedules

        path = journals.resolved(journals.default_path())
        return self._schedules.setdefault(path, Schedules(path))

    def is_schedule_due(self) -> bool:
        """Say whether there are schedules to look at.

        Raises:
            JournalError: The journal cannot be read.
        """
        return schedule_rows.is_any_due(journals.resolved(journals.default_path()), time.time())

    def _schedule_stamp(self) -> object:
        """Return what is another one whenever what is told of a schedule changed."""
        with suppress(JournalError):  # it is told with the next change
            nothing: list[tuple[int, int, submission_rows.RowState | None]] = []
            return schedule_rows.ask(journals.resolved(journals.default_path()), schedule_rows.stamp, nothing)
        return None

    def _queue(self) -> object:
        """Return the submissions that have not ended, and how each stands."""
        with suppress(JournalError):  # it is told with the next change
            nothing: list[tuple[str, submission_rows.RowState]] = []
            return submission_rows.ask(journals.resolved(journals.default_path()), submission_rows.queue, nothing)
        return None
