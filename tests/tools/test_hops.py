"""How far one item travels through the files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
AT_MOST = {1: 34.0, 10: 20.0}  # one item with a commit of its own, and ten that share one


@pytest.fixture(scope="module")
def printed():
    """What the tool prints, in a process of its own: threads that run already would not be profiled."""
    command = [sys.executable, "-m", "tools.hops", "--edges"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_an_item_hops_between_files_no_more_than_it_did(printed):
    found = re.findall(r"^ *(\d+) at a time: ([\d.]+) hops, ([\d.]+) calls per item$", printed, flags=re.MULTILINE)
    hops = {int(at_once): float(number) for at_once, number, _ in found}
    assert hops.keys() == AT_MOST.keys()
    assert all(5.0 < hops[at_once] <= most for at_once, most in AT_MOST.items()), hops
    assert all(float(calls) > float(number) for _, number, calls in found)


def test_edges_lead_from_file_to_file(printed):
    edges = re.findall(r"^ +[\d.]+  (\S+) -> (\S+)$", printed, flags=re.MULTILINE)
    assert len(edges) > 10
    assert [edge for edge in edges if edge[0] == edge[1]] == []
    assert "engine/run/runner.py" in {left for left, _ in edges}
