from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ipybatch import BatchSession
from ipybatch.library import BattleNet, Character, Guild, Library, SteamStore, refresh
from ipybatch.library.records import Record
from ipybatch.library.session import RefreshSession
from ipybatch.simulators import BattleNetSimulator, Faults, SimTransport, SteamSimulator
from ipybatch.testing import VirtualClock

DAY_S = 86_400


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the user's journal or library, or is touched by the user's settings."""
    monkeypatch.setenv("IPYBATCH_JOURNAL", str(tmp_path / "journal.sqlite3"))
    monkeypatch.setenv("IPYBATCH_LIBRARY", str(tmp_path / "library.sqlite3"))
    for name in ("MAX_CONCURRENT_REQUESTS", "BATCH_SIZE", "BATCH_DELAY_SECONDS", "REQUEST_DELAY_MS"):
        monkeypatch.delenv(f"IPYBATCH_STEAM_{name}", raising=False)
    for name in ("CIRCUIT_BREAKER_THRESHOLD", "MAX_RETRIES"):
        monkeypatch.delenv(f"IPYBATCH_STEAM_{name}", raising=False)
    for name in ("MAX_CONCURRENT", "MIN_TIME_MS"):
        monkeypatch.delenv(f"BNET_{name}", raising=False)


class Shop:
    """A simulated store, a library and a clock, all in process and in virtual time."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.clock = VirtualClock()
        self.simulator = SteamSimulator()
        self.asked: list[str] = []

    def open(self, *, faults: Faults | None = None, **options: Any) -> None:
        """Take another store, in the same virtual time."""
        self.simulator = SteamSimulator(faults=faults, **options)

    def client(self) -> httpx2.AsyncClient:
        async def note(request: httpx2.Request) -> None:
            self.asked.append(request.url.params["appids"])

        transport = SimTransport(self.simulator, sleep=asyncio.sleep, now=self.clock.now_s)
        return httpx2.AsyncClient(transport=transport, event_hooks={"request": [note]})

    def store(self, **options: Any) -> SteamStore:
        return SteamStore("https://steam.invalid", client=self.client(), **options)

    def session(self, items: Any, *, cc: str = "us", **arguments: Any) -> BatchSession:
        arguments.setdefault("source", self.store(cc=cc))
        return refresh(items, library=self.library, clock=self.clock, **arguments)

    def run(self, items: Any, **arguments: Any) -> BatchSession:
        session = self.session(items, **arguments)
        self.clock.run(session)
        return session

    def own(self, app_id: int, *, days: float, cc: str = "us") -> None:
        """Put a record of that age into the library."""
        fetched_at_s = self.clock.unix_s() - days * DAY_S
        self.library.put(
            Record(kind="game", key=app_id, place=cc, fetched_at_s=fetched_at_s, data={"name": f"old {app_id}"})
        )


class Azeroth:
    """A simulated Battle.net, a library and a clock, all in process and in virtual time.

    Attributes:
        asked: The paths asked for, tokens left out.
        sent: All requests.
        script: Statuses that a path is answered with first, whatever the service says.
    """

    ID, SECRET = "bnet-client-4711", "bnet-secret-0815"

    def __init__(self, library: Library) -> None:
        self.library = library
        self.clock = VirtualClock()
        self.asked: list[str] = []
        self.sent: list[httpx2.Request] = []
        self.script: dict[str, list[int]] = {}
        self.open()

    def open(self, *, latency_s: float | tuple[float, float] = 0.01, **options: Any) -> None:
        """Take another service, in the same virtual time."""
        options = {"faults": Faults(latency_s=latency_s), **options}
        self.simulator = BattleNetSimulator(
            client_id=self.ID, client_secret=self.SECRET, epoch_s=self.clock.unix_s(), **options
        )
        self.simulator.start_s = self.clock.now_s()

    def client(self, **options: Any) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=_Scripted(self), **options)

    def source(self, client_id: str = ID, client_secret: str = SECRET, **options: Any) -> BattleNet:
        options.setdefault("client", self.client())
        return BattleNet(client_id, client_secret, base_url="https://battlenet.invalid", **options)

    def session(self, items: Any, **arguments: Any) -> RefreshSession:
        arguments.setdefault("source", self.source())
        return refresh(items, library=self.library, clock=self.clock, **arguments)

    def run(self, items: Any, **arguments: Any) -> RefreshSession:
        session = self.session(items, **arguments)
        self.clock.run(session)
        return session

    def own(self, item: Guild | Character, *, days: float, data: dict[str, Any] | None = None) -> None:
        """Put a record of that age into the library."""
        fetched_at_s = self.clock.unix_s() - days * DAY_S
        kind = item.key.partition("/")[0]
        data = {"name": item.name, **(data or {})}
        self.library.put(Record(kind=kind, key=item.key, place="us", fetched_at_s=fetched_at_s, data=data))


class _Scripted(httpx2.AsyncBaseTransport):
    def __init__(self, azeroth: Azeroth) -> None:
        self._azeroth = azeroth
        self._inner = SimTransport(azeroth.simulator, now=azeroth.clock.now_s)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        self._azeroth.sent.append(request)
        if not path.startswith("/oauth"):
            self._azeroth.asked.append(path)
        response = await self._inner.handle_async_request(request)
        statuses = self._azeroth.script.get(path)
        if not statuses:
            return response
        return httpx2.Response(statuses.pop(0), headers={"Date": response.headers["Date"]}, request=request)


@pytest.fixture
def azeroth(library: Library) -> Azeroth:
    return Azeroth(library)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    library = Library(tmp_path / "games.db")
    yield library
    library.close()


@pytest.fixture
def shop(library: Library) -> Shop:
    return Shop(library)


@pytest.fixture
def answering() -> Callable[..., SteamStore]:
    """Make a store that gives one fixed answer to everything."""

    def make(*args: Any, headers: dict[str, str] | None = None, **content: Any) -> SteamStore:
        def answer(request: httpx2.Request) -> httpx2.Response:
            return httpx2.Response(*args, headers=headers, **content)

        return SteamStore("https://steam.invalid", client=httpx2.AsyncClient(transport=httpx2.MockTransport(answer)))

    return make
