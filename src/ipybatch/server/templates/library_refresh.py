"""Template of a library's refresh: games of Steam, guilds and characters of Battle.net.

    {"app_id": 440}, or 440                                       a game
    {"kind": "guild", "realm": "Aerie Peak", "name": "Wolves"}    a guild, or a "character"; or its key

Without requests everything that the library holds is refreshed: the stalest first, what is fresh is skipped.

Battle.net's keys are those of the environment, ``BNET_CLIENT_ID`` and ``BNET_CLIENT_SECRET``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ipybatch.errors import InputError
from ipybatch.server.notify_request import to_notify
from ipybatch.server.templates.template import (
    CHECKED,
    PLACEHOLDER,
    Checked,
    Policies,
    check_count,
    check_simulated,
    check_unused,
    given,
    naming,
    read_address,
    read_params,
)
from ipybatch.server.wire import Quote, SubmissionRequest
from ipybatch.templates.policies import KINDS
from ipybatch.templates.template import WrongField

if TYPE_CHECKING:
    from ipybatch.library import Library, RefreshSession, Source
    from ipybatch.server.options import Options
    from ipybatch.session.session import BatchSession

STEAM_ADDRESSES = ("IPYBATCH_STEAM_BASE_URL",)
BATTLENET_ADDRESSES = ("BNET_BASE_URL",)
_KINDS = ("guild", "character")
_NAME = re.compile(r"[\w-][\w.-]{0,99}")


class Params(Policies, kw_only=True, forbid_unknown_fields=True):
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

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Check parameters, without items and without keys.

        Raises:
            WrongField: One is not what it must be.
            InputError: The same, where no single field is at fault.
            BatchError: The library cannot be read.
        """
        read = read_params(params, Params)
        with naming(params):
            arguments = _arguments(read, params)
            _make(read, [], _source(read, needs_keys=False), name=CHECKED, **arguments)

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
        read = read_params(request.params, Params)
        with naming(request.params):
            arguments, source, library = _arguments(read, request.params), _source(read), _library(read.library)
            items = _items(request, read, library, source)
            return _make(read, items, source, name=name, journal=journal, notify=to_notify(request), **arguments)


def _make(read: Params, items: list[Any], source: Source, **arguments: Any) -> RefreshSession:
    from ipybatch.library import refresh

    return refresh(items, source=source, library=_library(read.library), **arguments)


def _arguments(read: Params, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `refresh` beside those that say what and where.

    Raises:
        WrongField: A parameter is for the other source, or says what limits, retry or breaker say.
        InputError: A setting of a source is outside its range.
    """
    from ipybatch.library.battlenet.source import BattleNetSettings
    from ipybatch.library.source_params import OF_SOURCE, PACE, pace_of

    for source, names in OF_SOURCE.items():
        for other in names:
            if source != read.source and other in params:
                msg = f"params.{other} is for source {source!r}, got source {read.source!r}"
                raise WrongField(f"params.{other}", msg, value=params[other])
    paced = [name for name in PACE if params.get(name) is not None]
    if paced and (both := [name for name in KINDS if params.get(name) is not None]):
        msg = f"params.{paced[0]} must be left out beside params.{both[0]}, which says it all"
        raise WrongField(f"params.{paced[0]}", msg, value=params[paced[0]])
    if read.source == "battlenet":
        BattleNetSettings.from_environment(max_concurrent=read.max_concurrent, min_time_ms=read.min_time_ms)
    elsewhere = ("source", "library", "base_url", *OF_SOURCE["steam"], *OF_SOURCE["battlenet"])
    return {**given(read, params, *elsewhere), **pace_of(msgspec.structs.asdict(read))}


def _source(read: Params, *, needs_keys: bool = True) -> Source:
    """Return the source.

    Raises:
        WrongField: The address is not allowed, or there are no credentials.
        InputError: A parameter of the source is not what it must be.
    """
    from ipybatch.library.source_params import make_source, read_credentials

    params = msgspec.structs.asdict(read)
    if read.source == "steam":
        return make_source("steam", params, read_address(read.base_url, STEAM_ADDRESSES), None)
    base_url = read_address(read.base_url, BATTLENET_ADDRESSES)
    try:
        credentials = read_credentials()
    except InputError:
        if needs_keys:
            page = "https://develop.battle.net/access/clients"
            check_simulated(base_url, "BNET_CLIENT_ID", "BNET_CLIENT_SECRET", page=page)
        credentials = (PLACEHOLDER, PLACEHOLDER)
    return make_source("battlenet", params, base_url, credentials)


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
