"""Channels: the names by which people are told, and never their addresses.

Whoever makes or removes one does so where the address is safe: in Python, or at a prompt.
"""

from __future__ import annotations

from typing import ClassVar

from jupyter_server.auth.decorator import authorized
from tornado import web

from ipybatch.errors import InputError
from ipybatch.notify import channel_list
from ipybatch.server.handler import IF_NONE_MATCH, RESOURCE, Handler, Operation
from ipybatch.server.refusal import Refusal
from ipybatch.server.wire import ChannelItem, ChannelList


class ChannelsHandler(Handler):
    """GET /channels."""

    operations: ClassVar = {
        "GET": Operation(
            summary="Channels of the user, by name: what a submission's notify may say",
            answers={200: ChannelList},
            refuses=(503,),
            parameters=(IF_NONE_MATCH,),
        )
    }

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self) -> None:
        """List them."""
        self.answer(await self.blocking(listed), etag=True)


def listed() -> ChannelList:
    """Return all channels.

    Raises:
        Refusal: The file that holds them cannot be used; where it lies is not told.
    """
    try:
        kinds, missing = channel_list.channels(), channel_list.not_here()
    except InputError:
        step = "python -m ipybatch notify list says why"
        raise Refusal(503, "the file of channels cannot be used", next_step=step) from None
    return ChannelList(
        items=[ChannelItem(name=name, kind=kind, usable=name not in missing) for name, kind in kinds.items()]
    )
