"""A live session keeps its kernel and the server from being culled, for so many hours; nothing else does."""

import asyncio
import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from jupyter_server.services.kernels.kernelmanager import MappingKernelManager

from ipybatch.server.activity import TOUCH_S, Activity
from tests.server.test_watcher import session

LONG_AGO = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Kernels(MappingKernelManager):
    """Kernels that are idle and were never heard of since long ago; culling one only says so."""

    def __init__(self, *ids, **options):
        super().__init__(**options)
        spec = SimpleNamespace(metadata={})
        for id_ in ids:
            self._kernels[id_] = SimpleNamespace(
                last_activity=LONG_AGO, execution_state="idle", kernel_name="python3", kernel_spec=spec
            )
            self._kernel_connections[id_] = 1

    def shutdown_kernel(self, kernel_id, now=False, restart=False):
        del self._kernels[kernel_id]


class Server:
    """A server with kernels, sessions, and a clock that the test moves."""

    def __init__(self, *kernels, hours=24.0):
        self.kernel_manager = Kernels(*kernels, cull_idle_timeout=60, cull_connected=True)
        self.web_app = SimpleNamespace(settings={})
        self.items, self.now_s = [], 0.0
        self.activity = Activity(
            self, lambda: self.items, ThreadPoolExecutor(1), keep_alive_h=hours, now_s=lambda: self.now_s
        )

    def touch(self):
        asyncio.run(self.activity.touch())

    def cull(self):
        """Let Jupyter's own culler look once; return the kernels that it leaves."""
        asyncio.run(self.kernel_manager.cull_kernels())
        return {*self.kernel_manager.list_kernel_ids()}

    @property
    def is_touched(self):
        return "ipybatch_last_activity" in self.web_app.settings


@pytest.fixture
def server():
    made = []

    def make(*kernels, **options):
        made.append(Server(*kernels, **options))
        return made[-1]

    yield make
    for each in made:
        each.activity._pool.shutdown()


def test_a_kernel_with_a_live_session_is_not_culled(server):
    """Also one that is idle for Jupyter; the one beside it is."""
    jupyter = server("busy", "idle")
    jupyter.items = [session(kernel="busy")]
    jupyter.touch()
    assert jupyter.cull() == {"busy"}
    assert jupyter.is_touched


def test_a_paused_session_is_live(server):
    jupyter = server("busy")
    jupyter.items = [session(kernel="busy", state="paused")]
    jupyter.touch()
    assert jupyter.cull() == {"busy"}


def test_after_so_many_hours_it_is_culled(server):
    jupyter = server("busy", hours=2.0)
    jupyter.items = [session(kernel="busy")]
    jupyter.touch()
    jupyter.now_s = 2 * 3600 - 1
    jupyter.touch()
    assert jupyter.cull() == {"busy"}
    jupyter.kernel_manager._kernels["busy"].last_activity = LONG_AGO
    jupyter.now_s += 1
    jupyter.touch()
    assert jupyter.cull() == set()


def test_the_hours_begin_anew_with_another_start(server):
    jupyter = server("busy", hours=1.0)
    jupyter.items = [session(kernel="busy")]
    jupyter.touch()
    jupyter.items, jupyter.now_s = [], 4000.0
    jupyter.touch()
    jupyter.items = [session(kernel="busy")]
    jupyter.kernel_manager._kernels["busy"].last_activity = LONG_AGO
    jupyter.touch()
    assert jupyter.cull() == {"busy"}


@pytest.mark.parametrize(
    "item",
    [
        session(kernel="idle", state="completed", where=""),
        session(kernel="idle", state="interrupted", where=""),
        session(kernel="another server's"),
        session(kernel=None),
    ],
    ids=["ended", "its process died", "elsewhere", "in a terminal"],
)
def test_what_does_not_run_here_keeps_nothing_alive(server, item):
    jupyter = server("idle")
    jupyter.items = [item]
    jupyter.touch()
    assert not jupyter.is_touched
    assert jupyter.cull() == set()


def test_it_is_touched_before_a_culler_comes(server):
    jupyter = server()
    assert jupyter.activity.every_s == min(TOUCH_S, 15.0)
    jupyter.kernel_manager.cull_idle_timeout = 8
    assert jupyter.activity.every_s == 2.0
    jupyter.kernel_manager.cull_idle_timeout = 0
    assert jupyter.activity.every_s == TOUCH_S


def test_servers_own_last_activity_is_that_of_its_sessions(served, monkeypatch):
    """What its idle shutdown reads, and what it tells JupyterHub's culler; a server without sessions stays as it is."""
    app = served.app
    before = app.web_app.last_activity()
    at = before + dt.timedelta(hours=1)
    assert served.get("/").status_code == 200
    assert app.web_app.last_activity() == before
    monkeypatch.setitem(app.web_app.settings, "ipybatch_last_activity", at)
    assert app.web_app.last_activity() == at


@pytest.mark.parametrize("keep_alive", [True, False])
def test_operators_switch(served, monkeypatch, keep_alive):
    monkeypatch.setattr(type(served.services.options), "keep_alive", keep_alive)
    (extension,) = served.app.extension_manager.extension_apps["ipybatch.server"]
    beside = extension._beside()
    names = [service.__qualname__ for service in beside]
    for service in beside:
        service.close()
    assert ("Activity.run" in names) is keep_alive
