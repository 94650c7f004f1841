"""Kernels of Jupyter's session manager: a submission runs in one, is listed with it, and outlives it."""

import asyncio
import os
import signal
import time
from types import SimpleNamespace

import psutil
import pytest

pytest.importorskip("google.genai")
from ipybatch.server.session_kernels import SessionKernels
from ipybatch.server.submission_store import Submissions
from ipybatch.simulators import serve

PROMPTS = 8


@pytest.fixture
def gemini():
    server = serve("gemini", latency_s=0.25)
    yield server
    server.close()


def test_one_outlives_its_kernel(running, gemini):
    """Busy and listed under Running as long as it runs; killed, another kernel goes on; at the end none is left."""
    body = {"template": "text", "name": "night", "requests": [f"prompt {number}" for number in range(PROMPTS)]}
    params = {"lane": "online", "base_url": gemini.url, "concurrency": 1}
    made = running.post("/submissions", json={**body, "params": params}).json()
    path = f"/submissions/{made['id']}"

    def until(is_so):
        late_s = time.monotonic() + 60
        while not is_so(told := running.get(path).json()):
            assert time.monotonic() < late_s, told
            time.sleep(0.05)
        return told

    told = until(lambda told: told["counts"]["completed"] >= 2)
    assert (told["state"], told["starts"]) == ("RUNNING", 1)
    (listed,) = running.get("/api/sessions").json()
    assert (listed["name"], listed["type"]) == ("night", "console")
    assert listed["kernel"]["execution_state"] == "busy"
    first = Submissions().find(made["id"])
    assert first.kernel == listed["kernel"]["id"]
    assert running.get(f"/sessions/{told['session']}").json()["submission"] == made["id"]
    os.kill(int(first.owner.split("/")[1]), signal.SIGKILL)
    told = until(lambda told: told["state"] in ("COMPLETED", "FAILED"))
    assert (told["state"], told["starts"], told["counts"]["completed"]) == ("COMPLETED", 2, PROMPTS)
    assert told["session"].endswith("-1"), "the same run went on"
    while running.get("/api/kernels").json():
        time.sleep(0.05)


@pytest.mark.parametrize("turns", [0, 1, 2, 5, 10, 20, 40])
def test_one_that_jupyter_starts_anew_meanwhile_is_gone_all_the_same(served, turns):
    """Its restarter finds it dead so many turns of the loop before it is to be shut down; no process is left."""

    async def left():
        kernels = SessionKernels(served.app)
        kernel = await kernels.start(SimpleNamespace(id=f"turns-{turns}", name="night"))
        manager = served.app.kernel_manager.get_kernel(kernel)
        os.kill(manager.provisioner.pid, signal.SIGKILL)
        while await manager.is_alive():  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.01)
        looking = asyncio.ensure_future(manager._restarter.poll())
        for _ in range(turns):
            await asyncio.sleep(0)
        await kernels.stop(kernel)
        await asyncio.gather(looking, return_exceptions=True)
        started = psutil.process_iter(["cmdline"])
        processes = [one.pid for one in started if manager.connection_file in (one.info["cmdline"] or ())]
        return kernel in served.app.kernel_manager, await served.app.session_manager.list_sessions(), processes

    assert served.call(left()) == (False, [], [])
