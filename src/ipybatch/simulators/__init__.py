"""The services of this package's workloads, simulated: on loopback, or in process under any clock.

They stand alone: nothing else of the package is imported here, so what they report about a client cannot be
what the client believes about itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .battlenet import BattleNetSimulator
from .faults import Faults
from .gemini import GeminiSimulator
from .serve import Server, serve
from .service import Reply, Request, Stats
from .steam import SteamSimulator

if TYPE_CHECKING:
    from .transport import SimTransport

__all__ = [
    "BattleNetSimulator",
    "Faults",
    "GeminiSimulator",
    "Reply",
    "Request",
    "Server",
    "SimTransport",
    "Stats",
    "SteamSimulator",
    "serve",
]


def __getattr__(name: str) -> Any:
    """Load `SimTransport` on first use: it takes httpx along."""
    if name == "SimTransport":
        from .transport import SimTransport

        return SimTransport
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
