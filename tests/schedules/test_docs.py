"""What docs/schedules.md shows runs as it stands there, in the order of the page."""

import os
import re
import shutil
import subprocess

import pytest

from ipybatch import schedules
from tests.kernels import ROOT
from tests.server.conftest import TOKEN, jupyter, served  # noqa: F401  # fixtures

PAGE = (ROOT / "docs" / "schedules.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_python(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYBATCH_JOURNAL", str(tmp_path / "journal.sqlite3"))
    monkeypatch.setenv("IPYBATCH_LIBRARY", str(tmp_path / "library.sqlite3"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    exec("\n".join(blocks("python")), {})
    (told,) = schedules.list().to_dict("records")
    assert (told["name"], told["state"], told["last_state"]) == ("night", "waiting", "PENDING")


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_every_call_is_answered(served, tmp_path, monkeypatch):  # noqa: F811  # a fixture
    monkeypatch.setenv("IPYBATCH_LIBRARY", str(tmp_path / "library.sqlite3"))
    environment = {**os.environ, "URL": served.url, "TOKEN": TOKEN, "NO_PROXY": "127.0.0.1"}
    script = "set -euo pipefail\n" + "\n".join(blocks("sh"))
    said = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.count('"state":"waiting"') == 4
    assert '"state":"PENDING"' in said.stdout
    assert served.get("/schedules").json()["items"] == []
