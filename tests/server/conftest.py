"""One Jupyter server for all tests of the extension, and journals to show in it.

served      the server, with this test's own journal and registrations:  served.get("/sessions").json()
write_runs  puts rows of runs into a journal of any schema, quickly;  `plan`, `live`: true sessions
"""

import asyncio
import functools
import sqlite3
import threading
from contextlib import closing

import httpx2
import pytest

from ipybatch.engine.store import journal as journals
from ipybatch.engine.store import lease, registration, schema
from ipybatch.server.delivery import Delivery
from ipybatch.server.services import Services

TOKEN = "t0ken"
BASE = "/ipybatch/api/v1"
DEAD = f"{lease._HOST}/4194304/dead"  # Linux gives no process this number


class Served:
    """A Jupyter server with the extension, on loopback, in a thread of this process.

    Attributes:
        app: The `ServerApp`.
        url: Its base URL, without a slash at the end.
        runs_them: Whether submissions run: each starts a kernel.
        submits_what_is_due: Whether it looks at schedules.
    """

    runs_them = False
    submits_what_is_due = False

    def __init__(self, folder):
        folder.mkdir()
        self._folder, self._ready = folder, threading.Event()
        self._thread = threading.Thread(target=self._serve, name="jupyter-server", daemon=True)
        self._thread.start()
        assert self._ready.wait(30)
        self.client = httpx2.Client(base_url=self.url, headers={"Authorization": f"token {TOKEN}"}, timeout=20)

    @property
    def services(self):
        return self.app.web_app.settings["ipybatch"]

    @property
    def loop(self):
        return self.app.io_loop.asyncio_loop

    def request(self, method, path, **given):
        """Ask below the API's base, or below the server's for a path that begins with /ipybatch or /api."""
        at = path if path.startswith(("/ipybatch", "/api/")) else f"{BASE}{path}"
        self.client.cookies.clear()  # Jupyter gives one to whoever has the token
        return self.client.request(method, at, **given)

    def get(self, path, **given):
        return self.request("GET", path, **given)

    def post(self, path, **given):
        return self.request("POST", path, **given)

    def delete(self, path, **given):
        return self.request("DELETE", path, **given)

    def call(self, coroutine):
        """Await something on the server's loop, and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def close(self):
        self.client.close()
        self.loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(20)

    def _serve(self):
        asyncio.run(self._run())

    async def _run(self):
        from jupyter_server.serverapp import ServerApp
        from tornado.httpserver import HTTPServer
        from tornado.netutil import bind_sockets

        class App(ServerApp):
            def init_signal(self):
                """Signals are the main thread's."""

        self._stopping = asyncio.Event()
        self.app = App(
            root_dir=str(self._folder),
            allow_root=True,
            open_browser=False,
            log_level="ERROR",
            allow_unauthenticated_access=False,  # what anybody may ask must say so itself
            jpserver_extensions={"ipybatch.server": True},
        )
        arguments = [f"--IdentityProvider.token={TOKEN}"]
        self.app.initialize(argv=arguments, find_extensions=False, new_httpserver=False)
        await self.app._post_start()
        (socket,) = bind_sockets(0, "127.0.0.1")
        server = HTTPServer(
            self.app.web_app, max_body_size=self.app.max_body_size, max_buffer_size=self.app.max_buffer_size
        )
        server.add_sockets([socket])
        self.url = f"http://127.0.0.1:{socket.getsockname()[1]}"
        self._ready.set()
        await self._stopping.wait()
        server.stop()
        await server.close_all_connections()
        await self.app._cleanup()


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory):
    """The server; `served` gives it to one test."""
    folder = tmp_path_factory.mktemp("jupyter")
    open_submissions = Services.open_submissions

    @functools.wraps(open_submissions)
    def open_if_run(services):
        return open_submissions(services) if server.runs_them else None

    is_schedule_due = Services.is_schedule_due

    @functools.wraps(is_schedule_due)
    def is_due_if_asked(services):
        return server.submits_what_is_due and is_schedule_due(services)

    with pytest.MonkeyPatch.context() as always:
        always.setattr(Services, "open_submissions", open_if_run)
        delivers = threading.Event()
        always.setattr(Delivery, "_loop", lambda delivery: delivers.set())  # what a test has to tell is that test's
        always.setattr(Services, "is_schedule_due", is_due_if_asked)
        with pytest.MonkeyPatch.context() as patch:
            for name in ("CONFIG", "DATA", "RUNTIME"):
                patch.setenv(f"JUPYTER_{name}_DIR", str(folder / name.lower()))
            server = Served(folder / "root")
        server.delivers = delivers
        yield server
        server.close()


@pytest.fixture
def running(served, patience):
    """The server, and submissions run in it, each in a kernel."""
    served.runs_them = True
    yield served
    served.runs_them = False


@pytest.fixture
def served(jupyter, tmp_path, monkeypatch):
    """The server, with a journal, a folder of registrations and kernels that are this test's alone."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYBATCH_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv(journals.PATH_VARIABLE, str(tmp_path / "journal.sqlite3"))
    monkeypatch.setenv("IPYBATCH_CONFIG", str(tmp_path / "config"))
    yield jupyter
    for kernel in jupyter.get("/api/kernels").json():
        jupyter.delete(f"/api/kernels/{kernel['id']}")


LATEST = len(schema.STEPS)


@functools.cache
def empty(steps):
    """Return the bytes of a journal of that many steps."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        for step in schema.STEPS[:steps]:
            database.executescript(step)
        database.execute(f"PRAGMA user_version = {steps}")
        return database.serialize()


def write_runs(path, runs, *, steps=LATEST):
    """Write rows of runs, each a dict of columns, into a journal of that many steps; return their numbers."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(empty(steps))
        registration.register(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute("BEGIN")
        numbers = []
        for given in runs:
            run = {"name": "night", "state": "completed", "created_s": 100.0, "resource": "r", "group_word": "Batch"}
            run |= given
            into = f"INSERT INTO run ({', '.join(run)}) VALUES ({', '.join('?' * len(run))})"
            numbers.append(database.execute(into, [*run.values()]).lastrowid)
        database.execute("COMMIT")
    return numbers
