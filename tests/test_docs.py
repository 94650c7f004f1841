"""Code on the pages: what can run is run here in the order of its page, by another test, or says why not."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import CodeType
from typing import Any

import pandas as pd
import pytest

import ipybatch
from ipybatch.library import SteamStore
from ipybatch.simulators import demand, serve

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
BLOCK = re.compile(r"^```python\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)

HERE = (
    "README.md",
    "docs/start.md",
    "docs/your-own-api.md",
    "docs/from-bottleneck.md",
    "docs/from-safe-batch.md",
    "docs/from-auto-batch.md",
    "docs/isolation.md",
    "docs/journal.md",
    "docs/templates.md",
)
ELSEWHERE = {
    "docs/gemini.md": "tests/gemini/test_docs.py",
    "docs/schedules.md": "tests/schedules/test_docs.py",
    "docs/from-tqdm.md": "tests/test_from_tqdm.py",
    "docs/from-concurrent-gemini.md": "tests/gemini/test_docs.py",
    "docs/notify.md": "tests/notify/test_docs.py",
}
NOT_RUN = {
    "docs/api.md": "signatures, made from the source; the examples are doctests",
    "docs/architecture.md": "no Python",
    "docs/battlenet.md": "excerpts; tests/library/battlenet has each",
    "docs/cluster.md": "needs a cluster; notebook 05 runs the same on one",
    "docs/cron.md": "a script that imports the reader's own module",
    "docs/follow.md": "needs a session of another process; tests/session/test_follower.py has one",
    "docs/forecasting.md": "excerpts with a cluster, a bucket and an upload; notebook 03 runs the first",
    "docs/hub.md": "a server's configuration",
    "docs/limits.md": "excerpts; tests/session/test_limit_groups.py and others have each",
    "docs/panel.md": "needs a front end; tests/browser has each",
    "docs/sizing.md": "excerpts",
    "docs/steam.md": "asks the store; notebook 01 runs the same",
    "docs/whose-fault.md": "made from its table, which is played",
}


def blocks(page: str) -> Iterator[CodeType]:
    """Give each block of Python of a page, compiled at its own line; `await` is allowed, as in a notebook."""
    text = PAGES[page].read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        source = "\n" * text.count("\n", 0, found.start(1)) + found[1]
        yield compile(source, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/api.md"])
def test_code_on_a_page_is_python(page: str) -> None:
    assert all(isinstance(block, CodeType) for block in blocks(page))


def test_layers_that_are_drawn_are_those_that_are_held() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    held = [re.findall(r"\w+", layer) for layer in contracts[0]["layers"]]
    drawing = re.search(r"^## Layers$.*?^```$(.*?)^```$", _text("docs/architecture.md"), re.DOTALL | re.MULTILINE)
    assert drawing is not None
    named = [re.findall(r"[\w/]+", line[:42]) for line in drawing[1].splitlines() if line.strip()]
    assert [names for names in named if "engine" not in names[0]] == [names for names in held if names != ["engine"]]
    said = re.search(r"\*\*Layers\.\*\* `([^`]+)`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert said is not None
    assert [re.findall(r"\w+", layer) for layer in said[1].split(">")] == held


VARIABLE = re.compile(r"[\"'`]((?:IPYBATCH|BNET|STEAM|GEMINI|GOOGLE)_[A-Z_]*[A-Z])[\"'`]")
OF_TESTS_AND_CHILDREN = {"IPYBATCH_ATTEMPT", "IPYBATCH_SUPERVISOR", "IPYBATCH_KILL_AT"}


def test_every_variable_of_the_environment_is_told() -> None:
    sources = (ROOT / "src" / "ipybatch").rglob("*.py")
    read = {name for path in sources for name in VARIABLE.findall(path.read_text(encoding="utf-8"))}
    told = set(VARIABLE.findall(_text("docs/configuration.md")))
    assert "IPYBATCH_STEAM_BATCH_SIZE" in read
    assert read - OF_TESTS_AND_CHILDREN == told


def test_of_each_page_with_code_it_is_said_who_runs_it() -> None:
    with_code = {page for page, path in PAGES.items() if BLOCK.search(path.read_text(encoding="utf-8"))}
    assert with_code - {*HERE, *ELSEWHERE, *NOT_RUN} == set()
    assert {*HERE, *ELSEWHERE} <= with_code
    assert [test for test in ELSEWHERE.values() if not (ROOT / test).exists()] == []


class Answers(BaseHTTPRequestHandler):
    """An API of products and their prices, which says how much of its window is left."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with what was asked for."""
        body = json.dumps({"asked": self.path, "name": f"product {self.path.rpartition('/')[2]}"}).encode()
        self.send_response(200)
        for name, value in {"Content-Length": len(body), "Content-Type": "application/json"}.items():
            self.send_header(name, str(value))
        self.send_header("X-RateLimit-Remaining", "199")
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Take a notification."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[str]:
    """The address of such an API."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def reader(service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the reader of a page has: an API, a table, a folder of his own, and a store that a simulator answers for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPYBATCH_JOURNAL", str(tmp_path / "journal.sqlite3"))
    monkeypatch.setenv("IPYBATCH_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("IPYBATCH_LIBRARY", str(tmp_path / "library.sqlite3"))
    for name in ("REQUEST_DELAY_MS", "BATCH_DELAY_SECONDS"):
        monkeypatch.setenv(f"IPYBATCH_STEAM_{name}", "0")
    ipybatch.notify.add_channel("me", service.replace("http", "json"))
    pd.DataFrame({"id": [3, 5, 8], "shelf": ["a", "b", "c"]}).to_csv(tmp_path / "products.csv", index=False)
    ipybatch.BatchSession("wishlist", lambda item: item, [1, 2]).run(verbose=False)
    with serve("steam") as store:
        monkeypatch.setattr(SteamStore.__init__, "__defaults__", (store, *(SteamStore.__init__.__defaults__ or ())[1:]))
        yield {
            "ipybatch": ipybatch,
            "url": store,
            "app_ids": [440, 570, 620],
            "products": pd.read_csv("products.csv"),
            "characters": ["thrall", "jaina"],
            "fetch": lambda name: {"name": name},
            "demand": demand(40, 2, parts=3),
            "sites": [[1, 2], [3]],
            "fit": len,
        }


@pytest.mark.parametrize("page", HERE)
def test_page_runs_from_top_to_bottom(page: str, reader: dict[str, Any], service: str, monkeypatch: Any) -> None:
    """All sessions that it makes complete, those too that it leaves to be started."""
    assert list(blocks(page))
    made: list[ipybatch.BatchSession] = []
    init = ipybatch.BatchSession.__init__

    def note(session: ipybatch.BatchSession, *args: Any, **named: Any) -> None:
        init(session, *args, **named)
        made.append(session)

    monkeypatch.setattr(ipybatch.BatchSession, "__init__", note)
    for block in blocks(page):
        addressed = block.replace(co_consts=_addressed(block.co_consts, service))
        answer = eval(addressed, reader)
        if inspect.isawaitable(answer):
            asyncio.run(_finished(answer))
        for session in made:
            if session.state == "running":  # a reader looks on before going on
                if "starts at" in session.reason:  # but waits for no night
                    session.adjust(start_at="now")
                session.run(verbose=False)
    for session in [each for each in made if not each.lacks]:
        assert session.run(verbose=False).state == "completed"
        assert session.counts.failed == 0


def _text(page: str) -> str:
    return PAGES[page].read_text(encoding="utf-8")


async def _finished(answer: Any) -> None:
    await answer


def _addressed(constants: tuple[Any, ...], service: str) -> tuple[Any, ...]:
    """Return the constants of a block with the service's address in place of the example's."""
    return tuple(
        each.replace("https://api.example.com", service)
        if isinstance(each, str)
        else each.replace(co_consts=_addressed(each.co_consts, service))
        if isinstance(each, CodeType)
        else each
        for each in constants
    )
