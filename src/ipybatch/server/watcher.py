"""Watcher: what changed in the sessions of all journals, told to every tab, and to streams.

    one look at the files of all journals, twice a second at most
       | changed
       v
    live sessions, and the latest ones  --compared with what was told-->  one `Change`, with a cursor
                                                                            |--> Jupyter's events: a WebSocket a tab
                                                                            `--> backlog --> `event_stream`

Rule: a change is told once, and the end of a session always.  Cursors count changes and begin at the time of the
server's start, in milliseconds: none is ever given twice, and whoever comes with one of another server is told so.
Looking takes about a hundredth of a core at most: a look that took long is followed by a longer rest, until the next
tick at most: a side bar that is older looks broken.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from types import MappingProxyType
from typing import Any, Protocol

import msgspec

from ipybatch.engine.feed.session_item import SessionItem
from ipybatch.server.journal_files import Files, Stamp
from ipybatch.server.refusal import Refusal
from ipybatch.server.ticks import until_tick
from ipybatch.server.wire import Change, SessionPage

SCHEMA_ID = "https://ipybatch.readthedocs.io/events/sessions/v1"
SCHEMA = {
    "$id": SCHEMA_ID,
    "version": "1",
    "title": "Sessions that changed",
    "description": "What is new in the sessions of the user: `items` as GET /ipybatch/api/v1/sessions has them.",
    "personal-data": True,
    "type": "object",
    "required": ["cursor", "items", "removed"],
    "properties": {
        "cursor": {"type": "integer", "title": "Counts changes", "description": "After a gap, list the sessions anew."},
        "items": {"type": "array", "title": "Sessions that are new, or changed"},
        "removed": {"type": "array", "title": "Ids of sessions that are not there any more"},
        "schedules": {"type": "boolean", "title": "Whether schedules changed: GET /ipybatch/api/v1/schedules"},
        "submissions": {"type": "boolean", "title": "Whether other submissions wait, or run, than before"},
        "templates": {"type": "boolean", "title": "Whether templates changed: GET /ipybatch/api/v1/templates"},
    },
}
LOOK_S = 0.5  # at most two changes a second
UNHEARD_S = 5.0  # between looks while nobody listens
TIMED_S = 2.0  # between looks at what is live while no journal changes: time alone tells that an owner is dead
ENDED_S = 5.0  # between looks at what ended: an end that was seen coming is told at once
SHARE = 0.006  # of a core; what tabs are sent comes on top
LATEST = 50  # sessions that are compared beside the live ones: one may begin and end between two looks
BACKLOG = 100  # changes that a stream can come back for

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode


class Sessions(Protocol):
    """Where sessions are read: `catalogue.Catalogue`."""

    def files(self) -> Files:
        """Return the journals, and when each was last written."""

    def live(self, files: Files) -> list[SessionItem]:
        """Return those that have not ended."""

    def page(self, *, limit: int, files: Files) -> SessionPage:
        """Return the latest."""

    def item(self, id_: str) -> SessionItem:
        """Return one."""


class Watcher:
    """Tells what changed.

    Args:
        sessions: Where they are read, in one of the ``pool``'s threads.
        emit: Tells a change to the tabs.
        is_heard: Whether anybody listens to that.
        beside: By the field of a change that says so, what returns another answer whenever something else changed, and
            None where that is not known just now; asked as seldom as what ended.
        apart: Returns another answer whenever something changed that is told, and lies in no journal.
    """

    def __init__(
        self,
        sessions: Sessions,
        pool: Executor,
        emit: Callable[[dict[str, Any]], None],
        *,
        is_heard: Callable[[], bool] = lambda: True,
        beside: Mapping[str, Callable[[], object]] = MappingProxyType({}),
        apart: Callable[[], object] = lambda: None,
    ) -> None:
        self._sessions, self._pool, self._emit, self._is_heard = sessions, pool, emit, is_heard
        self._beside, self._apart = beside, apart
        self._beside_told: dict[str, object] = dict.fromkeys(beside)
        self._told: dict[str, SessionItem] | None = None  # None until the first look
        self._stamp: tuple[dict[str, Stamp], object] | None = None
        self._latest_stamp: tuple[dict[str, Stamp], object] | None = None  # when the latest sessions were read
        self._latest_s = -ENDED_S
        self._looked_s = -UNHEARD_S
        self._cpu_s = 0.0  # of the latest look
        self._backlog: deque[tuple[int, bytes]] = deque(maxlen=BACKLOG)
        self._news = asyncio.Event()
        self._looking = asyncio.Lock()
        self.cursor = time.time_ns() // 1_000_000
        self.streams = 0
        self.is_closed = False

    async def run(self) -> None:
        """Look, as long as the server runs."""
        try:
            while True:
                await self.look_if_due(time.monotonic())
                await asyncio.sleep(min(max(LOOK_S, self._cpu_s / SHARE), until_tick()))
        finally:
            self.is_closed = True
            self._wake()

    async def look_if_due(self, now_s: float) -> None:
        """Look, unless nobody listens and somebody looked a moment ago; what goes wrong is logged, and tried again."""
        if not (self.streams or self._is_heard()) and now_s - self._looked_s < UNHEARD_S:
            return
        try:
            await self.look(now_s)
        except Exception:
            _log.exception("sessions are not watched for a moment")

    async def look(self, now_s: float) -> None:
        """Tell what changed since the look before; the first one only remembers."""
        async with self._looking:
            began_s = time.thread_time()
            change, took_s = await asyncio.get_running_loop().run_in_executor(self._pool, self._compare, now_s)
            if change is not None:
                self.cursor = change.cursor
                self._backlog.append((change.cursor, _encode(change)))
                self._wake()
                self._emit(msgspec.to_builtins(change))
            self._cpu_s = took_s + time.thread_time() - began_s

    async def after(self, cursor: int, timeout_s: float) -> list[tuple[int, bytes]] | None:
        """Return the changes after a cursor, as JSON, as soon as there are any; [] when there are none in time.

        Returns:
            None where they are not all in the backlog: sessions are to be listed anew.
        """
        if cursor == self.cursor and not self.is_closed:
            try:
                await asyncio.wait_for(self._news.wait(), timeout_s)
            except TimeoutError:
                return []
        oldest = self._backlog[0][0] if self._backlog else self.cursor + 1
        if not oldest - 1 <= cursor <= self.cursor:
            return None
        return [(number, body) for number, body in self._backlog if number > cursor]

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _compare(self, now_s: float) -> tuple[Change | None, float]:
        """Return what changed, and how much of a core that took; in a thread."""
        began_s = time.thread_time()
        files, told = self._sessions.files(), self._told or {}
        stamp = (files.stamps, self._apart())
        is_timed = now_s - self._looked_s >= TIMED_S and any(item.where for item in told.values())
        is_stale = stamp != self._latest_stamp and now_s - self._latest_s >= ENDED_S
        if stamp == self._stamp and not is_timed and not is_stale:
            return None, time.thread_time() - began_s
        self._stamp, self._looked_s = stamp, now_s
        found, beside = _by_id(self._sessions.live(files)), self._beside_told
        if is_stale:
            asked = {name: ask() for name, ask in self._beside.items()}
            beside = {name: beside[name] if answer is None else answer for name, answer in asked.items()}
            self._latest_stamp, self._latest_s = stamp, now_s
            found = _by_id(self._sessions.page(limit=LATEST, files=files).items) | found
        else:  # what is on its way is told twice a second, what ended has time
            found |= {id_: item for id_, item in told.items() if not item.where and id_ not in found}
        others = {name: answer != self._beside_told[name] for name, answer in beside.items()}
        self._beside_told = beside
        change = self._changed(found, others)
        return change, time.thread_time() - began_s

    def _changed(self, found: dict[str, SessionItem], others: dict[str, bool]) -> Change | None:
        before = self._told
        if before is None:
            self._told = found
            return None
        removed = []
        for id_ in before.keys() - found.keys():
            try:
                item = self._sessions.item(id_)
            except Refusal as refusal:
                if refusal.status_code == 404:
                    removed.append(id_)
                else:  # its journal cannot be read for a moment
                    found[id_] = before[id_]
            else:
                if before[id_].where or before[id_].state != item.state:  # what ended long ago is not watched for ever
                    found[id_] = item
        items = [item for id_, item in found.items() if id_ not in before or _essence(before[id_]) != _essence(item)]
        self._told = found
        if not (items or removed or any(others.values())):
            return None
        return Change(cursor=self.cursor + 1, items=items, removed=sorted(removed), **others)


def _by_id(items: Iterable[SessionItem]) -> dict[str, SessionItem]:
    return {item.id: item for item in items}


def _essence(item: SessionItem) -> SessionItem:
    """Return what is worth a change: the reader's own clock counts seconds."""
    return msgspec.structs.replace(item, seconds=0.0, eta_s=None)


def watch(
    app: Any,
    sessions: Sessions,
    pool: Executor,
    beside: Mapping[str, Callable[[], object]] = MappingProxyType({}),
    apart: Callable[[], object] = lambda: None,
) -> Watcher:
    """Return a watcher that tells changes through a Jupyter server's own events."""
    logger = app.event_logger
    logger.register_event_schema(SCHEMA)

    def emit(data: dict[str, Any]) -> None:
        logger.emit(schema_id=SCHEMA_ID, data=data)

    def is_heard() -> bool:
        listeners = [
            getattr(logger, name, {SCHEMA_ID: True}) for name in ("_modified_listeners", "_unmodified_listeners")
        ]
        return bool(logger.handlers) or any(each.get(SCHEMA_ID) for each in listeners)

    return Watcher(sessions, pool, emit, is_heard=is_heard, beside=beside, apart=apart)
