"""Rate headers: what a service's answer says of its limits."""

from __future__ import annotations

import msgspec


class Quota(msgspec.Struct, frozen=True):
    """A window as a server counts it.

    Attributes:
        limit: Requests it allows; None where it is not told.
        remaining: How many of them are left.
        reset_s: Seconds from now until it begins anew.
        per_s: Its length, seconds.
    """

    limit: float | None = None
    remaining: float | None = None
    reset_s: float | None = None
    per_s: float | None = None


class Told(msgspec.Struct, frozen=True):
    """What an answer says of the limits.

    Attributes:
        retry_after_s: How long to wait, seconds; None if it says nothing.
        quotas: Its windows.
    """

    retry_after_s: float | None = None
    quotas: tuple[Quota, ...] = ()


NOTHING_TOLD = Told()
