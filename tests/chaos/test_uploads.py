"""A server in a process of its own, whose memory is measured while bodies of hundreds of megabytes come."""

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from ipybatch.engine.store import journal as journals

pytestmark = [pytest.mark.chaos, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]
BLOCK = b"0123456789abcde\n" * 62_500  # 1 MB
TOKEN = {"Authorization": "token t0ken"}


@pytest.fixture
def server(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    folders = {f"JUPYTER_{name}_DIR": str(tmp_path / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    told = {**os.environ, **folders, journals.PATH_VARIABLE: str(tmp_path / "journal.sqlite3")}
    options = ["--allow-root", "--no-browser", f"--port={port}", "--IdentityProvider.token=t0ken"]
    extension = "--ServerApp.jpserver_extensions={'ipybatch.server': True}"
    command = [sys.executable, "-m", "jupyter", "server", *options, extension, "--ServerApp.log_level=ERROR"]
    process = subprocess.Popen(command, env=told, cwd=tmp_path)
    client = httpx2.Client(base_url=f"http://127.0.0.1:{port}/ipybatch/api/v1", headers=TOKEN, timeout=60)
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        with suppress(httpx2.TransportError):
            if client.get("/").status_code == 200:
                break
        time.sleep(0.1)
    client.pid = process.pid
    yield client
    client.close()
    process.terminate()
    process.wait(20)


def peak_mb(pid):
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(("size_mb", "status"), [(300, 413), (1000, 413), (60, 422)])
def test_memory_stays_flat_whatever_comes(server, size_mb, status, told):
    before_mb = peak_mb(server.pid)
    headers = {"Content-Type": "text/csv" if status == 413 else "application/x-parquet"}
    if told:
        headers["Content-Length"] = str(size_mb * len(BLOCK))
    answer = server.post("/uploads", content=(BLOCK for _ in range(size_mb)), headers=headers)
    assert answer.status_code == status
    assert status == 422 or answer.json()["allowed"]["max_upload_mb"] == 200
    assert peak_mb(server.pid) - before_mb < 25
    assert server.get("/").status_code == 200
