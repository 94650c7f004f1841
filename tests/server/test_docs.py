"""What docs/server.md shows runs as it stands there, in the order of the page."""

import os
import re
import shutil
import subprocess

import pytest

from ipybatch.server.extension import IpyBatch
from ipybatch.simulators.demand import demand
from tests.kernels import ROOT
from tests.server.conftest import TOKEN

PAGE = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_every_call_is_answered(served, plan, clock, tmp_path):
    clock.run(plan(lambda item: {"square": item * item}, [1, 2, 3], journal=tmp_path / "journal.sqlite3"))
    demand(60, 2, parts=10).to_csv(tmp_path / "demand.csv", index=False)
    calls = re.findall(r"^```sh\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert len(calls) == 5
    environment = {**os.environ, "URL": served.url, "TOKEN": TOKEN, "NO_PROXY": "127.0.0.1"}
    script = "set -euo pipefail\n" + "\n".join(calls)
    said = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert said.returncode == 0, said.stderr
    assert '"state":"CANCELLED"' in served.get("/submissions").text
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 4


def test_every_option_is_told_with_its_default():
    told = re.findall(r"^\| `c\.IpyBatch\.(\w+)` \| (.*?) \| (.*) \|$", PAGE, flags=re.MULTILINE)
    traits = IpyBatch.class_own_traits(config=True)
    assert {name: (repr(trait.default_value), trait.help) for name, trait in traits.items()} == {
        name: (default, words) for name, default, words in told
    }
