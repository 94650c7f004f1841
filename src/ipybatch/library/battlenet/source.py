"""`BattleNet`: guilds, their rosters, and characters of World of Warcraft.

    GET {region}.api.blizzard.com/data/wow/guild/REALM/GUILD             a guild; with /roster its members
    GET {region}.api.blizzard.com/profile/wow/character/REALM/NAME       a character; with /equipment and so on more

    GET {region}.api.blizzard.com/data/wow/realm/index                   slugs of realms, for names that are not Latin

A record is the unchanged answer with more fields:

    extras          further answers by name: "roster" of a guild, those of `EXTRAS` of an enhanced character
    last_modified   Last-Modified of each answer, sent next time as If-Modified-Since
    locale          language of the answers
    left_out        number of members in the roster that have no name, where there are any

One request:

    permit --> token --> GET --401--> another permit --> a newer token --> GET --401--> refused
                          |
                          +--429--> wait for the server's next second, then ask again: it costs no attempt
                          +--403--> this guild or character fails, alone

| variable              | default | meaning                                                     |
|-----------------------|---------|-------------------------------------------------------------|
| `BNET_MAX_CONCURRENT` | 20      | guilds and characters at the same time, a whole number >= 1 |
| `BNET_MIN_TIME_MS`    | 10      | pause between two starts, milliseconds, >= 0                |

They are read whenever a session is made; ``max_concurrent=`` and ``min_time_ms=`` override them, and ``limits=``
replaces both and the service's own windows.

One subject, hence its length: what a guild or a character takes to be asked for.

Source: https://develop.battle.net/documentation/world-of-warcraft/profile-apis.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ipybatch.engine.data.masking import mask
from ipybatch.engine.data.policy import Breaker, Limits, Rate, Retry, check, check_count, keep
from ipybatch.engine.run.attempt import Attempt
from ipybatch.errors import InputError, Permanent, RateLimited, Refused, Transient
from ipybatch.library.battlenet.names import KINDS, Character, Guild, is_latin, item_of, kind_of, path_of, realm_slug
from ipybatch.library.battlenet.tokens import AccessTokens, ServerClock, check_credential, read_date
from ipybatch.library.http import TIMEOUT_S, Client, HttpSource, asked_wait_s, check_url, read_json
from ipybatch.library.source import Defaults, Identity, NotThere, read_environment

REGIONS = {region: f"https://{region}.api.blizzard.com" for region in ("us", "eu", "kr", "tw")} | {
    "cn": "https://gateway.battlenet.com.cn"
}
OAUTH_URL = "https://oauth.battle.net"
OAUTH_URLS = {"cn": "https://oauth.battlenet.com.cn"}  # where it is not `OAUTH_URL`
EXTRAS = {
    "equipment": "/equipment",
    "mythic_keystone_profile": "/mythic-keystone-profile",
    "collections": "/collections",
    "mounts": "/collections/mounts",
    "pets": "/collections/pets",
}
ROSTER = "roster"
INDEX_PATIENCE_S = 30.0  # for an index of realms that fails while all else is answered
PREFIX = "BNET_"

# Per client id, all regions together.
# Source: https://rate-limits.apis.io/rate-limits/battle-net/battle-net-rate-limits/ (2026-11-22).
RATES = (Rate(100, per_s=1), Rate(36_000, per_s=3600))

_OURS = frozenset({"extras", "last_modified", "left_out", "locale"})
_REFUSED = "it rejects a token that it has just issued; see the client at https://develop.battle.net/access/clients"
_NO_INDEX = "it does not show the index of realms"
_FORBIDDEN = "it does not show this one; a player may have opted out, or the address is no longer in use"


@dataclass(frozen=True, slots=True, kw_only=True)
class BattleNetSettings:
    """Settings of requests to Battle.net, beside the service's own limits.

    Attributes:
        max_concurrent: Items at the same time, >= 1, default 20.
        min_time_ms: Pause between two starts, milliseconds, >= 0, default 10.

    Raises:
        InputError: A field is outside its range; names field, range and value.
    """

    max_concurrent: int = 20
    min_time_ms: float = 10

    def __post_init__(self) -> None:
        keep(self, max_concurrent=check_count("max_concurrent", self.max_concurrent, low=1))
        keep(self, min_time_ms=check("min_time_ms", self.min_time_ms, low=0, high=1e9))

    @classmethod
    def from_environment(
        cls,
        environment: Mapping[str, str] = os.environ,
        *,
        max_concurrent: int | None = None,
        min_time_ms: float | None = None,
    ) -> BattleNetSettings:
        """Return the settings from arguments, else from the environment, else their defaults.

        Raises:
            InputError: A variable or an argument is outside its range; names it, its range and its value.
        """
        given = {"max_concurrent": max_concurrent, "min_time_ms": min_time_ms}
        return read_environment(cls, PREFIX, environment, {name: at for name, at in given.items() if at is not None})

    def limits(self) -> Limits:
        """Return the settings as limits, with Battle.net's own rates."""
        return Limits(concurrency=self.max_concurrent, spacing_s=self.min_time_ms / 1000, rates=RATES)


class BattleNet(HttpSource):
    """Battle.net as a source of guilds and characters: items are `Guild(realm, name)` and `Character(realm, name)`.

    Args:
        client_id: Id of an API client from https://develop.battle.net/access/clients; masked in everything shown or
            written.
        client_secret: Secret of that client; masked too.
        region: "us", "eu", "kr", "tw" or "cn".
        base_url: URL of the API; default: that of the region.
        oauth_url: URL of the token service; default: Battle.net's, or ``/oauth`` below a ``base_url`` of your own.
        client: An `httpx2.AsyncClient` or `httpx.AsyncClient` of yours; it stays open. Default: a client of the
            source's own, opened with its first session and closed with its last.
        enhanced: Also fetch equipment, mythic keystones, collections, mounts and pets of a character, with five more
            requests.
        locale: Language of the answers.
        max_concurrent: Items at the same time; default: ``BNET_MAX_CONCURRENT``, else 20.
        min_time_ms: Pause between two starts, milliseconds; default: ``BNET_MIN_TIME_MS``, else 10.

    Raises:
        InputError: An argument is invalid; names it, its value (never that of a secret) and the allowed values.

    Example:
        >>> from ipybatch.library import BattleNet, Guild
        >>> BattleNet("my client's id", "its secret", region="eu")
        BattleNet('https://eu.api.blizzard.com', region='eu')
        >>> Guild("Aerie Peak", "Méchants Loups").key
        'guild/aerie-peak/méchants-loups'
    """

    def __init__(  # noqa: PLR0917  # id, secret and region are what people write
        self,
        client_id: str,
        client_secret: str,
        region: str = "us",
        base_url: str | None = None,
        oauth_url: str | None = None,
        client: Client | None = None,
        *,
        enhanced: bool = False,
        locale: str = "en_US",
        max_concurrent: int | None = None,
        min_time_ms: float | None = None,
    ) -> None:
        super().__init__(client, posts=True)
        client_id, secret = check_credential("client_id", client_id), check_credential("client_secret", client_secret)
        if region not in REGIONS:
            msg = f"region must be one of {', '.join(map(repr, REGIONS))}, got {region!r}"
            raise InputError(msg)
        if not isinstance(locale, str) or not re.fullmatch("[a-z]{2}_[A-Z]{2}", locale):
            msg = f"locale must be a language and a country such as 'en_US', got {locale!r}"
            raise InputError(msg)
        if not isinstance(enhanced, bool):
            msg = f"enhanced must be True or False, got {enhanced!r}"
            raise InputError(msg)
        self.region, self.locale, self.enhanced = region, locale, enhanced
        self.base_url = check_url("base_url", base_url or REGIONS[region])
        token_url = oauth_url or (f"{self.base_url}/oauth" if base_url else OAUTH_URLS.get(region, OAUTH_URL))
        self.tokens = AccessTokens(check_url("oauth_url", token_url), client_id, secret)
        self._api = ApiClient(self.tokens)
        self._params = {"namespace": f"profile-{region}", "locale": locale}
        self._realms = RealmIndex(region)
        self._budget = hashlib.blake2b(client_id.encode(), digest_size=4).hexdigest()
        self._pace = max_concurrent, min_time_ms
        has_more = client is not None or oauth_url is not None or type(self) is not BattleNet
        told: dict[str, Any] = {"base_url": base_url, "region": region, "locale": None if locale == "en_US" else locale}
        told |= {"enhanced": enhanced or None, "max_concurrent": max_concurrent, "min_time_ms": min_time_ms}
        self._params_given = None if has_more else {name: value for name, value in told.items() if value is not None}
        self._settings()

    def __repr__(self) -> str:
        more = ", enhanced=True" if self.enhanced else ""
        return f"BattleNet({mask(self.base_url)!r}, region={self.region!r}{more})"

    async def __aenter__(self) -> BattleNet:
        """Open a client, unless one was given."""
        await super().__aenter__()
        if self._entered == 1:
            self.tokens.enter()
            self._realms.enter()
        return self

    def as_params(self) -> dict[str, Any] | None:
        """Return what makes such a source, as data without its credentials; None where there is more to it."""
        return None if self._params_given is None else {"source": "battlenet", **self._params_given}

    def defaults(self) -> Defaults:
        """Return the policy of Battle.net, with settings from the environment.

        The limits are those of the client id, all regions together.
        """
        settings = self._settings()
        host = urlsplit(self.base_url).netloc.rpartition("@")[2]
        where = "" if self.base_url == REGIONS[self.region] else f" at {host}"
        return Defaults(
            name=f"battlenet {self.region} refresh",
            resource=f"battlenet client {self._budget}{where}",
            settings={
                "source": "battlenet",
                "region": self.region,
                "locale": self.locale,
                "enhanced": self.enhanced,
            },
            limits=settings.limits(),
            retry=Retry(attempts=3, strategy="next_second"),
            breaker=Breaker(),
            timeout_s=None,  # each request has its own; a permit may take an hour
            expands=(ROSTER,),
        )

    def identify(self, item: Any) -> Identity:
        """Return the key of a guild's or character's record; guilds are fetched first.

        Raises:
            InputError: ``item`` is neither a guild, a character nor a key of one.
        """
        what = item_of(item)
        kind = kind_of(what)
        return Identity(kind=kind, key=what.key, place=self.region, turn=list(KINDS).index(kind))

    async def fetch(
        self, item: Any, attempt: Attempt, kept: dict[str, Any] | None = None, expand: str = ""
    ) -> dict[str, Any]:
        """Return the data of a guild's or character's record.

        Raises:
            ItemError: The fetch failed; the class says whether it is tried again.
        """
        what = item_of(item)
        pages = _Pages(self, what, attempt, kept if kept and kept.get("locale") == self.locale else {})
        data = await pages.main()
        paths = EXTRAS if self.enhanced else {}
        if isinstance(what, Guild):
            paths = {ROSTER: "/roster"} if expand == ROSTER else {}
        extras = {name: await pages.further(name, path) for name, path in paths.items()}
        more: dict[str, Any] = {"extras": extras} if extras else {}
        if left_out := _members(extras[ROSTER])[1] if ROSTER in extras else 0:
            more["left_out"] = left_out
        return {**data, **more, "last_modified": pages.modified, "locale": self.locale}

    def expand(self, what: str, data: Mapping[str, Any]) -> list[Any] | None:
        """Return the keys of the characters in a guild's roster that have a name; None when the record has no roster.

        Raises:
            Transient: The roster cannot be read.
        """
        roster = (data.get("extras") or {}).get(what)
        return None if roster is None else _members(roster)[0]

    def can_expand(self, what: str, kind: str) -> bool:
        """Return whether records of this kind list members."""
        return (what, kind) == (ROSTER, "guild")

    def _settings(self) -> BattleNetSettings:
        max_concurrent, min_time_ms = self._pace
        return BattleNetSettings.from_environment(max_concurrent=max_concurrent, min_time_ms=min_time_ms)


class _Pages:
    """The answers that make up one record.

    Attributes:
        modified: Last-Modified of each answer, by its name.
    """

    def __init__(self, source: BattleNet, what: Guild | Character, attempt: Attempt, kept: Mapping[str, Any]) -> None:
        self._source, self._attempt = source, attempt
        self._kind = kind_of(what)
        self._kept = kept
        _, self._realm, self._name = what.key.split("/", 2)
        self._base = "/data/wow/guild" if isinstance(what, Guild) else "/profile/wow/character"
        self._url = ""
        self._has_sent = False
        self.modified: dict[str, str] = {}

    async def main(self) -> dict[str, Any]:
        """Return the guild or the character itself."""
        realm = self._realm if is_latin(self._realm) else await self._source._realms.slug(self._realm, self._ask_index)
        self._url = f"{self._source.base_url}{self._base}/{path_of(realm)}/{path_of(self._name)}"
        kept = {name: value for name, value in self._kept.items() if name not in _OURS}
        response, data = await self._ask(self._kind, "", kept)
        if response.status_code == 404:
            msg = f"Battle.net answered 404: no such {self._kind} in {self._source.region}, or none it shows any more"
            raise NotThere(msg, is_certain=False)
        if not isinstance(data, dict) or not isinstance(data.get("name"), str):
            msg = f"Battle.net answered without the name of the {self._kind}"
            raise Transient(msg)
        return data

    async def further(self, name: str, path: str) -> Any:
        """Return one of the extras, by a further request; None if the service has none."""
        response, data = await self._ask(name, path, (self._kept.get("extras") or {}).get(name))
        if response.status_code != 404 and not isinstance(data, dict):
            msg = f"Battle.net answered without the {name} of the {self._kind}"
            raise Transient(msg)
        if name == ROSTER:
            _members(data)
        return data

    async def _ask(self, name: str, path: str, kept: Any) -> tuple[Any, Any]:
        since = (self._kept.get("last_modified") or {}).get(name, "") if kept else ""
        response = await self._get(self._url + path, self._source._params, since)
        if response.status_code == 404:
            return response, None
        if response.status_code == 304 and since:
            self.modified[name] = since
            self._source._realms.answered_s = asyncio.get_running_loop().time()
            return response, kept
        data = read_json(response, "Battle.net", refused=_REFUSED, forbidden=_FORBIDDEN)
        if modified := response.headers.get("last-modified"):
            self.modified[name] = modified
        self._source._realms.answered_s = asyncio.get_running_loop().time()
        return response, data

    async def _ask_index(self) -> Any:
        """Return the index of realms, in all languages: a request without locale."""
        params = {"namespace": f"dynamic-{self._source.region}"}
        response = await self._get(f"{self._source.base_url}/data/wow/realm/index", params, "")
        return read_json(response, "Battle.net", refused=_REFUSED, forbidden=_NO_INDEX)

    async def _get(self, url: str, params: dict[str, str], since: str) -> Any:
        is_first, self._has_sent = not self._has_sent, True
        source = self._source
        return await source._api.get(source._client, url, params, self._attempt, since=since, is_first=is_first)


class ApiClient:
    """Send requests for one client id."""

    def __init__(self, tokens: AccessTokens) -> None:
        self._tokens = tokens
        self._server_clock = ServerClock()

    async def get(
        self,
        client: Client,
        url: str,
        params: dict[str, str],
        attempt: Attempt,
        *,
        since: str = "",
        is_first: bool = False,
    ) -> Any:
        """Return the response to one request, with any status but 429.

        Args:
            params: Query: namespace and locale.
            since: Last-Modified of an earlier answer; then an unchanged answer has status 304 and no body.
            is_first: Whether it is the attempt's first request, which has a permit already.

        Raises:
            RateLimited: The status is 429.
            Refused: The token service refuses client id and secret, or has no token to give.
        """
        permit = nullcontext() if is_first else attempt.permit()
        response, token = await self._send(client, url, params, permit, since)
        if response.status_code == 401:
            response, _ = await self._send(client, url, params, attempt.permit(), since, instead_of=token)
        if response.status_code == 429:
            raise self._slow_down(response)
        return response

    async def _send(
        self,
        client: Client,
        url: str,
        params: dict[str, str],
        permit: AbstractAsyncContextManager[None],
        since: str,
        *,
        instead_of: str = "",
    ) -> tuple[Any, str]:
        now_s = asyncio.get_running_loop().time
        async with permit, asyncio.timeout(2 * TIMEOUT_S):  # the permit first: it may take an hour
            token = await self._tokens.get(client, instead_of=instead_of)
            headers = {"Authorization": f"Bearer {token}", **({"If-Modified-Since": since} if since else {})}
            sent_s = now_s()
            response = await client.get(url, params=params, headers=headers, follow_redirects=False)
            stamped_s = read_date(response.headers.get("date"))
            if stamped_s is not None:
                self._server_clock.learn(stamped_s, sent_s, now_s())
            return response, token

    def _slow_down(self, response: Any) -> RateLimited:
        """Return the error of a 429: all wait where the service names a time; else this request, for its next second.

        The service counts by its own seconds, so a request that waits for the next one is in another window.
        """
        said, wait_s = "Battle.net answered 429: too many requests", asked_wait_s(response.headers)
        stamped_s = read_date(response.headers.get("date"))
        if wait_s is not None or stamped_s is None:
            return RateLimited(said, retry_after_s=wait_s)
        now_s = asyncio.get_running_loop().time()
        return RateLimited(said, back_off_s=self._server_clock.until_next_s(stamped_s, now_s))


class RealmIndex:
    """The slugs of a region's realms by their names in all languages, asked for when the first name needs it.

    An index that the service does not have, or that keeps failing while all else is answered, is not asked for again:
    that is one failure of all who need it, and none of the service.

    Attributes:
        answered_s: When the service answered anything else well.
    """

    def __init__(self, region: str) -> None:
        self._region = region
        self._slugs: dict[str, str] = {}
        self.enter()

    def enter(self) -> None:
        """Belong to the running event loop, and forget what failed."""
        self._lock = asyncio.Lock()
        self._failed_s = math.inf  # when it did first
        self._why = ""  # it is not asked for again
        self.answered_s = -math.inf

    async def slug(self, name: str, ask: Callable[[], Awaitable[Any]]) -> str:
        """Return the slug of a realm.

        Args:
            name: Its name in any language, as `realm_slug` leaves it.
            ask: Returns the service's answer; called once, unless it fails.

        Raises:
            Permanent: The region has no realm of that name, or no index.
            ItemError: The index cannot be had just now.
        """
        async with self._lock:
            if not self._slugs and not self._why:
                await self._read(ask)
        found = self._slugs.get(name) or self._slugs.get(name.replace("-", ""))
        if found is None:
            msg = f"no realm of region {self._region} is named {name!r}: give its slug, such as 'gordunni'"
            if self._why:
                msg = f"Battle.net has no index of realms in {self._region} ({self._why}): give the slug of {name!r}"
            raise Permanent(msg)
        return found

    async def _read(self, ask: Callable[[], Awaitable[Any]]) -> None:
        now_s = asyncio.get_running_loop().time()
        try:
            self._slugs = _slugs_of(await ask())
        except (Refused, RateLimited):
            raise
        except Permanent as error:
            self._why = str(error)
        except Exception as error:
            self._failed_s = min(self._failed_s, now_s)
            if self.answered_s < self._failed_s + INDEX_PATIENCE_S:
                raise
            self._why = mask(str(error)) or type(error).__name__


def _slugs_of(index: Any) -> dict[str, str]:
    """Return the slugs in an index of realms, by the names in all languages as `realm_slug` leaves them.

    Raises:
        Transient: It is no index.
    """
    slugs: dict[str, str] = {}
    listed = index.get("realms") if isinstance(index, dict) else None
    for realm in listed if isinstance(listed, list) else ():
        with suppress(AttributeError, KeyError, TypeError, InputError):
            names, slug = realm["name"], realm["slug"]
            for name in [slug, *(names.values() if isinstance(names, dict) else [names])]:
                slugs[realm_slug(name)] = slugs[realm_slug(name).replace("-", "")] = slug
    if not slugs:
        msg = "Battle.net answered without the index of realms"
        raise Transient(msg)
    return slugs


def _members(roster: Any) -> tuple[list[Any], int]:
    """Return the keys of a roster's members, and how many members have no name.

    Raises:
        Transient: None can be read, or it is no roster.
    """
    listed = roster.get("members") if isinstance(roster, dict) else None
    found: list[Any] = []
    for member in listed if isinstance(listed, list) else ():
        with suppress(KeyError, TypeError, InputError):
            one = member["character"]
            found.append(Character(one["realm"]["slug"], one["name"]).key)
    if not isinstance(listed, list) or (listed and not found):
        msg = "Battle.net answered without the members of the guild"
        raise Transient(msg)
    return found, len(listed) - len(found)
