"""A child of a fork forgets what its parent holds; where nothing can fork, nothing is to be forgotten."""

from __future__ import annotations

import os
import subprocess
import sys

from ipybatch.engine.data.fork import after_fork

FORK = """
import os
from ipybatch.engine.data.fork import after_fork

held = ["a lock"]
after_fork(held.clear)
child = os.fork()
if not child:
    os._exit(len(held))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(held))
"""


def test_a_child_forgets_and_its_parent_does_not():
    ended = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["0", "1"]


def test_a_system_that_cannot_fork_is_no_error(monkeypatch):
    monkeypatch.delattr(os, "register_at_fork")
    after_fork(list)
