"""Failures: a session's failed items for its tab in JupyterLab, by message, searched and paged in the journal.

GET /sessions/ID/failures?search=404&offset=100&version=N    as the panel's own message has it

The messages alone, for programs, are at /sessions/ID/errors.
"""

from __future__ import annotations

import sqlite3
from typing import ClassVar

from jupyter_server.auth.decorator import authorized
from tornado import web

from ipybatch.engine.store import failures
from ipybatch.jupyter.messages import Errors, errors_of
from ipybatch.server.handler import LARGEST, RESOURCE, Handler, Operation, Parameter

MOST = 2000  # of a page: all are fetched for a file


def _number(name: str, about: str, least: int, most: int) -> Parameter:
    return Parameter(name, about, {"type": "integer", "minimum": least, "maximum": most})


class FailuresHandler(Handler):
    """GET /sessions/ID/failures."""

    operations: ClassVar = {
        "GET": Operation(
            summary="Its failed items in the order of their messages, the most frequent first; part of them",
            answers={200: Errors},
            refuses=(404, 422, 503),
            parameters=(
                Parameter("search", "Only those with this in their key or message, in any case."),
                _number("offset", "How many to leave out.", 0, LARGEST),
                _number("limit", f"Items of a page, at most {MOST}.", 1, MOST),
                _number("version", "That of the page before, so that both fit together.", 0, LARGEST),
            ),
        )
    }

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self, session: str) -> None:
        """Tell of some."""
        search, limit = self.parameter("search"), self.limit(MOST)
        offset, version = self.whole("offset", 0, LARGEST) or 0, self.whole("version", 0, LARGEST) or 0
        self.answer(await self.blocking(self._read, session, search, offset, limit, version))

    def _read(self, session: str, search: str, offset: int, limit: int, version: int) -> Errors:
        path, row = self.services.catalogue.row(session)

        def question(database: sqlite3.Connection) -> Errors:
            found = self.services.looks.at(path, database, row.id, search, version)
            items = failures.page(database, found.ids[offset : offset + limit])
            return errors_of("", search, offset, found, items)

        return self.services.catalogue.ask(path, None, question)
