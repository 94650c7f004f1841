"""Battle.net's World of Warcraft data, as clients of the real service see it: tokens, guilds, characters.

    POST /oauth/token   Basic client_id:client_secret, grant_type=client_credentials
        200 {"access_token": "..", "token_type": "bearer", "expires_in": 86399, "sub": ".."}
        401 wrong or no credentials        400 not POST, or another grant
    GET  /data/wow/guild/{realm-slug}/{guild-slug}[/roster]
    GET  /profile/wow/character/{realm-slug}/{name}[/equipment | /mythic-keystone-profile
                                                    | /collections[/mounts | /pets]]
    GET  /data/wow/realm/index   namespace dynamic-{region}; names in the locale asked for, else in all

One server is both services: ``base_url=url`` and ``oauth_url=f"{url}/oauth"``.  The region is read from the
namespace, and all regions share one client's limits.  Every grant issues a new token and leaves older ones valid, so
the number of tokens issued is the number of requests for one.  A request for data is decided in this order, and
every one counts in the windows, whatever its answer:

    outage --> too many: 429 --> token: 401 --> a stray 429 --> a fault --> namespace: 403 --> hidden: 403
           --> 404, 304 or 200

Every answer carries Date, and data Last-Modified; requests for tokens count in no window.  The real service counts by
its own seconds and is reported to slow down above the hourly limit; here both windows slide and end in a 429, so a
client that keeps these limits keeps the real ones.

Source: https://develop.battle.net/documentation/guides/getting-started as https://github.com/anovik/HearthstoneSdk
quotes it (limits); statuses and bodies as public clients of the real service record them; read 2026-11-22.
RFC 6749, sections 2.3.1, 4.4 and 5.2 (tokens).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import re
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import parse_qs, unquote

from . import battlenet_world as world
from .faults import Faults, check, uniforms
from .service import SCRIPT, Reply, Request, RequestLike, Service, Stats, Traffic, as_json

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

TOKEN = "/oauth/token"  # noqa: S105 - a path
REALMS = "/data/wow/realm/index"
_GUILD = re.compile(r"/data/wow/guild/([^/]+)/([^/]+)(/roster)?")
_CHARACTER = re.compile(r"/profile/wow/character/([^/]+)/([^/]+)((?:/[a-z-]+)*)")
_KINDS: dict[str, tuple[str, Callable[..., dict[str, Any]]]] = {
    "guild": ("guild", world.guild),
    "guild/roster": ("roster", world.roster),
    "character": ("character", world.character),
    "character/equipment": ("equipment", world.equipment),
    "character/mythic-keystone-profile": ("keystones", world.keystones),
    "character/collections": ("collections", world.collections),
    "character/collections/mounts": ("mounts", world.mounts),
    "character/collections/pets": ("pets", world.pets),
}
_REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    429: "Too Many Requests",
}
_FIRST_CHANGE_S = 1_735_689_600.0  # 2025-01-01: what never changes was last modified in that year
_YEAR_S = 365 * 86_400.0


class BattleNetStats(Stats):
    """The statistics of every service, and those of this one.

    `kinds` counts replies by kind of resource and status, ``{"guild": {"200": 20}}``; kinds are token, guild, roster,
    character, equipment, keystones, collections, mounts, pets, realms and other.  `tokens` is the number issued.
    `worst_second` and `worst_hour` are the largest numbers of requests for data in any second and any hour.  `ids` are
    ``region/guild/realm-slug/guild-slug`` and so on, as in the path.
    """

    kinds: dict[str, dict[str, int]]
    tokens: int
    worst_second: int
    worst_hour: int


class _Resource(NamedTuple):
    """The resource that a path names."""

    kind: str
    realm: str
    name: str
    item: str
    build: Callable[..., dict[str, Any]]


class BattleNetSimulator(Service):
    """Battle.net: resources are computed from their names, and faults from the seed of `faults`."""

    def __init__(
        self,
        *,
        faults: Faults | None = None,
        client_id: str = "SIMULATED",
        client_secret: str = "SIMULATED",  # noqa: S107 - of the simulator
        token_lifetime_s: float = 86_399.0,
        token_told_s: float | None = None,
        token_fault: Literal[301, 400, 403, 404, "drop"] | None = None,
        per_second: int | None = 100,
        per_hour: int | None = 36_000,
        stray_429_rate: float = 0.0,
        stray_429_in_a_row: int = 1,
        retry_after_s: int | None = None,
        ghosts: Collection[str] = (),
        ghost_rate: float = 0.0,
        hidden: Collection[str] = (),
        nameless: int = 0,
        change_every_s: float | None = None,
        date_offset_s: float = 0.0,
        epoch_s: float | None = None,
    ) -> None:
        """Set up the service.

        Args:
            faults: Injected faults, for tokens too; default none.
            client_id: The client id of the accepted credentials.
            client_secret: Their secret.
            token_lifetime_s: How long a token is valid, seconds, > 0.
            token_told_s: The ``expires_in`` of the reply; default the true lifetime.  A larger value makes
                tokens expire early.
            token_fault: How every request for a token ends: the status 301, 400, 403 or 404, or a dropped connection;
                None for a token.
            per_second: Requests for data in any second, >= 1; None for no limit.
            per_hour: Requests for data in any hour, >= 1; None for no limit.
            stray_429_rate: Share of requests refused although they kept the limits, [0, 1].
            stray_429_in_a_row: Consecutive refusals of the same path for each of them, >= 1.
            retry_after_s: Sent as Retry-After with every 429, >= 0; None sends none, like the real service.
            ghosts: Names of guilds or characters that are not found; names that begin with "Ghost" never are.
            ghost_rate: Share of all other names that are not found, [0, 1], chosen by the seed of ``faults``.
            hidden: Names of guilds or characters that answer 403, as those of players who opted out.
            nameless: Members without a name in every roster, >= 0.
            change_every_s: How often each resource changes, seconds, > 0; None for never.
            date_offset_s: How far the service's clock is ahead, seconds.
            epoch_s: The start as a Unix time, seconds; default now.

        Raises:
            ValueError: A value is outside its range.
        """
        check("token_lifetime_s", 0 < token_lifetime_s < math.inf, "> 0 and finite", token_lifetime_s)
        check("token_told_s", token_told_s is None or 0 <= token_told_s < math.inf, ">= 0 and finite", token_told_s)
        faults_of_tokens = (301, 400, 403, 404, "drop", None)
        check("token_fault", token_fault in faults_of_tokens, '301, 400, 403, 404, "drop" or None', token_fault)
        check("nameless", nameless >= 0, ">= 0", nameless)
        check("per_second", per_second is None or per_second >= 1, ">= 1 or None", per_second)
        check("per_hour", per_hour is None or per_hour >= 1, ">= 1 or None", per_hour)
        check("stray_429_rate", 0 <= stray_429_rate <= 1, "in [0, 1]", stray_429_rate)
        check("stray_429_in_a_row", stray_429_in_a_row >= 1, ">= 1", stray_429_in_a_row)
        check("retry_after_s", retry_after_s is None or retry_after_s >= 0, ">= 0 or None", retry_after_s)
        check("ghost_rate", 0 <= ghost_rate <= 1, "in [0, 1]", ghost_rate)
        check("change_every_s", change_every_s is None or change_every_s > 0, "> 0 or None", change_every_s)
        check("date_offset_s", math.isfinite(date_offset_s), "finite", date_offset_s)
        windows = [(limit, per_s) for limit, per_s in ((per_second, 1.0), (per_hour, 3600.0)) if limit is not None]
        super().__init__(faults=faults, traffic=Traffic(windows))
        told_s = token_lifetime_s if token_told_s is None else token_told_s
        self._tokens = TokenIssuer(client_id, client_secret, lifetime_s=token_lifetime_s, told_s=told_s)
        self._stray_429_rate = stray_429_rate
        self._stray_429_in_a_row = stray_429_in_a_row
        self._retry_after = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        self._ghosts = frozenset(world.slug(name) for name in ghosts)
        self._ghost_rate = ghost_rate
        self._hidden = frozenset(world.slug(name) for name in hidden)
        self._nameless = nameless
        self._token_fault = token_fault
        self._change_every_s = change_every_s
        self._epoch_s = (time.time() if epoch_s is None else epoch_s) + date_offset_s
        self._now_s = 0.0
        self._kinds: dict[str, Counter[str]] = {}

    def handle(self, request: RequestLike, now_s: float) -> Reply:
        """Return the reply to one request with its Date, and count it by kind."""
        asked = Request.of(request)
        with self._lock:
            self._now_s = now_s
            reply = super().handle(asked, now_s)
            if asked.path.startswith(SCRIPT):
                return reply
            status = "dropped" if reply.drop else str(reply.status)
            found = _asked(asked.path)
            named = {TOKEN: "token", REALMS: "realms"}.get(asked.path)
            kind = named or (found.kind if found else "other")
            self._kinds.setdefault(kind, Counter())[status] += 1
        return replace(reply, headers={"Date": _http_date(self._epoch_s + now_s), **reply.headers})

    def items(self, request: Request) -> Sequence[str]:
        """Return the id of the guild or character that the request asks for, if any."""
        asked = _asked(request.path)
        return () if asked is None else (f"{_region(request)}/{asked.item}",)

    def rationed(self, request: Request) -> bool:
        """Return whether the request is for data, not for a token."""
        return request.path != TOKEN

    def refused(self, request: Request, now_s: float) -> Reply | None:
        """Return 429 above the limits, 401 without a valid token, a stray 429, or None."""
        if not self.rationed(request):
            return None
        refusal = super().refused(request, now_s)
        if refusal is not None:
            return refusal
        if not self._tokens.valid(request, now_s):
            return _error(401)
        name = self._name(request)
        nth = self._asked[name]
        draws = range(max(1, nth - self._stray_429_in_a_row + 1), nth + 1)
        if any(uniforms("stray", self.faults.seed, name, draw)[0] < self._stray_429_rate for draw in draws):
            self._broken["429"] += 1
            return self.refusal(429)
        return None

    def refusal(self, status: int) -> Reply:
        """Return 429, with Retry-After only when ``retry_after_s`` was given."""
        reply = _error(status)
        return replace(reply, headers={**reply.headers, **self._retry_after})

    def answer(self, request: Request) -> Reply:
        """Return the answer without faults."""
        if request.path == TOKEN:
            return self._no_token() or self._tokens.answer(request, self._now_s)
        if request.method != "GET":
            return _error(405)
        return self._realms(request) if request.path == REALMS else self._data(request)

    def _data(self, request: Request) -> Reply:
        asked, region = _asked(request.path), _region(request)
        if region not in world.REGIONS or (asked is not None and asked.name in self._hidden):
            return _error(403)
        if asked is None or not self.has(asked.realm, asked.name):
            return _error(404)
        modified_s, changes = self._modified(f"{region}/{asked.item}")
        dated = {"Last-Modified": _http_date(modified_s)}
        known_s = _unix_s(header(request.headers, "if-modified-since"))
        if known_s is not None and modified_s <= known_s:
            return Reply(status=304, headers=dated)
        data = asked.build(region, asked.realm, asked.name, changes)
        if asked.kind == "roster":
            data["members"] += [{"character": {"id": 1 + nth}, "rank": 9} for nth in range(self._nameless)]
        reply = as_json(data)
        return replace(reply, headers={**reply.headers, **dated})

    def _no_token(self) -> Reply | None:
        if self._token_fault is None:
            return None
        if isinstance(self._token_fault, str):
            return Reply(drop="close")
        if self._token_fault == 301:
            return Reply(status=301, headers={"Location": "https://new.battle.invalid/oauth/token"})
        return as_json({"error": "gone", "error_description": "Try elsewhere"}, status=self._token_fault)

    def _realms(self, request: Request) -> Reply:
        name, _, region = request.query.get("namespace", "").partition("-")
        if name != "dynamic" or region not in world.REGIONS:
            return _error(403)
        return as_json({"realms": world.realms(request.query.get("locale"))})

    def has(self, realm: str, name: str) -> bool:
        """Return whether a guild or character exists, by its slugs: the expected result in tests."""
        if not world.well_formed(realm) or not world.is_latin(realm) or not world.well_formed(name):
            return False
        if name.startswith("ghost") or name in self._ghosts:
            return False
        return uniforms("ghost", self.faults.seed, realm, name)[0] >= self._ghost_rate

    def revoke(self) -> None:
        """Expire every token now, as a restarted service does."""
        with self._lock:
            self._tokens.revoke(self._now_s)

    def stats(self) -> BattleNetStats:
        """Return the statistics so far; callable from any thread."""
        with self._lock:
            return BattleNetStats(
                **super().stats(),
                kinds={kind: dict(sorted(counts.items())) for kind, counts in sorted(self._kinds.items())},
                tokens=self._tokens.issued,
                worst_second=self.worst(1.0),
                worst_hour=self.worst(3600.0),
            )

    def _modified(self, item: str) -> tuple[float, int]:
        """Return when a resource last changed, whole Unix seconds, and how often it has changed since the start."""
        share = uniforms("modified", item)[0]
        if self._change_every_s is None:
            return math.floor(_FIRST_CHANGE_S + share * _YEAR_S), 0
        every_s = self._change_every_s
        changes = math.floor(self._now_s / every_s + share)
        return math.floor(self._epoch_s + (changes - share) * every_s), changes


@lru_cache(maxsize=1024)  # a path is parsed several times for each request
def _asked(path: str) -> _Resource | None:
    """Read a path; None for one the service does not have."""
    path = unquote(path)
    match = _GUILD.fullmatch(path) or _CHARACTER.fullmatch(path)
    if match is None:
        return None
    realm, name, rest = match.groups(default="")
    what = "guild" if match.re is _GUILD else "character"
    if what + rest not in _KINDS:
        return None
    kind, build = _KINDS[what + rest]
    return _Resource(kind, realm, name, f"{what}/{realm}/{name}{rest}", build)


def _region(request: Request) -> str:
    """Return the region of the namespace, or nothing when it is no namespace of profiles."""
    name, _, region = request.query.get("namespace", "").partition("-")
    return region if name == "profile" else ""


def _error(status: int) -> Reply:
    return as_json({"code": status, "type": f"BLZWEBAPI00000{status}", "detail": _REASONS[status]}, status=status)


def _http_date(unix_s: float) -> str:
    return formatdate(math.floor(unix_s), usegmt=True)


def _unix_s(text: str | None) -> float | None:
    """Return an HTTP date as Unix time; None for none or an invalid one, which HTTP ignores."""
    try:
        return parsedate_to_datetime(text or "").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


class TokenIssuer:
    """OAuth access tokens: issued for credentials, and expired by time or by `revoke`."""

    def __init__(self, client_id: str, client_secret: str, *, lifetime_s: float, told_s: float) -> None:
        """Set the credentials, a token's true lifetime, and the lifetime that the reply tells."""
        self._credentials = f"{client_id}:{client_secret}"
        self._sub = client_id
        self._lifetime_s = lifetime_s
        self._told_s = told_s
        self._ends_s: dict[str, float] = {}

    @property
    def issued(self) -> int:
        """The number of tokens issued so far."""
        return len(self._ends_s)

    def answer(self, request: Request, now_s: float) -> Reply:
        """Return the reply to a request for a token."""
        if _credentials(request) != self._credentials:
            return as_json({"error": "invalid_client", "error_description": "Bad credentials"}, status=401)
        grant = parse_qs(request.content.decode("utf-8", "replace")).get("grant_type")
        if request.method != "POST" or grant != ["client_credentials"]:
            return as_json({"error": "invalid_request", "error_description": "Unsupported grant type"}, status=400)
        digest = hashlib.blake2b(f"{self._credentials} {self.issued}".encode(), digest_size=16).hexdigest()
        token = f"SIM{digest}"
        self._ends_s[token] = now_s + self._lifetime_s
        return as_json(
            {
                "access_token": token,
                "token_type": "bearer",
                "expires_in": int(self._told_s),
                "sub": self._sub,
            }
        )

    def valid(self, request: Request, now_s: float) -> bool:
        """Return whether the request carries a token that was issued and has not expired."""
        scheme, _, token = (header(request.headers, "authorization") or "").partition(" ")
        return scheme.lower() == "bearer" and now_s < self._ends_s.get(token, now_s)

    def revoke(self, now_s: float) -> None:
        """Expire every token now."""
        self._ends_s = {token: min(ends_s, now_s) for token, ends_s in self._ends_s.items()}


def header(headers: Mapping[str, str], name: str) -> str | None:
    """Return a header's value, whatever its capitals; ``name`` in lower case."""
    return next((value for key, value in headers.items() if key.lower() == name), None)


def _credentials(request: Request) -> str | None:
    """Return the decoded credentials of the Basic header."""
    scheme, _, encoded = (header(request.headers, "authorization") or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
