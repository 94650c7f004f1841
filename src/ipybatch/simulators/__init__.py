"""Simulated services for tests, notebooks and dry runs: on loopback, or in process under any clock.

In reading order:

- `faults`: `Faults`, fault injection by a seed.
- `service`: `Service`, the base of every simulator: requests, replies, rate limits, statistics.
- `steam`, `battlenet` with `battlenet_world`, and `gemini`: the services.
- `serve`: a service as a real HTTP server on loopback.
- `transport`: a service in process, behind httpx2 or httpx.
- `__main__`: the command line.
- `demand`: a demand table for the forecasting workload.

Rule: nothing else of the package is imported here, so that what a simulator reports about a client is independent of
the client's own counters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .battlenet import BattleNetSimulator
from .demand import demand
from .faults import Faults
from .gemini.server import GeminiSimulator
from .serve import Server, serve
from .service import Reply, Request, Stats
from .steam import SteamSimulator

if TYPE_CHECKING:
    from .transport import InProcess, SimTransport

__all__ = [
    "BattleNetSimulator",
    "Faults",
    "GeminiSimulator",
    "InProcess",
    "Reply",
    "Request",
    "Server",
    "SimTransport",
    "Stats",
    "SteamSimulator",
    "demand",
    "serve",
]


def __getattr__(name: str) -> Any:
    """Load what takes httpx2 along on first use."""
    if name in ("InProcess", "SimTransport"):
        from . import transport

        return getattr(transport, name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
