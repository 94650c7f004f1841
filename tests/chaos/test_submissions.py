"""Submissions and two Jupyter servers on one journal: whichever is killed, each submission runs once."""

import os
import signal
import socket
import subprocess
import sys
import time

import httpx2
import pytest

pytest.importorskip("google.genai")
from ipybatch.engine.store import journal as journals
from ipybatch.server.submission_store import Submissions
from ipybatch.simulators import serve

pytestmark = pytest.mark.chaos
PROMPTS = 10


class Server:
    """A Jupyter server in a process of its own."""

    def __init__(self, folder):
        folder.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        arguments = ["--allow-root", "--no-browser", f"--port={port}", "--IdentityProvider.token=t"]
        enabled = "--ServerApp.jpserver_extensions={'ipybatch.server': True}"
        command = [sys.executable, "-m", "jupyter", "server", *arguments, enabled]
        places = {f"JUPYTER_{name}_DIR": str(folder / name) for name in ("CONFIG", "RUNTIME", "DATA")}
        self.process = subprocess.Popen(command, cwd=folder, env={**os.environ, **places}, stderr=subprocess.DEVNULL)
        self.client = httpx2.Client(
            base_url=f"http://127.0.0.1:{port}/ipybatch/api/v1", headers={"Authorization": "token t"}, timeout=20
        )

    def wait(self):
        """Wait until it answers."""
        for _ in range(600):
            try:
                self.client.get("/")
            except httpx2.TransportError:
                time.sleep(0.1)
            else:
                return
        raise TimeoutError

    def end(self, number):
        """End it by a signal."""
        self.process.send_signal(number)
        self.process.wait(60)
        self.client.close()


@pytest.fixture
def servers(tmp_path, monkeypatch):
    monkeypatch.setenv(journals.PATH_VARIABLE, str(tmp_path / "journal.sqlite3"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    servers = [Server(tmp_path / name) for name in "ab"]
    for server in servers:
        server.wait()
    yield servers
    for server in servers:
        if server.process.poll() is None:
            server.end(signal.SIGKILL)


@pytest.fixture
def gemini():
    server = serve("gemini", latency_s=0.4)
    yield server
    server.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_ends_leaves_its_submission_to_the_other(servers, gemini, number):
    """Killed or ended, the same session goes on: no prompt is answered twice."""
    params = {"lane": "online", "base_url": gemini.url, "concurrency": 1}
    body = {"template": "text", "requests": [f"prompt {at}" for at in range(PROMPTS)], "params": params}
    began_s = time.monotonic()
    ids = [servers[0].client.post("/submissions", json=body).json()["id"] for _ in range(2)]
    store = Submissions()

    def stands():
        return [store.find(each) for each in ids]

    while any(row.run is None for row in stands()):
        time.sleep(0.05)
    print(f"from the first POST until both run: {time.monotonic() - began_s:.1f} s")
    time.sleep(1)
    victim = next(server for server in servers if store_started(server, stands()))
    other = next(server for server in servers if server is not victim)
    victim.end(number)
    ended_s = time.monotonic()
    while any(row.ended_s is None for row in stands()):
        assert time.monotonic() - ended_s < 120, stands()
        time.sleep(0.1)
    print(f"after the end of a server until both have ended: {time.monotonic() - ended_s:.1f} s")
    for each in ids:
        told = other.client.get(f"/submissions/{each}").json()
        assert (told["state"], told["counts"]["completed"]) == ("COMPLETED", PROMPTS), told
        assert told["starts"] <= (2 if number == signal.SIGKILL else 1)


@pytest.mark.parametrize(
    ("verb", "path", "state", "starts"),
    [("POST", "/interrupt", "CANCELLED", 1), ("POST", "/restart", "COMPLETED", 2), ("DELETE", "", "COMPLETED", 2)],
)
def test_what_is_done_to_its_kernel_by_hand(servers, gemini, verb, path, state, starts):  # noqa: PLR0917  # a table
    """An interrupt cancels; a kernel that was restarted or shut down is replaced."""
    params = {"lane": "online", "base_url": gemini.url, "concurrency": 1}
    body = {"template": "text", "requests": [f"prompt {at}" for at in range(PROMPTS)], "params": params}
    made = servers[0].client.post("/submissions", json=body).json()["id"]
    store = Submissions()
    while (row := store.find(made)).run is None:
        time.sleep(0.05)
    time.sleep(0.5)
    server = next(server for server in servers if store_started(server, [row]))
    root = server.client.base_url.copy_with(path=f"/api/kernels/{row.kernel}{path}")
    assert server.client.request(verb, root).status_code in (200, 204)
    late_s = time.monotonic() + 90
    while (row := store.find(made)).ended_s is None:
        assert time.monotonic() < late_s, row
        time.sleep(0.1)
    assert (row.state, row.starts) == (state, starts)


def store_started(server, rows):
    """Say whether a server has started one of the kernels of these rows."""
    root = server.client.base_url.copy_with(path="/api/kernels")
    kernels = {kernel["id"] for kernel in server.client.get(root).json()}
    return any(row.kernel in kernels for row in rows)
