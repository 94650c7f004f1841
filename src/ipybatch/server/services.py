"""Services: what the handlers are given by the extension: its options, its threads, and what runs beside them."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ipybatch.server.catalogue import Catalogue
from ipybatch.server.recorded_view import Views


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the operator configured; see `extension.IpyBatch`."""

    max_requests: int
    max_running: int
    account: str
    max_upload_mb: int
    max_body_mb: int
    max_streams: int
    keep_alive_h: float
    keep_alive: bool
    kernel_name: str

    @property
    def limits(self) -> dict[str, float]:
        """What is limited, by the name of its option."""
        named = ("max_requests", "max_running", "max_upload_mb", "max_body_mb", "max_streams", "keep_alive_h")
        return {name: getattr(self, name) for name in named}


@dataclass(slots=True, kw_only=True)
class Services:
    """What the handlers share.

    Attributes:
        app: The Jupyter server, for its kernels, sessions and events.
        catalogue: The sessions of all journals.
        readers: As many uploaded tables are read at the same time, each in a process of its own.
        views: Those of them that tabs show.
        pool: Two threads for what blocks: SQL, files.
    """

    options: Options
    app: Any
    catalogue: Catalogue
    readers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    views: Views = field(default_factory=Views)
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "ipybatch-server"))
