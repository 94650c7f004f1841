"""Session kernels: kernels that Jupyter's own session manager starts, as it does for notebooks.

So they are listed under Running with the submission's name, are culled like
any other once they are idle, which they are not as long as their line runs,
and can be interrupted, restarted and shut down there.  Their type is
"console": JupyterLab opens one when it is clicked, which shows the progress.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from tornado.web import HTTPError

from ipybatch.server.services import Services
from ipybatch.server.submission_rows import Row
from ipybatch.server.supervisor import Reply, Supervisor

READY_S = 120.0  # until a kernel answers for the first time
LOOK_S = 1.0  # between two looks whether it is alive
AGAIN_S = 0.1  # from a shutdown to the look whether it is gone
GONE_S = 14.0  # until it must be; nobody waits for longer


class SessionKernels:
    """Kernels of a Jupyter server, on its loop.

    Args:
        app: The `ServerApp`.
        kernel_name: The kernel spec; "" for the default one.
    """

    def __init__(self, app: Any, kernel_name: str = "") -> None:
        self._app, self._kernel_name = app, kernel_name
        self._sessions: dict[str, str] = {}  # by kernel
        self._restarted: set[str] = set()  # by Jupyter, which starts what died anew
        self._processes: dict[str, int | None] = {}  # by kernel; another one is another kernel: somebody restarted it

    async def start(self, row: Row) -> str:
        """Start one for a submission, and return its id."""
        session = await self._app.session_manager.create_session(
            path=f"ipybatch-{row.id}", name=row.name, type="console", kernel_name=self._kernel_name or None
        )
        kernel = str(session["kernel"]["id"])
        self._sessions[kernel] = session["id"]
        self._processes[kernel] = self._process(kernel)
        with suppress(Exception):  # a gateway's has none
            self._app.kernel_manager.add_restart_callback(kernel, lambda: self._restarted.add(kernel), "restart")
        return kernel

    async def execute(self, kernel: str, line: str) -> Reply:
        """Execute a line in the foreground, and wait for its reply."""
        client = self._app.kernel_manager.get_kernel(kernel).client()
        client.start_channels(iopub=True, stdin=False, hb=False)
        try:
            if not await self._is_ready(kernel, client):
                return Reply(died=True)
            client.iopub_channel.stop()  # nobody reads what it prints
            asked = client.execute(line, store_history=False, allow_stdin=False)
            while True:
                try:
                    reply = await client.get_shell_msg(timeout=LOOK_S)
                except queue.Empty:
                    if not await self._is_alive(kernel):
                        return Reply(died=True)
                    continue
                if reply["parent_header"].get("msg_id") == asked:
                    return _reply(reply["content"])
        finally:
            client.stop_channels()

    async def stop(self, kernel: str) -> None:
        """Shut it down; one that is gone is no error.

        Jupyter starts what died anew, and forgets or refuses a shutdown that comes meanwhile: so it is looked at again.

        Raises:
            RuntimeError: It is still there.
        """
        self._restarted.discard(kernel)
        self._processes.pop(kernel, None)
        session, manager = self._sessions.pop(kernel, ""), self._manager(kernel)
        with suppress(AttributeError):  # it is gone; or a gateway's, which has none
            manager.stop_restarter()
        loop = asyncio.get_running_loop()
        late_s, refusal = loop.time() + GONE_S, None
        while loop.time() < late_s:
            try:
                await self._shut_down(kernel, session, manager)
            except Exception as error:  # it is being started
                refusal = error
            await asyncio.sleep(AGAIN_S)
            if await self._is_gone(kernel, manager):
                return
        msg = f"it is still there after {GONE_S:g} s"
        raise RuntimeError(msg) from refusal

    async def _shut_down(self, kernel: str, session: str, manager: Any) -> None:
        kernels = self._app.kernel_manager
        if kernel not in kernels:
            if await _is_alive(manager):  # it was started after it had been shut down
                await manager.shutdown_kernel(now=True)
            return
        try:
            await self._app.session_manager.delete_session(session)
        except (HTTPError, KeyError):  # its session is gone: somebody has shut it down
            if kernel in kernels:
                await kernels.shutdown_kernel(kernel)

    async def _is_gone(self, kernel: str, manager: Any) -> bool:
        starting = getattr(manager, "ready", None)
        is_starting = isinstance(starting, asyncio.Future) and not starting.done()
        return kernel not in self._app.kernel_manager and not is_starting and not await _is_alive(manager)

    async def _is_ready(self, kernel: str, client: Any) -> bool:
        """Wait until it answers; say whether it is alive."""
        ready = asyncio.ensure_future(client.wait_for_ready(timeout=READY_S))
        try:
            while not ready.done():
                await asyncio.wait({ready}, timeout=LOOK_S)
                if not await self._is_alive(kernel):
                    return False
            with suppress(RuntimeError):  # it died, or took its time
                ready.result()
                return True
            return False
        finally:
            ready.cancel()

    async def _is_alive(self, kernel: str) -> bool:
        kernels = self._app.kernel_manager
        if kernel in self._restarted or kernel not in kernels or self._process(kernel) != self._processes.get(kernel):
            return False
        return await _is_alive(kernels.get_kernel(kernel))

    def _process(self, kernel: str) -> int | None:
        """Return the number of its process; None where it is on another machine, or has none just now."""
        return getattr(getattr(self._manager(kernel), "provisioner", None), "pid", None)

    def _manager(self, kernel: str) -> Any:
        """Return Jupyter's manager of that one kernel; None if it is gone."""
        kernels = self._app.kernel_manager
        return kernels.get_kernel(kernel) if kernel in kernels else None


async def _is_alive(manager: Any) -> bool:
    alive = manager is not None and manager.is_alive()
    return bool(await alive if inspect.isawaitable(alive) else alive)


def _reply(content: dict[str, Any]) -> Reply:
    if content.get("status") == "ok":
        return Reply()
    return Reply(error=str(content.get("ename") or "error"), said=str(content.get("evalue") or "it did not reply"))


async def supervise(services: Services) -> None:
    """Run submissions in kernels of the server, until it ends."""
    options, loop = services.options, asyncio.get_running_loop()

    def blocking(call: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
        return loop.run_in_executor(services.pool, call, *arguments)

    kernels = SessionKernels(services.app, options.kernel_name)
    supervisor = Supervisor(
        services.open_submissions, kernels, blocking, most=options.max_running, news=services.submitted
    )
    await supervisor.run()
