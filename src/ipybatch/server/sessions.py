"""Sessions: the routes of what is on record: the list, one session, its items, groups, errors and log.

GET /sessions                the list, over all journals
    /sessions/ID             one; DELETE deletes it
                /items       those that have an outcome
                /groups      rows of the partition table
                /errors      failures by message
                /log         what happened
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

import msgspec
from jupyter_server.auth.decorator import authorized
from tornado import web

from ipybatch.engine.data.events import State
from ipybatch.engine.feed.session_item import Session
from ipybatch.engine.store import history, removal
from ipybatch.engine.store.network_copy import home_of
from ipybatch.errors import JournalError
from ipybatch.server import record
from ipybatch.server.catalogue import Catalogue
from ipybatch.server.handler import (
    CURSOR,
    IF_MATCH,
    IF_NONE_MATCH,
    LARGEST,
    LIMIT,
    PAGE,
    RESOURCE,
    Handler,
    Operation,
    Parameter,
    encode,
    etag_of,
)
from ipybatch.server.refusal import Refusal
from ipybatch.server.results import file_paths
from ipybatch.server.run_rows import Row
from ipybatch.server.wire import ErrorPage, GroupPage, ItemPage, LogPage, SessionPage

T = TypeVar("T")

STATES: tuple[State, ...] = get_args(State)
PARTS = ("items", "groups", "errors", "log", "commands")
FILES = ("results.csv", "results.jsonl", "results.parquet")

_STATE = Parameter("state", f"Only sessions in one of these states, with commas: {', '.join(STATES)}.")
_NAME = Parameter("name", "Only sessions with this in their name, in any case.")
_STATUS = Parameter("status", "Only items that ended so.", {"type": "string", "enum": list(record.STATUSES)})
_GROUP = Parameter(
    "group", "Only items of the group of this number.", {"type": "integer", "minimum": 0, "maximum": LARGEST}
)
_LONGEST_NAME = 200  # that is looked for
_REST = 20  # groups of a live session are read again after so many times the time that it took


class SessionsHandler(Handler):
    """GET /sessions."""

    operations: ClassVar = {
        "GET": Operation(
            summary="The sessions of all journals, the latest first",
            answers={200: SessionPage},
            refuses=(422,),
            parameters=(_STATE, _NAME, LIMIT, CURSOR, IF_NONE_MATCH),
        )
    }

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self) -> None:
        """List them."""
        states = [state for state in self.parameter("state").split(",") if state]
        for state in states:
            if state not in STATES:
                raise Refusal(
                    422, f"state must be some of {', '.join(STATES)}", field="state", value=state, allowed=list(STATES)
                )
        name, limit, cursor = self.parameter("name"), self.limit(), self.parameter("cursor")
        if len(name) > _LONGEST_NAME:
            msg, allowed = f"name must be at most {_LONGEST_NAME} characters", {"maxLength": _LONGEST_NAME}
            raise Refusal(422, msg, field="name", value=name, allowed=allowed)
        page = await self.blocking(self.services.catalogue.page, states, name, limit, cursor)
        self.answer(page, headers=self.page_link(page.next), etag=True)


class SessionHandler(Handler):
    """GET /sessions/ID."""

    operations: ClassVar = {
        "GET": Operation(
            summary="One session, with its first groups and its breaker",
            answers={200: Session},
            refuses=(404, 503),
            parameters=(IF_NONE_MATCH,),
        ),
        "DELETE": Operation(
            summary="Delete what is on record of a session that does not run",
            answers={204: None},
            refuses=(404, 409, 412, 428, 503),
            parameters=(IF_MATCH,),
        ),
    }

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self, session: str) -> None:
        """Tell of it."""
        self.answer(await self.blocking(self.tell, session), etag=True)

    @web.authenticated
    @authorized("write", resource=RESOURCE)
    async def delete(self, session: str) -> None:
        """Delete it."""
        path = await self.blocking(self.hide, session)
        with suppress(JournalError):  # whoever deletes something next goes on with it
            while not await self.blocking(history.jot, path, removal.delete_some):  # noqa: ASYNC110  # others write too
                await asyncio.sleep(removal.PAUSE_S)
        self.set_status(204)
        self.finish()

    def hide(self, id_: str) -> Path:
        """Let a session be gone, and return its journal, from which the rest is to be deleted.

        Raises:
            Refusal: It is not there, or not as it was read; or it runs, or is begun again by itself.
        """
        catalogue = self.services.catalogue
        self.check_match(etag_of(encode(self.tell(id_))), what="session")
        path, row = catalogue.row(id_)
        if row.is_queued:
            step = f"cancel submission {row.submission} first".replace("  ", " ")
            raise Refusal(409, "the session belongs to a submission that has not ended", next_step=step)
        if not row.takes_commands:
            raise Refusal(409, "its journal is of an older ipybatch", next_step="begin any session in it, then delete")
        images = _images(catalogue, path, row)
        try:
            where = history.jot(path, lambda database: removal.hide_run(database, row.id, time.time()))
        except JournalError as error:
            raise catalogue.refuse(path, error) from None
        if where:
            raise Refusal(
                409, f"the session is running {where}", next_step="cancel it, and delete it once it has ended"
            )
        catalogue.forget(path)
        _delete_files(catalogue, path, row)
        for image in images:
            with suppress(OSError):  # gone, or not ours to delete any more
                image.unlink()
        for folder in {image.parent for image in images}:
            with suppress(OSError):  # of another session's images too, or of what somebody put there
                folder.rmdir()
        return path

    def tell(self, id_: str) -> Session:
        """Return a session in detail.

        Raises:
            Refusal: There is none of this id, or its journal cannot be read.
        """
        catalogue = self.services.catalogue
        item = catalogue.item(id_)
        path, row = catalogue.row(id_)
        breaker, windows = record.moment(row)
        groups = _groups(catalogue, path, row, PAGE, "")
        base = self.request.path.rstrip("/")
        links = {name: f"{base}/{name}" for name in (*PARTS, *FILES)}
        return Session(
            **msgspec.structs.asdict(item),
            groups=groups.items,
            breaker_detail=breaker,
            windows=windows,
            notes=catalogue.ask(path, ("notes", row.id), lambda database: record.notes(database, row)),
            links=links,
        )


class PartHandler(Handler):
    """Base of the routes that tell a part of one session."""

    def page(self, id_: str, look: Callable[..., T], *, is_kept: bool = False, **given: Any) -> T:
        """Return a page of a session's record.

        Args:
            is_kept: Whether it is kept while nobody writes to the journal: it takes a walk over all items.

        Raises:
            Refusal: There is no such session, or its journal cannot be read.
        """
        catalogue = self.services.catalogue
        path, row = catalogue.row(id_)

        def ask(database: sqlite3.Connection) -> T:
            return look(database, row, **given)

        about = (look.__name__, row.id, *given.values()) if is_kept else None
        return catalogue.ask(path, about, ask)

    async def answer_page(self, tell: Callable[[], Any]) -> None:
        """Answer with a page, which a thread makes, and with the link to the one after it."""
        page = await self.blocking(tell)
        self.answer(page, headers=self.page_link(page.next))

    def paged(self) -> dict[str, Any]:
        """Return how many entries are asked for, and where they begin."""
        return {"limit": self.limit(), "cursor": self.parameter("cursor")}


class ItemsHandler(PartHandler):
    """GET /sessions/ID/items."""

    operations: ClassVar = {
        "GET": Operation(
            summary="Its items that have an outcome, in plan order",
            answers={200: ItemPage},
            refuses=(404, 422, 503),
            parameters=(_STATUS, _GROUP, LIMIT, CURSOR),
        )
    }

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self, session: str) -> None:
        """Tell of some."""
        status = self.parameter("status", allowed=record.STATUSES)
        number = self.whole("group", 0, LARGEST)
        await self.answer_page(lambda: self.page(session, record.items, status=status, group=number, **self.paged()))


class GroupsHandler(PartHandler):
    """GET /sessions/ID/groups."""

    operations: ClassVar = {
        "GET": Operation(
            summary="Its groups: batches, remote jobs or partitions",
            answers={200: GroupPage},
            refuses=(404, 422, 503),
            parameters=(LIMIT, CURSOR),
        )
    }

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self, session: str) -> None:
        """Tell of some."""
        given = self.paged()

        def tell() -> GroupPage:
            path, row = self.services.catalogue.row(session)
            return _groups(self.services.catalogue, path, row, **given)

        await self.answer_page(tell)


class ErrorsHandler(PartHandler):
    """GET /sessions/ID/errors."""

    operations: ClassVar = {
        "GET": Operation(
            summary="Its failures by message, the most frequent first",
            answers={200: ErrorPage},
            refuses=(404, 422, 503),
            parameters=(LIMIT, CURSOR),
        )
    }

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self, session: str) -> None:
        """Tell of some."""
        await self.answer_page(lambda: self.page(session, record.errors, is_kept=True, **self.paged()))


class LogHandler(PartHandler):
    """GET /sessions/ID/log."""

    operations: ClassVar = {
        "GET": Operation(
            summary="What happened, the latest first: attempts that failed, outcomes, commands",
            answers={200: LogPage},
            refuses=(404, 422, 503),
            parameters=(LIMIT, CURSOR),
        )
    }

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self, session: str) -> None:
        """Tell of some."""
        await self.answer_page(lambda: self.page(session, record.log, is_kept=True, **self.paged()))


def _images(catalogue: Catalogue, path: Path, row: Row) -> list[Path]:
    """Return the images that the results of a session hold, and of no other, in the folder that its submission made."""
    if row.workload != "gemini" or not row.submission:
        return []
    from ipybatch.gemini.images import ImageStore

    def named(database: sqlite3.Connection) -> set[str]:
        others = database.execute("SELECT id FROM run WHERE name = ? AND id <> ?", (row.name, row.id)).fetchall()
        return {*file_paths(database, row.id)}.difference(*(file_paths(database, other) for (other,) in others))

    folder = ImageStore.beside(path, row.name)
    return [image for image in map(Path, catalogue.ask(path, None, named)) if image.parent == folder]


def _delete_files(catalogue: Catalogue, path: Path, row: Row) -> None:
    """Delete the forecasts of a session of which nothing else is on record."""
    if row.workload != "forecast":
        return

    def others(database: sqlite3.Connection) -> bool:
        return database.execute("SELECT 1 FROM run WHERE name = ?", (row.name,)).fetchone() is not None

    if not catalogue.ask(path, None, others):
        from ipybatch.forecast.forecast_files import ForecastFiles

        ForecastFiles(home_of(path), row.name).keep(())


def _groups(catalogue: Catalogue, path: Path, row: Row, limit: int, cursor: str) -> GroupPage:
    """Return some groups; reading them takes a walk over all items, so that of a live session they are kept a while."""
    is_live = bool(catalogue.judge(path, row)[-1])

    def ask(database: sqlite3.Connection) -> GroupPage:
        return record.groups(database, row, is_live=is_live, limit=limit, cursor=cursor)

    return catalogue.ask(path, ("groups", row.id, is_live, limit, cursor), ask, rest=_REST if is_live else 0.0)
