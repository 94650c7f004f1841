"""Options: what the operator of a server configured; without a server, in cron or a script, the defaults hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the operator configured; `extension.IpyBatch` says what each of them is."""

    max_requests: int = 20
    max_running: int = 2
    account: str = "default"
    max_upload_mb: int = 200
    max_body_mb: int = 64
    max_streams: int = 8
    keep_alive_h: float = 24.0
    keep_alive: bool = True
    kernel_name: str = ""

    @property
    def limits(self) -> dict[str, float]:
        """What is limited, by the name of its option."""
        named = ("max_requests", "max_running", "max_upload_mb", "max_body_mb", "max_streams", "keep_alive_h")
        return {name: getattr(self, name) for name in named}


DEFAULTS = Options()
