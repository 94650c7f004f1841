"""Panel: a session for its tab in JupyterLab, as the panel's own messages have it."""

from __future__ import annotations

from typing import ClassVar

import msgspec
from jupyter_server.auth.decorator import authorized
from tornado import web

from ipybatch.jupyter.messages import CommandName, Cursor, Update
from ipybatch.server.cursor import from_cursor, to_cursor
from ipybatch.server.handler import CURSOR, IF_NONE_MATCH, RESOURCE, Handler, Operation, etag_of
from ipybatch.server.wire import PanelUpdate

_COMMANDS: tuple[CommandName, ...] = (
    "pause", "resume", "cancel", "lift", "start_now", "retry_failed", "adjust", "items",
)  # fmt: skip


class _Place(msgspec.Struct, array_like=True):
    """Where a tab stands: in the view that was made then."""

    made_s: float
    sent: Cursor


class PanelHandler(Handler):
    """GET /sessions/ID/panel."""

    operations: ClassVar = {
        "GET": Operation(
            summary="What is new of a session, as the panel draws it; everything without a cursor",
            answers={200: PanelUpdate, 304: None},
            refuses=(404, 422, 503),
            parameters=(CURSOR, IF_NONE_MATCH),
        )
    }

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self, id_: str) -> None:
        """Tell it."""
        cursor = self.parameter("cursor")
        sent = from_cursor(cursor, _Place) if cursor else None
        answer, etag = await self.blocking(self._read, id_, sent)
        self.set_header("ETag", etag)
        if self.check_etag_header():
            self.set_status(304)
            self.finish()
        else:
            self.answer(answer)

    def _read(self, id_: str, place: _Place | None) -> tuple[PanelUpdate, str]:
        services = self.services
        path, run = services.catalogue.place(id_)
        item = services.catalogue.item(id_)
        update, after = services.views.update(path, run, None if place is None else (place.made_s, place.sent))
        update.head.can = [name for name in _COMMANDS if name in item.can]
        return PanelUpdate(update=update, cursor=to_cursor(after)), _etag(update)


def _etag(update: Update) -> str:
    """Return what stays while nothing but the time changes."""
    head = msgspec.structs.replace(update.head, at_s=0.0, elapsed_s=0.0, started_s=0.0)
    return etag_of(msgspec.json.encode(msgspec.structs.replace(update, seq=0, head=head)))
