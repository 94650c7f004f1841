"""Shipped: the templates that come with ipybatch, and what a workload's parameters are to each other.

A template of the user's is based on one of these, or on "session".
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from ipybatch.templates.template import OWN_CODE, Template, WrongField

_LANE = (
    "concurrency", "sequential", "flex_tries", "flex_fallback", "max_requests_per_job", "max_active_jobs", "poll_s",
    "wait_s", "deadline_s",
)  # fmt: skip
_OTHER_NAMES = {
    "partition_strategy": "by",  # its "auto" is by="size"
    "max_rows_per_partition": "max_rows",
    "max_execution_time": "timeout_s",
}


class Workload(msgspec.Struct, frozen=True):
    """What is known of a workload without loading it.

    Attributes:
        takes: The argument that is given anew each time, first in the call.
        replaces: Parameters that say the same as another one, or are settings of it: whoever gives the one drops them.
        python_only: Parameters that say where things are in a process of the user's: a submission has its own places.
        other_names: Parameters by the names that another system has for them.
    """

    takes: str = "items"
    replaces: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    python_only: tuple[str, ...] = ()
    other_names: Mapping[str, str] = MappingProxyType({})


WORKLOADS: Mapping[str, Workload] = MappingProxyType(
    {
        "gemini": Workload(
            "prompts",
            {"model": ("models",), "models": ("model",), "lane": _LANE},
            ("images_to", "key", "operation"),
        ),
        "refresh": Workload(
            "items",
            {
                "limits": ("max_concurrent_requests", "batch_size", "batch_delay_seconds", "request_delay_ms"),
                "retry": ("max_retries",),
                "breaker": ("circuit_breaker_threshold",),
            },
        ),
        "forecast": Workload(
            "demand",
            {name: (other,) for pair in _OTHER_NAMES.items() for name, other in (pair, pair[::-1])},
            ("output", "storage"),
            _OTHER_NAMES,
        ),
    }
)


_PICTURES = {"model": "gemini-2.5-flash-image", "lane": "batch", "modalities": ["TEXT", "IMAGE"]}
_TEXTS = {"model": "gemini-2.5-flash", "lane": "batch"}


def _ship(name: str, description: str, **params: Any) -> tuple[str, Template]:
    return name, Template(based_on=name, description=description, params=params)


SHIPPED: Mapping[str, Template] = MappingProxyType(
    dict(
        (
            _ship("character", "Pictures of characters by Gemini, by batch", operation="character", **_PICTURES),
            _ship("food", "Pictures of food by Gemini, by batch", operation="food", **_PICTURES),
            _ship("product", "Pictures of products by Gemini, by batch", operation="product", **_PICTURES),
            _ship("text-to-image", "Pictures from texts by Gemini, by batch", operation="text-to-image", **_PICTURES),
            _ship("text", "Texts by Gemini, by batch", operation="text", **_TEXTS),
            _ship("refresh", "Games of Steam, or guilds and characters of Battle.net, into a library"),
            _ship("forecast", "Forecasts of a demand table, partition by partition"),
        )
    )
)


def workload_of(base: str) -> str:
    """Return the workload that does what is based on a shipped template; "" for a function of the user's own."""
    if base == OWN_CODE:
        return ""
    return base if base in WORKLOADS else "gemini"


def find_base(name: str) -> Template:
    """Return what a template is based on.

    Raises:
        WrongField: No template of this name ships with ipybatch.
    """
    if name == OWN_CODE:
        return Template(based_on=OWN_CODE)
    if name in SHIPPED:
        return SHIPPED[name]
    allowed = [*SHIPPED, OWN_CODE]
    msg = f"based_on must be one of {', '.join(allowed)}, got {name[:60]!r}"
    raise WrongField("based_on", msg, value=name[:60], allowed=allowed)


def about(workload: str) -> Workload:
    """Return what is known of a workload; of one that is not ours, or of none, that it takes items."""
    return WORKLOADS.get(workload, Workload())


def is_shipped(name: Any) -> bool:
    """Say whether a name is taken by what ships with ipybatch, in any case."""
    return isinstance(name, str) and name.casefold() in (OWN_CODE, *SHIPPED)
