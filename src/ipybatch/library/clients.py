"""Clients: the HTTP client of a source, opened with the first of its sessions and closed with the last."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from ipybatch.errors import InputError
from ipybatch.library.answers import check_client, make_client

TIMEOUT_S = 30.0


class HttpSource:
    """What the sources have in common: each is entered on the engine's loop, so that its client is born there.

    Args:
        client: The user's, which is not closed; None for one of our own.

    Raises:
        InputError: It is no client.
    """

    def __init__(self, client: Any) -> None:
        self._given: Any = check_client(client)
        self._client: Any = None
        self._entered = 0  # sessions that run side by side share one client

    async def __aenter__(self) -> Self:
        """Open a client, unless one was given."""
        if getattr(self._given, "is_closed", False):
            msg = f"client is closed: give {type(self).__name__} one that is open, or none"
            raise InputError(msg)
        if self._client is None:
            self._client = self._given or make_client(TIMEOUT_S)
        self._entered += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client with the last session, unless it was given."""
        self._entered -= 1
        if self._entered == 0:
            client, self._client = self._client, None
            if self._given is None:
                await client.aclose()
