"""Activity: live sessions keep their kernel, and this server, from being culled.

Rule: only what runs in a kernel of this server counts, and only for
`keep_alive_h` hours; whoever polls keeps nothing alive.

    kernel.last_activity                  what the kernel culler reads, also of kernels that nobody is connected to
    settings["ipybatch_last_activity"]    what the idle shutdown of the server reads, and JupyterHub's culler, as the
                                          server reports it

A batch whose work runs in threads, or in a cell that returned, leaves its
kernel idle for Jupyter: without this it is killed in the middle of the night.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

from jupyter_server._tz import utcnow

from ipybatch.engine.feed.session_item import SessionItem

TOUCH_S = 15.0
_LEAST_S = 0.5

_log = logging.getLogger(__name__)


class Activity:
    """Touches what live sessions run in.

    Args:
        app: The Jupyter server.
        live: Returns the sessions that have not ended; called in the ``pool``.
        keep_alive_h: Hours for which a session counts, from when it was first seen live.
        now_s: Seconds, for these hours.
    """

    def __init__(
        self,
        app: Any,
        live: Callable[[], Sequence[SessionItem]],
        pool: Executor,
        *,
        keep_alive_h: float,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._live, self._pool = app, live, pool
        self._keep_alive_s, self._now_s = keep_alive_h * 3600, now_s
        self._since_s: dict[str, float] = {}  # by the id of a session

    async def run(self) -> None:
        """Touch them, as long as the server runs."""
        while True:
            try:
                await self.touch()
            except Exception:
                _log.exception("live sessions do not keep their kernels alive for a moment")
            await asyncio.sleep(self.every_s)

    @property
    def every_s(self) -> float:
        """Seconds between looks: several before a culler's time is up."""
        idle_s = getattr(self._app.kernel_manager, "cull_idle_timeout", 0)
        return max(_LEAST_S, min(TOUCH_S, idle_s / 4)) if idle_s > 0 else TOUCH_S

    async def touch(self) -> None:
        """Touch the kernels of this server in which sessions are live, and the server itself if there is one."""
        items = await asyncio.get_running_loop().run_in_executor(self._pool, self._live)
        now_s, manager = self._now_s(), self._app.kernel_manager
        here = {item.id: item.kernel for item in items if item.where and item.kernel and item.kernel in manager}
        self._since_s = {id_: self._since_s.get(id_, now_s) for id_ in here}
        for id_, kernel_id in here.items():
            if now_s - self._since_s[id_] < self._keep_alive_s:
                at = utcnow()
                manager.get_kernel(kernel_id).last_activity = at
                self._app.web_app.settings["ipybatch_last_activity"] = at
