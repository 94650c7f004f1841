"""RedisLimits: the limit store of processes on several machines, a Redis that all of them reach.

An exchange is one call of a script (``redis_limits.lua``), which Redis runs
whole or not at all, by its own clock: clocks of the machines may differ as they
like.  What each part of it decides stands plainly in `limit_store.MemoryLimits`.

Redis may lose what it counted: emptied, started again without its data, or with
old data.  So what it holds is of an *era*, and in it exchanges have numbers:

    era 7f3a  1 2 3 4 5 6          an owner has seen "7f3a, 6"
                 |                 Redis saved there, and starts again with that
    era 90c1     4 5 6 7 ...       "7f3a lasted until 3": who has seen more of it knows what is lost

Whoever knows of something that is lost is told to say all it knows again, and
nothing starts for one lease, for anybody.  At the first use of a resource
nothing starts for `SETTLE_S`, after each start of the server for `RESTART_S`:
those who are there report by then.  Where nobody knows more, nothing was lost.

It fails closed: while Redis cannot be asked, nothing starts.

One subject, hence its length: the way of a report to Redis, and back.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import struct
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from ipybatch.engine.data.fork import after_fork
from ipybatch.engine.data.policy import Rate
from ipybatch.engine.data.store_url import check_url, shown_url
from ipybatch.engine.rules.limiter import CLOCK_DRIFT, LATE_S, Spent
from ipybatch.engine.store.limit_store import (
    GROUP,
    HEED_S,
    LEASE_S,
    POLL_MOST_S,
    PRIVATE,
    PULSE_S,
    ROUND_MOST_S,
    TURN_S,
    YIELD_S,
    Answer,
    Owner,
    Report,
)
from ipybatch.engine.store.redis_trouble import OLDEST, is_too_old, trouble
from ipybatch.engine.store.sqlite_limits import KEPT_S, SPANS_S, STEPS, THIN_AFTER
from ipybatch.errors import JournalError, MissingExtra

T = TypeVar("T")
Client = Any  # redis.Redis: its types differ from release to release

CONNECT_S, ANSWER_S = 1.0, 2.0
SETTLE_S = 2.5  # owners report within two seconds, whatever they do
RESTART_S = SETTLE_S + CONNECT_S + ANSWER_S  # and then there are those that yet have to see that it was gone
PREFIX = "ipybatch:"
NAMES = f"{PREFIX}names"
VERSION = 1  # of what is kept
AT_ONCE = 500  # reports in a round trip, some 50 ms of the server's time
PAST_ERAS = 8
TOUCH_S = 3600.0  # sets are kept for so much longer than they must be, and then renewed
NEW = "its limits in Redis begin anew: other machines are waited for, which may know more"
RESTARTED = "Redis has started again: other machines are waited for, which may know more than it has saved"
LOST = "Redis has lost what it counted, which is unknown for now"
LATER = "LATER its limits are kept by a later ipybatch: upgrade, or name another database in store="

_constants = {
    "VERSION": VERSION,
    "LATER": LATER,
    "CLOCK_DRIFT": CLOCK_DRIFT,
    "LATE_S": LATE_S,
    "LEASE_S": LEASE_S,
    "HEED_S": HEED_S,
    "POLL_MOST_S": POLL_MOST_S,
    "PULSE_S": PULSE_S,
    "ROUND_MOST_S": ROUND_MOST_S,
    "TURN_S": TURN_S,
    "YIELD_S": YIELD_S,
    "KEPT_S": KEPT_S,
    "STEPS": STEPS,
    "THIN_AFTER": THIN_AFTER,
    "SETTLE_S": SETTLE_S,
    "RESTART_S": RESTART_S,
    "PAST_ERAS": PAST_ERAS,
    "TOUCH_S": TOUCH_S,
    "NEW": NEW,
    "RESTARTED": RESTARTED,
    "LOST": LOST,
}


class _Caller(msgspec.Struct, kw_only=True):
    """Who makes a report, and what it knows of the store."""

    id: str = ""  # the era it has seen last; "" for none
    seq: int = 0  # the greatest number of an exchange in it
    born: str = ""  # the resource as it was there
    cool_s: float = 0.0  # what is left of a cool-down that it knows of
    why: str = ""
    run: str = ""  # that of the server; "" where it does not tell
    is_script_new: bool = False  # to the server: it has started again, or was never asked
    token: str = ""  # nobody else's, for what begins just now
    settle_s: float = SETTLE_S
    now_s: float | None = None  # None: by the server's clock


class _Reply(msgspec.Struct, array_like=True):
    wait_s: float
    more: int
    used: list[tuple[float, float, str, float]]
    owners: list[tuple[str, str, int]]
    cool_s: float
    why: str
    is_common: bool
    is_stranger: bool
    is_anew: bool
    id: str
    seq: int
    born: str


class _Known(msgspec.Struct):
    """What an owner has seen of the store."""

    id: str
    seq: int
    born: str
    cool_until_s: float
    why: str


class _Asked(msgspec.Struct, eq=False):
    """A report that an answer is awaited to."""

    report: Report
    told: Answer | Exception | None = None


class _State(msgspec.Struct):
    """What `RedisLimits.history` reads of a resource."""

    last_s: float
    answers: dict[str, int] | list[Any]  # by unit; an empty table of Lua is a list


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Reply).decode
_decode_state = msgspec.msgpack.Decoder(_State).decode
_rate = functools.lru_cache(1024)(Rate)
_numbers = count(1)
_stores: weakref.WeakSet[RedisLimits] = weakref.WeakSet()


class RedisLimits:
    """A limit store in Redis, for processes on one machine or on several.

    Args:
        url: Where it is: ``redis://[[user]:password@]host[:port][/db]``, ``rediss://`` for TLS, ``unix:///path``.
            Options, such as ``?ssl_ca_certs=/etc/ca.pem``, as the redis package takes them.
        now_s: The clock to go by, of all who use it; by default the server's.
        settle_s: How long nothing starts when a resource is used first, or the server has started again, seconds.

    Raises:
        InputError: ``url`` is no such address.
        MissingExtra: The redis package is not installed.
    """

    is_remote = True

    def __init__(self, url: str, *, now_s: Callable[[], float] | None = None, settle_s: float = SETTLE_S) -> None:
        check_url(url)
        _client_class()
        self.url = shown_url(url)
        self._url, self._now_s, self._settle_s = url, now_s, settle_s
        self._token = os.urandom(6).hex()
        self._known: dict[tuple[str, str], _Known] = {}  # by resource and owner
        self._listed_s: dict[str, float] = {}  # resources, and when they were put on the list of names
        self._since = ""  # when it stopped answering; "" while it answers
        self._failures, self._told = 0, ""  # how often it could not be asked, and why the last time
        self.forget()
        _stores.add(self)

    def __repr__(self) -> str:
        return f"RedisLimits({self.url!r})"

    def exchange(self, report: Report) -> Answer:
        """Count what an owner reports, and decide on what it wants, at once.

        Raises:
            JournalError: Redis does not answer, or refuses; says since when, and why.
        """
        return self.exchange_all([report])[0]

    def exchange_all(self, reports: Sequence[Report]) -> list[Answer]:
        """Exchange several reports, `AT_ONCE` of them in a round trip.

        Raises:
            JournalError: Redis does not answer, or refuses; says since when, and why.
        """
        return [
            answer
            for first in range(0, len(reports), AT_ONCE)
            for answer in self._exchange(reports[first : first + AT_ONCE])
        ]

    def history(self, resource: str, since_s: float) -> list[Spent]:
        """Return what was answered within the last ``since_s`` seconds: seconds ago, unit, cost; the oldest first.

        Raises:
            JournalError: Redis does not answer, or refuses; says since when, and why.
        """
        return self._ask(lambda: self._history(self._connected(), resource, since_s))

    def names(self) -> list[str]:
        """Return the names of all resources that were used within the last weeks.

        Raises:
            JournalError: Redis does not answer, or refuses; says since when, and why.
        """
        return self._ask(lambda: [name.decode() for name in self._connected().zrange(NAMES, 0, -1)])

    def close(self) -> None:
        """Let the connection go, at once or when the exchange that is under way has ended; the next opens another."""
        with self._turns:
            self._is_closed = self._is_taken
            if not self._is_taken:
                self._disconnect()

    def forget(self) -> None:
        """Have no connection: after a fork it is the parent's, and so is whose turn it is."""
        self._turns = threading.Condition()
        self._is_taken = False
        self._asked = deque[_Asked]()
        self._is_closed = False  # by somebody who did not wait
        self._client: Client = None
        self._run = ""

    def _ask(self, ask: Callable[[], T], mine: Sequence[_Asked] = ()) -> T:
        """Ask the server, when it is this thread's turn.

        Whoever waits for another one that hangs hears of that as soon as it does.

        Args:
            mine: Reports that another thread may send meanwhile, with all that wait: that costs one round trip.
        """
        with self._turns:
            failures = self._failures
            self._asked += mine
            while self._is_taken and self._failures == failures and not _is_told(mine):
                self._turns.wait()
            is_told = _is_told(mine)
            if self._failures != failures and not is_told:
                self._withdraw(mine)
                raise JournalError(self._told)
            self._is_taken = self._is_taken or not is_told
        is_whole = False  # nothing of an answer is left unread
        try:
            answer = ask() if is_told else self._twice(ask)
            is_whole, self._since = True, ""
            return answer
        except Exception as error:
            self._since = self._since or time.strftime("%H:%M")
            told = trouble(error, self._since)
            if not told:
                raise
            self._failures, self._told = self._failures + 1, f"{self.url} {told}"
            raise JournalError(self._told) from error
        finally:
            if not is_told:
                self._withdraw(mine)
                self._give_turn(keeps=is_whole)

    def _give_turn(self, *, keeps: bool = True) -> None:
        with self._turns:
            if self._is_closed or not keeps:
                self._disconnect()
            self._is_taken = self._is_closed = False
            self._turns.notify_all()

    def _twice(self, ask: Callable[[], T]) -> T:
        """Ask again where the connection was closed since it was used last: by the server, or on the way there."""
        from redis.exceptions import ConnectionError as Closed

        was_open = self._client is not None
        try:
            return ask()
        except Closed:
            if not was_open:
                raise
        self._disconnect()
        return ask()

    def _withdraw(self, mine: Sequence[_Asked]) -> None:
        with self._turns:
            for one in mine:
                if one in self._asked:
                    self._asked.remove(one)

    def _exchange(self, reports: Sequence[Report]) -> list[Answer]:
        mine = [_Asked(report) for report in reports]

        def ask() -> list[Answer]:
            if not _is_told(mine):
                self._send_all()
            return [_told(one) for one in mine]

        return self._ask(ask, mine)

    def _send_all(self) -> None:
        """Exchange all reports that wait, in one round trip."""
        client = self._connected()
        with self._turns:
            batch, self._asked = self._asked, deque()
        try:
            callers = [self._caller(one.report) for one in batch]
            packed = [(*_keys(one.report.resource), _encode(one.report)) for one in batch]
            found = _run_script(client.connection, packed, callers)
        except Exception:
            with self._turns:
                self._asked.extendleft(reversed(batch))  # nobody has been told anything
            raise
        for one, answer in zip(batch, found, strict=True):
            one.told = answer if isinstance(answer, Exception) else self._taken(one.report, answer)
        self._list(client, batch)

    def _caller(self, report: Report) -> _Caller:
        known = self._known.get((report.resource, report.owner))
        caller = _Caller(
            run=self._run,
            token=f"{self._token}{next(_numbers):x}",
            settle_s=0.0 if PRIVATE in report.resource else self._settle_s,
            now_s=None if self._now_s is None else self._now_s(),
        )
        if known is not None:
            caller.id, caller.seq, caller.born = known.id, known.seq, known.born
            caller.cool_s, caller.why = max(0.0, known.cool_until_s - self._clock_s()), known.why
        return caller

    def _taken(self, report: Report, packed: bytes | None) -> Answer:
        """Return what the server says, and know what it has."""
        if packed is None:
            return Answer()  # nobody has used it yet, and looking makes nothing
        reply = _decode(packed)
        if report.owner:
            until_s = self._clock_s() + reply.cool_s if reply.cool_s else 0.0
            known = _Known(reply.id, reply.seq, reply.born, until_s, reply.why)
            self._known[report.resource, report.owner] = known
        return Answer(
            wait_s=reply.wait_s,
            more=reply.more,
            used={_rate(limit, per_s, unit): used for limit, per_s, unit, used in reply.used},
            owners=tuple(Owner(*one) for one in sorted(reply.owners)),
            cool_s=reply.cool_s,
            why=reply.why,
            is_common=reply.is_common,
            is_stranger=reply.is_stranger,
            is_anew=reply.is_anew,
        )

    def _list(self, client: Client, batch: Sequence[_Asked]) -> None:
        """Put resources on the list of names, once a day."""
        at_s, unix_s, news = time.monotonic(), time.time(), list[str]()
        for one in batch:
            name, told = one.report.resource, one.told
            is_anew = isinstance(told, Answer) and told.is_anew
            if one.report.owner and (is_anew or at_s >= self._listed_s.get(name, -math.inf) + 86_400.0):
                news.append(name)
        if news:
            added = [("ZADD", NAMES, unix_s, name) for name in news]
            found = _call(client.connection, [*added, ("ZREMRANGEBYSCORE", NAMES, "-inf", unix_s - KEPT_S)])
            if not any(isinstance(answer, Exception) for answer in found):
                self._listed_s |= dict.fromkeys(news, at_s)

    def _history(self, client: Client, resource: str, since_s: float) -> list[Spent]:
        _, key, sets = _keys(resource)
        packed = client.get(key)
        if packed is None:
            return []
        state = _decode_state(packed)
        now_s = max(state.last_s, _server_s(client) if self._now_s is None else self._now_s())
        found: list[Spent] = []
        for unit in state.answers:
            with client.pipeline(transaction=True) as both:
                both.zrevrangebyscore(sets + unit, now_s - since_s, "-inf", start=0, num=1)
                both.zrangebyscore(sets + unit, f"({now_s - since_s!r}", "+inf", withscores=True)
                before, later = both.execute()
            totals = [(0.0, _total(before[0]) if before else 0.0), *((at_s, _total(one)) for one, at_s in later)]
            found += [(now_s - at_s, unit, total - sofar) for (_, sofar), (at_s, total) in pairwise(totals)]
        return sorted(found, key=itemgetter(0), reverse=True)

    def _clock_s(self) -> float:
        return time.monotonic() if self._now_s is None else self._now_s()

    def _connected(self) -> Client:
        """Return the client, connected to a server that is known by its run."""
        if self._client is None:
            from redis.backoff import NoBackoff
            from redis.retry import Retry

            self._client = _client_class().from_url(
                self._url,
                single_connection_client=True,
                socket_connect_timeout=CONNECT_S,
                socket_timeout=ANSWER_S,
                retry=Retry(NoBackoff(), 0),  # what is tried again, and when, is the engine's to say
                protocol=2,
                redis_connect_func=self._greet,
            )
        assert self._client.connection is not None
        self._client.connection.connect()
        return self._client

    def _greet(self, connection: Any) -> None:
        """Learn which run of the server it is, and whether it is new enough; some services hide both."""
        from redis.exceptions import ResponseError

        connection.on_connect()
        connection.send_command("INFO", "server")
        try:
            told = connection.read_response()
        except ResponseError:
            told = b""
        about = dict(line.split(":", 1) for line in told.decode(errors="replace").splitlines() if ":" in line)
        self._run = about.get("run_id", "")
        if is_too_old(version := about.get("redis_version", OLDEST)):
            connection.disconnect()
            msg = f"{self.url} is Redis {version}: limits need {OLDEST} or later"
            raise JournalError(msg)

    def _disconnect(self) -> None:
        if self._client is not None:
            if self._client.connection is not None:
                self._client.connection.disconnect()
            self._client.close()
        self._client = None


def _forget() -> None:
    for store in _stores:
        store.forget()


after_fork(_forget)


def _client_class() -> Client:
    try:
        from redis import Redis
    except ImportError:
        raise MissingExtra("redis") from None
    return Redis


def _is_told(asked: Sequence[_Asked]) -> bool:
    """Say whether there is an answer to all, and to one at least."""
    return bool(asked) and all(one.told is not None for one in asked)


def _told(asked: _Asked) -> Answer:
    if isinstance(asked.told, Exception):
        raise asked.told
    assert asked.told is not None
    return asked.told


@functools.cache
def _script() -> tuple[str, str]:
    """Return the script with its constants, and what Redis calls it."""
    constants = [f"local {name} = {json.dumps(value)}" for name, value in _constants.items()]
    lengths = ", ".join(map(repr, (*SPANS_S, KEPT_S)))
    text = Path(__file__).with_name("redis_limits.lua").read_text(encoding="utf-8")
    script = "\n".join((*constants, f"local LENGTHS_S = {{ {lengths} }}", text))
    return script, hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


def _run_script(
    connection: Any, packed: Sequence[tuple[str | bytes, ...]], callers: Sequence[_Caller]
) -> list[bytes | Exception | None]:
    """Return what the script says to each report, or how it is refused, in one round trip."""
    from redis.exceptions import NoScriptError

    script, name = _script()
    calls = list(zip(packed, callers, strict=True))
    found = _call(connection, [("EVALSHA", name, 3, *one, _encode(caller)) for one, caller in calls])
    for place, (one, caller) in enumerate(calls):
        if isinstance(found[place], NoScriptError):
            caller.is_script_new = True
            found[place] = _call(connection, [("EVAL", script, 3, *one, _encode(caller))])[0]
    return found


def _call(connection: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Return the answers to commands that are sent at once; an error is one."""
    from redis.exceptions import ResponseError

    connection.send_packed_command(connection.pack_commands(commands))
    found: list[Any] = []
    for _ in commands:
        try:
            found.append(connection.read_response())
        except ResponseError as error:
            found.append(error)
    return found


@functools.lru_cache(1024)
def _keys(resource: str) -> tuple[str, str, str]:
    """Return the names of what is kept of a resource; all its limit groups lie in one slot of a cluster."""
    name, _, group = resource.partition(GROUP)
    common = f"{PREFIX}{{{quote(name, ' ')}}}"
    own = f"{common}:{quote(group, ' ')}"
    return common, f"{own}:state", f"{own}:answered:"


def _server_s(client: Client) -> float:
    seconds, microseconds = client.time()
    return float(seconds) + float(microseconds) / 1e6


def _total(member: bytes) -> float:
    return float(struct.unpack(">d", member)[0])
