"""Template of a library's refresh: games of Steam, guilds and characters of Battle.net.

    {"app_id": 440}, or 440                                       a game
    {"kind": "guild", "realm": "Aerie Peak", "name": "Wolves"}    a guild, or a "character"; or its key

Without requests everything that the library holds is refreshed: the stalest first, what is fresh is skipped.

Battle.net's keys are those of the environment, ``BNET_CLIENT_ID`` and ``BNET_CLIENT_SECRET``.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ipybatch.errors import InputError
from ipybatch.server.templates.template import (
    CHECKED,
    Checked,
    WrongField,
    check_count,
    check_unused,
    given,
    is_loopback,
    naming,
    read_address,
    read_params,
)
from ipybatch.server.wire import Quote, SubmissionRequest

if TYPE_CHECKING:
    from ipybatch.library import Library, RefreshSession, Source
    from ipybatch.server.options import Options
    from ipybatch.session.session import BatchSession

STEAM_ADDRESSES = ("IPYBATCH_STEAM_BASE_URL",)
BATTLENET_ADDRESSES = ("BNET_BASE_URL",)
PLACEHOLDER = "SIMULATED"  # the credentials for a simulator
_KINDS = ("guild", "character")
_STORE = (
    "max_concurrent_requests",
    "batch_size",
    "batch_delay_seconds",
    "request_delay_ms",
    "circuit_breaker_threshold",
    "max_retries",
)
_SOURCES: Mapping[str, tuple[str, ...]] = {  # parameters that are for one source
    "steam": ("cc", "language", *_STORE),
    "battlenet": ("region", "locale", "enhanced", "expand", "max_concurrent", "min_time_ms"),
}
_OF_SESSION = ("force", "on_vanished", "timeout_s", "on_failure")
_NAME = re.compile(r"[\w-][\w.-]{0,99}")


class Params(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Parameters of the template "refresh"; as the arguments of `ipybatch.library.refresh` and of the sources.

    Attributes:
        library: Name of a library in the folder of the default one, which it is when this is left out.
        base_url: An address of this machine, or the one that the server's environment names.
    """

    source: Literal["steam", "battlenet"] = "steam"
    library: str | None = None
    base_url: str | None = None
    force: bool = False
    on_vanished: Literal["ask", "believe", "fail"] = "ask"
    timeout_s: float | None = None
    on_failure: Literal["continue", "stop", "rollback"] = "continue"
    cc: str | list[str] | None = None
    language: str | None = None
    max_concurrent_requests: int | None = None
    batch_size: int | None = None
    batch_delay_seconds: float | None = None
    request_delay_ms: float | None = None
    circuit_breaker_threshold: int | None = None
    max_retries: int | None = None
    region: str | None = None
    locale: str | None = None
    enhanced: bool | None = None
    expand: Literal["roster"] | None = None
    max_concurrent: int | None = None
    min_time_ms: float | None = None


class Refresh:
    """The refresh of a library."""

    def check(self, request: SubmissionRequest, options: Options) -> Checked:
        """Check items and parameters; nothing is fetched.

        Raises:
            WrongField: Something is not what it must be.
            InputError: The same, where no single field is at fault.
            BatchError: The library or the journal cannot be read.
        """
        return Checked(requests=self._made(request, options).counts.total or 0, operation="refresh", units=0)

    def quote(self, request: SubmissionRequest, options: Options) -> Quote:
        """Return how long it would take: what is fresh is skipped.

        Raises:
            BatchError: As `check`.
        """
        session = self._made(request, options)
        found = session.estimate()
        row = {
            "seconds": found.seconds,
            "low_s": found.low_s,
            "high_s": found.high_s,
            "requests": found.requests,
            "batches": found.batches,
        }
        total = session.counts.total or 0
        fresh = f"{total - found.requests:,} of {total:,} are fresh, or were not there, and are skipped"
        notes = [str(found), *([fresh] if 0 < found.requests < total else []), *([found.why] if found.why else [])]
        return Quote(
            template=request.template,
            request_count=total,
            seconds=(found.low_s, found.high_s),
            usd=None,
            credits=None,
            quote=[row],
            notes=notes,
        )

    def session(
        self, request: SubmissionRequest, *, name: str, journal: Path, options: Options | None = None
    ) -> RefreshSession:
        """Return the session; those of one host, or of one client of Battle.net, share its windows.

        Raises:
            BatchError: It cannot be made any more.
        """
        return self._session(request, name=name, journal=journal)

    def used(self, session: BatchSession, *, since_s: float = 0.0) -> Decimal:
        """Return 0: a refresh takes no credits."""
        return Decimal(0)

    def _made(self, request: SubmissionRequest, options: Options) -> RefreshSession:
        """Return a session that is never started."""
        check_unused(request, "upload")
        if request.requests is not None:
            check_count(request, options)
        return self._session(request, name=request.name or CHECKED)

    def _session(self, request: SubmissionRequest, *, name: str, journal: Path | None = None) -> RefreshSession:
        from ipybatch.library import refresh
        from ipybatch.library.battlenet.source import BattleNetSettings

        read = read_params(request.params, Params)
        for source, names in _SOURCES.items():
            for other in names:
                if source != read.source and other in request.params:
                    msg = f"params.{other} is for source {source!r}, got source {read.source!r}"
                    raise WrongField(f"params.{other}", msg, value=request.params[other])
        with naming(request.params):
            arguments = given(read, request.params, "source", "library", "base_url", *_SOURCES["steam"])
            if read.source == "steam":
                arguments |= _policy(read)
            else:
                of_source = _SOURCES["battlenet"]
                arguments = {key: value for key, value in arguments.items() if key == "expand" or key not in of_source}
                BattleNetSettings.from_environment(max_concurrent=read.max_concurrent, min_time_ms=read.min_time_ms)
            library, fetched_from = _library(read.library), _source(read)
            items = _items(request, read, library, fetched_from)
            return refresh(items, source=fetched_from, library=library, name=name, journal=journal, **arguments)


def _policy(read: Params) -> dict[str, Any]:
    """Return limits, retry and breaker of Steam's store, where a setting was given."""
    from ipybatch.library.steam import StoreSettings

    changed = {name: value for name in _STORE if (value := getattr(read, name)) is not None}
    if not changed:
        return {}
    settings = dataclasses.replace(StoreSettings.from_environment(), **changed)
    return {"limits": settings.limits(), "retry": settings.retry(), "breaker": settings.breaker()}


def _source(read: Params) -> Source:
    from ipybatch.library import BattleNet, SteamStore

    if read.source == "steam":
        told = {"base_url": read_address(read.base_url, STEAM_ADDRESSES), "cc": read.cc, "language": read.language}
        return SteamStore(**{name: value for name, value in told.items() if value is not None})  # type: ignore[arg-type]  # by name
    base_url = read_address(read.base_url, BATTLENET_ADDRESSES)
    credentials = [os.environ.get(variable, "").strip() for variable in ("BNET_CLIENT_ID", "BNET_CLIENT_SECRET")]
    if not all(credentials):
        if base_url is None or not is_loopback(base_url):
            msg = "BNET_CLIENT_ID and BNET_CLIENT_SECRET must be set in the environment of the Jupyter server"
            step = "set them (https://develop.battle.net/access/clients) where Jupyter starts, and start it again"
            raise WrongField("BNET_CLIENT_ID", msg, next_step=step)
        credentials = [PLACEHOLDER, PLACEHOLDER]
    told = {name: getattr(read, name) for name in _SOURCES["battlenet"] if name != "expand"}
    options: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
    return BattleNet(credentials[0], credentials[1], base_url=base_url, **options)


def _library(name: str | None) -> Library:
    """Return a library beside the default one: a name, never a path."""
    from ipybatch.library import Library
    from ipybatch.library.records import default_path

    if name is None:
        return Library()
    if not _NAME.fullmatch(name):
        msg = "params.library must be the name of a file without a folder, such as 'games.db'"
        raise WrongField("params.library", msg, value=name)
    return Library(default_path().with_name(name))


def _items(request: SubmissionRequest, read: Params, library: Library, source: Source) -> list[Any]:
    """Return the items, each checked; of a request without any, all that the library holds."""
    if request.requests is None:
        kinds = ("game",) if read.source == "steam" else _KINDS
        held = [key for kind in kinds for key in library.keys(kind)]
        if not held:
            msg = "requests must be given: the library holds nothing that could be refreshed"
            raise WrongField("requests", msg, value=0)
        return list(dict.fromkeys(held))
    items = []
    for number, given_ in enumerate(request.requests):
        where = f"requests[{number}]"
        item = _item(given_, read.source, where)
        try:
            source.identify(item)
        except InputError as error:
            raise WrongField(where, f"{where}: {error}", value=given_) from None
        items.append(item)
    return items


def _item(value: Any, source: str, where: str) -> Any:
    """Return a request as an item of its source."""
    if not isinstance(value, Mapping):
        return value
    if source == "steam":
        if set(value) != {"app_id"}:
            msg = f"{where} must be an app id, or an object with an app_id alone"
            raise WrongField(where, msg, value=sorted(map(str, value))[:10], allowed=["app_id"])
        return value["app_id"]
    from ipybatch.library import Character, Guild

    if set(value) != {"kind", "realm", "name"} or value["kind"] not in _KINDS:
        msg = f"{where} must be a key, or an object with kind ('guild' or 'character'), realm and name"
        raise WrongField(where, msg, value=sorted(map(str, value))[:10], allowed=["kind", "realm", "name"])
    try:
        return (Guild if value["kind"] == "guild" else Character)(value["realm"], value["name"])
    except InputError as error:
        raise WrongField(where, f"{where}: {error}") from None
