from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ipybatch import BatchSession
from ipybatch.library import Library, SteamStore, refresh
from ipybatch.library.records import Record
from ipybatch.simulators import Faults, SimTransport, SteamSimulator
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

    def client(self) -> httpx.AsyncClient:
        async def note(request: httpx.Request) -> None:
            self.asked.append(request.url.params["appids"])

        transport = SimTransport(self.simulator, sleep=asyncio.sleep, now=self.clock.now_s)
        return httpx.AsyncClient(transport=transport, event_hooks={"request": [note]})

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
        def answer(request: httpx.Request) -> httpx.Response:
            return httpx.Response(*args, headers=headers, **content)

        return SteamStore("https://steam.invalid", client=httpx.AsyncClient(transport=httpx.MockTransport(answer)))

    return make
