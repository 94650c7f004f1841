"""Our code needs nothing that only Linux, or only POSIX, has: not to be imported, and not to run a session."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.other_system import SYSTEMS

ROOT = Path(__file__).resolve().parents[1]
SESSION = """
import importlib

from tests.other_system import modules

for name in modules():
    importlib.import_module(name)

import ipybatch
from ipybatch import BatchSession, Limits, Permanent, Rate
from ipybatch.__main__ import main
from ipybatch.backends import Processes

async def work(item):
    if item == 3:
        raise Permanent("no such item")
    return item * 2

limits = Limits(concurrency=2, rates=[Rate(100, per_s=1)])
session = BatchSession("coroutines", work, range(5), limits=limits, resource="api")
assert session.run().counts.completed == 4
assert session.results().result.tolist()[-1] == 8
assert BatchSession("threads", lambda item: item + 1, range(3)).run().counts.completed == 3
assert BatchSession("processes", lambda item: item + 1, range(2), backend=Processes(1)).run().counts.completed == 2
assert BatchSession.open("coroutines").run().counts.completed == 4
assert sorted(ipybatch.history(everywhere=True).name.unique()) == ["coroutines", "processes", "threads"]
assert main(["list"]) == 0
session.forget()
assert ipybatch.prune(0) == 2
print("all of it")
"""
MISSING = """
import os, sys

ours = {"__name__": "ipybatch.made_up", "__builtins__": __builtins__}
for code in ("import fcntl", "import os; os.fork()", "from signal import SIGKILL", "import socket; socket.AF_UNIX"):
    try:
        exec(code, ours)
    except (ImportError, AttributeError):
        continue
    raise SystemExit(f"there is no error: {code}")
exec("from pathlib import Path; import sys; found = Path('/proc/self').exists(), sys.platform", ours)
assert ours["found"] == (False, "win32")
assert os.fork and sys.platform != "win32"
"""


def run(system: str, program: str, folder: os.PathLike[str]) -> subprocess.CompletedProcess[str]:
    settings = {"IPYBATCH_JOURNAL": f"{folder}/journal.db", "IPYBATCH_CONFIG": f"{folder}/config"}
    settings |= {"XDG_RUNTIME_DIR": str(folder)}  # where the journals of other tests are not registered
    command = [sys.executable, "-m", "tests.other_system", system, program]
    env = os.environ | settings
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_module_can_be_imported_and_sessions_run(system, tmp_path):
    """Coroutines, threads and processes, limits, journal, history and the command line."""
    ended = run(system, SESSION, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("all of it\n")


def test_what_is_missing_is_missing_for_our_modules_only(tmp_path):
    ended = run("windows", MISSING, tmp_path)
    assert ended.returncode == 0, ended.stderr
