"""Extension: what Jupyter loads: configuration, routes, and the services that run beside them.

c.IpyBatch.max_requests = 20     # in jupyter_server_config.py, or --IpyBatch.max_requests=20
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import math
from collections.abc import Coroutine
from typing import Any

from jupyter_server.extension.application import ExtensionApp
from traitlets import Bool, Float, Int, TraitError, Unicode, validate
from traitlets.config import Config
from traitlets.config.loader import DeferredConfig

from ipybatch.server.options import DEFAULTS, Options

BASE = "/ipybatch/api/v1"


class IpyBatch(ExtensionApp):
    """Sessions and submissions of this user, over REST and in JupyterLab's side bar."""

    name = "ipybatch"
    app_name = "ipybatch"
    description = "Sessions and submissions of this user, over REST and in JupyterLab's side bar."
    load_other_extensions = True

    max_requests = Int(DEFAULTS.max_requests, min=1, help="Most requests of a submission.").tag(config=True)
    max_running = Int(
        DEFAULTS.max_running, min=1, help="Submissions that run at the same time; the others wait, by priority."
    ).tag(config=True)
    account = Unicode(DEFAULTS.account, help="The credit account that pays submissions to Gemini.").tag(config=True)
    max_upload_mb = Int(DEFAULTS.max_upload_mb, min=1, help="Largest table that can be uploaded, in megabytes.").tag(
        config=True
    )
    max_body_mb = Int(DEFAULTS.max_body_mb, min=1, help="Largest body of any other request, in megabytes.").tag(
        config=True
    )
    max_streams = Int(DEFAULTS.max_streams, min=1, help="Streams of server-sent events at the same time.").tag(
        config=True
    )
    keep_alive_h = Float(
        DEFAULTS.keep_alive_h,
        min=0.0,
        help="Hours for which a live session keeps its kernel and this server from being culled.",
    ).tag(config=True)
    keep_alive = Bool(
        DEFAULTS.keep_alive, help="Whether live sessions keep their kernel and this server from being culled."
    ).tag(config=True)
    kernel_name = Unicode(
        DEFAULTS.kernel_name, help="The kernel that submissions run in; the default one when empty."
    ).tag(config=True)

    _is_stopped = False

    @validate("keep_alive_h")
    def _is_finite(self, proposal: Any) -> Any:
        if not math.isfinite(proposal["value"]):
            msg = f"keep_alive_h must be a number of hours, not {proposal['value']}"
            raise TraitError(msg)
        return proposal["value"]

    def update_config(self, config: Config) -> None:
        """Take what is configured: a value that cannot be is told, and takes none of the others with it."""
        possible = copy.deepcopy(config)
        section = possible.get(type(self).__name__, {})
        for name, value in [*section.items()]:
            trait = self.traits(config=True).get(name)
            if trait is None:  # traitlets says so
                continue
            try:
                setattr(self, name, value.get_value(trait) if isinstance(value, DeferredConfig) else value)
            except (TraitError, ValueError) as error:
                del section[name]
                self.log.error("c.IpyBatch.%s is left at %r: %s", name, getattr(self, name), error)
        super().update_config(possible)

    def initialize_settings(self) -> None:
        """Make what the handlers share."""
        from ipybatch.server.catalogue import Catalogue
        from ipybatch.server.services import Services

        options = Options(**{option.name: getattr(self, option.name) for option in dataclasses.fields(Options)})
        self.services = Services(options=options, app=self.serverapp, catalogue=Catalogue(self.serverapp))
        self.settings["ipybatch"] = self.services
        self._running: list[asyncio.Task[None]] = []

    def initialize_handlers(self) -> None:
        """Add the routes."""
        from ipybatch.server.handler import NoRoute
        from ipybatch.server.routes import ALIASES, ROUTES

        self.handlers.extend((f"{BASE}{pattern}", handler) for pattern, handler in ROUTES)
        self.handlers.extend((f"/ipybatch{pattern}", handler) for pattern, handler in ALIASES)
        self.handlers.append((r"/ipybatch(?:/.*)?", NoRoute))

    def _beside(self) -> list[Coroutine[Any, Any, None]]:
        """Return what runs as long as the server does."""
        from ipybatch.server.activity import Activity
        from ipybatch.server.delivery import Delivery
        from ipybatch.server.journal_files import JournalFiles
        from ipybatch.server.schedules import scheduling
        from ipybatch.server.session_kernels import supervise
        from ipybatch.server.uploads import sweeping

        options, catalogue, pool = self.services.options, self.services.catalogue, self.services.pool
        beside = [
            sweeping(self.services),
            scheduling(self.services),
            supervise(self.services),
            self.services.watcher.run(),
            Delivery(JournalFiles()).run(),
        ]
        if options.keep_alive:
            activity = Activity(self.serverapp, catalogue.live, pool, keep_alive_h=options.keep_alive_h)
            beside.append(activity.run())
        return beside

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:
        """Start what runs beside the routes."""
        if not self._is_stopped:  # by a signal while it was being started
            self._running = [asyncio.ensure_future(service) for service in self._beside()]

    async def stop_extension(self) -> None:
        """End it."""
        self._is_stopped = True
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        for pool in (self.services.pool, self.services.checks):
            pool.shutdown(wait=False, cancel_futures=True)
