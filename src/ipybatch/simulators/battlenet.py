"""Battle.net's World of Warcraft data, as clients of the real service see it: tokens, guilds, characters.

    POST /oauth/token                                                     see `battlenet_tokens`
    GET  /data/wow/guild/{realm-slug}/{guild-slug}[/roster]
    GET  /profile/wow/character/{realm-slug}/{name}[/equipment | /mythic-keystone-profile
                                                    | /collections[/mounts | /pets]]

One server is both services: ``base_url=url`` and ``oauth_url=f"{url}/oauth"``.  The region is read from the
namespace, and all regions share one client's limits.  A request for data is decided in this order, and every one
counts in the windows, whatever becomes of it:

    outage --> too many: 429 --> token: 401 --> a stray 429 --> a fault --> namespace: 403 --> 404, 304 or 200

Every answer carries Date, and data Last-Modified; requests for tokens count in no window.  The real service counts by
its own seconds and is said to slow down over the hour's limit; here both windows slide and end in a 429, so that who
passes here passes there.

Source: https://develop.battle.net/documentation/guides/getting-started as https://github.com/anovik/HearthstoneSdk
quotes it (limits); statuses and bodies as public clients of the real service record them; read 2026-11-22.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from . import battlenet_world as world
from .battlenet_tokens import Tokens, header
from .faults import Faults, uniforms
from .service import SCRIPT, Reply, Request, RequestLike, Service, Stats, as_json
from .traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

TOKEN = "/oauth/token"  # noqa: S105 - a path
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
    """What every service has seen, and what this one counts besides.

    `kinds` counts answers by what was asked for and status, ``{"guild": {"200": 20}}``; kinds are token, guild, roster,
    character, equipment, keystones, collections, mounts, pets and other.  `tokens` were issued.  `worst_second` and
    `worst_hour` are the largest numbers of requests for data in any second and any hour.  `ids` are
    ``region/guild/realm-slug/guild-slug`` and so on, as in the path.
    """

    kinds: dict[str, dict[str, int]]
    tokens: int
    worst_second: int
    worst_hour: int


class _Asked(NamedTuple):
    """What a path means."""

    kind: str
    realm: str
    name: str
    item: str
    build: Callable[..., dict[str, Any]]


class BattleNetSimulator(Service):
    """Battle.net, deterministic: a thing follows from its names, a fault from the seed of `faults`."""

    def __init__(
        self,
        *,
        faults: Faults | None = None,
        client_id: str = "SIMULATED",
        client_secret: str = "SIMULATED",  # noqa: S107 - of the simulator
        token_lifetime_s: float = 86_399.0,
        token_told_s: float | None = None,
        per_second: int | None = 100,
        per_hour: int | None = 36_000,
        stray_429_rate: float = 0.0,
        stray_429_in_a_row: int = 1,
        retry_after_s: int | None = None,
        ghosts: Collection[str] = (),
        ghost_rate: float = 0.0,
        change_every_s: float | None = None,
        date_offset_s: float = 0.0,
        epoch_s: float | None = None,
    ) -> None:
        """Open the service.

        Args:
            faults: What goes wrong; default nothing.  Tokens meet faults too.
            client_id: The credentials that get a token.
            client_secret: Their second half.
            token_lifetime_s: How long a token is valid, seconds, > 0.
            token_told_s: What its answer says of that; default the truth.  More makes tokens end too early.
            per_second: Requests for data in any second, >= 1; None for no limit.
            per_hour: Requests for data in any hour, >= 1; None for no limit.
            stray_429_rate: Share of requests refused although they kept the limits, [0, 1].
            stray_429_in_a_row: How often in a row each of them refuses the same path, >= 1.
            retry_after_s: Sent as Retry-After with every 429, >= 0; None sends none, as the real service.
            ghosts: Names, of guilds or characters, that are not found; so are all that begin with "Ghost".
            ghost_rate: Share of all other names that are not found, [0, 1]; the seed of ``faults`` decides which.
            change_every_s: How often each thing changes, seconds, > 0; None for never.
            date_offset_s: How much the service's clock is ahead, seconds.
            epoch_s: The start as a Unix time, seconds; default now.

        Raises:
            ValueError: A value is outside its range.
        """
        for name, ok, allowed, value in (
            ("token_lifetime_s", 0 < token_lifetime_s < math.inf, "> 0 and finite", token_lifetime_s),
            ("token_told_s", token_told_s is None or 0 <= token_told_s < math.inf, ">= 0 and finite", token_told_s),
            ("per_second", per_second is None or per_second >= 1, ">= 1 or None", per_second),
            ("per_hour", per_hour is None or per_hour >= 1, ">= 1 or None", per_hour),
            ("stray_429_rate", 0 <= stray_429_rate <= 1, "in [0, 1]", stray_429_rate),
            ("stray_429_in_a_row", stray_429_in_a_row >= 1, ">= 1", stray_429_in_a_row),
            ("retry_after_s", retry_after_s is None or retry_after_s >= 0, ">= 0 or None", retry_after_s),
            ("ghost_rate", 0 <= ghost_rate <= 1, "in [0, 1]", ghost_rate),
            ("change_every_s", change_every_s is None or change_every_s > 0, "> 0 or None", change_every_s),
            ("date_offset_s", math.isfinite(date_offset_s), "finite", date_offset_s),
        ):
            if not ok:
                msg = f"{name} must be {allowed}, got {value!r}"
                raise ValueError(msg)
        windows = [(limit, per_s) for limit, per_s in ((per_second, 1.0), (per_hour, 3600.0)) if limit is not None]
        super().__init__(faults=faults, traffic=Traffic(windows))
        told_s = token_lifetime_s if token_told_s is None else token_told_s
        self._tokens = Tokens(client_id, client_secret, lifetime_s=token_lifetime_s, told_s=told_s)
        self._stray_429_rate = stray_429_rate
        self._stray_429_in_a_row = stray_429_in_a_row
        self._retry_after = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        self._ghosts = frozenset(world.slug(name) for name in ghosts)
        self._ghost_rate = ghost_rate
        self._change_every_s = change_every_s
        self._epoch_s = (time.time() if epoch_s is None else epoch_s) + date_offset_s
        self._now_s = 0.0
        self._kinds: dict[str, Counter[str]] = {}

    def handle(self, request: RequestLike, now_s: float) -> Reply:
        """Decide one request, count it by kind and date its answer."""
        asked = Request.of(request)
        with self._lock:
            self._now_s = now_s
            reply = super().handle(asked, now_s)
            if asked.path.startswith(SCRIPT):
                return reply
            status = "dropped" if reply.drop else str(reply.status)
            self._kinds.setdefault(_kind(asked), Counter())[status] += 1
        return replace(reply, headers={"Date": _http_date(self._epoch_s + now_s), **reply.headers})

    def items(self, request: Request) -> Sequence[str]:
        """Return the id of what is asked for, if it is a guild's or a character's."""
        asked = _asked(request.path)
        return () if asked is None else (f"{_region(request)}/{asked.item}",)

    def rationed(self, request: Request) -> bool:
        """Say whether data, not a token, is asked for."""
        return request.path != TOKEN

    def refused(self, request: Request, now_s: float) -> Reply | None:
        """Return 429 for what is too fast, 401 without a token that lives, and the stray 429s."""
        if not self.rationed(request):
            return None
        refusal = super().refused(request, now_s)
        if refusal is not None:
            return refusal
        if not self._tokens.valid(request, now_s):
            return _error(401)
        if self._stray(self._name(request)):
            self._broken["429"] += 1
            return self.refusal(429)
        return None

    def refusal(self, status: int) -> Reply:
        """Return 429, with Retry-After only when that was asked for."""
        reply = _error(status)
        return replace(reply, headers={**reply.headers, **self._retry_after})

    def answer(self, request: Request) -> Reply:
        """Answer as a service without trouble does."""
        if request.path == TOKEN:
            return self._tokens.answer(request, self._now_s)
        asked, region = _asked(request.path), _region(request)
        if request.method != "GET":
            return _error(405)
        if region not in world.REGIONS:
            return _error(403)
        if asked is None or not self.has(asked.realm, asked.name):
            return _error(404)
        return self._found(request, asked, region)

    def has(self, realm: str, name: str) -> bool:
        """Say whether a guild or character is found by its slugs; tests use it as the truth."""
        if not world.well_formed(realm) or not world.well_formed(name):
            return False
        if name.startswith("ghost") or name in self._ghosts:
            return False
        return uniforms("ghost", self.faults.seed, realm, name)[0] >= self._ghost_rate

    def revoke(self) -> None:
        """End every token now, as a service that was restarted does."""
        with self._lock:
            self._tokens.revoke(self._now_s)

    def stats(self) -> BattleNetStats:
        """Return what the service has seen so far; any thread may ask."""
        with self._lock:
            return BattleNetStats(
                **super().stats(),
                kinds={kind: dict(sorted(counts.items())) for kind, counts in sorted(self._kinds.items())},
                tokens=self._tokens.issued,
                worst_second=self.worst(1.0),
                worst_hour=self.worst(3600.0),
            )

    def _found(self, request: Request, asked: _Asked, region: str) -> Reply:
        modified_s, changes = self._modified(f"{region}/{asked.item}")
        dated = {"Last-Modified": _http_date(modified_s)}
        known_s = _unix_s(header(request.headers, "if-modified-since"))
        if known_s is not None and modified_s <= known_s:
            return Reply(status=304, headers=dated)
        reply = as_json(asked.build(region, asked.realm, asked.name, changes))
        return replace(reply, headers={**reply.headers, **dated})

    def _modified(self, item: str) -> tuple[float, int]:
        """Return when a thing was last modified, whole Unix seconds, and how often since the start of the simulator."""
        share = uniforms("modified", item)[0]
        if self._change_every_s is None:
            return math.floor(_FIRST_CHANGE_S + share * _YEAR_S), 0
        every_s = self._change_every_s
        changes = math.floor(self._now_s / every_s + share)
        return math.floor(self._epoch_s + (changes - share) * every_s), changes

    def _stray(self, name: str) -> bool:
        nth = self._asked[name]
        draws = range(max(1, nth - self._stray_429_in_a_row + 1), nth + 1)
        return any(uniforms("stray", self.faults.seed, name, draw)[0] < self._stray_429_rate for draw in draws)


@lru_cache(maxsize=1024)  # a path is read several times while its request is decided
def _asked(path: str) -> _Asked | None:
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
    return _Asked(kind, realm, name, f"{what}/{realm}/{name}{rest}", build)


def _kind(request: Request) -> str:
    if request.path == TOKEN:
        return "token"
    asked = _asked(request.path)
    return asked.kind if asked else "other"


def _region(request: Request) -> str:
    """Return the region of the namespace, or nothing when it is no namespace of profiles."""
    name, _, region = request.query.get("namespace", "").partition("-")
    return region if name == "profile" else ""


def _error(status: int) -> Reply:
    return as_json({"code": status, "type": f"BLZWEBAPI00000{status}", "detail": _REASONS[status]}, status=status)


def _http_date(unix_s: float) -> str:
    return formatdate(math.floor(unix_s), usegmt=True)


def _unix_s(text: str | None) -> float | None:
    """Return what an HTTP date says; None for none, or for what is no date, which HTTP ignores."""
    try:
        return parsedate_to_datetime(text or "").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
