"""Schedules: what is submitted again and again: made, changed, listed, paused, answered; and the look at what is due.

    PUT /schedules/NAME --> check --> row       every five seconds: what is due --> submissions --> the supervisor looks

What blocks runs in a thread; a check may take seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, TypeVar

import msgspec
from jupyter_server.auth.decorator import authorized
from tornado import web

from ipybatch.engine.data.masking import mask
from ipybatch.errors import JournalError
from ipybatch.server import schedule_rows
from ipybatch.server.cursor import from_cursor, to_cursor
from ipybatch.server.handler import (
    CURSOR,
    IF_MATCH,
    IF_NONE_MATCH,
    LIMIT,
    RESOURCE,
    Handler,
    Operation,
    Parameter,
    encode,
    etag_of,
)
from ipybatch.server.refusal import Refusal, without_paths
from ipybatch.server.schedule_rows import Ran, Row
from ipybatch.server.services import Services
from ipybatch.server.ticks import until_tick
from ipybatch.server.wire import Schedule, ScheduleCommand, SchedulePage, ScheduleRequest

T = TypeVar("T")

_DRY_RUN = Parameter(
    "dry_run", "1: only what it would be, and its next five times.", {"type": "string", "enum": ["0", "1"]}
)
_ONLY_NEW = Parameter("If-None-Match", "`*`: only where there is none of this name.", where="header")
_CHANGES = Parameter("If-Match", "The ETag of the schedule that is changed, or `*`; needed for that.", where="header")

_log = logging.getLogger(__name__)


class SchedulesHandler(Handler):
    """GET /schedules."""

    operations: ClassVar = {
        "GET": Operation(
            summary="Schedules, by name",
            answers={200: SchedulePage},
            refuses=(422, 503),
            parameters=(LIMIT, CURSOR),
        )
    }

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self) -> None:
        """List them."""
        limit, cursor = self.limit(), self.parameter("cursor")
        listed = await self.blocking(_page, self.services, limit, cursor)
        self.answer(listed, headers=self.page_link(listed.next))


class ScheduleHandler(Handler):
    """GET, PUT, DELETE /schedules/NAME."""

    operations: ClassVar = {
        "GET": Operation(
            summary="One schedule, with its next times and its latest run",
            answers={200: Schedule},
            refuses=(404, 503),
            parameters=(IF_NONE_MATCH,),
        ),
        "PUT": Operation(
            summary="Make a schedule, or change one",
            answers={200: Schedule, 201: Schedule},
            refuses=(409, 412, 415, 422, 428, 503),
            parameters=(_DRY_RUN, _CHANGES, _ONLY_NEW),
            body=ScheduleRequest,
        ),
        "DELETE": Operation(
            summary="Remove a schedule; what it has submitted stays",
            answers={204: None},
            refuses=(404, 412, 428, 503),
            parameters=(IF_MATCH,),
        ),
    }

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self, schedule: str) -> None:
        """Tell it."""
        self.answer(await self.blocking(self._found, schedule), etag=True)

    @web.authenticated
    @authorized("write", resource=RESOURCE)
    async def put(self, schedule: str) -> None:
        """Make it, or change it."""
        is_dry = self.parameter("dry_run", "0", allowed=("0", "1")) == "1"
        request = await self.blocking(self.body, ScheduleRequest)
        told, is_new = await self.checking(self._put, schedule, request, is_dry)
        headers = {"Location": told.links["self"]} if is_new else {}
        headers |= {} if is_dry else {"ETag": etag_of(encode(told))}
        self.answer(told, 201 if is_new else 200, headers=headers)

    @web.authenticated
    @authorized("write", resource=RESOURCE)
    async def delete(self, schedule: str) -> None:
        """Remove it."""
        await self.blocking(self._remove, schedule)
        self.set_status(204)
        self.finish()

    def _found(self, name: str) -> Schedule:
        with _refused():
            return _tell(self.services, self.services.schedules().find(name))

    def _put(self, name: str, request: ScheduleRequest, is_dry: bool) -> tuple[Schedule, bool]:
        """Return what was made, and whether it is new.

        Raises:
            Refusal: It is not as it was read, or cannot be.
        """
        store, options = self.services.schedules(), self.services.options
        before = store.read(lambda database: schedule_rows.find(database, name), None)
        with _refused():
            if is_dry:
                return _tell(self.services, store.draft(name, request, options, before)), False
            self._check_match(name, before)
            return _tell(self.services, store.put(name, request, options, before)), before is None

    def _check_match(self, name: str, before: Row | None) -> None:
        """Refuse to change what is not as the client has read it, or to make what is there.

        Raises:
            Refusal: Says which.
        """
        if before is None:
            if wanted := self.request.headers.get("If-Match", ""):
                msg = "there is no such schedule"
                raise Refusal(412, msg, field="If-Match", value=wanted, next_step="leave If-Match out to make it")
        elif self.request.headers.get("If-None-Match", "").strip() == "*":
            msg = f"there is a schedule {name!r}"
            raise Refusal(412, msg, field="If-None-Match", value="*", next_step="choose another name")
        else:
            self.check_match(etag_of(encode(_tell(self.services, before))), what="schedule")

    def _remove(self, name: str) -> None:
        store = self.services.schedules()
        with _refused():
            row = store.find(name)
            self.check_match(etag_of(encode(_tell(self.services, row))), what="schedule")
            store.remove(row)


class ScheduleCommandsHandler(Handler):
    """POST /schedules/NAME/commands."""

    operations: ClassVar = {
        "POST": Operation(
            summary="Pause or resume a schedule, submit it once now, or answer what it asks",
            answers={200: Schedule},
            refuses=(402, 404, 409, 415, 422, 503),
            body=ScheduleCommand,
        )
    }

    @web.authenticated
    @authorized("execute", resource=RESOURCE)
    async def post(self, schedule: str) -> None:
        """Do it."""
        asked = await self.blocking(self.body, ScheduleCommand)
        told = await self.checking(self._command, schedule, asked)
        self.services.submitted.set()
        self.answer(told)

    def _command(self, name: str, asked: ScheduleCommand) -> Schedule:
        store = self.services.schedules()
        with _refused():
            return _tell(self.services, store.command(name, asked.verb, asked.answer))


async def scheduling(services: Services, *, pause_s: Callable[[], float] = until_tick) -> None:
    """Submit what is due, from time to time, until the server ends; what goes wrong is logged, and tried again."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(pause_s())
        try:
            is_due = await loop.run_in_executor(services.pool, services.is_schedule_due)
            if is_due and await loop.run_in_executor(services.checks, _submit_due, services):
                services.submitted.set()
        except JournalError as error:  # the next look may do
            _log.debug("schedules cannot be looked at: %s", error)
        except Exception:
            _log.exception("schedules cannot be looked at")


def _submit_due(services: Services) -> bool:
    made = services.schedules().submit_due()
    for row in made:
        _log.info("submission %s is of a schedule: %s", row.id, mask(row.name))
    return bool(made)


def _page(services: Services, limit: int, cursor: str) -> SchedulePage:
    after: str = from_cursor(cursor, str) if cursor else ""
    found = services.schedules().page(limit + 1, after)
    items = [_told(services, row, last) for row, last in found[:limit]]
    return SchedulePage(items=items, next=to_cursor(found[limit - 1][0].name) if len(found) > limit else None)


def _tell(services: Services, row: Row) -> Schedule:
    return _told(services, row, services.schedules().last(row))


def _told(services: Services, row: Row, last: Ran | None) -> Schedule:
    from ipybatch.server.schedule_view import tell

    base = f"{services.app.base_url.rstrip('/')}/ipybatch/api/v1"
    told = tell(row, last, time.time(), base)
    return msgspec.structs.replace(told, note=without_paths(told.note))


@contextmanager
def _refused() -> Iterator[None]:
    """Turn what the store refuses into answers.

    Raises:
        Refusal: The store refused.
    """
    from ipybatch.server.schedule_store import Changed, NoSuchSchedule
    from ipybatch.server.submission_rows import Conflict

    try:
        yield
    except NoSuchSchedule:
        step = "GET /ipybatch/api/v1/schedules lists those there are"
        raise Refusal(404, "there is no such schedule", next_step=step) from None
    except Changed as error:
        raise Refusal(412, str(error), field="If-Match", next_step="GET it again") from None
    except RecursionError:
        raise Refusal(422, "the body must not be nested so deeply", field="body") from None
    except Conflict as error:
        raise Refusal(409, str(error), field="verb", next_step="wait for its end, or cancel it") from None
