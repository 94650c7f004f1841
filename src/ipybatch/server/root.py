"""Root: what this server is and allows; the front end says "reload" where the version is another one."""

from __future__ import annotations

from typing import ClassVar

from jupyter_server.auth.decorator import authorized
from tornado import web

import ipybatch
from ipybatch.engine.store import schema
from ipybatch.server.handler import IF_NONE_MATCH, RESOURCE, Handler, Operation
from ipybatch.server.wire import Root
from ipybatch.templates import toml_file
from ipybatch.templates.shipped import SHIPPED

_LINKS = ("sessions", "submissions", "schedules", "templates", "channels", "uploads", "events", "openapi.json")


class RootHandler(Handler):
    """GET /."""

    operations: ClassVar = {
        "GET": Operation(summary="What this server is and allows", answers={200: Root}, parameters=(IF_NONE_MATCH,))
    }

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self) -> None:
        """Tell it."""
        base = self.request.path.rstrip("/")
        links = {name: f"{base}/{name}" for name in _LINKS}
        root = Root(
            version=_version(),
            journal_schema=len(schema.STEPS),
            limits=self.services.options.limits,
            templates=[*SHIPPED, *await self.blocking(toml_file.names)],
            links=links,
        )
        self.answer(root, etag=True)


def _version() -> str:
    return ipybatch.__version__
