"""Source parameters: a service, its pace and a library as data, for templates and submissions.

    {"source": "steam", "cc": "de", "max_retries": 1}  -->  source=SteamStore(cc="de"), retry=Retry(attempts=2)

Keys are never among them: they come from the environment, ``BNET_CLIENT_ID`` and ``BNET_CLIENT_SECRET``.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ipybatch.errors import InputError
from ipybatch.library.battlenet.source import BattleNet
from ipybatch.library.records import Library, default_path
from ipybatch.library.source import Source
from ipybatch.library.steam import STORE_URL, SteamStore, StoreSettings

PACE = tuple(field.name for field in dataclasses.fields(StoreSettings))  # of Steam's store
OF_SOURCE: Mapping[str, tuple[str, ...]] = {  # parameters that are for one source
    "steam": ("cc", "language", *PACE),
    "battlenet": ("region", "locale", "enhanced", "max_concurrent", "min_time_ms"),
}
CREDENTIALS = ("BNET_CLIENT_ID", "BNET_CLIENT_SECRET")


def described(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of `refresh` in which source and library are data, as far as they can be."""
    found = dict(arguments)
    source = found.get("source")
    if isinstance(source, SteamStore | BattleNet) and (told := source.as_params()) is not None:
        found |= told
    if isinstance(library := found.get("library"), Library):
        home = default_path()
        found["library"] = library.path.name if library.path.parent == home.parent else str(library.path)
        if library.path == home:
            del found["library"]
    return found


def as_arguments(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as arguments of `refresh`.

    Raises:
        InputError: One is not what it must be, or the environment has no keys of the service.
    """
    found = dict(params)
    source = found.pop("source", "steam")
    if isinstance(source, str):
        if source not in OF_SOURCE:
            words = ", ".join(map(repr, OF_SOURCE))
            msg = f"source must be one of {words}, or a source such as SteamStore(), got {source!r}"
            raise InputError(msg)
        told = {name: found.pop(name) for name in (*OF_SOURCE[source], "base_url") if name in found}
        found |= {**pace_of(told), **found}
        address = told.pop("base_url", None)
        source = make_source(source, told, address, None if source == "steam" else read_credentials())
    if isinstance(library := found.get("library"), str | Path):
        found["library"] = Library(default_path().parent / library)
    return {**found, "source": source}


def make_source(
    name: str, params: Mapping[str, Any], base_url: str | None, credentials: tuple[str, str] | None
) -> Source:
    """Return the source of a name.

    Args:
        params: Those of `OF_SOURCE`; None for what is by default.
        credentials: Of Battle.net: id and secret of a client.

    Raises:
        InputError: A parameter is not what it must be.
    """
    told: dict[str, Any] = {
        key: value for key, value in params.items() if value is not None and key in OF_SOURCE[name] and key not in PACE
    }
    if name == "steam":
        return SteamStore(STORE_URL if base_url is None else base_url, **told)
    assert credentials is not None
    return BattleNet(*credentials, base_url=base_url, **told)


def pace_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return limits, retry and breaker of Steam's store, where one of its settings is given.

    Raises:
        InputError: A setting is outside its range.
    """
    changed = {name: value for name in PACE if (value := params.get(name)) is not None}
    if not changed:
        return {}
    settings = dataclasses.replace(StoreSettings.from_environment(), **changed)
    return {"limits": settings.limits(), "retry": settings.retry(), "breaker": settings.breaker()}


def read_credentials() -> tuple[str, str]:
    """Return id and secret of a client of Battle.net, from the environment.

    Raises:
        InputError: They are not there.
    """
    client_id, secret = (os.environ.get(variable, "").strip() for variable in CREDENTIALS)
    if not client_id or not secret:
        msg = f"source needs {' and '.join(CREDENTIALS)} in the environment, or pass source=BattleNet(id, secret)"
        raise InputError(msg)
    return client_id, secret
