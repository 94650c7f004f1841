"""Later: routes whose names are settled, and that come in a later version: templates of one's own.

Rule: they answer 501, not 404, so that a client can tell "not yet" from a
name that is wrong; whoever may not ask is told 403 here as well.
"""

from __future__ import annotations

from typing import ClassVar, NoReturn

from jupyter_server.auth.decorator import authorized
from tornado import web

from ipybatch.server.handler import RESOURCE, Handler, Operation
from ipybatch.server.refusal import Refusal

COMES_IN = "0.2"  # of the package
_TOLD = {
    "templates": ("templates of your own", "submit with one of the templates that GET / lists"),
}


class LaterListHandler(Handler):
    """GET /templates."""

    operations: ClassVar = {"GET": Operation(summary="Not there yet", answers={}, refuses=(501,))}

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self) -> None:
        """Say when they come."""
        self.refuse()

    def refuse(self) -> NoReturn:
        """Say when they come.

        Raises:
            Refusal: Always.
        """
        name = next(word for word in reversed(self.request.path.split("/")) if word in _TOLD)
        subject, instead = _TOLD[name]
        raise Refusal(501, f"{subject} come in version {COMES_IN} of ipybatch", field=name, next_step=instead)


class LaterHandler(LaterListHandler):
    """GET, PUT and DELETE /templates/NAME."""

    operations: ClassVar = {
        method: Operation(summary="Not there yet", answers={}, refuses=(501,)) for method in ("GET", "PUT", "DELETE")
    }

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self, name: str) -> None:
        """Say when they come."""
        self.refuse()

    @web.authenticated
    @authorized("write", resource=RESOURCE)
    async def put(self, name: str) -> None:
        """Say when they come."""
        self.refuse()

    @web.authenticated
    @authorized("write", resource=RESOURCE)
    async def delete(self, name: str) -> None:
        """Say when they come."""
        self.refuse()
